"""Which pilots and workers there are, and what is to be done with them (pure: no I/O, no clock).

The server reports what happens (`register`, `ready`, `heartbeat`, `worker_exited`, …), with the time
``now`` in seconds of any steady clock, and then carries out what `decide` returns. What heartbeats and ticks
cost does not grow with the number of pilots.
"""

from __future__ import annotations

from collections.abc import Collection, Reversible
from itertools import takewhile
from typing import TypeVar

from gridproof.errors import ProxyError
from gridproof.proxy.aging import Aging
from gridproof.proxy.numbers import Numbers, contact
from gridproof.proxy.protocol import EXIT_LEFT, EXIT_REPLACE, Ready, Register, Versions, check_name
from gridproof.proxy.records import PilotRecord, SessionRecord, WorkerRecord
from gridproof.proxy.shares import Slot
from gridproof.proxy.state import (
    CONNECTED,
    Action,
    Close,
    Drop,
    End,
    Limits,
    Pilot,
    PilotKey,
    Pool,
    Session,
    Start,
    Stop,
    User,
    Worker,
    pilot_record,
    session_record,
    worker_record,
)


class Registry:
    """Users with their sessions and pilots, and the workers.

    A pilot belongs to a user and serves all sessions of this user that run its versions. ``version`` grows
    with every change that `records` shows. Methods that are given an unknown pilot (one that was told to go
    meanwhile) do nothing. ``numbers`` are the ports that workers may have on the VO-box, ``forwarding`` is
    how they reach their master, one of `gridproof.proxy.config.FORWARDING`.
    """

    def __init__(
        self, limits: Limits | None = None, numbers: range = range(0), forwarding: str = "auto"
    ) -> None:
        self.version = 0
        self._limits = limits or Limits()
        self.numbers = Numbers(numbers, self._limits.number_rest)
        self._forwarding = forwarding
        self._users: dict[str, User] = {}
        self._sessions: dict[str, Session] = {}
        self._pilots: dict[PilotKey, Pilot] = {}
        self._heard: Aging[PilotKey] = Aging()  # pilots that are connected
        self._unheard: Aging[PilotKey] = Aging()  # and silent
        self._gone: Aging[PilotKey] = Aging()
        self._dirty: dict[tuple[str, Versions], None] = {}  # pools whose slots are to be shared out anew
        self._out: list[Action] = []

    # ---- sessions

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

    def scheduler_ports(self, key: PilotKey) -> tuple[int, ...]:
        """The ports that a pilot may reach: those of the sessions that have workers there."""
        pilot = self._pilots.get(key)
        names = {worker.session for worker in pilot.workers.values()} if pilot else ()
        return tuple(session.scheduler_port for name in names if (session := self._sessions.get(name)))

    def at_hand(self, name: str) -> int:
        """How many workers the pilots that are registered can give to a session that opens."""
        session = self._sessions[name]
        return self._users[session.user].pool(session.versions).at_hand(session)

    # ---- pilots

    def register(self, key: PilotKey, user: str, session: str, about: Register, now: float) -> None:
        """A pilot that was accepted joins, or comes back after its connection was lost.

        ``session`` is the one that submitted it.

        Raises:
            ProxyError: it sent nonsense.
        """
        for what in ("job_id", "site", "host"):
            check_name(what, getattr(about, what))
        if not 1 <= about.cores <= 1024:
            raise ProxyError(f"a pilot must have 1 to 1024 cores, not {about.cores}")
        if key in self._pilots:
            self.disconnected(key, now, "its connection was replaced")
        owner = self._user(user)
        owner.connected += 1
        pilot = self._pilots[key] = Pilot(key, user, about, session)
        self._gone.drop(key)
        self._heard.touch(key, now)
        self._touch(pilot)

    def end(self, key: PilotKey, reason: str, now: float) -> None:
        """Tell a pilot to go."""
        if pilot := self._connected(key):
            self._out.append(End(key, reason))
            self._leave(pilot, "left", reason, now)

    def ready(self, key: PilotKey, ready: Ready, now: float) -> None:
        """The pilot can start workers.

        It is refused if the session that submitted it is open, but neither that one nor another one of its
        user can use it, since versions differ.
        """
        pilot = self._connected(key)
        if pilot is None:
            return
        self._hear(pilot, now)
        pilot.xrootd_port = ready.xrootd_port
        pilot.xrootd_key, pilot.xrootd_keytab = ready.xrootd_key, ready.xrootd_keytab
        pilot.direct, pilot.versions = ready.direct, ready.versions
        user = self._users[pilot.user]
        pool = user.pool(ready.versions)
        wanted = user.sessions.get(pilot.session)
        if wanted is not None and not pool.sessions:
            different = " and ".join(ready.versions.difference(wanted.versions))
            reason = (
                f"{different} differ: the session has {wanted.versions}; "
                f"the pilot at {pilot.about.site} ({pilot.about.host}) has {ready.versions}"
            )
            self._out.append(End(key, reason))
            self._leave(pilot, "refused", reason, now)
        elif pilot.state != "draining":
            user.idle.touch(key, now)
            self._turn(pilot, "ready")

    def heartbeat(self, key: PilotKey, load: float, now: float) -> None:
        """The pilot is alive."""
        if pilot := self._connected(key):
            pilot.load = load
            self._hear(pilot, now)

    def _hear(self, pilot: Pilot, now: float) -> None:
        self._unheard.drop(pilot.key)
        self._heard.touch(pilot.key, now)
        if pilot.state == "silent":
            self._turn(pilot, "ready")

    def draining(self, key: PilotKey, reason: str) -> None:
        """The pilot leaves soon: nothing further starts there."""
        if pilot := self._connected(key):
            self._turn(pilot, "draining", reason)

    def disconnected(self, key: PilotKey, now: float, reason: str = "its connection was lost") -> None:
        """The pilot's connection is gone, and its workers, which were reached through it, with it."""
        if pilot := self._connected(key):
            self._leave(pilot, "lost", reason, now)

    def bye(self, key: PilotKey, reason: str, now: float) -> None:
        """The pilot ends itself."""
        if pilot := self._connected(key):
            self._leave(pilot, "left", reason, now)

    def _connected(self, key: PilotKey) -> Pilot | None:
        pilot = self._pilots.get(key)
        return pilot if pilot and pilot.state in CONNECTED else None

    def _turn(self, pilot: Pilot, state: str, reason: str = "") -> None:
        pilot.state, pilot.reason = state, reason
        if pilot.versions is not None:
            self._users[pilot.user].pool(pilot.versions).settle(pilot)
        self._touch(pilot)

    def _leave(self, pilot: Pilot, state: str, reason: str, now: float) -> None:
        user = self._users[pilot.user]
        user.connected -= 1
        user.idle.drop(pilot.key)
        self._heard.drop(pilot.key)
        self._unheard.drop(pilot.key)
        self._gone.touch(pilot.key, now)
        self._turn(pilot, state, reason)
        for worker in list(pilot.workers.values()):
            self._end_worker(worker, f"its pilot {state}: {reason}", now)

    # ---- workers

    def worker_started(self, key: PilotKey, name: str, pid: int) -> None:
        """The worker's process runs."""
        pilot = self._pilots.get(key)
        if pilot and (worker := pilot.workers.get(name)):
            worker.state, worker.pid = "running", pid
            self._show(worker)

    def worker_exited(self, key: PilotKey, name: str, code: int, signal: int, log: str, now: float) -> None:
        """The worker's process ended; unless it was told to, another one takes its place after a while."""
        pilot = self._pilots.get(key)
        worker = pilot.workers.get(name) if pilot else None
        if worker is None:
            return
        how = "it left" if code == EXIT_LEFT else f"signal {signal}" if signal else f"exit code {code}"
        lived = now - worker.started
        given_up = 0
        session = self._sessions.get(worker.session)
        if worker.stopping or session is None:
            how = f"told to end, {how}"
        elif code == EXIT_LEFT:
            session.rest_for(worker.slot, self._limits.backoff_max, now)  # no packet fits into what is left
        else:
            young = lived < self._limits.young and code != EXIT_REPLACE
            given_up = session.rest_after_death(worker.slot, young, self._limits, now)
        giving_up = f", {given_up} times in a row: given up" if given_up else ""
        tail = f":\n{log.strip()}" if log.strip() else ""
        self._end_worker(worker, f"{how} after {lived:.1f} s{giving_up}{tail}", now)

    def _end_worker(self, worker: Worker, reason: str, now: float) -> None:
        pilot, slot = worker.pilot, worker.slot
        self.numbers.give_back(worker.number, now)
        del pilot.workers[worker.name]
        user = self._users[pilot.user]
        assert pilot.versions is not None  # only such a pilot has workers
        pool = user.pool(pilot.versions)
        pool.ending.pop(slot, None)
        pool.settle(pilot)
        self._dirty[user.name, pilot.versions.comparable()] = None
        if pilot.state in CONNECTED and not pilot.workers:
            user.idle.touch(pilot.key, now)
        worker.state, worker.reason = "ended", reason
        if session := self._sessions.get(worker.session):
            session.held.pop(slot, None)
            session.leaving.pop(slot, None)
            session.ended.append(worker.name)
            while len(session.ended) > self._limits.ended_kept:
                del session.workers[session.ended.popleft()]
            self._show(worker)

    def find_worker(self, session: str, name: str) -> Worker | None:
        """A session's worker, if it lives."""
        known = self._sessions.get(session)
        worker = known.workers.get(name) if known else None
        return worker if worker and worker.state != "ended" else None

    # ---- decisions

    def tick(self, now: float) -> None:
        """Time has passed: pilots may have fallen silent, workers be due again, sessions be idle."""
        for session in self._sessions.values():
            self._look_after(session, now)
        for key, age in self._heard.older(self._limits.silent_after, now):
            pilot = self._pilots[key]
            self._heard.drop(key)
            self._unheard.touch(key, now - age)
            if pilot.state == "ready":
                self._turn(pilot, "silent", f"no heartbeat for {age:.0f} s")
        for key, age in self._unheard.older(self._limits.lost_after, now):
            self._out.append(Drop(key))
            self._leave(self._pilots[key], "lost", f"no heartbeat for {age:.0f} s", now)
        for user in list(self._users.values()):
            for key, age in user.idle.older(user.limits.pilot_idle, now):
                self._perhaps_dismiss(user, self._pilots[key], age, now)
        for key, _ in self._gone.older(self._limits.forget_after, now):
            self._gone.drop(key)
            user = self._users[self._pilots.pop(key).user]
            del user.pilots[key]
            self._perhaps_forget(user)

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
        """It lends its workers when it has run no query for long, and wants them back with the next one."""
        session.settled = session.settled or session.running > 0 or len(session.held) >= session.wanted
        if session.running or (not session.settled and now - session.opened < self._limits.opening):
            session.worked = now
        at_work = now - session.worked <= self._limits.lend_after
        if at_work is not session.at_work:
            session.at_work = at_work
            self._share(session)

    def _perhaps_dismiss(self, user: User, pilot: Pilot, age: float, now: float) -> None:
        """A pilot without work for long leaves, unless a session that opens may want it."""
        pool = user.pool(pilot.versions) if pilot.versions is not None else Pool()
        if pilot.workers:
            user.idle.drop(pilot.key)
        elif all(session.scheduler_port for session in pool.sessions.values()):
            self.end(pilot.key, f"no session of {user.name} has needed it for {age:.0f} s", now)

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; each action is returned once."""
        for name, versions in self._dirty:
            if (user := self._users.get(name)) and (pool := user.pools.get(versions)):
                self._share_out(user, pool, now)
        self._dirty.clear()
        actions, self._out = self._out, []
        return actions

    def _share_out(self, user: User, pool: Pool, now: float) -> None:
        elsewhere = user.living() - pool.living() if len(user.pools) > 1 else 0
        shares = pool.share(user.limits.workers - elsewhere)
        for name, slot in shares.give:
            session = pool.sessions[name]
            worker = session.leaving[slot] = session.held.pop(slot)
            worker.stopping = True
            self._out.append(Stop(slot.pilot, worker.name, self._limits.leave))
        for name, slot in shares.take:
            del pool.free[slot]
            self._start(user, pool.sessions[name], slot, now)

    def _start(self, user: User, session: Session, slot: Slot, now: float) -> None:
        pilot = self._pilots[slot.pilot]
        base = f"{pilot.about.site}-{pilot.about.job_id}-{slot.number}"
        user.incarnations[base] += 1
        incarnation = user.incarnations[base]
        name = base if incarnation == 1 else f"{base}.{incarnation}"
        number = self.numbers.take(now)
        direct = self._forwarding == "direct" or (self._forwarding == "auto" and pilot.direct)
        worker = Worker(name, session.name, pilot, slot, now, number, direct)
        session.held[slot] = pilot.workers[name] = worker
        user.idle.drop(pilot.key)
        self._show(worker)
        address = contact(number, user.incarnations.total())
        self._out.append(Start(pilot.key, name, session.name, direct, address))

    # ---- what there is

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
