"""The task queue's commands; they run in the event loop's thread, like everything about jobs."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence

from gridproof.alien.jdl import Jdl, parse, validate
from gridproof.errors import JdlError
from gridproof.localgrid import jdlsyntax
from gridproof.localgrid import jobstates as state
from gridproof.localgrid.answers import (
    EINVAL,
    ENODATA,
    EREMOTEIO,
    ESRCH,
    Answer,
    CommandFailed,
    Row,
    read_options,
    text,
)
from gridproof.localgrid.caller import Caller, Verb
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs import Job
from gridproof.localgrid.splitting import input_lfn
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
    _need(arguments, "kill", "<jobId> [<jobId>[,<jobId>]]")
    rows = []
    for number in _all_numbers(arguments):
        job = core.queue.get(number)
        if job is None:
            continue
        if job.owner != caller.user:
            message, status = f"You are not allowed to kill {number}", "not_allowed"
        elif job.final:
            message, status = f"Job {number} is in {job.status} already", "failed_to_kill"
        else:
            core.kill(number)
            message, status = f"Job {number} was killed", "killed"
        rows.append({"jobid": str(number), "message": message, "status": status})
    return Answer(rows)


def resubmit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Run final jobs anew."""
    _need(arguments, "resubmit", "<jobid1> <jobid2>....")
    messages = []
    for number in _all_numbers(arguments):
        job = core.queue.get(number)
        if job is None:
            raise CommandFailed(EREMOTEIO, f"Problem with the resubmit request of job ID {number}")
        if job.owner != caller.user:
            raise CommandFailed(1, f"Job {number} belongs to {job.owner}")
        try:
            core.resubmit(number)
        except IllegalTransition as error:
            raise CommandFailed(EREMOTEIO, f"Problem with the resubmit request of job ID {number}") from error
        messages.append(f"Resubmit: back to WAITING: {number}")
    return text("\n".join(messages))


def masterjob(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The states of a master's subjobs, in words."""
    options = read_options(arguments, valued=("status", "id", "site"), words=("printid", "printsite"))
    _need(options.rest, "masterjob", "<jobIDs> [-options]")
    lines, subjobs, unknown = [], [], ""
    for number in _all_numbers(options.rest):
        job = core.queue.get(number)
        if job is None:
            unknown += f"Could not load the details of {number}\n"
            continue
        lines.append(f"Job {number} is in status: {job.status}")
        subjobs += core.queue.subjobs(number)
    if "status" in options.values:
        wanted = _states(options.values["status"])
        subjobs = [job for job in subjobs if job.status in wanted]
    if "site" in options.values:
        subjobs = [job for job in subjobs if options.values["site"].casefold() in job.ce.casefold()]
    if subjobs:
        lines += ["Subjobs aggregated by state:", *_aggregated(subjobs, options.flags), ""]
        lines.append(f"In total, there are {len(subjobs)} subjobs")
    return Answer([{"message": "\n".join(lines)}] if lines else [], 0, unknown)


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


def submit_text(core: Core, caller: Caller, content: str, arguments: Sequence[str], lfn: str = "") -> Answer:
    """Submit the text of a JDL; ``lfn`` is where it came from, if from the catalogue."""
    said = f"Submitting {lfn}" if lfn else "Submitting the content that you passed to the command"
    rows: list[Row] = [{"message": said}]
    try:
        jdl = _read(content, arguments)
    except JdlError as error:
        raise CommandFailed(EINVAL, f"Passing arguments to your job failed:\n  {error}", rows) from error
    try:
        _resolve(core, caller, jdl, lfn)
        validate(jdl)
        _check(core, jdl)
        job = core.submit(jdl, caller.user)
    except JdlError as error:
        raise CommandFailed(EREMOTEIO, f"Task queue rejected your job due to:\n  {error}", rows) from error
    return Answer([{"message": f"{said}\nYour new job ID is {job.id}", "jobId": str(job.id)}])


def _read(content: str, arguments: Sequence[str]) -> Jdl:
    needed = [int(number) for number in re.findall(r"\$(\d+)", content)]
    for number in needed:
        if number > len(arguments):
            raise JdlError(f"The JDL indicates argument ${number} but you haven't provided it")
    jdlsyntax.check(content)
    return parse(content, arguments)


def _resolve(core: Core, caller: Caller, jdl: Jdl, lfn: str) -> None:
    """Make the Executable an absolute LFN."""
    executable = jdl.text("Executable").strip()
    if not executable:
        return
    places = ["/bin", "/local/bin", f"{caller.home}bin", *([posixpath.dirname(lfn)] if lfn else [])]
    candidates = [posixpath.join(place, executable) for place in places]
    for candidate in [executable] if executable.startswith("/") else candidates:
        entry = core.catalogue.get(candidate)
        if entry and not entry.is_dir:
            jdl["Executable"] = candidate
            if lfn:
                jdl["JDLPath"] = lfn
            return
    raise JdlError(f"The Executable name you indicated ({executable}) cannot be located in any standard PATH")


def _check(core: Core, jdl: Jdl) -> None:
    for entry in jdl.strings("InputFile"):
        if core.catalogue.get(input_lfn(entry)) is None:
            raise JdlError(f"The InputFile {input_lfn(entry)} is not in the catalogue")


def register_output(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """Enter in the catalogue what a failed job has saved."""
    for argument in arguments:
        if not argument.isdigit():
            raise CommandFailed(EINVAL, f"Invalid job ID: {argument}")
    number = int(arguments[-1])
    job = core.queue.get(number)
    if job is None:
        raise CommandFailed(ESRCH, f"Job ID {number} was not found in the task queue")
    if core.queue.subjobs(number):
        raise CommandFailed(
            EINVAL, f"Job ID {number} is a masterjob, you can only register the output of a failed (sub)job"
        )
    if job.status not in (state.ERROR_V, state.ERROR_E):
        raise CommandFailed(
            EINVAL,
            f"Job ID {number} is in state {job.status}. You can only register ERROR_V jobs (or ERROR_E when"
            " OutputErrorE exists).",
        )
    raise CommandFailed(ENODATA, f"No files have been commited to the catalogue for job ID {number}")


def _all_numbers(arguments: Sequence[str]) -> list[int]:
    return list(dict.fromkeys(n for argument in arguments for n in _numbers(argument)))


def _need(arguments: Sequence[str], name: str, usage: str) -> None:
    if not arguments:
        raise CommandFailed(
            EINVAL, "Command requires an argument", [{"message": f"\nusage: {name}   {usage}"}]
        )


JOB_VERBS: dict[str, Verb] = {
    "ps": ps,
    "kill": kill,
    "resubmit": resubmit,
    "masterjob": masterjob,
    "registerOutput": register_output,
}
