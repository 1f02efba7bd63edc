"""Runs one payload so that nothing of it is left: ``wrapper.py INTERVAL EXECUTABLE [ARGUMENT…]``.

Standard library only, and started by ``python -I -S``, so that it is there in milliseconds. The agent holds
our standard input: a line ``TERM seconds`` asks the payload to end and kills it after a grace; end-of-file
(the agent is gone) kills at once. Whatever the payload starts, in sessions of their own too, comes back to
this process as the nearest subreaper and is killed when the payload ends. On standard output JSON objects, a
line each: first ``{"pid"}``, each INTERVAL seconds ``{"seconds", "cpu", "memory", "disk"}`` (since its start,
CPU-s of all its processes, bytes of theirs, bytes of the working directory), in the end
``{"code", "signal", "real", "user", "sys", "memory", "error"}``. The payload's own output goes to the files
``stdout`` and ``stderr`` in the working directory.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_BLOCK = 512  # bytes, what st_blocks counts


def run(argv: list[str]) -> int:
    """The life of one payload; returns our own exit code."""
    interval, command = float(argv[0]), argv[1:]
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begun = time.monotonic()
    told, tell = os.pipe()
    payload = os.fork()
    if payload == 0:
        _become(command, tell, prctl)
    os.close(tell)
    error = os.read(told, 4096).decode()
    os.close(told)
    _say(pid=payload)
    status = _watch(payload, begun, interval)
    _kill_descendants()
    used = os.times()
    _say(
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        real=time.monotonic() - begun,
        user=used.children_user,
        sys=used.children_system,
        memory=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        error=error,
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


def _watch(payload: int, begun: float, interval: float) -> int:
    """Until the payload has ended, measure it and do what the agent says; returns its wait status."""
    ended = os.pidfd_open(payload)
    check_at, kill_at = begun + interval, math.inf
    owner = True
    while True:
        left = max(0.0, min(check_at, kill_at) - time.monotonic())
        ready, _, _ = select.select([ended, 0] if owner else [ended], [], [], left)
        if ended in ready:
            return os.waitpid(payload, 0)[1]
        if 0 in ready:
            order = os.read(0, 256).split()
            if len(order) >= 2 and order[0] == b"TERM":
                kill_at = time.monotonic() + float(order[1])
                _signal_group(payload, signal.SIGTERM)
            else:
                owner, kill_at = False, 0.0
        if time.monotonic() >= kill_at:
            _signal_group(payload, signal.SIGKILL)
            kill_at = math.inf
        if time.monotonic() >= check_at:
            _bury(payload)
            _say(seconds=time.monotonic() - begun, disk=_disk("."), **_used())
            check_at = time.monotonic() + interval


def _bury(payload: int) -> None:
    """Wait for orphans that have ended, so that a long payload gathers no zombies."""
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (found := os.waitid(os.P_ALL, 0, look)) and found.si_pid != payload:
        os.waitpid(found.si_pid, 0)


def _used() -> dict[str, float]:
    """CPU-s and bytes (proportional, as in PSS) of all below us, CPU-s also of what has ended."""
    processes = _processes()
    ours = os.times()
    cpu, memory = ours.children_user + ours.children_system, 0
    family = {os.getpid()}
    while new := [pid for pid, (parent, _) in processes.items() if parent in family and pid not in family]:
        family.update(new)
        cpu += sum(processes[pid][1] for pid in new)
        memory += sum(_proportional_size(pid) for pid in new)
    return {"cpu": cpu, "memory": memory}


def _processes() -> dict[int, tuple[int, float]]:
    """Of each process its parent and its CPU-s, with those of its children that have ended."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                    fields = file.read().rsplit(b")", 1)[1].split()
                found[int(entry)] = int(fields[1]), sum(map(int, fields[11:15])) * _TICK
            except (OSError, IndexError, ValueError):
                continue
    return found


def _proportional_size(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            lines = [line.split() for line in file]
    except OSError:  # it has ended
        return 0
    return sum(int(line[1]) << 10 for line in lines if line[0] in (b"Pss:", b"SwapPss:"))


def _disk(directory: str) -> int:
    size, directories = 0, [directory]
    while directories:
        with contextlib.suppress(OSError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # removed meanwhile
                    size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
    return size


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _kill_descendants() -> None:
    """Kill children until there is none: what they had started becomes our child in turn."""
    while True:
        for child, (parent, _) in _processes().items():
            if parent == os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def _say(**event: object) -> None:
    with contextlib.suppress(OSError):  # the agent is gone
        os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
