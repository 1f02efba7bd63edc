"""XRootD's own command line clients as child processes, and where XRootD clients find keys."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gridproof.errors import ProxyError, TransferError
from gridproof.processes import spawn, stop

# A dead or frozen server is given up within seconds.
_LIMITS = {
    "XRD_CONNECTIONWINDOW": "5",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_STREAMERRORWINDOW": "0",
    "XRD_STREAMTIMEOUT": "20",
    "XRD_REQUESTTIMEOUT": "20",
    "XRD_TIMEOUTRESOLUTION": "1",
    "RES_OPTIONS": "use-vc timeout:1 attempts:1",  # XRootD asks the name server for the machine's addresses
}
_KEYTAB = re.compile(r"/tmp/gridproof-[0-9a-f]{32}\.keytab")  # noqa: S108
_LEFT = 7 * 86400.0  # seconds after which a keytab's session is over


def run(argv: Sequence[str], secret: bytes = b"", environ: Mapping[str, str] | None = None) -> str:
    """Run a client to its end and return what it says; ``secret`` goes to its standard input.

    Raises:
        TransferError: it failed, with its last line, or is not installed.
    """
    if shutil.which(argv[0]) is None:
        raise TransferError(f"{argv[0]} is not installed: install the package xrootd-client")
    process = spawn(
        argv,
        env={**_LIMITS, **os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        death_signal=signal.SIGKILL,
    )
    try:
        output, _ = process.communicate(secret)
    except BaseException:
        stop(process, 1.0)
        raise
    said = output.decode(errors="replace")
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("Run: ") if lines else "no reason given"
        raise TransferError(f"{reason} (exit code {process.returncode})")
    return said


def new_keytab() -> str:
    """Where clients of a new server are to look for its key: the same path on every machine."""
    return f"/tmp/gridproof-{secrets.token_hex(16)}.keytab"  # noqa: S108


def keep_key(keytab: str, key: str) -> None:
    """Have a server's key where it tells its clients to look: at a path that `new_keytab` has made.

    Raises:
        ProxyError: it is no such path, or a file of somebody else's is there.
    """
    path = Path(keytab)
    if not _KEYTAB.fullmatch(keytab):
        raise ProxyError(f"an XRootD server of the session says that its key belongs to {keytab[:100]!r}")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        there = path.lstat()
        if there.st_uid == os.geteuid() and stat.S_ISREG(there.st_mode) and not there.st_mode & 0o077:
            return  # another process of this account uses the server, too
        raise ProxyError(f"{path} is somebody else's; a key cannot be kept there") from None
    with os.fdopen(handle, "w") as file:
        file.write(key)
    for left in path.parent.glob("gridproof-*.keytab"):  # of processes that were killed
        with suppress(OSError):
            if left.lstat().st_uid == os.geteuid() and time.time() - left.lstat().st_mtime > _LEFT:
                left.unlink()
