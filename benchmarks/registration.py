"""1 000 light pilots register at one ProxyServer process and heartbeat: seconds, CPU and memory of that.

The pilots are connections of their own, over real SSH, and join as real ones do: each makes a key pair,
enrols it with the submission's join key (which the server writes to its disk), dials again with it, looks
for the direct way, and is told to start a worker of the session, which it says runs. Only forkservers,
workers and nodes are missing (`lightpilots.py`). They run beside the server, on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncssh
import harness
import psutil

from gridproof import processes
from gridproof.proxy.client import ProxyClient
from gridproof.proxy.protocol import Versions

HOSTS = 2  # processes of pilots
HEARTBEAT = 5.0  # s, a pilot's default
SETTLE = 5.0
BEATING = 20.0  # s for which the CPU is measured
PATIENCE = 300.0
VERSIONS = Versions("3.11", "6.40", "bench", "2026")


@contextmanager
def proxy_server(directory: Path) -> Iterator[tuple[psutil.Process, dict[str, Any], asyncssh.SSHKey]]:
    """The ProxyServer as a process, how to reach it, and the key of its user ``bench``."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    settings = {
        "users": {"bench": [key.export_public_key().decode().strip()]},
        "accounts": {"bench": None},
        "port": 0,
        "state_dir": str(directory),
    }
    process = processes.spawn([sys.executable, "-m", "gridproof.proxy"], stdout=subprocess.PIPE)
    try:
        harness.tell(process, **settings)
        assert process.stdout is not None
        yield psutil.Process(process.pid), json.loads(process.stdout.readline()), key
    finally:
        processes.stop(process)


class Pilots:
    """So many light pilots in processes of their own."""

    def __init__(self, join: dict[str, Any], count: int) -> None:
        self._ready = [0] * HOSTS
        self._all = threading.Event()
        self._count = count
        self._processes = []
        for host in range(HOSTS):
            first, last = (count * place // HOSTS for place in (host, host + 1))
            process = processes.spawn(
                [sys.executable, harness.HERE / "lightpilots.py"], stdout=subprocess.PIPE
            )
            harness.tell(
                process,
                join=join,
                versions=asdict(VERSIONS),
                first=first + 2,
                count=last - first,
                heartbeat=HEARTBEAT,
            )
            self._processes.append(process)
            threading.Thread(target=self._listen, args=(host, process), daemon=True).start()

    def _listen(self, host: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._ready[host] = int(line.split()[1])
            if sum(self._ready) >= self._count:
                self._all.set()

    def wait(self) -> None:
        """Until all are ready."""
        if not self._all.wait(PATIENCE):
            raise SystemExit(f"{sum(self._ready)} of {self._count} pilots registered in {PATIENCE:.0f} s")

    def end(self) -> None:
        """End them."""
        for process in self._processes:
            processes.stop(process)


async def measure(count: int) -> dict[str, float]:
    """One server and ``count`` pilots."""
    with (
        tempfile.TemporaryDirectory(prefix="gridproof-bench-") as directory,
        proxy_server(Path(directory)) as (server, address, key),
    ):
        client = await ProxyClient.connect("127.0.0.1", address["port"], address["host_key"], "bench", key)
        await client.open_session(VERSIONS, count, session="bench")
        submission = await client.new_submission("bench", count, "bench")
        join = {
            "host": "127.0.0.1",
            "port": address["port"],
            "host_key": address["host_key"],
            "submission": submission.submission,
            "join_key": submission.join_key,
        }
        before, cpu = server.memory_info().rss, sum(server.cpu_times()[:2])
        began = time.perf_counter()
        pilots = await asyncio.to_thread(Pilots, join, count)
        try:
            await asyncio.to_thread(pilots.wait)
            took = time.perf_counter() - began
            joining = sum(server.cpu_times()[:2]) - cpu
            await asyncio.sleep(SETTLE)
            after, cpu = server.memory_info().rss, sum(server.cpu_times()[:2])
            began = time.perf_counter()
            await asyncio.sleep(BEATING)
            beating = (sum(server.cpu_times()[:2]) - cpu) / (time.perf_counter() - began)
            status = await client.status("bench")
            registered = sum(pilot.state == "ready" for pilot in status.pilots.values())
            running = sum(worker.state == "running" for worker in status.workers.values())
            if (registered, running) != (count, count):
                raise SystemExit(f"of {count} pilots {registered} are ready, {running} workers run")
        finally:
            pilots.end()
        await client.close()
    return {
        "seconds to register all": round(took, 2),
        "CPU seconds of the server for that": round(joining, 2),
        "CPU per second while they heartbeat": round(beating, 4),
        "KB per pilot": round((after - before) / count / 1000, 1),
    }


def main() -> None:
    """Measure and report."""
    scale = harness.scale(3)
    count = scale(1000, 50)
    runs = []
    for _ in range(scale.pairs):
        runs.append(asyncio.run(measure(count)))
        harness.say(f"  {runs[-1]}")
    figures = {name: harness.spread([run[name] for run in runs]) for name in runs[0]}
    value = {name: figure["median"] for name, figure in figures.items()}
    met = (
        value["seconds to register all"] <= 60
        and value["CPU per second while they heartbeat"] <= 0.2
        and value["KB per pilot"] <= 200
    )
    claim = f"{count} pilots register within 60 s, and cost at most 0.2 CPUs and 200 KB each afterwards"
    harness.report("registration", claim, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
