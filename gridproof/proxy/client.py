"""The session's side of the control channel."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.channel import CIPHERS, KEEPALIVE, KEX, ControlChannel, retry_often
from gridproof.proxy.login import Key, fingerprints, offered_fingerprint
from gridproof.proxy.logs import Source
from gridproof.proxy.pool.records import PilotRecord, SessionRecord, Status, WorkerRecord
from gridproof.proxy.protocol import CONTROL, USER, Message, StoreAccess, Versions, build

_SOURCES_PER_LINE = 1000
_PAUSES = (0.2, 0.4, 0.8, 1.6, 3.2)  # s between attempts to get a place in a crowd


@dataclass(frozen=True)
class OpenedSession:
    """The scheduler's address on the VO-box, the client's identity there (PEM texts), and the store."""

    session: str
    address: str
    ca: str
    cert: str
    key: str = field(repr=False)
    store: StoreAccess


@dataclass(frozen=True)
class Submission:
    """What pilots of one submission join with."""

    submission: str
    join_key: str = field(repr=False)
    orphan_limit: float


@dataclass(frozen=True)
class StatusChanged:
    """Event: ``status`` is the whole picture of the session."""

    session: str
    status: Status


@dataclass(frozen=True)
class SessionLost:
    """Event: the session's master died."""

    session: str
    reason: str


Event = StatusChanged | SessionLost
OnEvent = Callable[[Event], Awaitable[None]]


class _Control(ControlChannel, asyncssh.SSHClientSession[bytes]):
    def __init__(self, client: ProxyClient) -> None:
        super().__init__()
        self._client = client

    def received(self, message: Message) -> None:
        self._client._received(message)

    def lost(self, exc: Exception | None) -> None:
        self._client._lost(exc)


