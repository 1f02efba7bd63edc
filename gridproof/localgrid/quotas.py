"""What each user may have at most. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Quota:
    """The limits of one user; those of jobs are JAliEn's for a new account.

    Running time is that of the jobs that ended in the last 24 hours: CPU cores × wall time in s; their cost
    is that × price.
    """

    max_files: int = 10_000_000
    max_bytes: int = 10 << 40
    max_unfinished_jobs: int = 100_000
    max_running_time: int = 10**12
    max_cpu_cost: int = 10**12


FILE_FIELDS = {"maxNbFiles": "max_files", "maxTotalSize": "max_bytes"}
JOB_FIELDS = {
    "maxUnfinishedJobs": "max_unfinished_jobs",
    "maxTotalCpuCost": "max_cpu_cost",
    "maxTotalRunningTime": "max_running_time",
}


class Quotas:
    """The quota of each user: the one given, or ``default``, as far as :meth:`set` has not changed it."""

    def __init__(self, given: Mapping[str, Quota] | None = None, default: Quota | None = None) -> None:
        self._quotas = dict(given or {})
        self._default = default or Quota()

    def __getitem__(self, user: str) -> Quota:
        return self._quotas.get(user, self._default)

    def set(self, user: str, field: str, value: int) -> None:
        """Change one limit, under its name in JAliEn. Raises KeyError for another name."""
        attribute = {**FILE_FIELDS, **JOB_FIELDS}[field]
        self._quotas[user] = replace(self[user], **{attribute: value})


def files_refused(quota: Quota, user: str, files: int, size: int) -> str:
    """Why a user who would then have so many files of this total size may not, in JAliEn's words."""
    if files <= quota.max_files and size <= quota.max_bytes:
        return ""
    return f"User {user} has exceeded the file quota and is not allowed to write any more files"
