"""Who is at the other end of a connection, and where in the catalogue."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from errno import ENAMETOOLONG, ENOENT

from gridproof.localgrid.catalogue.entries import normal
from gridproof.localgrid.certificates import Identity
from gridproof.localgrid.commands.answers import Answer, CommandFailed
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.users import User

LFN_LIMIT, NAME_LIMIT = 4096, 255


@dataclass
class Caller:
    """One connection: whose certificate it has, as whom it acts now, the site it is at ("" when unknown)."""

    identity: Identity
    account: User
    site: str
    expires: float
    directory: str = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.home

    @property
    def user(self) -> str:
        return self.account.name

    @property
    def home(self) -> str:
        return self.account.home

    def path(self, lfn: str) -> str:
        """An LFN as given, made absolute, from the current directory or ``~``. Raises CommandFailed."""
        if lfn == "~" or lfn.startswith("~/"):
            lfn = self.home + lfn[2:]
        path = normal(posixpath.join(self.directory, lfn))
        if len(path) > LFN_LIMIT or any(len(name) > NAME_LIMIT for name in path.split("/")):
            raise CommandFailed(ENAMETOOLONG, f"{lfn[:NAME_LIMIT]}{'…' if len(lfn) > NAME_LIMIT else ''}")
        return path


Verb = Callable[[Core, Caller, Sequence[str]], Answer]
AwaitedVerb = Callable[[Core, Caller, Sequence[str]], Awaitable[Answer]]


def missing(lfn: str) -> CommandFailed:
    """What JAliEn says about an LFN that is not there."""
    return CommandFailed(ENOENT, lfn)


def may_modify(caller: Caller, job: Job) -> bool:
    """Whether the caller may kill, resubmit or otherwise touch a job."""
    return caller.user == job.owner or caller.account.has_role(job.owner) or caller.account.is_admin
