"""An embedded Grid as Python sees it: start it, use it, and it is gone with the process that owns it."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from gridproof import processes
from gridproof.errors import LocalGridError
from gridproof.localgrid import discovery
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.settings import Settings
from gridproof.localgrid.sites import GridNetwork
from gridproof.localgrid.users import DEFAULT_USERS, User, Users

if TYPE_CHECKING:
    from gridproof.localgrid.client import GridAccess

START_TIMEOUT = 60.0


class LocalGrid:
    """A Grid of real parts on this machine: ``sites`` sites of ``slots`` slots with ``cores`` cores each.

    Without ``root`` everything lies in a temporary directory that goes with it; with one, catalogue, jobs and
    files stay there for the next start. With ``throttle`` it makes those wait who ask much, as JAliEn does.
    With ``open_storage`` its SEs serve everybody, else who has an access envelope of the catalogue's.
    With ``network`` its sites and its central service are where that says, else all on the loopback.
    ``users`` are those who may use it, beside ``admin``; what this object does it does as the first of them.
    ``limits`` says when jobs are killed, tried again, given up.
    Use it as a context manager, or call :meth:`start` and :meth:`stop`. It never outlives the process that
    started it.
    """

    def __init__(
        self,
        sites: int = 3,
        slots: int = 2,
        root: Path | str | None = None,
        cores: int = 1,
        throttle: bool = False,
        open_storage: bool = False,
        network: GridNetwork | None = None,
        users: Sequence[User] = DEFAULT_USERS,
        limits: Limits | None = None,
    ) -> None:
        for name, value in (("sites", sites), ("slots", slots), ("cores", cores)):
            if value < 1:
                raise LocalGridError(f"An embedded Grid needs at least one of {name}, not {value}")
        Users(users)
        self._settings = Settings(
            sites=sites,
            slots=slots,
            cores=cores,
            root=str(Path(root).absolute()) if root else "",
            throttle=throttle,
            open_storage=open_storage,
            network=network or GridNetwork(),
            users=tuple(users),
            limits=limits or Limits(),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._root: Path | None = None
        self._environment: dict[str, str] = {}
        self._sites: list[dict[str, Any]] = []
        self._keeper: threading.Thread | None = None
        self._released = threading.Event()

    def __enter__(self) -> LocalGrid:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a client of AliEn needs in its environment to talk to this Grid, as its first user."""
        return dict(self._environment)

    def environment_of(self, user: str) -> dict[str, str]:
        """The same for another of its users. Raises LocalGridError for one that it does not have."""
        return discovery.environment_of(self._reachable(), user)

    @property
    def root(self) -> Path:
        """The Grid's directory."""
        if self._root is None:
            raise LocalGridError("This embedded Grid is not running: call start() first")
        return self._root

    @property
    def site_names(self) -> tuple[str, ...]:
        return tuple(f"Site{site['number']}" for site in self._sites)

    @property
    def se_names(self) -> tuple[str, ...]:
        return tuple(f"Local::Site{site['number']}::SE" for site in self._sites)

    @property
    def pid(self) -> int:
        """The process of the service."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it and wait until it can be used. Raises LocalGridError, with nothing left behind."""
        if self._process:
            raise LocalGridError("This embedded Grid is running already")
        discovery.sweep()
        self._process = self._spawn()
        assert self._process.stdin
        assert self._process.stdout
        try:
            line = replace(self._settings, owner=os.getpid()).to_json()
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
            self._follow(self._process.stdout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and everything that belongs to it; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        processes.stop(process)
        if process.stdout:
            process.stdout.close()
        self._released.set()
        if self._keeper:
            self._keeper.join()
        if self._root and not self._settings.root:
            discovery.remove_root(self._root)
        self._root, self._environment, self._sites = None, {}, []

    def put(self, file: Path | str, lfn: str, ses: Sequence[str] = ()) -> None:
        """Store a local file under ``lfn``, with a replica on each of ``ses`` (none named: on any one)."""
        with self._access() as access:
            access.put(Path(file), lfn, ses)

    def enter_members(self, lfn: str) -> None:
        """Enter the members of a zip archive of the Grid as files beside it."""
        self._command("gridUnzip", lfn)

    def collect(self, lfn: str, files: Sequence[str]) -> None:
        """Make a collection of files of the Grid."""
        self._command("gridCollect", lfn, *files)

    def get(self, lfn: str, file: Path | str) -> None:
        """Copy a file of the Grid to a local one."""
        with self._access() as access:
            access.get(lfn, Path(file))

    def status(self) -> list[dict[str, str]]:
        """Sites (with slots in use, SE, its pid and URL) and numbers of jobs by state."""
        return status(self._reachable())

    def commands(self) -> dict[tuple[str, str], int]:
        """How many commands the central service has had so far, by the certificate's subject and the name."""
        rows = self._command("gridCommands")
        return {(row["subject"], row["command"]): int(row["count"]) for row in rows}

    def restart_se(self, name: str) -> None:
        """Start the server of a storage element anew."""
        self._command("gridRestartSE", name)

    def _command(self, name: str, *options: str) -> list[dict[str, Any]]:
        with self._access() as access:
            return access.command(name, *options)

    def _access(self) -> GridAccess:
        return _connect(self._reachable())

    def _reachable(self) -> dict[str, str]:
        if not self._environment:
            raise LocalGridError("This embedded Grid is not running: call start() first")
        return self._environment

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the service from a thread that lasts as long: it dies with the *thread* that starts it."""
        started: list[subprocess.Popen[bytes] | BaseException] = []
        ready = threading.Event()
        self._released.clear()

        def keep() -> None:
            try:
                argv = [sys.executable, "-m", "gridproof.localgrid"]
                started.append(processes.spawn(argv, stdout=subprocess.PIPE))
            except BaseException as error:  # handed to the caller
                started.append(error)
            ready.set()
            self._released.wait()

        self._keeper = threading.Thread(target=keep, name="gridproof-localgrid", daemon=True)
        self._keeper.start()
        ready.wait()
        if isinstance(started[0], BaseException):
            self._released.set()
            raise LocalGridError(f"The embedded Grid's process could not be started: {started[0]}")
        return started[0]

    def _follow(self, events: IO[bytes]) -> None:
        for event in read_events(events):
            if "root" in event:
                self._root = Path(event["root"])
            if "error" in event:
                raise LocalGridError(event["error"])
            if "ready" in event:
                self._environment, self._sites = event["environment"], event["sites"]
                return
        raise LocalGridError("The embedded Grid's process ended before the Grid was ready")


def read_events(events: IO[bytes], timeout: float = START_TIMEOUT) -> Any:
    """The service's announcements one by one, until it closes them. Raises LocalGridError when late."""
    deadline = time.monotonic() + timeout
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(events, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            block = os.read(events.fileno(), 65_536)
            if not block:
                return
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                yield json.loads(line)
    raise LocalGridError(f"The embedded Grid was not ready after {timeout:.0f} s")


def status(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What a Grid says about its sites, storage elements and jobs."""
    with _connect(environment) as access:
        return access.command("gridStatus")


def _connect(environment: Mapping[str, str]) -> GridAccess:
    from gridproof.localgrid.client import GridAccess  # which takes time to import

    return GridAccess(environment)


def start_standing(settings: Settings) -> discovery.Running:
    """Start the Grid that belongs to nobody, until :func:`stop_standing`. Raises LocalGridError."""
    discovery.sweep()
    if discovery.find(0):
        raise LocalGridError("An embedded Grid is running already: 'gridproof grid status' shows it")
    process = subprocess.Popen(
        [sys.executable, "-m", "gridproof.localgrid"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(settings.to_json().encode() + b"\n")
        process.stdin.close()
        for event in read_events(process.stdout):
            if "error" in event:
                raise LocalGridError(event["error"])
            if "ready" in event:
                break
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        process.stdout.close()
    running = discovery.find(0)
    if running is None:
        raise LocalGridError("The embedded Grid ended before it was ready")
    process.returncode = 0  # it is nobody's child from now on
    return running


def stop_standing(timeout: float = 30.0) -> bool:
    """Stop the Grid that belongs to nobody; whether there was one."""
    running = discovery.find(0)
    if running is None:
        return False
    ended = os.pidfd_open(running.pid)
    try:
        os.kill(running.pid, 15)
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise LocalGridError(
                    f"The embedded Grid (pid {running.pid}) has not ended after {timeout:.0f} s"
                )
    finally:
        os.close(ended)
    discovery.sweep()
    return True
