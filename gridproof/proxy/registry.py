"""Which pilots and workers there are, and what is to be done with them (pure: no I/O, no clock).

The server reports what happens (`register`, `ready`, `heartbeat`, `worker_exited`, …), with the time
``now`` in seconds of any steady clock, and then carries out what `decide` returns.
"""

from __future__ import annotations

from collections import deque

from gridproof.errors import ProxyError
from gridproof.proxy.protocol import EXIT_LEFT, EXIT_REPLACE, Ready, Register, Versions, check_name
from gridproof.proxy.records import PilotRecord, SessionRecord, WorkerRecord
from gridproof.proxy.state import (
    CONNECTED,
    Action,
    Close,
    Drop,
    End,
    Limits,
    Pilot,
    PilotKey,
    Session,
    Slot,
    Start,
    Stop,
    Worker,
    pilot_record,
    session_record,
    worker_record,
)


class Registry:
    """Sessions, pilots and workers.

    ``version`` grows with every change that `records` shows. Methods that are given an unknown pilot
    (one that was told to go meanwhile) do nothing.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.version = 0
        self._limits = limits or Limits()
        self._sessions: dict[str, Session] = {}
        self._pilots: dict[PilotKey, Pilot] = {}
        self._dirty: set[str] = set()
        self._out: list[Action] = []

    # ---- sessions

    def open_session(self, name: str, user: str, versions: Versions, workers: int, now: float) -> None:
        """A session that wants ``workers`` workers; none start before `session_ready`.

        Raises:
            ProxyError: the name is in use or no name.
        """
        check_name("session", name)
        if name in self._sessions:
            raise ProxyError(f"session {name} is open already; choose another name")
        if workers < 1:
            raise ProxyError(f"a session of {workers} workers was asked for; ask for one at least")
        self._sessions[name] = Session(name, user, versions, workers, opened=now, last_used=now)

    def session_ready(self, name: str, scheduler_port: int) -> None:
        """The session's scheduler listens: its workers may start."""
        self._sessions[name].scheduler_port = scheduler_port
        self._dirty.add(name)

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

    def activity(self, name: str, running: int, kept: int) -> None:
        """What a session's master has: queries that run, and others whose results it keeps."""
        if session := self._sessions.get(name):
            session.running, session.kept = running, kept

    def resize_session(self, name: str, workers: int) -> None:
        """Change how many workers the session wants."""
        self._sessions[name].wanted = workers
        self._dirty.add(name)

    def close_session(self, name: str, reason: str) -> None:
        """Forget the session and end its pilots."""
        session = self._sessions.pop(name, None)
        if session is None:
            return
        self._dirty.discard(name)
        for pilot in session.pilots.values():
            if pilot.state in CONNECTED:
                self._out.append(End(pilot.key, reason))
            self._pilots.pop(pilot.key, None)

    def sessions(self, user: str) -> tuple[str, ...]:
        """Names of a user's sessions."""
        return tuple(s.name for s in self._sessions.values() if s.user == user)

    def session_records(self, user: str, now: float) -> list[SessionRecord]:
        """A user's sessions, the oldest first."""
        return [session_record(s, now) for s in self._sessions.values() if s.user == user]

    def check_owner(self, name: str, user: str) -> None:
        """Raises:
        ProxyError: the user has no such session.
        """
        session = self._sessions.get(name)
        if session is None or session.user != user:
            own = ", ".join(self.sessions(user)) or "none"
            raise ProxyError(f"{user} has no session {name[:40]!r}; there are: {own}")

    def owner(self, name: str) -> str | None:
        """The user of a session, None when it is closed."""
        session = self._sessions.get(name)
        return session.user if session else None

    def scheduler_ports(self, key: PilotKey) -> tuple[int, ...]:
        """The ports that a pilot may reach."""
        pilot = self._pilots.get(key)
        session = self._sessions.get(pilot.session) if pilot else None
        return (session.scheduler_port,) if session and session.scheduler_port else ()

    def scheduler_port(self, session: str) -> int:
        """The session's scheduler port, 0 before it is ready."""
        return self._sessions[session].scheduler_port

    # ---- pilots

    def register(self, key: PilotKey, user: str, session: str, about: Register, now: float) -> None:
        """A pilot that was accepted joins, or comes back after its connection was lost.

        Raises:
            ProxyError: its session is closed, or it sent nonsense.
        """
        serves = self._sessions.get(session)
        if serves is None or serves.retired:
            raise ProxyError(f"session {session} is closed")
        for what in ("job_id", "site", "host"):
            check_name(what, getattr(about, what))
        if not 1 <= about.cores <= 1024:
            raise ProxyError(f"a pilot must have 1 to 1024 cores, not {about.cores}")
        returning = self._pilots.get(key)
        if returning is not None:
            self._end_workers(returning, "the pilot's connection was replaced")
        pilot = Pilot(key, user, about, session, now)
        pilot.slots = [Slot(number) for number in range(about.cores)]
        self._pilots[key] = serves.pilots[key] = pilot
        self._touch(pilot)

    def end(self, key: PilotKey, reason: str, now: float) -> None:
        """Tell a pilot to go."""
        pilot = self._pilots.get(key)
        if pilot is not None and pilot.state in CONNECTED:
            self._out.append(End(key, reason))
            self._leave(pilot, "left", reason, now)

    def ready(self, key: PilotKey, ready: Ready, now: float) -> None:
        """The pilot can start workers, if its versions are the session's; else it is refused."""
        pilot = self._pilots.get(key)
        if pilot is None or pilot.state not in CONNECTED:
            return
        pilot.last_seen = now
        pilot.xrootd_port = ready.xrootd_port
        wanted = self._sessions[pilot.session].versions
        if different := ready.versions.difference(wanted):
            reason = (
                f"{' and '.join(different)} differ: the session has {wanted}; "
                f"the pilot at {pilot.about.site} ({pilot.about.host}) has {ready.versions}"
            )
            self._out.append(End(key, reason))
            self._leave(pilot, "refused", reason, now)
        elif pilot.state != "draining":
            pilot.state = "ready"
            self._touch(pilot)

    def heartbeat(self, key: PilotKey, load: float, now: float) -> None:
        """The pilot is alive."""
        pilot = self._pilots.get(key)
        if pilot is None or pilot.state not in CONNECTED:
            return
        pilot.last_seen = now
        pilot.load = load
        if pilot.state == "silent":
            pilot.state, pilot.reason = "ready", ""
            self._touch(pilot)

    def draining(self, key: PilotKey, reason: str) -> None:
        """The pilot leaves soon: nothing further starts there."""
        pilot = self._pilots.get(key)
        if pilot is not None and pilot.state in CONNECTED:
            pilot.state, pilot.reason = "draining", reason
            self._touch(pilot)

    def disconnected(self, key: PilotKey, now: float, reason: str = "its connection was lost") -> None:
        """The pilot's connection is gone, and its workers, which were reached through it, with it."""
        pilot = self._pilots.get(key)
        if pilot is not None and pilot.state in CONNECTED:
            self._leave(pilot, "lost", reason, now)

    def bye(self, key: PilotKey, reason: str, now: float) -> None:
        """The pilot ends itself."""
        pilot = self._pilots.get(key)
        if pilot is not None and pilot.state in CONNECTED:
            self._leave(pilot, "left", reason, now)

    def _leave(self, pilot: Pilot, state: str, reason: str, now: float) -> None:
        pilot.state, pilot.reason, pilot.last_seen = state, reason, now
        self._end_workers(pilot, f"its pilot {state}: {reason}")
        self._touch(pilot)

    def _end_workers(self, pilot: Pilot, reason: str) -> None:
        for slot in pilot.slots:
            if slot.worker:
                self._end_worker(pilot, slot, reason)

    # ---- workers

    def worker_started(self, key: PilotKey, name: str, pid: int, contact: str) -> None:
        """The worker's process runs."""
        pilot = self._pilots.get(key)
        for worker in pilot.workers() if pilot else ():
            if worker.name == name:
                worker.state, worker.pid, worker.contact = "running", pid, contact
                worker.version = self._changed()

    def worker_exited(self, key: PilotKey, name: str, code: int, signal: int, log: str, now: float) -> None:
        """The worker's process ended; unless it was told to, another one takes its place after a while."""
        pilot = self._pilots.get(key)
        slot = next((s for s in pilot.slots if s.worker and s.worker.name == name), None) if pilot else None
        if pilot is None or slot is None or slot.worker is None:
            return
        how = "it left" if code == EXIT_LEFT else f"signal {signal}" if signal else f"exit code {code}"
        lived = now - slot.worker.started
        if slot.worker.stopping:
            how = f"told to end, {how}"
        elif code == EXIT_LEFT:
            slot.not_before = now + self._limits.backoff_max  # nothing fits into the time that is left here
        else:
            young = lived < self._limits.young and code != EXIT_REPLACE
            slot.young_deaths = slot.young_deaths + 1 if young else 0
            slot.given_up = slot.young_deaths >= self._limits.young_deaths
            doublings = slot.young_deaths - 2
            delay = (
                min(self._limits.backoff * 2**doublings, self._limits.backoff_max) if doublings >= 0 else 0
            )
            slot.not_before = now + delay
        given_up = (
            f", {slot.young_deaths} times in a row: given up" if slot.young_deaths and slot.given_up else ""
        )
        tail = f": {log.strip()}" if log.strip() else ""
        self._end_worker(pilot, slot, f"{how} after {lived:.1f} s{given_up}{tail}")
        self._dirty.add(pilot.session)

    def _end_worker(self, pilot: Pilot, slot: Slot, reason: str) -> None:
        worker, slot.worker = slot.worker, None
        if worker is None:
            return
        worker.state, worker.reason, worker.version = "ended", reason, self._changed()
        session = self._sessions.get(pilot.session)
        if session:
            session.ended.append((pilot, worker))
            while len(session.ended) > self._limits.ended_kept:
                session.ended.popleft()
            self._dirty.add(session.name)

    # ---- decisions

    def tick(self, now: float) -> None:
        """Time has passed: pilots may have fallen silent, workers be due again, sessions be idle."""
        limits = self._limits
        for session in self._sessions.values():
            self._look_after(session, now)
        for pilot in list(self._pilots.values()):
            age = now - pilot.last_seen
            if pilot.state in CONNECTED and age > limits.lost_after:
                reason = f"no heartbeat for {age:.0f} s"
                self._out.append(Drop(pilot.key))
                self._leave(pilot, "lost", reason, now)
            elif pilot.state == "ready" and age > limits.silent_after:
                pilot.state, pilot.reason = "silent", f"no heartbeat for {age:.0f} s"
                self._touch(pilot)
            elif pilot.state not in CONNECTED and age > limits.forget_after:
                del self._pilots[pilot.key]
                self._sessions[pilot.session].pilots.pop(pilot.key, None)
            if any(slot.not_before and slot.not_before <= now for slot in pilot.slots):
                self._dirty.add(pilot.session)

    def _look_after(self, session: Session, now: float) -> None:
        """A session that nobody uses gives its workers back, and ends when it keeps no result any more."""
        if session.in_use():
            session.last_used = now
        idle = now - session.last_used
        if idle > self._limits.idle and not session.retired:
            session.retired = True
            session.wanted = 0
            for pilot in session.pilots.values():
                if pilot.state in CONNECTED:
                    reason = f"nobody has used session {session.name} for {idle:.0f} s"
                    self._out.append(End(pilot.key, reason))
                    self._leave(pilot, "left", reason, now)
        if session.retired and not session.users and not session.kept:
            self._out.append(Close(session.name, "nobody uses it and it keeps no results"))

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; each action is returned once."""
        for name in sorted(self._dirty):
            if session := self._sessions.get(name):
                self._assign(session, now)
        self._dirty.clear()
        actions, self._out = self._out, []
        return actions

    def _assign(self, session: Session, now: float) -> None:
        """Start workers on the least used pilots until the session has what it wants, or end the surplus."""
        if not session.scheduler_port:
            return
        live = [(p, w) for p in session.pilots.values() for w in p.workers()]
        staying = [(p, w) for p, w in live if not w.stopping]
        for pilot, worker in staying[session.wanted :]:
            worker.stopping = True
            self._out.append(Stop(pilot.key, worker.name, self._limits.leave))
        usable = [p for p in session.pilots.values() if p.state == "ready"]
        used = {p.key: sum(1 for _ in p.workers()) for p in usable}
        free = {
            p.key: deque(s for s in p.slots if not s.worker and not s.given_up and s.not_before <= now)
            for p in usable
        }
        for _ in range(session.wanted - len(live)):
            candidates = [p for p in usable if free[p.key]]
            if not candidates:
                return
            pilot = min(candidates, key=lambda p: used[p.key] / p.about.cores)
            used[pilot.key] += 1
            self._start(session, pilot, free[pilot.key].popleft(), now)

    def _start(self, session: Session, pilot: Pilot, slot: Slot, now: float) -> None:
        base = f"{pilot.about.site}-{pilot.about.job_id}-{slot.number}"
        session.incarnations[base] += 1
        incarnation = session.incarnations[base]
        name = base if incarnation == 1 else f"{base}.{incarnation}"
        slot.not_before = 0.0
        slot.worker = Worker(name, now, version=self._changed())
        self._out.append(Start(pilot.key, name, session.name))

    # ---- what there is

    def _changed(self) -> int:
        self.version += 1
        return self.version

    def _touch(self, pilot: Pilot) -> None:
        pilot.version = self._changed()
        self._dirty.add(pilot.session)

    def records(self, session: str, since: int = 0) -> tuple[list[PilotRecord], list[WorkerRecord]]:
        """Pilots and workers of a session that changed after ``since`` (a former ``version``)."""
        known = self._sessions.get(session)
        if known is None:
            return [], []
        pilots = [pilot_record(p) for p in known.pilots.values() if p.version > since]
        workers = [(p, w) for p in known.pilots.values() for w in p.workers()]
        return pilots, [worker_record(p, w) for p, w in [*known.ended, *workers] if w.version > since]
