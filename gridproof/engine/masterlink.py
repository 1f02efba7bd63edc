"""A worker's end of the protocol with the master (see `ForWorkers` for the messages)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Channel(Protocol):
    """The master's messages by some transport; each call gives the answer."""

    def __getattr__(self, message: str) -> Callable[..., Awaitable[Any]]: ...


class MasterLink:
    """Says who speaks, and numbers what must not be done twice should the transport repeat it."""

    def __init__(self, channel: Channel, address: str) -> None:
        self._channel = channel
        self._address = address
        self._number = 0

    async def ask(self, message: str, **content: Any) -> Any:
        """Send a message that may be answered twice."""
        return await getattr(self._channel, message)(worker=self._address, **content)

    async def once(self, message: str, **content: Any) -> Any:
        """Send a message that takes effect once."""
        self._number += 1
        return await self.ask(message, number=self._number, **content)

    async def look_up(self, message: str, **content: Any) -> Any:
        """Fetch what is the same for every worker."""
        return await getattr(self._channel, message)(**content)
