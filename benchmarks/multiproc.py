"""Against ROOT's own ways to use the cores of one machine: TTreeProcessorMP and RDataFrame with threads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import harness
from harness import Cluster, Peer

WORKERS = 2
CLAIM = (
    "Within 1.05 of the time of the better one of ROOT::TTreeProcessorMP (the same selector) and RDataFrame "
    "with implicit multi-threading (compiled), N = 2"
)


def main() -> int:
    scale = harness.scale()
    events = scale(2_000_000, 250_000)
    files = harness.data(scale(20, 4), events)
    parts = harness.dataset(files)
    results: list[dict[str, list[float]]] = []

    def ours() -> float:
        seconds, result = harness.timed(lambda: cluster.process(parts))
        results.append(harness.contents(result))
        return seconds

    def rival(peer: Peer) -> Callable[[], float]:
        def run() -> float:
            found = peer.run(files)
            results.append(found["bins"])
            return float(found["seconds"])

        return run

    with (
        Cluster(WORKERS) as cluster,
        Peer("rival", function="ByProcesses", workers=WORKERS) as processes,
        Peer("rival", function="ByThreads", workers=WORKERS) as threads,
    ):
        ways = ours, rival(processes), rival(threads)
        for way in ways:
            way()  # every library loaded
        mine, by_processes, by_threads = harness.interleaved(scale.pairs, *ways)
    harness.same(*results)
    figures: dict[str, Any] = {
        "events": events * len(files),
        "seconds": harness.spread(mine),
        "processes_seconds": harness.spread(by_processes),
        "threads_seconds": harness.spread(by_threads),
        "time_over_processes": harness.ratios(mine, by_processes),
        "time_over_threads": harness.ratios(mine, by_threads),
    }
    value = max(figures[f"time_over_{way}"]["median"] for way in ("processes", "threads"))
    harness.report("multiproc", CLAIM, value, value <= 1.05, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
