"""The task queue's commands; they run in the event loop's thread, like everything about jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gridproof.localgrid import jobstates as state
from gridproof.localgrid.answers import (
    EBADFD,
    ENODATA,
    EPERM,
    EREMOTEIO,
    Answer,
    CommandFailed,
    Row,
    read_options,
)
from gridproof.localgrid.caller import Caller, Verb, may_modify
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs import Job
from gridproof.localgrid.taskqueue import IllegalTransition

_FILTERS = {
    "r": {state.RUNNING, state.SAVING, state.ASSIGNED, state.STARTED},
    "f": {s for s in state.FINAL if s.startswith("ERROR")} | {state.EXPIRED, state.ZOMBIE},
    "d": {state.DONE, "DONE_WARN"},
    "q": {state.INSERTING, state.SPLITTING, state.WAITING, state.ASSIGNED},
    "s": {state.SPLIT},
    "k": {state.KILLED},
    "w": {state.WAITING},
    "a": set(state.LETTERS),
}


def ps(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Jobs with their states; ``-trace`` and ``-jdl`` show one job's."""
    options = read_options(
        arguments,
        valued=("f", "u", "s", "m", "j", "l", "o", "n", "jdl", "trace"),
        words=("Fl", "all"),
    )
    for what in ("jdl", "trace"):
        if what in options.values:
            return _show(core, what, options.values[what])
    jobs = _filtered(core, caller, options.values, options.flags)
    detailed = bool(options.flags & {"X", "L", "Fl"})
    anywhere = core.sites[0].ce  # what JAliEn too shows of a job that has not been anywhere
    places = [job.ce or ("" if job.status == state.KILLED else anywhere) for job in jobs]
    return Answer([_row(job, place if detailed else None) for job, place in zip(jobs, places, strict=True)])


def _filtered(core: Core, caller: Caller, values: dict[str, str], flags: frozenset[str]) -> list[Job]:
    if "m" in values:
        jobs = [sub for master in _numbers(values["m"]) for sub in core.queue.subjobs(master)]
    elif "j" in values:
        jobs = [job for number in _numbers(values["j"]) if (job := core.queue.get(number))]
    else:
        jobs = core.queue.jobs()
    if "j" in values and "m" in values:
        wanted = set(_numbers(values["j"]))
        jobs = [job for job in jobs if job.id in wanted]
    if not {"m", "j"} & set(values) and "a" not in flags:
        owners = set(values.get("u", caller.user).split(","))
        jobs = [job for job in jobs if job.owner in owners]
    if "f" in values:
        states = _states(values["f"])
        jobs = [job for job in jobs if job.status in states]
    elif "X" in flags:
        jobs = [job for job in jobs if not job.final]
    if "M" in flags:
        jobs = [job for job in jobs if not job.master]
    if "s" in values:
        site = values["s"].casefold()
        jobs = [job for job in jobs if site in job.ce.casefold()]
    jobs = sorted({job.id: job for job in jobs}.values(), key=lambda job: job.id)
    return jobs[-int(values["l"]) :] if values.get("l", "").isdigit() and int(values["l"]) else jobs


def _numbers(value: str) -> list[int]:
    return [int(part) for part in re.split(r"[,;\s]+", value) if part.isdigit()]


def _states(value: str) -> set[str]:
    states: set[str] = set()
    for part in value.replace(" ", ",").split(","):
        name = part.lstrip("-")
        if name.upper() == "ERROR_ALL":
            states |= {s for s in state.FINAL if s.startswith("ERROR")}
        elif name.upper() in state.LETTERS:
            states.add(name.upper())
        else:
            states |= set().union(*(_FILTERS.get(letter, set()) for letter in name))
    return states


def _row(job: Job, ce: str | None = None) -> Row:
    row: Row = {
        "owner": job.owner,
        "id": str(job.id),
        "split": str(job.master),
        "priority": str(job.priority),
        "status": job.status,
        "name": job.name,
    }
    priority = str(job.priority) if job.status in (state.INSERTING, state.WAITING) else "___"
    letters = state.LETTERS[job.status]
    if ce is not None:
        row |= {"site": ce, "node": job.node}
        message = f"{job.owner:>10} {job.id:>13} {priority:>4} {ce:>39} {job.node:>41}"
        return {**row, "message": f"{message} {letters:>4} {job.name:>31}"}
    return {**row, "message": f"{job.owner:>10} {job.id:>10} {priority:>4} {letters:>4} {job.name:>33}"}


def _show(core: Core, what: str, ids: str) -> Answer:
    jobs = [job for number in _numbers(ids) if (job := core.queue.get(number))]
    rows = []
    for job in jobs:
        if what == "trace":
            core.save()
            content = "".join(f"{line}\n" for line in core.store.trace(job.id))
            if not content:
                raise CommandFailed(ENODATA, f"No trace for job {job.id}")
        else:
            content = job.jdl
        rows.append({**_row(job), "message": content.rstrip("\n"), what: content})
    return Answer(rows)


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


def resubmit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Run jobs anew; what fails for one of them leaves the others be."""
    messages, answer = [], Answer()
    for number in _all_numbers(arguments):
        job = core.queue.get(number)
        if job is None:
            answer.fail(EREMOTEIO, f"Problem with the resubmit request of job ID {number}")
        elif not may_modify(caller, job):
            answer.fail(EPERM, f"Resubmit: not authorized for : {number}")
        else:
            try:
                messages.append(f"Resubmit: back to {core.resubmit(number)}: {number}")
            except IllegalTransition as error:
                answer.fail(EBADFD, f"Resubmit: {error}")
    if messages:
        answer.rows.append({"message": "\n".join(messages)})
    return answer


def masterjob(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The states of masters' subjobs, in words."""
    options = read_options(arguments, valued=("status", "id", "site"), words=("printid", "printsite"))
    lines, subjobs, unknown = [], [], ""
    masters = _all_numbers(options.rest)
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
    states, ids = _states(values.get("status", "")), _numbers(values.get("id", ""))
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
    return list(dict.fromkeys(n for argument in arguments for n in _numbers(argument)))


JOB_VERBS: dict[str, Verb] = {
    "ps": ps,
    "kill": kill,
    "resubmit": resubmit,
    "masterjob": masterjob,
}
