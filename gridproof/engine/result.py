"""What a query leaves: its outputs by name, and what it took."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import QueryError
from .outputfile import OutputFile


@dataclass(frozen=True)
class Summary:
    """What a query took.

    ``events``: entries processed; ``bytes_read`` from storage, ``local_bytes`` of them from an SE of the
    worker's own site; ``wall``: seconds at the master; ``per_worker``: entries by worker;
    ``missing_files``: why, by name; ``merge_seconds``: what merging took at the master; ``received_bytes``,
    ``sent_bytes``: outputs that workers sent to the master, and what it sent to them and to this process;
    ``master_memory``: bytes that the session's master had at most.
    """

    events: int
    bytes_read: int
    local_bytes: int
    wall: float
    packets: int
    per_worker: Mapping[str, int] = field(default_factory=dict)
    missing_files: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    merge_seconds: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
    master_memory: int = 0

    @property
    def local_fraction(self) -> float:
        """Share of the bytes that were read at the worker's own site."""
        return self.local_bytes / self.bytes_read if self.bytes_read else 0.0

    def __str__(self) -> str:
        wall = max(self.wall, 1e-9)
        text = (
            f"{self.events:,} events in {self.wall:.2f} s ({self.events / wall:,.0f}/s, "
            f"{self.bytes_read / wall / 1e6:.1f} MB/s, {self.local_fraction:.0%} read at the own site) "
            f"by {len(self.per_worker)} workers; master: {self.received_bytes / 1e6:.1f} MB in, "
            f"{self.sent_bytes / 1e6:.1f} MB out, {self.master_memory / 1e6:.0f} MB of memory"
        )
        missing = [f"missing: {name}: {why}" for name, why in self.missing_files.items()]
        return "\n".join([text, *missing, *self.warnings])


class Result(Mapping[str, Any]):
    """The outputs of a query by name, and its `summary`.

    They are ROOT objects that belong to whoever holds them, or `OutputFile` for files.
    """

    def __init__(
        self,
        root: Any,
        objects: Mapping[str, Any],
        summary: Summary,
        upload: Callable[[Path, str], None] | None,
    ) -> None:
        self._root = root
        self._objects = dict(objects)
        self._upload = upload
        self.summary = summary

    def __getitem__(self, name: str) -> Any:
        try:
            return self._objects[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._objects, 3) or sorted(self._objects)[:8]
            raise KeyError(f"no output {name!r}; there are {', '.join(near) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def __repr__(self) -> str:
        lines = [
            str(item) if isinstance(item, OutputFile) else f"{name}: {item.ClassName()}"
            for name, item in self._objects.items()
        ]
        return "\n".join([f"<Result: {self.summary}", *(f"  {line}" for line in lines)]) + ">"

    def save(self, where: str | Path) -> None:
        """Write all outputs but files to a ROOT file: a local path, or an LFN.

        An LFN begins with ``alien://`` or with the catalogue's own top directory.

        Raises:
            QueryError: the file cannot be written.
            AlienError: the Grid refuses it.
        """
        if self._upload is None or not _is_lfn(str(where)):
            self._write(Path(where))
            return
        with TemporaryDirectory(prefix="gridproof-") as directory:
            path = Path(directory) / "result.root"
            self._write(path)
            self._upload(path, str(where).removeprefix("alien://"))

    def save_file(self, name: str, where: str | Path) -> None:
        """Write the output file ``name`` to a local path or directory, or to an LFN (see `save`).

        Raises:
            QueryError: it is no file, or cannot be written.
            AlienError: the Grid refuses it.
        """
        file = self[name]
        if not isinstance(file, OutputFile):
            raise QueryError(f"{name} is a {file.ClassName()}, not a file; save() writes it")
        if self._upload is not None and _is_lfn(str(where)):
            self._upload(file.path, str(where).removeprefix("alien://"))
            return
        path = Path(where)
        file.download(path / name if path.is_dir() else path)

    def _write(self, path: Path) -> None:
        try:
            file = self._root.TFile.Open(str(path), "RECREATE")
        except OSError:
            raise QueryError(
                f"{path} cannot be written; is there such a directory, and room on the disk?"
            ) from None
        try:
            for name, item in self._objects.items():
                if isinstance(item, OutputFile):
                    continue
                if file.WriteTObject(item, name) <= 0:
                    raise QueryError(f"{name} could not be written to {path}; is the disk full?")
        finally:
            file.Close()


def _is_lfn(where: str) -> bool:
    return where.startswith("alien://") or (where.startswith("/") and not Path(where).parent.is_dir())
