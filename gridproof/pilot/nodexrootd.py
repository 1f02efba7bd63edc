"""The node's XRootD server: exports the pilot's cache directory, read-only, to who has the node's key.

It asks for ``sss`` keys from the first day and answers clients of its own node only (a pilot's
forwards come from there, too).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from gridproof import accounts, xrdclient, xrootd
from gridproof.accounts import Account

_CONFIG = """\
all.export / readonly
oss.localroot {cache}
"""


@dataclass(frozen=True)
class NodeXrootd:
    """A running server, the key that its clients need (a line of a keytab), and where they look for it."""

    server: xrootd.Server
    key: str = field(repr=False)
    keytab: str

    @property
    def port(self) -> int:
        """On the node's loopback."""
        return self.server.port

    async def stop(self) -> None:
        """End it."""
        await self.server.stop()


async def start(cache: Path, work: Path) -> NodeXrootd:
    """Export ``cache``; ``work`` is a directory of the pilot's own for keys, configuration and log.

    Raises:
        ConfigError, ProxyError: xrootd is missing, cannot reach the cache, or does not come up; says why.
    """
    account, run = _lay_out(cache, work)
    key, keytab = xrootd.make_key(time.time()), xrdclient.new_keytab()
    server = await xrootd.start(_CONFIG.format(cache=cache), key, run, account, client_keytab=keytab)
    return NodeXrootd(server, key, keytab)


def _lay_out(cache: Path, work: Path) -> tuple[Account | None, Path]:
    """The server's account and its directory."""
    account = accounts.for_xrootd()
    work.mkdir(mode=0o711, parents=True, exist_ok=True)
    run = work / "run"
    if account is not None:
        for path in (cache, run):
            xrootd.let_through(path, account, Path.cwd())
    return account, run
