"""SQLite as the Grid uses it: one file, WAL, one transaction for each change."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """Threads take turns to change something; reading goes on beside that, on connections of its own.

    Every ``with database.change()`` is one transaction. What was committed outlives the process however it
    ends; a power cut may take the last moments with it (``synchronous = NORMAL``), but tears nothing.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._turn = threading.RLock()
        self._depth = 0
        self._changing: int | None = None  # the thread that does
        self._closed = False
        self._writer = self._connect()
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = NORMAL")
        self._writer.executescript(schema)
        self._readers: list[sqlite3.Connection] = []  # those that nobody uses now

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Everything inside or nothing, and no other thread in between; one inside another is part of it."""
        with self._turn:
            if self._depth == 0:
                self._writer.execute("BEGIN IMMEDIATE")
                self._changing = threading.get_ident()
            self._depth += 1
            try:
                yield self._writer
                if self._depth == 1:
                    self._writer.execute("COMMIT")
            except BaseException:
                if self._depth == 1 and self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._changing = None

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """All rows of a query: what is committed, and in a change what that has done so far."""
        if self._changing == threading.get_ident():
            return self._writer.execute(query, values).fetchall()
        if self._closed:
            raise sqlite3.ProgrammingError(f"{self._path.name} is closed")
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = self._connect()
        try:
            return reader.execute(query, values).fetchall()
        finally:
            reader.close() if self._closed else self._readers.append(reader)

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._closed = True
        with self._turn:
            while self._readers:
                self._readers.pop().close()
            self._writer.close()
