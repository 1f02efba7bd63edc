"""Which pilots and workers there are, and what is to be done with them (pure: no I/O, no clock).

The server reports what happens (`register`, `ready`, `heartbeat`, `worker_exited`, …), with the time
``now`` in seconds of any steady clock, and then carries out what `decide` returns. What heartbeats and ticks
cost does not grow with the number of pilots.
"""

from __future__ import annotations

from gridproof.errors import ProxyError
from gridproof.proxy.pool.aging import Aging
from gridproof.proxy.pool.numbers import Numbers, contact
from gridproof.proxy.pool.sessions import Sessions
from gridproof.proxy.pool.shares import Slot
from gridproof.proxy.pool.state import (
    CONNECTED,
    Action,
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
)
from gridproof.proxy.protocol import EXIT_LEFT, EXIT_REPLACE, Ready, Register, check_name


class Registry(Sessions):
    """The users' pilots, and the workers that their sessions have on them.

    A pilot belongs to a user and serves all sessions of this user that run its versions. Methods that are
    given an unknown pilot (one that was told to go meanwhile) do nothing. ``numbers`` are the ports that
    workers may have on the VO-box, ``forwarding`` is how they reach their master, one of
    `gridproof.proxy.config.FORWARDING`.
    """

    def __init__(
        self, limits: Limits | None = None, numbers: range = range(0), forwarding: str = "auto"
    ) -> None:
        super().__init__(limits or Limits())
        self.numbers = Numbers(numbers, self._limits.number_rest)
        self._forwarding = forwarding
        self._pilots: dict[PilotKey, Pilot] = {}
        self._heard: Aging[PilotKey] = Aging()  # pilots that are connected
        self._unheard: Aging[PilotKey] = Aging()  # and silent
        self._gone: Aging[PilotKey] = Aging()

    # ---- pilots

    def register(self, key: PilotKey, user: str, session: str, about: Register, now: float) -> None:
        """A pilot that was accepted joins, or comes back after its connection was lost.

        ``session`` is the one that submitted it.

        Raises:
            ProxyError: it sent nonsense.
        """
        for what in ("job_id", "master_id", "site", "host"):
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
        if pilot is None or pilot.versions is not None:  # a payload is ready once
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

    def scheduler_ports(self, key: PilotKey) -> tuple[int, ...]:
        """The ports that a pilot may reach: those of the sessions that have workers there."""
        pilot = self._pilots.get(key)
        names = {worker.session for worker in pilot.workers.values()} if pilot else ()
        return tuple(session.scheduler_port for name in names if (session := self._sessions.get(name)))

    # ---- workers

    def worker_started(self, key: PilotKey, name: str, pid: int, direct: bool) -> None:
        """The worker's process runs, and goes to its master by that way."""
        pilot = self._pilots.get(key)
        if pilot and (worker := pilot.workers.get(name)):
            worker.state, worker.pid, worker.direct = "running", pid, direct
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
        way = "tunnel" if self._forwarding == "auto" and not pilot.direct else self._forwarding
        worker = Worker(name, session.name, pilot, slot, now, number, direct=way != "tunnel")
        session.held[slot] = pilot.workers[name] = worker
        user.idle.drop(pilot.key)
        self._show(worker)
        user.started += 1
        address = contact(number, user.started)
        self._out.append(Start(pilot.key, name, session.name, way, address))
