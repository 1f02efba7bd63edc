"""The session's master: gives packets to workers, takes their commits, tells the client.

Transport is none of its business: every public coroutine of its two desks is one message of the narrow
protocol, whose arguments and answers are plain data. It runs in the VO-box's event loop; only merging has a
thread.
"""

from __future__ import annotations

from pathlib import Path

from .board import Board
from .clientdesk import ClientDesk
from .workerdesk import WorkerDesk


class Master:
    """One session's; ``cache`` keeps compiled code and what is known of files."""

    def __init__(self, cache: Path) -> None:
        self._board = Board(cache)
        self.for_workers = WorkerDesk(self._board)
        self.for_client = ClientDesk(self._board)

    async def start(self) -> None:
        """Load ROOT."""
        await self._board.merge.start()

    def close(self) -> None:
        """Stop merging."""
        self._board.merge.close()
