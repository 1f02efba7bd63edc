"""Which public keys are a user's: those of the configuration, and of files in OpenSSH's format."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import asyncssh

from gridproof.accounts import Account
from gridproof.errors import ConfigError, ProxyError

_LARGEST = 1 << 20  # bytes
_OPEN_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UserKeys:
    """``listed``: public keys by user. ``pattern``: more of them, read anew at every login.

    The pattern is as sshd's AuthorizedKeysFile: ``/a/directory/%u`` (a file for each user) or ``%h/…``, in
    the home of the account of that name, or of the one that ``accounts`` gives. Lines with options other
    than ``from=`` (addresses) are left out: they are meant to allow less than a session.

    Raises:
        ProxyError: a listed key is none.
    """

    def __init__(
        self, listed: Mapping[str, Sequence[str]], pattern: str, accounts: Mapping[str, str | None]
    ) -> None:
        try:
            self._listed = {
                user: [asyncssh.import_public_key(key).public_data for key in keys]
                for user, keys in listed.items()
            }
        except asyncssh.KeyImportError as error:
            raise ProxyError(f"a public key of the ProxyServer's users cannot be read: {error}") from None
        self._pattern = pattern
        self._accounts = accounts

    def check(self, user: str, key: asyncssh.SSHKey, address: str) -> None:
        """Raises:
        ProxyError: ``key`` is not one that ``user`` may come in with from ``address``; with why.
        """
        listed = self._listed.get(user)
        if any(hmac.compare_digest(one, key.public_data) for one in listed or ()):
            return
        found = self._file(user) if self._pattern else None
        if found is None:
            raise ProxyError("no such user" if listed is None else "not one of the user's keys")
        if not any(_allows(line, key, address) for line in _lines(*found)):
            raise ProxyError(f"not one of the user's keys, nor of {found[0]}")

    def _file(self, user: str) -> tuple[Path, Path, set[int]] | None:
        """The user's file, the directory from which on it must be safe, and who may own what is there.

        What a stranger says never becomes part of a path.
        """
        own = {0, os.geteuid()}
        directory, home, rest = self._pattern.rpartition("%h/")
        if not home:
            directory = self._pattern.removesuffix("/%u")
            try:
                found = [entry.path for entry in os.scandir(directory) if entry.name == user]
            except OSError as error:
                raise ProxyError(f"the key files in {directory} cannot be read: {error.strerror}") from None
            return (Path(found[0]), Path(directory), own) if found else None
        account = Account.find(self._accounts.get(user, user) or "")
        if account is None or account.uid == 0:  # sessions of the superuser are nobody's wish
            return None
        return Path(account.home) / rest, Path(account.home), {*own, account.uid}


def check_pattern(pattern: str) -> str:
    """``pattern`` itself.

    Raises:
        ConfigError: it is not one that `UserKeys` takes.
    """
    in_directory = pattern.startswith("/") and pattern.endswith("/%u") and pattern.count("%") == 1
    in_home = pattern.startswith("%h/") and pattern.count("%") == 1
    if not in_directory and not in_home:
        raise ConfigError(f"authorized_keys_file is /a/directory/%u or %h/a/path, not {pattern!r}")
    return pattern


def _lines(path: Path, top: Path, owners: set[int]) -> Iterable[str]:
    """Raises ProxyError if it cannot be read, or others than ``owners`` may write on its way from ``top``."""
    ways = [parent for parent in path.parents if parent == top or top in parent.parents]
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise ProxyError(f"{path} is no file of keys")
            for where, found in [(path, status), *((way, way.stat()) for way in ways)]:
                if found.st_mode & _OPEN_TO_OTHERS or found.st_uid not in owners:
                    raise ProxyError(
                        f"{where} is left out: others may write it (owner {found.st_uid}, mode "
                        f"{stat.S_IMODE(found.st_mode):03o})"
                    )
            return file.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise ProxyError(f"{path} cannot be read: {error.strerror}") from None


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)


def _allows(line: str, key: asyncssh.SSHKey, address: str) -> bool:
    try:
        entry = asyncssh.import_authorized_keys(line)
    except ValueError:  # a comment, or nothing that is a key
        return False
    options = entry.validate(key, address, address)
    return options is not None and set(options) <= {"from"}
