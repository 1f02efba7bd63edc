"""The central task queue: what jobs there are, what may become of them, who gets which. Pure.

Nothing here waits, writes or knows the time: it comes as an argument (seconds since the epoch), and what
has changed is handed to whoever stores it by :meth:`TaskQueue.take_changes`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gridproof.alien.jdl import Jdl, parse, production_range
from gridproof.errors import JdlError
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Changes, Job, TraceLine
from gridproof.localgrid.jobs.ledger import JobUsage, Ledger, jobs_refused
from gridproof.localgrid.jobs.plan import Plan, Prepared, make_plan
from gridproof.localgrid.jobs.requirements import Requirements, read_requirements
from gridproof.localgrid.jobs.splitting import Located, is_split
from gridproof.localgrid.jobs.waiting import Waiting
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.quotas import Quotas
from gridproof.localgrid.sites import Site, Slot

FIRST_ID = 1_000_000_001


class IllegalTransition(Exception):
    """A job cannot go from its state to the one asked for: somebody else changed it meanwhile."""


class TaskQueue:
    """All jobs of the Grid; every method leaves them in a legal state."""

    def __init__(
        self, jobs: Iterable[Job] = (), limits: Limits | None = None, quotas: Quotas | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._jobs: dict[int, Job] = {job.id: job for job in jobs}
        self._subjobs: dict[int, dict[int, None]] = {}
        self._unfinished: dict[int, set[int]] = {}  # subjobs, by master
        self._active: dict[int, None] = {}
        self._waiting = Waiting()
        self._deadlines: list[tuple[float, int]] = []  # a heap, of jobs that waited or still do
        self._zombies: dict[int, str] = {}  # what each was before
        self._needs: dict[int, Requirements] = {}  # of jobs that are not final
        self._changed: dict[int, Job] = {}
        self._trace: list[TraceLine] = []
        self._quotas = quotas or Quotas()
        self._ledger = Ledger()
        for job in self._jobs.values():
            self._index(job)
            self._ledger.remember(job)
        self._next = max(self._jobs, default=FIRST_ID - 1) + 1

    # What there is

    def get(self, job_id: int) -> Job | None:
        """The job of this id."""
        return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        return list(self._jobs.values())

    def subjobs(self, master: int) -> list[Job]:
        """The subjobs of a master, oldest first."""
        return [self._jobs[i] for i in self._subjobs.get(master, ())]

    def jdl(self, job_id: int) -> Jdl:
        """The complete JDL of a job."""
        return parse(self._jobs[job_id].jdl)

    def is_master(self, job_id: int) -> bool:
        """Whether a job is, or was to be, split."""
        return job_id in self._subjobs or is_split(self.jdl(job_id))

    def active(self) -> list[Job]:
        """Jobs that hold a slot."""
        return [self._jobs[i] for i in self._active]

    def usage(self, user: str, now: float) -> JobUsage:
        """What a user's jobs take up."""
        return self._ledger.usage(user, now)

    def refusal(self, user: str, jobs: int, now: float, counted: int = 0) -> str:
        """Why a user's quota forbids so many jobs, ``counted`` of which are in the usage already."""
        usage = self.usage(user, now)
        return jobs_refused(self._quotas[user], replace(usage, waiting=usage.waiting - counted), jobs)

    def take_changes(self) -> Changes:
        """What is to be stored now; :meth:`put_back` if that failed."""
        changes = Changes(tuple(self._changed.values()), tuple(self._trace))
        self._changed.clear()
        self._trace.clear()
        return changes

    def put_back(self, changes: Changes) -> None:
        """Take back what could not be stored."""
        self._changed = {job.id: job for job in changes.jobs} | self._changed
        self._trace[:0] = changes.trace

    # What happens

    def submit(self, jdl: Jdl, owner: str, now: float, host: str = "localhost") -> Job:
        """Insert a complete JDL; the job is INSERTING until :meth:`optimise`. Raises JdlError.

        A master whose number of subjobs is known counts as so many jobs.
        """
        if why := self.refusal(owner, _known_subjobs(jdl), now):
            raise JdlError(why)
        made = Prepared.of(jdl)
        _check_storable(made.jdl)
        job = self._insert(made, owner, now)
        self.trace(job.id, now, "trace", f"Job inserted by {host}, request came from {host}")
        self.trace(job.id, now, "state", "Job state transition to INSERTING")
        return job

    def plan(self, job_id: int, files: Sequence[Located]) -> Plan:
        """What shall become of an inserted job with this input data; changes nothing. Raises JdlError."""
        return make_plan(self.jdl(job_id), files, self._limits.subjobs, job_id)

    def optimise(self, job_id: int, plan: Plan, now: float) -> None:
        """INSERTING to WAITING, or SPLITTING and SPLIT with its subjobs WAITING, or an error state.

        A job that is no longer there to be optimised, killed meanwhile perhaps, is left alone.
        """
        job = self._jobs[job_id]
        if job.status not in (state.INSERTING, state.SPLITTING):
            return
        if plan.itself is None:
            if why := self.refusal(job.owner, len(plan.subjobs), now, counted=1):
                self.reject(job_id, why, now)
            else:
                self._split(job, plan.subjobs, now)
            return
        if plan.itself.jdl != job.jdl:
            self._needs[job_id] = plan.itself.needs
            self._put(replace(job, jdl=plan.itself.jdl))
        self.move(job_id, state.WAITING, now)

    def reject(self, job_id: int, why: str, now: float) -> None:
        """A job that cannot be optimised ends in ERROR_I, a master in ERROR_SPLT."""
        status = self._jobs[job_id].status
        if status not in (state.INSERTING, state.SPLITTING):
            return
        self.trace(job_id, now, "error", why)
        if not is_split(self.jdl(job_id)):
            self.move(job_id, state.ERROR_I, now)
            return
        if status == state.INSERTING:
            self.move(job_id, state.SPLITTING, now)
        self.move(job_id, state.ERROR_SPLT, now)

    def match(self, slot: Slot, now: float) -> Job | None:
        """What a free slot shall run: highest priority, then highest price, then oldest."""
        found = self._waiting.first(slot, now)
        return None if found is None else self._jobs[found]

    def assign(self, job_id: int, site: Site, node: str, now: float) -> Job:
        """WAITING to ASSIGNED at a slot of ``site``."""
        self._check(job_id, state.ASSIGNED)
        old = self._jobs[job_id]
        job = replace(
            old, status=state.ASSIGNED, site=site.name, ce=site.ce, node=node, heartbeat=now, run=old.run + 1
        )
        self._put(job)
        self.trace(job_id, now, "state", f"Job ASSIGNED to: {site.ce}")
        return job

    def move(self, job_id: int, new: str, now: float, why: str = "") -> Job:
        """One step; raises IllegalTransition. A split master is DONE while all of its subjobs are final."""
        old = self._check(job_id, new)
        job = replace(self._jobs[job_id], status=new, heartbeat=now)
        if new == state.STARTED:
            job = replace(job, started=now)
        if job.final:
            job = replace(job, finished=now)
        self._put(job)
        because = f", {why}" if why else ""
        self.trace(job_id, now, "state", f"Job state transition from {old} to {new}{because}")
        if new in state.RETRIED and job.tries < self._limits.retries:
            tries, not_before = job.tries + 1, now + self._limits.retry_delay
            return self._again(replace(job, tries=tries, not_before=not_before), now)
        if job.master:
            self._settle(job.master, now)
        return job

    def heartbeat(self, job_id: int, now: float) -> None:
        """The agent of this job is alive; a ZOMBIE goes on where it was."""
        job = self._jobs[job_id]
        if job.status == state.ZOMBIE:
            was = self._zombies.pop(job_id, state.RUNNING)
            self.trace(job_id, now, "state", f"Job state transition from ZOMBIE to {was}")
            job = replace(job, status=was)
        if job.status in state.ON_NODE:
            self._put(replace(job, heartbeat=now))

    def tick(self, now: float) -> None:
        """What time alone brings about: ZOMBIE and EXPIRED, MaxWaitingTime."""
        for job in self.active():
            zombie = job.status == state.ZOMBIE
            limit = self._limits.expired_after if zombie else self._limits.zombie_after
            if now - job.heartbeat <= limit:
                continue
            if zombie:
                self.move(job.id, state.EXPIRED, now)
            else:
                self._zombies[job.id] = job.status
                self.move(job.id, state.ZOMBIE, now)
        while self._deadlines and self._deadlines[0][0] < now:
            _, job_id = heapq.heappop(self._deadlines)
            if self._jobs[job_id].status == state.WAITING:
                self.move(job_id, state.ERROR_EW, now, "stayed in the queue longer than MaxWaitingTime")

    def kill(self, job_id: int, now: float) -> None:
        """A job becomes KILLED, whatever it was, a master with its subjobs."""
        for job in [self._jobs[job_id], *self.subjobs(job_id)]:
            if job.status != state.KILLED:
                self.move(job.id, state.KILLED, now)

    def check_resubmit(self, job_id: int) -> None:
        """Raises IllegalTransition for a master that is split."""
        job = self._jobs[job_id]
        if self.is_master(job_id) and job.status not in state.ERRORS:
            raise IllegalTransition(
                f"masterjob is not in an error state itself, will not split it again: {job_id} / {job.status}"
            )

    def resubmit(self, job_id: int, now: float) -> Job:
        """A job waits again, whatever it was: one that has a slot loses it.

        One that could not be inserted or split is INSERTING again, for :meth:`optimise`. Raises
        IllegalTransition as :meth:`check_resubmit`.
        """
        self.check_resubmit(job_id)
        job = self._jobs[job_id]
        anew = replace(job, tries=0, not_before=0.0)
        if job.status in (state.ERROR_I, state.ERROR_SPLT, state.INSERTING):
            return self._again(anew, now, state.INSERTING)
        return self._again(anew, now)

    def recover(self, now: float) -> None:
        """After a restart of the service: no slot holds anything, payloads are gone."""
        for job in self.active():
            self.trace(job.id, now, "trace", "The service was started anew, the job's agent is gone")
            if job.status in (state.ASSIGNED, state.STARTED):
                self._again(job, now)
            else:
                self.move(job.id, state.ERROR_E, now)

    def trace(self, job_id: int, now: float, tag: str, text: str) -> None:
        """Add to a job's trace, one line for each of ``text``, storable and printable."""
        self._trace.extend(TraceLine(job_id, now, tag, _printable(line)) for line in text.splitlines())

    def next_due(self) -> float | None:
        """When the next job that waits for its retry may be matched."""
        return self._waiting.next_due()

    # Inside

    def _again(self, job: Job, now: float, status: str = state.WAITING) -> Job:
        anew = replace(job, status=status, site="", ce="", node="", started=0.0, finished=0.0)
        self._put(anew)
        self.trace(job.id, now, "state", f"Job resubmitted (back to {status})")
        master = self._jobs.get(job.master)
        if master and master.status != state.SPLIT:
            self._put(replace(master, status=state.SPLIT, finished=0.0))
            self.trace(master.id, now, "state", f"Job state transition from {master.status} to SPLIT")
        return anew

    def _split(self, master: Job, subjobs: Sequence[Prepared], now: float) -> None:
        if master.status == state.INSERTING:
            self.move(master.id, state.SPLITTING, now)
        for sub in subjobs:
            job = self._insert(sub, master.owner, now, master.id, state.WAITING)
            self.trace(job.id, now, "state", "Job state transition to INSERTING")
            self.trace(job.id, now, "state", "Job state transition from INSERTING to WAITING")
        self.trace(master.id, now, "trace", f"Split into {len(subjobs)} subjobs")
        self.move(master.id, state.SPLIT, now)

    def _settle(self, master: int, now: float) -> None:
        if self._jobs[master].status == state.SPLIT and not self._unfinished.get(master):
            self.move(master, state.DONE, now)

    def _insert(
        self, made: Prepared, owner: str, now: float, master: int = 0, status: str = state.INSERTING
    ) -> Job:
        self._needs[self._next] = made.needs
        job = Job(
            id=self._next,
            owner=owner,
            jdl=made.jdl,
            status=status,
            name=made.name,
            master=master,
            priority=made.needs.priority,
            submitted=now,
        )
        self._next += 1
        self._put(job)
        return job

    def _put(self, job: Job) -> None:
        self._ledger.note(self._jobs.get(job.id), job, self._needs_of)
        self._jobs[job.id] = job
        self._changed[job.id] = job
        self._index(job)

    def _index(self, job: Job) -> None:
        if job.status == state.WAITING:
            needs = self._needs_of(job)
            self._waiting.add(job.id, needs, job.not_before)
            if needs.max_waiting:
                heapq.heappush(self._deadlines, (job.submitted + needs.max_waiting, job.id))
        else:
            self._waiting.discard(job.id)
        if job.status in state.ON_NODE:
            self._active[job.id] = None
        else:
            self._active.pop(job.id, None)
        if job.final:
            self._needs.pop(job.id, None)
            self._zombies.pop(job.id, None)
        if job.master:
            self._subjobs.setdefault(job.master, {})[job.id] = None
            unfinished = self._unfinished.setdefault(job.master, set())
            (unfinished.discard if job.final else unfinished.add)(job.id)

    def _needs_of(self, job: Job) -> Requirements:
        if job.id not in self._needs:
            self._needs[job.id] = read_requirements(parse(job.jdl))
        return self._needs[job.id]

    def _check(self, job_id: int, new: str) -> str:
        old = self._jobs[job_id].status
        if not state.may_follow(old, new):
            raise IllegalTransition(f"job {job_id} cannot go from {old} to {new}")
        return old


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def _check_storable(text: str) -> None:
    """Raises JdlError for what a restart could not read again."""
    parse(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise JdlError(f"The JDL has a character that is none: {error.object[error.start]!r}") from error


def _known_subjobs(jdl: Jdl) -> int:
    try:
        return len(production_range(jdl) or (jdl,))
    except JdlError:  # said when it is split
        return 1
