"""The simulated Grid: sites, files, links and workers, and what goes wrong with them."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..engine.packets import Packet
from ..engine.query import FileInfo, Query
from .clock import Clock
from .master import Master
from .network import NEVER, Link, Read
from .scenario import Outage, Scenario, Site
from .worker import Delta, Worker

STANDSTILL = 6 * 3600.0  # seconds without a packet run: the query hangs


@dataclass(frozen=True)
class File:
    """What a worker finds: entries, clusters, sites that hold it, and what an entry costs (1: the usual)."""

    entries: int
    clusters: Sequence[int]
    sites: tuple[str, ...]
    cost: float


@dataclass
class Records:
    """What was seen from outside the decisions.

    Of each packet run, in the order of their ends: when it ``began`` and ``ended`` and its ``entries``.
    ``ranges``: by file, the entries of accepted commits. ``presence``: workers' coming (+) and going (−), as
    ``(time, site, rate)``. ``read`` and ``read_locally``: bytes of accepted commits by the worker's site.
    """

    began: array[float]
    ended: array[float]
    entries: array[int]
    ranges: dict[int, list[tuple[int, int]]]
    presence: list[tuple[float, str, float]]
    read: dict[str, float]
    read_locally: dict[str, float]


class World:
    """One query on one Grid, from its start until it is over."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.sites = {site.name: site for site in scenario.all_sites}
        self.files = make_files(scenario)
        self.query = Query([_info(index, file, scenario) for index, file in enumerate(self.files)])
        self.records = Records(
            array("d"), array("d"), array("q"), defaultdict(list), [], defaultdict(float), defaultdict(float)
        )
        self.master = Master(self.clock, self.query, scenario.master, self._accepted)
        self.alive: dict[Worker, None] = {}  # in the order of their arrival
        self._arrived = 0
        self._latest = 0.0  # arrival or end of a packet
        self._bad_luck = random.Random(f"{scenario.seed} failures")  # noqa: S311
        self._paths: dict[tuple[str, str], tuple[Link, ...]] = {}
        self._storage = {name: Link(site.storage) for name, site in self.sites.items()}
        self._incoming = {name: Link(site.incoming) for name, site in self.sites.items()}
        self._outgoing = {name: Link(site.outgoing) for name, site in self.sites.items()}
        self._wires = {frozenset(wire.between): Link(wire.bandwidth) for wire in scenario.wires}
        self._plan_workers()
        self._plan_failures()

    def run(self) -> None:
        """Until the query is over, or nothing happens any more."""
        self.master.settle()
        self.clock.run(self._over)

    # ------------------------------------------------------------ for workers

    def reachable(self, site: str, source: str) -> bool:
        """Whether a worker of a site can open a file there."""
        return all(link.up for link in self._path(site, source))

    def opening_seconds(self, site: str, source: str) -> float:
        """What it costs to open a file there."""
        settings = self.scenario.worker
        return settings.open_remote if source and source != site else settings.open

    def read(self, worker: Worker, packet: Packet, source: str, entries: int) -> Read:
        """Begin to read and process a packet."""
        failures = self.scenario.failures
        return Read(
            self.clock,
            self._path(worker.site, source),
            entries,
            worker.rate / self.files[packet.file].cost,
            self.scenario.dataset.entry_bytes,
            worker.ask,
            failures.read_timeout,
            bool(failures.hang_rate) and self._bad_luck.random() < failures.hang_rate,
        )

    def ran(self, began: float, entries: int) -> None:
        """A packet has been run since ``began``."""
        self._latest = self.clock.now
        self.records.began.append(began)
        self.records.ended.append(self.clock.now)
        self.records.entries.append(entries)

    def replace(self, worker: Worker) -> None:
        """A fresh process takes a worker's place at once."""
        self._end(worker)
        self._arrive(worker.site, worker.rate)

    def kill(self, worker: Worker) -> None:
        """A worker dies; another one comes after a while."""
        self._end(worker)
        delay = self.scenario.failures.replacement
        if delay < NEVER:
            self.clock.at(self.clock.now + delay, self._arrive, worker.site, worker.rate)

    # ------------------------------------------------------------ inside

    def _over(self) -> bool:
        return self.master.ended >= 0 or self.clock.now > self._latest + STANDSTILL

    def _path(self, site: str, source: str) -> tuple[Link, ...]:
        """The links between a worker's site and the SE of another; those that never matter are left out."""
        path = self._paths.get((site, source))
        if path is None:
            links: list[Link] = []
            if source:
                links.append(self._storage[source])
                if source != site:
                    links += [self._outgoing[source], self._incoming[site]]
                    links += [
                        self._wires[ends] for ends in [frozenset((site, source))] if ends in self._wires
                    ]
            failures = self.scenario.failures
            cut = {id(self._storage[outage.site]) for outage in failures.storage}
            for outage in failures.connections:
                cut |= {id(self._outgoing[outage.site]), id(self._incoming[outage.site])}
            path = tuple(link for link in links if link.capacity < NEVER or id(link) in cut)
            self._paths[site, source] = path
        return path

    def _arrive(self, site: str, rate: float) -> None:
        self._arrived += 1
        self._latest = self.clock.now
        worker = Worker(self, f"{site}/{self._arrived}", site, rate, self.sites[site].latency)
        self.alive[worker] = None
        self.records.presence.append((self.clock.now, site, rate))

    def _end(self, worker: Worker) -> None:
        if worker not in self.alive:
            return
        del self.alive[worker]
        worker.process.kill()
        if worker.read is not None:
            worker.read.stop()
            self.ran(worker.read.started, round(worker.read.entries - worker.read.left))
        self.records.presence.append((self.clock.now, worker.site, -worker.rate))
        self.clock.at(self.clock.now + self.scenario.failures.notice, self.master.lost, worker)

    def _accepted(self, delta: Delta) -> None:
        for file, first, last in delta.ranges:
            self.records.ranges[file].append((first, last))
        self.records.read[delta.site] += delta.bytes
        self.records.read_locally[delta.site] += delta.local_bytes

    def _plan_workers(self) -> None:
        chance = random.Random(f"{self.scenario.seed} workers")  # noqa: S311
        for site in self.sites.values():
            first, last = site.arrive
            for number, rate in enumerate(_rates(site, chance)):
                when = first + (last - first) * number / max(1, site.workers - 1)
                self.clock.at(when, self._arrive, site.name, rate)

    def _plan_failures(self) -> None:
        failures = self.scenario.failures
        for death in failures.deaths:
            self.clock.at(death.at, self._kill_some, death.workers, death.site)
        if failures.death_rate:
            self._plan_death()
        for outage in failures.storage:
            self._plan_outage(outage, [self._storage[outage.site]])
        for outage in failures.connections:
            self._plan_outage(outage, [self._incoming[outage.site], self._outgoing[outage.site]])

    def _plan_death(self) -> None:
        wait = self._bad_luck.expovariate(self.scenario.failures.death_rate / 3600 * self.scenario.workers)
        self.clock.at(self.clock.now + wait, self._die_by_chance)

    def _die_by_chance(self) -> None:
        self._kill_some(1, "")
        self._plan_death()

    def _kill_some(self, workers: int, site: str) -> None:
        candidates = [worker for worker in self.alive if worker.site == site or not site]
        for worker in self._bad_luck.sample(candidates, min(workers, len(candidates))):
            self.kill(worker)

    def _plan_outage(self, outage: Outage, links: Iterable[Link]) -> None:
        for link in links:
            self.clock.at(outage.at, link.cut)
            if outage.lasts < NEVER:
                self.clock.at(outage.at + outage.lasts, link.mend)


