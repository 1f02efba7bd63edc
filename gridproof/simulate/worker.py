"""A worker in simulated time. Its loop keeps the rules of `gridproof.engine.worker`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.committer import pause
from ..engine.packets import Packet, cut
from ..engine.runner import TREES_KEPT_OPEN
from ..engine.watch import Pace
from ..engine.worker import LEASE_WAIT
from .clock import Process, Signal, Steps
from .master import Opening
from .network import Read

if TYPE_CHECKING:
    from .world import World

PACE = Pace()

Failure = tuple[str, Sequence[str]]
"""As in `Query.fail`: kind and storage elements."""


class Delta:
    """What an instance has run since it began: ranges of entries, and bytes."""

    __slots__ = ("began", "bytes", "local_bytes", "packets", "ranges", "site")

    def __init__(self, site: str, began: float) -> None:
        self.site = site  # the worker's
        self.began = began
        self.packets: list[int] = []
        self.ranges: list[tuple[int, int, int]] = []  # file, first, last
        self.bytes = self.local_bytes = 0.0


class Worker:
    """Pulls packets, runs and commits them until it is killed.

    ``rate``: entries per second; ``ask``: seconds after which it asks whether a packet is still wanted;
    ``idle_since``: when its last packet ended.
    """

    __slots__ = (
        "_bad",
        "_delta",
        "_interval",
        "_next",
        "_next_tells",
        "_openings",
        "_ran",
        "_sending",
        "_sequence",
        "_telling",
        "_trees",
        "_void",
        "_work",
        "_world",
        "ask",
        "idle_since",
        "latency",
        "name",
        "process",
        "rate",
        "read",
        "site",
    )

    def __init__(self, world: World, name: str, site: str, rate: float, latency: float) -> None:
        self.name = name
        self.site = site
        self.rate = rate
        self.latency = latency
        self.ask = PACE.ask
        self.idle_since = -1.0
        self.read: Read | None = None
        self._world = world
        self._bad: set[tuple[int, str]] = set()  # file and the site of its replica
        self._trees: dict[int, str] = {}  # open files, the latest last, and the sites they are read from
        self._delta: Delta | None = None
        self._ran: list[tuple[int, int, float, str]] = []
        self._openings: list[Opening] = []  # not told yet
        self._telling: list[Signal] = []  # of openings that could not wait for a lease
        self._void: set[int] = set()  # packets taken back after they were opened
        self._work: list[Packet] = []  # leased and not begun
        self._next: Signal | None = None  # the lease asked for ahead
        self._next_tells = False  # it has openings in it
        self._sending: Signal | None = None
        self._sequence = 0
        self._interval = -1.0  # between commits, as the master wants it
        self.process = Process(world.clock, self._loop())

    # ------------------------------------------------------------ the loop

    def _loop(self) -> Steps:
        master = self._world.master
        yield self._world.scenario.worker.start
        yield master.ask(self, master.hello)
        while True:
            packets = self._take((yield self._next)) if self._next else []
            ahead, self._next = bool(packets), None
            if not packets:  # by now there may be more, of a file that was opened meanwhile
                packets = self._take((yield self._ask(0.0)))
            if not packets:
                yield from self._commit()
                packets = self._take((yield self._ask(LEASE_WAIT)))
                if not packets:
                    continue
            if packets[0].last >= 0:
                self._ask_ahead()
            if self._interval < 0:  # a query that it has not met
                self._interval, pause = yield master.ask(self, master.describe)
                self.ask = max(PACE.ask, pause)
            self._work = packets
            while self._work:
                packet = self._work.pop(0)
                if not packet.solo or not ahead or (yield master.ask(self, master.begin, packet.id)):
                    yield from self._handle(packet)
                ahead = True

    def _ask(self, wait: float) -> Signal:
        ran, self._ran = self._ran, []
        openings, self._openings = self._openings, []
        self._next_tells = bool(openings)
        return self._world.master.ask(self, self._world.master.lease, ran, openings, wait)

    def _ask_ahead(self) -> None:
        """Ask for the next lease, once: when work begins, or when its file is open and can be told of."""
        if self._next is None:
            self._next = self._ask(0.0)

    def _take(self, answer: tuple[list[Packet], list[int]]) -> list[Packet]:
        packets, void = answer
        self._void.update(void)
        return packets

    def _handle(self, packet: Packet) -> Steps:
        if packet.solo:
            yield from self._commit()
        at_risk = self._uncommitted
        failure = yield from self._process(packet)
        if failure is not None:
            yield from self._fail(packet.id, at_risk, *failure)
        elif packet.solo or self._due():
            yield from self._commit()

    @property
    def _uncommitted(self) -> list[int]:
        return list(self._delta.packets) if self._delta else []

    def _held(self) -> list[int]:
        """All packets that this worker answers for."""
        waiting = [*self._work, *(self._next.value[0] if self._next and self._next.happened else ())]
        return [*self._uncommitted, *(packet.id for packet in waiting)]

    def _due(self) -> bool:
        if self._delta is None:
            return False
        if self._sending is not None:
            if not self._sending.happened:
                return False
            self._interval = self._sending.value
        settings = self._world.scenario
        least = pause(self._sequence, settings.master.feedback, settings.worker.instance, self._interval)
        return self._world.clock.now - self._delta.began >= least

    def _commit(self) -> Steps:
        """Send what the open instance has, once the commit before is answered."""
        if self._delta is None:
            return
        master = self._world.master
        if self._next is not None and self._next_tells:
            self._take((yield self._next))
        if self._openings:
            self._tell()
        for told in self._telling:
            self._void.update((yield told))
        self._telling.clear()
        packets = self._delta.packets
        if self._void.intersection(packets):
            self._void.clear()
            yield from self._fail(packets[-1], packets, "stopped", [])
            return
        self._void.clear()
        yield self._world.scenario.worker.instance
        if self._sending is not None:
            yield self._sending
        delta, self._delta = self._delta, None
        self._sequence += 1
        self._sending = master.ask(self, master.commit, self._sequence, packets, delta)

    def _fail(self, packet: int, at_risk: Sequence[int], kind: str, storage_elements: Sequence[str]) -> Steps:
        """Report a failed packet; those that its instance had run before did not happen either."""
        self._delta = None
        master = self._world.master
        yield master.ask(self, master.fail, packet, at_risk, kind, storage_elements)

    # ------------------------------------------------------------ a packet

    def _process(self, packet: Packet) -> Generator[float | Signal, Any, Failure | None]:
        """Run a packet in the open instance; why not, if it could not be run."""
        world = self._world
        began = world.clock.now
        file = world.files[packet.file]
        failed = yield from self._open(packet)
        source = self._trees.get(packet.file)
        if source is None:
            self._ask_ahead()
            return "read", failed
        last = packet.last
        if last < 0:
            last = cut(0, packet.limit, file.entries, file.clusters)
            self._opened((packet.id, last, file.entries, file.clusters))
        if self._delta is None:
            self._delta = Delta(self.site, began)
        opened, entries = world.clock.now, last - packet.first
        self.read = world.read(self, packet, source, entries)
        news = yield from self._watch(packet, self.read)
        if news == "hung":
            yield from self._fail(packet.id, self._held(), "hung", [])
            world.replace(self)
            yield Signal()  # which never happens
        self.read.stop()
        self.read = None
        self.idle_since = world.clock.now
        seconds = world.clock.now - opened
        world.ran(began, entries)
        if news == "stuck":
            del self._trees[packet.file]
            self._bad.add((packet.file, source))
            return "read", [source]
        if news == "unwanted" or packet.id in self._void:
            return "stopped", []
        self._ran.append((packet.id, entries, seconds, source))
        delta = self._delta
        delta.packets.append(packet.id)
        delta.ranges.append((packet.file, packet.first, last))
        delta.bytes += entries * world.scenario.dataset.entry_bytes
        if source in (self.site, ""):
            delta.local_bytes += entries * world.scenario.dataset.entry_bytes
        return None

    def _opened(self, opening: Opening) -> None:
        _, last, entries, _ = opening
        self._openings.append(opening)
        if self._next is None:
            self._ask_ahead()
        elif last < entries:  # others can help with the rest of the file
            self._tell()

    def _tell(self) -> None:
        master = self._world.master
        openings, self._openings = self._openings, []
        self._telling.append(master.ask(self, master.opened, openings))

    def _watch(self, packet: Packet, read: Read) -> Generator[float | Signal, Any, str]:
        """Wait for a read, and ask from time to time whether it is still wanted; what became of it."""
        master = self._world.master
        news: str = yield read.news
        while news == "late":
            waiting = read.wait_again(self.ask)
            wanted = yield master.ask(self, master.late, packet.id)
            if not wanted and not waiting.happened:
                if not read.stands:
                    return "unwanted"
                yield PACE.leave
                if not waiting.happened or waiting.value == "late":
                    return "hung"
            news = yield waiting
        return news

    def _open(self, packet: Packet) -> Generator[float | Signal, Any, list[str]]:
        """Open a file where it can be read; the SEs that failed."""
        world, index = self._world, packet.file
        if index in self._trees and self._trees[index] not in packet.avoid:
            return []
        failed: list[str] = []
        sites = sorted(
            world.files[index].sites or ("",),
            key=lambda s: ((index, s) in self._bad, s in packet.avoid, s != self.site),
        )
        for site in sites:
            if world.reachable(self.site, site):
                yield world.opening_seconds(self.site, site)
                self._trees.pop(index, None)
                while len(self._trees) >= TREES_KEPT_OPEN:
                    del self._trees[next(iter(self._trees))]
                self._trees[index] = site
                return failed
            yield world.scenario.failures.connect_timeout
            failed.append(site)
            self._bad.add((index, site))
        self._trees.pop(index, None)
        return failed
