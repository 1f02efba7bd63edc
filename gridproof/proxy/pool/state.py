"""What the registry keeps, and the actions that it decides on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from gridproof.errors import ProxyError
from gridproof.patience import SILENCE
from gridproof.proxy.pool.aging import Aging
from gridproof.proxy.pool.records import PilotRecord, SessionRecord, WorkerRecord
from gridproof.proxy.pool.shares import Claim, Shares, Slot, share
from gridproof.proxy.protocol import Register, Versions


@dataclass(frozen=True)
class UserLimits:
    """What a user may have: workers and sessions at once; times in seconds.

    A session that nobody uses gives its workers back after ``idle``; a pilot without any worker leaves after
    ``pilot_idle``.
    """

    workers: int = 2000
    sessions: int = 16
    idle: float = 3600.0
    pilot_idle: float = 300.0


@dataclass(frozen=True)
class Limits:
    """Times in seconds.

    ``lend_after``: a session lends its workers when it has run no query for so long. Much longer than what a
    change costs (a worker starts, connects and loads the selector in one or two seconds) and than most looks
    at a histogram before the next query; short against the work that lent workers do meanwhile.
    """

    silent_after: float = 15.0
    lost_after: float = SILENCE
    young: float = 5.0  # a worker that dies earlier died young
    young_deaths: int = 20  # so many in a row, and the session gives the slot up
    backoff: float = 0.5
    backoff_max: float = 30.0
    leave: float = 60.0  # so long a worker that is given back may take to finish and commit its packet
    forget_after: float = 3600.0
    ended_kept: int = 64
    number_rest: float = (
        300.0  # of a port, before another worker has it: whoever dialled the former has noticed
    )
    lend_after: float = 30.0
    opening: float = 600.0  # so long a session that waits for workers is at work without a query
    user: UserLimits = UserLimits()
    users: Mapping[str, UserLimits] = field(default_factory=dict)  # those that have others

    def of(self, user: str) -> UserLimits:
        """A user's limits."""
        return self.users.get(user, self.user)


CONNECTED = frozenset({"joining", "ready", "silent", "draining"})  # states of a pilot

PilotKey = str  # a pilot's ID: two payloads with the same job id (kill + resubmit) have different ones


@dataclass(frozen=True)
class Start:
    """Start a worker of ``session`` on ``pilot``; see `StartWorker`."""

    pilot: PilotKey
    name: str
    session: str
    way: str
    contact: str


@dataclass(frozen=True)
class Stop:
    """End a worker; for ``grace`` s it may finish and commit what it has begun."""

    pilot: PilotKey
    name: str
    grace: float


@dataclass(frozen=True)
class End:
    """Tell a pilot to exit."""

    pilot: PilotKey
    reason: str


@dataclass(frozen=True)
class Drop:
    """Close a pilot's connection; it may dial again."""

    pilot: PilotKey


@dataclass(frozen=True)
class Close:
    """End a session."""

    session: str


Action = Start | Stop | End | Drop | Close


@dataclass
class Worker:
    """One incarnation of a worker, on a slot of a pilot; ``number`` is its port on the VO-box, 0 for none."""

    name: str
    session: str
    pilot: Pilot
    slot: Slot
    started: float
    number: int
    direct: bool
    state: str = "starting"
    pid: int = 0
    stopping: bool = False
    reason: str = ""
    version: int = 0


@dataclass
class Pilot:
    """A pilot's payload; ``session`` is the one that submitted it, which it may outlive."""

    key: PilotKey
    user: str
    about: Register
    session: str
    state: str = "joining"
    versions: Versions | None = None
    load: float = 0.0
    xrootd_port: int = 0
    xrootd_key: str = field(default="", repr=False)
    xrootd_keytab: str = ""
    direct: bool = False  # reaches the VO-box without its SSH connection
    reason: str = ""
    version: int = 0
    workers: dict[str, Worker] = field(default_factory=dict)  # those that live

    def slots(self) -> list[Slot]:
        """A slot for each of its cores."""
        return [Slot(self.key, number, self.about.site.upper()) for number in range(self.about.cores)]


