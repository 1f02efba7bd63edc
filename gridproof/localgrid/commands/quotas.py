"""Commands about quotas: what a user may have, has, and has used; administrators change it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from errno import EINVAL, ENODATA, EREMOTEIO

from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, text
from gridproof.localgrid.commands.caller import Caller, Verb
from gridproof.localgrid.commands.usage import help_text
from gridproof.localgrid.core import Core
from gridproof.localgrid.formats import human_size, java_float, short_number, single
from gridproof.localgrid.quotas import FILE_FIELDS, JOB_FIELDS

# What JAliEn's broker orders the users' jobs by; this one looks at the jobs only.
_PRIORITY, _NOMINAL_PARALLEL, _MOST_PARALLEL = 1.0, 100, 10_000


def jquota(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The quota of jobs of the caller or another user; ``set USER FIELD VALUE`` changes it."""
    command, *rest = arguments
    if command == "set" and caller.account.is_admin:
        if len(rest) != 3 or rest[1] not in JOB_FIELDS:
            raise CommandFailed(EINVAL, "Error in parameter name")
        if not rest[2].isdecimal() or not int(rest[2]):
            raise CommandFailed(EINVAL, "Error in value", [{"message": help_text("jquota")}])
        _set(core, *rest)
        return text(f"Result: ok, {rest[1]}={rest[2]} for user={rest[0]}")
    if command != "list":
        help_row = {"message": help_text("jquota")}
        raise CommandFailed(EINVAL, f"Wrong command passed: {command}", [help_row])
    user = rest[0] if rest else caller.user
    if user not in _accounts(core) and user != caller.user:
        raise CommandFailed(EINVAL, f"No such account name: {user}")
    return Answer([_jobs_row(core, user)])


def fquota(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The quota of files of the caller or other users; ``set USER FIELD VALUE`` changes it."""
    command, *rest = arguments
    if command == "set":
        return _set_files(core, caller, rest)
    if command != "list":
        raise CommandFailed(EINVAL, command, [{"message": help_text("fquota")}])
    answer = Answer()
    for user in rest or [caller.user]:
        if user in _accounts(core) or user == caller.user:
            answer.rows.append(_files_row(core, user))
        else:
            answer.fail(ENODATA, f"File quota information not available for {user}")
    return answer


def _set_files(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    user, field, value = (*arguments, "", "", "")[:3]
    if field not in FILE_FIELDS:
        raise CommandFailed(EINVAL, f"Not a field you can set: {field}")
    if not value.isdecimal():
        raise CommandFailed(EINVAL, f"Illegal value for {field} : {value}")
    if not int(value):
        raise CommandFailed(EINVAL, "Value cannot be null", [{"message": help_text("fquota")}])
    said = f"{field}={value} for user=[{user}]"
    if not caller.account.is_admin:
        raise CommandFailed(EREMOTEIO, f"Failed to set {said}")
    _set(core, user, field, value)
    return text(f"Result: ok, {said}")


def _accounts(core: Core) -> Collection[str]:
    return {user.name for user in core.users}


def _set(core: Core, user: str, field: str, value: str) -> None:
    if user != "%" and user not in _accounts(core):
        raise CommandFailed(EINVAL, f"No such account name: {user}")
    for name in _accounts(core) if user == "%" else [user]:
        core.set_quota(name, field, min(int(value), 1 << 62))


def _jobs_row(core: Core, user: str) -> Row:
    quota, usage = core.users.quotas[user], core.queue.usage(user, time.time())
    number = [account.name for account in core.users].index(user) + 1 if user in _accounts(core) else 0
    load = usage.running / _MOST_PARALLEL
    computed = max(1.0, 50 * (2 - load) * _PRIORITY) if usage.running < _MOST_PARALLEL else 1.0
    most_cost, cost = single(quota.max_cpu_cost), single(usage.cpu_cost)
    spent, most = int(usage.running_time), quota.max_running_time
    lines = [
        f"Quota of {user} (userid: {number})",
        f"computed priority\t: {java_float(computed)}\t\t(effective priority between users)",
        f"priority\t\t: {_PRIORITY}\t\t(base priority of the account)",
        f"maxparallelJobs\t\t: {_MOST_PARALLEL}\t\t\t(where to stop applying the priority)",
        f"running\t\t\t: {_share(usage.running, _MOST_PARALLEL)}\t(active jobs for this account)",
        f"userload\t\t: {java_float(load)}\t\t(running / max parallel jobs ratio)",
        f"maxUnfinishedJobs\t: {quota.max_unfinished_jobs}\t\t(maximum allowed number of waiting jobs)",
        f"waiting\t\t\t: {_share(usage.waiting, quota.max_unfinished_jobs)}\t(currently queued jobs)",
        f"unfinishedJobsLast24h\t: {usage.unfinished}"
        "\t\t\t(jobs waiting since less than 24h or currently active)",
        f"maxTotalRunningTime\t: {most}\t(CPU cores * wall time seconds)",
        f"totalRunningTimeLast24h\t: {_share(spent, most)}"
        "\t(resources consumed by jobs completed in the last 24h)",
        f"maxTotalCpuCost\t\t: {int(most_cost)}\t(price * CPU cores * wall time seconds)",
        f"totalCpuCostLast24h\t: {_share(int(cost), int(most_cost))}"
        "\t(cost of jobs completed in the last 24h)",
    ]
    return {
        "username": user,
        "nominalparallelJobs": str(_NOMINAL_PARALLEL),
        "nominalParallelJobs": str(_NOMINAL_PARALLEL),  # as alienpy has called it since 1.7
        "running": str(usage.running),
        "waiting": str(usage.waiting),
        "totalCpuCostLast24h": java_float(cost),
        "totalRunningTimeLast24h": str(spent),
        "maxparallelJobs": str(_MOST_PARALLEL),
        "maxParallelJobs": str(_MOST_PARALLEL),
        "maxUnfinishedJobs": str(quota.max_unfinished_jobs),
        "maxTotalCpuCost": java_float(most_cost),
        "maxTotalRunningTime": str(most),
        "message": "\n".join(lines),
    }


def _files_row(core: Core, user: str) -> Row:
    quota = core.users.quotas[user]
    files, size = core.catalogue.used(user)
    lines = [
        f"FQuota: user: {user}",
        f"totalSize\t: {human_size(size)}",
        f"maxTotalSize\t: {human_size(quota.max_bytes)}",
        "tmpIncreasedTotalSize\t: 0 B",
        f"nbFiles\t: {files}",
        f"maxNbFiles\t: {quota.max_files}",
        "tmpIncreasedNbFiles\t: 0",
    ]
    return {
        "username": user,
        "totalSize": str(size),
        "maxTotalSize": str(quota.max_bytes),
        "nbFiles": str(files),
        "maxNbFiles": str(quota.max_files),
        "message": "\n".join(lines),
    }


def _share(part: int, whole: int) -> str:
    return f"{part} = {short_number(100 * part / whole)}% of max"


QUOTA_VERBS: dict[str, Verb] = {"jquota": jquota, "fquota": fquota}
