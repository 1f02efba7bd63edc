"""The ProxyServer: one SSH port for users and pilots, the registry, and a master per session."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.certificates import make_identities
from gridproof.proxy.channel import CIPHERS, KEEPALIVE, KEX
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.gate import Gate, PilotControl, UserControl
from gridproof.proxy.masters import Master
from gridproof.proxy.protocol import (
    PILOT,
    USER,
    Message,
    StartWorker,
    StopWorker,
    Versions,
    build,
    check_name,
)
from gridproof.proxy.registry import Registry
from gridproof.proxy.state import End, PilotKey, Start

_JOIN_LIFETIME = 86400.0
_PUSH_DELAY = 0.05  # changes within it travel together
_RECORDS_PER_LINE = 1000
_STOP_GRACE = 3.0
_FORWARDS_END = 0.05  # the sockets of forwards close after their connection, and nobody tells when


class ProxyServer:
    """Use as ``server = await ProxyServer.start(config)`` … ``await server.close("reason")``."""

    def __init__(self, config: ServerConfig, host_key: asyncssh.SSHKey) -> None:
        self.config = config
        self.registry = Registry(config.limits)
        self.host_key = host_key.export_public_key().decode().strip()
        self.forward_range = range(config.forward_ports[0], config.forward_ports[1] + 1)
        self._directory: Path
        self._next_forward = 0
        self._host_key = host_key
        self._user_keys = {
            name: tuple(asyncssh.import_public_key(key).public_data for key in keys)
            for name, keys in config.users.items()
        }
        self._join_keys: dict[str, bytes] = {}
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._strangers: dict[asyncssh.SSHServerConnection, None] = {}
        self._users: set[UserControl] = set()
        self._pilots: dict[PilotKey, PilotControl] = {}
        self._masters: dict[str, Master] = {}
        self._push: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    @classmethod
    async def start(cls, config: ServerConfig) -> ProxyServer:
        """Listen.

        Raises:
            ProxyError: the port cannot be had, or a user's key is none.
        """
        try:
            server = cls(config, _host_key(config.state_dir))
        except asyncssh.KeyImportError as error:
            raise ProxyError(f"a public key of the ProxyServer's users cannot be read: {error}") from None
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
        except OSError as error:
            raise ProxyError(
                f"the ProxyServer cannot listen on {config.host}:{config.port}: {error.strerror}"
            ) from None
        server._directory = config.state_dir or Path(tempfile.mkdtemp(prefix="gridproof-proxy-"))
        server._background(server._tick())
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
        """One line for the operator, on standard error."""
        print(f"gridproof proxy: {line[:500]}", file=sys.stderr, flush=True)

    async def close(self, reason: str) -> None:
        """End pilots and masters and close everything."""
        if self._acceptor is not None:
            self._acceptor.close()
        for task in self._tasks:
            task.cancel()
        pilots = list(self._pilots.values())
        for pilot in pilots:
            pilot.end(reason)
        await asyncio.gather(
            *(master.stop() for master in self._masters.values()),
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
        if self._push:
            self._push.cancel()
        if self.config.state_dir is None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.registry.tick(self.now())
            self.act()

    # ---- who may come in

    def came(self, conn: asyncssh.SSHServerConnection) -> None:
        """A connection that has proved nothing yet; beyond the limit the oldest such one is dropped."""
        self._connections.add(conn)
        self._strangers[conn] = None
        if len(self._strangers) > self.config.strangers:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()

    def proved(self, conn: asyncssh.SSHServerConnection) -> None:
        """It is no stranger any more."""
        self._strangers.pop(conn, None)

    def gone(self, conn: asyncssh.SSHServerConnection) -> None:
        """A connection ended."""
        self._connections.discard(conn)
        self._strangers.pop(conn, None)

    def accepts(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether ``key`` is one that ``username`` may prove itself with."""
        if username.startswith(USER):
            allowed = self._user_keys.get(username.removeprefix(USER), ())
            return any(hmac.compare_digest(known, key.public_data) for known in allowed)
        submission = username.removeprefix(PILOT)
        join_key = self._join_keys.get(submission) if username.startswith(PILOT) else None
        if join_key is None or not hmac.compare_digest(join_key, key.public_data):
            return False
        return self.registry.may_join(submission, self.now())

    def reachable(self, username: str) -> tuple[int, ...]:
        """The loopback ports that a peer may dial."""
        if username.startswith(USER):
            own = self.registry.sessions(username.removeprefix(USER))
            return tuple(port for port in map(self.registry.scheduler_port, own) if port)
        return self.registry.scheduler_ports(username.removeprefix(PILOT))

    def forward_candidates(self) -> Iterator[int]:
        """The forward range, least recently given first: a dead worker's port is not reused soon."""
        for _ in self.forward_range:
            port = self.forward_range[self._next_forward % len(self.forward_range)]
            self._next_forward += 1
            yield port

    # ---- pilots

    def pilot_came(self, key: PilotKey, control: PilotControl) -> None:
        """A pilot registered; an older connection of the same payload is closed."""
        if older := self._pilots.get(key):
            older.abort()
        self._pilots[key] = control

    def pilot_gone(self, control: PilotControl) -> None:
        """A pilot's connection was lost."""
        key = control.key
        if key is not None and self._pilots.get(key) is control:
            del self._pilots[key]
            self.registry.disconnected(key, self.now())
            self.act()

    def act(self) -> None:
        """Carry out what the registry decides, and tell users what changed."""
        for action in self.registry.decide(self.now()):
            pilot = self._pilots.get(action.pilot)
            if pilot is None:
                continue
            if isinstance(action, Start):
                worker = self._masters[action.session].identities.worker
                port = self.registry.scheduler_port(action.session)
                pilot.order(
                    StartWorker(action.name, action.session, port, worker.ca, worker.cert, worker.key)
                )
            elif isinstance(action, End):
                pilot.end(action.reason)
            else:
                pilot.order(StopWorker(action.name))
        if self._push is None and self._users:
            self._push = asyncio.get_running_loop().call_later(_PUSH_DELAY, self._push_now)

    # ---- users

    def user_came(self, control: UserControl) -> None:
        """A user's control channel opened."""
        self._users.add(control)

    def user_gone(self, control: UserControl) -> None:
        """A user's control channel closed; the sessions go on."""
        self._users.discard(control)

    def _push_now(self) -> None:
        self._push = None
        for control in self._users:
            for session in self.registry.sessions(control.user):
                self._show(control, session)

    def _show(self, control: UserControl, session: str) -> None:
        shown = control.shown.get(session, 0)
        pilots, workers = self.registry.records(session, since=shown)
        control.shown[session] = self.registry.version
        for kind, records in (("pilots", pilots), ("workers", workers)):
            for start in range(0, len(records), _RECORDS_PER_LINE):
                part = [asdict(record) for record in records[start : start + _RECORDS_PER_LINE]]
                control.send({"event": "status", "session": session, kind: part})

    async def request(self, control: UserControl, request: Message) -> Any:
        """Answer one request of a user.

        Raises:
            ProxyError: it cannot be done; the text goes to the user.
        """
        doers: dict[str, Callable[[UserControl, Message], Any]] = {
            "open_session": self._open_session,
            "new_submission": self._new_submission,
            "resize_session": self._resize_session,
            "status": self._status,
            "close_session": self._close_session,
        }
        verb = request.get("do")
        doer = doers.get(verb) if isinstance(verb, str) else None
        if doer is None:
            raise ProxyError(f"unknown request {str(verb)[:40]!r}; known are {', '.join(doers)}")
        return await doer(control, request)

    async def _open_session(self, control: UserControl, request: Message) -> Message:
        name = check_name("session", _get(request, "session", str))
        versions = build(Versions, request.get("versions"))
        self.registry.open_session(name, control.user, versions, _get(request, "workers", int))
        identities = make_identities(name, datetime.now(timezone.utc))
        master = self._masters[name] = Master(
            name,
            identities,
            self._directory / f"session-{name}",
            self.config.cache_dir,
            self.config.keep_results,
        )
        try:
            port = await master.start(self.config.master, self.config.master_timeout)
        except ProxyError as error:
            await self._end_session(name, str(error))
            raise
        if self._masters.get(name) is not master:
            raise ProxyError(f"session {name} was closed while it opened")
        self._background(self._watch(name, master))
        self.registry.session_ready(name, port)
        self.act()
        return {"session": name, "address": master.address, **asdict(identities.client)}

    async def _watch(self, name: str, master: Master) -> None:
        how = await master.ended()
        if master.stopping:
            return
        reason = f"the master of session {name} died ({how})"
        self.trace(reason)
        owner = self.registry.owner(name)
        for control in self._users:
            if control.user == owner:
                control.send({"event": "session_lost", "session": name, "reason": reason})
        await self._end_session(name, reason)

    async def _new_submission(self, control: UserControl, request: Message) -> Message:
        session = _get(request, "session", str)
        self.registry.check_owner(session, control.user)
        submission = secrets.token_hex(8)
        key = asyncssh.generate_private_key("ssh-ed25519")
        self._join_keys[submission] = key.public_data
        self.registry.add_submission(submission, control.user, session, self.now() + _JOIN_LIFETIME)
        return {
            "submission": submission,
            "join_key": key.export_private_key().decode(),
            "orphan_limit": self.config.orphan_limit,
        }

    async def _resize_session(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self.registry.check_owner(session, control.user)
        self.registry.resize_session(session, max(0, _get(request, "workers", int)))
        self.act()

    async def _status(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self.registry.check_owner(session, control.user)
        control.shown.pop(session, None)
        self._show(control, session)

    async def _close_session(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self.registry.check_owner(session, control.user)
        await self._end_session(session, "the session was closed")

    async def _end_session(self, name: str, reason: str) -> None:
        for submission in self.registry.close_session(name, reason):
            self._join_keys.pop(submission, None)
        self.act()
        for control in self._users:
            control.shown.pop(name, None)
        master = self._masters.pop(name, None)
        if master is not None:
            await master.stop()


def _get(request: Message, name: str, kind: type) -> Any:
    value = request.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ProxyError(f"the request needs {name!r} as {kind.__name__}")
    return value


def _host_key(state_dir: Path | None) -> asyncssh.SSHKey:
    """The key kept in ``state_dir`` (made there at the first time), else a new one."""
    if state_dir is None:
        return asyncssh.generate_private_key("ssh-ed25519")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "host_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return asyncssh.import_private_key(path.read_bytes())
