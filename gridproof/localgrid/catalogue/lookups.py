"""What the catalogue answers: entries by LFN, GUID and pattern, and where files are. Safe for threads."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from contextlib import AbstractContextManager
from errno import EACCES, ENOENT
from pathlib import Path
from sqlite3 import Connection

from gridproof.localgrid.catalogue.entries import Booking, CatalogueError, Entry, is_guid, is_pattern, normal
from gridproof.localgrid.catalogue.permissions import OPEN_TO_ALL, PASS, READ, refused
from gridproof.localgrid.database import Database
from gridproof.localgrid.users import Users

_COLUMNS = ", ".join(Entry._fields)
_CLOSED = f"type = 'd' AND NOT {OPEN_TO_ALL}"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS lfns (
    lfn TEXT PRIMARY KEY, parent TEXT, type TEXT, owner TEXT, gowner TEXT, perm TEXT,
    size INTEGER, md5 TEXT, guid TEXT, ctime INTEGER, job INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS children ON lfns (parent, lfn);
CREATE INDEX IF NOT EXISTS guids ON lfns (guid);
CREATE INDEX IF NOT EXISTS saved ON lfns (job) WHERE job > 0;
CREATE INDEX IF NOT EXISTS closed ON lfns (lfn) WHERE {_CLOSED};
CREATE TABLE IF NOT EXISTS replicas (
    guid TEXT, se TEXT, position INTEGER, PRIMARY KEY (guid, se)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (guid TEXT PRIMARY KEY, archive TEXT, name TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS collections (
    guid TEXT, position INTEGER, lfn TEXT, PRIMARY KEY (guid, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphans (se TEXT, guid TEXT, PRIMARY KEY (se, guid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bookings (
    ticket TEXT PRIMARY KEY, lfn TEXT, guid TEXT, se TEXT, user TEXT, job INTEGER, at INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS kept (
    job INTEGER, ticket TEXT, size INTEGER, md5 TEXT, members TEXT, PRIMARY KEY (job, ticket)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used (owner TEXT PRIMARY KEY, files INTEGER, bytes INTEGER) WITHOUT ROWID;
INSERT OR IGNORE INTO used SELECT owner, count(*), sum(size) FROM lfns
    WHERE type = 'f' AND NOT EXISTS (SELECT 1 FROM used) GROUP BY owner;
CREATE TABLE IF NOT EXISTS held (se TEXT PRIMARY KEY, files INTEGER, bytes INTEGER) WITHOUT ROWID;
INSERT OR IGNORE INTO held SELECT se, count(*), sum(size) FROM replicas JOIN lfns USING (guid)
    WHERE NOT EXISTS (SELECT 1 FROM held) GROUP BY se;
"""  # noqa: S608
BETWEEN = "lfn > ? AND lfn < ?"


