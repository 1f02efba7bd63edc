"""The task queue: submit once, follow by few calls, kill."""

from __future__ import annotations

import posixpath
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gridproof.alien import jdl as jdl_module
from gridproof.alien.catalogue import chunks, number, site_of
from gridproof.alien.jdl import Jdl
from gridproof.alien.phases import Phase, phase_of
from gridproof.alien.wire import Wire
from gridproof.errors import AlienError, AnswerLost, CommandError, WireError

_ENOENT, _EPERM, _EIO, _ENODATA = 2, 1, 5, 61
_SETTLE_DELAYS = (0.0, 1.0, 4.0, 15.0)  # s; the service may still be inserting what we ask for
_SETTLE_JOBS = 50


@dataclass(frozen=True)
class Job:
    """A job as the queue shows it; ``master`` is 0 for one that is no subjob.

    ``ce`` means nothing while it waits: a real AliEn then shows any computing element.
    """

    id: int
    master: int
    status: str
    ce: str = ""
    node: str = ""
    name: str = ""

    @property
    def phase(self) -> Phase:
        """What its state means."""
        return phase_of(self.status)

    @property
    def site(self) -> str:
        """Where it holds or held a slot, in upper case; "" before that, whatever ``ce`` says."""
        nowhere = self.phase is Phase.WAITING or not (self.node or self.phase is Phase.RUNNING)
        return "" if nowhere or not self.ce else site_of(self.ce)

    @property
    def is_final(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.phase.final


@dataclass(frozen=True)
class ComputingElement:
    """A computing element and its limits: jobs, and seconds for one."""

    name: str
    status: str
    max_running: int
    max_queued: int
    ttl: int
    site: str


class Jobs:
    """Commands on jobs."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._newest = 0  # the newest job of this client

    def submit(self, jdl: Jdl, tag: str) -> int:
        """Submit a job and return its id; ``tag`` and a number of its own become its ``JobTag``.

        Sent exactly once: should the answer get lost, the queue is searched for that tag. That costs one
        ``ps``, and one more for the JDL of each newer job of that name (as a rule one); if it is not there
        the same again, some seconds later.

        Raises JdlError if the JDL is not right, CommandError if the service rejects it, WireError if it was
        not accepted, and AnswerLost if that could not be found out.
        """
        job_tag = f"comment:{tag} {secrets.token_hex(8)}"
        tagged = jdl.copy()
        tagged["JobTag"] = (job_tag,)
        jdl_module.validate(tagged)
        newest = self._newest
        try:
            answer = self._wire.command("submit", jdl_module.render(tagged))
            id = max((number(row.get("jobId")) for row in answer.results), default=0)
            if not id:
                raise AnswerLost(f"submit: the answer names no job: {answer.message or 'it is empty'}")
        except AnswerLost as lost:
            id = self._settle(job_tag, posixpath.basename(tagged.text("Executable")), newest, lost)
        self._newest = max(self._newest, id)
        return id

    def ps(self, ids: Sequence[int]) -> list[Job]:
        """The jobs with these ids, in one call; ids that the queue does not know are left out."""
        return self._ps("-j", ids)

    def subjobs(self, masters: Sequence[int]) -> list[Job]:
        """All subjobs of these jobs, in one call; AliEn tells of masters or of subjobs, never of both."""
        return self._ps("-m", masters)

    def trace(self, id: int) -> list[str]:
        """The lines of a job's trace, oldest first; none yet: []. Raises CommandError for an unknown job."""
        try:
            answer = self._wire.command("ps", "-nomsg", "-trace", str(id))
        except CommandError as error:
            if error.exitcode == _ENODATA:
                return []
            raise
        if not answer.results:
            raise CommandError(f"there is no job {id}", command=f"ps -trace {id}", exitcode=_ENOENT)
        return [line for row in answer.results for line in row.get("trace", "").splitlines() if line.strip()]

    def jdl(self, id: int) -> Jdl:
        """The complete JDL of a job. Raises CommandError for an unknown job."""
        text = self._jdl_text(id)
        if not text:
            raise CommandError(f"there is no job {id}", command=f"ps -jdl {id}", exitcode=_ENOENT)
        return jdl_module.parse(text)

    def masterjob(self, id: int) -> str:
        """What the service says in words about a master and its subjobs. Raises CommandError."""
        answer = self._wire.command("masterjob", str(id))
        if answer.metadata.get("error", "").strip() or not answer.results:
            raise CommandError(f"there is no job {id}", command=f"masterjob {id}", exitcode=_ENOENT)
        return answer.message

    def kill(self, ids: Sequence[int]) -> None:
        """Kill jobs, masters with all their subjobs; those that have ended already are fine.

        Raises CommandError naming the jobs that are unknown, another user's, or live on.
        """
        outcome: dict[str, str] = {}
        for some in chunks([str(id) for id in ids]):
            for row in self._wire.command("kill", "-nomsg", *some).results:
                outcome[row.get("jobid", "")] = row.get("status", "")
        failed = [id for id in ids if outcome.get(str(id)) == "failed_to_kill"]
        alive = {job.id for job in self.ps(failed) if not job.is_final}
        unknown = [id for id in ids if str(id) not in outcome]
        known = {job.id for job in self.ps(unknown)}
        problems = [f"{id}: not allowed" for id in ids if outcome.get(str(id)) == "not_allowed"]
        problems += [f"{id}: could not be killed" for id in failed if id in alive]
        problems += [f"{id}: no such job" for id in unknown if id not in known]
        if problems:
            code = _EPERM if "not allowed" in problems[0] else _ENOENT if unknown else _EIO
            raise CommandError(f"kill: {'; '.join(problems)}", command="kill", exitcode=code)

    def list_ces(self) -> list[ComputingElement]:
        """All computing elements."""
        return [
            ComputingElement(
                name=row["ceName"],
                status=row.get("status", ""),
                max_running=number(row.get("maxRunning")),
                max_queued=number(row.get("maxQueued")),
                ttl=number(row.get("TTL")),
                site=site_of(row["ceName"]),
            )
            for row in self._wire.command("listCEs", "-nomsg").results
            if row.get("ceName")
        ]

    def _ps(self, how: str, ids: Iterable[int]) -> list[Job]:
        jobs: list[Job] = []
        for some in chunks([str(id) for id in ids]):
            jobs += self._rows("-Fl", how, ",".join(some))
        return jobs

    def _rows(self, *options: str) -> list[Job]:
        return [
            Job(
                id=int(row["id"]),
                master=number(row.get("split")),
                status=row.get("status", ""),
                ce=row.get("site", ""),
                node=row.get("node", ""),
                name=row.get("name", ""),
            )
            for row in self._wire.command("ps", "-nomsg", *options).results
            if row.get("id", "").isdigit()
        ]

    def _settle(self, job_tag: str, name: str, newest: int, lost: AnswerLost) -> int:
        """The id of a job whose submission was not answered; it is newer than job ``newest``."""
        others: set[int] = set()
        problem: AlienError | None = None
        for delay in _SETTLE_DELAYS:
            time.sleep(delay)
            try:
                id = self._search(job_tag, name, newest, others)
                problem = None
            except AlienError as error:
                problem = error
            else:
                if id:
                    return id
        if problem is None and not lost.hopeless:
            raise WireError(
                f"{lost}; no such job has come to the queue within {sum(_SETTLE_DELAYS):g} s, "
                "so it was not accepted: submit it again"
            )
        raise AnswerLost(
            f"{lost}; whether the job was accepted is not known{f' ({problem})' if problem else ''}: "
            f"before you submit it again, see whether the queue has a job with JobTag {job_tag!r}"
        )

    def _search(self, job_tag: str, name: str, newest: int, others: set[int]) -> int:
        """The id of the job with this tag, 0 if there is none; ``others`` are known to have another."""
        unread: list[int] = []
        for job in reversed(self._rows("-M", "-l", str(_SETTLE_JOBS))):
            if job.master or job.id <= newest or job.id in others or job.name not in (name, ""):
                continue
            text = self._jdl_text(job.id)
            if job_tag in text:
                return job.id
            if text:
                others.add(job.id)
            else:
                unread.append(job.id)
        if unread:
            raise WireError(f"job {unread[0]} has no JDL yet that could be read")
        return 0

    def _jdl_text(self, id: int) -> str:
        rows = self._wire.command("ps", "-nomsg", "-jdl", str(id)).results
        return rows[0].get("jdl", "") if rows else ""
