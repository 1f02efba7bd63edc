"""A merged output file of a query, at the user's side."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from ..errors import QueryError, StoreError

_PIECE = 16 << 20  # bytes asked for at a time


class OutputFile:
    """What a selector wrote by a ``gridproof::OutputFile``, merged. It stays on the VO-box until it is used.

    ``name``: the selector's; ``size`` in bytes.

    Raises (what uses the file):
        SessionError: the session is closed, the file with it.
        QueryError: the query was forgotten, or there is no room here.
    """

    def __init__(
        self,
        root: Any,
        name: str,
        size: int,
        fetch: Callable[[int, int], bytes],
        locate: Callable[[], str],
    ) -> None:
        self.name = name
        self.size = size
        self._root = root
        self._fetch = fetch  # (offset, size) → bytes
        self._locate = locate  # its URL
        self._path: Path | None = None

    @property
    def url(self) -> str:
        """Where processes of this machine and account read it, by ``root://`` from the session's store.

        It is there as long as the query is kept and this process is attached to the session.

        Raises:
            StoreError: the session has no store.
        """
        return self._locate()

    @property
    def path(self) -> Path:
        """Where it lies: fetched on first use, into a temporary directory that goes with this object."""
        if self._path is None:
            directory = Path(mkdtemp(prefix="gridproof-"))
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            self.download(directory / self.name)
            self._path = directory / self.name
        return self._path

    def open(self) -> Any:
        """The file as a ``TFile``, to be read; from the store only what is read is transferred."""
        if self._path is None:
            with suppress(StoreError, OSError):
                return self._root.TFile.Open(self.url)
        return self._root.TFile.Open(str(self.path))

    def download(self, path: Path) -> None:
        """Write the file to ``path``."""
        try:
            with path.open("wb") as file:
                while file.tell() < self.size:
                    file.write(self._fetch(file.tell(), _PIECE))
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise QueryError(f"{self.name} cannot be written to {path}: {error.strerror}") from None
            raise

    def __repr__(self) -> str:
        return f"<OutputFile {self.name}: {self.size:,} bytes>"
