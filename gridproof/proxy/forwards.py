"""Ports of the VO-box that lead, through pilots' connections, to workers and their nodes' XRootD servers."""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncssh

from gridproof.errors import ProxyError

if TYPE_CHECKING:
    from gridproof.proxy.gate import PilotControl
    from gridproof.proxy.pool.state import Pilot
    from gridproof.proxy.server import ProxyServer

WORKER, XROOTD = "worker", "xrootd"


@dataclass
class _Forward:
    number: int
    borrowed: bool  # not the worker's own number
    listener: asyncssh.SSHListener


class Forwards:
    """Each is opened when somebody asks for it, and closed with its worker."""

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._open: dict[tuple[str, str, str], _Forward] = {}  # by session, worker and what

    async def open(self, session: str, worker: str, what: str) -> tuple[int, Pilot]:
        """The port that leads to a worker's own port, or to the XRootD server beside it; and its pilot.

        Raises:
            ProxyError: there is no such worker or server, no port is free, or the pilot does not answer.
        """
        if what not in (WORKER, XROOTD):
            raise ProxyError(f"a forward leads to {WORKER} or {XROOTD}, not to {what[:40]!r}")
        found = self._server.registry.find_worker(session, worker)
        control = self._server.control(found.pilot.key) if found else None
        if found is None or control is None:
            raise ProxyError(f"session {session} has no worker {worker[:40]!r} that lives")
        pilot = found.pilot
        if what == XROOTD and not pilot.xrootd_port:
            raise ProxyError(f"there is no XRootD server at {pilot.about.site} ({pilot.about.host})")
        target = (session, worker, what)
        async with control.forwarding:
            if target not in self._open:
                to_worker = what == WORKER
                self._open[target] = await self._listen(
                    control, found.number if to_worker else 0, worker if to_worker else ""
                )
        return self._open[target].number, pilot

    async def _listen(self, pilot: PilotControl, own: int, worker: str) -> _Forward:
        config, registry, now = self._server.config, self._server.registry, self._server.now
        number = own or registry.numbers.take(now())
        while number:
            borrowed = number if number != own else 0
            try:
                listener = await pilot.forward(config.forward_host, number, worker)
                return _Forward(number, bool(borrowed), listener)
            except ProxyError:
                registry.numbers.give_back(borrowed, now())
                raise
            except OSError as error:
                registry.numbers.give_back(borrowed, now())
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise ProxyError(
                        f"the VO-box cannot listen on {config.forward_host}:{number}: {error.strerror}"
                    ) from None
                number = registry.numbers.take(now())  # a stranger has that one
        first, last = config.forward_ports
        raise ProxyError(f"none of the VO-box's ports {first} to {last} is free for a forward")

    def ports(self, sessions: Collection[str]) -> list[int]:
        """Those that lead to workers of ``sessions``."""
        return [forward.number for (session, _, _), forward in self._open.items() if session in sessions]

    def prune(self) -> None:
        """Close those whose worker is gone."""
        registry = self._server.registry
        for target, forward in list(self._open.items()):
            session, worker, _ = target
            if registry.find_worker(session, worker) is None:
                del self._open[target]
                forward.listener.close()
                if forward.borrowed:
                    registry.numbers.give_back(forward.number, self._server.now())
