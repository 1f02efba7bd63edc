"""XRootD's clients as child processes, which keep secrets, and where XRootD clients find keys."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

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
_METALINK = """<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink">
<file name="{name}"><size>{size}</size>{urls}</file>
</metalink>
"""

# Envelopes, parts of URLs, are secrets, and a program's arguments can be read by everybody on the machine:
# xrdcp reads URLs from a metalink, and a program of our own writes to one that it reads from its input.
PUT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("xrdput.py")))
"""The command that writes a file to a server; its standard input: `put_order`."""


def put_order(source: Path, url: str) -> bytes:
    """What `PUT` reads: a local file, and the URL it goes to."""
    return json.dumps({"source": str(source.absolute()), "url": url}).encode()


def write_metalink(path: Path, name: str, size: int, urls: Sequence[str]) -> None:
    """A file for ``xrdcp`` that lists the replicas of a file, which only this account can read.

    ``path`` ends in ``.meta4``; ``name``: what the copy is called in a directory.
    """
    places = "".join(f"<url><![CDATA[{url}]]></url>" for url in urls)
    path.touch(mode=0o600)
    path.write_text(_METALINK.format(name=escape(name), size=size, urls=places))


def download(urls: Sequence[str], target: Path, size: int, member: str = "") -> None:
    """Copy a file here from one of these URLs, or the ``member`` of the zip archive there.

    Raises:
        TransferError: it could not be read, with what ``xrdcp`` says.
    """
    with TemporaryDirectory(prefix="gridproof-copy-") as directory:
        link = Path(directory) / "source.meta4"
        write_metalink(link, target.name, size, urls)
        source = f"{link}?xrdcl.unzip={member}" if member else str(link)
        run(["xrdcp", "--silent", "--nopbar", "--force", source, str(target)])


def upload(source: Path, url: str) -> None:
    """Copy a local file to a URL, replacing what is there.

    Raises:
        TransferError: it could not be written.
    """
    run(PUT, put_order(source, url))


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
