"""Child processes that die with their owner, also after ``kill -9`` of the owner.

Two independent mechanisms: the kernel's parent-death signal, and the child's standard input, a pipe
held by the owner whose end-of-file tells the child to clean up and leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_MANY_FILES = 1 << 16


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Ask the kernel to send ``signum`` to this process when ``parent`` (its parent's pid) is gone.

    To be called in the child, after any change of uid (which clears it). Linux only; elsewhere the
    owner pipe alone does the work.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:  # gone before the request was made
        os.kill(os.getpid(), signum)


def allow_many_files() -> None:
    """Let this process and its children have as many files and connections open as they may.

    The usual limit, 1024, is less than the workers of a session have connections.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if most == resource.RLIM_INFINITY else min(_MANY_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _preexec(signum: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Everything that allocates or imports is done before the fork.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child that outlives neither this process nor the thread that calls.

    Its standard input is a pipe that this process holds open: write configuration and secrets there,
    and the child takes end-of-file for the end of its owner. The parent-death signal is bound to the
    calling *thread*, so call from one that lasts as long as the child may.
    """
    command, in_child = [str(a) for a in argv], _preexec(death_signal)
    setpriv = shutil.which("setpriv")
    if setpriv and "ROOT" in sys.modules:
        # XRootD's client stops its threads for a fork(), and waits forever for one that closes a file.
        # A vfork() it does not notice, but that one runs nothing of ours in the child.
        name = signal.Signals(death_signal).name.removeprefix("SIG")
        command, in_child = [setpriv, "--pdeathsig", name, "--", *command], None
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=in_child,
    )


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> int:
    """Close the owner pipe; after ``grace`` s SIGTERM, then SIGKILL. Returns the exit code."""
    if process.stdin and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    for act in (process.terminate, process.kill):
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            act()
    return process.wait()
