"""A session's master process, seen from the ProxyServer that owns it."""

from __future__ import annotations

import asyncio
import codecs
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from gridproof.errors import ProxyError
from gridproof.proxy.masters.certificates import SessionIdentities
from gridproof.proxy.masters.children import Child
from gridproof.proxy.masters.isolation import Isolation
from gridproof.proxy.protocol import StoreAccess, build
from gridproof.proxy.reach import local

_STOP_GRACE = 3.0


class Master:
    """Scheduler and engine master of one session; ``directory`` is its own and goes with it.

    ``isolation``: under whose account. ``cache``: where the ProxyServer keeps compiled code beyond sessions;
    None: in ``directory``. ``keep_results``: s. ``host``: the interface that it listens on. ``log`` is called
    with what it writes to standard error. ``store_size``: bytes; ``store`` is there after `start`.
    """

    def __init__(
        self,
        session: str,
        isolation: Isolation,
        host: str,
        identities: SessionIdentities,
        directory: Path,
        cache: Path | None,
        keep_results: float,
        log: Callable[[str], None],
        store_size: int,
    ) -> None:
        self.identities = identities
        self.port = 0  # of the scheduler
        self.store = StoreAccess(session)
        self.stopping = False
        self._session = session
        self._isolation = isolation
        self._host = host
        self._directory = directory
        self._cache = isolation.cache(cache) if cache else directory
        self._keep_results = keep_results
        self._log = log
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._store_size = store_size
        self._child: Child | None = None

    async def start(self, argv: Sequence[str], timeout: float) -> None:
        """Start it and wait, at most ``timeout`` s, until its scheduler listens.

        Raises:
            ProxyError: it does not come up, or cannot be kept apart from other users.
        """
        what = f"the master of session {self._session}"
        for own in (self._directory, self._cache):
            self._isolation.own(own)
        command = await asyncio.to_thread(self._isolation.command, argv, self._directory, self._cache)
        try:
            self._child = await Child.start(
                command,
                env=self._isolation.environment(self._directory),
                listen=lambda data: self._log(self._decoder.decode(data)),
            )
        except OSError as error:
            raise ProxyError(f"{what} cannot be started: {error}") from None
        settings = {
            "session": self._session,
            "host": self._host,
            "cache_dir": str(self._cache),
            "scratch_dir": str(self._directory),
            "keep_results": self._keep_results,
            "store_size": self._store_size,
        }
        self._child.send({**settings, **asdict(self.identities.scheduler)})
        told = await self._child.first(what, timeout)
        port = told.get("port")
        if not isinstance(port, int):
            raise ProxyError(f"{what} gave {str(port)[:80]!r}, not a port")
        self.port = port
        self.store = build(StoreAccess, told.get("store", {"session": self._session}))

    @property
    def address(self) -> str:
        """By which this machine reaches it."""
        host = local(self._host)
        return f"tls://[{host}]:{self.port}" if ":" in host else f"tls://{host}:{self.port}"

    async def activity(self) -> tuple[int, int] | None:
        """What it tells next: how many queries run, and of how many it keeps the results; None at its end.

        Raises:
            ProxyError: it told something else.
        """
        assert self._child is not None
        told = await self._child.receive()
        if told is None:
            return None
        running, kept = told.get("running"), told.get("kept")
        if not isinstance(running, int) or not isinstance(kept, int):
            raise ProxyError(f"the master of session {self._session} told {str(told)[:80]}")
        return running, kept

    async def ended(self) -> str:
        """Wait for its end and its last words; returns how it ended."""
        assert self._child is not None
        code = await asyncio.shield(self._child.exited)
        await self._child.silence()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def stop(self) -> None:
        """End it and remove its directory."""
        self.stopping = True
        if self._child is not None:
            await self._child.stop(_STOP_GRACE)
        shutil.rmtree(self._directory, ignore_errors=True)
