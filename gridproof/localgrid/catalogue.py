"""The file catalogue: LFNs, who owns them, and the SEs that hold a replica. In SQLite, safe for threads."""

from __future__ import annotations

import itertools
import posixpath
import re
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from gridproof.localgrid.database import Database
from gridproof.localgrid.permissions import OPEN_TO_ALL, PASS, READ, WRITE, allowed, owned_by, refused
from gridproof.localgrid.quotas import files_refused
from gridproof.localgrid.users import ADMIN, User, Users


class Entry(NamedTuple):
    """A file (``type`` f), directory (d) or collection (c); ``perm`` like "644", ``ctime`` in ms.

    Directories and touched files have no ``guid``. ``job`` is the one that has saved it, or 0.
    """

    lfn: str
    type: str
    owner: str
    gowner: str
    perm: str
    size: int
    md5: str
    guid: str
    ctime: int
    job: int = 0

    @property
    def is_dir(self) -> bool:
        return self.type == "d"

    @property
    def path(self) -> str:
        """The LFN as answers show it: directories end in a slash."""
        return self.lfn.rstrip("/") + "/" if self.is_dir else self.lfn

    def allows(self, user: User, right: int) -> bool:
        """Whether a user has all of READ, WRITE, PASS that ``right`` consists of."""
        return allowed(user, self.owner, self.gowner, self.perm, right)

    def as_seen_by(self, user: User) -> Entry:
        """Without its MD5 where a user may not read it."""
        return self if self.allows(user, READ) else self._replace(md5="")


class CatalogueError(Exception):
    """A change or a look-up that cannot be: ``code`` is the errno that AliEn answers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


EPERM, ENOENT, EIO, EACCES, EEXIST, ENOTDIR, EISDIR, EDQUOT = 1, 2, 5, 13, 17, 20, 21, 122

_GREGORIAN = 0x01B21DD213814000  # from 1582-10-15, where times of GUIDs begin, to the epoch, in 100 ns
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
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
"""  # noqa: S608


_BETWEEN = "lfn > ? AND lfn < ?"


@dataclass(frozen=True)
class Booking:
    """Leave to write one replica of a file that is not in the catalogue yet; for a ``job``, or 0."""

    ticket: str
    lfn: str
    guid: str
    se: str
    user: str
    job: int = 0


def pfn_path(guid: str) -> str:
    """Where a GUID lies on an SE: ``/NN/NNNNN/guid``, numbers from the GUID's digits as AliEn makes them."""
    digits = [int(digit, 16) for digit in guid.replace("-", "")]
    total, weighted = sum(digits), sum(itertools.accumulate(digits))
    high, low = ((weighted & 255) - (total & 255)) % 255, (weighted & 255) % 255
    return f"/{total % 16:02d}/{high << 8 | low:05d}/{guid}"


def entry_number(lfn: str) -> int:
    """A number for an LFN where JAliEn shows its database's (``entryId``, ``dir``)."""
    return zlib.crc32(lfn.encode())


def guid_origin(guid: str) -> tuple[int, str]:
    """When (ms since the epoch) and where (hardware address) a GUID was made; 0 if it does not tell."""
    made = uuid.UUID(guid)
    at = (made.time - _GREGORIAN) // 10_000 if made.version == 1 else 0
    return at, made.node.to_bytes(6, "big").hex(":")


def is_guid(name: str) -> bool:
    """Whether this is written as a GUID."""
    return bool(_GUID.fullmatch(name))


