"""``proof.conf``: a session's workers in the file format of PROOF, kept up to date in its directory."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gridproof.proxy.pool.records import WorkerRecord

if TYPE_CHECKING:
    from gridproof.proxy.server import ProxyServer

NAME = "proof.conf"
_SOON = 0.2  # s; changes within it are written together


def render(user: str, master: str, workers: Iterable[WorkerRecord]) -> str:
    """The file's text: a line for each worker that runs; one without a port is told in a comment.

    Workers with the same ``image`` see the same local files: those of one node.
    """
    lines = [f"master {master}"]
    for worker in workers:
        if worker.state == "running":
            image = f"image={worker.site}-{worker.host}"
            at = (
                f"worker {user}@localhost port={worker.number}"
                if worker.number
                else f"# no port: {worker.name}"
            )
            lines.append(f"{at} {image}")
    return "\n".join([*lines, ""])


class ProofConfs:
    """Writes the files, each in one step."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._seen: dict[str, int] = {}  # per session the registry's version that was written last
        self._written: tuple[int, list[str]] = 0, []
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Write in a moment what has changed, if anything has."""
        if self._timer is None and self._now() != self._written:
            self._timer = asyncio.get_running_loop().call_later(_SOON, self._write)

    def close(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> tuple[int, list[str]]:
        """The registry's version, and the sessions that are open."""
        masters = self._server.users.masters.items()
        return self._server.registry.version, [name for name, master in masters if master.port]

    def _write(self) -> None:
        self._timer = None
        registry = self._server.registry
        self._written = _, sessions = self._now()
        self._seen = {name: self._seen.get(name, -1) for name in sessions}
        for name in sessions:
            directory = self._server.directory / f"session-{name}"
            if registry.records(name, since=self._seen[name])[1] or self._seen[name] < 0:
                self._seen[name] = registry.version
                text = render(registry.owner(name) or "", socket.gethostname(), registry.records(name)[1])
                with suppress(OSError):  # its disk is full, or it goes
                    replace(directory / NAME, text)


def replace(path: Path, text: str) -> None:
    """Write a file in one step: readers see the old one or the new one, and a link that lies there goes.

    Raises:
        OSError: it cannot be written.
    """
    handle, new = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(new).replace(path)
    except OSError:
        Path(new).unlink(missing_ok=True)
        raise
