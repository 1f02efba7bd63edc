"""The catalogue's tree: directories and names that come, change, move and go."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from errno import EACCES, EDQUOT, EEXIST, EIO, ENOENT, ENOTDIR, EPERM
from sqlite3 import Connection

from gridproof.localgrid.catalogue.entries import CatalogueError, Entry, check_name, normal
from gridproof.localgrid.catalogue.lookups import BETWEEN, Lookups, bounds
from gridproof.localgrid.catalogue.permissions import PASS, WRITE, owned_by, refused
from gridproof.localgrid.quotas import files_refused
from gridproof.localgrid.users import ADMIN

# How new figures of an owner or an SE come to the old ones.
ADDED = "DO UPDATE SET files = files + excluded.files, bytes = bytes + excluded.bytes"


class Tree(Lookups):
    """Entries with their owners, modes and quotas."""

    def make_root(self, now_ms: int) -> None:
        """``/``, ``/local`` where everybody may write, and the home directories, where missing."""
        with self._database.change() as connection:
            insert(connection, Entry("/", "d", ADMIN, ADMIN, "755", 0, "", "", now_ms))
        self.mkdir("/local", ADMIN, now_ms, perm="777")
        for user in self._users:
            home = normal(user.home)
            self.mkdir(posixpath.dirname(home), ADMIN, now_ms, parents=True)
            with self._database.change() as connection:
                insert(connection, Entry(home, "d", user.name, user.name, "755", 0, "", "", now_ms))

    def mkdir(self, lfn: str, user: str, now_ms: int, *, parents: bool = False, perm: str = "755") -> None:
        """Make a directory; one that exists already is well. Raises CatalogueError."""
        with self._database.change() as connection:
            check_name(lfn)
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
                insert(connection, Entry(path, "d", user, user, perm, 0, "", "", now_ms))

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
        check_name(lfn)
        there = self.look_up(lfn, user)
        parent = self._nearest_dir(posixpath.dirname(normal(lfn)))
        self._existing(parent.path, user, WRITE | PASS)
        if there:
            raise CatalogueError(EEXIST, f"{lfn} exists already")

    def _nearest_dir(self, path: str) -> Entry:
        while (entry := self.get(path)) is None:
            path = posixpath.dirname(path)
        if not entry.is_dir:
            raise CatalogueError(ENOTDIR, f"Not a directory: {entry.lfn}")
        return entry

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
            insert(connection, Entry(normal(lfn), "f", user, user, "755", 0, md5, "", now_ms))

    def chmod(self, lfn: str, perm: str, user: str, now_ms: int, *, recursive: bool = False) -> list[str]:
        """Change the mode of an entry and, with ``recursive``, of all below; LFNs whose owner one is not."""
        return self._alter(lfn, {"perm": perm, "ctime": now_ms}, user, recursive)

    def chown(self, lfn: str, owner: str, gowner: str, user: str, *, recursive: bool = False) -> list[str]:
        """Change the owner and, if given, the group; as :meth:`chmod`.

        One gives only to accounts and groups that one may act as, and no more than their quota.
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
            below = bounds(entry.lfn) if tree else ()
            scopes = [("lfn = ?", entry.lfn), *([(BETWEEN, *below)] if tree else [])]
            for scope in scopes:
                tally(connection, "-", *scope)
            what = f"UPDATE lfns SET {', '.join(f'{column} = ?' for column in columns)}"  # noqa: S608
            values = list(columns.values())
            others: list[str] = []
            if tree:
                mine, roles = owned_by(account)
                rest = f"SELECT lfn FROM lfns WHERE {BETWEEN} AND NOT {mine} ORDER BY lfn"  # noqa: S608
                others = [str(other) for (other,) in self._database.rows(rest, *below, *roles)]
                connection.execute(f"{what} WHERE {BETWEEN} AND {mine}", (*values, *below, *roles))
            connection.execute(f"{what} WHERE lfn = ?", (*values, entry.lfn))
            for scope in scopes:
                tally(connection, "+", *scope)
            if "owner" in columns:
                self.check_quota(str(columns["owner"]), 0, 0)
            return others

    def remove(self, lfn: str, user: str, *, recursive: bool = False) -> None:
        """Forget a file or a directory, empty or ``recursive``; its replicas become :meth:`orphans`."""
        with self._database.change() as connection:
            entry = self._expendable(lfn, user)
            _forget(connection, "lfn = ?", entry.lfn)
            if not entry.is_dir:
                return
            below = bounds(entry.lfn)
            if not recursive and self._database.rows(f"SELECT 1 FROM lfns WHERE {BETWEEN} LIMIT 1", *below):  # noqa: S608
                raise CatalogueError(EIO, f"{lfn} is not empty")
            _forget(connection, BETWEEN, *below)

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
            connection.execute(f"{rename} WHERE {BETWEEN}", (new, after, new, after, *bounds(entry.lfn)))
            connection.execute(
                "UPDATE lfns SET lfn = ?, parent = ? WHERE lfn = ?", (new, posixpath.dirname(new), entry.lfn)
            )

    def _expendable(self, lfn: str, user: str) -> Entry:
        """The entry, if a user may write it and everything below."""
        entry = self._existing(lfn, user, WRITE)
        condition, values = refused(self._users[user], WRITE)
        query = f"SELECT lfn FROM lfns WHERE {BETWEEN} AND {condition} LIMIT 1"  # noqa: S608
        if entry.lfn == "/" or (entry.is_dir and self._database.rows(query, *bounds(entry.lfn), *values)):
            raise CatalogueError(EACCES, lfn)
        return entry


def insert(connection: Connection, entry: Entry) -> None:
    parent = posixpath.dirname(entry.lfn) if entry.lfn != "/" else ""
    values = (entry.lfn, parent, *entry[1:])
    made = connection.execute(
        "INSERT OR IGNORE INTO lfns (lfn, parent, type, owner, gowner, perm, size, md5, guid, ctime, job)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    if made.rowcount:
        tally(connection, "+", "lfn = ?", entry.lfn)


def tally(connection: Connection, sign: str, where: str, *values: object) -> None:
    """Add files to what their owners have, or take them away."""
    connection.execute(
        f"INSERT INTO used SELECT owner, {sign}count(*), {sign}sum(size) FROM lfns"  # noqa: S608
        f" WHERE type = 'f' AND ({where}) GROUP BY owner ON CONFLICT (owner) {ADDED}",
        values,
    )


def _forget(connection: Connection, where: str, *values: str) -> None:
    tally(connection, "-", where, *values)
    guids = f"guid IN (SELECT guid FROM lfns WHERE {where} AND type <> 'd')"  # noqa: S608
    connection.execute(f"INSERT OR IGNORE INTO orphans SELECT se, guid FROM replicas WHERE {guids}", values)  # noqa: S608
    connection.execute(
        "INSERT INTO held SELECT se, -count(*), -sum(size) FROM lfns JOIN replicas USING (guid)"  # noqa: S608
        f" WHERE {where} GROUP BY se ON CONFLICT (se) {ADDED}",
        values,
    )
    for table in ("replicas", "members", "collections"):
        connection.execute(f"DELETE FROM {table} WHERE {guids}", values)  # noqa: S608
    connection.execute(f"DELETE FROM lfns WHERE {where}", values)  # noqa: S608
