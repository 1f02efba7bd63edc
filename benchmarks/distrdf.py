"""The same histograms by gridproof and by distributed RDataFrame on Dask, with as many worker processes.

Both read the same files. A fresh session has its workers started and connected; what is counted begins with
the call. What gridproof's node has compiled before is in its cache ("warm") or not ("cold").
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import Peer, say

WORKERS = 2
CLAIM = (
    "Against distributed RDataFrame on a Dask LocalCluster of N = 2: at least 1.3 times faster in a repeated "
    "query; in the first query of a fresh session at least 3 times faster where the node has compiled this "
    "selector before, and at most 1.2 times its time where it has not"
)


def repeated(files: list[Path], pairs: int) -> dict[str, Any]:
    """Queries in sessions that have run the same one before."""
    with (
        tempfile.TemporaryDirectory(prefix="gridproof-bench-") as cache,
        Peer("gridproof", workers=WORKERS, cache=cache) as ours,
        Peer("distrdf", workers=WORKERS) as theirs,
    ):
        ours.run(files)
        theirs.run(files)
        return _compare(pairs, lambda: ours.run(files), lambda: theirs.run(files))


def first(files: list[Path], pairs: int, warm: bool) -> dict[str, Any]:
    """First queries of fresh sessions."""

    def theirs() -> dict[str, Any]:
        with Peer("distrdf", workers=WORKERS) as peer:
            return peer.run(files)

    with tempfile.TemporaryDirectory(prefix="gridproof-bench-") as used:

        def ours() -> dict[str, Any]:
            with (
                tempfile.TemporaryDirectory(prefix="gridproof-bench-") as empty,
                Peer("gridproof", workers=WORKERS, cache=used if warm else empty) as peer,
            ):
                return peer.run(files)

        if warm:
            ours()
        return _compare(pairs, ours, theirs)


def _compare(
    pairs: int, ours: Callable[[], dict[str, Any]], theirs: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    results: list[dict[str, list[float]]] = []

    def kept(way: Callable[[], dict[str, Any]]) -> float:
        found = way()
        results.append(found["bins"])
        return float(found["seconds"])

    mine, others = harness.interleaved(pairs, lambda: kept(ours), lambda: kept(theirs))
    harness.same(*results)
    return {
        "ratio": harness.ratios(others, mine),
        "seconds": harness.spread(mine),
        "distrdf_seconds": harness.spread(others),
    }


def main() -> int:
    scale = harness.scale()
    events = scale(2_000_000, 250_000)
    files = harness.data(scale(20, 4), events)
    say("repeated query")
    again = repeated(files, scale.pairs)
    say("first query, compiled before")
    warm = first(files, scale.pairs, warm=True)
    say("first query, never compiled")
    cold = first(files, scale.pairs, warm=False)
    value = {
        "repeated": again["ratio"]["median"],
        "first_warm": warm["ratio"]["median"],
        "first_cold_time": round(1 / cold["ratio"]["median"], 4),
    }
    met = value["repeated"] >= 1.3 and value["first_warm"] >= 3 and value["first_cold_time"] <= 1.2
    figures = {"events": events * len(files), "repeated": again, "first_warm": warm, "first_cold": cold}
    harness.report("distrdf", CLAIM, value, met, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
