"""The node's XRootD server: exports the pilot's cache directory, read-only, to who has the node's key.

It asks for ``sss`` keys from the first day and answers clients of its own node only (a pilot's
forwards come from there, too). ``xrootd`` refuses to run as root; it gets another user then.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gridproof.errors import ProxyError
from gridproof.proxy.children import Child

_USERS = ("xrootd", "nobody")
_KEY_NAME = "gridproof+"  # "+": also for clients whose own address is not the one that they come from
_ATTEMPTS = 5
_CONFIG_NAME = "xrootd.cf"
_UP_WITHIN = 20.0
# XRootD cannot bind to one address; `allow` turns away everyone else before a byte is read. Its admin
# path holds a socket whose name must be short: the working directory is reached by a short name.
_CONFIG = """\
all.export / readonly
oss.localroot {cache}
all.adminpath /proc/self/cwd
all.pidpath /proc/self/cwd
xrd.network nodnr
xrd.allow host 127.0.0.1
xrootd.seclib default
sec.protocol sss -s {keytab}
sec.protbind * only sss
"""


@dataclass(frozen=True)
class NodeXrootd:
    """A running server: its port on the loopback and the keytab (mode 0600) that its clients need."""

    port: int
    keytab: Path
    child: Child

    async def stop(self) -> None:
        """End it."""
        self.child.terminate()
        await self.child.stop(2.0)


async def start(cache: Path, work: Path) -> NodeXrootd:
    """Export ``cache``; ``work`` is a directory of the pilot's own for keys, configuration and log.

    Raises:
        ProxyError: xrootd is missing, cannot reach the cache, or does not come up; the text says why.
    """
    program = shutil.which("xrootd")
    if program is None:
        raise ProxyError("xrootd is not installed on this node")
    user = _other_user() if os.geteuid() == 0 else None
    keytab, run = _lay_out(cache, work, user)
    log = run / "xrootd.log"
    for _ in range(_ATTEMPTS):
        port = _free_port()
        argv = [*_as(user), program, "-c", str(run / _CONFIG_NAME), "-I", "v4", "-p", str(port)]
        argv += ["-s", str(run / "xrootd.pid")]  # and beside it, what it would otherwise leave in /tmp
        with log.open("wb") as output:
            child = await Child.start(argv, cwd=run, stderr=output, death_signal=signal.SIGKILL)
        up = False
        try:
            up = await _is_up(child, port)
        finally:
            if not up:
                child.terminate()
                await child.stop(1.0)
        if up:
            return NodeXrootd(port, keytab, child)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise ProxyError(f"xrootd did not come up on this node; its last lines: {' | '.join(lines[-3:])}")


def _lay_out(cache: Path, work: Path, user: pwd.struct_passwd | None) -> tuple[Path, Path]:
    """Write keys and configuration; returns the clients' keytab and the server's working directory."""
    work.mkdir(mode=0o711, parents=True, exist_ok=True)
    run = work / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    client_keytab, server_keytab = work / "client.keytab", run / "server.keytab"
    key = make_key(time.time())
    for path in (client_keytab, server_keytab):
        write_secret(path, key)
    config = run / _CONFIG_NAME
    config.write_text(_CONFIG.format(cache=cache, keytab=server_keytab))
    if user is not None:
        for path in (run, server_keytab, config):
            os.chown(path, user.pw_uid, user.pw_gid)
        _open_way(cache, user)
        _open_way(run, user)
    return client_keytab, run


def make_key(now: float) -> str:
    """A line of an ``sss`` keytab (XRootD's XrdSecsssKT format): a fresh 256-bit key."""
    number = secrets.randbits(62)
    return f"0 u:node g:node n:{_KEY_NAME} N:{number} c:{int(now)} e:0 f:0 k:{secrets.token_hex(32)}\n"


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may ever read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _other_user() -> pwd.struct_passwd:
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ProxyError(f"xrootd does not run as root, and there is no user {' or '.join(_USERS)} on this node")


def _as(user: pwd.struct_passwd | None) -> Sequence[str]:
    """A change of uid clears the parent-death signal: it is asked for again after it."""
    if user is None:
        return ()
    ids = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return ["setpriv", *ids, "--pdeathsig", "KILL"]


def _open_way(path: Path, user: pwd.struct_passwd) -> None:
    """Let ``user`` pass through (not list) the pilot's own directories on the way to ``path``.

    Raises:
        ProxyError: a directory that is not below the pilot's own bars the way.
    """
    home = Path.cwd()
    for directory in reversed(path.resolve().parents):
        mode = directory.stat()
        if mode.st_mode & stat.S_IXOTH or (mode.st_uid == user.pw_uid and mode.st_mode & stat.S_IXUSR):
            continue
        if not directory.is_relative_to(home):
            raise ProxyError(f"xrootd (as {user.pw_name}) cannot pass through {directory}")
        directory.chmod(stat.S_IMODE(mode.st_mode) | stat.S_IXOTH)


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
            await asyncio.sleep(0.1)  # nothing announces that it listens
            continue
        writer.close()
        return not child.exited.done()
    return False
