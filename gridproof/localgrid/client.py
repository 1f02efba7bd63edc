"""A small client of the embedded Grid's own: put, get and look, without the rest of the package."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from gridproof import xrdclient
from gridproof.errors import LocalGridError, TransferError
from gridproof.localgrid.storage.transfer import md5_of


class GridAccess:
    """One connection to an embedded Grid; a context manager."""

    def __init__(self, environment: Mapping[str, str], timeout: float = 60.0) -> None:
        self._timeout = timeout
        host, port = environment["ALIENPY_JCENTRAL"], environment["ALIENPY_JCENTRAL_PORT"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        # websockets reads and writes from two threads, which loses data with TLS 1.3 before Python 3.13.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(environment["X509_USER_CERT"], environment["X509_USER_KEY"])
        context.load_verify_locations(capath=environment["X509_CERT_DIR"])
        url = f"wss://{host}:{port}/websocket/json"
        self._stack = contextlib.ExitStack()
        try:
            self._connection = self._stack.enter_context(
                connect(url, ssl=context, max_size=None, open_timeout=timeout, proxy=None)
            )
        except (OSError, WebSocketException) as error:
            raise LocalGridError(f"The embedded Grid at {host}:{port} does not answer: {error}") from error

    def __enter__(self) -> GridAccess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, name: str, *options: str) -> list[dict[str, Any]]:
        """The rows of an answer; raises LocalGridError for a failure."""
        try:
            self._connection.send(json.dumps({"command": name, "options": options}))
            answer = json.loads(self._connection.recv(self._timeout))
        except (OSError, WebSocketException) as error:
            raise LocalGridError(f"The embedded Grid went away during {name}: {error}") from error
        metadata = answer["metadata"]
        if metadata["exitcode"] != "0":
            raise LocalGridError(f"{name} {' '.join(options)}: {metadata['error']}")
        rows: list[dict[str, Any]] = answer["results"]
        return rows

    def put(self, file: Path, lfn: str, ses: Sequence[str] = ()) -> None:
        """Store a local file under ``lfn``, with one replica on each of ``ses`` (none named: on any one)."""
        try:
            md5, size = md5_of(file), str(file.stat().st_size)
        except OSError as error:
            raise LocalGridError(f"{file} cannot be put on the Grid: {error.strerror}") from error
        lfn = self._whole(lfn)
        for permit in self.command("access", "write", lfn, ",".join(ses) or "disk:1"):
            try:
                xrdclient.upload(file, f"{permit['url']}?authz={permit['envelope']}")
            except TransferError as error:
                raise LocalGridError(f"Copying {file} to {permit['url']} failed: {error}") from error
            self.command(
                "commit",
                *(permit["envelope"], size, lfn, "755", "0", permit["url"]),
                *(permit["se"], permit["guid"], md5),
            )

    def get(self, lfn: str, file: Path) -> None:
        """Copy a file of the Grid to a local one, from the first replica that can be read."""
        for permit in self.command("access", "read", self._whole(lfn)):
            url, _, member = permit["url"].partition("#")
            try:
                xrdclient.download([f"{url}?authz={permit['envelope']}"], file, int(permit["size"]), member)
                return
            except TransferError as error:
                problem = LocalGridError(f"Copying {permit['url']} to {file} failed: {error}")
        raise problem

    def _whole(self, lfn: str) -> str:
        """An LFN as ``access`` needs it; others are below the home directory."""
        return lfn if lfn.startswith("/") else str(self.command("pwd")[0]["pwd"]) + lfn
