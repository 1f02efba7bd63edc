"""Throughput of a selector on N workers against N independent ROOT processes, each with half of the files.

The processes share nothing and never wait for each other: they are what this machine can do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import harness
from harness import Cluster, Independent, say

WORKERS = 2
DEAR = 10.0
CLAIM = (
    "N = 2 workers against N independent TChain::Process side by side: at least 0.95 of their throughput, "
    "at least 0.97 with a selector 10 times dearer per event; CPU of all that is not a worker at most 5 % "
    "of the workers'"
)


def compare(
    cluster: Cluster, independent: Independent, files: list[Path], pairs: int, **inputs: int
) -> dict[str, Any]:
    """Both, interleaved, on the same files with the same selector."""
    parts = harness.dataset(files)
    results: list[Any] = []
    cpu: dict[str, list[float]] = {"workers": [], "others": [], "independent": []}

    def ours() -> float:
        workers = cluster.worker_pids()
        others = [os.getpid(), cluster.master.pid]
        before = harness.cpu_seconds(workers), harness.cpu_seconds(others)
        seconds, result = harness.timed(lambda: cluster.process(parts, **inputs))
        cpu["workers"].append(harness.cpu_seconds(workers) - before[0])
        cpu["others"].append(harness.cpu_seconds(others) - before[1])
        results.append(harness.contents(result))
        return seconds

    def theirs() -> float:
        found = independent.run(files, **inputs)
        results.append(found["bins"])
        cpu["independent"].append(found["cpu"])
        return float(found["seconds"])

    mine, others = harness.interleaved(pairs, ours, theirs)
    harness.same(*results)
    return {
        "ratio": harness.ratios(others, mine),
        "seconds": harness.spread(mine),
        "independent_seconds": harness.spread(others),
        "cpu_of_others": harness.ratios(cpu["others"], cpu["workers"]),
        "cpu_of_workers_over_independent": harness.ratios(cpu["workers"], cpu["independent"]),
    }


def main() -> int:
    scale = harness.scale()
    events = scale(2_000_000, 250_000)
    files = harness.data(scale(20, 4), events)
    few = files[: scale(2, 2)]
    with Cluster(WORKERS) as cluster, Independent(WORKERS) as independent:
        cluster.process(harness.dataset(few))  # every library loaded
        each = independent.run(few)["cpu"] / (events * len(few))
        say("plain selector")
        plain = compare(cluster, independent, files, scale.pairs)
        burn = independent.rounds(few, events * len(few), (DEAR - 1) * each)
        say(f"ten times dearer: {burn} rounds")
        dear = compare(cluster, independent, few, scale.pairs, burn=burn)
    value = {
        "plain": plain["ratio"]["median"],
        "dear": dear["ratio"]["median"],
        "cpu_of_others": plain["cpu_of_others"]["median"],
    }
    met = value["plain"] >= 0.95 and value["dear"] >= 0.97 and value["cpu_of_others"] <= 0.05
    figures = {"events": events * len(files), "plain": plain, "dear": {**dear, "burn": burn}}
    harness.report("throughput", CLAIM, value, met, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
