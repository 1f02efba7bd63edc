"""What users ask of the ProxyServer: sessions, each with a master of its own, and news of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.admission.joining import Submission
from gridproof.proxy.forwards import XROOTD
from gridproof.proxy.gate import UserControl
from gridproof.proxy.logs import Source, harmless
from gridproof.proxy.masters.certificates import make_identities
from gridproof.proxy.masters.isolation import isolate
from gridproof.proxy.masters.supervisor import Master
from gridproof.proxy.pool.records import PilotRecord, WorkerRecord
from gridproof.proxy.protocol import MAX_LINE, Message, Versions, build, check_name
from gridproof.proxy.reach import local

if TYPE_CHECKING:
    from gridproof.proxy.server import ProxyServer

_PUSH_DELAY = 0.05  # changes within it travel together
_RECORD = 1048  # bytes of a record that says no reason, at most
_CHARACTER = 12  # bytes, at most
_LOG_CHARACTERS = 65_536  # in one answer
_LAST_LINES, _LAST_CHARACTERS = 10, 1000  # of a master that died, in the error


class Users:
    """The users' side of a ProxyServer. ``masters`` by session."""

    def __init__(self, server: ProxyServer) -> None:
        self.masters: dict[str, Master] = {}
        self._server = server
        self._registry = server.registry
        self._controls: set[UserControl] = set()
        self._push: asyncio.TimerHandle | None = None
        self._told = 0  # the registry's version that all users have been told of

    async def close(self) -> None:
        """End all masters."""
        if self._push:
            self._push.cancel()
        await asyncio.gather(*(master.stop() for master in self.masters.values()))

    def came(self, control: UserControl) -> None:
        """A user's control channel opened."""
        self._controls.add(control)

    def gone(self, control: UserControl) -> None:
        """A user's control channel closed; the sessions go on."""
        self._controls.discard(control)
        for session in control.sessions:
            self._registry.user_left(session, self._server.now())

    def tell_soon(self) -> None:
        """Tell users what has changed, if anything has, in a moment."""
        if self._push is None and self._controls and self._registry.version != self._told:
            self._push = asyncio.get_running_loop().call_later(_PUSH_DELAY, self._push_now)

    def _push_now(self) -> None:
        self._push = None
        self._told = self._registry.version
        for control in self._controls:
            for session in self._registry.sessions(control.user):
                self._show(control, session)

    def _show(self, control: UserControl, session: str) -> None:
        shown = control.shown.get(session, 0)
        pilots, workers = self._registry.records(session, since=shown)
        control.shown[session] = self._registry.version
        told: tuple[tuple[str, Sequence[PilotRecord | WorkerRecord]], ...] = (
            ("pilots", pilots),
            ("workers", workers),
        )
        for kind, records in told:
            for part in _lines(records):
                control.send({"event": "status", "session": session, kind: list(map(asdict, part))})

    async def request(self, control: UserControl, request: Message) -> Any:
        """Answer one request of a user.

        Raises:
            ProxyError: it cannot be done; the text goes to the user.
        """
        doers: dict[str, Callable[[UserControl, Message], Any]] = {
            "open_session": self._open_session,
            "attach_session": self._attach_session,
            "sessions": self._sessions,
            "at_hand": self._at_hand,
            "new_submission": self._new_submission,
            "resize_session": self._resize_session,
            "status": self._status,
            "logs": self._logs,
            "forward": self._forward,
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
        workers, sites = _get(request, "workers", int), _get(request, "sites", list)
        near = [check_name("site", site) if isinstance(site, str) else "" for site in sites]
        self._registry.open_session(name, control.user, versions, workers, self._server.now(), near)
        self._join(control, name)
        config, directory = self._server.config, self._server.directory
        identities = make_identities(name, datetime.now(timezone.utc))
        logs, source = self._server.logs, Source("master", name)
        try:
            isolation = isolate(control.user, config.accounts, directory)
            master = self.masters[name] = Master(
                name,
                isolation,
                config.master_host,
                identities,
                directory / f"session-{name}",
                config.cache_dir,
                config.keep_results,
                lambda text: logs.add(control.user, source, text, self._server.now()),
                config.store_size,
            )
            await master.start(config.master, config.master_timeout)
        except ProxyError as error:
            logs.end(control.user, source)
            self._server.trace(f"no session for {control.user}: {error}")
            await self.end_session(name)
            raise ProxyError(f"{error}{self._last_words(control.user, source)}") from None
        if self.masters.get(name) is not master:
            raise ProxyError(f"session {name} was closed while it opened")
        self._server.background(self._watch(name, master))
        self._server.background(self._listen(name, master))
        self._registry.session_ready(name, master.port, self._server.now())
        self._server.act()
        return self._opened(name)

    async def _attach_session(self, control: UserControl, request: Message) -> Message:
        name = _get(request, "session", str)
        versions = build(Versions, request.get("versions"))
        self._registry.check_attachable(name, control.user, versions)
        self._join(control, name)
        return self._opened(name)

    async def _sessions(self, control: UserControl, request: Message) -> list[Message]:  # noqa: ARG002
        records = self._registry.session_records(control.user, self._server.now())
        return [asdict(record) for record in records]

    def _join(self, control: UserControl, session: str) -> None:
        if session not in control.sessions:
            control.sessions.add(session)
            self._registry.user_came(session)

    def _opened(self, name: str) -> Message:
        master = self.masters[name]
        about = {"session": name, "address": master.address, "store": asdict(master.store)}
        return about | asdict(master.identities.client)

    async def _listen(self, name: str, master: Master) -> None:
        try:
            while activity := await master.activity():
                self._registry.activity(name, *activity, self._server.now())
                self._server.act()
        except ProxyError as error:
            self._server.trace(str(error))
            await self.end_session(name)

    async def _watch(self, name: str, master: Master) -> None:
        owner, source = self._registry.owner(name) or "", Source("master", name)
        how = await master.ended()
        self._server.logs.end(owner, source)
        if master.stopping:
            return
        reason = f"the master of session {name} died ({how})"
        self._server.trace(reason)
        reason += self._last_words(owner, source)
        for control in self._controls:
            if control.user == owner:
                control.send({"event": "session_lost", "session": name, "reason": reason})
        await self.end_session(name)

    async def _at_hand(self, control: UserControl, request: Message) -> int:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        return self._registry.at_hand(session)

    def _last_words(self, user: str, source: Source) -> str:
        found = self._server.logs.last(user, source, _LAST_LINES, _LAST_CHARACTERS)
        return f"\nit wrote last:\n{harmless(found[0]).rstrip()}" if found else ""

    async def _new_submission(self, control: UserControl, request: Message) -> Message:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        pilots = _get(request, "pilots", int)
        key = asyncssh.generate_private_key("ssh-ed25519")
        submission = Submission(
            secrets.token_hex(8),
            control.user,
            check_name("Grid user", _get(request, "grid_user", str)),
            session,
            key.public_data,
            pilots,
            time.time() + self._server.config.join_lifetime,
        )
        self._server.door.joining.submit(submission)
        await self._server.door.keep()
        return {
            "submission": submission.name,
            "join_key": key.export_private_key().decode(),
            "orphan_limit": self._server.config.orphan_limit,
        }

    async def _resize_session(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        self._registry.resize_session(session, max(0, _get(request, "workers", int)))
        self._server.act()

    async def _status(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        control.shown.pop(session, None)
        self._show(control, session)

    async def _logs(self, control: UserControl, request: Message) -> list[tuple[str, int] | None]:
        """The last lines of the first of the ``sources``, of as many as one answer holds.

        Each comes as kind, owner, name, and how many characters of it are known already.
        """
        lines, room = max(1, _get(request, "lines", int)), _LOG_CHARACTERS
        answer: list[tuple[str, int] | None] = []
        for asked in _get(request, "sources", list):
            if not isinstance(asked, list) or [type(part) for part in asked] != [str, str, str, int]:
                raise ProxyError("a source of logs is a kind, an owner, a name and a number of characters")
            *source, since = asked
            found = self._server.logs.last(control.user, Source(*source), lines, _LOG_CHARACTERS, since)
            room -= len(found[0]) if found else 0
            if room < 0:
                break
            answer.append(found)
        return answer

    async def _forward(self, control: UserControl, request: Message) -> Message:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        worker, what = _get(request, "worker", str), _get(request, "what", str)
        port, pilot = await self._server.forwards.open(session, worker, what)
        key, keytab = (pilot.xrootd_key, pilot.xrootd_keytab) if what == XROOTD else ("", "")
        host = local(self._server.config.forward_host)
        return {"host": host, "port": port, "key": key, "keytab": keytab}

    async def _close_session(self, control: UserControl, request: Message) -> None:
        session = _get(request, "session", str)
        self._registry.check_owner(session, control.user)
        await self.end_session(session)

    async def end_session(self, name: str) -> None:
        """End a session's master and workers, and revoke its join keys."""
        self._registry.close_session(name)
        self._server.door.joining.revoke(name)
        self._server.act()
        for control in self._controls:
            control.shown.pop(name, None)
            control.sessions.discard(name)
        master = self.masters.pop(name, None)
        if master is not None:
            await master.stop()
        await self._server.door.keep_or_say()


def _get(request: Message, name: str, kind: type) -> Any:
    value = request.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ProxyError(f"the request needs {name!r} as {kind.__name__}")
    return value


def _lines(
    records: Sequence[PilotRecord | WorkerRecord],
) -> Iterator[Sequence[PilotRecord | WorkerRecord]]:
    """As many of them at a time as one line surely holds."""
    start, size = 0, 0
    for number, record in enumerate(records):
        own = _RECORD + _CHARACTER * len(record.reason)
        if size + own > MAX_LINE - _RECORD:
            yield records[start:number]
            start, size = number, 0
        size += own
    if records:
        yield records[start:]
