"""The task queue on disk: jobs, their traces, and quotas that were changed."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from gridproof.localgrid.database import Database
from gridproof.localgrid.jobs.job import Changes, Job, TraceLine

_COLUMNS = [field.name for field in fields(Job)]
_ROW = attrgetter(*_COLUMNS)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs ({", ".join(_COLUMNS).replace("id,", "id INTEGER PRIMARY KEY,", 1)});
CREATE TABLE IF NOT EXISTS trace (line INTEGER PRIMARY KEY, job INTEGER, at REAL, tag TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS trace_of ON trace (job, line);
CREATE TABLE IF NOT EXISTS quotas (user TEXT, field TEXT, value INTEGER, PRIMARY KEY (user, field));
"""
_SAVE = f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_LOAD = f"SELECT {', '.join(_COLUMNS)} FROM jobs ORDER BY id"  # noqa: S608


class JobStore:
    """Where the task queue survives the service."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def load(self) -> list[Job]:
        """All jobs, oldest first."""
        return [Job(*row) for row in self._database.rows(_LOAD)]  # type: ignore[arg-type]

    def save(self, changes: Changes) -> None:
        """Store what changed, in one transaction."""
        with self._database.change() as connection:
            connection.executemany(_SAVE, map(_ROW, changes.jobs))
            connection.executemany(
                "INSERT INTO trace (job, at, tag, text) VALUES (?, ?, ?, ?)",
                [(line.job, line.at, line.tag, line.text) for line in changes.trace],
            )

    def trace(self, job_id: int) -> list[TraceLine]:
        """The trace of a job, first line first."""
        query = "SELECT job, at, tag, text FROM trace WHERE job = ? ORDER BY line"
        return [TraceLine(*row) for row in self._database.rows(query, job_id)]  # type: ignore[arg-type]

    def quotas(self) -> list[tuple[str, str, int]]:
        """Limits that were changed: of whom, which, to what."""
        return self._database.rows("SELECT user, field, value FROM quotas")  # type: ignore[return-value]

    def save_quota(self, user: str, field: str, value: int) -> None:
        """Remember a changed limit."""
        with self._database.change() as connection:
            connection.execute("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)", (user, field, value))

    def close(self) -> None:
        """Close the file."""
        self._database.close()