class Catalogue:
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

    # Look-ups

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
        """As :meth:`look_up`, the file with this GUID."""
        if not is_guid(guid):
            return None
        rows = self._database.rows("SELECT lfn FROM lfns WHERE guid = ?", guid.lower())
        return self.look_up(str(rows[0][0]), user, right) if rows else None

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
            f"SELECT {_COLUMNS} FROM lfns WHERE {_BETWEEN} AND lfn GLOB ?"  # noqa: S608
            f" AND type IN ({any_type}) ORDER BY lfn"
        )
        rows = self._database.rows(query, *_below(top), glob, *types)
        found = [Entry(*row) for row in rows]  # type: ignore[arg-type]
        closed = self._closed(top, user)
        return [e for e in found if not _lies_in(e.lfn, closed)] if closed else found

    def _closed(self, top: str, user: str) -> list[str]:
        """The directories below ``top`` that a user may not list and pass; few, and quickly found."""
        condition, values = refused(self._users[user], READ | PASS)
        query = f"SELECT lfn FROM lfns WHERE {_CLOSED} AND {_BETWEEN} AND {condition}"  # noqa: S608
        return [str(lfn) for (lfn,) in self._database.rows(query, *_below(top), *values)]

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
        """For each SE that holds anything: files, bytes."""
        rows = self._database.rows(
            "SELECT se, count(*), coalesce(sum(size), 0) FROM replicas JOIN lfns USING (guid) GROUP BY se"
        )
        return {str(se): (int(str(count)), int(str(size))) for se, count, size in rows}

    def contents(self, directory: str) -> list[tuple[str, int, int, bool]]:
        """Of all that lies below: type, size, number of replicas, whether it is a member of an archive."""
        rows = self._database.rows(
            "SELECT type, size, (SELECT count(*) FROM replicas WHERE replicas.guid = lfns.guid),"  # noqa: S608
            f" EXISTS (SELECT 1 FROM members WHERE members.guid = lfns.guid) FROM lfns WHERE {_BETWEEN}",
            *_below(normal(directory)),
        )
        return [(str(t), int(str(size)), int(str(n)), bool(member)) for t, size, n, member in rows]

    def used(self, user: str) -> tuple[int, int]:
        """How many files a user has, and their bytes."""
        rows = self._database.rows("SELECT files, bytes FROM used WHERE owner = ?", user)
        return (int(str(rows[0][0])), int(str(rows[0][1]))) if rows else (0, 0)

    # Changes

    def mkdir(self, lfn: str, user: str, now_ms: int, *, parents: bool = False, perm: str = "755") -> None:
        """Make a directory; one that exists already is well. Raises CatalogueError."""
        with self._database.change() as connection:
            path = normal(lfn)
            missing = []
            while (entry := self.get(path)) is None:
                missing.append(path)
                path = posixpath.dirname(path)
            if not entry.is_dir:
                raise CatalogueError(ENOTDIR, f"Not a directory: {entry.lfn}")
            if len(missing) > 1 and not parents:
                raise CatalogueError(ENOENT, f"Could not create directory: {lfn}")
            self._existing(entry.lfn, user, WRITE | PASS)
            for path in reversed(missing):
                _insert(connection, Entry(path, "d", user, user, perm, 0, "", "", now_ms))

    def check_quota(self, user: str, files: int, size: int) -> None:
        """Raises CatalogueError unless a user may have so many more files, of this size together."""
        now, used = self.used(user)
        if why := files_refused(self._users.quotas[user], user, now + files, used + size):
            raise CatalogueError(EDQUOT, why)

    def check_new(self, lfn: str, user: str, size: int = 0) -> None:
        """Raises CatalogueError unless ``lfn`` is free and ``user`` may make it a file of this size."""
        self._check_place(lfn, user)
        self.check_quota(user, 1, size)

    def _check_place(self, lfn: str, user: str) -> None:
        parent = self._nearest_dir(posixpath.dirname(normal(lfn)))
        self._existing(parent.path, user, WRITE | PASS)
        if self.get(lfn):
            raise CatalogueError(EEXIST, f"{lfn} exists already")

    def _nearest_dir(self, path: str) -> Entry:
        while (entry := self.get(path)) is None:
            path = posixpath.dirname(path)
        if not entry.is_dir:
            raise CatalogueError(ENOTDIR, f"Not a directory: {entry.lfn}")
        return entry

    def book(self, bookings: Iterable[Booking], now_ms: int) -> None:
        """Remember who may commit what."""
        with self._database.change() as connection:
            rows = [(b.ticket, b.lfn, b.guid, b.se, b.user, b.job, now_ms) for b in bookings]
            connection.executemany("INSERT INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def booking(self, ticket: str) -> Booking | None:
        """What a ticket was given for."""
        rows = self._database.rows(
            "SELECT ticket, lfn, guid, se, user, job FROM bookings WHERE ticket = ?", ticket
        )
        return Booking(*rows[0]) if rows else None  # type: ignore[arg-type]

    def commit(self, booking: Booking, *, size: int, md5: str, perm: str, now_ms: int) -> None:
        """Enter a booked replica, with the first one the file and its directories. Raises CatalogueError."""
        with self._database.change() as connection:
            entry = self.get(booking.lfn)
            if entry is None:
                self.check_new(booking.lfn, booking.user, size)
                self.mkdir(posixpath.dirname(booking.lfn), booking.user, now_ms, parents=True)
            elif entry.guid not in (booking.guid, ""):
                raise CatalogueError(EEXIST, f"{booking.lfn} exists already")
            elif entry.guid and (entry.size, entry.md5 or md5) != (size, md5 or entry.md5):
                raise CatalogueError(
                    EIO, f"{booking.lfn}: this replica differs from the one registered before"
                )
            owner, guid = booking.user, booking.guid
            if entry is None:
                new = Entry(booking.lfn, "f", owner, owner, perm, size, md5, guid, now_ms, booking.job)
                _insert(connection, new)
            elif not entry.guid:
                self._existing(entry.lfn, booking.user, WRITE)
                self.check_quota(entry.owner, 0, size)
                _tally(connection, "-", "lfn = ?", entry.lfn)
                filled = "UPDATE lfns SET guid = ?, size = ?, md5 = ?, ctime = ?, job = ? WHERE lfn = ?"
                connection.execute(filled, (guid, size, md5, now_ms, booking.job, entry.lfn))
                _tally(connection, "+", "lfn = ?", entry.lfn)
            connection.execute(
                "INSERT OR IGNORE INTO replicas"
                " SELECT ?, ?, coalesce(max(position), 0) + 1 FROM replicas WHERE guid = ?",
                (booking.guid, booking.se, booking.guid),
            )
            connection.execute("DELETE FROM bookings WHERE ticket = ?", (booking.ticket,))

    def enter_members(
        self, archive: Entry, members: Iterable[tuple[str, int, str]], user: str, now_ms: int
    ) -> None:
        """Enter members of an archive (name, size, MD5) as files beside it. Raises CatalogueError."""
        with self._database.change() as connection:
            for name, size, md5 in members:
                lfn, guid = posixpath.join(posixpath.dirname(archive.lfn), name), str(uuid.uuid1())
                self.check_new(lfn, user, size)
                member = Entry(lfn, "f", user, user, "755", size, md5, guid, now_ms, archive.job)
                _insert(connection, member)
                connection.execute("INSERT INTO members VALUES (?, ?, ?)", (guid, archive.guid, name))

    def collect(self, lfn: str, files: Sequence[Entry], user: str, now_ms: int) -> None:
        """Make a collection of these files. Raises CatalogueError."""
        with self._database.change() as connection:
            self._check_place(lfn, user)
            self.mkdir(posixpath.dirname(normal(lfn)), user, now_ms, parents=True)
            guid, size = str(uuid.uuid1()), sum(file.size for file in files)
            _insert(connection, Entry(normal(lfn), "c", user, user, "755", size, "n/a", guid, now_ms))
            rows = [(guid, position, file.lfn) for position, file in enumerate(files)]
            connection.executemany("INSERT INTO collections VALUES (?, ?, ?)", rows)

    def touch(self, lfn: str, user: str, now_ms: int) -> None:
        """Make an empty file without a GUID; one that exists has changed now. Raises CatalogueError."""
        with self._database.change() as connection:
            if entry := self.look_up(lfn, user):
                self._existing(lfn, user, WRITE)
                connection.execute("UPDATE lfns SET ctime = ? WHERE lfn = ?", (now_ms, entry.lfn))
                return
            self.check_new(lfn, user)
            if self.get(posixpath.dirname(normal(lfn))) is None:
                raise CatalogueError(ENOENT, f"No such directory for {lfn}")
            md5 = "d41d8cd98f00b204e9800998ecf8427e"
            _insert(connection, Entry(normal(lfn), "f", user, user, "755", 0, md5, "", now_ms))

    def chmod(self, lfn: str, perm: str, user: str, now_ms: int, *, recursive: bool = False) -> list[str]:
        """Change the mode of an entry and, with ``recursive``, of all below; LFNs whose owner one is not."""
        return self._alter(lfn, {"perm": perm, "ctime": now_ms}, user, recursive)

    def chown(self, lfn: str, owner: str, gowner: str, user: str, *, recursive: bool = False) -> list[str]:
        """Change the owner and, if given, the group; as :meth:`chmod`.

        One gives only to accounts and groups that one may act as.
        """
        account = self._users[user]
        for role in filter(None, (owner, gowner)):
            if role not in self._users or not account.may_become(role):
                raise CatalogueError(EPERM, f"{user} may not give anything to {role}")
        changed = {"owner": owner, **({"gowner": gowner} if gowner else {})}
        return self._alter(lfn, changed, user, recursive)

    def _alter(self, lfn: str, columns: Mapping[str, str | int], user: str, recursive: bool) -> list[str]:
        account = self._users[user]
        with self._database.change() as connection:
            entry = self._existing(lfn, user)
            if not account.may_become(entry.owner):
                return [entry.lfn]
            tree = recursive and entry.is_dir
            below = _below(entry.lfn) if tree else ()
            scopes = [("lfn = ?", entry.lfn), *([(_BETWEEN, *below)] if tree else [])]
            for scope in scopes:
                _tally(connection, "-", *scope)
            what = f"UPDATE lfns SET {', '.join(f'{column} = ?' for column in columns)}"  # noqa: S608
            values = list(columns.values())
            others: list[str] = []
            if tree:
                mine, roles = owned_by(account)
                rest = f"SELECT lfn FROM lfns WHERE {_BETWEEN} AND NOT {mine} ORDER BY lfn"  # noqa: S608
                others = [str(other) for (other,) in self._database.rows(rest, *below, *roles)]
                connection.execute(f"{what} WHERE {_BETWEEN} AND {mine}", (*values, *below, *roles))
            connection.execute(f"{what} WHERE lfn = ?", (*values, entry.lfn))
            for scope in scopes:
                _tally(connection, "+", *scope)
            return others

    def remove(self, lfn: str, user: str, *, recursive: bool = False) -> None:
        """Forget a file or a directory, empty or ``recursive``; its replicas become :meth:`orphans`."""
        with self._database.change() as connection:
            entry = self._expendable(lfn, user)
            _forget(connection, "lfn = ?", entry.lfn)
            if not entry.is_dir:
                return
            below = _below(entry.lfn)
            if not recursive and self._database.rows(f"SELECT 1 FROM lfns WHERE {_BETWEEN} LIMIT 1", *below):  # noqa: S608
                raise CatalogueError(EIO, f"{lfn} is not empty")
            _forget(connection, _BETWEEN, *below)

    def orphans(self) -> list[tuple[str, str]]:
        """(SE, GUID) of replicas that no file has any more, until they are deleted and :meth:`forget`."""
        return [(str(se), str(guid)) for se, guid in self._database.rows("SELECT se, guid FROM orphans")]

    def forget(self, orphans: Iterable[tuple[str, str]]) -> None:
        """These are no longer on their SEs."""
        with self._database.change() as connection:
            connection.executemany("DELETE FROM orphans WHERE se = ? AND guid = ?", orphans)

    def move(self, source: str, target: str, user: str) -> None:
        """Rename a file or a directory with all in it; into a directory if ``target`` is one."""
        with self._database.change() as connection:
            entry = self._expendable(source, user)
            self._existing(posixpath.dirname(entry.lfn), user, WRITE | PASS)
            there = self.get(target)
            new = normal(
                posixpath.join(target, posixpath.basename(entry.lfn)) if there and there.is_dir else target
            )
            if new.startswith(entry.lfn + "/"):
                raise CatalogueError(EIO, f"{source} cannot be moved into itself")
            self._check_place(new, user)
            if self.get(posixpath.dirname(new)) is None:
                raise CatalogueError(ENOENT, f"No such directory for {target}")
            after = len(entry.lfn) + 1
            rename = "UPDATE lfns SET lfn = ? || substr(lfn, ?), parent = ? || substr(parent, ?)"
            connection.execute(f"{rename} WHERE {_BETWEEN}", (new, after, new, after, *_below(entry.lfn)))
            connection.execute(
                "UPDATE lfns SET lfn = ?, parent = ? WHERE lfn = ?", (new, posixpath.dirname(new), entry.lfn)
            )

    def _expendable(self, lfn: str, user: str) -> Entry:
        """The entry, if a user may write it and everything below."""
        entry = self._existing(lfn, user, WRITE)
        condition, values = refused(self._users[user], WRITE)
        query = f"SELECT lfn FROM lfns WHERE {_BETWEEN} AND {condition} LIMIT 1"  # noqa: S608
        if entry.lfn == "/" or (entry.is_dir and self._database.rows(query, *_below(entry.lfn), *values)):
            raise CatalogueError(EACCES, lfn)
        return entry

    def make_root(self, now_ms: int) -> None:
        """``/``, ``/local`` where everybody may write, and the home directories, where missing."""
        with self._database.change() as connection:
            _insert(connection, Entry("/", "d", ADMIN, ADMIN, "755", 0, "", "", now_ms))
        self.mkdir("/local", ADMIN, now_ms, perm="777")
        for user in self._users:
            home = normal(user.home)
            self.mkdir(posixpath.dirname(home), ADMIN, now_ms, parents=True)
            with self._database.change() as connection:
                _insert(connection, Entry(home, "d", user.name, user.name, "755", 0, "", "", now_ms))


def normal(lfn: str) -> str:
    """An absolute LFN without ``.``, ``..``, doubled or trailing slashes."""
    return "/" + posixpath.normpath("/" + lfn).strip("/")


def _below(directory: str) -> tuple[str, str]:
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


def is_pattern(lfn: str) -> bool:
    """Whether an LFN has wildcards."""
    return "*" in lfn or "?" in lfn


def _shell_glob(pattern: str) -> str:
    return pattern.replace("[", "[[]")


def _find_glob(pattern: str) -> str:
    """A pattern of ``find`` is one of SQL's LIKE: ``*`` and ``%`` are anything, ``_`` is any letter."""
    return _glob_literal(pattern.replace("%", "*")).replace("[*]", "*").replace("_", "?")


def _glob_literal(text: str) -> str:
    return text.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _insert(connection: Connection, entry: Entry) -> None:
    parent = posixpath.dirname(entry.lfn) if entry.lfn != "/" else ""
    values = (entry.lfn, parent, *entry[1:])
    made = connection.execute(
        "INSERT OR IGNORE INTO lfns (lfn, parent, type, owner, gowner, perm, size, md5, guid, ctime, job)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    if made.rowcount:
        _tally(connection, "+", "lfn = ?", entry.lfn)


def _tally(connection: Connection, sign: str, where: str, *values: object) -> None:
    """Add files to what their owners have, or take them away."""
    connection.execute(
        f"INSERT INTO used SELECT owner, {sign}count(*), {sign}sum(size) FROM lfns"  # noqa: S608
        f" WHERE type = 'f' AND ({where}) GROUP BY owner"
        " ON CONFLICT (owner) DO UPDATE SET files = files + excluded.files, bytes = bytes + excluded.bytes",
        values,
    )


def _forget(connection: Connection, where: str, *values: str) -> None:
    _tally(connection, "-", where, *values)
    guids = f"guid IN (SELECT guid FROM lfns WHERE {where} AND type <> 'd')"  # noqa: S608
    connection.execute(f"INSERT OR IGNORE INTO orphans SELECT se, guid FROM replicas WHERE {guids}", values)  # noqa: S608
    for table in ("replicas", "members", "collections"):
        connection.execute(f"DELETE FROM {table} WHERE {guids}", values)  # noqa: S608
    connection.execute(f"DELETE FROM lfns WHERE {where}", values)  # noqa: S608
