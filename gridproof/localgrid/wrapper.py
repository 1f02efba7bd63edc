"""Runs one payload so that nothing of it is left: ``python -I -S wrapper.py EXECUTABLE [ARGUMENT…]``.

Standard library only, so that it starts in milliseconds. The agent holds our standard input: a line
``TERM seconds`` asks the payload to end and kills it after a grace; end-of-file (the agent is gone) kills
at once. Whatever the payload starts, in sessions of their own too, comes back to this process as the
nearest subreaper and is killed when the payload ends. On standard output: a line with the payload's pid, in
the end one JSON object ``{"code", "signal", "real", "user", "sys", "error"}``. The payload's own output goes
to the files ``stdout`` and ``stderr`` in the working directory.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def run(argv: list[str]) -> int:
    """The life of one payload; returns our own exit code."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun = time.monotonic()
    told, tell = os.pipe()
    payload = os.fork()
    if payload == 0:
        _become(argv, tell, prctl)
    os.close(tell)
    error = os.read(told, 4096).decode()
    os.close(told)
    _say(str(payload))
    status = _watch(payload)
    _kill_descendants()
    used = os.times()
    _say(
        json.dumps(
            {
                "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
                "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                "real": time.monotonic() - begun,
                "user": used.children_user,
                "sys": used.children_system,
                "error": error,
            }
        )
    )
    return 0


def _become(argv: list[str], tell: int, prctl: "ctypes._NamedFuncPointer") -> None:
    """In the child: the payload itself, in a session of its own."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for fd, source in enumerate(
            (
                os.open(os.devnull, os.O_RDONLY),
                os.open("stdout", flags, 0o600),
                os.open("stderr", flags, 0o600),
            )
        ):
            os.dup2(source, fd)
        os.execv(argv[0], argv)  # noqa: S606
    except OSError as failure:
        os.write(tell, f"{argv[0]}: {failure.strerror}".encode())
    finally:
        os._exit(127)


def _watch(payload: int) -> int:
    """Until the payload has ended, do what the agent says; returns the payload's wait status."""
    ended = os.pidfd_open(payload)
    deadline = None
    owner = True
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([ended, 0] if owner else [ended], [], [], left)
        if ended in ready:
            return os.waitpid(payload, 0)[1]
        if 0 in ready:
            order = os.read(0, 256).split()
            if len(order) >= 2 and order[0] == b"TERM":
                deadline = time.monotonic() + float(order[1])
                _signal_group(payload, signal.SIGTERM)
                continue
            owner = False
        _signal_group(payload, signal.SIGKILL)
        deadline = None


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _kill_descendants() -> None:
    """Kill children until there is none: what they had started becomes our child in turn."""
    while True:
        for child in _children():
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = os.getpid()
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                    parent = int(file.read().rsplit(b")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if parent == me:
                found.append(int(entry))
    return found


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the agent is gone
        os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
