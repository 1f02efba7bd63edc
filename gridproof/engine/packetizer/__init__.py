"""Who runs which entries next (pure: no sockets, and no clock of its own; times and rates come in).

A worker goes on with its file first, then takes another one on its own node, then one at its own site, then
one of the site that is furthest behind, if reading from there takes it less time than the site's own workers
still have to work.
Packets start small, grow to about a second of work at the rate measured for this worker and this source,
and shrink towards the end so that all finish together. Many workers get longer packets, so that the master
can keep up with them, and one that ends soon shorter ones. Where files are so small that a packet is over in
no time, several go out at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from ..packets import Packet
from .out import Out
from .places import File, Placed, Site, Worker
from .rates import TIME_MARGIN, Rates
from .rescue import Rescue
from .stock import Stock

FIRST_ENTRIES = 10  # in a packet as long as nobody's rate is known
FIRST_SECONDS = 0.1  # of a worker's first packet from a source; each one after is twice as long, up to
LONGEST_SECONDS = 1.0
SHORTEST_SECONDS = 0.05  # towards the end
END_SHARE = 0.5  # of the time that all workers need for all that is left, at most
LONG_PER_SECOND = 1_000  # the master hands out no more of the longest packets than this,
SHORT_PER_SECOND = 4_000  # and of the shortest
TINY_SECONDS = 0.05  # shorter packets go out together, until they make up as much
TINY_MOST = 0.2  # and none of them is meant to take longer, should its file be larger than it seems
TOGETHER = 32
TOGETHER_UNTIL = 2.0  # seconds before the end
HELP_SECONDS = 0.5  # a patient worker helps another site only if that is so much slower by itself
STALLED_SECONDS = 2.0  # a site whose workers have not come for so long is helped in any case
SITES_TRIED = 4
DEADLINE_SECONDS = 60.0  # of a packet whose time cannot be told; else, where that is more:
DEADLINE_LEAST = 10.0
DEADLINE_FACTOR = 10.0  # times what it should take


class Packetizer:
    """Cuts files into packets for those who ask; knows what is out, what came back and what is left.

    ``at_end``: workers commit when nothing is left for them, so that a copy makes worthless all that its
    worker has run.
    ``packets`` has, by their numbers, those that are out or have come back.
    """

    def __init__(self, files: Iterable[Placed], at_end: bool = False) -> None:
        self.packets: dict[int, Packet] = {}
        self.last_id = 0
        self._workers: dict[str, Worker] = {}
        self._rates = Rates()
        self._stock = Stock(files, self._rates)
        self._out = Out()
        self._rescue = Rescue(self.packets, self._out, self._stock, self._rates, at_end)
        self._at_end = at_end
        self._first = self._shortest = self._longest = 0.0  # seconds of a packet

    # ------------------------------------------------------------ workers

    def join(self, name: str, site: str, host: str = "") -> None:
        """A worker is there; at any moment."""
        if name not in self._workers:
            worker = self._workers[name] = Worker(name, self._stock.site(site), host)
            self._rates.join(worker)
            self._fit_sizes()

    def leave(self, name: str) -> Packet | None:
        """A worker is gone, what it had goes out again; returns the packet that it was at, if known."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return None
        begun = next(iter(worker.queue)) if worker.queue and worker.since >= 0 else 0
        packet = self.packets.get(begun)
        self._rates.leave(worker)
        self._fit_sizes()
        self._read(worker, None)
        for file in worker.avoids:
            file.avoided_by -= {worker}
        suspects = list(worker.queue)
        self._return(worker, [*suspects, *worker.ran], suspects)
        return packet

    def ran(self, name: str, packet_id: int, entries: int, seconds: float, source: str) -> None:
        """A worker has run a packet, read at the site ``source`` ("": at none), and will commit it."""
        worker = self._workers.get(name)
        if worker is None:
            return
        self._rates.measured(worker, entries, seconds, source.upper())
        expected = worker.queue.pop(packet_id, None)
        if expected is not None:
            worker.ran[packet_id] = expected
            worker.since = -1.0

    def begin(self, name: str, packet_id: int, now: float) -> bool:
        """A worker begins with a packet that waited behind others; False if it does not have it any more."""
        worker = self._workers.get(name)
        if worker is None or packet_id not in worker.queue:
            return False
        for earlier in list(worker.queue):
            if earlier == packet_id:
                break
            worker.ran[earlier] = worker.queue.pop(earlier)
        worker.since = now
        return True

    def late(self, name: str, packet_id: int, now: float) -> bool:
        """A worker says that a packet's deadline has passed; False if nobody needs that packet any more."""
        worker = self._workers.get(name)
        if worker is not None and self._out.has(worker, packet_id):
            self._rescue.look_at(worker, now)
        return packet_id in self.packets

    # ------------------------------------------------------------ packets

    def lease(self, name: str, now: float, patient: bool = False, ends: float = math.inf) -> list[Packet]:
        """The worker's next packets, none if there is nothing for it ``now`` (seconds of any clock).

        A ``patient`` one leaves to other sites what their own workers will have done in a moment. One that
        ``ends`` soon gets only what it will have run by then, with a margin.
        """
        worker = self._workers.get(name)
        if worker is None:
            return []
        worker.left = ends - now - sum(worker.queue.values())
        if worker.since < 0:
            worker.since = now
        end = self._end_in()
        packet = self._again(worker, self._rescue.overdue(worker, now), now, end)
        packet = packet or self._come_back(worker, now, end) or self._near(worker, now, end)
        packet = packet or self._far_away(worker, now, end, patient)
        if packet is None and not worker.queue:
            packet = self._again(worker, self._rescue.relieve(worker, now), now, end)
        if packet is None:
            return []
        self._rescue.watch(worker, now)
        packets = [packet]
        if end > TOGETHER_UNTIL and worker.pace and not packet.solo:
            seconds = worker.queue[packet.id]
            while seconds < TINY_SECONDS and len(packets) < TOGETHER:
                packet = self._near(worker, now, end, TINY_MOST)
                if packet is None:
                    break
                packets.append(packet)
                seconds += worker.queue[packet.id]
        return packets

    def short_of_time(self, name: str) -> bool:
        """There is something left, but when it asked last this worker had no time for one entry of it."""
        worker = self._workers.get(name)
        if worker is None or self._stock.exhausted or not self._rates.of(worker, worker.site):
            return False
        return not self._has_time(worker, worker.site)

    def opened(self, name: str, packet_id: int, last: int, entries: int, clusters: Sequence[int]) -> bool:
        """The worker that opened a file tells how many entries it has and where it cut its packet; False if
        it does not have that packet any more, or another one has cut it differently."""
        worker, packet = self._workers.get(name), self.packets.get(packet_id)
        if worker is None or packet is None or not self._out.has(worker, packet_id):
            return False
        file = self._stock.files[packet.file]
        last = min(last, entries)
        if packet.last >= 0:
            return (packet.last, file.entries) == (last, entries)
        if file.dropped:
            return False
        self.packets[packet_id] = packet._replace(last=last)
        self._stock.learn(file, entries, clusters, last)
        return True

    def done(self, packet_ids: Iterable[int]) -> None:
        """These packets need not be thought of any more, whoever has them."""
        for packet_id in packet_ids:
            self.packets.pop(packet_id, None)
            if not self._out.release_all(packet_id):
                self._stock.withdraw(packet_id)

    def give_back(self, name: str, packet_ids: Iterable[int], suspects: Collection[int] = ()) -> None:
        """These packets did not happen at this worker and go out again, unless another one has them too.

        The ``suspects`` among them will run alone.
        """
        worker = self._workers.get(name)
        if worker is not None:
            self._return(worker, packet_ids, suspects)

    def avoid(self, index: int, storage_elements: tuple[str, ...], name: str) -> None:
        """A read failed: other workers come first for this file, and these SEs last."""
        file, worker = self._stock.files[index], self._workers[name]
        file.avoid = storage_elements
        if worker not in file.avoided_by:
            file.avoided_by |= {worker}
            worker.avoids.append(file)
        if worker.file is file:
            self._read(worker, None)

    def drop(self, index: int) -> None:
        """Give a file up: nothing of it is leased any more, and what comes back is forgotten."""
        for packet_id in self._stock.drop(self._stock.files[index]):
            del self.packets[packet_id]

    def forget(self, index: int) -> None:
        """What was thought to be known of a file is wrong: its packets are void, it starts anew."""
        self.done([packet.id for packet in self.packets.values() if packet.file == index])
        self._stock.unlearn(self._stock.files[index])

    def has(self, name: str, packet_id: int) -> bool:
        """This worker has this packet."""
        worker = self._workers.get(name)
        return worker is not None and self._out.has(worker, packet_id)

    # ------------------------------------------------------------ how it stands

    @property
    def idle(self) -> bool:
        """Nothing is left and nothing is out."""
        return self._stock.exhausted and not self._out.first

    @property
    def out(self) -> int:
        """Packets that are out with workers."""
        return len(self._out.first)

    @property
    def working(self) -> int:
        """Workers that have packets."""
        return len(self._out.busy)

    @property
    def expected_entries(self) -> int:
        """Entries of the dataset: known for opened files, guessed from their sizes for the others."""
        return self._stock.expected_entries

    def entries(self, index: int) -> int:
        """Entries of a file, −1 while nothing is known of it."""
        return self._stock.files[index].entries

    def entries_by_file(self) -> list[int]:
        """Entries of every file, −1 where nothing is known."""
        return [file.entries for file in self._stock.files]

    # ------------------------------------------------------------ where a packet comes from

    def _come_back(self, worker: Worker, now: float, end: float) -> Packet | None:
        stock = self._stock
        if not stock.returned:
            return None
        packet = stock.take_returned(worker.site.returned, worker)
        packet = packet or stock.take_returned(stock.nowhere.returned, worker)
        return self._again(worker, packet, now, end)

    def _near(self, worker: Worker, now: float, end: float, most: float = math.inf) -> Packet | None:
        """Of the worker's own file, of another one on its node or at its site, or one that lies nowhere."""
        stock, site, file = self._stock, worker.site, worker.file
        if not self._has_time(worker, site):
            return None
        if (
            file is None
            or file.next >= file.entries
            or not (site in file.sites or stock.nowhere in file.sites)
        ):
            file = (
                stock.on_node(worker)
                or stock.next_file(site, worker, now)
                or stock.next_file(stock.nowhere, worker, now)
            )
            if file is None:
                return None
        site.served = now
        return self._cut(worker, file, site if site in file.sites else stock.nowhere, now, end, most)

    def _far_away(self, worker: Worker, now: float, end: float, patient: bool) -> Packet | None:
        """Of the site that is furthest behind, if its own workers will be busy for longer."""
        stock = self._stock
        packet = self._again(worker, stock.take_returned(stock.troubled, worker), now, end)
        if packet is not None:
            return packet
        tried = 0
        for site in stock.furthest_behind(now):
            behind = stock.behind(site)
            if site is worker.site or not behind or not self._has_time(worker, site):
                continue
            most = behind * END_SHARE
            rate, wanted = self._size(worker, site, end, most)
            seconds = wanted / rate if rate else 0.0
            stalled = not patient and now - site.served > STALLED_SECONDS
            if stalled or seconds + (HELP_SECONDS if patient else 0.0) < behind:
                packet = self._again(worker, stock.take_returned(site.returned, worker), now, end)
                if packet is not None:
                    return packet
                file = worker.file
                if file is None or file.next >= file.entries or site not in file.sites:
                    file = stock.next_file(site, worker, now)
                if file is not None:
                    return self._cut(worker, file, site, now, end, most)
            tried += 1
            if tried == SITES_TRIED:
                break
        return None

    # ------------------------------------------------------------ making and giving packets

    def _cut(self, worker: Worker, file: File, source: Site, now: float, end: float, most: float) -> Packet:
        """A new packet."""
        rate, wanted = self._size(worker, source, end, most)
        if file.entries < 0:
            first, last, limit = 0, -1, wanted
            entries = min(wanted, self._stock.guess(file))
        else:
            first, last = self._stock.cut(file, wanted)
            limit, entries = 0, last - first
        expected, deadline = _times(entries, rate)
        self.last_id += 1
        packet = Packet(
            self.last_id, file.index, first, last, limit, self._last_ones(end), file.avoid, deadline
        )
        self._give(worker, file, packet, expected, now)
        return packet

    def _again(self, worker: Worker, packet: Packet | None, now: float, end: float) -> Packet | None:
        """A packet that has been out before, for this worker."""
        if packet is None:
            return None
        file = self._stock.files[packet.file]
        rate = self._rates.of(worker, self._stock.source(worker, file))
        expected, deadline = _times(self._stock.entries_in(packet), rate)
        packet = packet._replace(
            solo=packet.solo or self._last_ones(end), avoid=file.avoid, deadline=deadline
        )
        self._give(worker, file, packet, expected, now)
        return packet

    def _give(self, worker: Worker, file: File, packet: Packet, expected: float, now: float) -> None:
        self.packets[packet.id] = packet
        self._out.hand(worker, packet.id, expected, now)
        worker.left -= expected
        if worker.file is not file:
            self._read(worker, file)

    def _read(self, worker: Worker, file: File | None) -> None:
        if worker.file is not None:
            worker.file.readers -= 1
        if file is not None:
            file.readers += 1
        worker.file = file

    def _return(self, worker: Worker, packet_ids: Iterable[int], suspects: Collection[int]) -> None:
        for packet_id in packet_ids:
            if not self._out.release(worker, packet_id):
                continue
            packet = self.packets[packet_id]
            if self._stock.files[packet.file].dropped:
                del self.packets[packet_id]
                continue
            if packet_id in suspects:
                packet = self.packets[packet_id] = packet._replace(solo=True)
            self._stock.put_back(packet)

    # ------------------------------------------------------------ sizes

    def _fit_sizes(self) -> None:
        workers = self._rates.workers
        self._longest = max(LONGEST_SECONDS, workers / LONG_PER_SECOND)
        self._shortest = max(SHORTEST_SECONDS, workers / SHORT_PER_SECOND)
        self._first = max(FIRST_SECONDS, self._shortest / 2)

    def _size(self, worker: Worker, source: Site, end: float, most: float) -> tuple[float, int]:
        """The worker's rate at a source, 0 if nobody can tell, and the entries that its packet is to have."""
        meter = worker.meters.get(source.name)
        if meter is not None:
            rate = meter.rate
            seconds = min(self._longest, self._first * 2.0 ** min(meter.packets, 10))
        else:
            rate = self._rates.of(worker, source)
            seconds = self._first
        if not rate:
            return 0.0, int(
                max(1, min(FIRST_ENTRIES, self._stock.remaining * END_SHARE / self._rates.workers))
            )
        seconds = min(seconds, max(self._shortest, min(most, end * END_SHARE)), worker.left / TIME_MARGIN)
        return rate, max(1, round(seconds * rate))

    def _has_time(self, worker: Worker, source: Site) -> bool:
        """For one entry at least."""
        return self._rates.fits(worker, source, 1)

    def _last_ones(self, end: float) -> bool:
        """Packets are as short as they get, and are committed one by one."""
        return end * END_SHARE < self._shortest and not self._at_end

    def _end_in(self) -> float:
        """Seconds until everything is done if all workers go on; infinite if nobody can tell."""
        total = self._rates.total
        return self._stock.remaining / total if total else math.inf


def _times(entries: int, rate: float) -> tuple[float, float]:
    """Seconds that a packet should take, and its deadline."""
    if not rate:
        return 0.0, DEADLINE_SECONDS
    expected = entries / rate
    return expected, max(DEADLINE_LEAST, DEADLINE_FACTOR * expected)
