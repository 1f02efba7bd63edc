"""The task queue's commands; they run in the event loop's thread, like everything about jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from errno import EBADFD, EDQUOT, EINVAL, EIO, EPERM, EREMOTEIO

from gridproof.localgrid.catalogue.entries import CatalogueError
from gridproof.localgrid.commands.answers import Answer, CommandFailed, is_whole
from gridproof.localgrid.commands.caller import Caller, Verb, may_modify
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.commands.ps import ps, read_numbers, read_states
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.taskqueue import IllegalTransition


def kill(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Kill jobs, masters with their subjobs."""
    rows = []
    for number in _all_numbers(arguments):
        job = core.queue.get(number)
        if job is None:
            continue
        if may_modify(caller, job):
            core.kill(number)
            message, status = f"Killed: {number}", "killed"
        else:
            message, status = f"You are not allowed to kill {number}", "not_allowed"
        rows.append({"jobid": str(number), "message": message, "status": status})
    return Answer(rows)


async def resubmit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Run jobs anew; what fails for one of them leaves the others be."""
    messages, answer = [], Answer()
    for number in _all_numbers(arguments):
        job = core.queue.get(number)
        if job is None:
            answer.fail(EREMOTEIO, f"Problem with the resubmit request of job ID {number}")
        elif not may_modify(caller, job):
            answer.fail(EPERM, f"Resubmit: not authorized for : {number}")
        elif why := core.queue.refusal(caller.user, 1, time.time()):
            answer.fail(EDQUOT, f"Resubmit: job quota problem: {why}")
        else:
            try:
                messages.append(f"Resubmit: back to {await core.resubmit(number)}: {number}")
            except IllegalTransition as error:
                answer.fail(EBADFD, f"Resubmit: {error}")
            except CatalogueError as error:
                answer.fail(EIO, f"Resubmit: could not remove output file: {error} for {number}")
    if messages:
        answer.rows.append({"message": "\n".join(messages)})
    return answer


def masterjob(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The states of masters' subjobs, in words."""
    options = read_options("masterjob", arguments)
    lines, subjobs, unknown = [], [], ""
    words = [word for word in re.split(r"[,;\s]+", " ".join(options.rest)) if word]
    if wrong := [word for word in words if not is_whole(word)]:
        raise CommandFailed(EINVAL, f"Incorrect job ID specification: {wrong[0]}")
    masters = [int(word) for word in words]
    for number in masters:
        job = core.queue.get(number)
        if job is None:
            unknown += f"Could not load the details of {number}\n"
            continue
        lines.append(f"Job {number} is in status: {job.status}")
        subjobs += core.queue.subjobs(number)
    subjobs = _chosen(subjobs, options.values)
    if subjobs:
        of = f" in {len(masters)} masterjobs" if len(masters) > 1 else ""
        lines += ["Subjobs aggregated by state:", *_aggregated(subjobs, options.flags), ""]
        lines.append(f"In total, there are {len(subjobs)} subjobs{of}")
    return Answer([{"message": "\n".join(lines)}] if lines else [], 0, unknown)


def _chosen(jobs: Iterable[Job], values: Mapping[str, str]) -> list[Job]:
    """The jobs with one of the states, of the ids and at one of the sites that the options name."""
    states, ids = read_states(values.get("status", "")), read_numbers(values.get("id", ""))
    sites = [site.casefold() for site in values.get("site", "").split(",") if site]
    return [
        job
        for job in jobs
        if ("status" not in values or job.status in states)
        and ("id" not in values or job.id in ids)
        and (not sites or any(site in job.ce.casefold() for site in sites))
    ]


def _aggregated(subjobs: Iterable[Job], flags: frozenset[str]) -> list[str]:
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in subjobs:
        groups.setdefault((job.status, job.ce if "printsite" in flags else ""), []).append(job)
    lines = []
    for (status, ce), jobs in groups.items():
        where = f" ({ce})" if ce else ""
        ids = f" (ids: {','.join(str(job.id) for job in jobs)})" if "printid" in flags else ""
        lines.append(f"{'':16}Subjobs in {status}{where}: {len(jobs)}{ids}")
    return lines


def _all_numbers(arguments: Sequence[str]) -> list[int]:
    return list(dict.fromkeys(n for argument in arguments for n in read_numbers(argument)))


JOB_VERBS: dict[str, Verb] = {
    "ps": ps,
    "kill": kill,
    "masterjob": masterjob,
}
