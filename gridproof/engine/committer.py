"""When a worker commits, and how."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import outputs
from .masterlink import MasterLink
from .runner import Delta, Runner

FIRST_SECONDS = 0.25  # the first commit of a query comes so early, each further one after twice as much
COMMIT_COSTS = 20.0  # a commit comes no oftener than so many times what it costs the worker,
EARLY_COSTS = 4.0  # and so many times while commits come early
LARGE = 1 << 20  # bytes of outputs for which the master is asked first whether it has room


def pause(commits: int, feedback: float, cost: float, interval: float) -> float:
    """Seconds that an instance lives before its commit is due, after so many ``commits`` of the query.

    ``feedback``: what the user wants, ``cost``: what a commit costs the worker, ``interval``: what the master
    wants at least, all in s.
    """
    early = FIRST_SECONDS * 2.0 ** min(commits, 20)
    if early < feedback:
        return max(early, EARLY_COSTS * cost, interval)
    return max(feedback, COMMIT_COSTS * cost, interval)


class Committer:
    """Sends the outputs of a runner's instances to the master, at most one at a time."""

    def __init__(self, master: MasterLink, name: str, runner: Runner) -> None:
        self._master = master
        self._name = name
        self._runner = runner
        self._query = 0
        self._feedback = 0.0
        self._interval = 0.0  # what the master wants at least
        self._commits = 0  # of the query
        self._sequence = 0
        self._sending: asyncio.Task[None] | None = None
        self.at_end = False  # one commit for all of a worker's packets
        self.began = 0.0  # when the open instance began (monotonic)
        self.seconds = 0.0  # that the last commit has taken

    def begin(self, number: int, query: Mapping[str, Any]) -> None:
        """Commits are of this query from now on."""
        self._query = number
        self._feedback = query["feedback"]
        self._interval = query["interval"]
        self._commits = 0
        self.at_end = query["commit"] == "end"

    def due(self, now: float) -> bool:
        """The open instance has lived long enough, and no other one's outputs are on their way."""
        if self.at_end or (self._sending is not None and not self._sending.done()):
            return False
        cost = self._runner.instance_cost
        return now - self.began >= pause(self._commits, self._feedback, cost, self._interval)

    async def commit(self, delta: Delta) -> None:
        """Send the outputs of an instance that has ended, after those of the one before."""
        self._commits += 1
        await self._send(self._query, delta)

    async def counted(self, query: int, packets: Sequence[int]) -> None:
        """Commit packets that only told how many entries files have."""
        if packets:
            await self._send(query, Delta(tuple(packets), b"", (), 0, 0))

    async def settle(self) -> None:
        """Wait until nothing is on its way."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await sending

    async def _send(self, query: int, delta: Delta) -> None:
        await self.settle()
        self._sending = asyncio.create_task(self._deliver(query, delta))

    async def _deliver(self, query: int, delta: Delta) -> None:
        began = time.monotonic()
        self._sequence += 1
        sequence = self._sequence
        if len(delta.data) >= LARGE or delta.files:
            while not await self._master.ask("admit"):
                pass
        files = await outputs.send(self._master, query, f"{self._name}-{sequence}", delta.files)
        answer = await self._master.ask(
            "commit",
            incarnation=self._name,
            query=query,
            sequence=sequence,
            packets=list(delta.packets),
            delta=delta.data,
            classes=list(delta.classes),
            files=files,
            bytes_read=delta.bytes_read,
            local_bytes=delta.local_bytes,
        )
        for file in delta.files:
            file.path.unlink()
        self.seconds = time.monotonic() - began + self._runner.instance_cost
        if query == self._query:
            self._interval = answer["interval"]