class Lookups:
    """All LFNs below ``/``; paths given here are absolute and normal.

    What is done for a user raises CatalogueError where that user may not do it (see `permissions`).
    """

    def __init__(self, path: Path, users: Users) -> None:
        self._database = Database(path, _SCHEMA)
        self._users = users

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def change(self) -> AbstractContextManager[Connection]:
        """Several changes as one: all of them, or none."""
        return self._database.change()

    def get(self, lfn: str) -> Entry | None:
        """The entry of this LFN."""
        rows = self._database.rows(f"SELECT {_COLUMNS} FROM lfns WHERE lfn = ?", normal(lfn))  # noqa: S608
        return Entry(*rows[0]) if rows else None  # type: ignore[arg-type]

    def look_up(self, lfn: str, user: str, right: int = 0) -> Entry | None:
        """As :meth:`get`, for a user: one who may pass the directories above and has ``right`` there.

        Raises:
            CatalogueError: another one.
        """
        path = normal(lfn)
        lineage = _lineage(path)
        known = ", ".join("?" * len(lineage))
        query = f"SELECT {_COLUMNS} FROM lfns WHERE lfn IN ({known}) ORDER BY lfn"  # noqa: S608
        entries = [Entry(*row) for row in self._database.rows(query, *lineage)]  # type: ignore[arg-type]
        account = self._users[user]
        for entry in entries:
            needed = right if entry.lfn == path else PASS if entry.is_dir else 0
            if not entry.allows(account, needed):
                raise CatalogueError(EACCES, lfn)
        return entries[-1] if entries and entries[-1].lfn == path else None

    def by_guid(self, guid: str, user: str, right: int = 0) -> Entry | None:
        """As :meth:`look_up`, the file with this GUID; an error does not tell its name."""
        if not is_guid(guid):
            return None
        rows = self._database.rows("SELECT lfn FROM lfns WHERE guid = ?", guid.lower())
        try:
            return self.look_up(str(rows[0][0]), user, right) if rows else None
        except CatalogueError as error:
            raise CatalogueError(error.code, guid) from None

    def _existing(self, lfn: str, user: str, right: int = 0) -> Entry:
        entry = self.look_up(lfn, user, right)
        if entry is None:
            raise CatalogueError(ENOENT, lfn)
        return entry

    def children(self, directory: str) -> list[Entry]:
        """What lies directly in a directory, by name."""
        query = f"SELECT {_COLUMNS} FROM lfns WHERE parent = ? ORDER BY lfn"  # noqa: S608
        return [Entry(*row) for row in self._database.rows(query, normal(directory))]  # type: ignore[arg-type]

    def saved_by(self, job: int) -> list[str]:
        """The LFNs that a job has saved."""
        rows = self._database.rows("SELECT lfn FROM lfns WHERE job = ? AND job > 0 ORDER BY lfn", job)
        return [str(lfn) for (lfn,) in rows]

    def find(self, directory: str, pattern: str, user: str, types: str = "fc") -> list[Entry]:
        """What lies below ``directory`` with ``pattern`` in its path from there (see :func:`_find_glob`).

        What is in directories that the user may not list and pass is left out.
        """
        top = normal(directory)
        glob = _glob_literal(top.rstrip("/") + "/") + "*" + _find_glob(pattern.lstrip("*%")).rstrip("*") + "*"
        any_type = ", ".join("?" * len(types))
        query = (
            f"SELECT {_COLUMNS} FROM lfns WHERE {BETWEEN} AND lfn GLOB ?"  # noqa: S608
            f" AND type IN ({any_type}) ORDER BY lfn"
        )
        rows = self._database.rows(query, *bounds(top), glob, *types)
        found = [Entry(*row) for row in rows]  # type: ignore[arg-type]
        closed = self._closed(top, user)
        return [e for e in found if not _lies_in(e.lfn, closed)] if closed else found

    def _closed(self, top: str, user: str) -> list[str]:
        """The directories below ``top`` that a user may not list and pass; few, and quickly found."""
        condition, values = refused(self._users[user], READ | PASS)
        query = f"SELECT lfn FROM lfns WHERE {_CLOSED} AND {BETWEEN} AND {condition}"  # noqa: S608
        return [str(lfn) for (lfn,) in self._database.rows(query, *bounds(top), *values)]

    def match(self, pattern: str, user: str) -> list[Entry]:
        """The entries that an LFN with ``*`` or ``?`` means, names by names as a shell does."""
        account = self._users[user]
        found = [self._existing("/", user)]
        for name in normal(pattern).lstrip("/").split("/"):
            right = READ | PASS if is_pattern(name) else PASS
            open_to = [d for d in found if d.is_dir and d.allows(account, right)]
            found = [entry for directory in open_to for entry in self._named(directory.lfn, name)]
        return found

    def _named(self, directory: str, name: str) -> list[Entry]:
        if not is_pattern(name):
            entry = self.get(posixpath.join(directory, name))
            return [entry] if entry else []
        glob = _glob_literal(directory.rstrip("/") + "/") + _shell_glob(name)
        query = f"SELECT {_COLUMNS} FROM lfns WHERE parent = ? AND lfn GLOB ? ORDER BY lfn"  # noqa: S608
        return [Entry(*row) for row in self._database.rows(query, directory, glob)]  # type: ignore[arg-type]

    def replicas(self, guid: str) -> list[str]:
        """The SEs that hold a file, in the order in which they got it."""
        rows = self._database.rows("SELECT se FROM replicas WHERE guid = ? ORDER BY position", guid)
        return [str(se) for (se,) in rows]

    def member(self, guid: str) -> tuple[str, str] | None:
        """The GUID of the archive that a file is a member of, and its name there."""
        rows = self._database.rows("SELECT archive, name FROM members WHERE guid = ?", guid)
        return (str(rows[0][0]), str(rows[0][1])) if rows else None

    def collected(self, guid: str) -> list[str]:
        """The LFNs in a collection."""
        rows = self._database.rows("SELECT lfn FROM collections WHERE guid = ? ORDER BY position", guid)
        return [str(lfn) for (lfn,) in rows]

    def usage(self) -> dict[str, tuple[int, int]]:
        """For each SE that has ever held anything: files, bytes."""
        rows = self._database.rows("SELECT se, files, bytes FROM held")
        return {str(se): (int(str(files)), int(str(size))) for se, files, size in rows}

    def contents(self, directory: str, user: str) -> list[tuple[str, int, int, bool]]:
        """Of all that lies below: type, size, number of replicas, whether it is a member of an archive.

        What is in directories that the user may not list and pass is left out.
        """
        top = normal(directory)
        rows = self._database.rows(
            "SELECT lfn, type, size, (SELECT count(*) FROM replicas WHERE replicas.guid = lfns.guid),"  # noqa: S608
            f" EXISTS (SELECT 1 FROM members WHERE members.guid = lfns.guid) FROM lfns WHERE {BETWEEN}",
            *bounds(top),
        )
        closed = self._closed(top, user)
        return [
            (str(kind), int(str(size)), int(str(replicas)), bool(member))
            for lfn, kind, size, replicas, member in rows
            if not _lies_in(str(lfn), closed)
        ]

    def used(self, user: str) -> tuple[int, int]:
        """How many files a user has, and their bytes."""
        rows = self._database.rows("SELECT files, bytes FROM used WHERE owner = ?", user)
        return (int(str(rows[0][0])), int(str(rows[0][1]))) if rows else (0, 0)

    def booking(self, ticket: str) -> Booking | None:
        """What a ticket was given for."""
        rows = self._database.rows(
            "SELECT ticket, lfn, guid, se, user, job FROM bookings WHERE ticket = ?", ticket
        )
        return Booking(*rows[0]) if rows else None  # type: ignore[arg-type]

    def orphans(self) -> list[tuple[str, str]]:
        """(SE, GUID) of replicas that no file has any more, until they are deleted and :meth:`forget`."""
        return [(str(se), str(guid)) for se, guid in self._database.rows("SELECT se, guid FROM orphans")]


def bounds(directory: str) -> tuple[str, str]:
    """Between these lie the LFNs below a directory."""
    first = directory.rstrip("/") + "/"
    return first, first[:-1] + "0"


def _lineage(path: str) -> list[str]:
    """A path and the directories above it."""
    lineage = [path]
    while path != "/":
        path = posixpath.dirname(path)
        lineage.append(path)
    return lineage


def _lies_in(lfn: str, directories: Iterable[str]) -> bool:
    return any(lfn.startswith(directory + "/") for directory in directories)


def _shell_glob(pattern: str) -> str:
    return pattern.replace("[", "[[]")


def _find_glob(pattern: str) -> str:
    """A pattern of ``find`` is one of SQL's LIKE: ``*`` and ``%`` are anything, ``_`` is any letter."""
    return _glob_literal(pattern.replace("%", "*")).replace("[*]", "*").replace("_", "?")


def _glob_literal(text: str) -> str:
    return text.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