@dataclass
class Rest:
    """How a session's workers fared on a slot: ``deaths`` in a row, and when it tries again (inf: never)."""

    deaths: int = 0
    until: float = 0.0


@dataclass
class Session:
    """A session, what became of its workers, and who uses it.

    ``near``: sites of its data (upper case; none: unknown). ``users`` processes are connected to it; its
    master runs ``running`` queries and keeps the results of ``kept`` others. ``retired``: its workers were
    given back, it lasts for what it keeps. ``at_work``: it wants its workers now, and did at ``worked``.
    """

    name: str
    user: str
    versions: Versions
    wanted: int
    near: frozenset[str]
    opened: float
    last_used: float
    worked: float
    at_work: bool = True
    settled: bool = False  # it has had all its workers once, or a query
    scheduler_port: int = 0
    users: int = 0
    running: int = 0
    kept: int = 0
    retired: bool = False
    held: dict[Slot, Worker] = field(default_factory=dict)
    leaving: dict[Slot, Worker] = field(default_factory=dict)
    barred: set[Slot] = field(default_factory=set)  # slots that rest
    rests: dict[Slot, Rest] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)  # also ended ones, by their last change
    ended: deque[str] = field(default_factory=deque)

    def claim(self) -> Claim:
        """What it has and wants, to share slots by."""
        held, leaving = self.held.keys(), self.leaving.keys()
        opening = not self.scheduler_port
        return Claim(self.name, self.wanted, self.at_work, held, leaving, self.barred, self.near, opening)

    def rest_after_death(self, slot: Slot, young: bool, limits: Limits, now: float) -> int:
        """A worker died there unasked; returns how many have died young in a row if the slot is given up."""
        rest = self.rests.setdefault(slot, Rest())
        rest.deaths = rest.deaths + 1 if young else 0
        if rest.deaths >= limits.young_deaths:
            self.rest_for(slot, inf, now)
            return rest.deaths
        if rest.deaths >= 2:
            self.rest_for(slot, min(limits.backoff * 2 ** (rest.deaths - 2), limits.backoff_max), now)
        return 0

    def rest_for(self, slot: Slot, seconds: float, now: float) -> None:
        """No worker is started there for so long."""
        self.rests.setdefault(slot, Rest()).until = now + seconds
        self.barred.add(slot)

    def wake(self, now: float) -> bool:
        """Slots that have rested can be used again; returns whether there are any."""
        rested = {slot for slot in self.barred if self.rests[slot].until <= now}
        self.barred -= rested
        return bool(rested)