def make_files(scenario: Scenario) -> list[File]:
    """The dataset's files with their replicas, drawn as the scenario says."""
    dataset = scenario.dataset
    chance = random.Random(f"{scenario.seed} files")  # noqa: S311
    sizes = [1 + dataset.file_spread * chance.uniform(-1, 1) for _ in range(dataset.files)]
    total = sum(sizes)
    ends = [0, *(round(dataset.entries * part / total) for part in accumulate(sizes))]
    holders = scenario.holders
    weights = list(accumulate(site.workers if dataset.placement == "slots" else 1 for site in holders))
    files = []
    for index in range(dataset.files):
        entries = ends[index + 1] - ends[index]
        sites: dict[str, None] = {}
        while len(sites) < min(dataset.replicas, len(holders)):
            sites[holders[bisect_left(weights, chance.uniform(0, weights[-1]))].name] = None
        cost = 1 + dataset.cost_spread * chance.uniform(-1, 1)
        files.append(File(entries, range(0, entries, dataset.cluster), tuple(sites), cost))
    return files


def _rates(site: Site, chance: random.Random) -> Sequence[float]:
    if site.rates:
        return site.rates
    rates = [site.rate * max(0.1, chance.gauss(1.0, site.spread)) for _ in range(site.slots)]
    slow = chance.sample(range(site.slots), round(site.slow * site.slots))
    for number in slow:
        rates[number] *= site.slow_speed
    return rates


def _info(index: int, file: File, scenario: Scenario) -> FileInfo:
    known = scenario.dataset.known
    return FileInfo(
        f"/simulated/{index}",
        round(file.entries * scenario.dataset.entry_bytes),
        tuple((site, site) for site in file.sites),
        file.entries if known else -1,
        tuple(file.clusters) if known else (),
    )
