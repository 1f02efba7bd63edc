"""Workers and storage elements that are killed in the middle of a query: exact results, and what it costs.

The lost work is what the killed worker had run since its last commit that counted. Of the 4 workers the one
with most of it is killed; its pilot (here: the process that forks) starts another one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness import Cluster, Independent, say

from gridproof.accounts import for_xrootd
from gridproof.localgrid.sites import make_sites
from gridproof.localgrid.storage.element import StorageElement
from gridproof.localgrid.storage.envelopes import Envelopes

WORKERS = 4
FRACTIONS = 0.25, 0.5, 0.75
LEAST_LOST = 0.3  # s of uncommitted work that a worker has before it is killed
WAITING = {"every": 100, "wait": 5000}  # two cores carry 4 workers
CLAIM = (
    "1 of 4 workers killed at 25, 50 and 75 % of the entries: exact, extra time at most the lost packets' "
    "work plus 20 %; a storage element killed at 50 %: exact, no hang"
)


@dataclass(frozen=True)
class Killing:
    """A query in which a worker was killed; all in seconds since the call."""

    seconds: float
    killed: float
    lost: float  # work that ran in vain
    replaced: float  # until the fresh worker was there
    bins: dict[str, list[float]]


def kill_a_worker(cluster: Cluster, parts: list[dict[str, Any]], fraction: float, events: int) -> Killing:
    """Run a query and kill the worker that has run longest without a commit once so much is done."""
    pids = {worker["name"]: int(worker["pid"]) for worker in cluster.wait(WORKERS)}
    began = time.perf_counter()
    query = cluster.submit(parts, **WAITING)
    committed = dict.fromkeys(pids, (0, began))
    version = done = 0
    victim, killed = "", began
    while done < fraction * events or killed - committed[victim][1] < LEAST_LOST:
        status = cluster.send("follow", query=query.id, version=version, wait=0.05)
        version, done = status["version"], status["events"]
        if status["over"]:
            raise SystemExit("the query was over before a worker could be killed: it needs more data")
        for name, entries in status["events_by_worker"].items():
            if entries != committed[name][0]:
                committed[name] = entries, time.perf_counter()
        victim = min(committed, key=lambda name: committed[name][1])
        killed = time.perf_counter()
    os.kill(pids[victim], signal.SIGKILL)
    while victim in {worker["name"] for worker in cluster.wait(WORKERS)}:
        time.sleep(0.01)
    replaced = time.perf_counter()
    result = query.result(progress=False)
    seconds = time.perf_counter() - began
    query.forget()
    return Killing(
        seconds, killed - began, killed - committed[victim][1], replaced - killed, harness.contents(result)
    )


def workers_killed(files: list[Path], events: int, pairs: int, truth: Any) -> dict[str, Any]:
    """Every round: a query in peace, and one for each moment of the killing."""
    parts = harness.dataset(files)
    found: dict[float, list[Killing]] = {fraction: [] for fraction in FRACTIONS}

    def killing(fraction: float) -> float:
        found[fraction].append(kill_a_worker(cluster, parts, fraction, events))
        return found[fraction][-1].seconds

    with Cluster(WORKERS) as cluster:
        cluster.process(parts)
        ways = [lambda f=fraction: killing(f) for fraction in FRACTIONS]
        peaceful, *killed = harness.interleaved(
            pairs, lambda: harness.timed(lambda: cluster.process(parts, **WAITING))[0], *ways
        )
    for some in found.values():
        harness.same(truth, *(one.bins for one in some))
    figures: dict[str, Any] = {"seconds": harness.spread(peaceful)}
    for fraction, seconds in zip(FRACTIONS, killed, strict=True):
        extra = [a - b for a, b in zip(seconds, peaceful, strict=True)]
        lost = [one.lost for one in found[fraction]]
        figures[f"{fraction:.0%}"] = {
            "seconds": harness.spread(seconds),
            "extra_seconds": harness.spread(extra),
            "lost_work_seconds": harness.spread(lost),
            "extra_over_lost": harness.ratios(extra, lost),
            "killed_after": harness.spread([one.killed for one in found[fraction]]),
            "replaced_after": harness.spread([one.replaced for one in found[fraction]]),
        }
    return figures


@contextmanager
def storage(files: list[Path]) -> Iterator[list[StorageElement]]:
    """Two XRootD servers on the loopback that both have all files."""
    account = for_xrootd()
    home = files[0].parent
    closed = account.bar(home) if account else None
    if closed:
        raise SystemExit(f"XRootD's account cannot enter {closed}: set GRIDPROOF_BENCH_DATA to another place")
    elements = []
    for site in make_sites(2, 1, 1):
        element = StorageElement(site, home / site.name, account, Envelopes.kept_in(home), open_to_all=True)
        element.data.mkdir(parents=True, exist_ok=True)
        for file in files:
            copy = element.data / file.name
            copy.unlink(missing_ok=True)
            copy.hardlink_to(file)
        elements.append(element)
    try:
        for element in elements:
            asyncio.run(element.start())
        yield elements
    finally:
        for element in elements:
            element.stop()


def storage_killed(files: list[Path], events: int, truth: Any) -> dict[str, Any]:
    """A query that reads over XRootD, in peace and with a server killed amid it."""
    with storage(files) as elements, Cluster(WORKERS) as cluster:
        parts = harness.dataset(files, [element.endpoint for element in elements])
        cluster.process(parts)
        peaceful, result = harness.timed(lambda: cluster.process(parts, **WAITING))
        harness.same(truth, harness.contents(result))
        began = time.perf_counter()
        query = cluster.submit(parts, **WAITING)
        while query.progress.events < 0.5 * events:
            time.sleep(0.02)
        elements[0].stop()
        result = query.result(progress=False)
        seconds = time.perf_counter() - began
        harness.same(truth, harness.contents(result))
    return {"seconds": round(seconds, 3), "seconds_in_peace": round(peaceful, 3), "exact": True}


def main() -> int:
    scale = harness.scale()
    entries = scale(100_000, 20_000)
    files = harness.data(8, entries)
    events = entries * len(files)
    with Independent(1) as process:
        truth = process.run(files)["bins"]
        rate = entries / process.run(files[:1], **WAITING)["seconds"]
    say("a worker is killed")
    workers = workers_killed(files, events, scale.pairs, truth)
    say("a storage element is killed")
    elements = storage_killed(files, events, truth)
    value = {f"extra_over_lost {f:.0%}": workers[f"{f:.0%}"]["extra_over_lost"]["median"] for f in FRACTIONS}
    cluster = harness.cluster_entries(files[0])
    simulate = [
        {
            "name": f"faults {fraction:.0%}",
            "files": len(files),
            "entries": events,
            "cluster": cluster,
            "rates": [rate] * WORKERS,
            "deaths": [workers[f"{fraction:.0%}"]["killed_after"]["median"]],
            "replacement": workers[f"{fraction:.0%}"]["replaced_after"]["median"],
            "seconds": workers[f"{fraction:.0%}"]["seconds"]["median"],
        }
        for fraction in FRACTIONS
    ]
    met = all(ratio <= 1.2 for ratio in value.values()) and elements["seconds"] < 60
    figures = {"workers": workers, "storage_element": elements}
    harness.report("faults", CLAIM, value, met, scale.pairs, figures, scale.quick, simulate=simulate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
