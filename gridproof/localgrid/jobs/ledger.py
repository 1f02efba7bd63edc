"""What the jobs of each user take up, and whether that is too much. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from gridproof.alien.jdl import parse
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.requirements import Requirements, read_requirements
from gridproof.localgrid.quotas import Quota

DAY = 86_400.0
_QUEUED = frozenset({state.INSERTING, state.SPLITTING, state.WAITING})


@dataclass(frozen=True)
class JobUsage:
    """What one user's jobs take up: those on nodes and in the queue now, and what ended in the last day."""

    running: int = 0
    waiting: int = 0
    running_time: float = 0.0
    cpu_cost: float = 0.0

    @property
    def unfinished(self) -> int:
        return self.running + self.waiting


def jobs_refused(quota: Quota, usage: JobUsage, jobs: int) -> str:
    """Why a user may not submit so many more jobs, in JAliEn's words; empty: allowed."""
    if jobs + usage.unfinished > quota.max_unfinished_jobs:
        return (
            f"Denied: You're trying to submit {jobs} jobs. That exceeds your limit"
            f" (at the moment,  {usage.unfinished}/{quota.max_unfinished_jobs})."
        )
    if usage.running_time >= quota.max_running_time:
        return "Denied: You have passed your allowed job running time"
    if usage.cpu_cost >= quota.max_cpu_cost:
        return "Denied: You have passed your allowed CPU running time"
    return ""


@dataclass
class _Account:
    running: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    ended: list[tuple[float, float, float]] = field(default_factory=list)  # a heap: when, core-seconds, cost
    running_time: float = 0.0
    cpu_cost: float = 0.0


class Ledger:
    """Keeps the usage of every user while jobs change their states."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._unread: list[Job] = []  # that had ended before this service began

    def remember(self, job: Job) -> None:
        """A job of a former service."""
        self._count(job)
        if job.final and job.started:
            self._unread.append(job)

    def note(self, old: Job | None, new: Job, needs: Callable[[Job], Requirements]) -> None:
        """A job was made (``old`` is None) or has changed; ``needs`` tells what it asks for."""
        self._count(new)
        if new.final and new.started and old is not None and old.status in state.ON_NODE:
            self._enter(new, needs(new))

    def usage(self, user: str, now: float) -> JobUsage:
        """What a user's jobs take up now."""
        for job in self._unread:
            if job.finished > now - DAY:
                self._enter(job, read_requirements(parse(job.jdl)))
        self._unread.clear()
        account = self._accounts.setdefault(user, _Account())
        while account.ended and account.ended[0][0] <= now - DAY:
            _, spent, cost = heapq.heappop(account.ended)
            account.running_time -= spent
            account.cpu_cost -= cost
        if not account.ended:
            account.running_time = account.cpu_cost = 0.0
        return JobUsage(len(account.running), len(account.waiting), account.running_time, account.cpu_cost)

    def _count(self, job: Job) -> None:
        account = self._accounts.setdefault(job.owner, _Account())
        for jobs, states in (account.running, state.ON_NODE), (account.waiting, _QUEUED):
            (jobs.add if job.status in states else jobs.discard)(job.id)

    def _enter(self, job: Job, needs: Requirements) -> None:
        account = self._accounts.setdefault(job.owner, _Account())
        spent = needs.cores * max(0.0, job.finished - job.started)
        heapq.heappush(account.ended, (job.finished, spent, spent * needs.price))
        account.running_time += spent
        account.cpu_cost += spent * needs.price
