"""What no packetizer could beat: total work over total rate, and what links can carry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .scenario import Scenario
from .world import File


@dataclass(frozen=True)
class Bound:
    """Seconds that a query takes at least: for want of ``workers``, of ``storage``, of ``connections``.

    All work at the rates of the workers that were there; all bytes from all SEs, and from each SE what only
    it has; and what only one site has, at its own workers and over its connection.
    """

    workers: float
    storage: float
    connections: float

    @property
    def seconds(self) -> float:
        """The largest."""
        return max(self.workers, self.storage, self.connections)


def lower_bound(
    scenario: Scenario, files: Sequence[File], presence: Iterable[tuple[float, str, float]]
) -> Bound:
    """The bound for these files and workers (``presence`` as in `Records`)."""
    presence = sorted(presence)
    work = sum(file.entries * file.cost for file in files)
    size = scenario.dataset.entry_bytes
    if not any(file.sites for file in files):
        return Bound(_time_for(work, presence), 0.0, 0.0)
    alone: dict[str, float] = defaultdict(float)
    for file in files:
        if len(file.sites) == 1:
            alone[file.sites[0]] += file.entries * size
    sites = {site.name: site for site in scenario.all_sites}
    total = sum(file.entries for file in files) * size
    storage = max(
        total / sum(site.storage for site in sites.values()),
        *(alone[name] / sites[name].storage for name in alone),
        0.0,
    )
    fastest = size / min(file.cost for file in files)  # bytes per unit of work
    rates = _highest(presence)
    connections = max(
        (alone[s] / ((rates[s] * fastest) + sites[s].outgoing) for s in alone if alone[s]), default=0.0
    )
    return Bound(_time_for(work, presence), storage, connections)


def _time_for(work: float, presence: Sequence[tuple[float, str, float]]) -> float:
    """When so much work can be done by workers that come and go."""
    now = rate = done = 0.0
    for when, _, change in presence:
        if rate > 0 and done + (when - now) * rate >= work:
            break
        done += (when - now) * rate
        now, rate = when, rate + change
    left = work - done
    return now + left / rate if left > 0 and rate > 0 else now


def _highest(presence: Sequence[tuple[float, str, float]]) -> dict[str, float]:
    """Each site's highest total rate."""
    rate: dict[str, float] = defaultdict(float)
    highest: dict[str, float] = defaultdict(float)
    for _, site, change in presence:
        rate[site] += change
        highest[site] = max(highest[site], rate[site])
    return highest
