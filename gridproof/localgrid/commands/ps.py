"""``ps``: which jobs are shown, and what of them. It runs in the event loop's thread."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from errno import EINVAL, ENODATA

from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, is_whole
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.commands.options import Options, read_options
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Job

MOST = 2000
_RUNNING = frozenset({state.RUNNING, state.STARTED, state.SAVING})
_QUEUED = frozenset({state.INSERTING, state.WAITING, state.ASSIGNED, state.EXPIRED})
_FAILED = state.ERRORS | {state.EXPIRED}
_DONE = frozenset({state.DONE, state.DONE_WARN})
_FLAGS = {
    "r": _RUNNING,
    "q": frozenset({state.ASSIGNED}),
    "f": _FAILED,
    "d": _DONE,
    "t": state.FINAL,
    "s": _QUEUED,
}
_BY_LETTERS = {letters: name for name, letters in state.LETTERS.items()}
_ORDERS: dict[str, Callable[[Job], object]] = {
    "queueId": lambda job: job.id,
    "status": lambda job: job.status,
    "priority": lambda job: job.priority,
    "name": lambda job: job.name,
    "split": lambda job: job.master,
    "site": lambda job: job.ce,
    "node": lambda job: job.node,
}


def ps(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Jobs with their states; ``-trace`` and ``-jdl`` show these instead of the line."""
    options = read_options("ps", arguments)
    shown = [what for what in ("trace", "jdl") if what in options.flags or what in options.values]
    for what in shown:
        if what in options.flags and "j" not in options.values:
            raise CommandFailed(EINVAL, f"No job IDs to get the {what if what == 'trace' else 'JDL'} for")
    answer = Answer()
    if "trace" in shown:
        core.save()
    for job in _chosen(core, caller, options):
        row = _row(job)
        if shown:
            contents: dict[str, str] = {what: _contents(core, job, what) for what in shown}
            if contents.get("trace") == "":
                answer.fail(ENODATA, f"No trace information for {job.id}")
            given = {what: content for what, content in contents.items() if content}
            row |= {"message": "\n".join(text.rstrip("\n") for text in given.values()), **given}
        elif "id" in options.flags:
            row["message"] = str(job.id)
        elif options.flags & {"X", "L", "Fl"} or options.values.get("F") == "l":
            row |= _long(job, core.sites[0].ce)
        else:
            line = f"{job.owner:>10} {job.id:>10}  {_priority(job)}  {_letters(job)}  {job.name:>32}"
            row["message"] = line
        answer.rows.append(row)
    return answer


def _chosen(core: Core, caller: Caller, options: Options) -> list[Job]:
    limit = options.number("l", 0)
    jobs = _named(core, options)
    owners = _owners(caller, options)
    tests: list[Callable[[Job], bool]] = []
    if owners:
        tests.append(lambda job: job.owner in owners)
    if states := _states(options):
        tests.append(lambda job: job.status in states)
    if "M" in options.flags:
        tests.append(lambda job: not job.master)
    if sites := options.values.get("s"):
        tests.append(lambda job: any(site in job.ce.casefold() for site in _words(sites.casefold())))
    if nodes := options.values.get("n"):
        tests.append(lambda job: job.node in _words(nodes))
    if span := options.values.get("t"):
        first, last = _span(span)
        tests.append(lambda job: first <= max(job.submitted, job.started, job.finished) <= last)
    order = _ORDERS.get(options.values.get("o", "queueId"), _ORDERS["queueId"])
    found = sorted((job for job in jobs if all(test(job) for test in tests)), key=order)  # type: ignore[arg-type]
    return found[-(min(limit, MOST) if limit > 0 else MOST) :]


def _named(core: Core, options: Options) -> list[Job]:
    """The jobs that the ids among the options mean; all of them without any."""
    masters, ids = read_numbers(options.values.get("m", "")), read_numbers(options.values.get("j", ""))
    for what in ("jdl", "trace"):
        if what in options.values:
            ids = [options.number(what, 0)]
    if "m" in options.values:
        subjobs = [job for master in masters for job in core.queue.subjobs(master)]
        return [job for job in subjobs if not ids or job.id in ids]
    if ids or "j" in options.values:
        return [job for number in dict.fromkeys(ids) if (job := core.queue.get(number))]
    return core.queue.jobs()


def _owners(caller: Caller, options: Options) -> set[str]:
    """Whose jobs; empty: everybody's."""
    if "a" in options.flags or options.values.keys() & {"j", "m", "jdl", "trace"}:
        return set()
    owners = set(_words(options.values.get("u", "")))
    return owners | {caller.user} if options.flags & {"A", "E", "W"} or not owners else owners


def _states(options: Options) -> frozenset[str]:
    """Which states; empty: all of them."""
    if "f" in options.values:
        return read_states(options.values["f"])
    if "A" in options.flags:
        return frozenset()
    chosen = {"X": _RUNNING | _QUEUED, "E": _FAILED, "W": _QUEUED}
    return frozenset().union(*(states for flag, states in chosen.items() if flag in options.flags))


def read_states(value: str) -> frozenset[str]:
    """States in words or letters, ``RUNNING,EE``; or behind a dash the letters of whole groups, ``-rs``."""
    if value.startswith("-"):
        groups = [_FLAGS.get(letter, frozenset()) for letter in value]
        return frozenset() if value in ("-", "-a") or "a" in value else frozenset().union(*groups)
    states: set[str] = set()
    for word in _words(value.upper()):
        if word in ("%", "ANY"):
            return frozenset()
        if word in ("ERROR_ALL", "ERROR_ANY"):
            states |= _FAILED
        elif word == "DONE_ANY":
            states |= _DONE
        else:
            states.add(_BY_LETTERS.get(word, word))
    return frozenset(states & state.LETTERS.keys())


def _span(value: str) -> tuple[float, float]:
    """From and until when, of hours ago: ``12,6`` is from twelve to six hours ago."""
    parts = value.split(",")
    if len(parts) > 2 or not all(is_whole(part) for part in parts):
        raise CommandFailed(EINVAL, f"Invalid argument for time interval {value}")
    hours = sorted([*(int(part) for part in parts), *([0] if len(parts) == 1 else [])], reverse=True)
    now = time.time()
    return now - hours[0] * 3600, now - hours[1] * 3600


def _words(value: str) -> list[str]:
    return [word for word in re.split(r"[,;\s]+", value) if word]


def read_numbers(value: str) -> list[int]:
    """The numbers in a list of them."""
    return [int(word) for word in _words(value) if is_whole(word)]


def _contents(core: Core, job: Job, what: str) -> str:
    return job.jdl if what == "jdl" else "".join(f"{line}\n" for line in core.store.trace(job.id))


def _row(job: Job) -> Row:
    return {
        "owner": job.owner,
        "id": str(job.id),
        "split": str(job.master),
        "priority": str(job.priority),
        "status": job.status,
        "name": job.name,
    }


def _long(job: Job, anywhere: str) -> Row:
    ce = job.ce or (
        "" if job.status == state.KILLED else anywhere
    )  # JAliEn too shows a CE of jobs without one
    place = f"{_priority(job)}  {ce:>38}  {job.node:>40}"
    line = f"{job.owner:>10}    {job.id:>10}  {place}  {_letters(job)}  {job.name:>30}"
    return {"site": ce, "node": job.node, "message": line}


def _priority(job: Job) -> str:
    return f"{job.priority:>3}" if job.status in (state.INSERTING, state.WAITING) else "___"


def _letters(job: Job) -> str:
    return f"{state.LETTERS[job.status]:>3}"
