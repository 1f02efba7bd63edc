"""Outputs of failed jobs: uploaded, but not in the catalogue until ``registerOutput`` asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from sqlite3 import Connection

from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking

DIRECTORY = "recycle"  # in the home of the job's owner
KEPT_MS = 24 * 3_600_000  # then what nobody asked for is deleted


def keep(
    catalogue: Catalogue,
    job: int,
    bookings: Iterable[Booking],
    size: int,
    md5: str,
    members: Sequence[tuple[str, int, str]],
) -> None:
    """Keep the replicas of one file and, if it is an archive, its members (name, size, MD5)."""
    with catalogue.change() as connection:
        rows = [(job, booking.ticket, size, md5, json.dumps(members)) for booking in bookings]
        connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?, ?)", rows)


def register(catalogue: Catalogue, job: int, now_ms: int) -> list[str]:
    """Enter what was kept of a job; the LFNs. Raises CatalogueError."""
    with catalogue.change() as connection:
        query = "SELECT ticket, size, md5, members FROM kept WHERE job = ?"
        lfns: dict[str, None] = {}
        for ticket, size, md5, members in connection.execute(query, (job,)).fetchall():
            if (booking := catalogue.booking(ticket)) is None:
                continue
            catalogue.commit(booking, size=size, md5=md5, perm="755", now_ms=now_ms)
            archive = catalogue.get(booking.lfn)
            if archive and booking.lfn not in lfns:
                catalogue.enter_members(archive, json.loads(members), booking.user, now_ms)
            lfns[booking.lfn] = None
        connection.execute("DELETE FROM kept WHERE job = ?", (job,))
    return list(lfns)


def drop(catalogue: Catalogue, job: int) -> None:
    """What was kept of a job's former run becomes the catalogue's orphans."""
    with catalogue.change() as connection:
        _drop(connection, "ticket IN (SELECT ticket FROM kept WHERE job = ?)", job)


def expire(catalogue: Catalogue, now_ms: int) -> None:
    """All bookings that nobody came back for become orphans."""
    with catalogue.change() as connection:
        _drop(connection, "at < ?", now_ms - KEPT_MS)


def _drop(connection: Connection, which: str, value: int) -> None:
    entered = "SELECT 1 FROM replicas WHERE replicas.guid = bookings.guid AND replicas.se = bookings.se"
    which += f" AND NOT EXISTS ({entered})"
    connection.execute(f"INSERT OR IGNORE INTO orphans SELECT se, guid FROM bookings WHERE {which}", (value,))  # noqa: S608
    gone = connection.execute(f"SELECT ticket FROM bookings WHERE {which}", (value,)).fetchall()  # noqa: S608
    for table in ("bookings", "kept"):
        connection.executemany(f"DELETE FROM {table} WHERE ticket = ?", gone)  # noqa: S608
