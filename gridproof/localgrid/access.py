"""A small client of the embedded Grid's own: put, get and look, without the rest of the package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from gridproof.errors import LocalGridError
from gridproof.localgrid.transfer import copy_argv, transfer_environment


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
            content = hashlib.md5(usedforsecurity=False)
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    content.update(block)
            size = str(file.stat().st_size)
        except OSError as error:
            raise LocalGridError(f"{file} cannot be put on the Grid: {error.strerror}") from error
        for permit in self.command("access", "write", lfn, *(ses or ["disk:1"])):
            self._copy(str(file), permit["url"])
            self.command(
                "commit",
                *(permit["envelope"], size, lfn, "644", "0", permit["url"]),
                *(permit["se"], permit["guid"], content.hexdigest()),
            )

    def get(self, lfn: str, file: Path) -> None:
        """Copy a file of the Grid to a local one, from the first replica that can be read."""
        permits = self.command("access", "read", lfn)
        for number, permit in enumerate(permits, start=1):
            try:
                self._copy("--force", permit["url"], str(file))
                return
            except LocalGridError:
                if number == len(permits):
                    raise

    def _copy(self, *arguments: str) -> None:
        done = subprocess.run(
            copy_argv(*arguments), capture_output=True, text=True, env=transfer_environment(), check=False
        )
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or [f"xrdcp exited with {done.returncode}"]
            raise LocalGridError(f"Copying {' to '.join(arguments[-2:])} failed: {why[0]}")
