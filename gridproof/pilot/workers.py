"""The workers of a pilot: the forkserver that makes them, and the way in and out of each."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.pilot.config import Job
from gridproof.pilot.logs import LOG, NewLines, without_secrets
from gridproof.proxy.masters.children import Child
from gridproof.proxy.protocol import (
    EXIT_REPLACE,
    Message,
    PilotMessage,
    StartWorker,
    Versions,
    WorkerExited,
    WorkerStarted,
    build,
    check_name,
    store_top,
)
from gridproof.proxy.reach import listens

_FORKSERVER_UP_WITHIN = 300.0  # a cold CVMFS may take minutes
_DEATHS_FORGIVEN = 3  # of forkservers,
_DEATHS_WITHIN = 300.0  # within so many seconds

Tell = Callable[[PilotMessage], None]


@dataclass
class _Worker:
    tunnels: set[int] = field(default_factory=set)  # to these ports on the VO-box
    direct: bool = False  # its way to its master
    reserved: socket.socket | None = None
    port: int = 0  # that it listens on
    ordered: bool = False  # of the forkserver

    def release(self) -> None:
        """Its port is anybody's."""
        if self.reserved is not None:
            self.reserved.close()


class Workers:
    """Starts workers as told over one connection at a time, and tells what becomes of them.

    ``start_forkserver`` is called when ``forkserver`` has died, with all its workers. ``vobox`` is where
    masters are dialled directly.
    """

    def __init__(
        self,
        forkserver: Child,
        start_forkserver: Callable[[], Awaitable[Child]],
        job: Job,
        vobox: str,
        work: Path,
        cache: Path,
        memory: int,
        tell: Tell,
        logs: NewLines,
        ends: float,
    ) -> None:
        self._forkserver = forkserver
        self._start_forkserver = start_forkserver
        self._up = asyncio.Event()  # the forkserver takes orders
        self._job = job
        self._vobox = vobox
        self._work = work
        self._cache = cache
        self._memory = memory  # bytes a worker may use, 0: no limit
        self._tell = tell
        self._logs = logs
        self._ends = ends  # when workers have to have committed everything, epoch seconds; 0: never
        self._workers: dict[str, _Worker] = {}
        self._tunnels: dict[int, asyncio.Future[asyncssh.SSHListener]] = {}  # by the port on the VO-box
        self._empty = asyncio.Event()
        self._empty.set()

    async def ready(self) -> tuple[Versions, int]:
        """Wait for the forkserver; returns the versions it runs and its number of threads.

        Raises:
            ProxyError: it did not come up, or what workers need cannot be imported on this node.
        """
        hello = await self._forkserver.first("the pilot's forkserver", _FORKSERVER_UP_WITHIN)
        if hello.get("event") == "failed":
            raise ProxyError(f"this node cannot run workers: {hello.get('reason')}")
        self._up.set()
        return build(Versions, hello.get("versions")), int(hello.get("threads", 0))

    async def follow(self) -> str:
        """Pass on what the forkserver reports, and have another one when it dies; why that is at its end.

        Raises:
            ProxyError: another one did not come up.
        """
        deaths: deque[float] = deque(maxlen=_DEATHS_FORGIVEN)
        while True:
            while (report := await self._forkserver.receive()) is not None:
                self._report(report)
            self._up.clear()
            how = f"the forkserver ended with code {await asyncio.shield(self._forkserver.exited)}"
            now = time.monotonic()
            if len(deaths) == _DEATHS_FORGIVEN and now - deaths[0] < _DEATHS_WITHIN:
                return f"{how}, once more"
            deaths.append(now)
            for name in list(self._workers):
                self._forget(name)
                self._tell(WorkerExited(name, EXIT_REPLACE, 0, how))
            self._forkserver = await self._start_forkserver()
            await self.ready()

    def _report(self, report: Message) -> None:
        name = str(report["name"])
        worker = self._workers.get(name)
        if report["event"] == "started":
            if worker:
                self._tell(WorkerStarted(name, int(report["pid"]), worker.direct))
        elif report["event"] == "exited":
            self._forget(name)
            log = without_secrets(str(report["log"]))
            self._tell(WorkerExited(name, int(report["code"]), int(report["signal"]), log))

    def start(self, conn: asyncssh.SSHClientConnection, order: StartWorker) -> Coroutine[Any, Any, None]:
        """Take on a worker at once; what is returned, to be run, opens its ways and has it forked.

        A failure is told as its exit, and so is an order to stop it that comes before it runs.
        """
        check_name("worker", order.name)
        worker = self._workers[order.name] = _Worker()
        self._empty.clear()
        return self._start(conn, order, worker)

    async def _start(self, conn: asyncssh.SSHClientConnection, order: StartWorker, worker: _Worker) -> None:
        try:
            await self._have_forked(conn, order, worker)
        except (OSError, asyncssh.Error, ProxyError) as error:
            self._forget(order.name)
            text = str(error) or type(error).__name__
            self._tell(WorkerExited(order.name, -1, 0, f"the pilot could not start it: {text}"))

    async def _have_forked(
        self, conn: asyncssh.SSHClientConnection, order: StartWorker, worker: _Worker
    ) -> None:
        if self._workers.get(order.name) is not worker:  # it was stopped meanwhile
            return
        worker.reserved, worker.port = reserve_port()
        scheduler = await self._way_to_scheduler(conn, order, worker)
        store = await self._tunnel_to(conn, order.store_port, worker) if order.store_port else 0
        directory = self._work / order.name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._logs.follow(order.name, directory / LOG)
        spec = {
            "name": order.name,
            "session": order.session,
            "scheduler": scheduler,
            "contact": order.contact,
            "listen_port": worker.port,
            "site": self._job.site,
            "host": self._job.host,
            "ca": order.ca,
            "cert": order.cert,
            "key": order.key,
            "store": f"root://127.0.0.1:{store}/{store_top(order.session)}/files/" if store else "",
            "store_key": order.store_key,
            "cache_dir": str(self._cache),
            "memory_limit": self._memory,
            "ends": self._ends,
            "work_dir": str(directory),
            "environment": dict(self._job.grid_environment),
        }
        await self._up.wait()
        if self._workers.get(order.name) is worker:
            worker.ordered = True
            self._forkserver.send({"do": "start", "spec": spec})
        else:
            for port in worker.tunnels:
                self._close_tunnel(port)

    async def _way_to_scheduler(
        self, conn: asyncssh.SSHClientConnection, order: StartWorker, worker: _Worker
    ) -> str:
        port = order.scheduler_port
        worker.direct = order.way != "tunnel" and await listens(self._vobox, port)
        if worker.direct:
            return f"tls://[{self._vobox}]:{port}" if ":" in self._vobox else f"tls://{self._vobox}:{port}"
        if order.way == "direct":
            raise ProxyError(
                f"the VO-box allows no tunnels (packet_forwarding: direct), and {self._job.host} does not "
                f"reach {self._vobox}:{port} directly"
            )
        return f"tls://127.0.0.1:{await self._tunnel_to(conn, port, worker)}"

    async def _tunnel_to(self, conn: asyncssh.SSHClientConnection, port: int, worker: _Worker) -> int:
        """The local end of the tunnel to a scheduler or store, one for all workers of its session."""
        worker.tunnels.add(port)
        tunnel = self._tunnels.get(port)
        if tunnel is None:
            opening = conn.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
            tunnel = self._tunnels[port] = asyncio.ensure_future(opening)
            tunnel.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is told below
        return (await asyncio.shield(tunnel)).get_port()

    def _close_tunnel(self, port: int) -> None:
        """Close the tunnel to a scheduler or store if it is there and no worker uses it."""
        if port in self._tunnels and not any(port in w.tunnels for w in self._workers.values()):
            tunnel = self._tunnels.pop(port)
            if not tunnel.cancel() and not tunnel.exception():
                tunnel.result().close()

    def port(self, name: str) -> int:
        """Where a worker listens on the node's loopback; 0 if there is none of that name."""
        worker = self._workers.get(name)
        return worker.port if worker else 0

    def stop(self, name: str, grace: float) -> None:
        """End a worker: SIGTERM, which lets it finish what it has begun, then SIGKILL after ``grace`` s."""
        worker = self._workers.get(name)
        if worker is None or worker.ordered:
            self._forkserver.send({"do": "stop", "name": name, "grace": grace})
        else:
            self._forget(name)
            self._tell(WorkerExited(name, -1, 0, "it was stopped before it had started"))

    async def disconnected(self) -> None:
        """The connection is gone, and every way in and out with it: no worker can go on."""
        self._tunnels.clear()
        await self.stop_all(grace=0.5)

    async def stop_all(self, grace: float) -> None:
        """End all workers and wait for that."""
        for name in list(self._workers):
            self.stop(name, grace)
        if not self._forkserver.exited.done():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace + 5.0)

    async def close(self) -> None:
        """End the forkserver, and release the ports of workers that ended unreported."""
        await self._forkserver.stop(2.0)
        for worker in self._workers.values():
            worker.release()
        self._workers.clear()

    def _forget(self, name: str) -> None:
        self._logs.ended(name)
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.release()
            for port in worker.tunnels:
                self._close_tunnel(port)
            shutil.rmtree(self._work / name, ignore_errors=True)
        if not self._workers:
            self._empty.set()


def reserve_port() -> tuple[socket.socket, int]:
    """A loopback port that nobody else is given while the socket lives, and that a worker can listen on.

    Bound but not listening, with SO_REUSEADDR: Linux lets a second socket with that option bind and listen.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved, reserved.getsockname()[1]
