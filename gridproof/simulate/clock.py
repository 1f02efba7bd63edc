"""Simulated time: calls that come due, and processes that sleep or wait for something to happen."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from itertools import count
from typing import Any


class Clock:
    """Calls what has come due, in the order of time and then of asking; nothing else tells the time."""

    __slots__ = ("_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = count()

    def at(self, when: float, call: Callable[..., Any], *arguments: Any) -> None:
        """Have ``call(*arguments)`` made at a time."""
        heapq.heappush(self._heap, (when, next(self._order), call, arguments))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until there is nothing to do or ``until()`` holds."""
        heap = self._heap
        while heap and not until():
            self.now, _, call, arguments = heapq.heappop(heap)
            call(*arguments)


class Signal:
    """Something that happens once and brings a value; at most one process waits for it."""

    __slots__ = ("happened", "value", "waiting")

    def __init__(self) -> None:
        self.happened = False
        self.value: Any = None
        self.waiting: Process | None = None

    def happen(self, value: Any = None) -> None:
        """It happens now; a second time changes nothing."""
        if not self.happened:
            self.happened, self.value = True, value
            if self.waiting is not None:
                self.waiting.resume(value)


Steps = Generator[float | Signal, Any, Any]
"""What a process does: it yields seconds to sleep, or a `Signal` whose value it is sent."""


class Process:
    """Runs steps until they end or it is killed."""

    __slots__ = ("_clock", "_steps")

    def __init__(self, clock: Clock, steps: Steps) -> None:
        self._clock = clock
        self._steps: Steps | None = steps
        clock.at(clock.now, self.resume)

    def kill(self) -> None:
        """No further step is made."""
        self._steps = None

    def resume(self, value: Any = None) -> None:
        """Go on with what was waited for."""
        steps = self._steps
        if steps is None:
            return
        try:
            while True:
                step = steps.send(value)
                if isinstance(step, float):
                    self._clock.at(self._clock.now + step, self.resume)
                    return
                if not step.happened:
                    step.waiting = self
                    return
                value = step.value
        except StopIteration:
            self._steps = None
