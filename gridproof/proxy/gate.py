"""The SSH side of the ProxyServer: who may come in, and what they may open.

Only public keys prove anything. Who holds a join key may enrol a key of its own, and nothing else. Users
and pilots may open one control channel, dial the scheduler ports of their own sessions, and (pilots)
listen on the loopback within the forward range.
There are no shells, commands, agents, X11, files or other forwards.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
from typing import TYPE_CHECKING, Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.channel import ServerControl
from gridproof.proxy.logs import Source
from gridproof.proxy.protocol import (
    JOIN,
    PILOT,
    USER,
    Bye,
    Challenge,
    Draining,
    Enrol,
    Exit,
    Heartbeat,
    Log,
    Message,
    PilotOrder,
    Ready,
    Register,
    Welcome,
    WorkerExited,
    WorkerStarted,
    applicant_message,
    check_name,
    message,
    pilot_message,
)
from gridproof.proxy.state import PilotKey

if TYPE_CHECKING:
    from gridproof.proxy.server import ProxyServer

_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_CONTROL_WITHIN = 30.0  # s after authentication
_REQUESTS_AT_ONCE = 32
_LEAVE_WITHIN = 5.0  # s for a pilot that was told to exit


class Gate(asyncssh.SSHServer):
    """One connection, from its first byte on."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._conn: asyncssh.SSHServerConnection | None = None
        self._whence = ""
        self._username = ""  # proved, never merely claimed
        self._control: UserControl | PilotControl | JoinControl | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._whence = str(conn.get_extra_info("peername", ("",))[0])
        self._server.came(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._conn is not None:
            self._server.gone(self._conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._server.door.accepts(username, key, self._whence)

    def auth_completed(self) -> None:
        if self._conn is not None:
            self._username = str(self._conn.get_extra_info("username"))
            self._server.proved(self._conn)
            asyncio.get_running_loop().call_later(_CONTROL_WITHIN, self._drop_idle)

    def _drop_idle(self) -> None:
        if self._control is None and self._conn is not None:
            self._conn.abort()

    def session_requested(self) -> Any:
        if self._control is not None or self._conn is None:
            return False
        if self._username.startswith(USER):
            self._control = UserControl(self._server, self._username.removeprefix(USER))
        elif self._username.startswith(JOIN):
            submission = self._username.removeprefix(JOIN)
            self._control = JoinControl(self._server, submission, self._whence)
        else:
            self._control = PilotControl(self._server, self._username.removeprefix(PILOT))
        return self._conn.create_server_channel(encoding=None), self._control

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:  # noqa: ARG002
        return dest_host in _LOOPBACK and dest_port in self._reachable()

    def _reachable(self) -> tuple[int, ...]:
        """The loopback ports that the peer may dial."""
        control, registry = self._control, self._server.registry
        if isinstance(control, UserControl):
            own = registry.sessions(control.user)
            return tuple(port for port in map(registry.scheduler_port, own) if port)
        if isinstance(control, PilotControl) and control.key is not None:
            return registry.scheduler_ports(control.key)
        return ()

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        control = self._control
        if not isinstance(control, PilotControl) or control.key is None or listen_host not in _LOOPBACK:
            return False
        if listen_port and listen_port not in self._server.forward_range:
            return False
        return self._listen(control, listen_host, listen_port)

    async def _listen(self, control: PilotControl, host: str, port: int) -> Any:
        if self._conn is None or not control.may_listen():
            return False
        for candidate in (port,) if port else self._server.forward_candidates():
            try:
                return await self._conn.forward_local_port("127.0.0.1", candidate, host, candidate)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        return False


class UserControl(ServerControl):
    """A user's control channel: answers requests, pushes events of the user's sessions."""

    def __init__(self, server: ProxyServer, user: str) -> None:
        super().__init__()
        self.user = user
        self.shown: dict[str, int] = {}  # per session the registry's version that was sent last
        self.sessions: set[str] = set()  # that this process opened or attached to
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def session_started(self) -> None:
        self._server.users.came(self)

    def received(self, message: Message) -> None:
        if len(self._tasks) >= _REQUESTS_AT_ONCE:
            self.abort()
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Message) -> None:
        number = request.get("id")
        if not isinstance(number, int):
            self.abort()
            return
        try:
            self.send({"id": number, "ok": await self._server.users.request(self, request)})
        except ProxyError as error:
            self.send({"id": number, "error": str(error)})

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.users.gone(self)


class JoinControl(ServerControl):
    """The control channel of a join key: one payload enrols over it, and it closes."""

    def __init__(self, server: ProxyServer, submission: str, whence: str) -> None:
        super().__init__()
        self._server = server
        self._submission = submission
        self._whence = whence
        self._challenge = secrets.token_hex(16)
        self._asked = False

    def session_started(self) -> None:
        self.send(message(Challenge(self._challenge)))

    def received(self, received: Message) -> None:
        enrol = applicant_message(received)
        if self._asked:
            raise ProxyError("a payload enrols once")
        self._asked = True
        self._server.background(self._enrol(enrol))

    async def _enrol(self, enrol: Enrol) -> None:
        try:
            pilot = await self._server.enrol(self._submission, enrol, self._challenge)
        except ProxyError as error:
            self._server.door.refused(JOIN + self._submission, self._whence, str(error), proved=True)
            self.send(message(Exit(str(error))))
        else:
            self.send(message(Welcome(pilot)))
        self.close()

    def rubbish(self, error: ProxyError) -> None:
        self._server.door.refused(JOIN + self._submission, self._whence, str(error), proved=True)
        self.abort()

    def lost(self, exc: Exception | None) -> None:
        """It has enrolled, or given up."""


class PilotControl(ServerControl):
    """A pilot's control channel."""

    def __init__(self, server: ProxyServer, pilot: PilotKey) -> None:
        super().__init__()
        self.key: PilotKey | None = None  # when it has registered
        self.closed = asyncio.get_running_loop().create_future()
        self._server = server
        self._pilot = pilot
        self.user = ""
        self._cores = 0
        self._forwards = 0

    def may_listen(self) -> bool:
        """Count one more forward; a pilot restarts workers, but not without end within one connection."""
        self._forwards += 1
        return self._forwards <= 1000 + 100 * self._cores

    def received(self, message: Message) -> None:
        content = pilot_message(message)
        server, key = self._server, self.key
        if isinstance(content, Register):
            if key is not None:
                raise ProxyError("a pilot registers once per connection")
            self._register(content)
        elif key is None:
            raise ProxyError("a pilot registers before all else")
        elif isinstance(content, Heartbeat):
            server.registry.heartbeat(key, content.load, server.now())
        elif isinstance(content, Ready):
            server.registry.ready(key, content, server.now())
        elif isinstance(content, WorkerStarted):
            server.registry.worker_started(key, content.name, content.pid, content.contact)
        elif isinstance(content, WorkerExited):
            server.registry.worker_exited(
                key, content.name, content.code, content.signal, content.log, server.now()
            )
            server.logs.end(self.user, Source("worker", key, content.name))
        elif isinstance(content, Log):
            worker = content.worker
            source = Source("worker", key, check_name("worker", worker)) if worker else Source("pilot", key)
            server.logs.add(self.user, source, content.text, server.now())
        elif isinstance(content, Draining):
            server.registry.draining(key, content.reason)
        elif isinstance(content, Bye):
            server.registry.bye(key, content.reason, server.now())
            server.door.joining.leave(key, content.reason)
        server.act()

    def _register(self, about: Register) -> None:
        server = self._server
        try:
            identity = server.door.joining.pilot(self._pilot)
            if about.job_id != identity.job_id:
                raise ProxyError(f"pilot {self._pilot} says that it is job {about.job_id[:40]!r}")
            server.registry.register(identity.pilot, identity.user, identity.session, about, server.now())
        except ProxyError as error:
            self.end(str(error))
            return
        self.key = identity.pilot
        self.user = identity.user
        server.logs.begin(self.user, Source("pilot", self.key))
        self._cores = about.cores
        self._server.pilot_came(self.key, self)

    def order(self, order: PilotOrder) -> None:
        """Tell the pilot to do something."""
        self.send(message(order))

    def end(self, reason: str) -> None:
        """Tell the pilot to exit, and drop it if it does not."""
        self.order(Exit(reason))
        asyncio.get_running_loop().call_later(_LEAVE_WITHIN, self.abort)

    def rubbish(self, error: ProxyError) -> None:
        self._server.trace(f"pilot {self._pilot} dropped: {error}")
        self.abort()

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.closed.done():
            self.closed.set_result(None)
        self._server.pilot_gone(self)
