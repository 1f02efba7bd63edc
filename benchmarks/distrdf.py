"""The same histograms by gridproof and by distributed RDataFrame on Dask, with as many worker processes.

Both read the same files. A fresh session has its workers started and connected; what is counted begins with
the call. What gridproof's node has compiled before is in its cache ("warm") or not ("cold").
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
from harness import Peer

WORKERS = 2
CLAIM = (
    "Against distributed RDataFrame on a Dask LocalCluster of N = 2: at least 1.3 times faster in a repeated "
    "query; in the first query of a fresh session at least 3 times faster where the node has compiled this "
    "selector before, and at most 1.2 times its time where it has not"
)


def session(way: str, files: list[Path], queries: int, **settings: Any) -> list[dict[str, Any]]:
    """The same query some times in a fresh session."""
    with Peer(way, workers=WORKERS, **settings) as peer:
        return [peer.run(files) for _ in range(queries)]


def compare(files: list[Path], pairs: int) -> dict[str, Any]:
    """Every round: a session of each with two queries, and one on a node that has compiled nothing."""
    seconds: dict[str, list[float]] = {"again": [], "rdf_again": []}
    results: list[dict[str, list[float]]] = []

    def took(answers: list[dict[str, Any]], again: str = "") -> float:
        results.extend(answer["bins"] for answer in answers)
        if again:
            seconds[again].append(answers[1]["seconds"])
        return float(answers[0]["seconds"])

    def theirs() -> float:
        return took(session("distrdf", files, 2), "rdf_again")

    def warm() -> float:
        return took(session("gridproof", files, 2, cache=used), "again")

    def cold() -> float:
        with tempfile.TemporaryDirectory(prefix="gridproof-bench-") as empty:
            return took(session("gridproof", files, 1, cache=empty))

    with tempfile.TemporaryDirectory(prefix="gridproof-bench-") as used:
        session("gridproof", files[:1], 1, cache=used)
        first_warm, first, first_cold = harness.interleaved(pairs, warm, theirs, cold)
    harness.same(*results)
    return {
        "repeated": harness.ratios(seconds["rdf_again"], seconds["again"]),
        "first_warm": harness.ratios(first, first_warm),
        "first_cold_time": harness.ratios(first_cold, first),
        "repeated_seconds": harness.spread(seconds["again"]),
        "first_warm_seconds": harness.spread(first_warm),
        "first_cold_seconds": harness.spread(first_cold),
        "distrdf_repeated_seconds": harness.spread(seconds["rdf_again"]),
        "distrdf_first_seconds": harness.spread(first),
    }


def main() -> int:
    scale = harness.scale()
    events = scale(2_000_000, 250_000)
    files = harness.data(scale(20, 4), events)
    figures = compare(files, scale.pairs)
    value = {what: figures[what]["median"] for what in ("repeated", "first_warm", "first_cold_time")}
    met = value["repeated"] >= 1.3 and value["first_warm"] >= 3 and value["first_cold_time"] <= 1.2
    figures["events"] = events * len(files)
    harness.report("distrdf", CLAIM, value, met, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
