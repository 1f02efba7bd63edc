"""The engine's messages over dask.distributed: membership, TLS and life cycles are its own.

On the scheduler the master answers messages; on each worker one loop runs, started by a plugin. Packets do
not ride on Dask tasks: a plain request is several times cheaper, and it cannot be started again behind our
back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler, Worker
from distributed.comm.core import CommClosedError
from distributed.comm.registry import backends
from distributed.comm.tcp import TLSBackend, TLSListener
from distributed.core import Status, rpc
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.security import Security

from ..errors import SessionError
from ..patience import SILENCE
from .code import StaleCode
from .master import Master
from .memory import MemoryGuard
from .runner import Runner
from .watch import Pace, Unfit
from .worker import WorkerLoop

_PREFIX = "gridproof_"
_WORKER_MESSAGES = (
    *("hello", "lease", "begin", "late", "opened", "fail", "admit", "upload", "commit"),
    *("query", "layout", "bundle", "leave"),
)
_CLIENT_MESSAGES = (
    *("workers", "load", "submit", "queries", "follow", "partial", "result", "fetch", "origin"),
    *("cancel", "forget"),
)
_RETRIES = 5
_HANDSHAKE_WITHIN = 20.0  # s
_STRANGERS = 256  # connections in their handshake; the oldest one makes room for a further one

EXIT_STALE = 75
"""A worker's exit code when only a fresh process can go on."""

EXIT_LEFT = 76
"""A worker's exit code when it was told to leave, and has."""

EXIT_LOST = 1
"""A worker's exit code when its master is gone; a session that is still there wants another."""


@dataclass(frozen=True)
class Tls:
    """A session's authority and one role's certificate and key, as PEM texts."""

    ca: str
    cert: str
    key: str

    def security(self, role: str) -> Security:
        """For distributed; ``role``: ``scheduler``, ``worker`` or ``client``."""
        return Security(
            require_encryption=True,
            tls_ca_file=self.ca,
            **{f"tls_{role}_cert": self.cert, f"tls_{role}_key": self.key},
        )


def configure(scratch: str | None = None) -> None:
    """Set distributed up for wide networks and few words, in a process that is gridproof's own.

    ``scratch``: its directory for temporary files.
    """
    logging.getLogger("distributed").setLevel(logging.ERROR)
    backends["tls"] = _Tls()
    dask.config.set(
        {
            "temporary-directory": scratch,
            "distributed.comm.timeouts.tcp": SILENCE,
            "distributed.comm.timeouts.connect": SILENCE,
            "distributed.scheduler.worker-ttl": SILENCE,
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": False,
            "distributed.worker.profile.enabled": False,
            # What looks after event loops and machines many times a second costs as much as small packets.
            "distributed.admin.tick.interval": "1s",
            "distributed.admin.tick.limit": "10s",
            "distributed.admin.system-monitor.interval": "10s",
            "distributed.admin.system-monitor.disk": False,
            "distributed.admin.system-monitor.gil.enabled": False,
        }
    )


class _TlsListener(TLSListener):  # type: ignore[misc]
    """distributed waits for ever for handshakes, and a master may listen where strangers can dial it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._strangers: dict[Any, None] = {}

    async def _prepare_stream(self, stream: Any, address: str) -> Any:
        self._strangers[stream] = None
        if len(self._strangers) > _STRANGERS:
            next(iter(self._strangers)).close()
        too_late = asyncio.get_running_loop().call_later(_HANDSHAKE_WITHIN, stream.close)
        try:
            return await super()._prepare_stream(stream, address)
        finally:
            too_late.cancel()
            del self._strangers[stream]


class _Tls(TLSBackend):  # type: ignore[misc]
    _listener_class = _TlsListener


class _NoHttp:
    """distributed opens an HTTP server that knows no certificates; nobody here needs it."""

    def start_http_server(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""


# ---------------------------------------------------------------- on the VO-box


class _Scheduler(_NoHttp, Scheduler):  # type: ignore[misc]
    pass


class _LostWorkers(SchedulerPlugin):  # type: ignore[misc]
    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        self._lost(worker)


class MasterServer:
    """A session's scheduler with its `Master`, listening on the interface ``host`` of the VO-box."""

    def __init__(
        self,
        tls: Tls,
        host: str,
        cache: Path,
        scratch: Path,
        keep_results: float,
        room: Callable[[], float],
    ) -> None:
        self._master = Master(cache, scratch, keep_results, room)
        self._scheduler = _Scheduler(
            security=tls.security("scheduler"),
            protocol="tls",
            host=host,
            port=0,
            dashboard=False,
            plugins=[_LostWorkers(self._master.for_workers.lost)],
        )
        for side, messages in (
            (self._master.for_workers, _WORKER_MESSAGES),
            (self._master.for_clients, _CLIENT_MESSAGES),
        ):
            for message in messages:
                self._scheduler.handlers[_PREFIX + message] = getattr(side, message)

    async def start(self) -> int:
        """Listen; returns the port."""
        await self._scheduler
        await self._master.start()
        return int(self._scheduler.port)

    async def activity(self, running: int, kept: int) -> tuple[int, int]:
        """How many queries run and how many are over and kept, once it is not ``running`` and ``kept``."""
        return await self._master.activity(running, kept)

    async def close(self) -> None:
        """Let everybody go."""
        await self._scheduler.close()  # its last news, of workers that go, is for the master
        self._master.close()


