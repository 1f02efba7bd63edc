"""What ties a process to a session: the Grid, the ProxyServer and the session's master."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import xrdclient
from .errors import ProxyError, SessionError
from .grids import Place
from .loopthread import LoopThread
from .records import Forward
from .store import Store

if TYPE_CHECKING:
    from .proxy.client import OpenedSession
    from .proxy.logs import Source
    from .proxy.pool.records import SessionRecord, Status


class Link:
    """This process's connections to one session; what it opens ends with ``stack``.

    ``name``: the session's, to be set; ``store``: its store, after `meet_master`. ``lost`` says why it can be
    used no more, empty while it can.

    Raises:
        AlienError, ProxyError: the Grid or the ProxyServer cannot be reached.
    """

    def __init__(self, place: Place, loop: LoopThread, stack: ExitStack) -> None:
        from .alien import Alien

        self.name = ""
        self.place = place
        self.loop = loop
        self.lost = ""
        self._stack = stack
        self._tunnels: dict[int, int] = {}  # to the VO-box, by its ports: their ends here
        self.alien = Alien.connect(place.environ)
        stack.callback(self.alien.close)
        self._master_gone = loop.run(_make_event())
        self.proxy = loop.run(place.proxy.connect(self._on_event))
        stack.callback(lambda: loop.run(self.proxy.close()))

    def meet_master(self, opened: OpenedSession) -> None:
        """Connect to the session's master, and know its store."""
        from .engine.dask import MasterClient, Tls

        tls = Tls(opened.ca, opened.cert, opened.key)
        self._security = tls.security("client")

        async def connect() -> MasterClient:
            address = opened.address
            if not self._beside:
                address = f"tls://127.0.0.1:{await self._way_to(int(address.rpartition(':')[2]))}"
            return MasterClient(address, tls)

        self._master = self.loop.run(connect())
        self._stack.callback(lambda: self.loop.run(self._master.close()))
        self.store = Store(opened.store, cache(lambda: self.loop.run(self._way_to(opened.store.port))))
        self._stack.callback(self.store.close)

    @property
    def _beside(self) -> bool:
        """Whether the VO-box is this very machine."""
        return self.place.proxy.host == "127.0.0.1"

    async def _way_to(self, port: int) -> int:
        """The port here that leads to one of the VO-box's own loopback."""
        if self._beside:
            return port
        if port not in self._tunnels:
            tunnel = await self.proxy.conn.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
            self._tunnels[port] = tunnel.get_port()
        return self._tunnels[port]

    def forward(self, worker: str, what: str) -> Forward:
        """See `Session.forward`."""

        async def ask() -> tuple[str, str, str]:
            host, port, key, keytab = await self.proxy.forward(self.name, worker, what)
            address = f"{host}:{port}" if self._beside else f"127.0.0.1:{await self._way_to(port)}"
            return address, key, keytab

        address, key, keytab = self.loop.run(ask())
        if not key:
            return Forward(address, self._security)
        xrdclient.keep_key(keytab, key)
        self._stack.callback(Path(keytab).unlink, missing_ok=True)
        return Forward(address, keytab=keytab)

    def send(self, message: str, **arguments: Any) -> Any:
        """Ask the master; the end of the master or of the ProxyServer ends the waiting.

        Raises:
            SessionError: one of them is gone, or the session was closed here.
        """
        self.check()

        async def ask() -> Any:
            answer = asyncio.ensure_future(self._master.send(message, **arguments))
            gone = asyncio.ensure_future(self._master_gone.wait())
            waiting: set[asyncio.Future[Any]] = {answer, gone, self.proxy.closed}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    self.check()
                return await answer
            finally:
                gone.cancel()
                answer.cancel()

        return self.loop.run(ask())

    def status(self) -> Status:
        """Pilots and workers of the session, as the ProxyServer knows them."""
        return self.loop.run(self.proxy.status(self.name))

    def last_status(self) -> Status:
        """The same; of a session that is gone, as it was known last."""
        with suppress(ProxyError):
            return self.status()
        return self.proxy.last_status(self.name)

    def logs(
        self, sources: Sequence[Source], lines: int, since: Mapping[Source, int]
    ) -> Mapping[Source, tuple[str, int]]:
        """What these have written last; see `ProxyClient.logs`."""
        return self.loop.run(self.proxy.logs(sources, lines, since))

    def other_sessions(self) -> list[SessionRecord]:
        """The user's other sessions that have workers, of the same pilots."""
        records = self.loop.run(self.proxy.sessions())
        return [record for record in records if record.workers and record.name != self.name]

    def check(self) -> None:
        """Raises:
        SessionError: the session can be used no more.
        """
        if not self.lost and self.proxy.closed.done():
            self.lost = f"{self.proxy.closed.result()}; open a new session"
        if self.lost:
            raise SessionError(self.lost)

    def end_session(self) -> None:
        """End the session's master and workers."""
        with suppress(ProxyError):  # it is gone already, or the ProxyServer is
            self.loop.run(self.proxy.close_session(self.name), 30)

    async def _on_event(self, event: Any) -> None:
        from .proxy.client import SessionLost

        if isinstance(event, SessionLost) and event.session == self.name:
            how, line_end, last_words = event.reason.partition("\n")
            self.lost = f"the session's master is gone ({how}); open a new session{line_end}{last_words}"
            self._master_gone.set()


async def _make_event() -> asyncio.Event:
    return asyncio.Event()
