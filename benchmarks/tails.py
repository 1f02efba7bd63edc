"""The end of a query when one of 4 workers runs at a quarter of the others' speed.

The selector waits more than it computes, so that two cores carry 4 workers. The slow one gets a quarter of
the CPU that it would use; what this does to its speed is measured with it alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import harness
from harness import Cluster, Independent, Peer, say

WORKERS = 4
SLOWER = 4.0
EVERY = 100  # entries between two waits
BURN = 20e-6  # s of CPU per entry
WAIT = 3000  # µs
PEER_ROUNDS = 2  # distributed RDataFrame takes minutes: its slow worker also compiles slowly
CLAIM = (
    "4 workers, one of them at a quarter of the speed: makespan at most 1.15 of total work over total rate"
)


class Slowed:
    """Processes that get ``share`` of a core, by the kernel's CPU quota where it can be set."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._group = self._make_group()
        self._stopped = threading.Event()
        self._timers: list[threading.Thread] = []
        self.how = (
            f"{self._share:.3f} of a core by cgroup ({self._group.parent})"
            if self._group
            else ("no CPU quota can be set here: stopped by SIGSTOP for three quarters of the time")
        )

    def __enter__(self) -> Slowed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for timer in self._timers:
            timer.join()
        if self._group:
            home = self._group.parent / "cgroup.procs"
            for pid in (self._group / "cgroup.procs").read_text().split():
                home.write_text(pid)
            self._group.rmdir()

    def add(self, pid: int) -> None:
        """Slow this process down."""
        if self._group:
            (self._group / "cgroup.procs").write_text(str(pid))
            return
        self._timers.append(threading.Thread(target=self._interrupt, args=(pid,)))
        self._timers[-1].start()

    def _make_group(self) -> Path | None:
        period = 100_000  # µs
        quota = round(self._share * period)
        first, second = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")
        unified = (first / "cgroup.controllers").exists()
        group = (first if unified else second) / f"gridproof-bench-{os.getpid()}-{id(self)}"
        try:
            if unified:
                (first / "cgroup.subtree_control").write_text("+cpu")
            group.mkdir(exist_ok=True)
            if unified:
                (group / "cpu.max").write_text(f"{quota} {period}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(period))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
        except OSError:
            return None
        return group

    def _interrupt(self, pid: int) -> None:
        try:
            while not self._stopped.wait(0.1 / SLOWER):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.1 * (1 - 1 / SLOWER))
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return


def alone(files: list[Path], entries: int, inputs: dict[str, int], share: float | None) -> dict[str, float]:
    """Entries per second of one worker by itself, and its CPU in cores; ``share``: slowed down to so much."""
    with Cluster(1) as cluster:
        cluster.process(harness.dataset(files[:1]))
        pids = cluster.worker_pids()
        with Slowed(share or 1.0) as slowed:
            if share:
                slowed.add(pids[0])
            before = harness.cpu_seconds(pids)
            seconds, _ = harness.timed(lambda: cluster.process(harness.dataset(files), **inputs))
            cores = (harness.cpu_seconds(pids) - before) / seconds
    return {"rate": entries * len(files) / seconds, "cores": cores}


def main() -> int:
    scale = harness.scale()
    entries = scale(80_000, 20_000)
    files = harness.data(8, entries)
    with Independent(1) as process:
        burn = process.rounds(files[:2], 2 * entries, BURN)
    inputs = {"burn": burn, "every": EVERY, "wait": WAIT}
    fast = alone(files[:2], entries, inputs, None)
    share = fast["cores"] / SLOWER
    slow = alone(files[:1], entries, inputs, share)
    say(f"alone: {fast}, slowed: {slow}")
    total = entries * len(files)
    least = total / ((WORKERS - 1) * fast["rate"] + slow["rate"])

    parts = harness.dataset(files)
    results: list[dict[str, list[float]]] = []
    with (
        Cluster(WORKERS) as cluster,
        Peer("distrdf", workers=WORKERS) as rdf,
        Slowed(share) as slow_one,
        Slowed(share) as slow_other,
    ):
        cluster.process(parts)
        rdf.run(files[:1], **inputs)  # compiled before it is slowed down
        slow_one.add(cluster.worker_pids()[0])
        slow_other.add(rdf.pids[0])

        def ours() -> float:
            seconds, result = harness.timed(lambda: cluster.process(parts, **inputs))
            results.append(harness.contents(result))
            return seconds

        def theirs() -> float:
            found = rdf.run(files, **inputs)
            results.append(found["bins"])
            return float(found["seconds"])

        beside = min(scale.pairs, PEER_ROUNDS)
        mine, others = harness.interleaved(beside, ours, theirs)
        mine += harness.interleaved(scale.pairs - beside, ours)[0]
    harness.same(*results)
    over = harness.spread([seconds / least for seconds in mine])
    figures: dict[str, Any] = {
        "makespan_over_bound": over,
        "bound_seconds": round(least, 3),
        "seconds": harness.spread(mine),
        "distrdf_seconds": harness.spread(others),
        "distrdf_over_bound": harness.spread([seconds / least for seconds in others]),
        "rate_alone": round(fast["rate"]),
        "rate_slowed_alone": round(slow["rate"]),
        "slowed_by": slow_one.how,
    }
    simulate = {
        "name": "tails",
        "files": len(files),
        "entries": total,
        "cluster": harness.cluster_entries(files[0]),
        "rates": [fast["rate"]] * (WORKERS - 1) + [slow["rate"]],
        "deaths": [],
        "seconds": figures["seconds"]["median"],
    }
    harness.report(
        "tails",
        CLAIM,
        over["median"],
        over["median"] <= 1.15,
        scale.pairs,
        figures,
        scale.quick,
        simulate=[simulate],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
