"""What the registry keeps, and the actions that it decides on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gridproof.proxy.protocol import Register, Versions
from gridproof.proxy.records import PilotRecord, SessionRecord, WorkerRecord


@dataclass(frozen=True)
class Limits:
    """Times in seconds."""

    silent_after: float = 15.0
    lost_after: float = 60.0
    young: float = 5.0  # a worker that dies earlier died young
    young_deaths: int = 20  # so many in a row, and the slot is given up
    backoff: float = 0.5
    backoff_max: float = 30.0
    leave: float = 60.0  # so long a worker that is given back may take to finish and commit its packet
    forget_after: float = 3600.0
    ended_kept: int = 64
    idle: float = 3600.0  # a session that nobody uses gives its workers back


CONNECTED = frozenset({"joining", "ready", "silent", "draining"})  # states of a pilot

PilotKey = str  # a pilot's ID: two payloads with the same job id (kill + resubmit) have different ones


@dataclass(frozen=True)
class Start:
    """Start a worker of ``session`` on ``pilot``."""

    pilot: PilotKey
    name: str
    session: str


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
    reason: str


Action = Start | Stop | End | Drop | Close


@dataclass
class Worker:
    """One incarnation of a worker."""

    name: str
    started: float
    state: str = "starting"
    pid: int = 0
    contact: str = ""
    stopping: bool = False
    reason: str = ""
    version: int = 0


@dataclass
class Slot:
    """A core of a pilot: at most one worker at a time, and how its predecessors fared."""

    number: int
    worker: Worker | None = None
    young_deaths: int = 0
    not_before: float = 0.0
    given_up: bool = False


@dataclass
class Pilot:
    """A pilot's payload and its slots."""

    key: PilotKey
    user: str
    about: Register
    session: str
    last_seen: float
    state: str = "joining"
    load: float = 0.0
    xrootd_port: int = 0
    reason: str = ""
    version: int = 0
    slots: list[Slot] = field(default_factory=list)

    def workers(self) -> Iterator[Worker]:
        """Those that live."""
        return (slot.worker for slot in self.slots if slot.worker)


@dataclass
class Session:
    """A session, what became of its workers, and who uses it.

    ``users`` processes are connected to it; its master runs ``running`` queries and keeps the results of
    ``kept`` others. ``retired``: its workers were given back, it lasts for what it keeps.
    """

    name: str
    user: str
    versions: Versions
    wanted: int
    opened: float
    last_used: float
    scheduler_port: int = 0
    users: int = 0
    running: int = 0
    kept: int = 0
    retired: bool = False
    pilots: dict[PilotKey, Pilot] = field(default_factory=dict)
    incarnations: Counter[str] = field(default_factory=Counter)
    ended: deque[tuple[Pilot, Worker]] = field(default_factory=deque)

    def in_use(self) -> bool:
        """Somebody is connected, or workers are at a query."""
        return bool(self.users or (self.running and any(p.state in CONNECTED for p in self.pilots.values())))


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
    return SessionRecord(
        name=session.name,
        state="retired" if session.retired else "open" if session.scheduler_port else "opening",
        workers=sum(w.state == "running" for p in session.pilots.values() for w in p.workers()),
        users=session.users,
        running=session.running,
        kept=session.kept,
        age=round(now - session.opened, 1),
    )


def worker_record(pilot: Pilot, worker: Worker) -> WorkerRecord:
    """How the registry shows a worker."""
    return WorkerRecord(
        name=worker.name,
        session=pilot.session,
        site=pilot.about.site,
        host=pilot.about.host,
        pid=worker.pid,
        state=worker.state,
        job_id=pilot.about.job_id,
        pilot=pilot.key,
        contact=worker.contact,
        reason=worker.reason,
    )
