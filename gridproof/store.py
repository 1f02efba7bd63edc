"""The session's store: files on the VO-box that its user and its workers share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import xrdclient
from .engine.spool import MERGED
from .errors import ConfigError, ProxyError, StoreError, TransferError
from .proxy.protocol import StoreAccess, store_top
from .records import Table

_NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.+=@~-]+(?:/[\w.+=@~-]+)*")
_LISTED = (
    re.compile(  # a file in the answer of `xrdfs ls -l`: its mode, account, group, size, date, time, path
        r"^-\S+ +\S+ +\S+ +(\d+) +[\d-]+ +[\d:]+ +(/.*)$", re.MULTILINE
    )
)
_REMOTE = "?remote=1"  # for ROOT, which would take what is on this machine for a local file
_NO_SUCH_FILE = "[3011]"  # XRootD's number


@dataclass(frozen=True)
class StoreFile:
    """A file in the store; ``size`` in bytes."""

    name: str
    size: int


class Store:
    """Files of one session, by names such as ``"calib/2026.root"``; they go when it ends.

    Selectors on workers find one at ``gridproof::StoreUrl(name)`` (``<gridproof/Store.h>``), this process
    and others of its account at `url`. ``limit``: the bytes that it holds at most, merged output files of
    queries included.

    Raises (every method):
        StoreError: there is no store, it is full, or has no such file.
    """

    def __init__(self, access: StoreAccess, port: Callable[[], int]) -> None:
        self.limit = access.size
        self._access = access
        self._top = store_top(access.session)
        self._port = port  # here; asked for when it is first needed

    def put(self, local: str | os.PathLike[str], name: str) -> None:
        """Copy a local file into the store; a file of that name is replaced.

        Raises:
            ConfigError: there is no such file, or the name is none.
        """
        path, url = Path(local).expanduser(), self.url(name)
        if not path.is_file():
            raise ConfigError(f"there is no file {path}")
        there = {file.name: file.size for file in self.ls()}
        if path.stat().st_size > (left := self.limit - self.used + there.get(name, 0)):
            raise StoreError(
                f"{path} of {_mb(path.stat().st_size)} does not fit into the session's store, which has "
                f"{_mb(left)} of {_mb(self.limit)} left: rm() what is not needed, or forget queries with "
                "output files"
            )
        self._run("xrdcp", "--silent", "--nopbar", "--force", "--posc", str(path.absolute()), url)

    def get(self, name: str, local: str | os.PathLike[str]) -> Path:
        """Copy a file out of the store to a local path or directory; returns the path."""
        path = Path(local).expanduser()
        path = path / name.rpartition("/")[2] if path.is_dir() else path
        self._run("xrdcp", "--silent", "--nopbar", "--force", self.url(name), str(path.absolute()))
        return path

    def ls(self) -> Table[StoreFile]:
        """The files that were put there, as records; printed, a table."""
        return Table(StoreFile, (StoreFile(name, size) for name, size in self._list("files")))

    def rm(self, name: str) -> None:
        """Remove a file."""
        self.url(name)
        self._run("xrdfs", self._server, "rm", f"{self._top}/files/{name}")

    def url(self, name: str) -> str:
        """Where processes of this machine and account find a file, by ``root://``; it need not be there yet.

        The key lies in a file that only this account can read, and XRootD finds it by itself.

        Raises:
            ConfigError: the name is none.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a file in the store: letters, digits, _.+=@~- and /")
        return self._url(f"files/{name}")

    def result_url(self, query: int, name: str) -> str:
        """Where a query's merged output file is read.

        Raises:
            StoreError: it cannot be, by its name.
        """
        if not _NAME.fullmatch(name):
            raise StoreError(f"a name such as {name!r} cannot stand in a URL")
        return self._url(f"results/query-{query}/{MERGED}/{name}")

    @property
    def used(self) -> int:
        """The bytes in it, merged output files of queries included."""
        return sum(size for part in ("files", "results") for _, size in self._list(part))

    def close(self) -> None:
        """Remove the key from this machine."""
        with suppress(OSError):
            Path(self._access.keytab).unlink()

    def __repr__(self) -> str:
        return f"<Store of session {self._access.session}: {_mb(self.used)} of {_mb(self.limit)}>"

    # ------------------------------------------------------------ inside

    @property
    def _server(self) -> str:
        access = self._access
        if not access.port:
            raise StoreError(f"session {access.session} has no store: {access.problem}")
        try:
            xrdclient.keep_key(access.keytab, access.key)
        except ProxyError as error:
            raise StoreError(str(error)) from None
        return f"root://127.0.0.1:{self._port()}/"

    def _url(self, path: str) -> str:
        return f"{self._server}{self._top}/{path}{_REMOTE}"

    def _list(self, part: str) -> list[tuple[str, int]]:
        top = f"{self._top}/{part}"
        said = self._run("xrdfs", self._server, "ls", "-l", "-R", top)
        return [(path.removeprefix(f"{top}/"), int(size)) for size, path in _LISTED.findall(said)]

    def _run(self, *argv: str) -> str:
        try:
            return xrdclient.run(argv, environ={"XrdSecSSSKT": self._access.keytab})
        except TransferError as error:
            if _NO_SUCH_FILE in str(error):
                raise StoreError("there is no such file in the session's store; ls() lists them") from None
            raise StoreError(f"the session's store: {error}") from None


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
