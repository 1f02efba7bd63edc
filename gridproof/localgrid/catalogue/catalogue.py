"""The file catalogue: LFNs, who owns them, and the SEs that hold a replica."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterable, Sequence
from errno import EEXIST, EIO

from gridproof.localgrid.catalogue.entries import Booking, CatalogueError, Entry, normal
from gridproof.localgrid.catalogue.permissions import WRITE
from gridproof.localgrid.catalogue.tree import ADDED, Tree, insert, tally


class Catalogue(Tree):
    """The tree, with what its files consist of: replicas, members of archives, files of collections."""

    def book(self, bookings: Iterable[Booking], now_ms: int) -> None:
        """Remember who may commit what."""
        with self._database.change() as connection:
            rows = [(b.ticket, b.lfn, b.guid, b.se, b.user, b.job, now_ms) for b in bookings]
            connection.executemany("INSERT INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

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
                insert(connection, new)
            elif not entry.guid:
                self._existing(entry.lfn, booking.user, WRITE)
                self.check_quota(entry.owner, 0, size)
                tally(connection, "-", "lfn = ?", entry.lfn)
                filled = "UPDATE lfns SET guid = ?, size = ?, md5 = ?, ctime = ?, job = ? WHERE lfn = ?"
                connection.execute(filled, (guid, size, md5, now_ms, booking.job, entry.lfn))
                tally(connection, "+", "lfn = ?", entry.lfn)
            replica = connection.execute(
                "INSERT OR IGNORE INTO replicas"
                " SELECT ?, ?, coalesce(max(position), 0) + 1 FROM replicas WHERE guid = ?",
                (booking.guid, booking.se, booking.guid),
            )
            if replica.rowcount:
                more = f"INSERT INTO held VALUES (?, 1, ?) ON CONFLICT (se) {ADDED}"  # noqa: S608
                connection.execute(more, (booking.se, size))
            connection.execute("DELETE FROM bookings WHERE ticket = ?", (booking.ticket,))

    def enter_members(
        self, archive: Entry, members: Iterable[tuple[str, int, str]], user: str, now_ms: int
    ) -> None:
        """Enter members of an archive (name, size, MD5) as files beside it. Raises CatalogueError."""
        with self._database.change() as connection:
            for name, size, md5 in members:
                beside = posixpath.dirname(archive.lfn)
                lfn, guid = normal(posixpath.join(beside, name)), str(uuid.uuid1())
                if not lfn.startswith(posixpath.join(beside, "")):
                    raise CatalogueError(EIO, f"{archive.lfn}: its member {name} would not lie beside it")
                self.check_new(lfn, user, size)
                self.mkdir(posixpath.dirname(lfn), user, now_ms, parents=True)
                member = Entry(lfn, "f", user, user, "755", size, md5, guid, now_ms, archive.job)
                insert(connection, member)
                connection.execute("INSERT INTO members VALUES (?, ?, ?)", (guid, archive.guid, name))

    def collect(self, lfn: str, files: Sequence[Entry], user: str, now_ms: int) -> None:
        """Make a collection of these files. Raises CatalogueError."""
        with self._database.change() as connection:
            self._check_place(lfn, user)
            self.mkdir(posixpath.dirname(normal(lfn)), user, now_ms, parents=True)
            guid, size = str(uuid.uuid1()), sum(file.size for file in files)
            insert(connection, Entry(normal(lfn), "c", user, user, "755", size, "n/a", guid, now_ms))
            rows = [(guid, position, file.lfn) for position, file in enumerate(files)]
            connection.executemany("INSERT INTO collections VALUES (?, ?, ?)", rows)

    def forget(self, orphans: Iterable[tuple[str, str]]) -> None:
        """These are no longer on their SEs."""
        with self._database.change() as connection:
            connection.executemany("DELETE FROM orphans WHERE se = ? AND guid = ?", orphans)
