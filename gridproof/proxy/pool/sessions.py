"""Users and their sessions: who may open, see and close what, and when a session is at work (pure).

The half of the registry that knows nothing of how pilots come and go.
"""

from __future__ import annotations

from collections.abc import Collection, Reversible
from itertools import takewhile
from typing import TypeVar

from gridproof.errors import ProxyError
from gridproof.proxy.pool.records import PilotRecord, SessionRecord, WorkerRecord
from gridproof.proxy.pool.state import (
    Action,
    Close,
    Limits,
    Pilot,
    Session,
    Stop,
    User,
    Worker,
    pilot_record,
    session_record,
    worker_record,
)
from gridproof.proxy.protocol import Versions, check_name


class Sessions:
    """Users with their sessions. ``version`` grows with every change that `records` shows."""

    def __init__(self, limits: Limits) -> None:
        self.version = 0
        self._limits = limits
        self._users: dict[str, User] = {}
        self._sessions: dict[str, Session] = {}
        self._dirty: dict[tuple[str, Versions], None] = {}  # pools whose slots are to be shared out anew
        self._out: list[Action] = []

    def open_session(
        self, name: str, user: str, versions: Versions, workers: int, now: float, near: Collection[str] = ()
    ) -> None:
        """A session that wants ``workers`` workers, at sites ``near`` its data if there are some.

        None start before `session_ready`, but others may be asked to make room.

        Raises:
            ProxyError: the name is in use or no name, or the user would have more than is allowed.
        """
        check_name("session", name)
        if name in self._sessions:
            raise ProxyError(f"session {name} is open already; choose another name")
        if workers < 1:
            raise ProxyError(f"a session of {workers} workers was asked for; ask for one at least")
        owner = self._user(user)
        owner.check_sessions()
        owner.check_workers(workers)
        sites = frozenset(site.upper() for site in near)
        session = Session(name, user, versions, workers, sites, opened=now, last_used=now, worked=now)
        self._sessions[name] = owner.sessions[name] = owner.pool(versions).sessions[name] = session
        self._share(session)

    def session_ready(self, name: str, scheduler_port: int, now: float) -> None:
        """The session's scheduler listens: its workers may start."""
        session = self._sessions[name]
        session.scheduler_port, session.worked = scheduler_port, now
        self._share(session)

    def user_came(self, name: str) -> None:
        """One more process of its user is connected to a session."""
        self._sessions[name].users += 1

    def user_left(self, name: str, now: float) -> None:
        """A process that was connected to a session is gone."""
        if session := self._sessions.get(name):
            session.users -= 1
            session.last_used = now

    def check_attachable(self, name: str, user: str, versions: Versions) -> None:
        """Raises:
        ProxyError: the user has no such session, it still opens, or runs other versions.
        """
        self.check_owner(name, user)
        session = self._sessions[name]
        if not session.scheduler_port:
            raise ProxyError(f"session {name} is still opening; try again")
        if different := versions.difference(session.versions):
            raise ProxyError(
                f"{' and '.join(different)} differ: session {name} has {session.versions}; "
                f"this process has {versions}"
            )

    def activity(self, name: str, running: int, kept: int, now: float) -> None:
        """What a session's master has: queries that run, and others whose results it keeps."""
        if session := self._sessions.get(name):
            if session.running or running:
                session.worked = now
            session.running, session.kept = running, kept
            self._see_whether_at_work(session, now)

    def resize_session(self, name: str, workers: int) -> None:
        """Change how many workers the session wants.

        Raises:
            ProxyError: the user would have more than is allowed.
        """
        session = self._sessions[name]
        if workers > session.wanted:
            self._users[session.user].check_workers(workers, but=session)
        session.wanted = workers
        self._share(session)

    def close_session(self, name: str) -> None:
        """Forget the session and end its workers at once; the pilots stay, for others."""
        session = self._sessions.pop(name, None)
        if session is None:
            return
        user = self._users[session.user]
        pool = user.pool(session.versions)
        del user.sessions[name], pool.sessions[name]
        for slot, worker in [*session.held.items(), *session.leaving.items()]:
            pool.ending[slot] = worker
            self._out.append(Stop(slot.pilot, worker.name, 0.0))
        self._share(session)
        self._perhaps_forget(user)

    def sessions(self, user: str) -> tuple[str, ...]:
        """Names of a user's sessions."""
        return tuple(self._users[user].sessions) if user in self._users else ()

    def session_records(self, user: str, now: float) -> list[SessionRecord]:
        """A user's sessions, the oldest first."""
        return [session_record(self._sessions[name], now) for name in self.sessions(user)]

    def check_owner(self, name: str, user: str) -> None:
        """Raises:
        ProxyError: the user has no such session.
        """
        if name not in self.sessions(user):
            own = ", ".join(self.sessions(user)) or "none"
            raise ProxyError(f"{user} has no session {name[:40]!r}; there are: {own}")

    def owner(self, name: str) -> str | None:
        """The user of a session, None when it is closed."""
        session = self._sessions.get(name)
        return session.user if session else None

    def scheduler_port(self, session: str) -> int:
        """The session's scheduler port, 0 before it is ready."""
        return self._sessions[session].scheduler_port

    def at_hand(self, name: str) -> int:
        """How many workers the pilots that are registered can give to a session that opens."""
        session = self._sessions[name]
        return self._users[session.user].pool(session.versions).at_hand(session)

    def _look_after(self, session: Session, now: float) -> None:
        """A session that nobody uses gives its workers back, and ends when it keeps no result any more."""
        user = self._users[session.user]
        if session.users or (session.running and user.connected):
            session.last_used = now
        if now - session.last_used > user.limits.idle and not session.retired:
            session.retired = True
            session.wanted = 0
            self._share(session)
        if session.retired and not session.users and not session.kept:
            self._out.append(Close(session.name))
        if session.wake(now):
            self._share(session)
        self._see_whether_at_work(session, now)

    def _see_whether_at_work(self, session: Session, now: float) -> None:
        """It wants its workers for queries; it lends them if it ran none for long or nobody is connected."""
        session.settled = session.settled or session.running > 0 or len(session.held) >= session.wanted
        if session.running or (not session.settled and now - session.opened < self._limits.opening):
            session.worked = now
        lately = now - session.worked <= self._limits.lend_after
        at_work = session.running > 0 or (session.users > 0 and lately)
        if at_work is not session.at_work:
            session.at_work = at_work
            self._share(session)

    def _user(self, name: str) -> User:
        return self._users.setdefault(name, User(name, self._limits.of(name)))

    def _perhaps_forget(self, user: User) -> None:
        if not user.sessions and not user.pilots:
            del self._users[user.name]

    def _share(self, session: Session) -> None:
        """The slots that the session may use are to be shared out anew."""
        self._dirty[session.user, session.versions.comparable()] = None

    def _touch(self, pilot: Pilot) -> None:
        self.version += 1
        pilot.version = self.version
        pilots = self._users[pilot.user].pilots
        pilots.pop(pilot.key, None)
        pilots[pilot.key] = pilot
        if pilot.versions is not None:
            self._dirty[pilot.user, pilot.versions.comparable()] = None

    def _show(self, worker: Worker) -> None:
        self.version += 1
        worker.version = self.version
        if session := self._sessions.get(worker.session):
            session.workers.pop(worker.name, None)
            session.workers[worker.name] = worker

    def records(self, session: str, since: int = 0) -> tuple[list[PilotRecord], list[WorkerRecord]]:
        """What changed after ``since`` (a former ``version``), the latest last.

        Of the user's pilots those that serve the session or were submitted for it; its own workers.
        """
        known = self._sessions.get(session)
        if known is None:
            return [], []
        mine = known.versions.comparable()
        pilots = [
            pilot_record(pilot)
            for pilot in _later(self._users[known.user].pilots.values(), since)
            if pilot.session == session or (pilot.versions and pilot.versions.comparable() == mine)
        ]
        return pilots, [worker_record(worker) for worker in _later(known.workers.values(), since)]


T = TypeVar("T", Pilot, Worker)


def _later(changed: Reversible[T], since: int) -> list[T]:
    """Those with a later version, out of all in the order of their versions."""
    return list(takewhile(lambda one: one.version > since, reversed(changed)))[::-1]
