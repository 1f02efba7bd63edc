"""What a session's master knows: its workers, the queries in flight, code; and who waits for news."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import MergeError
from ..bundle import Bundle
from ..merge import MergeThread
from ..notes import note
from ..spool import unlimited
from .known import KnownFiles
from .running import Running

LONGEST_WAIT = 20.0  # seconds that a message may wait for news


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as it introduced itself; ``address`` is what it is known by here."""

    address: str
    name: str
    site: str
    host: str
    pid: int


class News:
    """Something that coroutines wait for, again and again."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, deadline: float) -> bool:
        """Wait for news; False once ``deadline`` (monotonic) has passed."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            await asyncio.wait_for(self._event.wait(), left)
        except (TimeoutError, asyncio.TimeoutError):
            return False
        return True


class State:
    """Shared by those who serve the workers and those who serve the client, in one event loop."""

    def __init__(
        self, cache: Path, scratch: Path, keep_results: float, room: Callable[[], float] = unlimited
    ) -> None:
        self._keep_results = keep_results
        self.merge = MergeThread(cache, scratch, room)
        self.workers: dict[str, WorkerInfo] = {}
        self.names: dict[str, str] = {}  # of workers by address, of the gone ones too
        self.known = KnownFiles(cache / "files.sqlite")
        self.queries: dict[int, Running] = {}
        self.bundles: dict[str, Bundle] = {}
        self.loads: list[str] = []  # bundles that every query starts from
        self.work = News()  # there may be something to lease
        self.status = News()  # a query or the workers stand differently

    def in_flight(self, query: int) -> Running | None:
        """A query that is not over."""
        running = self.queries.get(query)
        return None if running is None or running.over else running

    def in_phase(self, phase: int) -> Running | None:
        """A query that is not over, if it is in this phase (see `Running.phase`)."""
        running = self.in_flight(abs(phase))
        return None if running is None or running.phase != phase else running

    def activity(self) -> tuple[int, int]:
        """How many queries run, and how many are over and kept."""
        over = sum(running.over for running in self.queries.values())
        return len(self.queries) - over, over

    def settle(self, running: Running) -> None:
        """See to it that a change in a query has its consequences and is seen."""
        ran = not running.over
        if running.settle():
            self.work.tell()
        if ran and running.over:
            error = running.state.error
            note(f"query {running.id} is over{f': {type(error).__name__}: {error}' if error else ''}")
            if running.learnt:
                self.known.learn(running.learnt.items())
            running.snapshot = (-1, b"")
            running.completing = asyncio.create_task(self._complete(running))
        self.status.tell()

    async def _complete(self, running: Running) -> None:
        """Put what is kept of a query that is over where it is kept; that can still fail."""
        try:
            await self.merge.run(running.merger.finish, running.state.error is None)
        except MergeError as error:
            running.state.error = running.state.error or error.with_traceback(None)
        running.complete(time.time() + self._keep_results)
        asyncio.get_running_loop().call_later(self._keep_results, self.forget, running.id)
        self.status.tell()

    def forget(self, query: int) -> None:
        """Nobody wants it any more."""
        running = self.queries.pop(query, None)
        if running is not None:
            running.end()
            self.merge.soon(running.merger.spool.remove)
            self.status.tell()

    def keep(self, message: Mapping[str, object]) -> str:
        """Take a bundle in; returns its key."""
        bundle = Bundle.from_message(dict(message))
        self.bundles[bundle.key] = bundle
        return bundle.key
