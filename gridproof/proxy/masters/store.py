"""A session's store: files that its user and its workers share, on the VO-box, served by XRootD.

The server is a child of the session's master, so that it runs under the same account, in the same sandbox,
and ends with it. Below ``files`` everybody with the session's key reads and writes, below ``results`` lie
output files of queries, to be read.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from gridproof import accounts, xrdclient, xrootd
from gridproof.accounts import Account
from gridproof.errors import ProxyError
from gridproof.proxy.masters.children import Child
from gridproof.proxy.protocol import StoreAccess, store_top

_CONFIG = """\
all.export {top}/files
all.export {top}/results readonly
oss.localroot {root}
oss.maxsize {size}
"""
# Whoever writes beyond the limit gets an error, and the server no signal that would end it.
_WRAP = ("sh", "-c", 'trap "" XFSZ; exec "$0" "$@"')
_FASTEST = 2e9  # bytes that may come in a second: how long a look at the store stays good
_LATELY = 10.0  # seconds
_LOOKS = (0.1, 2.0)  # seconds between two looks, at least and at most


class Store:
    """The files of ``session`` below its own ``directory``, ``size`` bytes at most.

    ``results``: where output files of queries lie.
    """

    def __init__(self, session: str, directory: Path, size: int) -> None:
        self.session = session
        self._size = size
        self._directory = directory
        self._root = directory / "store"
        self._top = self._root / store_top(session).lstrip("/")
        self.results = self._top / "results"
        self._account: Account | None = None
        self._server: xrootd.Server | None = None
        self._key, self._keytab = xrootd.make_key(time.time()), xrdclient.new_keytab()
        self._left = size
        self._watching: asyncio.Task[None] | None = None
        self.results.mkdir(mode=0o700, parents=True)
        self._files = self._top / "files"
        self._files.mkdir(mode=0o700)

    async def start(self) -> StoreAccess:
        """Serve them; what clients need.

        Raises:
            ConfigError, ProxyError: there is no XRootD here that can do it; says why.
        """
        self._watching = asyncio.create_task(self._watch())
        account = self._account = accounts.for_xrootd()
        if account is not None:
            self._share(account)
        self._server = await self._serve()
        return StoreAccess(self.session, self._server.port, self._key, self._keytab, self._size)

    async def _serve(self, port: int = 0) -> xrootd.Server:
        return await xrootd.start(
            _CONFIG.format(top=store_top(self.session), root=self._root, size=self._size),
            self._key,
            self._directory / "xrootd",
            self._account,
            client_keytab=self._keytab,
            wrap=_WRAP,
            port=port,
        )

    def room(self) -> int:
        """The bytes that were left at the last look."""
        return self._left

    def _share(self, account: Account) -> None:
        """Let a server of another account in: to write files, and to read what lies among results."""
        account.own(self._root, self._top, self._files)
        xrootd.let_through(self._root, account, self._directory)
        os.chown(self.results, -1, account.gid)
        self.results.chmod(0o2750)

    async def stop(self) -> None:
        """End the server; the files go with the session's directory."""
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            await self._server.stop()

    async def _watch(self) -> None:
        """Let files grow only as long as there is room; have another server when it dies.

        XRootD limits one file, not all together. No file may become larger than one that grows now would if
        it got all of the room that is left; when there is none, every write fails at once.
        """
        allowed = -1
        while True:
            used, growing = await asyncio.to_thread(_look, self._root)
            self._left = self._size - used
            limit = growing + self._left if self._left > 0 else 0
            if self._server is not None:
                if self._server.child.exited.done():
                    await self._replace(self._server.port)
                    allowed = -1
                    continue
                if limit != allowed:
                    allowed = limit
                    await self._limit(self._server.child, limit)
            await asyncio.sleep(min(max(_LOOKS[0], self._left / _FASTEST), _LOOKS[1]))

    async def _replace(self, port: int) -> None:
        try:
            self._server = await self._serve(port)
        except ProxyError as error:
            print(f"the session's store is gone: {error}", file=sys.stderr, flush=True)
            self._server = None

    async def _limit(self, server: Child, size: int) -> None:
        """Let the server write no file beyond ``size`` bytes."""
        if self._account is None:
            with suppress(ProcessLookupError):
                _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, most))
            return
        # Root may be without CAP_SYS_RESOURCE; the server's own account needs none.
        argv = [*self._account.change(), "prlimit", "--pid", str(server.pid), f"--fsize={size}:"]
        child = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL)
        await child.wait()


def _look(root: Path) -> tuple[int, int]:
    """The bytes in all files, and in the largest one that was written to lately."""
    used = growing = 0
    lately = time.time() - _LATELY
    for directory, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):
                found = Path(directory, name).lstat()
                used += found.st_size
                if found.st_mtime > lately:
                    growing = max(growing, found.st_size)
    return used, growing
