"""Grids for the tests, and a client of theirs that shows answers as they are."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from websockets.sync.client import connect

from gridproof.localgrid import Limits, LocalGrid
from gridproof.localgrid.certificates import Authority, Subject, write_private

HOME = "/local/user/g/gproof"
LIMITS = Limits(report_interval=0.1)


class Raw:
    """One connection; answers come with their metadata."""

    def __init__(
        self,
        environment: Mapping[str, str],
        cert: Path | None = None,
        key: Path | None = None,
        path: str = "/websocket/json",
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # as the package's own small client, for its reason
        context.load_verify_locations(capath=environment["X509_CERT_DIR"])
        context.load_cert_chain(cert or environment["X509_USER_CERT"], key or environment["X509_USER_KEY"])
        url = f"wss://127.0.0.1:{environment['ALIENPY_JCENTRAL_PORT']}{path}"
        self.stack = contextlib.ExitStack()
        self.connection = self.stack.enter_context(connect(url, ssl=context, max_size=None, proxy=None))

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def ask(self, command: str, *options: str) -> dict[str, Any]:
        self.connection.send(json.dumps({"command": command, "options": options}))
        answer: dict[str, Any] = json.loads(self.connection.recv(30))
        return answer

    def rows(self, command: str, *options: str) -> list[dict[str, Any]]:
        answer = self.ask(command, *options)
        assert answer["metadata"]["exitcode"] == "0", answer
        rows: list[dict[str, Any]] = answer["results"]
        return rows

    def submit(self, jdl: str, *arguments: str) -> str:
        return str(self.rows("submit", jdl, *arguments)[0]["jobId"])

    def status(self, job: str) -> str:
        return str(self.rows("ps", "-j", job)[0]["status"])

    def trace(self, job: str) -> str:
        return str(self.rows("ps", "-trace", job)[0]["trace"])

    def wait(self, job: str, *states: str, timeout: float = 30.0) -> str:
        deadline = time.monotonic() + timeout
        while (status := self.status(job)) not in states:
            assert time.monotonic() < deadline, f"{status} is not {states}\n{self.trace(job)}"
            time.sleep(0.02)
        return status


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, which must come true in time."""

    def wait(condition: Callable[[], object], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.02)

    return wait


@pytest.fixture
def dial() -> type[Raw]:
    """How to make further connections."""
    return Raw


@pytest.fixture
def roots() -> Iterator[Path]:
    """A directory that XRootD's account can enter, for Grids that keep their state."""
    path = Path("/tmp") / f"gridproof-test-{os.getpid()}"
    path.mkdir(mode=0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(limits=LIMITS) as grid:
        yield grid


@pytest.fixture
def raw(grid: LocalGrid) -> Iterator[Raw]:
    with Raw(grid.environment) as raw:
        yield raw


@pytest.fixture
def script(grid: LocalGrid, raw: Raw, tmp_path: Path) -> Callable[..., str]:
    """Put a shell script on the Grid; its LFN."""

    def put(text: str, name: str = "job.sh") -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        lfn = f"{HOME}/{tmp_path.name}/{name}"
        raw.ask("rm", lfn)
        grid.put(path, lfn)
        return lfn

    return put


@pytest.fixture
def ada(grid: LocalGrid) -> Iterator[Raw]:
    """A user of a Grid that has one of this name; so are the next."""
    with Raw(grid.environment_of("ada")) as raw:
        yield raw


@pytest.fixture
def bob(grid: LocalGrid) -> Iterator[Raw]:
    with Raw(grid.environment_of("bob")) as raw:
        yield raw


@pytest.fixture
def admin(grid: LocalGrid) -> Iterator[Raw]:
    with Raw(grid.environment_of("admin")) as raw:
        yield raw


@pytest.fixture
def issue(grid: LocalGrid, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Make a certificate of the Grid's authority, or of another; it is in two files."""

    def issue(
        subject: Subject, start: float = 0.0, hours: float = 1.0, authority: Authority | None = None
    ) -> tuple[Path, Path]:
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=start)
        authority = authority or Authority(grid.root / "private", now)
        issued = authority.issue(subject, now, datetime.timedelta(hours=hours))
        write_private(tmp_path / "cert.pem", issued.cert)
        write_private(tmp_path / "key.pem", issued.key)
        return tmp_path / "cert.pem", tmp_path / "key.pem"

    return issue
