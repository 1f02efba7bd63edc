"""500 commits of 20 MB of histograms: the master's memory, its throughput, and who waits meanwhile.

Real workers under a real master, over TLS; the selector waits instead of computing, so that the processors
are there for what is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import harness
import psutil

WORKERS = 8
EARLY = 50  # commits after which the master is as large as it becomes
GROWTH, LONGEST_WAIT = 1.05, 0.5
CLAIM = (
    f"the master's memory after 500 commits of 20 MB is at most {GROWTH} times that after {EARLY}, and no "
    f"worker waits {LONGEST_WAIT} s for a lease meanwhile"
)
TIMED = """
import time
from gridproof.engine.masterlink import MasterLink
once = MasterLink.once
async def timed(self, message, **content):
    began = time.perf_counter()
    answer = await once(self, message, **content)
    if message == "lease" and not content["wait"]:  # while it has another one
        with open(f"{WHERE}/waits-{os.getpid()}", "a") as file:
            file.write(f"{time.perf_counter() - began}\\n")
    return answer
MasterLink.once = timed
"""


def waits_in(directory: Path) -> list[list[float]]:
    """Seconds that leases took, by worker."""
    return [[float(line) for line in path.open()] for path in sorted(directory.glob("waits-*"))]


def around(samples: Sequence[tuple[int, float, int]], commits: int, span: int) -> float:
    """The median of the master's memory from so many commits on, for ``span`` further ones."""
    return statistics.median(memory for merged, _, memory in samples if commits <= merged <= commits + span)


def main() -> None:
    """Measure and report."""
    scale = harness.scale(pairs=1)
    commits, early = scale(500, 30), scale(EARLY, 15)
    parts = harness.dataset(harness.data(files=scale(8, 2), events=300_000))
    with harness.Cluster(WORKERS, prelude=TIMED) as cluster:
        root = cluster.queries.root
        query = cluster.queries.submit(
            parts, f"{harness.HERE / 'Heavy.C'}+", inputs={"wait": 1000}, feedback=0.25
        )
        master = psutil.Process(cluster.master.pid)
        samples: list[tuple[int, float, int]] = []
        merged = 0
        while merged < commits:
            snapshot = cluster.send("partial", query=query.id, version=commits - 1, wait=0.25)
            merged = snapshot["version"]
            if merged:
                samples.append((merged, time.monotonic(), master.memory_info().rss))
            if len(samples) % 20 == 1:
                harness.say(
                    f"  {merged} commits, {samples[-1][2] / 1e6:.0f} MB" if samples else "  compiling"
                )
        query.cancel()
        query.wait()
        status = cluster.send("follow", query=query.id, version=0, wait=0)
        partial = query.partial()
        if not partial["spectrum7"].GetEntries() == partial["plane3"].GetEntries() == status["events"]:
            raise SystemExit("the merged histograms do not have the entries that were committed")
        waits = waits_in(cluster.directory)
        del partial, root
    seconds = samples[-1][1] - samples[0][1]
    size = status["received_bytes"] / merged
    growth = around(samples, merged - early, early) / around(samples, early, early)
    slowest = max(max(of_one) for of_one in waits)
    step = max(1, len(samples) // 20)
    figures = {
        "commits": merged,
        "commit_mb": round(size / 1e6, 1),
        "commits_per_s": round((samples[-1][0] - samples[0][0]) / seconds, 2),
        "merge_seconds_share": round(status["merge_seconds"] / status["seconds"], 3),
        "merging_mb_per_s": round(status["received_bytes"] / 1e6 / status["merge_seconds"], 1),
        "master_mb": [[n, round(memory / 1e6)] for n, _, memory in samples[::step]],
        "master_peak_mb": round(status["master_memory"] / 1e6),
        "lease_wait_s": harness.spread([wait for of_one in waits for wait in of_one]),
        "lease_wait_s_by_worker": [round(max(of_one), 4) for of_one in waits],
    }
    value = {
        "memory, end over early": round(growth, 3),
        "MB/s through the master": round((samples[-1][0] - samples[0][0]) * size / 1e6 / seconds, 1),
        "slowest wait for a lease, s": round(slowest, 4),
    }
    met = growth <= GROWTH and slowest <= LONGEST_WAIT
    harness.report("merge", CLAIM, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
