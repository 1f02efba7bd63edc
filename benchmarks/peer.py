"""Plain ROOT in a process of its own: ``peer.py make|process``, orders and answers as JSON lines."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
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


def process(root: Any, order: dict[str, Any]) -> dict[str, Any]:
    """``TChain::Process``: an order with ``load`` loads the selector's library, the others run it."""
    if "load" in order:
        root.gROOT.SetBatch(True)
        if root.gROOT.LoadMacro(order["load"]) != 0:
            raise SystemExit(f"{order['load']} does not compile")
        return {}
    selector = getattr(root, order["class_name"])()
    inputs = root.TList()
    kept = [root.TParameter["Long64_t"](name, value) for name, value in order["inputs"].items()]
    for item in kept:
        inputs.Add(item)
    selector.SetInputList(inputs)
    chain = root.TChain(order["tree"])
    for path in order["files"]:
        chain.Add(path)
    before = _cpu()
    began = time.perf_counter()
    chain.Process(selector)
    wall = time.perf_counter() - began
    bins = {h.GetName(): harness.counts(h) for h in selector.GetOutputList()}
    return {"wall": wall, "cpu": _cpu() - before, "bins": bins}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    root = _root.load()
    does = {"make": make, "process": process}[sys.argv[1]]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever ROOT prints must not be taken for an answer
        for line in sys.stdin:
            print(json.dumps(does(root, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
