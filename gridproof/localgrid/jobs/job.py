"""A job, a line of its trace, and what of them is to be stored."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gridproof.localgrid.jobs import state


@dataclass(frozen=True)
class Job:
    """A job as the queue keeps it; times are seconds since the epoch, 0 for what has not happened."""

    id: int
    owner: str
    jdl: str
    status: str
    name: str
    master: int = 0
    priority: int = 0
    site: str = ""
    ce: str = ""
    node: str = ""
    submitted: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    heartbeat: float = 0.0
    tries: int = 0
    run: int = 0  # how often it has been assigned: tells an agent of a former run from the present one
    not_before: float = 0.0

    @property
    def final(self) -> bool:
        return state.is_final(self.status)


@dataclass(frozen=True)
class TraceLine:
    """One line of a job's trace, as ``ps -trace`` shows it."""

    job: int
    at: float
    tag: str
    text: str

    def __str__(self) -> str:
        stamp = time.strftime("%Y%m%d %H:%M:%S", time.gmtime(self.at))
        return f"{stamp} [{self.tag:<10}]: {self.text}"


@dataclass(frozen=True)
class Changes:
    """Jobs in their new state and trace lines not yet stored."""

    jobs: tuple[Job, ...]
    trace: tuple[TraceLine, ...]
