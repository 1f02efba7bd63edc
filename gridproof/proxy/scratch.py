"""The directory of a ProxyServer whose configuration names none."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "gridproof-proxy-"
_NEWBORN = 60.0  # seconds in which its owner may not have locked it yet


class Scratch:
    """A private temporary directory, locked as long as this process lives.

    Making one removes those of ProxyServers that were killed.
    """

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _locked(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(directory: Path) -> None:
    with suppress(OSError):  # somebody else's, or in use, or going
        status = directory.stat()
        if status.st_uid == os.getuid() and time.time() - status.st_mtime > _NEWBORN:
            lock = _locked(directory)
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)


def _locked(directory: Path) -> int:
    """Raises OSError if another process has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