# ---------------------------------------------------------------- on the worker node


class _RpcChannel:
    """The master's messages over distributed's own connections, resent when one breaks under them."""

    def __init__(
        self, call: Callable[[str], Callable[..., Awaitable[Any]]], alive: Callable[[], bool]
    ) -> None:
        self._call = call
        self._alive = alive

    def __getattr__(self, message: str) -> Callable[..., Awaitable[Any]]:
        async def send(**arguments: Any) -> Any:
            for attempt in range(_RETRIES):
                try:
                    return await self._call(_PREFIX + message)(**arguments)
                except (CommClosedError, OSError):
                    if attempt + 1 == _RETRIES or not self._alive():
                        raise
                    await asyncio.sleep(0.2 * 2**attempt)
            raise AssertionError("unreachable")

        return send


class _Worker(_NoHttp, Worker):  # type: ignore[misc]
    pass


class _EnginePlugin(WorkerPlugin):  # type: ignore[misc]
    name = "gridproof-engine"

    def __init__(
        self,
        make_runner: Callable[[], Runner],
        memory: MemoryGuard,
        pace: Pace,
        site: str,
        host: str,
        ends: float,
    ) -> None:
        self._make_runner = make_runner
        self._memory = memory
        self._pace = pace
        self._site = site
        self._host = host
        self._ends = ends
        self._task: asyncio.Task[None] | None = None
        self.exit_code = EXIT_LOST

    def setup(self, worker: Worker) -> None:
        channel = _RpcChannel(
            lambda message: getattr(worker.scheduler, message), lambda: worker.status == Status.running
        )
        loop = WorkerLoop(
            channel,
            worker.contact_address or worker.address,
            worker.name,
            self._make_runner,
            self._memory,
            self._pace,
            self._ends,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, loop.leave)
        self._task = asyncio.create_task(self._run(worker, loop), name="gridproof engine")

    def teardown(self, worker: Worker) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, worker: Worker, loop: WorkerLoop) -> None:
        try:
            await loop.run(self._site, self._host, os.getpid())
            self.exit_code = EXIT_LEFT
        except StaleCode:
            self.exit_code = EXIT_STALE
        except Unfit:
            traceback.print_exc()
            os._exit(EXIT_STALE)  # a thread that cannot be interrupted is in the way of any other end
        except Exception:
            traceback.print_exc()  # into the worker's log; the process ends below
        finally:
            # Not awaited here: closing the worker cancels this very task.
            asyncio.get_running_loop().create_task(worker.close(reason="gridproof-engine-ended"))


async def run_worker(
    *,
    scheduler: str,
    tls: Tls,
    name: str,
    site: str,
    host: str,
    contact: str | None,
    port: int,
    directory: Path,
    make_runner: Callable[[], Runner],
    memory: MemoryGuard,
    pace: Pace,
    ends: float,
) -> int:
    """Be a worker until the session ends, or until SIGTERM and what was begun is committed.

    ``ends``: when all has to be committed in any case (epoch seconds). Returns the process's exit code.
    """
    plugin = _EnginePlugin(make_runner, memory, pace, site, host, ends)
    worker = _Worker(
        scheduler,
        security=tls.security("worker"),
        protocol="tls",
        host="127.0.0.1",
        port=port,
        contact_address=contact,
        name=name,
        nthreads=1,
        memory_limit=0,
        local_directory=str(directory),
        dashboard=False,
        death_timeout=SILENCE,
        heartbeat_interval="5s",
        plugins=(plugin,),
    )
    async with worker:
        await worker.finished()
    return plugin.exit_code


# ---------------------------------------------------------------- at the user's


class MasterClient:
    """The client's messages to its session's master; see `Master` for each.

    Raises (every message):
        SessionError: the master is gone.
    """

    def __init__(self, address: str, tls: Tls) -> None:
        self._rpc = rpc(address, connection_args=tls.security("client").get_connection_args("client"))
        self._channel = _RpcChannel(lambda message: getattr(self._rpc, message), lambda: True)

    async def send(self, message: str, **arguments: Any) -> Any:
        """One message and its answer."""
        if message not in _CLIENT_MESSAGES:
            raise ValueError(f"{message} is no message of a client")
        try:
            return await getattr(self._channel, message)(**arguments)
        except (CommClosedError, OSError) as error:
            raise SessionError(
                f"the session's master does not answer ({error}); open a new session"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._rpc.close_rpc()


def tls_of(message: Mapping[str, str]) -> Tls:
    """The certificate texts in a message of the ProxyServer."""
    return Tls(message["ca"], message["cert"], message["key"])
