"""Decisions per second of the pure packetizer, and its memory.

10 000 workers at 100 sites share 100 000 files with two replicas each. ``lease`` is what handing packets out
alone costs; ``cycle`` has all that a packet costs the master's decisions: its lease, the report that it ran,
its commit's claim, and the opening of files that nobody has opened before.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator

import harness

from gridproof.engine.packets import Packet, cut
from gridproof.engine.query import FileInfo, Query

SITES = 100
WORKERS = 10_000
FILES = 100_000
ENTRIES = 2_500_000  # in a file: ten packets or more
RATE = 25_000.0  # entries per second of a worker
SECONDS = 10.0  # that a packet takes with so many workers
DECISIONS = 100_000  # in a run
CLAIM = "at least 100 000 decisions a second with 10 000 workers and 100 000 files"
CLUSTERS = range(0, ENTRIES, 100_000)


def replicas(index: int) -> tuple[tuple[str, str], ...]:
    """Two sites out of all pairs, evenly."""
    first = index % SITES
    second = (first + 1 + index // SITES % (SITES - 1)) % SITES
    return (f"V::S{first}::SE", f"S{first}"), (f"V::S{second}::SE", f"S{second}")


def files() -> list[FileInfo]:
    """The dataset."""
    return [FileInfo(f"/data/{i}", 3_000_000_000, replicas(i)) for i in range(FILES)]


class Driver:
    """Workers that run their packets at once; time goes on as if they had worked."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.names = [f"w{i}" for i in range(WORKERS)]
        self.sites = [f"S{i % SITES}" for i in range(WORKERS)]
        self.turns = self._turns()
        self.now = 0.0
        self.leasing = 0.0  # seconds spent in leases
        self.commits = 0
        self.decisions = 0

    def join(self) -> None:
        """All workers come."""
        for name, site in zip(self.names, self.sites, strict=True):
            self.query.join(name, site)

    def run(self, decisions: int) -> None:
        """Hand out so many packets, each of which is run and committed."""
        clock = time.perf_counter
        end = self.decisions + decisions
        while self.decisions < end:
            index = next(self.turns)
            name, site = self.names[index], self.sites[index]
            self.now += SECONDS / WORKERS
            began = clock()
            packets = self.query.lease(name, self.now)
            self.leasing += clock() - began
            if not packets:
                raise RuntimeError("the dataset is too small for this benchmark")
            self.decisions += len(packets)
            for packet in packets:
                entries = self._open(name, packet)
                self.query.ran(name, packet.id, entries, entries / RATE, site)
            self.commits += 1
            self.query.claim(name, name, self.commits, [packet.id for packet in packets])

    def _open(self, name: str, packet: Packet) -> int:
        if packet.last >= 0:
            return packet.last - packet.first
        last = cut(0, packet.limit, ENTRIES, CLUSTERS)
        self.query.opened(name, packet.id, last, ENTRIES, CLUSTERS)
        return last

    @staticmethod
    def _turns() -> Iterator[int]:
        while True:
            yield from range(WORKERS)


def growth(make: Callable[[], object]) -> int:
    """Bytes that are in use after a call and were not before."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


def main() -> None:
    """Measure and print."""
    scale = harness.scale()
    dataset = files()
    query = Query(dataset)
    driver = Driver(query)
    driver.join()
    driver.run(WORKERS)  # everybody has its first packet
    leases: list[float] = []
    cycles: list[float] = []
    for _ in range(scale.pairs):
        driver.leasing, before, began = 0.0, driver.decisions, time.perf_counter()
        driver.run(DECISIONS)
        cycles.append((driver.decisions - before) / (time.perf_counter() - began))
        leases.append((driver.decisions - before) / driver.leasing)
    per_file = growth(lambda: Query(dataset)) / FILES
    crowd = Driver(Query(dataset[:SITES]))
    per_worker = growth(crowd.join) / WORKERS
    value = harness.spread(leases)["median"]
    figures = {
        "packets": driver.decisions,
        "leases_per_second": harness.spread(leases),
        "cycles_per_second": harness.spread(cycles),
        "bytes_per_file": round(per_file),
        "bytes_per_worker": round(per_worker),
    }
    harness.report("packetizer", CLAIM, value, value >= 100_000, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
