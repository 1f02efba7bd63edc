"""Leases and packets per second that one master serves over TLS to 2, 8 and 16 workers with empty packets.

Master, workers and their connections are the real ones; only what runs a packet (the `Runner`) does nothing
but say how long it would have taken, which is what the packetizer goes by.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gridproof import processes
from gridproof.engine import dask
from gridproof.engine.memory import MemoryGuard
from gridproof.engine.packets import Packet
from gridproof.engine.runner import Delta
from gridproof.engine.watch import Pace
from gridproof.loopthread import LoopThread
from gridproof.proxy.certificates import make_identities

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
    """A master and idle workers."""

    def __init__(self, directory: Path) -> None:
        identities = make_identities("leases", datetime.now(timezone.utc))
        self.master = processes.spawn(
            [sys.executable, "-m", "gridproof.proxy.master"], stdout=subprocess.PIPE
        )
        self._forker = processes.spawn([sys.executable, __file__, "forker"])
        server, client, self._worker = identities.scheduler, identities.client, identities.worker
        self._directory = directory
        where = {"cache_dir": str(directory), "scratch_dir": str(directory), "keep_results": 60.0}
        _write(self.master, session="leases", ca=server.ca, cert=server.cert, key=server.key, **where)
        assert self.master.stdout is not None
        self.address = json.loads(self.master.stdout.readline())["address"]
        self._loop = LoopThread("leases")

        async def connect() -> dask.MasterClient:
            return dask.MasterClient(self.address, dask.Tls(client.ca, client.cert, client.key))

        self._client = self._loop.run(connect())
        self._workers = 0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()
        processes.stop(self.master)
        processes.stop(self._forker)

    def send(self, message: str, **arguments: Any) -> Any:
        """A client's message."""
        return self._loop.run(self._client.send(message, **arguments))

    def grow(self, workers: int, outputs: bytes) -> None:
        """Have so many workers."""
        tls = self._worker
        for number in range(self._workers, workers):
            _write(
                self._forker,
                name=f"w{number}",
                scheduler=self.address,
                tls=[tls.ca, tls.cert, tls.key],
                directory=str(self._directory),
                outputs=outputs.hex(),
            )
        self._workers = workers
        while len(self.send("workers", at_least=workers, wait=10)) < workers:
            pass

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
        cpu = _cpu(self.master.pid)
        query = self.send(
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
            status = self.send("follow", query=query, version=status["version"] + 1000, wait=5.0)
        self.send("forget", query=query)
        if status["error"] or status["events"] != files * entries:
            raise SystemExit(f"the query went wrong: {status}")
        return {
            "rate": status["packets"] / status["seconds"],
            "packets": status["packets"],
            "seconds": status["seconds"],
            "master_cpu_ms": 1000 * (_cpu(self.master.pid) - cpu) / status["packets"],
        }


def _write(process: subprocess.Popen[bytes], **message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def _cpu(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


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
    import harness

    from gridproof.engine import runtime

    scale = harness.scale()
    root = runtime.load()
    empty = runtime.pack(root, root.TList())
    packets = scale(2500, 300)
    ways = {"single": (1, int(packets * RATE)), "several": (4 * packets, 10)}
    rates: dict[str, dict[int, list[dict[str, float]]]] = {way: {n: [] for n in WORKERS} for way in ways}
    with tempfile.TemporaryDirectory() as directory:
        for workers in WORKERS:
            with Cluster(Path(directory)) as cluster:
                cluster.grow(workers, empty)
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
