"""A query's files at the master: uploads of workers, and what they are merged into."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import MergeError

MERGED = "merged"  # the directory of merged files, where each has its own name
BATCH = 10  # files merged at a time,
BATCH_BYTES = 64 << 20  # or fewer, if they are as large as this together
_UPLOAD = re.compile(r"[\w.'-]{1,200}")
_OUTPUT = re.compile(r"(?!\.{1,2}$)[^/\0]{1,200}")

Uploaded = Sequence[tuple[str, str, int]]
"""Output files of a commit: the output's name, that of the upload, and its size in bytes."""


def unlimited() -> float:
    """Room for everything."""
    return math.inf


class Spool:
    """One query's directory, which is made when something comes. All methods run in the merge thread.

    Raises (all that write): `MergeError`, if the disk is full or there is no ``room``.
    """

    def __init__(self, root: Any, directory: Path, room: Callable[[], float] = unlimited) -> None:
        self._root = root
        self._directory = directory
        self._room = room  # bytes that may still be written
        self._uploads: dict[str, str] = {}  # not merged yet: name → worker
        self._waiting: dict[str, dict[Path, int]] = defaultdict(dict)  # by output: files and their sizes
        self._mergers: dict[str, Any] = {}  # by output: gridproof::FileMerger
        self._merged: dict[str, Path] = {}  # by output

    # ------------------------------------------------------------ uploads

    def write(self, worker: str, upload: str, offset: int, data: bytes) -> None:
        """Take in a chunk of a worker's file."""
        if not _UPLOAD.fullmatch(upload):
            raise MergeError(f"{upload[:100]!r} is no name for an upload")
        self._uploads[upload] = worker
        self._see_room(len(data))
        self._write(self._upload(upload), offset, data)

    def check(self, files: Uploaded) -> None:
        """See that uploads are here and whole.

        Raises:
            MergeError: one is not.
        """
        for name, upload, size in files:
            if not _OUTPUT.fullmatch(name):
                raise MergeError(f"{name[:100]!r} is no name for an output file")
            path = self._upload(upload)
            if upload not in self._uploads or path.stat().st_size != size:
                raise MergeError(f"output file {name} did not come in whole")

    def drop(self, uploads: Iterable[str]) -> None:
        """Remove uploads that do not count."""
        for upload in uploads:
            if self._uploads.pop(upload, None) is not None:
                self._upload(upload).unlink(missing_ok=True)

    def lost(self, worker: str) -> None:
        """A worker is gone, with it what it has not committed."""
        self.drop([upload for upload, owner in self._uploads.items() if owner == worker])

    # ------------------------------------------------------------ merging

    def merge(self, files: Uploaded) -> None:
        """Add the files of a commit to the outputs.

        Raises:
            MergeError: they cannot be merged.
        """
        for name, upload, size in files:
            del self._uploads[upload]
            waiting = self._waiting[name]
            waiting[self._upload(upload)] = size
            if len(waiting) >= BATCH or sum(waiting.values()) >= BATCH_BYTES:
                self._merge_waiting(name)

    def finish(self) -> None:
        """Merge what waits, and close the outputs.

        Raises:
            MergeError: they cannot be merged.
        """
        self.drop(list(self._uploads))
        for name in list(self._waiting):
            self._merge_waiting(name)
        for name, merger in self._mergers.items():
            self._check(name, str(merger.Close()))
        self._mergers.clear()

    def _merge_waiting(self, name: str) -> None:
        paths = self._waiting.pop(name)
        self._see_room(sum(paths.values()))
        if name not in self._merged:
            self._merged[name] = self._directory / MERGED / name
            self._merged[name].parent.mkdir(mode=0o750, exist_ok=True)
            self._mergers[name] = self._root.gridproof.FileMerger(str(self._merged[name]))
        self._check(name, str(self._mergers[name].Merge([str(path) for path in paths])))
        for path in paths:
            path.unlink()

    def _upload(self, upload: str) -> Path:
        return self._directory / f"upload {upload}"

    def _see_room(self, size: int) -> None:
        if size > self._room():
            raise MergeError(
                "there is no room for output files in the session's store: write less, forget other queries, "
                "or remove files from it"
            )

    def _check(self, name: str, problem: str) -> None:
        if problem:
            full = "; is the master's disk full?" if self._root.gridproof.Errors().writing.load() else ""
            raise MergeError(f"output file {name} cannot be merged: {problem}{full}")

    # ------------------------------------------------------------ what is kept

    def keep(self, name: str, data: bytes) -> None:
        """Keep bytes as a file of that name."""
        path = self._directory / f"kept {len(self._merged)}"
        try:
            self._write(path, 0, data)
        except MergeError:
            with suppress(OSError):
                path.unlink()
            raise
        self._merged[name] = path

    def sizes(self) -> dict[str, int]:
        """Names and bytes of the files that are kept."""
        return {name: path.stat().st_size for name, path in self._merged.items()}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file that is kept; fewer at its end.

        Raises:
            MergeError: there is no such file.
        """
        try:
            with self._merged[name].open("rb") as file:
                return os.pread(file.fileno(), size, offset)
        except (KeyError, FileNotFoundError):
            raise MergeError(f"there is no output file {name!r} at the master") from None

    def remove(self) -> None:
        """Remove everything."""
        for merger in self._mergers.values():
            merger.Close()
        for known in (self._uploads, self._waiting, self._mergers, self._merged):
            known.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, path: Path, offset: int, data: bytes) -> None:
        try:
            self._directory.mkdir(mode=0o750, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                rest = memoryview(data)
                while rest:
                    written = os.pwrite(handle, rest, offset)
                    rest, offset = rest[written:], offset + written
            finally:
                os.close(handle)
        except OSError as error:
            raise MergeError(
                f"the master cannot write to {self._directory} ({error.strerror}): free some space there, "
                "or write less"
            ) from None
