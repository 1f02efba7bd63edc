"""Owned child processes in an event loop: JSON lines both ways, and their end as something to await."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gridproof.errors import ProxyError
from gridproof.processes import spawn
from gridproof.proxy.protocol import MAX_LINE, Message, decode, encode

_LAST_WORDS = 1.0  # seconds that what an ended process has written may take to be heard


class _Listener(asyncio.Protocol):
    def __init__(self, listen: Callable[[bytes], None], silent: asyncio.Future[None]) -> None:
        self._listen = listen
        self._silent = silent

    def data_received(self, data: bytes) -> None:
        self._listen(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._silent.done():
            self._silent.set_result(None)


class Child:
    """A process started through `gridproof.processes.spawn`, in the running loop's own thread."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        self.pid = process.pid
        self.exited: asyncio.Future[int] = loop.create_future()  # its return code
        self._silent: asyncio.Future[None] | None = None  # its standard error has come to its end
        self._process = process
        self._reader = reader
        self._transports: list[asyncio.BaseTransport] = []
        self._stdin: asyncio.WriteTransport | None = None
        self._pidfd = os.pidfd_open(process.pid)
        loop.add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stderr: int | IO[bytes] | None = None,
        death_signal: int = signal.SIGTERM,
        listen: Callable[[bytes], None] | None = None,
    ) -> Child:
        """Start it; ``listen`` is called with what it writes to standard error.

        Raises:
            OSError: it could not be started.
        """
        loop = asyncio.get_running_loop()
        process = spawn(
            argv,
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if listen else stderr,
            death_signal=death_signal,
        )
        reader = asyncio.StreamReader(limit=2 * MAX_LINE)
        child = cls(process, reader)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        child._transports.append(transport)
        stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        child._stdin = stdin
        child._transports.append(stdin)
        if listen:
            silent = child._silent = loop.create_future()
            transport, _ = await loop.connect_read_pipe(lambda: _Listener(listen, silent), process.stderr)
            child._transports.append(transport)
        return child

    def _reap(self) -> None:
        code = self._process.wait()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._stdin and not self._stdin.is_closing():
            self._stdin.abort()
        if not self.exited.done():
            self.exited.set_result(code)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line to its standard input; nothing happens when it has ended."""
        if self._stdin and not self._stdin.is_closing():
            self._stdin.write(encode(message))

    async def receive(self) -> Message | None:
        """The next line of its standard output; None at its end.

        Raises:
            ProxyError: it is not a JSON object, or too long.
        """
        try:
            line = await self._reader.readline()
        except ValueError:
            raise ProxyError("a child process wrote a line that is too long") from None
        return decode(line) if line.endswith(b"\n") else None

    async def first(self, what: str, timeout: float) -> Message:
        """Its first line, which tells that it is up.

        Raises:
            ProxyError: it ended, or nothing came within ``timeout`` s; it is stopped then.
        """
        try:
            answer = await asyncio.wait_for(self.receive(), timeout)
        except asyncio.TimeoutError:
            await self.stop(1.0)
            raise ProxyError(f"{what} did not come up within {timeout:.0f} s") from None
        if answer is None:
            code = await self.stop(5.0)
            where = "" if self._silent else "; its messages are on stderr"
            raise ProxyError(f"{what} ended with code {code} before it was up{where}")
        return answer

    async def silence(self) -> None:
        """Wait until all has been heard that an ended process wrote; not for what it has left behind."""
        if self._silent:
            await asyncio.wait([self._silent], timeout=_LAST_WORDS)

    async def stop(self, grace: float) -> int:
        """Close its standard input, SIGTERM it after ``grace`` s, SIGKILL it after as much again."""
        if self._stdin:
            self._stdin.close()
        for act in (self._process.terminate, self._process.kill):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.exited), grace)
                break
            act()
        code = await self.exited
        await self.silence()
        for transport in self._transports:
            if isinstance(transport, asyncio.ReadTransport):
                transport.close()
        return code

    def terminate(self) -> None:
        """SIGTERM it if it still runs."""
        if not self.exited.done():
            self._process.terminate()


def watch_owner(stdin: int, gone: Callable[[], None]) -> None:
    """Call ``gone`` once when the owner pipe ``stdin`` (a file descriptor) has come to its end."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(stdin, 4096):
            loop.remove_reader(stdin)
            gone()

    loop.add_reader(stdin, readable)
