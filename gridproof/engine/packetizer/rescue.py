"""Packets that go to a second worker, or are taken from one that has not begun them (pure).

A packet whose deadline has passed goes out again at any time. When nothing else is left, an idle worker
relieves those that will be busy longest: of packets that they have not begun, or by running a copy of what
they are at if it will be done with it clearly sooner. Whose commit comes first counts.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Mapping

from ..packets import Packet
from .out import Out
from .places import Worker
from .rates import Rates
from .stock import TRIES, Stock

WATCH_SECONDS = 10.0  # how often a worker's deadlines are looked at; no packet has a shorter one
START_SECONDS = 0.05  # what a packet costs its second worker beyond its entries
CLEARLY = 1.5  # a copy must be so many times faster than what its first worker still needs
LOOK_SECONDS = 0.05  # how old the order of busy workers may be; with very many of them
LOOK_SECONDS_PER_WORKER = 20e-6  # it may be older, so that it costs little


class Rescue:
    """See the module. ``at_end``: as in `Packetizer`."""

    def __init__(
        self, packets: Mapping[int, Packet], out: Out, stock: Stock, rates: Rates, at_end: bool
    ) -> None:
        self._packets = packets
        self._out = out
        self._stock = stock
        self._rates = rates
        self._at_end = at_end
        self._watched: list[tuple[float, int, Worker]] = []  # heap by time: when to look at a worker again
        self._count = 0
        self._late: deque[int] = deque()  # packets past their deadline, some of which are no longer there
        self._busiest: list[Worker] = []  # the one that will be busy longest last
        self._look_at = -math.inf

    def watch(self, worker: Worker, now: float) -> None:
        """This worker has got packets."""
        if not worker.watched:
            self._watch(worker, now + WATCH_SECONDS)

    def look_at(self, worker: Worker, now: float) -> float:
        """See whether a worker should have been done with what it is at; if not, when it should be."""
        if not worker.queue:  # what it has run it will commit, or be lost
            return math.inf
        if worker.since < 0:
            worker.since = now
        first = next(iter(worker.queue))
        due = worker.since + self._packets[first].deadline
        if due > now:
            return due
        if first not in self._out.second and first not in self._late:
            self._late.append(first)
        return math.inf

    def overdue(self, worker: Worker, now: float) -> Packet | None:
        """A packet that another worker, dead or hung or slow, should have committed by now."""
        while self._watched and self._watched[0][0] <= now:
            other = heapq.heappop(self._watched)[2]
            other.watched = False
            if other.queue:
                self._watch(other, min(self.look_at(other, now), now + WATCH_SECONDS))
        for _ in range(min(len(self._late), TRIES)):
            packet_id = self._late.popleft()
            holder = self._out.first.get(packet_id)
            if holder is None or packet_id in self._out.second:
                continue
            packet = self._packets[packet_id]
            if holder is not worker and self._stock.suits(worker, packet):
                return packet._replace(solo=True)
            self._late.append(packet_id)
        return None

    def relieve(self, worker: Worker, now: float) -> Packet | None:
        """A packet of a worker that will be busy longer than this idle one would be with it."""
        if now >= self._look_at:
            busy = self._out.busy.values()
            self._busiest = sorted((w for w in busy if w.queue), key=lambda w: self._busy_for(w, now))
            self._look_at = now + max(LOOK_SECONDS, LOOK_SECONDS_PER_WORKER * len(busy))
        while self._busiest:
            holder = self._busiest[-1]
            if holder is not worker and holder.queue:
                packet = self._unbegun(holder, worker, now) or self._copy(holder, worker, now)
                if packet is not None:
                    self._busiest.pop()
                    return packet
                if next(iter(holder.queue)) not in self._out.second:
                    return None  # it will manage, and so will those that are less busy
            self._busiest.pop()
        return None

    # ------------------------------------------------------------ inside

    def _watch(self, worker: Worker, when: float) -> None:
        worker.watched = True
        self._count += 1
        heapq.heappush(self._watched, (when, self._count, worker))

    def _busy_for(self, worker: Worker, now: float) -> float:
        expected = iter(worker.queue.values())
        return self._first_for(worker, next(expected), now) + sum(expected)

    @staticmethod
    def _first_for(worker: Worker, expected: float, now: float) -> float:
        """Seconds until it is done with its first packet; once late it is taken to be as late again."""
        return abs(expected - (now - worker.since)) if worker.since >= 0 else expected

    def _unbegun(self, holder: Worker, worker: Worker, now: float) -> Packet | None:
        last = next(reversed(holder.queue))
        packet = self._packets[last]
        if len(holder.queue) < 2 or not packet.solo or last in self._out.second:
            return None
        if not START_SECONDS + self._seconds(worker, packet) < self._busy_for(holder, now):
            return None
        self._out.release(holder, last)
        return packet

    def _copy(self, holder: Worker, worker: Worker, now: float) -> Packet | None:
        packet_id, expected = next(iter(holder.queue.items()))
        packet = self._packets[packet_id]
        if packet_id in self._out.second or packet.last < 0:
            return None
        seconds = START_SECONDS + self._seconds(worker, packet)
        if not packet.solo and worker.pace:
            seconds += sum(holder.ran.values()) * holder.pace / worker.pace
        if not CLEARLY * seconds < self._first_for(holder, expected, now):
            return None
        if not (packet.solo or self._at_end):  # if the copy comes first, none of these will count either
            self._late.extend(i for i in [*holder.queue, *holder.ran] if i != packet_id)
        return packet._replace(solo=True)

    def _seconds(self, worker: Worker, packet: Packet) -> float:
        """What a packet will take this worker; infinite if nobody can tell, or it has no time for it."""
        if not self._stock.suits(worker, packet):
            return math.inf
        rate = self._rates.of(worker, self._stock.source(worker, self._stock.files[packet.file]))
        return self._stock.entries_in(packet) / rate if rate else math.inf
