"""The embedded Grid as one process: central service, broker, agents, and the storage elements it owns."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gridproof import accounts
from gridproof.errors import LocalGridError
from gridproof.localgrid import discovery
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.central import CentralService
from gridproof.localgrid.certificates import Authority, user_subject, write_private
from gridproof.localgrid.core import Core, now_ms, utc_now
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.node.agent import SlotAgent
from gridproof.localgrid.node.monitor import Machine
from gridproof.localgrid.settings import Settings
from gridproof.localgrid.sites import Site, make_sites
from gridproof.localgrid.storage.element import StorageElement, check_programs
from gridproof.localgrid.storage.envelopes import Envelopes
from gridproof.localgrid.throttle import Throttle
from gridproof.localgrid.users import Users
from gridproof.localgrid.vobox import VoBox

TICK = 1.0  # s between two looks at what time alone brings about
CLEAR_UP_TICKS = 60
Announce = Callable[[dict[str, Any]], None]


async def run(settings: Settings, announce: Announce) -> int:
    """Be the Grid until SIGTERM, SIGINT or the owner's end; returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if settings.owner:
        loop.add_reader(0, _owner_spoke, loop, stop)
    running: Grid | None = None
    try:
        running = Grid(settings, announce)
        starting = asyncio.ensure_future(running.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        else:
            starting.result()
            await stopping
    except LocalGridError as error:
        announce({"error": str(error)})
        return 1
    except (OSError, sqlite3.Error, ValueError) as error:  # ValueError: keys that are none
        where = running.root if running else settings.root or tempfile.gettempdir()
        what = "no free space there" if isinstance(error, OSError) else "damaged, or another version's"
        announce({"error": f"The embedded Grid cannot use {where}: {error} ({what}?). Give it another root"})
        return 1
    finally:
        if running:
            await running.stop()
    return 0


def _owner_spoke(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        loop.remove_reader(0)
        stop.set()


class Grid:
    """All parts of the Grid below one root directory."""

    def __init__(self, settings: Settings, announce: Announce) -> None:
        check_programs()
        self._settings = settings
        self._announce = announce
        self._account = accounts.for_xrootd()
        self._temporary = not settings.root
        self.root = self._make_root()
        self._lock: int | None = None
        self._core: Core | None = None
        self._central: CentralService | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._state_file: Path | None = None
        self._storage: list[StorageElement] = []
        self._vobox: VoBox | None = None

    def _make_root(self) -> Path:
        if self._temporary:
            return Path(tempfile.mkdtemp(prefix="gridproof-", dir=self._temporary_directory()))
        root = Path(self._settings.root).absolute()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        return root

    def _temporary_directory(self) -> Path:
        preferred = Path(tempfile.gettempdir())
        if self._account and self._account.bar(preferred):
            return Path("/tmp")  # noqa: S108
        return preferred

    async def start(self) -> None:
        """Start everything and announce how it is reached. Raises LocalGridError, OSError, sqlite3.Error."""
        self._announce({"root": str(self.root), "temporary": self._temporary})
        self._enter_root()
        settings, private = self._settings, self.root / "private"
        sites = make_sites(settings.sites, settings.slots, settings.cores, settings.network.sites)
        envelopes = Envelopes.kept_in(private)
        self._storage = [
            StorageElement(
                site, self.root / "se" / site.name, self._account, envelopes, settings.open_storage
            )
            for site in sites
        ]
        starting = asyncio.gather(self._start_vobox(), *(se.start() for se in self._storage))
        try:
            await asyncio.sleep(0)  # the servers start while we make the rest
            self._core = core = self._make_core(private, sites)
            throttle = Throttle() if settings.throttle else None
            self._central = CentralService(core, private, throttle=throttle)
            await self._central.start()
        finally:
            await starting
        core.recover()
        self._start_agents(core)
        self._tasks.append(asyncio.create_task(self._tick(core)))
        environment = self._environment(core)
        self._state_file = discovery.publish(
            discovery.Running(
                os.getpid(),
                settings.owner,
                str(self.root),
                self._temporary,
                environment,
                self._vobox.address if self._vobox else {},
            )
        )
        self._announce({"ready": True, "environment": environment, "sites": [asdict(site) for site in sites]})

    def _enter_root(self) -> None:
        """Make it ours, with the directories that others look into."""
        if any(letter.isspace() or letter == "$" for letter in str(self.root)):
            raise LocalGridError(
                f"The root {str(self.root)!r} of the embedded Grid has a blank or a $ in it, which XRootD's"
                " configuration cannot hold: choose another root"
            )
        self.root.chmod(0o711)
        if self._account and (closed := self._account.bar(self.root)):
            raise LocalGridError(
                f"The root {self.root} of the embedded Grid lies below {closed}, which XRootD's account (uid"
                f" {self._account.uid}) cannot enter: choose a root below directories with mode 711 or more"
            )
        self._lock_root()
        private = self.root / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        private.chmod(0o700)
        shutil.rmtree(self.root / "wn", ignore_errors=True)
        (self.root / "wn").mkdir(mode=0o711)  # pilots' own XRootD servers run as another user
        (self.root / "se").mkdir(mode=0o711, exist_ok=True)

    def _start_agents(self, core: Core) -> None:
        node, machine = socket.gethostname(), Machine.here()
        for number in range(self._settings.slots):
            for site in core.sites:
                agent = SlotAgent(core, site, node, machine)
                self._tasks.append(asyncio.create_task(agent.run(), name=f"{site.name} slot {number}"))

    async def _start_vobox(self) -> None:
        if not self._settings.owner:
            self._vobox = await VoBox.start(
                self.root / "vobox", self._settings.cache, self.root / "certificates"
            )

    def _lock_root(self) -> None:
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalGridError(
                f"Another embedded Grid is running in {self.root}: stop it or choose another root"
            ) from None

    def _make_core(self, private: Path, sites: tuple[Site, ...]) -> Core:
        authority = Authority(private, utc_now())
        authority.publish(self.root / "certificates")
        users = Users(self._settings.users, self._settings.limits.quota)
        shutil.rmtree(private / "users", ignore_errors=True)  # some may be users no longer
        for user in users:
            own = discovery.user_directory(self.root, user.name)
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
            issued = authority.issue(user_subject(user.name), utc_now(), datetime.timedelta(days=365))
            write_private(own / "usercert.pem", issued.cert)
            write_private(own / "userkey.pem", issued.key)
        catalogue = Catalogue(private / "catalogue.db", users)
        catalogue.make_root(now_ms())
        store = JobStore(private / "jobs.db")
        for changed in store.quotas():
            users.quotas.set(*changed)
        storage = {se.name: se for se in self._storage}
        network, limits = self._settings.network, self._settings.limits
        return Core(
            self.root,
            sites,
            storage,
            authority,
            catalogue,
            store,
            TaskQueue(store.load(), limits, users.quotas),
            limits,
            users,
            network.address,
            network.port,
        )

    def _environment(self, core: Core) -> dict[str, str]:
        user = discovery.user_directory(self.root, core.users.default.name)
        return {
            "ALIENPY_JCENTRAL": core.address,
            "ALIENPY_JCENTRAL_PORT": str(core.port),
            "X509_CERT_DIR": str(self.root / "certificates"),
            **discovery.certificates_of(user),
        }

    async def _tick(self, core: Core) -> None:
        while True:
            await asyncio.to_thread(core.clear_up)
            for _ in range(CLEAR_UP_TICKS):
                await asyncio.sleep(TICK)
                core.tick()

    async def stop(self) -> None:
        """End everything that was started and, when temporary, remove the root."""
        if self._state_file:
            self._state_file.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._central:
            await self._central.stop()
        if self._vobox:
            self._vobox.stop()
        for se in self._storage:
            se.stop()
        if self._core:
            self._core.close()
        if self._lock is not None:
            os.close(self._lock)
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)


def main() -> int:
    """``python -m gridproof.localgrid``: settings are a JSON line on standard input, events leave as such."""
    os.umask(0o022)  # XRootD's account must pass directories and read configurations
    settings = Settings.from_json(_first_line())

    def announce(event: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(1, json.dumps(event).encode() + b"\n")
        if "root" in event:
            log = os.open(Path(event["root"]) / "service.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            os.close(log)
        if "ready" in event:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.close(nothing)

    return asyncio.run(run(settings, announce))


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # not one more: end-of-file on what follows means something
        if not byte:
            sys.exit("No settings on standard input: this is started by gridproof.localgrid.LocalGrid")
        line += byte
    return line
