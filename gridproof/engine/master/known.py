"""What queries have learnt of files, for later ones: entries and clusters by name, size and tree."""

from __future__ import annotations

import array
import asyncio
import sqlite3
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

MOST_FILES = 500_000  # remembered; the ones used longest ago are forgotten first


class FileKey(NamedTuple):
    """A tree in a file of known content; ``size`` in bytes."""

    name: str
    size: int
    tree: str


class Learnt(NamedTuple):
    """Entries of a tree, and the first ones of its clusters (ascending)."""

    entries: int
    clusters: Sequence[int]


_SCHEMA = """
create table if not exists files (
    name text, size integer, tree text, entries integer, clusters blob, used real,
    primary key (name, size, tree)
) without rowid;
create index if not exists by_use on files (used);
"""


class KnownFiles:
    """A file that masters of one VO-box share, used in a thread of its own.

    What is in it are hints: whoever relies on one finds out when it is wrong. So whatever goes wrong with
    the file itself is as if nothing were known.
    """

    def __init__(self, path: Path, most: int = MOST_FILES) -> None:
        self._path = path
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="known files")

    async def find(self, keys: Sequence[FileKey]) -> dict[FileKey, Learnt]:
        """What is known of these."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._find, keys)
        except (OSError, sqlite3.Error):
            return {}

    def learn(self, learnt: Iterable[tuple[FileKey, Learnt]]) -> None:
        """Remember; returns at once."""
        self._thread.submit(self._learn, list(learnt))

    def forget(self, keys: Iterable[FileKey]) -> None:
        """Something else was found; returns at once."""
        self._thread.submit(self._forget, list(keys))

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown()

    # ------------------------------------------------------------ in the thread

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=10.0)
        database.executescript(_SCHEMA)
        return database

    def _find(self, keys: Sequence[FileKey]) -> dict[FileKey, Learnt]:
        found = {}
        with closing(self._open()) as database, database:
            for key in keys:
                row = database.execute(
                    "select entries, clusters from files where name = ? and size = ? and tree = ?", key
                ).fetchone()
                if row is not None:
                    found[key] = Learnt(row[0], _unpack(row[1]))
            if found:
                database.executemany(
                    "update files set used = ? where name = ? and size = ? and tree = ?",
                    [(time.time(), *key) for key in found],
                )
        return found

    def _learn(self, learnt: Sequence[tuple[FileKey, Learnt]]) -> None:
        with suppress(OSError, sqlite3.Error), closing(self._open()) as database, database:
            database.executemany(
                "insert or replace into files values (?, ?, ?, ?, ?, ?)",
                [(*key, known.entries, _pack(known.clusters), time.time()) for key, known in learnt],
            )
            (number,) = database.execute("select count(*) from files").fetchone()
            if number > self._most:
                database.execute(
                    "delete from files where (name, size, tree) in "
                    "(select name, size, tree from files order by used limit ?)",
                    (number - self._most,),
                )

    def _forget(self, keys: Sequence[FileKey]) -> None:
        with suppress(OSError, sqlite3.Error), closing(self._open()) as database, database:
            database.executemany("delete from files where name = ? and size = ? and tree = ?", keys)


def _pack(clusters: Sequence[int]) -> bytes:
    """Clusters are mostly of one size: their lengths compress well."""
    return zlib.compress(array.array("q", (b - a for a, b in pairwise((0, *clusters)))).tobytes())


def _unpack(packed: bytes) -> tuple[int, ...]:
    lengths = array.array("q")
    lengths.frombytes(zlib.decompress(packed))
    return tuple(accumulate(lengths))
