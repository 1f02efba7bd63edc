"""A master and workers as real processes, without Grid and ProxyServer around them."""

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gridproof import processes
from gridproof.engine.dask import MasterClient, Tls
from gridproof.loopthread import LoopThread
from gridproof.proxy.masters.certificates import make_identities

_FORKER = """
import json, os, sys
from gridproof import processes
from gridproof.engine.dask import EXIT_STALE
from gridproof.pilot import worker

worker.preload()

def fork(call, *arguments):
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent(parent)
        os._exit(call(*arguments))
    return pid

def keep(spec):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = EXIT_STALE
    while code:  # as a pilot does
        _, status = os.waitpid(fork(worker.main, spec), 0)
        code = os.waitstatus_to_exitcode(status)
        spec["name"] += "'"
    return 0

for line in sys.stdin:
    fork(keep, json.loads(line))
"""


class Cluster:
    """A master, and workers that `start` forks."""

    def __init__(self, directory: Path, keep_results: float = 3600.0) -> None:
        self.cache = directory / "cache"
        self.cache.mkdir()
        self.directory = directory
        self._log = (directory / "workers.log").open("wb")
        identities = make_identities("test", datetime.now(timezone.utc))
        self._worker = identities.worker
        self._born = 0
        self._master = processes.spawn(
            [sys.executable, "-m", "gridproof.proxy.masters"], stdout=subprocess.PIPE, stderr=self._log
        )
        self._forker = processes.spawn([sys.executable, "-c", _FORKER], stderr=self._log, stdout=self._log)
        server = identities.scheduler
        self._write(
            self._master,
            session="test",
            host="127.0.0.1",
            ca=server.ca,
            cert=server.cert,
            key=server.key,
            cache_dir=str(self.cache),
            scratch_dir=str(directory),
            keep_results=keep_results,
            store_size=10 << 30,
        )
        self.address = f"tls://127.0.0.1:{self.told()['port']}"
        self._loop = LoopThread("cluster")
        client = identities.client

        async def connect():
            return MasterClient(self.address, Tls(client.ca, client.cert, client.key))

        self._client = self._loop.run(connect())

    @property
    def master_pid(self) -> int:
        return self._master.pid

    def start(self, site: str = "A", memory_limit: int = 2_000_000_000) -> None:
        """Fork one more worker, of so many bytes at most."""
        self._born += 1
        self._write(
            self._forker,
            name=f"w{self._born}",
            scheduler=self.address,
            site=site,
            host="here",
            ca=self._worker.ca,
            cert=self._worker.cert,
            key=self._worker.key,
            cache_dir=str(self.cache),
            work_dir=str(self.directory),
            memory_limit=memory_limit,
        )

    def told(self) -> dict:
        """What the master tells its ProxyServer next."""
        return json.loads(self._master.stdout.readline())

    def send(self, message, **arguments):
        return self._loop.run(self._client.send(message, **arguments))

    def workers(self, at_least):
        found = self.send("workers", at_least=at_least, wait=20)
        assert len(found) >= at_least
        return found

    def log(self) -> str:
        return (self.directory / "workers.log").read_text(errors="replace")

    def close(self) -> None:
        self._loop.run(self._client.close())
        self._loop.close()
        processes.stop(self._master)
        processes.stop(self._forker)
        self._master.stdout.close()
        self._log.close()

    @staticmethod
    def _write(process, **message):
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def brief_cluster(tmp_path):
    """One whose master keeps results for a few seconds only."""
    running = Cluster(tmp_path, keep_results=4.0)
    try:
        yield running
    finally:
        running.close()
