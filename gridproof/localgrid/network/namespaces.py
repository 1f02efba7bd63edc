"""Network namespaces that end with the process that made them, in whatever way it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

from gridproof.errors import LocalGridError

_CLONE_NEWNET = 0x40000000
_MINE = "/proc/thread-self/ns/net"


class Namespace:
    """A network of its own, with its loopback up.

    It has no name: a descriptor of this process holds it, and whatever runs in it. The kernel removes it
    with its devices, addresses and firewall when the last of these is gone. Linux, root only.
    """

    def __init__(self) -> None:
        with _kept():
            _check(_libc().unshare(_CLONE_NEWNET), "a network namespace cannot be made")
            self._fd = os.open(_MINE, os.O_RDONLY)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.run("ip", "link", "set", "lo", "up")

    @property
    def command(self) -> tuple[str, ...]:
        """What goes before a command that shall run in it."""
        return ("nsenter", f"--net={self.path}")

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a command in it; returns what it says.

        Raises:
            LocalGridError: it fails, with its words.
        """
        done = subprocess.run(
            [*self.command, *argv], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LocalGridError(f"{' '.join(argv)} failed: {done.stderr.strip() or done.returncode}")
        return done.stdout

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the threads and processes that it starts meanwhile, are in it."""
        with _kept():
            _check(_libc().setns(self._fd, _CLONE_NEWNET), "a network namespace cannot be entered")
            yield

    def close(self) -> None:
        """Let go of it; what runs in it may go on."""
        os.close(self._fd)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """This thread comes back to the network that it is in now."""
    before = os.open(_MINE, os.O_RDONLY)
    try:
        yield
    finally:
        _check(_libc().setns(before, _CLONE_NEWNET), "the way back into the former network is lost")
        os.close(before)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(answer: int, what: str) -> None:
    if answer:
        raise LocalGridError(f"{what}: {os.strerror(ctypes.get_errno())}")
