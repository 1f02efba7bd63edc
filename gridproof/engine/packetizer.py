"""Who runs which entries next (pure: no sockets, and no clock of its own; times and rates come in).

A worker asks for one packet at a time. It goes on with its file first, then takes a file at its own site,
then one of the site that is furthest behind. Packets start small, grow to about a second of work at the
worker's own measured rate and shrink towards the end. When nothing else is left, a packet that its worker
should have committed long ago goes to a second one; whose commit comes first counts.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .packets import Packet, cut

FIRST_LIMIT = 500  # entries: what a packet has while no rate is known
FIRST_SECONDS = 0.1
LONGEST_SECONDS = 1.0
SHORTEST_SECONDS = 0.05
HELP_SECONDS = 0.5  # what a site has done by itself sooner than this, a patient worker leaves to it
OVERDUE_SECONDS = 10.0  # and what the worker should take for all that it has, so many times:
OVERDUE_FACTOR = 3.0
DEADLINE_SECONDS = 60.0  # of a packet while its worker's rate is unknown; else, where that is more:
DEADLINE_LEAST = 10.0
DEADLINE_FACTOR = 10.0  # times what it is expected to take
RATE_MEMORY = 0.5  # weight of the newest measurement


@dataclass
class _Worker:
    site: str
    rate: float = 0.0  # entries per second, 0 while unknown
    packets: int = 0
    file: int = -1
    outstanding: dict[int, Packet] = field(default_factory=dict)  # in the order of leasing
    since: dict[int, float] = field(default_factory=dict)  # when they were leased


@dataclass
class _File:
    size: int
    sites: frozenset[str]
    entries: int = -1
    clusters: Sequence[int] = ()
    dropped: bool = False
    next: int = 0
    head: int = 0  # where the packet of the worker that opened it ended
    opener: str = ""
    readers: int = 0
    avoided_by: set[str] = field(default_factory=set)
    avoid: tuple[str, ...] = ()

    @property
    def fresh(self) -> bool:
        return self.entries < 0

    @property
    def left(self) -> int:
        return max(0, self.entries - self.next)


class Packetizer:
    """Cuts files into packets for those who ask; knows what is out, what came back and what is left.

    ``files``: ``(size in bytes or -1, sites that hold a replica, entries or -1, clusters)`` each.
    """

    def __init__(self, files: Iterable[tuple[int, Iterable[str], int, Sequence[int]]]) -> None:
        files = list(files)
        self._files = [_File(size, frozenset(s.upper() for s in sites)) for size, sites, _, _ in files]
        known = [file.size for file in self._files if file.size >= 0]
        typical = sum(known) // len(known) if known else 1
        for file in self._files:
            file.size = file.size if file.size >= 0 else typical
        self._workers: dict[str, _Worker] = {}
        self._holders: dict[int, set[str]] = {}  # workers that have a packet out; mostly one
        self._returned: dict[int, Packet] = {}
        self._rate = 0.0  # of all workers, entries per second
        self._ids = 0
        # Per site ("": files of no site) the fresh files, those with fewest sites first, and the opened.
        self._fresh: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._opened: dict[str, set[int]] = defaultdict(set)
        for index, file in enumerate(self._files):
            for site in file.sites or {""}:
                heapq.heappush(self._fresh[site], (len(file.sites), index))
        self._fresh_count = len(self._files)
        self._fresh_bytes = sum(f.size for f in self._files)
        self._opened_bytes = 0
        self._opened_entries = 0
        self._left_entries = 0  # of opened files, not yet leased
        for index, (_, _, entries, clusters) in enumerate(files):
            if entries >= 0:
                self._learn(index, entries, clusters, 0)

    # ------------------------------------------------------------ workers

    def join(self, worker: str, site: str) -> None:
        """A worker is there; at any moment."""
        self._workers.setdefault(worker, _Worker(site.upper()))

    def leave(self, worker: str) -> list[Packet]:
        """A worker is gone: what it had out comes back, in the order in which it was leased."""
        gone = self._workers.get(worker)
        if gone is None:
            return []
        lost = list(gone.outstanding.values())
        self.give_back(worker, [packet.id for packet in lost])
        del self._workers[worker]
        self._rate -= gone.rate
        if gone.file >= 0:
            self._files[gone.file].readers -= 1
        return lost

    def measured(self, worker: str, entries: int, seconds: float) -> None:
        """A worker has run ``entries`` in ``seconds``."""
        state = self._workers.get(worker)
        if state is None or entries <= 0 or seconds <= 0:
            return
        state.packets += 1
        rate = entries / seconds
        before = state.rate
        state.rate = RATE_MEMORY * rate + (1 - RATE_MEMORY) * before if before else rate
        self._rate += state.rate - before

    # ------------------------------------------------------------ packets

    def lease(self, worker: str, patient: bool = False, now: float = 0.0) -> Packet | None:
        """The worker's next packet, or None if there is nothing for it ``now`` (seconds of any clock).

        A ``patient`` one leaves to other sites what their own workers will have done in a moment.
        """
        state = self._workers[worker]
        packet = (
            self._returned_for(worker, state)
            or self._fresh_or_opened(worker, state, patient)
            or self._overdue(worker, now)
        )
        if packet is not None:
            packet = packet._replace(deadline=self._deadline(packet, state))
            if state.file != packet.file:
                if state.file >= 0:
                    self._files[state.file].readers -= 1
                state.file = packet.file
                self._files[packet.file].readers += 1
            state.outstanding[packet.id] = packet
            state.since[packet.id] = now
            self._holders.setdefault(packet.id, set()).add(worker)
        return packet

    def opened(self, packet_id: int, worker: str, last: int, entries: int, clusters: Sequence[int]) -> Packet:
        """The worker that opened a file tells how many entries it has and where it cut its packet.

        Raises:
            KeyError: this packet is not out with this worker.
        """
        state = self._workers[worker]
        packet = state.outstanding[packet_id]
        if packet.last >= 0:
            return packet
        file = self._files[packet.file]
        packet = packet._replace(last=min(last, entries))
        if not file.fresh and file.head != packet.last:
            raise KeyError(packet_id)  # a second worker has opened it and cut it otherwise
        state.outstanding[packet_id] = packet
        if file.fresh:
            self._learn(packet.file, entries, clusters, packet.last)
        return packet

    def forget(self, file: int) -> list[Packet]:
        """What was thought to be known of a file is wrong; all its packets, which are void now."""
        entry = self._files[file]
        void = [p for p in self._returned.values() if p.file == file]
        for name, state in self._workers.items():
            held = [p for p in state.outstanding.values() if p.file == file]
            for packet in held:
                self._take(name, packet.id)
            void += held
        for packet in void:
            self._returned.pop(packet.id, None)
        self._left_entries -= entry.left
        self._close(file)
        self._fresh_count += 1
        self._fresh_bytes += entry.size
        self._opened_bytes -= entry.size
        self._opened_entries -= entry.entries
        entry.entries, entry.clusters, entry.next, entry.head, entry.opener = -1, (), 0, 0, ""
        for site in entry.sites or {""}:
            heapq.heappush(self._fresh[site], (len(entry.sites), file))
        return void

    def done(self, packet_ids: Iterable[int]) -> None:
        """These packets need not be thought of any more, whoever has them."""
        for packet_id in packet_ids:
            for worker in list(self._holders.get(packet_id, ())):
                self._take(worker, packet_id)
            self._returned.pop(packet_id, None)

    def give_back(self, worker: str, packet_ids: Iterable[int]) -> None:
        """These packets did not happen at this worker and go out again, unless another one has them too."""
        for packet_id in packet_ids:
            packet = self._take(worker, packet_id)
            if packet is not None and packet_id not in self._holders:
                self._put_back(packet)

    def avoid(self, file: int, storage_elements: tuple[str, ...], worker: str) -> None:
        """A read failed: other workers come first for this file, and these SEs last."""
        self._files[file].avoided_by.add(worker)
        self._files[file].avoid = storage_elements
        for packet_id, packet in list(self._returned.items()):
            if packet.file == file:
                self._returned[packet_id] = packet._replace(avoid=storage_elements)

    def drop(self, file: int) -> None:
        """Give a file up: nothing of it is leased any more, and what comes back is forgotten."""
        entry = self._files[file]
        entry.dropped = True
        self._returned = {i: p for i, p in self._returned.items() if p.file != file}
        if entry.fresh:
            self._fresh_count -= 1
            self._fresh_bytes -= entry.size
            entry.entries = 0
        else:
            self._left_entries -= entry.left
            self._close(file)
        entry.next = entry.entries

    def outstanding(self, worker: str) -> list[Packet]:
        """What is out with a worker, in the order of leasing."""
        state = self._workers.get(worker)
        return list(state.outstanding.values()) if state else []

    @property
    def exhausted(self) -> bool:
        """Nothing is left to lease: all that is missing is out with workers."""
        return not (self._returned or self._fresh_count or self._left_entries)

    @property
    def idle(self) -> bool:
        """Nothing is left and nothing is out."""
        return self.exhausted and not self._holders

    @property
    def working(self) -> int:
        """Workers that hold packets."""
        return sum(1 for state in self._workers.values() if state.outstanding)

    @property
    def out(self) -> int:
        """Packets that are out with workers."""
        return len(self._holders)

    def entries(self, file: int) -> int:
        """Entries of a file, −1 while nothing is known of it."""
        return self._files[file].entries

    def entries_by_file(self) -> list[int]:
        """Entries of every file, −1 where nobody has opened it."""
        return [file.entries for file in self._files]

    @property
    def expected_entries(self) -> int:
        """Entries of the dataset: known for opened files, guessed from their sizes for the others."""
        return self._opened_entries + (
            round(self._fresh_bytes / self._entry_bytes()) if self._opened_bytes else 0
        )

    # ------------------------------------------------------------ inside

    def _learn(self, index: int, entries: int, clusters: Sequence[int], head: int) -> None:
        file = self._files[index]
        file.head = file.next = head
        file.entries, file.clusters, file.opener = entries, clusters, ""
        self._fresh_count -= 1
        self._fresh_bytes -= file.size
        self._opened_bytes += file.size
        self._opened_entries += entries
        self._left_entries += file.left
        if file.left:
            for site in file.sites or {""}:
                self._opened[site].add(index)

    @staticmethod
    def _deadline(packet: Packet, state: _Worker) -> float:
        if not state.rate:
            return DEADLINE_SECONDS
        entries = packet.last - packet.first if packet.last >= 0 else packet.limit
        return max(DEADLINE_LEAST, math.ceil(DEADLINE_FACTOR * entries / state.rate))

    def _take(self, worker: str, packet_id: int) -> Packet | None:
        """Take a packet from a worker, if that has it."""
        state = self._workers.get(worker)
        packet = state.outstanding.pop(packet_id, None) if state else None
        if state is not None and packet is not None:
            del state.since[packet_id]
            self._holders[packet_id].discard(worker)
            if not self._holders[packet_id]:
                del self._holders[packet_id]
        return packet

    def _put_back(self, packet: Packet) -> None:
        file = self._files[packet.file]
        if file.dropped:
            return
        if packet.last < 0 and file.fresh:
            file.opener = ""
            for site in file.sites or {""}:
                heapq.heappush(self._fresh[site], (len(file.sites), packet.file))
        elif packet.last >= 0:
            self._returned[packet.id] = packet._replace(solo=True)

    def _overdue(self, worker: str, now: float) -> Packet | None:
        """A packet that another worker, dead or hung or slow, should have committed long ago."""
        own = self._workers[worker].outstanding
        for name, state in self._workers.items():
            if name == worker:
                continue
            entries = sum(p.last - p.first if p.last >= 0 else p.limit for p in state.outstanding.values())
            due = OVERDUE_SECONDS + OVERDUE_FACTOR * (entries / state.rate if state.rate else 0.0)
            for packet_id, packet in state.outstanding.items():
                late = now - state.since[packet_id] > due
                if late and packet_id not in own and not self._shuns(self._files[packet.file], worker):
                    return packet._replace(solo=True)
        return None

    def _returned_for(self, worker: str, state: _Worker) -> Packet | None:
        best: Packet | None = None
        for packet in self._returned.values():
            file = self._files[packet.file]
            if self._shuns(file, worker):
                continue
            if state.site in file.sites or not file.sites:
                best = packet
                break
            best = best or packet
        if best is not None:
            del self._returned[best.id]
        return best

    def _shuns(self, file: _File, worker: str) -> bool:
        return worker in file.avoided_by and any(w not in file.avoided_by for w in self._workers)

    def _fresh_or_opened(self, worker: str, state: _Worker, patient: bool) -> Packet | None:
        current = self._files[state.file] if state.file >= 0 else None
        near = current is not None and (state.site in current.sites or not current.sites)
        if current is not None and near and current.left and not self._shuns(current, worker):
            return self._cut(state.file, state)
        for site in (state.site, ""):
            packet = self._at(site, worker, state)
            if packet is not None:
                return packet
        for site in self._furthest_behind(state, HELP_SECONDS if patient else 0.0):
            packet = self._at(site, worker, state)
            if packet is not None:
                return packet
        return None

    def _at(self, site: str, worker: str, state: _Worker) -> Packet | None:
        index = self._fresh_at(site, worker)
        if index is not None:
            return self._open(index, worker, state)
        index = self._opened_at(site, worker)
        return self._cut(index, state) if index is not None else None

    def _furthest_behind(self, helper: _Worker, least: float) -> list[str]:
        """The other sites that are busy for ``least`` s, first the one that will be longest."""
        rates: dict[str, float] = defaultdict(float)
        for worker in self._workers.values():
            rates[worker.site] += worker.rate or helper.rate or 1.0

        def seconds(site: str) -> float:
            left = float(sum(self._files[i].left for i in self._opened[site]))
            waiting = (self._files[i].size for _, i in self._fresh[site] if self._waiting(i))
            left += sum(max(1, size) for size in waiting) / self._entry_bytes()
            return left / rates[site] if rates[site] else float("inf")

        others = [s for s in {*self._fresh, *self._opened} if s not in (helper.site, "")]
        busy = {site: seconds(site) for site in others if self._has_work(site)}
        return sorted((s for s in busy if busy[s] >= least), key=lambda s: (-busy[s], s))

    def _has_work(self, site: str) -> bool:
        return bool(self._opened.get(site)) or any(self._waiting(i) for _, i in self._fresh.get(site, ()))

    def _waiting(self, index: int) -> bool:
        return self._files[index].fresh and not self._files[index].opener

    def _entry_bytes(self) -> float:
        if not (self._opened_bytes and self._opened_entries):
            return 1.0  # nothing is known yet
        return self._opened_bytes / self._opened_entries

    def _fresh_at(self, site: str, worker: str) -> int | None:
        heap = self._fresh.get(site)
        shunned = []
        found = None
        while heap:
            item = heapq.heappop(heap)
            if not self._waiting(item[1]):
                continue
            if self._shuns(self._files[item[1]], worker):
                shunned.append(item)
                continue
            found = item[1]
            break
        for item in shunned:
            heapq.heappush(self._fresh[site], item)
        return found

    def _opened_at(self, site: str, worker: str) -> int | None:
        candidates = [i for i in self._opened.get(site, ()) if not self._shuns(self._files[i], worker)]
        if not candidates:
            return None
        return max(candidates, key=lambda i: (self._files[i].left / (1 + self._files[i].readers), -i))

    def _open(self, index: int, worker: str, state: _Worker) -> Packet:
        self._files[index].opener = worker
        avoid = self._files[index].avoid
        return Packet(self._new_id(), index, 0, -1, self._wanted(state), self._near_end(), avoid)

    def _cut(self, index: int, state: _Worker) -> Packet:
        file = self._files[index]
        end = cut(file.next, self._wanted(state), file.entries, file.clusters)
        packet = Packet(self._new_id(), index, file.next, end, 0, self._near_end(), file.avoid)
        self._left_entries -= end - file.next
        file.next = end
        if not file.left:
            self._close(index)
        return packet

    def _close(self, index: int) -> None:
        for site in self._files[index].sites or {""}:
            self._opened[site].discard(index)

    def _new_id(self) -> int:
        self._ids += 1
        return self._ids

    def _wanted(self, state: _Worker) -> int:
        """Entries for the worker's next packet."""
        if not state.rate:
            return FIRST_LIMIT
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(state.packets, 10))
        share = self._remaining() / (2 * len(self._workers))
        return max(1, round(max(SHORTEST_SECONDS * state.rate, min(seconds * state.rate, share))))

    def _remaining(self) -> float:
        return self._left_entries + self._fresh_bytes / self._entry_bytes()

    def _near_end(self) -> bool:
        return self._remaining() < SHORTEST_SECONDS * self._rate
