"""Storage elements: one real XRootD server process for each site, each with a directory of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

from gridproof import processes
from gridproof.accounts import Account
from gridproof.errors import LocalGridError
from gridproof.localgrid.catalogue.entries import pfn_path
from gridproof.localgrid.sites import LOOPBACK, Site
from gridproof.localgrid.storage.envelopes import ISSUER, Envelopes, Right
from gridproof.localgrid.storage.transfer import RESOLVER_LIMITS

START_TIMEOUT = 15.0
_PORT_TRIES = 5

# XRootD's admin socket has a path limit of about 100 characters: it is reached through the server's
# working directory, however deep that lies.
_CONFIG = """\
all.export /
oss.localroot {data}
all.adminpath /proc/self/cwd/admin
all.pidpath /proc/self/cwd/admin
xrd.network nodnr
"""
# The file is read again and again, then from another working directory.
_AUTHORIZATION = """\
ofs.authorize 1
ofs.authlib {plugin} config={directory}/scitokens.cfg
"""
_AUTHORIZED = f"""\
[Global]
audience = {{name}}

[Issuer gridproof]
issuer = {ISSUER}
base_path = /
"""
_HANDSHAKE = struct.pack("!5i", 0, 0, 0, 4, 2012)
_HANDSHAKE_ANSWER = 16  # bytes
_PLUGIN = "libXrdAccSciTokens.so"


def check_programs() -> None:
    """Raises LocalGridError naming what is missing and how it is installed."""
    packages = {"xrootd": "xrootd-server", "xrdcp": "xrootd-client", "setpriv": "util-linux"}
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        needed = " ".join(packages[name] for name in missing)
        raise LocalGridError(
            f"The embedded Grid needs {', '.join(missing)}, not found in PATH:"
            f" on Debian or Ubuntu, apt-get install {needed}"
        )


class StorageElement:
    """The SE of one site; a server that dies stays dead until :meth:`start` is called again.

    It serves who has an envelope, with ``open_to_all`` everybody.
    """

    def __init__(
        self,
        site: Site,
        directory: Path,
        account: Account | None,
        envelopes: Envelopes,
        open_to_all: bool = False,
    ) -> None:
        self.site = site
        self.name = site.se
        self.port = 0
        self._directory = directory
        self._account = account
        self._envelopes = envelopes
        self._open_to_all = open_to_all
        self._process: subprocess.Popen[bytes] | None = None
        self.data = directory / "data"

    @property
    def pid(self) -> int:
        """The server's process, 0 when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def endpoint(self) -> str:
        return f"root://{self.site.network.se_address}:{self.port}//"

    def url(self, guid: str) -> str:
        """The PFN of a file."""
        return f"{self.endpoint}{pfn_path(guid).lstrip('/')}"

    def envelope(self, guid: str, right: Right) -> str:
        """Leave to read or write one file here, a secret."""
        return self._envelopes.issue(self.name, pfn_path(guid), right, time.time())

    def signed_url(self, guid: str, right: Right) -> str:
        """The PFN of a file with an envelope, a secret."""
        return f"{self.url(guid)}?authz={self.envelope(guid, right)}"

    def file(self, guid: str) -> Path:
        """Where the server keeps a file."""
        return self.data / pfn_path(guid).lstrip("/")

    def store(self, guid: str, content: bytes) -> None:
        """Put a file there without its server."""
        file = self.file(guid)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_bytes(content)
        if self._account:
            self._account.own(file.parent.parent, file.parent, file)

    async def start(self) -> None:
        """Start the server and wait until it takes connections. Raises LocalGridError."""
        self._prepare()
        for _ in range(_PORT_TRIES):
            port = self._free_port()
            self._launch(port)
            if await self._answers(port):
                self.port = port
                (self._directory / "port").write_text(str(port))
                return
        self.stop()
        log = (self._directory / "xrootd.log").read_text(errors="replace").splitlines()
        if any(_PLUGIN.removesuffix(".so") in line and "No such file" in line for line in log[-50:]):
            raise LocalGridError(
                "XRootD's plugin for access envelopes is not installed: on Debian or Ubuntu,"
                " apt-get install xrootd-scitokens-plugins, or start the embedded Grid with open storage"
                " (LocalGrid(open_storage=True), gridproof grid start --open-storage)"
            )
        raise LocalGridError(
            f"XRootD for {self.name} does not start; the end of its log:\n" + "\n".join(log[-15:])
        )

    def stop(self) -> None:
        """End the server at once."""
        if self._process:
            self._process.kill()
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None

    def _prepare(self) -> None:
        admin = self._directory / "admin"
        shutil.rmtree(admin, ignore_errors=True)
        for directory in (self._directory, self.data, admin):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            directory.chmod(0o711)
        for directory in (self.data, admin):
            if self._account:
                self._account.own(directory)
            directory.chmod(0o700)
        config = _CONFIG.format(data=self.data)
        if self.site.network.se_address.startswith("127."):  # elsewhere firewalls say who may connect
            config += f"xrd.allow host {LOOPBACK}\n"
        if not self._open_to_all:
            config += _AUTHORIZATION.format(plugin=_PLUGIN, directory=self._directory)
            (self._directory / "scitokens.cfg").write_text(_AUTHORIZED.format(name=self.name))
            keys = self._envelopes.publish(self._directory / "cache")
            if self._account:
                self._account.own(keys, keys.parent)
        (self._directory / "xrootd.cfg").write_text(config)

    def _free_port(self) -> int:
        if self.site.network.se_port:
            return self.site.network.se_port
        kept = self._directory / "port"  # the same one as before, if it can be had
        for port in (int(kept.read_text() or 0) if kept.exists() else 0, 0):
            with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError:
                    continue
                return int(probe.getsockname()[1])
        raise LocalGridError(f"No free TCP port for {self.name}")

    def _launch(self, port: int) -> None:
        self.stop()
        argv = [
            *self.site.network.se,
            *(self._account.change() if self._account else ()),
            "xrootd",
            "-c",
            "xrootd.cfg",
            "-p",
            str(port),
            "-n",
            self.site.name,
            "-s",  # and beside it, what it would otherwise leave in /tmp
            str(self._directory / "xrootd.pid"),
        ]
        with (self._directory / "xrootd.log").open("ab") as log:
            environ = {
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": "/",
                "XDG_CACHE_HOME": str(self._directory / "cache"),
                **RESOLVER_LIMITS,
            }
            self._process = processes.spawn(
                argv, env=environ, cwd=self._directory, stdout=log, stderr=log, death_signal=9
            )

    async def _answers(self, port: int) -> bool:
        """Shake hands until it works, or the server has ended; it listens before it has loaded plugins."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        while self.pid and loop.time() < deadline:
            try:
                reader, writer = await asyncio.open_connection(self.site.network.se_address, port)
                try:
                    writer.write(_HANDSHAKE)
                    await asyncio.wait_for(reader.readexactly(_HANDSHAKE_ANSWER), deadline - loop.time())
                finally:
                    writer.close()
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(0.005)
                continue
            return bool(self.pid)
        return False
