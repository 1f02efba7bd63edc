"""The ProxyServer: one SSH port for users and pilots, and the registry whose decisions it carries out."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.admission.doorkeeper import Doorkeeper
from gridproof.proxy.admission.joining import superseded
from gridproof.proxy.admission.strangers import Strangers
from gridproof.proxy.channel import CIPHERS, KEEPALIVE, KEX
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.forwards import Forwards
from gridproof.proxy.gate import Gate, PilotControl
from gridproof.proxy.logs import Logs, Room
from gridproof.proxy.pool.registry import Registry
from gridproof.proxy.pool.state import Close, Drop, End, PilotKey, Start
from gridproof.proxy.proofconf import ProofConfs
from gridproof.proxy.protocol import Enrol, Registered, StartWorker, StopWorker
from gridproof.proxy.reach import Beacon
from gridproof.proxy.scratch import Scratch
from gridproof.proxy.users import Users

_STOP_GRACE = 3.0
_FORWARDS_END = 0.05  # the sockets of forwards close after their connection, and nobody tells when


class ProxyServer:
    """Use as ``server = await ProxyServer.start(config)`` … ``await server.close("reason")``."""

    def __init__(self, config: ServerConfig, host_key: asyncssh.SSHKey) -> None:
        self.config = config
        first, last = config.forward_ports
        self.registry = Registry(config.limits, range(first, last + 1), config.packet_forwarding)
        self.logs = Logs(Room(ended=config.limits.ended_kept))
        self.host_key = host_key.export_public_key().decode().strip()
        self.fingerprint = host_key.get_fingerprint()
        self.directory: Path
        self._host_key = host_key
        self.door = Doorkeeper(config, self.host_key, self.trace)
        self.users = Users(self)
        self.forwards = Forwards(self)
        self._proofconfs = ProofConfs(self)
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._strangers: Strangers[asyncssh.SSHServerConnection] = Strangers(config.strangers)
        self._pilots: dict[PilotKey, PilotControl] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._acting = False
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._beacon = None if config.packet_forwarding == "tunnel" else Beacon(config.host)
        self._scratch: Scratch | None = None

    @classmethod
    async def start(cls, config: ServerConfig) -> ProxyServer:
        """Listen.

        Raises:
            ConfigError, ProxyError: the port cannot be had, or something it is told to use cannot be read.
        """
        server = cls(config, _host_key(config.state_dir))
        try:
            server._acceptor = await asyncssh.create_server(
                lambda: Gate(server),
                config.host,
                config.port,
                config=None,
                server_host_keys=[server._host_key],
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                allow_pty=False,
                x11_forwarding=False,
                agent_forwarding=False,
                x509_trusted_certs=None,
                login_timeout=config.login_timeout,
                kex_algs=KEX,
                encryption_algs=CIPHERS,
                compression_algs=None,
                **KEEPALIVE,
            )
            if server._beacon is not None:
                await server._beacon.start()
        except OSError as error:
            await server.door.close()
            raise ProxyError(
                f"the ProxyServer cannot listen on {config.host}:{config.port}: {error.strerror}"
            ) from None
        if config.state_dir is None:
            server._scratch = Scratch()
            server.directory = server._scratch.path
        else:
            server.directory = config.state_dir
        if os.geteuid() == 0:
            server.directory.chmod(0o711)  # on the way to what sessions of other accounts have in it
        for leftover in server.directory.glob("session-*"):  # of a ProxyServer that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        server.background(server._tick())
        return server

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._acceptor is not None
        return self._acceptor.get_port()

    def now(self) -> float:
        """The registry's clock, in s."""
        return time.monotonic()

    def trace(self, line: str) -> None:
        """One line for the operator, on standard error, with the time (UTC)."""
        printable = "".join(c if c.isprintable() else "?" for c in line[:500])
        now = datetime.now(timezone.utc)
        print(f"gridproof proxy: {now:%Y-%m-%d %H:%M:%S} {printable}", file=sys.stderr, flush=True)

    async def close(self, reason: str) -> None:
        """End masters and close everything; pilots end too, unless they may find the server's successor."""
        self.door.closing = True
        if self._acceptor is not None:
            self._acceptor.close()
        if self._beacon is not None:
            self._beacon.close()
        self._proofconfs.close()
        for task in self._tasks:
            task.cancel()
        pilots = list(self._pilots.values())
        for pilot in pilots:
            if self.config.state_dir is None:
                pilot.end(reason)
            else:
                pilot.abort()
        await asyncio.gather(
            self.users.close(),
            asyncio.wait([pilot.closed for pilot in pilots], timeout=_STOP_GRACE)
            if pilots
            else asyncio.sleep(0),
        )
        connections = list(self._connections)
        for conn in connections:
            conn.abort()
        await asyncio.gather(*(conn.wait_closed() for conn in connections))
        await asyncio.sleep(_FORWARDS_END)
        if self._acceptor is not None:
            await self._acceptor.wait_closed()
        await self.door.close()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def background(self, work: Any) -> None:
        """Run a coroutine until it or the server ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                self.registry.tick(self.now())
                await self.door.tick()
            except Exception as error:  # or nobody would be looked after any more
                self.trace(f"a look at what there is failed: {type(error).__name__}: {error}")
            self.act()

    # ---- who may come in

    def came(self, conn: asyncssh.SSHServerConnection, whence: str) -> None:
        """A connection that has proved nothing yet; where there are too many one is dropped."""
        self._connections.add(conn)
        if leaves := self._strangers.came(conn, whence, self.now()):
            leaves.abort()

    def proved(self, conn: asyncssh.SSHServerConnection) -> None:
        """It is no stranger any more."""
        self._strangers.gone(conn)

    def gone(self, conn: asyncssh.SSHServerConnection) -> None:
        """A connection ended."""
        self._connections.discard(conn)
        self._strangers.gone(conn)

    # ---- pilots

    async def enrol(self, submission: str, enrol: Enrol, challenge: str) -> PilotKey:
        """A payload becomes a pilot, and an older payload of its job is told to go; returns its ID.

        Raises:
            ProxyError: it must not.
        """
        identity, older = await self.door.enrol(submission, enrol, challenge)
        if older is not None:
            self.registry.end(older.pilot, superseded(older.job_id), self.now())
            self.act()
        return identity.pilot

    def pilot_came(self, key: PilotKey, control: PilotControl) -> None:
        """A pilot registered; an older connection of the same payload is closed."""
        if older := self._pilots.get(key):
            older.abort()
        self._pilots[key] = control
        beacon = self._beacon
        control.order(Registered(beacon.port, beacon.key) if beacon else Registered())
        self.door.joining.came(key)

    def control(self, key: PilotKey) -> PilotControl | None:
        """A connected pilot's control channel."""
        return self._pilots.get(key)

    def pilot_gone(self, control: PilotControl) -> None:
        """A pilot's connection was lost."""
        key = control.key
        if key is not None and self._pilots.get(key) is control:
            del self._pilots[key]
            self.door.joining.lost(key, time.time())
            self.logs.pilot_gone(control.user, key)
            self.registry.disconnected(key, self.now())
            self.act()

    def act(self) -> None:
        """Carry out what the registry decides, and tell users what changed, once for all that has come."""
        if not self._acting:
            self._acting = True
            asyncio.get_running_loop().call_soon(self._act)

    def _act(self) -> None:
        self._acting = False
        for action in self.registry.decide(self.now()):
            if isinstance(action, Close):
                self.background(self.users.end_session(action.session))
                continue
            if isinstance(action, End):
                self.door.joining.leave(action.pilot, action.reason)
            pilot = self._pilots.get(action.pilot)
            if pilot is None:
                continue
            if isinstance(action, Start):
                master = self.users.masters[action.session]
                worker, store = master.identities.worker, master.store
                pilot.order(
                    StartWorker(
                        action.name,
                        action.session,
                        self.registry.scheduler_port(action.session),
                        action.way,
                        action.contact,
                        worker.ca,
                        worker.cert,
                        worker.key,
                        store.port,
                        store.key,
                    )
                )
            elif isinstance(action, End):
                pilot.end(action.reason)
            elif isinstance(action, Drop):
                pilot.abort()
            else:
                pilot.order(StopWorker(action.name, action.grace))
        self.forwards.prune()
        self.users.tell_soon()
        self._proofconfs.changed()


def _host_key(state_dir: Path | None) -> asyncssh.SSHKey:
    """The key kept in ``state_dir`` (made there at the first time), else a new one."""
    if state_dir is None:
        return asyncssh.generate_private_key("ssh-ed25519")
    path = state_dir / "host_key"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = state_dir.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ProxyError(
                f"others may write the ProxyServer's state_dir {state_dir}: chown it, chmod go-w it"
            )
        if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ProxyError(f"the ProxyServer's host key {path} is open to others: chmod 600 it")
        if not path.exists():
            whole = path.with_suffix(".new")  # so that a server that is killed here leaves no half of a key
            whole.unlink(missing_ok=True)
            whole.touch(mode=0o600)
            whole.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
            whole.replace(path)
        return asyncssh.import_private_key(path.read_bytes())
    except (OSError, asyncssh.KeyImportError) as error:
        raise ProxyError(f"the ProxyServer's host key {path} cannot be used: {error}") from None
