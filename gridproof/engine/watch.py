"""Looks after a worker while a packet keeps its ROOT thread busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import NoReturn

from .masterlink import MasterLink
from .memory import MemoryGuard
from .notes import note


class Unfit(Exception):
    """This process has to end at once, whatever its threads are doing, and a fresh one to take its place."""


@dataclass(frozen=True)
class Pace:
    """A worker's times, all in s."""

    ask: float = 1.0  # a packet that runs so long asks whether to go on, and again
    leave: float = 3.0  # so long it may take to stop
    look: float = 0.2  # at the memory
    last_word: float = 2.0  # a process that has to end tries so long to say why


@dataclass
class Attempt:
    """A packet while it runs; ``called_off``: its outputs are not wanted any more.

    When it was looked at last it was at ``entry``, and had been seen there first at ``there_since``.
    """

    query: int
    packet: int
    began: float = field(default_factory=monotonic)
    called_off: bool = False
    entry: int = -1
    there_since: float = 0.0

    def stuck(self, entry: int, now: float) -> float:
        """Seconds that it has been at the entry at which it is now."""
        if entry != self.entry or not self.there_since:
            self.entry, self.there_since = entry, now
        return now - self.there_since


class Watch:
    """Finds out when a packet, or what it takes of memory, gets out of hand.

    ``stop`` asks the ROOT thread to leave its packet, ``entry`` tells where it is; ``held`` has the packets
    that the worker answers for.

    Raises (from `memory` and `time`, which run until then):
        Unfit: the process has to end; the master knows.
    """

    def __init__(
        self,
        master: MasterLink,
        memory: MemoryGuard,
        pace: Pace,
        stop: Callable[[], None],
        entry: Callable[[], int],
        held: Callable[[], list[int]],
    ) -> None:
        self._master = master
        self._memory = memory
        self._pace = pace
        self._stop = stop
        self._entry = entry
        self._held = held
        self.ask = pace.ask  # may be made longer
        self.attempt: Attempt | None = None

    async def memory(self) -> None:
        """Look at what the process uses, again and again."""
        while True:
            await asyncio.sleep(self._pace.look)
            attempt = self.attempt
            if attempt is not None and (excess := self._memory.excess()):
                await self._end(attempt, "memory", excess)

    async def time(self) -> None:
        """Ask about every packet that takes long whether its outputs are still wanted."""
        while True:
            attempt = self.attempt
            age = monotonic() - attempt.began if attempt else 0.0
            await asyncio.sleep(self.ask - age if age < self.ask else self.ask)
            if attempt is None or attempt is not self.attempt:
                continue
            now = monotonic()
            age, stuck = now - attempt.began, attempt.stuck(self._entry(), now)
            wanted = await self._master.ask("late", query=attempt.query, packet=attempt.packet, stuck=stuck)
            if wanted or attempt is not self.attempt:
                continue
            attempt.called_off = True
            self._stop()
            await asyncio.sleep(self._pace.leave)
            if attempt is self.attempt:
                await self._end(attempt, "hung", f"it did not come back within {age:.0f} s")

    async def _end(self, attempt: Attempt, kind: str, reason: str) -> NoReturn:
        note(f"ends, {kind}: {reason}")
        said = self._master.once(
            "fail",
            query=attempt.query,
            packet=attempt.packet,
            released=self._held(),
            kind=kind,
            reason=reason,
            storage_elements=[],
        )
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(said, self._pace.last_word)
        raise Unfit(reason)
