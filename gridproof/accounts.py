"""Accounts of this machine: who may reach what, and starting a program as another one."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gridproof.errors import ConfigError

_XROOTD = ("xrootd", "nobody")


@dataclass(frozen=True)
class Account:
    """An entry of the machine's list of users."""

    name: str
    uid: int
    gid: int
    home: str
    groups: frozenset[int]

    @classmethod
    def find(cls, name: str) -> Account | None:
        """The account of that name, if there is one."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        groups = frozenset(os.getgrouplist(name, entry.pw_gid))
        return cls(name, entry.pw_uid, entry.pw_gid, entry.pw_dir, groups)

    def bar(self, path: Path) -> Path | None:
        """The first directory on the way to ``path`` that this account cannot enter, if any."""
        for directory in (*reversed(path.parents), path):
            info = directory.stat()
            if not stat.S_ISDIR(info.st_mode):
                continue
            if info.st_uid == self.uid:
                allowed = info.st_mode & stat.S_IXUSR
            elif info.st_gid in self.groups:
                allowed = info.st_mode & stat.S_IXGRP
            else:
                allowed = info.st_mode & stat.S_IXOTH
            if not allowed and self.uid:
                return directory
        return None

    def own(self, *paths: Path) -> None:
        """Give files to this account, which root may."""
        for path in paths:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def change(self, *, death_signal: str = "KILL") -> Sequence[str]:
        """What a command of root's begins with, to run as this account and to die with its starter.

        A change of uid clears the parent-death signal: it is asked for again after it.
        """
        return (
            *("setpriv", "--reuid", str(self.uid), "--regid", str(self.gid), "--init-groups"),
            *("--inh-caps=-all", "--no-new-privs", "--pdeathsig", death_signal, "--"),
        )


def for_xrootd() -> Account | None:
    """The account that an XRootD server of this process runs as; None: its own, unless it is root's.

    Raises:
        ConfigError: XRootD refuses to run as root, and there is no other account for it.
    """
    if os.geteuid() != 0:
        return None
    for name in _XROOTD:
        if account := Account.find(name):
            return account
    raise ConfigError(f"XRootD refuses to run as root, and there is no account {' or '.join(_XROOTD)} here")
