"""A payload on the worker node, as its agent holds it: started, measured and ended through the wrapper."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gridproof.localgrid.node.monitor import Usage

_LOOKS, _PAUSE = 100, 0.01  # at processes; s between two
_WRAPPER = Path(__file__).with_name("wrapper.py")


@dataclass(frozen=True)
class Report:
    """How a payload ended: exit ``code`` or ``signal``, or the ``error`` for which it could not be started.

    Times in seconds, ``memory`` (of its largest process) in bytes.
    """

    code: int
    signal: int
    real: float
    user: float
    sys: float
    memory: int
    error: str

    @property
    def exit_code(self) -> int:
        """As a shell shows it."""
        return 128 + self.signal if self.signal else self.code

    @property
    def text(self) -> str:
        """The exit code, with the name of the signal that was the cause."""
        return f"{self.exit_code} ({signal.Signals(self.signal).name})" if self.signal else str(self.code)


class Payload:
    """One command in a job's directory; leaving its context kills whatever is left of it."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._told_to_end = False
        self.report: Report | None = None  # None in the end: the wrapper was killed

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        interval: float,
        before: Sequence[str] = (),
    ) -> Payload:
        """Run ``command`` in ``directory``, measured each ``interval`` s; ``before``: see `SiteNetwork`."""
        await asyncio.to_thread(os.chmod, command[0], 0o700)
        process = await asyncio.create_subprocess_exec(
            *before,
            sys.executable,
            *("-I", "-S", str(_WRAPPER), str(interval), *command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
        payload = cls(process, directory)
        try:
            await payload._out.readline()  # its pid: it runs
        except BaseException:
            await payload._close()
            raise
        return payload

    async def __aenter__(self) -> Payload:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def _out(self) -> asyncio.StreamReader:
        assert self._process.stdout
        return self._process.stdout

    async def usages(self) -> AsyncIterator[Usage]:
        """What it uses, from time to time, until it has ended; then :attr:`report` says how."""
        async for line in self._out:
            event = json.loads(line)
            if "code" in event:
                self.report = Report(**event)
                return
            yield Usage(**event)

    def end(self, grace: float) -> None:
        """Ask it to end, and kill it if it has not after ``grace`` s."""
        if not self._told_to_end:
            self._told_to_end = True
            assert self._process.stdin
            self._process.stdin.write(f"TERM {grace}\n".encode())

    async def _close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # tells the wrapper
        await asyncio.shield(self._process.wait())
        if self.report is None:
            await asyncio.to_thread(_kill_strays, self._directory)


def _kill_strays(home: Path) -> None:
    """Kill every process whose HOME is this directory: for a payload whose wrapper was killed.

    What they start while we look is found by looking again.
    """
    for _ in range(_LOOKS):
        strays = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _lives_in(home, pid)]  # noqa: PTH208
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _lives_in(home: Path, pid: int) -> bool:
    try:
        return f"HOME={home}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
