"""What more workers cost: efficiency with 1 to 16 workers, with a selector that waits instead of computing.

Every worker has as many entries to run, however many there are. The ideal time is that of one ROOT process
that runs one worker's part by ``TChain::Process``.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Any

import harness
from harness import Cluster, Independent

GROWTH = 1, 2, 4, 8, 16
WAITING = {"every": 100, "wait": 10_000}
CLAIM = (
    "Efficiency and overhead with 1, 2, 4, 8 and 16 workers whose selector waits: what the software costs "
    "apart from the CPU"
)


def main() -> int:
    scale = harness.scale()
    entries = scale(100_000, 10_000)
    files = harness.data(max(GROWTH), entries)
    overheads: dict[int, list[float]] = {workers: [] for workers in GROWTH}

    def grown(workers: int) -> float:
        cluster = clusters[workers]
        pids = [os.getpid(), cluster.master.pid, *cluster.worker_pids()]
        parts = harness.dataset(files[:workers])
        before = harness.cpu_seconds(pids)
        seconds, result = harness.timed(lambda: cluster.process(parts, **WAITING))
        used = harness.cpu_seconds(pids) - before
        harness.same(truth[workers], harness.contents(result))
        overheads[workers].append(used / workers / seconds)
        return seconds

    with ExitStack() as stack:
        process = stack.enter_context(Independent(1))
        truth = {workers: process.run(files[:workers])["bins"] for workers in GROWTH}
        clusters = {workers: stack.enter_context(Cluster(workers)) for workers in GROWTH}
        for workers, cluster in clusters.items():
            cluster.process(harness.dataset(files[:workers]))
        ways = [lambda n=workers: grown(n) for workers in GROWTH]
        alone, *taken = harness.interleaved(
            scale.pairs, lambda: float(process.run(files[:1], **WAITING)["seconds"]), *ways
        )
    figures: dict[str, Any] = {"entries_per_worker": entries, "alone_seconds": harness.spread(alone)}
    for workers, seconds in zip(GROWTH, taken, strict=True):
        figures[str(workers)] = {
            "efficiency": harness.ratios(alone, seconds),
            "seconds": harness.spread(seconds),
            "cores_per_worker": harness.spread(overheads[workers]),
        }
    value = {f"{workers} workers": figures[str(workers)]["efficiency"]["median"] for workers in GROWTH}
    harness.report("growth", CLAIM, value, True, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
