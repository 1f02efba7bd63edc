"""A worker in simulated time. Its loop keeps the rules of `gridproof.engine.worker`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.packets import Packet, cut
from ..engine.runner import TREES_KEPT_OPEN
from ..engine.worker import COMMIT_COSTS, LEASE_WAIT
from .clock import Process, Signal, Steps
from .network import Read

if TYPE_CHECKING:
    from .world import World

FIRST_COMMIT = 0.25  # seconds; each further interval is twice as long, up to the master's
ASK_AGAIN = 3.0  # seconds, about a late packet

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

    ``rate``: entries per second; ``idle_since``: when its last packet ended.
    """

    __slots__ = (
        "_bad",
        "_delta",
        "_early",
        "_pace",
        "_ran",
        "_sending",
        "_sequence",
        "_trees",
        "_world",
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
        self.idle_since = -1.0
        self.read: Read | None = None
        self._world = world
        self._bad: set[tuple[int, str]] = set()  # file and the site of its replica
        self._trees: dict[int, str] = {}  # open files, the latest last, and the sites they are read from
        self._delta: Delta | None = None
        self._ran: list[tuple[int, int, float, str]] = []
        self._sending: Signal | None = None
        self._sequence = 0
        self._early = FIRST_COMMIT
        self._pace = 0.0  # what the master asks for
        self.process = Process(world.clock, self._loop())

    # ------------------------------------------------------------ the loop

    def _loop(self) -> Steps:
        master = self._world.master
        yield self._world.scenario.worker.start
        yield master.ask(self, master.hello)
        work: list[Packet] = []
        waited = False
        while True:
            if not work:
                yield from self._commit()
                work = yield self._lease(LEASE_WAIT)
                waited = False
                continue
            ahead = self._lease(0.0)
            for packet in work:
                yield from self._handle(packet, waited)
                waited = True
            work = yield ahead

    def _lease(self, wait: float) -> Signal:
        ran, self._ran = self._ran, []
        return self._world.master.ask(self, self._world.master.lease, ran, wait)

    def _handle(self, packet: Packet, waited: bool) -> Steps:
        master = self._world.master
        if packet.solo:
            if waited and not (yield master.ask(self, master.begin, packet.id)):
                return
            yield from self._commit()
        at_risk = list(self._delta.packets) if self._delta else []
        failure = yield from self._process(packet)
        if failure is not None:
            self._delta = None
            kind, storage_elements = failure
            yield master.ask(self, master.fail, packet.id, at_risk, kind, storage_elements)
        elif self._delta and (packet.solo or self._world.clock.now - self._delta.began > self._interval()):
            yield from self._commit()

    def _interval(self) -> float:
        return max(self._early, self._pace, COMMIT_COSTS * self._world.scenario.worker.instance)

    def _commit(self) -> Steps:
        """Send what the open instance has; at most one commit is under way."""
        delta, self._delta = self._delta, None
        if delta is None:
            return
        yield self._world.scenario.worker.instance
        self._early = min(2 * self._early, self._world.scenario.master.feedback)
        if self._sending is not None:
            self._pace = yield self._sending
        self._sequence += 1
        master = self._world.master
        self._sending = master.ask(self, master.commit, self._sequence, delta.packets, delta)

    # ------------------------------------------------------------ a packet

    def _process(self, packet: Packet) -> Generator[float | Signal, Any, Failure | None]:
        """Run a packet in the open instance; why not, if it could not be run."""
        world, master = self._world, self._world.master
        began = world.clock.now
        file = world.files[packet.file]
        failed = yield from self._open(packet)
        source = self._trees.get(packet.file)
        if source is None:
            return "read", failed
        last, told = packet.last, None
        if last < 0:
            last = cut(0, packet.limit, file.entries, file.clusters)
            told = master.ask(self, master.opened, packet.id, last, file.entries, file.clusters)
        if self._delta is None:
            self._delta = Delta(self.site, began)
        processing = world.clock.now
        entries = last - packet.first
        self.read = read = world.read(self, packet, source, entries)
        news = yield read.news
        while news == "late":
            waiting = read.wait_again(ASK_AGAIN)
            if not (yield master.ask(self, master.late, packet.id)):
                world.replace(self)
                yield Signal()  # which never happens: a fresh process takes over
            news = yield waiting
        read.stop()
        self.read = None
        self.idle_since = world.clock.now
        world.ran(began, entries)
        if news == "stuck":
            del self._trees[packet.file]
            self._bad.add((packet.file, source))
            return "read", [source]
        if told is not None and not (yield told):
            return "stopped", []
        self._ran.append((packet.id, entries, world.clock.now - processing, source))
        delta = self._delta
        delta.packets.append(packet.id)
        delta.ranges.append((packet.file, packet.first, last))
        delta.bytes += entries * world.scenario.dataset.entry_bytes
        if source in (self.site, ""):
            delta.local_bytes += entries * world.scenario.dataset.entry_bytes
        return None

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
