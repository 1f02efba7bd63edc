"""The pilot's agent: one outgoing connection to the ProxyServer, and the life of what runs on the node.

It imports neither ROOT nor distributed: those live in the forkserver.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh

from gridproof.errors import GridproofError, ProxyError
from gridproof.pilot import nodexrootd
from gridproof.pilot.config import Job, PilotConfig
from gridproof.pilot.logs import NewLines, OwnLines
from gridproof.pilot.membership import Membership, Refused
from gridproof.pilot.trace import trace
from gridproof.pilot.workers import Workers
from gridproof.proxy.channel import ControlChannel
from gridproof.proxy.client import open_control
from gridproof.proxy.masters.children import Child
from gridproof.proxy.protocol import (
    Bye,
    Draining,
    Exit,
    Forward,
    Heartbeat,
    Log,
    Message,
    PilotMessage,
    PilotOrder,
    Ready,
    Register,
    Registered,
    StartWorker,
    StopWorker,
    WorkerExited,
    WorkerStarted,
    message,
    pilot_order,
)
from gridproof.proxy.reach import reaches

#: Exit code of a pilot that cannot run workers on its node, or has failed in another way of its own.
BROKEN = 85
#: Exit code of a pilot that has not once reached the ProxyServer.
UNREACHED = 86
_SIGNAL_GRACE = 2.0  # s that workers have to commit when the pilot is asked to go at once


@dataclass(frozen=True)
class Timing:
    """All in s; ``drain`` is how long before its end a pilot's workers have committed all, and leave."""

    heartbeat: float = 5.0
    dial: float = 20.0
    backoff: float = 0.5
    backoff_max: float = 20.0
    drain: float = 120.0
    drain_share: float = 0.1  # of a short TTL, where that is less


class _Control(ControlChannel, asyncssh.SSHClientSession[bytes]):
    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self._agent = agent
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(self, message: Message) -> None:
        self._agent.ordered(pilot_order(message))

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.closed.done():
            self.closed.set_result(None)


