"""Plain ROOT in a process of its own: makes the demo's files, and does its query without gridproof.

Run as ``python -m gridproof.demo.plain``. One JSON object comes on standard input and says what to do;
answers are JSON, one to a line, on standard output. ROOT's own words go to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from gridproof import _root


def make(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write ``files``, a list of ``[path, events, seed]``, with the macro MakeEsd.C; one answer per file."""
    root = _root.load()
    if root.gROOT.LoadMacro(order["macro"]) != 0:
        raise RuntimeError(f"{order['macro']} does not load; see ROOT's message above")
    for path, events, seed in order["files"]:
        if root.MakeEsd(path, events, seed) != events:
            raise RuntimeError(f"{path} could not be written with {events} events; is the disk full?")
        yield {"path": path}


def process(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """``TChain::Process`` of ``selector`` over ``files``; its output objects go to the file ``output``."""
    root = _root.load()
    root.gROOT.SetBatch(True)
    selector = root.TSelector.GetSelector(order["selector"])
    if not selector:
        raise RuntimeError(f"{order['selector']} does not load; see ROOT's message above")
    chain = root.TChain(order["tree"])
    for path in order["files"]:
        chain.Add(path)
    start = time.monotonic()
    chain.Process(selector, order["option"])
    wall = time.monotonic() - start
    output = root.TFile(order["output"], "RECREATE")
    for thing in selector.GetOutputList():
        output.WriteTObject(thing, thing.GetName())
    output.Close()
    yield {"wall": wall, "events": int(chain.GetEntries())}


_DOES: dict[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {"make": make, "process": process}


def main() -> None:
    order = json.loads(sys.stdin.readline())
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever ROOT or a macro prints must not be taken for an answer
        for answer in _DOES[order["do"]](order):
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
