"""XRootD servers of one's own: on the loopback, for who has the key, gone with who started them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gridproof.accounts import Account
from gridproof.errors import ProxyError
from gridproof.proxy.masters.children import Child

_NAME = "gridproof+"  # "+": also for clients whose own address is not the one that they come from
_ATTEMPTS = 5
_UP_WITHIN = 20.0
# XRootD cannot bind to one address; `allow` turns away everyone else before a byte is read. Its admin
# path holds a socket whose name must be short: the working directory is reached by a short name.
_CONFIG = """\
all.adminpath /proc/self/cwd
all.pidpath /proc/self/cwd
xrd.network nodnr
xrd.allow host 127.0.0.1
xrootd.seclib default
sec.protocol sss {client}-s {keytab}
sec.protbind * only sss
"""


@dataclass(frozen=True)
class Server:
    """A running server and its port on the loopback."""

    port: int
    child: Child

    async def stop(self) -> None:
        """End it."""
        self.child.terminate()
        await self.child.stop(2.0)


async def start(
    config: str,
    key: str,
    run: Path,
    account: Account | None,
    *,
    client_keytab: str = "",
    wrap: Sequence[str] = (),
    port: int = 0,
) -> Server:
    """Start a server that exports what ``config`` says to who has ``key``, a line of an ``sss`` keytab.

    Args:
        run: its working directory, which is made here.
        account: runs it, if that is another one (XRootD refuses root).
        client_keytab: where clients look for the key, unless they are told otherwise.
        wrap: what its command begins with.
        port: 0 means any.

    Raises:
        ProxyError: xrootd is missing or does not come up; the text says why.
    """
    program = shutil.which("xrootd")
    if program is None:
        raise ProxyError("xrootd is not installed on this machine: install the package xrootd-server")
    configured = _lay_out(config, key, run, account, client_keytab)
    log = run / "xrootd.log"
    for _ in range(_ATTEMPTS):
        chosen = port or _free_port()
        argv = [*(account.change() if account else ()), *wrap, program]
        argv += ["-c", str(configured), "-I", "v4", "-p", str(chosen)]
        argv += ["-s", str(run / "xrootd.pid")]  # and beside it, what it would otherwise leave in /tmp
        with log.open("wb") as output:
            child = await Child.start(argv, cwd=run, stderr=output, death_signal=signal.SIGKILL)
        up = False
        try:
            up = await _is_up(child, chosen)
        finally:
            if not up:
                child.terminate()
                await child.stop(1.0)
        if up:
            return Server(chosen, child)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise ProxyError(f"xrootd did not come up; its last lines: {' | '.join(lines[-3:])}")


def _lay_out(config: str, key: str, run: Path, account: Account | None, client_keytab: str) -> Path:
    """Write key and configuration; returns the latter's path."""
    run.mkdir(mode=0o700, exist_ok=True)
    keytab, configured = run / "server.keytab", run / "xrootd.cf"
    write_secret(keytab, key)
    client = f"-c {client_keytab} " if client_keytab else ""
    configured.write_text(config + _CONFIG.format(client=client, keytab=keytab))
    if account is not None:
        account.own(run, keytab, configured)
    return configured


def make_key(now: float) -> str:
    """A line of an ``sss`` keytab (XRootD's XrdSecsssKT format): a fresh 256-bit key; ``now`` in epoch s."""
    number, key = secrets.randbits(62), secrets.token_hex(32)
    return f"0 u:gridproof g:gridproof n:{_NAME} N:{number} c:{int(now)} e:0 f:0 k:{key}\n"


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may ever read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def let_through(path: Path, account: Account, home: Path) -> None:
    """Let ``account`` pass through (not list) directories below ``home`` on the way to ``path``.

    Raises:
        ProxyError: another directory bars the way.
    """
    while closed := account.bar(path.resolve().parent):
        if not closed.is_relative_to(home):
            raise ProxyError(f"xrootd (as {account.name}) cannot pass through {closed}")
        closed.chmod(stat.S_IMODE(closed.stat().st_mode) | stat.S_IXOTH)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _is_up(child: Child, port: int) -> bool:
    """Whether it answers on its port before it ends."""
    deadline = time.monotonic() + _UP_WITHIN
    while not child.exited.done() and time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)  # nothing announces that it listens
            continue
        writer.close()
        return not child.exited.done()
    return False