class Agent:
    """One pilot; `run` returns when it has ended, with nothing left behind; ``exit_code`` then says how.

    ``file`` is the configuration's own; it goes when the pilot has enrolled.
    """

    def __init__(
        self,
        config: PilotConfig,
        job: Job,
        forkserver: Child,
        start_forkserver: Callable[[], Awaitable[Child]],
        timing: Timing | None = None,
        file: Path | None = None,
    ) -> None:
        self.exit_code = 0
        work = Path.cwd()
        self._config = config
        self._job = job
        self._timing = timing or Timing()
        self._membership = Membership(config, job, file)
        self._ttl_end = time.time() + config.ttl if config.ttl else 0.0
        self._margin = min(self._timing.drain, self._timing.drain_share * config.ttl)
        self._ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._directory = work / f"pilot-{secrets.token_hex(8)}"
        self._exported = self._directory / "cache"
        cache = Path(config.cache_dir) if config.cache_dir else self._exported
        self._own_lines = OwnLines()
        self._new_lines = NewLines()
        self._workers = Workers(
            forkserver,
            start_forkserver,
            job,
            config.host,
            self._directory / "workers",
            cache,
            config.worker_memory,
            self._tell,
            self._new_lines,
            self._ttl_end - self._margin if self._ttl_end else 0.0,
        )
        self._xrootd: nodexrootd.NodeXrootd | None = None
        self._node: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()  # but for the way
        self._draining = False
        self._conn: asyncssh.SSHClientConnection | None = None
        self._control: _Control | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def end(self, reason: str, exit_code: int = 0) -> None:
        """Begin to end; the first reason counts."""
        if not self._ending.done():
            self.exit_code = exit_code
            self._ending.set_result(reason)

    async def run(self) -> str:
        """Serve until told to end, orphaned or out of time; returns why."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._signalled, f"signal {signal.Signals(signum).name}")
        self._directory.mkdir(mode=0o711)
        self._exported.mkdir()
        self._exported.chmod(0o755)
        self._background(self._prepare())
        self._background(self._stay_connected())
        if self._ttl_end:
            self._background(self._leave_in_time())
        reason = await self._ending
        await self._finish(reason)
        return reason

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            named = "" if isinstance(error, GridproofError) else f"{type(error).__name__}: "
            self.end(f"{named}{error}", BROKEN)

    async def _finish(self, reason: str) -> None:
        self._say(f"ends: {reason}")
        self._tell_logs()
        self._tell(Bye(reason))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._conn is not None:
            self._conn.close()
        await self._workers.close()
        if self._xrootd is not None:
            await self._xrootd.stop()
        if self._conn is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._conn.wait_closed(), 2.0)
        shutil.rmtree(self._directory, ignore_errors=True)

    # ---- the node

    async def _prepare(self) -> None:
        """Bring up what the node offers."""
        xrootd = asyncio.create_task(self._start_xrootd())
        try:
            versions, threads = await self._workers.ready()
            await xrootd
        except BaseException:
            xrootd.cancel()
            await asyncio.gather(xrootd, return_exceptions=True)
            raise
        if threads > 1:
            self._say(f"the forkserver has {threads} threads; forking it is not safe")
        ready = Ready(versions)
        if node := self._xrootd:
            ready = Ready(versions, node.port, node.key, node.keytab)
        self._node.set_result(ready)
        self.end(await self._workers.follow(), BROKEN)

    async def _start_xrootd(self) -> None:
        try:
            self._xrootd = await nodexrootd.start(self._exported, self._directory / "xrootd")
        except (GridproofError, OSError) as error:
            self._say(f"goes on without an XRootD server: {error}")

    async def _leave_in_time(self) -> None:
        await asyncio.sleep(max(0.0, self._ttl_end - self._margin - time.time()))
        await self._leave(f"its time is over in {self._margin:.0f} s", self._margin / 2)

    def _signalled(self, reason: str) -> None:
        """The batch system, or the Grid, wants its slot back."""
        self._background(self._leave(reason, _SIGNAL_GRACE))

    async def _leave(self, reason: str, grace: float) -> None:
        """End when the workers have committed what they have begun, or after ``grace`` s."""
        self._draining = True
        self._tell(Draining(reason))
        await self._workers.stop_all(grace)
        self.end(reason)

    # ---- the connection

    async def _stay_connected(self) -> None:
        """Dial, serve, and dial again, until the ProxyServer has stayed away for too long."""
        orphaned = time.monotonic() + self._config.orphan_limit
        delay = self._timing.backoff
        exit_code, trouble = UNREACHED, ""
        while True:
            try:
                await asyncio.wait_for(self._connect(), self._timing.dial)
            except Refused as refusal:
                self.end(str(refusal))
                return
            except (OSError, asyncssh.Error, asyncio.TimeoutError, ProxyError) as error:
                trouble = f"cannot reach the ProxyServer: {str(error) or type(error).__name__}"
                self._say(trouble)
            else:
                if self._ending.done():  # `wait_for` loses a cancellation that comes with its result
                    return
                exit_code, delay = 0, self._timing.backoff
                await self._serve()
                orphaned = time.monotonic() + self._config.orphan_limit
            left = orphaned - time.monotonic()
            if left <= 0:
                config = self._config
                away = f"the ProxyServer at {config.host}:{config.port} stayed away"
                self.end(f"{away} for {config.orphan_limit:.0f} s; {trouble}", exit_code)
                return
            await asyncio.sleep(min(left, delay * random.uniform(0.5, 1.5)))  # noqa: S311
            delay = min(2 * delay, self._timing.backoff_max)

    async def _connect(self) -> None:
        conn = await self._membership.dial(self._timing.dial)
        try:
            self._control = await open_control(conn, lambda: _Control(self))
        except BaseException:
            conn.abort()
            raise
        self._conn = conn

    async def _serve(self) -> None:
        """Register and beat until the connection is lost; its workers end with it."""
        control, conn = self._control, self._conn
        assert control is not None
        assert conn is not None
        job = self._job
        self._tell(
            Register(
                job_id=job.job_id,
                master_id=job.master_id,
                site=job.site,
                host=job.host,
                pid=os.getpid(),
                cores=self._config.cores,
                ttl_end=self._ttl_end,
            )
        )
        self._own_lines.again()
        self._note("connected to the ProxyServer")
        if self._draining:
            self._tell(Draining("its time is over"))
        try:
            while not control.closed.done():
                self._tell(Heartbeat(os.getloadavg()[0]))
                self._tell_logs()
                await asyncio.wait([control.closed], timeout=self._timing.heartbeat)
            self._say("lost the connection to the ProxyServer")
        finally:
            self._control = None
            if not self._ending.done():
                conn.abort()
                await self._workers.disconnected()

    async def _get_ready(self, order: Registered) -> None:
        """Look for the direct way, and say that the node is ready when it is."""
        control, port = self._control, order.probe_port
        direct = bool(port) and await reaches(self._config.host, port, order.probe_key)
        if self._ending.done():  # `wait_for` loses a cancellation that comes with its result
            return
        ready = await asyncio.shield(self._node)
        if control is self._control:
            self._tell(replace(ready, direct=direct))

    async def _forward(self, order: Forward) -> None:
        """Have a port of the VO-box lead to a worker or to the node's XRootD server, and to nothing else."""
        port = self._workers.port(order.worker) if order.worker else self._xrootd and self._xrootd.port
        if port and self._conn is not None:
            with suppress(OSError, asyncssh.Error, asyncssh.ChannelListenError):
                await self._conn.forward_remote_port("127.0.0.1", order.number, "127.0.0.1", port)

    def _tell(self, content: PilotMessage) -> None:
        if isinstance(content, WorkerStarted):
            self._note(f"worker {content.name} runs, pid {content.pid}")
        elif isinstance(content, WorkerExited):
            how = f"signal {content.signal}" if content.signal else f"exit code {content.code}"
            self._note(f"worker {content.name} ended, {how}")
            self._tell_logs()
        if self._control is not None:
            self._control.send(message(content))

    def _say(self, line: str) -> None:
        """For the trace of the job and for the ProxyServer."""
        trace(line)
        self._note(line)

    def _note(self, line: str) -> None:
        """For the ProxyServer."""
        self._own_lines.add(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}")

    def _tell_logs(self) -> None:
        """What is new in the logs, if anybody listens."""
        if self._control is not None:
            if own := self._own_lines.new():
                self._tell(Log("", own))
            for worker, text in self._new_lines.new():
                self._tell(Log(worker, text))

    def ordered(self, order: PilotOrder) -> None:
        """Do what the ProxyServer says."""
        if isinstance(order, Exit):
            self.end(order.reason)
        elif isinstance(order, Forward):
            self._background(self._forward(order))
        elif isinstance(order, Registered):
            self._background(self._get_ready(order))
        elif isinstance(order, StopWorker):
            self._workers.stop(order.name, order.grace)
        elif isinstance(order, StartWorker) and self._conn is not None and not self._draining:
            self._background(self._workers.start(self._conn, order))