class ProxyClient:
    """A user's connection to a ProxyServer, on the event loop that made it.

    ``closed`` is done, with the reason as text, when the connection is gone.
    """

    def __init__(self, where: str, on_event: OnEvent | None) -> None:
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.conn: asyncssh.SSHClientConnection
        self._control: _Control
        self._where = where
        self._on_event = on_event
        self._numbers = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._statuses: dict[str, Status] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._pump: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        host_key: str | Sequence[asyncssh.SSHKey],
        user: str,
        key: str | asyncssh.SSHKey | Sequence[Key],
        *,
        on_event: OnEvent | None = None,
        timeout: float = 30.0,
    ) -> ProxyClient:
        """Connect as ``user``, who has the private ``key``; ``host_key`` is the server's public one.

        Both may be OpenSSH texts, or there may be several.

        Raises:
            ProxyError: unreachable within ``timeout`` s, another host key, or refused.
        """
        where = f"the ProxyServer at {host}:{port}"
        client = cls(where, on_event)
        try:
            client.conn = await _again_if_crowded(
                lambda: dial(host, port, host_key, USER + user, key, timeout)
            )
        except asyncssh.PermissionDenied:
            shown = "" if isinstance(key, str) else f" ({fingerprints(key)})"
            raise ProxyError(
                f"{where} does not know this key of {user}{shown}; have the public key listed there"
            ) from None
        except asyncssh.HostKeyNotVerifiable:
            raise ProxyError(
                f"{where} has another host key than is known here: it shows "
                f"{await offered_fingerprint(host, port)}. Either it was set up anew, or something else "
                "listens there; nothing was sent to it. Ask its administrator which key is right, and only "
                f"then correct proxy.host_key, or remove the old one: ssh-keygen -R '[{host}]:{port}'"
            ) from None
        except (OSError, asyncssh.Error, asyncio.TimeoutError) as error:
            raise ProxyError(f"{where} cannot be reached: {str(error) or type(error).__name__}") from None
        except ValueError as error:  # a name or key that is none
            raise ProxyError(
                f"{where}: {error}; look at proxy.host, proxy.host_key and proxy.key_file"
            ) from None
        client._control = await open_control(client.conn, lambda: _Control(client))
        client._pump = asyncio.create_task(client._pump_events())
        return client

    @property
    def host_key(self) -> str:
        """The server's public key, which was verified (OpenSSH text)."""
        key = self.conn.get_server_host_key()
        assert key is not None
        return key.export_public_key().decode().strip()

    async def open_session(
        self, versions: Versions, workers: int, *, session: str | None = None, sites: Collection[str] = ()
    ) -> OpenedSession:
        """Start a session's scheduler and master; ``session`` may be chosen with `new_session_name`.

        ``sites``: where its data are. What is `at_hand` for it, and a `new_submission`, may be asked for
        without waiting for this to return.

        Raises:
            ProxyError: the master did not come up, or the connection is gone.
        """
        name = session or new_session_name()
        answer = await self._request(
            "open_session", session=name, versions=asdict(versions), workers=workers, sites=sorted(sites)
        )
        return build(OpenedSession, answer)

    async def at_hand(self, session: str) -> int:
        """How many workers the user's registered pilots can give to a session that opens.

        Raises:
            ProxyError: there is no such session, or the connection is gone.
        """
        return int(await self._request("at_hand", session=session))

    async def sessions(self) -> list[SessionRecord]:
        """The user's sessions, the oldest first.

        Raises:
            ProxyError: the connection is gone.
        """
        return [build(SessionRecord, record) for record in await self._request("sessions")]

    async def attach_session(self, session: str, versions: Versions) -> OpenedSession:
        """Use a session that another process of the same user has opened.

        Raises:
            ProxyError: there is none, it runs other versions, or the connection is gone.
        """
        answer = await self._request("attach_session", session=session, versions=asdict(versions))
        return build(OpenedSession, answer)

    async def new_submission(self, session: str, pilots: int, grid_user: str) -> Submission:
        """A join key for as many ``pilots`` of ``session``: jobs of ``grid_user``.

        Raises:
            ProxyError: there is no such session, or the connection is gone.
        """
        answer = await self._request("new_submission", session=session, pilots=pilots, grid_user=grid_user)
        return build(Submission, answer)

    async def forward(self, session: str, worker: str, what: str = "worker") -> tuple[str, int, str, str]:
        """Have a port lead to a worker's own (``what`` "worker"), or to its node's XRootD server ("xrootd").

        Returns:
            Host and port, as the VO-box reaches them; the key that the XRootD server asks for (a line of a
            keytab), and the file in which it tells its clients to look for that.

        Raises:
            ProxyError: no such session, worker or server, no port is free, or the connection is gone.
        """
        answer = await self._request("forward", session=session, worker=worker, what=what)
        return str(answer["host"]), int(answer["port"]), str(answer["key"]), str(answer["keytab"])

    async def resize_session(self, session: str, workers: int) -> None:
        """Change how many workers the session wants.

        Raises:
            ProxyError: there is no such session, or the connection is gone.
        """
        await self._request("resize_session", session=session, workers=workers)

    async def status(self, session: str) -> Status:
        """Pilots and workers of the session as they are now.

        Raises:
            ProxyError: there is no such session, or the connection is gone.
        """
        await self._request("status", session=session)
        return self.last_status(session)

    def last_status(self, session: str) -> Status:
        """Pilots and workers of the session as was told last, also of one that is gone."""
        return self._statuses.get(session, Status())

    async def logs(
        self, sources: Sequence[Source], lines: int, since: Mapping[Source, int] | None = None
    ) -> dict[Source, tuple[str, int]]:
        """The last lines of the user's workers, pilots and masters, of those of which any are known.

        With how many characters each has written in all: ``since`` so many, only what is newer comes.

        Raises:
            ProxyError: the connection is gone.
        """
        found: dict[Source, tuple[str, int]] = {}
        left = list(sources)
        while left:
            asked = [[*source, (since or {}).get(source, 0)] for source in left[:_SOURCES_PER_LINE]]
            answer = await self._request("logs", sources=asked, lines=lines)
            found |= {s: (str(a[0]), int(a[1])) for s, a in zip(left, answer, strict=False) if a}
            left = left[len(answer) :]
        return found

    async def close_session(self, session: str) -> None:
        """End the session's master and workers and revoke its join keys; registered pilots stay.

        Raises:
            ProxyError: there is no such session, or the connection is gone.
        """
        await self._request("close_session", session=session)
        self._statuses.pop(session, None)

    async def close(self) -> None:
        """Close the connection; sessions go on."""
        self.conn.close()
        await self.conn.wait_closed()
        if self._pump:
            self._pump.cancel()

    async def _request(self, verb: str, **arguments: Any) -> Any:
        if self.closed.done():
            raise ProxyError(f"{verb}: {self.closed.result()}")
        self._numbers += 1
        number = self._numbers
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._control.send({"id": number, "do": verb, **arguments})
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def _received(self, message: Message) -> None:
        if "id" in message:
            future = self._waiting.get(message["id"])
            if future is None or future.done():
                return
            if "error" in message:
                future.set_exception(ProxyError(str(message["error"])))
            else:
                future.set_result(message.get("ok"))
        elif message.get("event") == "status":
            self._merge(message)
        elif message.get("event") == "session_lost":
            self._events.put_nowait(SessionLost(str(message.get("session")), str(message.get("reason"))))

    def _merge(self, message: Message) -> None:
        session = str(message.get("session"))
        known = self._statuses.get(session, Status())
        pilots = [build(PilotRecord, record) for record in message.get("pilots", ())]
        workers = [build(WorkerRecord, record) for record in message.get("workers", ())]
        status = self._statuses[session] = Status(
            {**known.pilots, **{p.id: p for p in pilots}},
            {**known.workers, **{w.name: w for w in workers}},
        )
        self._events.put_nowait(StatusChanged(session, status))

    def _lost(self, exc: Exception | None) -> None:
        reason = f"the connection to {self._where} was lost" + (f": {exc}" if exc else "")
        if not self.closed.done():
            self.closed.set_result(reason)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ProxyError(reason))

    async def _pump_events(self) -> None:
        while True:
            event = await self._events.get()
            if self._on_event:
                await self._on_event(event)


