"""The session's master: gives packets to workers, takes their commits, tells the client.

Transport is none of its business: every public coroutine of its two sides is one message of the narrow
protocol, whose arguments and answers are plain data. It runs in the VO-box's event loop; only merging has a
thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ..spool import unlimited
from .clients import ForClients
from .state import State
from .workers import ForWorkers


class Master:
    """One session's; ``cache`` keeps compiled code and what is known of files, ``scratch`` outputs.

    ``keep_results``: seconds for which a query that is over is kept. ``room``: bytes that ``scratch`` can
    still take.
    """

    def __init__(
        self, cache: Path, scratch: Path, keep_results: float, room: Callable[[], float] = unlimited
    ) -> None:
        self._state = State(cache, scratch, keep_results, room)
        self.for_workers = ForWorkers(self._state)
        self.for_clients = ForClients(self._state)

    async def start(self) -> None:
        """Load ROOT."""
        await self._state.merge.start()

    async def activity(self, running: int, kept: int) -> tuple[int, int]:
        """How many queries run and how many are over and kept, once it is not ``running`` and ``kept``."""
        while (now := self._state.activity()) == (running, kept):
            await self._state.status.wait(math.inf)
        return now

    def close(self) -> None:
        """Stop merging, and keep what was learnt of files."""
        self._state.merge.close()
        self._state.known.close()
