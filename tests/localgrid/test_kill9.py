"""A Grid whose service is killed by ``kill -9`` under load: the next one knows what clients were told."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import WebSocketException

from gridproof.localgrid import Limits, LocalGrid
from gridproof.localgrid.settings import Settings

SUBJOBS = 20
LIMITS = Limits(report_interval=0.1)


@dataclass
class Client:
    """One client's load, until its connection breaks, and what it was told."""

    raw: Any
    root: Path
    number: int
    files: dict[str, str] = field(default_factory=dict)  # MD5 by LFN
    doubtful: set[str] = field(default_factory=set)  # named by the command that was not answered
    jobs: dict[str, str] = field(default_factory=dict)  # the state that a job must have, "" for any

    def run(self) -> None:
        try:
            for turn in range(10_000):
                self._turn(turn)
        except (WebSocketException, OSError, EOFError, AssertionError):
            return

    def _turn(self, turn: int) -> None:
        lfn = f"/local/load{self.number}/{turn % 7}/{turn}"
        self.doubtful = {lfn}
        self.files[lfn] = self._put(lfn, f"{self.number} {turn}".encode())
        if turn % 3 == 0:
            self.doubtful = {lfn, lfn + "-moved"}
            self.raw.rows("mv", lfn, lfn + "-moved")
            self.files[lfn + "-moved"] = self.files.pop(lfn)
        if turn % 5 == 0:
            gone = self.doubtful = {name for name in self.files if name.startswith(f"{Path(lfn).parent}/")}
            self.raw.rows("rm", "-r", str(Path(lfn).parent))
            self.files = {name: md5 for name, md5 in self.files.items() if name not in gone}
        self.doubtful = set()
        how = f'Split = "production:1-{SUBJOBS}"; Requirements = other.CE == "A::B::C";' if turn % 2 else ""
        job = self.raw.submit(f'Executable = "/local/job.sh"; OutputFile = {{"out@disk=1"}}; {how}')
        self.jobs[job] = ""
        if turn % 4 == 1:
            self.raw.rows("kill", job)
            self.jobs[job] = "KILLED"

    def _put(self, lfn: str, content: bytes) -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        permit = self.raw.rows("access", "write", lfn, "disk:1")[0]
        path = on_disk(self.root, permit["se"], permit["url"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
        self.raw.rows(
            *("commit", permit["envelope"], str(len(content)), lfn, "644", "0", permit["url"], permit["se"]),
            *(permit["guid"], md5),
        )
        return md5


def on_disk(root: Path, se: str, url: str) -> Path:
    site = se.split("::")[1].capitalize()
    return root / "se" / site / "data" / url.split("//")[2]


@pytest.mark.parametrize("seed", range(3))
def test_after_kill_9_under_load_what_clients_were_told_is_true(
    roots: Path, tmp_path: Path, dial: Any, until: Callable[..., None], seed: int
) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/sh\necho done >out\n")
    root = roots / "grid"
    with LocalGrid(sites=1, slots=1, root=root, limits=LIMITS) as grid:
        grid.put(tmp_path / "job.sh", "/local/job.sh")
        clients = [Client(dial(grid.environment), root, number) for number in range(3)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(random.Random(seed).uniform(0.2, 0.6))
        service = psutil.Process(grid.pid)
        servers = service.children()
        service.kill()
        for thread, client in zip(threads, clients, strict=True):
            thread.join()
            client.raw.stack.close()
        psutil.wait_procs(servers, timeout=10)
    with LocalGrid(sites=1, slots=1, root=root, limits=LIMITS) as grid, dial(grid.environment) as raw:
        for client in clients:
            assert client.jobs, "killed before anything was told"
            check_files(raw, root, client)
            check_jobs(raw, client, until)


def check_files(raw: Any, root: Path, client: Client) -> None:
    listed = {row["lfn"] for row in raw.rows("find", "/local", f"load{client.number}")}
    assert listed - client.doubtful == set(client.files) - client.doubtful
    for lfn in listed:
        (entry,), (replica,) = raw.rows("stat", lfn), raw.rows("whereis", lfn)
        content = on_disk(root, replica["seName"], replica["pfn"]).read_bytes()
        assert entry["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert client.files.get(lfn, entry["md5"]) == entry["md5"] or lfn in client.doubtful


def check_jobs(raw: Any, client: Client, until: Callable[..., None]) -> None:
    for job, status in client.jobs.items():
        (row,) = raw.rows("ps", "-j", job)
        assert status in ("", row["status"])
        assert "Job inserted" in raw.trace(job)
        if "Split" in raw.rows("ps", "-jdl", job)[0]["jdl"]:
            complete = {0, SUBJOBS} if status else {SUBJOBS}
            until(lambda job=job, complete=complete: len(raw.rows("ps", "-m", job)) in complete)


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.35])
def test_a_service_that_was_killed_while_it_started_starts_the_next_time(roots: Path, seconds: float) -> None:
    root = roots / "grid"
    starting = subprocess.Popen(
        [sys.executable, "-m", "gridproof.localgrid"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with starting:
        starting.stdin.write(Settings(sites=1, slots=1, root=str(root), owner=1).to_json().encode() + b"\n")
        starting.stdin.flush()
        starting.stdout.readline()
        time.sleep(seconds)
        starting.kill()
    with LocalGrid(sites=1, slots=1, root=root) as grid:
        assert grid.status()
