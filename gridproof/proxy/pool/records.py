"""What the registry tells about sessions, pilots and workers; shared by server and client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PilotRecord:
    """A pilot as the ProxyServer sees it.

    ``state``: joining (connected, still importing), ready, silent (no heartbeats), draining (leaves
    before its time is over), lost (connection gone), left (said goodbye or was told to go), refused
    (its versions differ from the session's: ``reason`` names both). ``session`` has submitted it; it
    serves others of the same user, too, and may outlive it. ``ttl_end`` is in epoch seconds.
    """

    id: str
    session: str
    job_id: str
    master_id: str
    state: str
    site: str
    host: str
    pid: int
    cores: int
    load: float
    ttl_end: float
    xrootd_port: int
    reason: str


@dataclass(frozen=True)
class WorkerRecord:
    """One incarnation of a worker.

    ``state``: starting, running, ended. ``number``: the port for it on the VO-box, where nothing listens
    before it is asked for; 0 if none was free. ``way``: direct, or by tunnel through the pilot's connection.
    """

    name: str
    session: str
    site: str
    host: str
    pid: int
    state: str
    job_id: str
    pilot: str
    number: int
    way: str
    reason: str


@dataclass(frozen=True)
class SessionRecord:
    """A session of one user.

    ``state``: opening, open, or retired (it was idle for long and gave its workers back, but keeps results).
    ``workers`` run; ``users`` processes are connected; ``running`` queries are in flight, the results of
    ``kept`` others can be had; ``age`` is in seconds.
    """

    name: str
    state: str
    workers: int
    users: int
    running: int
    kept: int
    age: float


@dataclass(frozen=True)
class Status:
    """A session's workers (by name), and of its user's pilots (by id) those that may serve it or were
    submitted for it."""

    pilots: Mapping[str, PilotRecord] = field(default_factory=dict)
    workers: Mapping[str, WorkerRecord] = field(default_factory=dict)
