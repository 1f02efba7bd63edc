"""What of submissions and pilots outlives the ProxyServer, also when it is killed: an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import astuple, fields
from pathlib import Path

from gridproof.errors import ProxyError
from gridproof.proxy.admission.joining import Changes, Identity, Joining, Submission

_VERSION = 1
_PATIENCE = 2.0  # s for a server that was killed just now to be gone
_TABLES = {"submissions": Submission, "identities": Identity}


class NotKept(ProxyError):
    """What was decided is not on the disk, and may be later."""


class Ledger:
    """The file at ``path``, which only its owner may read and one process may have open.

    Raises:
        ProxyError: it cannot be opened or read, or another ProxyServer uses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: list[Changes] = []
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            self._base = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._make()
        except (OSError, sqlite3.Error) as error:
            raise ProxyError(f"the ProxyServer's {path} cannot be used: {error}") from None

    def _make(self) -> None:
        (version,) = self._base.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise ProxyError(
                f"{self._path} is of another version of gridproof; remove it, and pilots with it"
            )
        self._base.execute("BEGIN IMMEDIATE")
        for table, kind in _TABLES.items():
            first, *others = (field.name for field in fields(kind))
            columns = ", ".join([f"{first} PRIMARY KEY", *others])
            self._base.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}) WITHOUT ROWID")
        self._base.execute(f"PRAGMA user_version = {_VERSION}")
        self._base.execute("COMMIT")

    def read(self, now: float) -> Joining:
        """What was kept; its pilots are away since ``now``.

        Raises:
            ProxyError: it is damaged.
        """
        try:
            submissions = [Submission(*row) for row in self._base.execute("SELECT * FROM submissions")]
            identities = [Identity(*row) for row in self._base.execute("SELECT * FROM identities")]
        except sqlite3.Error as error:
            raise ProxyError(
                f"the ProxyServer's {self._path} is damaged: {error}; remove it, and pilots with it"
            ) from None
        return Joining(submissions, identities, now)

    def write(self, changes: Changes | None) -> None:
        """Returns when they are on the disk, and before them what could not be written at its time.

        Raises:
            NotKept: the disk does not take them.
        """
        if changes:
            self._unwritten.append(changes)
        if not self._unwritten:
            return
        try:
            with self._base:
                self._base.execute("BEGIN IMMEDIATE")
                for unwritten in self._unwritten:
                    self._write(unwritten)
        except sqlite3.Error as error:
            raise NotKept(f"the ProxyServer's {self._path} cannot be written: {error}") from None
        self._unwritten.clear()

    def _write(self, changes: Changes) -> None:
        for table, records in (("submissions", changes.submissions), ("identities", changes.identities)):
            marks = ", ".join("?" * len(fields(_TABLES[table])))
            self._base.executemany(
                f"INSERT OR REPLACE INTO {table} VALUES ({marks})",  # noqa: S608
                [astuple(record) for record in records],
            )
        for name in changes.forgotten:
            self._base.execute("DELETE FROM identities WHERE submission = ?", (name,))
            self._base.execute("DELETE FROM submissions WHERE name = ?", (name,))

    def close(self) -> None:
        """Nothing is written any more."""
        self._base.close()
