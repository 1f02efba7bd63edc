"""One way to run a query, in a process of its own: ``peer.py TASK``, orders and answers as JSON lines.

The first order of a way says how to prepare it, the others are queries; `make` writes data.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import harness

from gridproof import _root


def make(root: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Write ``files``, a list of ``[path, events, seed]``."""
    if root.gROOT.LoadMacro(order["macro"] + "+") != 0:
        raise SystemExit(f"{order['macro']} does not compile")
    for path, events, seed in order["files"]:
        if root.MakeData(path + ".part", events, seed) != events:
            raise SystemExit(f"{path} could not be written")
        os.replace(path + ".part", path)  # noqa: PTH105
    return {}


class Process:
    """``TChain::Process`` with a compiled selector."""

    def __init__(self, root: Any) -> None:
        self._root = root
        root.gROOT.SetBatch(True)
        if root.gROOT.LoadMacro(harness.SELECTOR) != 0:
            raise SystemExit("the selector does not compile")

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        selector = self._root.Spectrum()
        inputs = self._root.TList()
        kept = [self._root.TParameter["Long64_t"](name, value) for name, value in order["inputs"].items()]
        for item in kept:
            inputs.Add(item)
        selector.SetInputList(inputs)
        chain = self._root.TChain(harness.TREE)
        for path in order["files"]:
            chain.Add(path)
        began, cpu = time.perf_counter(), _cpu()
        chain.Process(selector)
        seconds, cpu = time.perf_counter() - began, _cpu() - cpu
        return {"seconds": seconds, "cpu": cpu, "bins": harness.contents(_by_name(selector.GetOutputList()))}


class Rival:
    """ROOT's own ``ByProcesses`` (TTreeProcessorMP) or ``ByThreads`` (RDataFrame), compiled; see Rivals.C."""

    def __init__(self, root: Any, function: str, workers: int) -> None:
        self._root = root
        self._workers = workers
        root.gROOT.SetBatch(True)
        for macro in (harness.SELECTOR, f"{harness.HERE / 'Rivals.C'}+"):
            if root.gROOT.LoadMacro(macro) != 0:
                raise SystemExit(f"{macro} does not compile")
        self._function = getattr(root, function)
        self._wants_selector = function == "ByProcesses"

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        files = self._root.std.vector["std::string"](order["files"])
        selector = [self._root.Spectrum()] if self._wants_selector else []
        seconds, found = harness.timed(lambda: self._function(files, *selector, self._workers))
        return {"seconds": seconds, "bins": harness.contents(_by_name(found))}


class Gridproof:
    """A session of its own; ``cache``: the node's directory of compiled code."""

    def __init__(self, _: Any, workers: int, cache: str) -> None:
        self._cluster = harness.Cluster(workers, Path(cache))

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        parts = harness.dataset([Path(path) for path in order["files"]])
        seconds, result = harness.timed(lambda: self._cluster.process(parts, **order["inputs"]))
        return {"seconds": seconds, "bins": harness.contents(result)}

    def close(self) -> None:
        self._cluster.__exit__()


class DistRdf:
    """Distributed RDataFrame on a Dask LocalCluster of its own."""

    def __init__(self, root: Any, workers: int) -> None:
        from distributed import Client, LocalCluster
        from ROOT._distrdf.Backends.Dask import Backend

        Backend.progress = lambda _: None  # a bar drawn ten times a second
        self._root = root
        root.RDF.Distributed.DistributeCppCode(f'#include "{harness.HERE / "work.h"}"')
        self._cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = Client(self._cluster)
        self._client.wait_for_workers(workers)
        self.pids = list(self._client.run(os.getpid).values())

    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        frame = self._root.RDataFrame(harness.TREE, order["files"], executor=self._client)
        seconds, bins = fill(frame, order["inputs"], began)
        return {"seconds": seconds, "bins": bins}

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def fill(frame: Any, inputs: dict[str, int], began: float) -> tuple[float, dict[str, list[float]]]:
    """What Spectrum.C does, as an RDataFrame; seconds since ``began`` and the bins."""
    if inputs:
        rounds = ", ".join(f"{inputs.get(name, 0)}LL" for name in ("burn", "every", "wait"))
        frame = frame.Filter(f"work::Event(vertexZ, {rounds})")
    frame = (
        frame.Filter("std::abs(vertexZ) <= 10.f")
        .Define("good", "pt >= 0.3f")
        .Define("goodPt", "pt[good]")
        .Define("goodEta", "eta[good]")
        .Define("goodPhi", "phi[good]")
    )
    pt = frame.Histo1D(("pt", "", 100, 0.0, 10.0), "goodPt")
    eta_phi = frame.Histo2D(("etaPhi", "", 36, -0.9, 0.9, 72, 0.0, 2 * math.pi), "goodEta", "goodPhi")
    histograms = {"pt": pt.GetValue(), "etaPhi": eta_phi.GetValue()}
    return time.perf_counter() - began, harness.contents(histograms)


def _by_name(objects: Any) -> dict[str, Any]:
    return {str(item.GetName()): item for item in objects}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


WAYS = {"process": Process, "rival": Rival, "gridproof": Gridproof, "distrdf": DistRdf}


def main() -> None:
    root = _root.load()
    task = sys.argv[1]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever ROOT prints must not be taken for an answer
        orders = (json.loads(line) for line in sys.stdin)
        way = None if task == "make" else WAYS[task](root, **next(orders))
        if way is not None:
            print(json.dumps({"pids": getattr(way, "pids", [])}), file=answers, flush=True)
        for order in orders:
            answer = make(root, order) if way is None else way(order)
            print(json.dumps(answer), file=answers, flush=True)
        if way is not None and hasattr(way, "close"):
            way.close()


if __name__ == "__main__":
    main()
