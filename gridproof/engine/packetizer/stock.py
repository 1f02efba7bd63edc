"""Files as packets are cut from them: what is left where, and which file comes next (pure).

Each question is answered in constant or logarithmic time: sums are kept per site, lists and heaps may hold
what is no longer there, and are cleaned when it comes up.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Iterable, Sequence

from ..packets import Packet, cut
from .places import SHARES, File, Node, Placed, Site, Worker
from .rates import Rates

SURVEY_SECONDS = 0.5  # how old the order of sites may be
TRIES = 8  # packets looked at for a worker that should not have the first ones


class Stock:
    """All files, by the sites that hold them. Files of no site are at ``nowhere``, near to everybody."""

    def __init__(self, files: Iterable[Placed], rates: Rates) -> None:
        self._rates = rates
        self.sites: dict[str, Site] = {}
        self.nowhere = self.site("")
        self._nodes: dict[str, Node] = {}  # those that files lie on, by host
        self.returned: dict[int, Packet] = {}
        self.troubled: deque[int] = deque()  # packets of `returned` that anybody may have who has not failed
        self.left = 0  # entries of known files in no packet that is out
        self.bytes = 0  # of files that nobody has opened
        self.unstarted = 0
        self._opened_entries = 0
        self._opened_bytes = 0
        self._ranking: list[Site] = []
        self._surveyed = -math.inf
        self._starts = 0  # of files, since then
        self.files = self._take_in(files)

    def site(self, name: str) -> Site:
        """A site by its name, however that is written."""
        name = name.upper()
        if name not in self.sites:
            self.sites[name] = Site(name)
        return self.sites[name]

    # ------------------------------------------------------------ estimates

    @property
    def exhausted(self) -> bool:
        """Everything is in packets, and these are all out with workers."""
        return not (self.left or self.bytes or self.returned)

    @property
    def density(self) -> float:
        """Entries per byte of file; 0 while nobody knows."""
        return self._opened_entries / self._opened_bytes if self._opened_bytes else 0.0

    @property
    def remaining(self) -> float:
        """Entries that nobody has been given, by sizes where nobody has looked; infinite: no idea."""
        if not self.bytes:
            return self.left
        return self.left + self.bytes * self.density if self._opened_entries else math.inf

    @property
    def expected_entries(self) -> int:
        """Entries of all files: known, or guessed from their sizes."""
        return self._opened_entries + round(self.bytes * self.density)

    def behind(self, site: Site) -> float:
        """Seconds that a site's workers need for what is left of its files; infinite if it has none."""
        if not site.workers:
            return math.inf
        entries = (site.left + site.bytes * (self.density or 1.0)) / SHARES
        return entries / (self._rates.of_site(site) or site.workers)

    def furthest_behind(self, now: float) -> list[Site]:
        """Sites that had work left at the last survey, in this order."""
        if now - self._surveyed >= SURVEY_SECONDS or self._starts > len(self.sites):
            self._surveyed, self._starts = now, 0
            for site in self.sites.values():
                site.behind = self.behind(site)
                site.order = []
            working = [s for s in self.sites.values() if s is not self.nowhere and (s.left or s.bytes)]
            self._ranking = sorted(working, key=lambda site: -site.behind)
        return self._ranking

    # ------------------------------------------------------------ what comes next

    def on_node(self, worker: Worker) -> File | None:
        """A file on the worker's own node: one that nobody has started, or else the one with most left."""
        node = self._nodes.get(worker.host)
        if node is None:
            return None
        while node.unstarted:
            file = node.unstarted.pop()
            home = worker.site if worker.site in file.sites else self.nowhere
            if not file.started and home in file.sites and not self.shuns(worker, file):
                node.started.append(file)
                self._start(file, home)
                return file
        node.started = [file for file in node.started if file.left or file.entries < 0]
        open_ones = (file for file in node.started if file.left and not self.shuns(worker, file))
        return max(open_ones, key=lambda file: file.left / (1 + file.readers), default=None)

    def next_file(self, site: Site, worker: Worker, now: float) -> File | None:
        """The site's file to cut from next: one that nobody has started, or else the one with most left."""
        return self._unstarted(site, now) or self._shared(site, worker)

    def _unstarted(self, site: Site, now: float) -> File | None:
        """A file that nobody has started, first of those that this site alone holds, then of those that it
        shares with the site that is furthest behind."""
        if not site.unstarted:
            return None
        self.furthest_behind(now)
        if not site.order:
            site.order = sorted(site.beside, key=lambda other: math.inf if other is site else other.behind)
        while site.order:
            files = site.beside[site.order[-1]]
            while files:
                file = files.pop()
                if not file.started:
                    self._start(file, site)
                    return file
            del site.beside[site.order.pop()]
        return None

    def _shared(self, site: Site, worker: Worker) -> File | None:
        heap = site.shared
        while heap:
            key, index, file = heap[0]
            if not file.left:
                heapq.heappop(heap)
                continue
            per_reader = -file.left / (1 + file.readers)
            if per_reader > key:
                heapq.heapreplace(heap, (per_reader, index, file))
                continue
            if file.avoided_by and self.shuns(worker, file):
                others = [f for _, _, f in heap if f.left and not self.shuns(worker, f)]
                return max(others, key=lambda f: f.left / (1 + f.readers), default=None)
            return file
        return None

    def take_returned(self, queue: deque[int], worker: Worker) -> Packet | None:
        """A packet that has come back and that this worker may have."""
        unsuited = 0
        while queue and unsuited < TRIES:
            packet = self.returned.get(queue[0])
            if packet is None:
                queue.popleft()
            elif not self.suits(worker, packet):
                queue.rotate(-1)
                unsuited += 1
            else:
                queue.popleft()
                self._take_back(packet)
                return packet
        return None

    def shuns(self, worker: Worker, file: File) -> bool:
        """This worker has failed on the file, and there is one that has not."""
        return worker in file.avoided_by and len(file.avoided_by) < self._rates.workers

    def suits(self, worker: Worker, packet: Packet) -> bool:
        """A packet that has been out may go to this worker, which has the time for it."""
        file = self.files[packet.file]
        if self.shuns(worker, file):
            return False
        return self._rates.fits(worker, self.source(worker, file), self.entries_in(packet))

    def source(self, worker: Worker, file: File) -> Site:
        """Where a worker will read a file, as far as can be told."""
        return worker.site if worker.site in file.sites else file.sites[0]

    def guess(self, file: File) -> int:
        """Entries of a file that nobody has opened, by its size; very many if nobody knows."""
        return round(file.size * self.density) if self._opened_entries else sys.maxsize

    def entries_in(self, packet: Packet) -> int:
        """Entries of a packet, for one of an unopened file those that it may have."""
        if packet.last >= 0:
            return packet.last - packet.first
        return min(packet.limit, self.guess(self.files[packet.file]))

    # ------------------------------------------------------------ what changes

    def learn(self, file: File, entries: int, clusters: Sequence[int], head: int) -> None:
        """A file's entries have become known; those before ``head`` are in a packet."""
        file.entries, file.clusters, file.next = entries, clusters, head
        self._opened_entries += entries
        self._opened_bytes += file.size
        self._add_bytes(file, -file.size)
        self._add_entries(file, file.left)
        if file.started:
            self._share(file)

    def unlearn(self, file: File) -> None:
        """A file's entries are not what they were thought to be; nothing of it is in a packet any more."""
        self._add_entries(file, -file.left)
        self._opened_entries -= file.entries
        self._opened_bytes -= file.size
        self._add_bytes(file, file.size)
        file.entries, file.clusters, file.next = -1, (), 0
        if file.started:
            self._settle(file, None)
            file.started = False
            self._lay_out(file)

    def cut(self, file: File, wanted: int) -> tuple[int, int]:
        """Cut about ``wanted`` entries off a file with entries left; returns first and last (exclusive)."""
        first = file.next
        last = cut(first, wanted, file.entries, file.clusters)
        file.next = last
        self._add_entries(file, first - last)
        if last == file.entries:
            file.clusters = ()
        return first, last

    def put_back(self, packet: Packet) -> None:
        """A packet has come back."""
        file = self.files[packet.file]
        self.returned[packet.id] = packet
        if packet.last >= 0:
            self._add_entries(file, packet.last - packet.first)
        for site in file.sites:
            site.returned.append(packet.id)
        if file.avoided_by:
            self.troubled.append(packet.id)

    def withdraw(self, packet_id: int) -> None:
        """A packet that has come back need not go out again."""
        packet = self.returned.get(packet_id)
        if packet is not None:
            self._take_back(packet)

    def drop(self, file: File) -> list[int]:
        """Nothing of a file goes out any more; returns its packets that had come back."""
        file.dropped = True
        if not file.started:
            self._start(file, None)
        dropped = [p for p in self.returned.values() if p.file == file.index]
        for packet in dropped:
            self._take_back(packet)
            self._opened_entries -= max(0, packet.last - packet.first)
        if file.entries < 0:
            self._add_bytes(file, -file.size)
            file.entries = 0
        self._opened_entries -= file.left
        self._add_entries(file, -file.left)
        file.next = file.entries
        return [packet.id for packet in dropped]

    # ------------------------------------------------------------ inside

    def _take_in(self, files: Iterable[Placed]) -> list[File]:
        given = list(files)
        known = [file.size for file in given if file.size >= 0]
        typical = sum(known) // len(known) if known else 1
        places: dict[tuple[str, ...], tuple[Site, ...]] = {}
        taken = []
        for index, (size, names, entries, clusters, hosts) in enumerate(given):
            key = tuple(sorted({name.upper() for name in names})) or ("",)
            sites = places.setdefault(key, tuple(self.site(name) for name in key))
            file = File(index, max(1, size if size >= 0 else typical), sites, hosts)
            self._add_bytes(file, file.size)
            if entries > 0:  # nobody would find out whether an empty file still is
                self.learn(file, entries, clusters, 0)
            taken.append(file)
        # Lists are taken from at their ends: what lies on a node is left to that node's own workers.
        for file in sorted(taken, key=lambda file: (not file.hosts, -file.index)):
            self._lay_out(file)
        return taken

    def _lay_out(self, file: File) -> None:
        """Put a file among those that nobody has started."""
        if file.entries == 0:
            file.started = True
            return
        self.unstarted += 1
        for host in file.hosts:
            self._nodes.setdefault(host, Node()).unstarted.append(file)
        for site in file.sites:
            site.unstarted += 1
            for other in file.sites:
                if other is not site or len(file.sites) == 1:
                    site.beside.setdefault(other, []).append(file)
            site.order = []

    def _start(self, file: File, home: Site | None) -> None:
        file.started = True
        self._settle(file, home)
        self._starts += 1
        self.unstarted -= 1
        for site in file.sites:
            site.unstarted -= 1
        if file.entries >= 0:
            self._share(file)

    def _settle(self, file: File, home: Site | None) -> None:
        """What is left of a file is the work of one site now, or (None) of all that hold it."""
        entries, size = (file.left, 0) if file.entries >= 0 else (0, file.size)
        self._add_entries(file, -entries)
        self._add_bytes(file, -size)
        file.home = home
        self._add_entries(file, entries)
        self._add_bytes(file, size)

    def _share(self, file: File) -> None:
        if file.left:
            for site in file.sites:
                heapq.heappush(site.shared, (-float(file.left), file.index, file))

    def _take_back(self, packet: Packet) -> None:
        del self.returned[packet.id]
        if packet.last >= 0:
            self._add_entries(self.files[packet.file], packet.first - packet.last)

    def _add_entries(self, file: File, entries: int) -> None:
        self.left += entries
        if file.home is not None:
            file.home.left += entries * SHARES
            return
        for site in file.sites:
            site.left += entries * file.share

    def _add_bytes(self, file: File, size: int) -> None:
        self.bytes += size
        if file.home is not None:
            file.home.bytes += size * SHARES
            return
        for site in file.sites:
            site.bytes += size * file.share
