"""Files that selectors write on a worker: where, and how they come to the master."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from .masterlink import MasterLink

CHUNK = 4 << 20  # bytes in a message
_PREFIX = "gridproof-outputs-"


@dataclass(frozen=True)
class WrittenFile:
    """An output file of an instance that has ended: the output's name, and where it lies."""

    name: str
    path: Path


class OutputDirectory:
    """A directory of this process's own, below ``parent``, where ``gridproof::OutputFile`` writes.

    The open instance's files lie at its top; `take` brings one in safety when the instance has ended. It goes
    with `close`; what a killed process has left goes when the next directory is made beside it.
    """

    def __init__(self, parent: Path) -> None:
        for directory in parent.glob(f"{_PREFIX}*"):
            _remove_if_left(directory)
        self.path = Path(mkdtemp(prefix=_PREFIX, dir=parent))
        self._taken = self.path / "taken"
        self._taken.mkdir()
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._count = 0
        os.environ["GRIDPROOF_OUTPUTS"] = str(self.path)

    def take(self, name: str, path: str) -> WrittenFile:
        """Keep a file until it is sent."""
        self._count += 1
        return WrittenFile(name, Path(path).rename(self._taken / str(self._count)))

    def clear(self) -> list[str]:
        """Remove what the instance has left; returns the names."""
        left = [path for path in self.path.iterdir() if path != self._taken]
        for path in left:
            path.unlink()
        return [path.name for path in left]

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(directory: Path) -> None:
    try:
        handle = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:  # another worker was faster
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass  # its process lives
    finally:
        os.close(handle)


async def send(
    master: MasterLink, query: int, prefix: str, files: tuple[WrittenFile, ...]
) -> list[tuple[str, str, int]]:
    """Bring files to the master, in chunks, under names that begin with ``prefix``.

    Returns name, name there and size of each, for the commit.
    """
    sent = []
    for number, file in enumerate(files):
        upload, offset = f"{prefix}-{number}", 0
        with file.path.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, CHUNK):
                await master.ask("upload", query=query, upload=upload, offset=offset, data=chunk)
                offset += len(chunk)
        sent.append((file.name, upload, offset))
    return sent
