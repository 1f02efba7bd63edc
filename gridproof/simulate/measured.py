"""Simulations of what benchmarks have measured, beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .report import simulate
from .scenario import Dataset, Death, Failures, Master, Scenario, Site, Worker

AGREEMENT = 0.2  # how far a simulated makespan may lie from the measured one, as a fraction of that
KEY = "simulate"  # in a benchmark's report: the list of its runs


@dataclass(frozen=True)
class Comparison:
    """A makespan measured and simulated, in seconds, and the lower bound of both."""

    name: str
    measured: float
    simulated: float
    bound: float

    @property
    def deviation(self) -> float:
        """Of the simulated makespan from the measured, as a fraction of the latter."""
        return self.simulated / self.measured - 1

    @property
    def agrees(self) -> bool:
        """Whether it is within `AGREEMENT`."""
        return abs(self.deviation) <= AGREEMENT

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "deviation": self.deviation}


def compare(path: Path) -> list[Comparison]:
    """Simulate every run that a benchmark's report, or a file with several, describes under ``simulate``.

    Raises:
        ConfigError: there is none, or it lacks something.
    """
    try:
        found = list(_runs(json.loads(path.read_text())))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not found:
        raise ConfigError(
            f"{path} has no runs to simulate: it wants what benchmarks/tails.py or faults.py wrote"
        )
    comparisons = []
    for run in found:
        try:
            report = simulate(scenario(run))
            measured = float(run["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: a run under {KEY!r} is not usable: {error!r}") from None
        comparisons.append(Comparison(str(run["name"]), measured, report.makespan, report.bound.seconds))
    return comparisons


def scenario(run: Mapping[str, Any]) -> Scenario:
    """What was measured, as a scenario: all on one machine, files at hand."""
    return Scenario(
        Dataset(int(run["files"]), int(run["entries"]), cluster=int(run["cluster"]), replicas=0),
        (Site("LOCAL", rates=tuple(float(rate) for rate in run["rates"]), latency=0.001),),
        worker=Worker(open=0.02),
        master=Master(message=1e-3),
        failures=Failures(
            deaths=tuple(Death(float(when)) for when in run["deaths"]),
            replacement=float(run.get("replacement", 2.0)),
        ),
    )


def table(comparisons: Sequence[Comparison]) -> str:
    """As text."""
    lines = [f"{'':20}{'measured':>10}{'simulated':>11}{'bound':>9}{'deviation':>11}"]
    lines += [
        f"{c.name:20}{c.measured:9.2f}s{c.simulated:10.2f}s{c.bound:8.2f}s{c.deviation:+11.1%}"
        for c in comparisons
    ]
    return "\n".join(lines)


def _runs(value: Any) -> Iterator[Mapping[str, Any]]:
    """All that lies under a key ``simulate``, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == KEY and isinstance(inner, list):
                yield from inner
            else:
                yield from _runs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _runs(inner)
