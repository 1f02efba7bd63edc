"""How soon the first partial histogram is at the client, and what feedback every second costs.

Without feedback a worker commits once, at its end, and the client asks for nothing but the result.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import harness
from harness import SELECTOR, Cluster

WORKERS = 2
CLAIM = (
    "First partial histogram at the client in under 1 s after the call in a warm session; CPU of feedback "
    "every second against none"
)


def main() -> int:
    scale = harness.scale()
    events = scale(2_000_000, 250_000)
    files = harness.data(scale(20, 8), events)
    parts = harness.dataset(files)
    results: list[dict[str, list[float]]] = []
    firsts: list[float] = []
    partials: list[int] = []
    cpu: dict[bool, list[float]] = {True: [], False: []}

    def query(feedback: bool) -> float:
        pids = [os.getpid(), cluster.master.pid, *cluster.worker_pids()]
        seen: list[float] = []

        def show(outputs: Any) -> None:
            if outputs["pt"].GetEntries() > 0:
                seen.append(time.perf_counter())

        before, began = harness.cpu_seconds(pids), time.perf_counter()
        if feedback:
            result = cluster.queries.process(parts, SELECTOR, feedback=1.0, on_feedback=show, progress=False)
        else:
            result = cluster.queries.process(parts, SELECTOR, commit="end", progress=False)
        seconds = time.perf_counter() - began
        cpu[feedback].append(harness.cpu_seconds(pids) - before)
        results.append(harness.contents(result))
        if feedback:
            firsts.append(seen[0] - began if seen else seconds)
            partials.append(len(seen))
        return seconds

    with Cluster(WORKERS) as cluster:
        cluster.process(parts)
        fed, silent = harness.interleaved(scale.pairs, lambda: query(True), lambda: query(False))
    harness.same(*results)
    figures: dict[str, Any] = {
        "events": events * len(files),
        "first_partial_seconds": harness.spread(firsts),
        "partials": harness.spread(partials),
        "cpu_with_over_without": harness.ratios(cpu[True], cpu[False]),
        "time_with_over_without": harness.ratios(fed, silent),
    }
    value = {
        "first_partial_seconds": figures["first_partial_seconds"]["median"],
        "cpu_with_over_without": figures["cpu_with_over_without"]["median"],
    }
    met = value["first_partial_seconds"] < 1.0
    harness.report("feedback", CLAIM, value, met, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