def new_session_name() -> str:
    """A name that no other session has."""
    return f"s{secrets.token_hex(6)}"


async def _again_if_crowded(
    call: Callable[[], Awaitable[asyncssh.SSHClientConnection]],
) -> asyncssh.SSHClientConnection:
    """Where many dial from one address, as when all pilots of a site come back, some are dropped at first."""
    for pause in _PAUSES:
        try:
            return await call()
        except (ConnectionResetError, BrokenPipeError, asyncssh.ConnectionLost):
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
    return await call()


async def dial(
    host: str,
    port: int,
    host_key: str | Sequence[asyncssh.SSHKey],
    username: str,
    key: str | asyncssh.SSHKey | Sequence[Key],
    timeout: float,
) -> asyncssh.SSHClientConnection:
    """An SSH connection that trusts only ``host_key``, offers only ``key`` and reads no file of the user's.

    Raises:
        OSError, asyncssh.Error, asyncio.TimeoutError: as asyncssh does.
    """
    private = asyncssh.import_private_key(key) if isinstance(key, str) else key
    trusted = [asyncssh.import_public_key(host_key)] if isinstance(host_key, str) else list(host_key)
    conn = await asyncssh.connect(
        host,
        port,
        config=None,
        known_hosts=(trusted, [], []),
        username=username,
        client_keys=list(private) if isinstance(private, Sequence) else [private],
        agent_path=None,
        gss_host=None,
        preferred_auth="publickey",
        x509_trusted_certs=None,
        kex_algs=KEX,
        encryption_algs=CIPHERS,
        compression_algs=None,
        connect_timeout=timeout,
        login_timeout=timeout,
        **KEEPALIVE,
    )
    retry_often(conn)
    return conn


async def open_control(conn: asyncssh.SSHClientConnection, factory: Callable[[], Any]) -> Any:
    """Open the control channel; ``factory`` makes the session object that serves it.

    Raises:
        ProxyError: it was refused.
    """
    try:
        _, session = await conn.create_session(factory, subsystem=CONTROL, encoding=None)
    except asyncssh.Error as error:
        conn.abort()
        raise ProxyError(f"the ProxyServer refused the control channel: {error.reason}") from None
    return session
