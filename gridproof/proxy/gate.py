"""The SSH side of the ProxyServer: who may come in, and what they may open.

Only public keys prove anything. Who holds a join key may enrol a key of its own, and nothing else. Users
and pilots may open one control channel, dial the masters of their own sessions, and (users) their
forwards; a pilot may ask for the forwards that it was told of.
There are no shells, commands, agents, X11, files or other forwards.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.admission.ledger import NotKept
from gridproof.proxy.channel import ServerControl, retry_often
from gridproof.proxy.logs import Source, harmless
from gridproof.proxy.pool.state import PilotKey
from gridproof.proxy.protocol import (
    JOIN,
    PILOT,
    USER,
    Bye,
    Challenge,
    Draining,
    Enrol,
    Exit,
    Forward,
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
from gridproof.proxy.reach import local

if TYPE_CHECKING:
    from gridproof.proxy.server import ProxyServer

_LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_CONTROL_WITHIN = 30.0  # s after authentication
_REQUESTS_AT_ONCE = 32
_FORWARDED = "127.0.0.1"  # by what name pilots ask for their forwards
_FORWARD_WITHIN = 20.0
_REASON = 4096  # characters of one that are kept and shown
_LEAVE_WITHIN = 5.0  # s for a pilot that was told to exit


class Gate(asyncssh.SSHServer):
    """One connection, from its first byte on."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._conn: asyncssh.SSHServerConnection | None = None
        self._whence = ""
        self._refusal: tuple[str, str] | None = None
        self._username = ""  # proved, never merely claimed
        self._control: UserControl | PilotControl | JoinControl | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        retry_often(conn)
        self._whence = str((conn.get_extra_info("peername") or ("nowhere",))[0])
        self._server.came(conn, self._whence)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._conn is not None:
            self._server.gone(self._conn)
        if not self._username:
            who, why = self._refusal or ("", str(exc or "it had proved nothing when its connection ended"))
            self._server.door.refused(who, self._whence, why)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        try:
            await self._server.door.check(username, key, self._whence)
        except ProxyError as error:
            self._refusal = (username, str(error))
            return False
        return True

    def auth_completed(self) -> None:
        if self._conn is not None:
            self._username = str(self._conn.get_extra_info("username"))
            if self._username.startswith(JOIN):  # many may have such a key: still a stranger
                asyncio.get_running_loop().call_later(_CONTROL_WITHIN, self._conn.abort)
                return
            self._server.proved(self._conn)
            asyncio.get_running_loop().call_later(_CONTROL_WITHIN, self._drop_idle)

    def _drop_idle(self) -> None:
        control = self._control
        idle = control is None or (isinstance(control, PilotControl) and control.key is None)
        if idle and self._conn is not None:
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

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:  # noqa: ARG002
        host = self._reachable().get(dest_port) if dest_host in _LOOPBACK else None
        return self._conn.forward_connection(host, dest_port) if host and self._conn else False

    def _reachable(self) -> dict[int, str]:
        """The ports that the peer may dial as the VO-box's loopback, and where they are."""
        control, server = self._control, self._server
        if isinstance(control, UserControl):
            own = server.registry.sessions(control.user)
            forwards = dict.fromkeys(server.forwards.ports(own), local(server.config.forward_host))
            return forwards | self._of_sessions({server.registry.scheduler_port(name) for name in own})
        if isinstance(control, PilotControl) and control.key is not None:
            return self._of_sessions(set(server.registry.scheduler_ports(control.key)))
        return {}

    def _of_sessions(self, schedulers: set[int]) -> dict[int, str]:
        """Schedulers and the stores beside them."""
        server = self._server
        masters = [master for master in server.users.masters.values() if master.port in schedulers - {0}]
        ports = {master.port: local(server.config.master_host) for master in masters}
        return ports | {master.store.port: "127.0.0.1" for master in masters if master.store.port}

    def server_requested(self, listen_host: str, listen_port: int) -> Any:  # noqa: ARG002
        control = self._control
        return control.forward_for(listen_port) if isinstance(control, PilotControl) else False


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
        except Exception as error:  # nobody is left waiting for an answer
            self.send({"id": number, "error": f"the ProxyServer failed at this: {type(error).__name__}"})
            raise

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
        except NotKept as error:  # it may try again
            self._server.door.refused(JOIN + self._submission, self._whence, str(error), proved=True)
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
        self.forwarding = asyncio.Lock()  # one forward at a time is asked for
        self.closed = asyncio.get_running_loop().create_future()
        self._server = server
        self._pilot = pilot
        self.user = ""
        self._forwards: dict[int, tuple[asyncssh.SSHListener, asyncio.Future[None]]] = {}  # ordered

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
            server.registry.worker_started(key, content.name, content.pid, content.direct)
        elif isinstance(content, WorkerExited):
            server.registry.worker_exited(
                key, content.name, content.code, content.signal, _shown(content.log), server.now()
            )
            server.logs.end(self.user, Source("worker", key, content.name))
        elif isinstance(content, Log):
            worker = content.worker
            source = Source("worker", key, check_name("worker", worker)) if worker else Source("pilot", key)
            server.logs.add(self.user, source, content.text, server.now())
        elif isinstance(content, Draining):
            server.registry.draining(key, _shown(content.reason))
        elif isinstance(content, Bye):
            server.registry.bye(key, _shown(content.reason), server.now())
            server.door.joining.leave(key, _shown(content.reason))
            asyncio.get_running_loop().call_later(_LEAVE_WITHIN, self.abort)
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
        self._server.pilot_came(self.key, self)

    def order(self, order: PilotOrder) -> None:
        """Tell the pilot to do something."""
        self.send(message(order))

    def end(self, reason: str) -> None:
        """Tell the pilot to exit, and drop it if it does not."""
        self.order(Exit(reason))
        asyncio.get_running_loop().call_later(_LEAVE_WITHIN, self.abort)

    async def forward(self, host: str, number: int, worker: str) -> asyncssh.SSHListener:
        """Listen on port ``number`` of ``host`` for the pilot, which is told where that is to lead.

        Raises:
            OSError: the port cannot be had.
            ProxyError: the pilot does not answer.
        """
        if self._channel is None:
            raise ProxyError("the pilot's connection is lost")
        conn = self._channel.get_connection()
        listener: asyncssh.SSHListener = await conn.forward_local_port(host, number, _FORWARDED, number)
        asked = asyncio.get_running_loop().create_future()
        self._forwards[number] = listener, asked
        self.order(Forward(number, worker))
        try:
            await asyncio.wait([asked], timeout=_FORWARD_WITHIN)
        finally:
            del self._forwards[number]
            if not asked.done():
                listener.close()
        if not asked.done():
            raise ProxyError(f"the pilot did not open the forward within {_FORWARD_WITHIN:.0f} s")
        return listener

    def forward_for(self, number: int) -> asyncssh.SSHListener | bool:
        """The pilot asks for a port: it gets what it was told to ask for."""
        listener, asked = self._forwards.get(number, (False, None))
        if asked is not None and not asked.done():
            asked.set_result(None)
        return listener

    def rubbish(self, error: ProxyError) -> None:
        self._server.trace(f"pilot {self._pilot} dropped: {error}")
        self.abort()

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.closed.done():
            self.closed.set_result(None)
        self._server.pilot_gone(self)


def _shown(reason: str) -> str:
    return harmless(reason)[-_REASON:]
