"""What a pilot and its workers write, in pieces that travel with the heartbeats."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LOG = "worker.log"  # what a worker writes, in its directory
PIECE = 4096  # bytes of one log that are read at a time, from its end where there are more
ALL_PIECES = 65_536  # and of all together
ENDS_KEPT = 64  # of logs, while nobody asks
OWN_LINES = 200  # of the pilot's own that are kept, to be told again to a ProxyServer that has forgotten them

# An XRootD URL carries the leave to read a file, and some clients write it into their messages; no message
# should hold a key, but what looks like a piece of one is none of a log's either.
_SECRETS = re.compile(
    r"(?:\bauthz=)?-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)"
    r"|\bauthz=[^&\s\"']+|^[A-Za-z0-9+/]{60,76}={0,2}$",
    re.DOTALL | re.MULTILINE,
)


class NewLines:
    """Follows the log files of workers.

    What a line holds is sent when the line is complete, or the log at its end.
    """

    def __init__(self) -> None:
        self._logs: dict[str, _Followed] = {}
        self._ends: deque[tuple[str, str]] = deque(maxlen=ENDS_KEPT)

    def follow(self, worker: str, log: Path) -> None:
        """From its beginning."""
        self._logs[worker] = _Followed(log)

    def new(self) -> Iterator[tuple[str, str]]:
        """What has been written since the last time, by worker."""
        while self._ends:
            yield self._ends.popleft()
        most = min(PIECE, ALL_PIECES // max(1, len(self._logs)))
        for worker, log in self._logs.items():
            if text := log.read(most):
                yield worker, text

    def ended(self, worker: str) -> None:
        """Keep the end of its log, which may go now, until it is asked for."""
        log = self._logs.pop(worker, None)
        if log is not None and (text := log.read(PIECE, ended=True)):
            self._ends.append((worker, text))


class OwnLines:
    """The pilot's own lines: all that are kept, for a new connection, or those since the last time."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=OWN_LINES)
        self._untold = 0

    def add(self, line: str) -> None:
        """One more."""
        self._lines.append(line)
        self._untold = min(self._untold + 1, OWN_LINES)

    def again(self) -> None:
        """All that are kept count as untold."""
        self._untold = len(self._lines)

    def new(self) -> str:
        """Those that are untold."""
        untold, self._untold = self._untold, 0
        return "".join(f"{line}\n" for line in list(self._lines)[len(self._lines) - untold :])


class _Followed:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0  # bytes

    def read(self, most: int, ended: bool = False) -> str:
        try:
            with self._path.open("rb") as file:
                return self._next(file, most, ended)
        except OSError:
            return ""

    def _next(self, file: BinaryIO, most: int, ended: bool) -> str:
        size = os.fstat(file.fileno()).st_size
        skipped = max(0, size - self._read - most)
        file.seek(self._read + skipped)
        piece = file.read(most)
        if skipped:
            begun = piece.find(b"\n") + 1  # the rest of a line says little, and might be one of a secret
            piece, skipped = piece[begun:], skipped + begun
        if not ended and len(piece) < most:
            piece = piece[: piece.rfind(b"\n") + 1]
        self._read += skipped + len(piece)
        text = without_secrets(piece.decode(errors="replace"))
        return f"… ({skipped} bytes are left out)\n{text}" if skipped else text


def without_secrets(text: str) -> str:
    """A piece of a log without what must not leave the node."""
    return _SECRETS.sub("(secret)", text)
