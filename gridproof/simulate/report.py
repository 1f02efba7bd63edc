"""What a simulation has shown, as numbers and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .bound import Bound, lower_bound
from .scenario import Scenario
from .world import World

BINS = 200  # of a curve over time
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Curves:
    """Means over ``BINS`` equal parts of the makespan.

    ``busy``: workers at work; ``rate``: entries processed per second; ``capacity``: what all workers
    can process.
    """

    busy: tuple[float, ...]
    rate: tuple[float, ...]
    capacity: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """Times in seconds.

    ``makespan`` is the time from the start to the last commit, ``ratio`` that over the ``bound``.
    ``locality``: the fraction of bytes that workers read at their own site, ``locality_by_site`` by theirs.
    ``tail``: from the end of the work of the first worker that found nothing more, to the makespan;
    ``finished``: the workers' ends of work, at `QUANTILES`. ``run_twice``: entries run beyond those needed,
    as a fraction. ``exact``: the query's tally and the ranges of entries in its accepted commits both say
    that each entry was committed once. ``master_load``: the fraction of time in which the master answered
    messages, ``merge_load`` in which it merged. ``wall``: what simulating took.
    """

    workers: int
    entries: int
    files: int
    makespan: float
    bound: Bound
    ratio: float
    locality: float
    locality_by_site: Mapping[str, float]
    tail: float
    finished: tuple[float, ...]
    packets: int
    packets_per_second: float
    messages_per_second: float
    master_load: float
    merge_load: float
    run_twice: float
    discarded_commits: int
    deaths: int
    exact: bool
    error: str
    wall: float
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        done = f"failed after {self.makespan:.2f} s: {self.error}" if self.error else f"{self.makespan:.2f} s"
        late = ", ".join(f"{t:.1f}" for t in self.finished)
        levels = ", ".join(f"{q:.0%}" for q in QUANTILES)
        return "\n".join(
            [
                f"{self.entries:,} entries in {self.files:,} files, {self.workers:,} workers",
                f"makespan          {done}",
                f"lower bound       {self.bound.seconds:.2f} s (workers {self.bound.workers:.2f}, "
                f"storage {self.bound.storage:.2f}, connections {self.bound.connections:.2f})",
                f"ratio             {self.ratio:.4f}",
                f"read locally      {self.locality:.2%} of the bytes",
                f"tail              {self.tail:.2f} s; {levels} of the workers had finished at {late} s",
                f"packets           {self.packets:,}, {self.packets_per_second:.0f}/s",
                f"master            {self.messages_per_second:.0f} messages/s, {self.master_load:.0%} of its "
                f"time; merging {self.merge_load:.0%}",
                f"run in vain       {self.run_twice:.3%} of the entries; {self.discarded_commits} commits "
                f"discarded, {self.deaths} workers died",
                f"each entry once   {'yes' if self.exact else 'NO'}",
                f"simulated in      {self.wall:.1f} s",
            ]
        )


def simulate(scenario: Scenario) -> Report:
    """Run a scenario to its end."""
    began = time.perf_counter()
    world = World(scenario)
    world.run()
    return describe(world, time.perf_counter() - began)


def describe(world: World, wall: float) -> Report:
    """What a world that has run shows."""
    scenario, records, master, tally = world.scenario, world.records, world.master, world.query.tally
    makespan = master.ended if master.ended >= 0 else world.clock.now
    bound = lower_bound(scenario, world.files, records.presence)
    entries = sum(file.entries for file in world.files)
    read = sum(records.read.values())
    finished = sorted(worker.idle_since for worker in world.alive if worker.idle_since >= 0)
    error = world.query.error
    reason = str(error) if error else "" if master.ended >= 0 else "it hangs: nothing happens any more"
    seconds = makespan or 1.0
    return Report(
        workers=scenario.workers,
        entries=entries,
        files=len(world.files),
        makespan=makespan,
        bound=bound,
        ratio=makespan / bound.seconds if bound.seconds else 1.0,
        locality=sum(records.read_locally.values()) / read if read else 1.0,
        locality_by_site={s: records.read_locally[s] / n for s, n in sorted(records.read.items()) if n},
        tail=makespan - finished[0] if finished else 0.0,
        finished=tuple(_quantile(finished, q) for q in QUANTILES),
        packets=tally.packets,
        packets_per_second=tally.packets / seconds,
        messages_per_second=master.messages / seconds,
        master_load=master.busy / seconds,
        merge_load=master.merging / seconds,
        run_twice=sum(records.entries) / entries - 1 if entries and not reason else 0.0,
        discarded_commits=tally.discarded_commits,
        deaths=sum(1 for _, _, rate in records.presence if rate < 0),
        exact=not reason and tally.entries == entries and _each_once(world),
        error=reason,
        wall=wall,
        curves=_curves(world, makespan),
    )


def _each_once(world: World) -> bool:
    """Whether the ranges of accepted commits cover every file without gap or overlap."""
    for index, file in enumerate(world.files):
        place = 0
        for first, last in sorted(world.records.ranges.get(index, ())):
            if first != place:
                return False
            place = last
        if place != file.entries:
            return False
    return True


def _quantile(ordered: Sequence[float], level: float) -> float:
    return ordered[round(level * (len(ordered) - 1))] if ordered else 0.0


def _curves(world: World, makespan: float) -> Curves:
    busy, rate, capacity = [0.0] * BINS, [0.0] * BINS, [0.0] * BINS
    records = world.records
    for began, ended, entries in zip(records.began, records.ended, records.entries, strict=True):
        if ended > began:
            _spread(busy, makespan, began, ended, 1.0)
            _spread(rate, makespan, began, ended, entries / (ended - began))
    for when, _, change in records.presence:
        _spread(capacity, makespan, when, makespan, change)
    return Curves(*(tuple(round(n, 2) for n in curve) for curve in (busy, rate, capacity)))


def _spread(curve: list[float], makespan: float, began: float, ended: float, height: float) -> None:
    """Add so much to a curve between two times."""
    width = makespan / len(curve)
    for place in range(int(began / width), min(len(curve), int(ended / width) + 1)):
        inside = min(ended, (place + 1) * width) - max(began, place * width)
        curve[place] += height * inside / width
