"""Leases and packets per second that one master serves over TLS to 2, 8 and 16 workers with empty packets.

Master, workers and their connections are the real ones; only what runs a packet (the `Runner`) does nothing
but say how long it would have taken, which is what the packetizer goes by.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
from harness import Master, cpu_seconds, tell

from gridproof import processes
from gridproof.engine import dask, runtime
from gridproof.engine.memory import MemoryGuard
from gridproof.engine.packets import Packet
from gridproof.engine.runner import Delta
from gridproof.engine.watch import Pace

WORKERS = (2, 8, 16)
RATE = 1000.0  # entries/s that a worker claims
SINGLE_TARGET, SEVERAL_TARGET = 800, 3000
CLAIM = (
    f"one master on two cores serves 16 workers with at least {SINGLE_TARGET} leases/s of a single packet, "
    f"and with at least {SEVERAL_TARGET} packets/s where packets are tiny and leases hold several"
)


class Idle:
    """A `Runner` whose packets take no time; it claims `RATE`."""

    instance_cost = 0.0

    def __init__(self, outputs: bytes) -> None:
        self._outputs = outputs
        self.uncommitted: tuple[int, ...] = ()

    def begin(self, query: Mapping[str, Any], code: Sequence[Any]) -> None:
        """Nothing to prepare."""

    def stop(self, stop: bool = True) -> None:
        """Nothing to stop."""

    def entry(self) -> int:
        """No entry takes any time."""
        return 0

    def locate(self, files: Sequence[Any]) -> None:
        """Nothing to find."""

    def run(self, packet: Packet, *_: Any) -> tuple[int, float, str]:
        """A packet of a file whose entries are known."""
        self.uncommitted += (packet.id,)
        entries = packet.last - packet.first
        return entries, entries / RATE, ""

    def finish(self) -> Delta:
        """No objects."""
        packets, self.uncommitted = self.uncommitted, ()
        return Delta(packets, self._outputs, (), 0, 0)

    def discard(self) -> None:
        """Forget what was run."""
        self.uncommitted = ()


class Cluster:
    """A master and workers that run nothing; ``outputs``: what each of their commits holds."""

    def __init__(self, directory: Path, workers: int, outputs: bytes) -> None:
        self._master = Master(directory, directory)
        self._forker = processes.spawn([sys.executable, __file__, "forker"])
        tls = self._master.for_workers
        for number in range(workers):
            tell(
                self._forker,
                name=f"w{number}",
                scheduler=self._master.address,
                tls=[tls.ca, tls.cert, tls.key],
                directory=str(directory),
                outputs=outputs.hex(),
            )
        while len(self._master.send("workers", at_least=workers, wait=10)) < workers:
            pass

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._master.close()
        processes.stop(self._forker)

    def run(self, files: int, entries: int, empty_input: bytes) -> dict[str, float]:
        """One query over so many files of so many entries."""
        described = [
            {
                "name": f"/data/run/{number:06}/AliESDs.root",
                "kind": "path",
                "size": 1000 * entries,
                "replicas": [],
                "entries": entries,
            }
            for number in range(files)
        ]
        send, pid = self._master.send, self._master.pid
        cpu = cpu_seconds([pid])
        query = send(
            "submit",
            spec={
                "selector": None,
                "class_name": "TSelector",
                "option": "",
                "input": empty_input,
                "on_missing": "fail",
                "feedback": 1.0,
                "commit": "interval",
                "title": "leases",
                "parts": [{"tree": "events", "alias": "", "files": described}],
            },
        )
        status: dict[str, Any] = {"over": False, "version": 0}
        while not status["over"]:
            status = send("follow", query=query, version=status["version"] + 1000, wait=5.0)
        send("forget", query=query)
        if status["error"] or status["events"] != files * entries:
            raise SystemExit(f"the query went wrong: {status}")
        return {
            "rate": status["packets"] / status["seconds"],
            "packets": status["packets"],
            "seconds": status["seconds"],
            "master_cpu_ms": 1000 * (cpu_seconds([pid]) - cpu) / status["packets"],
        }


def _work(spec: Mapping[str, Any]) -> int:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return asyncio.run(
        dask.run_worker(
            scheduler=spec["scheduler"],
            tls=dask.Tls(*spec["tls"]),
            name=spec["name"],
            site="",
            host="here",
            contact=None,
            port=0,
            directory=Path(spec["directory"]),
            make_runner=lambda: Idle(bytes.fromhex(spec["outputs"])),  # type: ignore[arg-type,return-value]
            memory=MemoryGuard(0),
            pace=Pace(),
            ends=math.inf,
        )
    )


def forker() -> None:
    """Fork a worker for each line of the standard input."""
    dask.configure()
    for line in sys.stdin:
        parent = os.getpid()
        if os.fork() == 0:
            processes.die_with_parent(parent)
            os._exit(_work(json.loads(line)))


def main() -> None:
    """Measure and report."""
    scale = harness.scale()
    root = runtime.load()
    empty = runtime.pack(root, root.TList())
    packets = scale(2500, 300)
    ways = {"single": (1, int(packets * RATE)), "several": (4 * packets, 10)}
    rates: dict[str, dict[int, list[dict[str, float]]]] = {way: {n: [] for n in WORKERS} for way in ways}
    for workers in WORKERS:
        with (
            tempfile.TemporaryDirectory() as directory,
            Cluster(Path(directory), workers, empty) as cluster,
        ):
            for turn in range(scale.pairs + 1):
                for way, (files, entries) in ways.items():
                    found = cluster.run(files, entries, empty)
                    harness.say(workers, way, {k: round(v, 2) for k, v in found.items()})
                    if turn:  # the first one warms up
                        rates[way][workers].append(found)
    figures = {
        way: {
            str(workers): {
                what: harness.spread([run[what] for run in runs])
                for what in ("rate", "packets", "master_cpu_ms")
            }
            for workers, runs in by_workers.items()
        }
        for way, by_workers in rates.items()
    }
    value = {way: figures[way]["16"]["rate"]["median"] for way in ways}
    met = value["single"] >= SINGLE_TARGET and value["several"] >= SEVERAL_TARGET
    harness.report("leases", CLAIM, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    if sys.argv[1:] == ["forker"]:
        forker()
    else:
        main()
