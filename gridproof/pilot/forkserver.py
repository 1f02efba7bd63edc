"""``python -m gridproof.pilot.forkserver``: has ROOT and distributed imported, and forks workers.

JSON lines come in on standard input and go out on standard output; secrets travel nowhere else.

- in: ``{"do": "start", "spec": {"name", "work_dir", "environment", …}}``,
  ``{"do": "stop", "name", "grace"}``
- out: ``{"event": "ready", "versions": {…}, "threads": n}`` or ``{"event": "failed", "reason"}``, once; then
  ``{"event": "started", "name", "pid"}`` and ``{"event": "exited", "name", "code", "signal", "log"}``

A process forks safely only while it has one thread. Importing ROOT and distributed leaves none behind,
if BLAS is told to make none; ``threads`` counts the kernel's, so that a library that starts to make some
is noticed. The process ends, with all workers, at SIGTERM and at the end of its standard input, and its
workers are killed by the kernel should it be killed itself.
"""

from __future__ import annotations

import ctypes
import gc
import io
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from gridproof.pilot.logs import LOG
from gridproof.processes import die_with_parent
from gridproof.proxy.protocol import LineBuffer, Message, decode, encode

_OWN_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)
LOG_TAIL = 4096  # bytes of a worker's log that are reported at its end
_LINE_BUFFERED = 1  # _IOLBF of glibc and musl
_SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

WorkerMain = Callable[[dict[str, Any]], "int | None"]


def preload() -> tuple[dict[str, str], WorkerMain]:
    """Import all that a worker needs; returns the versions and the worker's entry."""
    for name in _SINGLE_THREADED:
        os.environ[name] = "1"
    from gridproof.proxy import versions

    here = asdict(versions.here())
    from gridproof.pilot import worker

    worker.preload()
    return here, worker.main


@dataclass
class _Child:
    name: str
    log: Path
    kill_at: float = float("inf")


class Forkserver:
    """Reads commands and reaps children in one thread; ``commands`` and ``reports`` are file descriptors."""

    def __init__(self, commands: int, reports: int, worker_main: WorkerMain) -> None:
        self._commands = commands
        self._reports = reports
        self._worker_main = worker_main
        self._lines = LineBuffer()
        self._children: dict[int, _Child] = {}
        self._ending = False
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands, selectors.EVENT_READ)
        self._selector.register(self._wake_in, selectors.EVENT_READ)

    def serve(self) -> None:
        """Run until told to end; no worker is left then."""
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        try:
            while not self._ending:
                for key, _ in self._selector.select(self._until_next_kill()):
                    if key.fd == self._commands:
                        self._read()
                    else:
                        with suppress(BlockingIOError):
                            self._wake_in.recv(4096)
                self._reap()
                self._kill_overdue()
        finally:
            self._kill_all()

    def _end(self, *_: object) -> None:
        self._ending = True

    def _until_next_kill(self) -> float | None:
        due = min((child.kill_at for child in self._children.values()), default=float("inf"))
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _read(self) -> None:
        data = os.read(self._commands, 1 << 16)
        if not data:
            self._ending = True
            return
        for line in self._lines.feed(data):
            command = decode(line)
            if command["do"] == "start":
                self._start(command["spec"])
            elif command["do"] == "stop":
                self._stop(command["name"], command["grace"])

    def report(self, event: str, **content: Any) -> None:
        """Send one line; an owner that is gone ends the process."""
        line: Message = {"event": event, **content}
        try:
            os.write(self._reports, encode(line))
        except BrokenPipeError:
            self._ending = True

    def _start(self, spec: dict[str, Any]) -> None:
        log = Path(spec["work_dir"]) / LOG
        parent = os.getpid()
        signal.pthread_sigmask(
            signal.SIG_BLOCK, _OWN_SIGNALS
        )  # what comes early is the worker's all the same
        pid = os.fork()
        if pid == 0:
            self._become_worker(spec, log, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
        self._children[pid] = _Child(spec["name"], log)
        self.report("started", name=spec["name"], pid=pid)

    def _become_worker(self, spec: dict[str, Any], log: Path, parent: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            die_with_parent(parent, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for signum in _OWN_SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWN_SIGNALS)
            self._redirect(log)
            from setproctitle import setproctitle

            setproctitle(f"gridproof worker {spec['name']}")
            os.environ.update(spec.get("environment", {}))
            os.chdir(spec["work_dir"])
            code = self._worker_main(spec) or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _redirect(self, log: Path) -> None:
        """Leave nothing of the forkserver's open: not its pipes, nor what tells it of signals."""
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
        for fd in (self._commands, self._reports):
            if fd > 2:
                os.close(fd)
        null = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(null)
        os.close(out)
        _write_lines()

    def _stop(self, name: str, grace: float) -> None:
        for pid, child in self._children.items():
            if child.name == name:
                child.kill_at = min(child.kill_at, time.monotonic() + grace)
                os.kill(pid, signal.SIGTERM)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for pid, child in self._children.items():
            if child.kill_at <= now:
                _kill(pid)
                child.kill_at = float("inf")

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            with suppress(ProcessLookupError):  # whatever it had started itself, a compiler for example
                os.killpg(pid, signal.SIGKILL)
            signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -signum
            self.report("exited", name=child.name, code=code, signal=signum, log=_tail(child.log))

    def _kill_all(self) -> None:
        for pid in self._children:
            _kill(pid)
        for pid in self._children:
            os.waitpid(pid, 0)


def _kill(worker: int) -> None:
    """A worker and what it has started, also before it has a group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)


def _write_lines() -> None:
    """Let Python's and C's standard output reach the log line by line, not when a buffer is full."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    libc = ctypes.CDLL(None)
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, 0)


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            return file.read(LOG_TAIL).decode(errors="replace")
    except OSError as error:
        return f"(no log: {error.strerror})"


def main() -> int:
    """Entry point; returns the exit code."""
    from setproctitle import setproctitle

    setproctitle("gridproof forkserver")
    commands, reports = os.dup(0), os.dup(1)
    # ROOT and its compiler may read standard input and write to standard output.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    try:
        versions, worker_main = preload()
    except ImportError as error:
        os.write(reports, encode({"event": "failed", "reason": str(error)}))
        return 1
    server = Forkserver(commands, reports, worker_main)
    threads = sum(1 for _ in Path("/proc/self/task").iterdir()) if sys.platform == "linux" else 1
    gc.collect()
    gc.freeze()  # pages stay shared with the workers
    server.report("ready", versions=versions, threads=threads)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
