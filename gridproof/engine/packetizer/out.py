"""Which packets are out with which workers (pure)."""

from __future__ import annotations

from .places import Worker


class Out:
    """At most two workers have the same packet: ``first`` and, where it was given out again, ``second``."""

    def __init__(self) -> None:
        self.first: dict[int, Worker] = {}
        self.second: dict[int, Worker] = {}
        self.busy: dict[str, Worker] = {}  # those that have any, by name

    def hand(self, worker: Worker, packet_id: int, expected: float, now: float) -> None:
        """Give a packet, which should take ``expected`` seconds, to a worker."""
        if packet_id in self.first:
            self.second[packet_id] = worker
        else:
            self.first[packet_id] = worker
        if not worker.queue:
            worker.since = now
            if not worker.ran:
                self.busy[worker.name] = worker
        worker.queue[packet_id] = expected

    def has(self, worker: Worker, packet_id: int) -> bool:
        """This worker has this packet."""
        return packet_id in worker.queue or packet_id in worker.ran

    def release(self, worker: Worker, packet_id: int) -> bool:
        """Take a packet from a worker; whether it had it and nobody has it now."""
        if not self.has(worker, packet_id):
            return False
        other = self.second.pop(packet_id, None)
        if other is None:
            del self.first[packet_id]
        elif other is not worker:
            self.first[packet_id] = other
        self._forget(worker, packet_id)
        return other is None

    def release_all(self, packet_id: int) -> bool:
        """Take a packet from all who have it; whether anybody had."""
        worker = self.first.pop(packet_id, None)
        if worker is None:
            return False
        self._forget(worker, packet_id)
        if packet_id in self.second:
            self._forget(self.second.pop(packet_id), packet_id)
        return True

    def _forget(self, worker: Worker, packet_id: int) -> None:
        if worker.ran.pop(packet_id, None) is None:
            if next(iter(worker.queue)) == packet_id:
                worker.since = -1.0  # the next one begins when it says so
            del worker.queue[packet_id]
        if not worker.queue and not worker.ran:
            del self.busy[worker.name]