@dataclass
class Pool:
    """Sessions and pilots of one user that run the same versions: any of these may serve any of those."""

    sessions: dict[str, Session] = field(default_factory=dict)
    free: dict[Slot, None] = field(default_factory=dict)
    away: set[Slot] = field(default_factory=set)  # with workers, on pilots that take no others
    ending: dict[Slot, Worker] = field(default_factory=dict)  # workers of sessions that are closed

    def living(self) -> int:
        """How many workers there are, with those that end."""
        return len(self.ending) + sum(len(s.held) + len(s.leaving) for s in self.sessions.values())

    def share(self, limit: int) -> Shares:
        """Which session takes which free slots, and who gives back what, for ``limit`` workers at most."""
        claims = [session.claim() for session in self.sessions.values()]
        if self.ending:
            claims.append(Claim("", 0, leaving=self.ending.keys()))
        return share(claims, self.free, limit, self.away)

    def settle(self, pilot: Pilot) -> None:
        """A pilot's state has changed, and with it what its slots are good for."""
        busy = {worker.slot for worker in pilot.workers.values()}
        for slot in pilot.slots():
            self.free.pop(slot, None)
            self.away.discard(slot)
            if pilot.state == "ready" and slot not in busy:
                self.free[slot] = None
            elif pilot.state != "ready" and slot in busy:
                self.away.add(slot)

    def at_hand(self, session: Session) -> int:
        """How many workers the pilots that are here can give to a session that opens, with those that it has.

        What sessions at work have, or will take as soon as they can, does not count; far from the session's
        data two are as good as one.
        """
        others = [s for s in self.sessions.values() if s is not session]
        lenders = [session, *(other for other in others if not other.at_work)]
        lent = [slot for lender in lenders for slot in (*lender.held, *lender.leaving)]
        slots = [s for s in (*self.free, *self.ending, *lent) if s not in self.away]
        far = sum(map(session.claim().far, slots))
        taken = sum(max(0, other.wanted - len(other.held)) for other in others if other.at_work)
        return max(0, len(slots) - far + far // 2 - taken)


@dataclass
class User:
    """Who has sessions or pilots here. ``pilots`` are in the order of their last change."""

    name: str
    limits: UserLimits
    sessions: dict[str, Session] = field(default_factory=dict)
    pilots: dict[PilotKey, Pilot] = field(default_factory=dict)
    pools: dict[Versions, Pool] = field(default_factory=dict)
    idle: Aging[PilotKey] = field(default_factory=Aging)  # pilots without a worker
    connected: int = 0  # pilots
    incarnations: Counter[str] = field(default_factory=Counter)
    started: int = 0  # workers, ever

    def pool(self, versions: Versions) -> Pool:
        """The pool of these versions."""
        return self.pools.setdefault(versions.comparable(), Pool())

    def living(self) -> int:
        """How many workers there are, with those that end."""
        return sum(pool.living() for pool in self.pools.values())

    def check_sessions(self) -> None:
        """Raises:
        ProxyError: one more would be too many.
        """
        if len(self.sessions) >= self.limits.sessions:
            raise ProxyError(
                f"{self.name} may have {self.limits.sessions} sessions at once on this ProxyServer and has "
                f"{', '.join(self.sessions)}; close one: gridproof.attach(name).close()"
            )

    def check_workers(self, workers: int, but: Session | None = None) -> None:
        """Raises:
        ProxyError: so many for one session would be too many, with what the others are at work with.
        """
        limit = self.limits.workers
        others = [s for s in self.sessions.values() if s.at_work and s.wanted and s is not but]
        left = limit - sum(session.wanted for session in others)
        if workers > left:
            busy = ", ".join(f"{session.name} is at work with {session.wanted}" for session in others)
            raise ProxyError(
                f"{self.name} may have {limit} workers at once on this ProxyServer; {workers} are too many"
                + (f": {busy}; close one (gridproof.attach(name).close())" if busy and left < limit else "")
                + (f"; ask for {left} at most" if left > 0 else "")
            )


def pilot_record(pilot: Pilot) -> PilotRecord:
    """How the registry shows a pilot."""
    about = pilot.about
    return PilotRecord(
        id=pilot.key,
        session=pilot.session,
        job_id=about.job_id,
        master_id=about.master_id,
        state=pilot.state,
        site=about.site,
        host=about.host,
        pid=about.pid,
        cores=about.cores,
        load=pilot.load,
        ttl_end=about.ttl_end,
        xrootd_port=pilot.xrootd_port,
        reason=pilot.reason,
    )


def session_record(session: Session, now: float) -> SessionRecord:
    """How the registry shows a session."""
    living = (*session.held.values(), *session.leaving.values())
    return SessionRecord(
        name=session.name,
        state="retired" if session.retired else "open" if session.scheduler_port else "opening",
        workers=sum(worker.state == "running" for worker in living),
        users=session.users,
        running=session.running,
        kept=session.kept,
        age=round(now - session.opened, 1),
    )


def worker_record(worker: Worker) -> WorkerRecord:
    """How the registry shows a worker."""
    about = worker.pilot.about
    return WorkerRecord(
        name=worker.name,
        session=worker.session,
        site=about.site,
        host=about.host,
        pid=worker.pid,
        state=worker.state,
        job_id=about.job_id,
        pilot=worker.pilot.key,
        number=worker.number,
        way="direct" if worker.direct else "tunnel",
        reason=worker.reason,
    )
