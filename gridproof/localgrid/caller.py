"""Who is at the other end of a connection, and where in the catalogue."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridproof.localgrid.answers import ENOENT, Answer, CommandFailed
from gridproof.localgrid.catalogue import normal
from gridproof.localgrid.certificates import Identity
from gridproof.localgrid.core import USERS, Core


@dataclass
class Caller:
    """One connection: its identity, its current directory, the site it is at ("" when unknown)."""

    identity: Identity
    directory: str
    site: str
    expires: float

    @property
    def user(self) -> str:
        return self.identity.user

    @property
    def home(self) -> str:
        return USERS[self.user]

    def path(self, lfn: str) -> str:
        """An LFN as given, made absolute: relative to the current directory, or ``~``."""
        if lfn == "~" or lfn.startswith("~/"):
            lfn = self.home + lfn[2:]
        return normal(posixpath.join(self.directory, lfn))


Verb = Callable[[Core, Caller, Sequence[str]], Answer]


def missing(lfn: str) -> CommandFailed:
    """What JAliEn says about an LFN that is not there."""
    return CommandFailed(ENOENT, lfn)
