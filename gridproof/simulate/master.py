"""The master in simulated time: one message after the other, merging in a thread of its own.

What it answers comes from a real `Query`; its rules of waiting are those of `gridproof.engine.master`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..engine.master.state import LONGEST_WAIT
from ..engine.master.workers import LOOK_AROUND, LOOKS_PER_SECOND
from ..engine.packetizer import HELP_SECONDS
from ..engine.query import Query
from . import scenario
from .clock import Clock, Signal

Opening = tuple[int, int, int, Sequence[int]]
"""Packet, its last entry, the file's entries and clusters."""


class Asker(Protocol):
    """A worker, as the master sees it."""

    name: str
    site: str
    latency: float


@dataclass(slots=True)
class _Waiting:
    answer: Signal
    void: list[int]
    patience: float
    deadline: float


class Master:
    """Takes a query's messages. ``accepted(delta)`` is called once for each commit that counts.

    ``ended`` is when the query was over, −1 before.
    """

    def __init__(
        self, clock: Clock, query: Query, settings: scenario.Master, accepted: Callable[[Any], None]
    ) -> None:
        self.query = query
        self.ended = -1.0
        self.messages = 0
        self.busy = 0.0
        self.merging = 0.0
        self._clock = clock
        self._settings = settings
        self._accepted = accepted
        self._free = 0.0  # when it has done with the messages that have arrived
        self._merge_free = 0.0
        self._workers: set[str] = set()
        self._waiting: dict[Asker, _Waiting] = {}
        self._news = False
        self._merged = False

    def ask(self, worker: Asker, message: Callable[..., None], *arguments: Any) -> Signal:
        """Send one of the messages below; the signal brings its answer back."""
        answer = Signal()
        self._clock.at(self._clock.now + worker.latency, self._receive, worker, message, answer, arguments)
        return answer

    def lost(self, worker: Asker) -> None:
        """A worker's connection has broken."""
        self._workers.discard(worker.name)
        self._waiting.pop(worker, None)
        self.query.lose(worker.name)
        self.settle(self._clock.now)
        self._tell()

    def settle(self, now: float = 0.0) -> None:
        """See whether the query has ended."""
        if self.ended < 0 and (self.query.error is not None or self.query.finished):
            self.ended = now

    # ------------------------------------------------------------ messages

    def hello(self, worker: Asker, answer: Signal, now: float) -> None:
        """A worker is ready."""
        self._workers.add(worker.name)
        self.query.join(worker.name, worker.site)
        self._answer(worker, answer, now, None)

    def lease(
        self,
        worker: Asker,
        answer: Signal,
        now: float,
        ran: Sequence[tuple[int, int, float, str]],
        openings: Sequence[Opening],
        wait: float,
    ) -> None:
        """The worker's next packets, and which of ``openings`` are void.

        ``ran``: packets run since the last message, as (packet, entries, seconds, source site).
        """
        for report in ran:
            self.query.ran(worker.name, *report)
        void = self._open(worker, openings)
        packets = self.query.lease(worker.name, now, patient=True)
        if packets or not wait:
            self._answer(worker, answer, now, (packets, void))
            return
        waiting = _Waiting(answer, void, now + HELP_SECONDS, now + min(wait, LONGEST_WAIT))
        self._waiting[worker] = waiting
        self._clock.at(now + self._pause(), self._look, worker, waiting)

    def opened(self, worker: Asker, answer: Signal, now: float, openings: Sequence[Opening]) -> None:
        """Entries and clusters of files; answers the packets that are void."""
        self._answer(worker, answer, now, self._open(worker, openings))

    def describe(self, worker: Asker, answer: Signal, now: float) -> None:
        """What a worker needs once: the seconds between its commits, and between its questions, at least."""
        self._answer(worker, answer, now, (self._interval(), self._pause()))

    def begin(self, worker: Asker, answer: Signal, now: float, packet: int) -> None:
        """Whether to run a solo packet that has waited."""
        self._answer(worker, answer, now, self.query.begin(worker.name, packet, now))

    def late(self, worker: Asker, answer: Signal, now: float, packet: int) -> None:
        """Whether to go on with a packet that takes long."""
        self._answer(worker, answer, now, self.query.late(worker.name, packet, now))

    def commit(
        self, worker: Asker, answer: Signal, now: float, sequence: int, packets: Sequence[int], delta: Any
    ) -> None:
        """Outputs of some packets; answered with the seconds until the worker's next commit."""
        start = max(now, self._merge_free)
        self._merge_free = start + self._settings.merge
        self.merging += self._settings.merge
        self._clock.at(start, self._claim, worker, answer, sequence, packets, delta)

    def fail(
        self,
        worker: Asker,
        answer: Signal,
        now: float,
        packet: int,
        released: Sequence[int],
        kind: str,
        storage_elements: Sequence[str],
    ) -> None:
        """A packet could not be run."""
        self.query.fail(worker.name, packet, released, kind, "simulated", storage_elements)
        self._answer(worker, answer, now, None)
        self.settle(now)
        self._tell()

    # ------------------------------------------------------------ inside

    def _receive(self, worker: Asker, message: Callable[..., None], answer: Signal, rest: Any) -> None:
        self._free = max(self._clock.now, self._free) + self._settings.message
        self.messages += 1
        self.busy += self._settings.message
        message(worker, answer, self._free, *rest)

    def _answer(self, worker: Asker, answer: Signal, when: float, value: Any) -> None:
        self._clock.at(when + worker.latency, answer.happen, value)

    def _claim(
        self, worker: Asker, answer: Signal, sequence: int, packets: Sequence[int], delta: Any
    ) -> None:
        done = self._clock.now + self._settings.merge
        if worker.name in self._workers and self.ended < 0:
            verdict = self.query.claim(worker.name, worker.name, sequence, packets)
            if verdict.accepted:
                self._accepted(delta)
            if verdict.orphans:
                self._tell()
            self.settle(done)
            self._merged = True
        self._answer(worker, answer, done, self._interval())

    def _look(self, worker: Asker, waiting: _Waiting) -> None:
        """A waiting worker looks around for itself."""
        if self._waiting.get(worker) is not waiting:
            return
        now = self._clock.now
        if self._offer(worker, waiting):
            return
        if now >= waiting.deadline:
            del self._waiting[worker]
            self._answer(worker, waiting.answer, now, ([], waiting.void))
        else:
            self._clock.at(min(waiting.deadline, now + self._pause()), self._look, worker, waiting)

    def _offer(self, worker: Asker, waiting: _Waiting) -> bool:
        now = self._clock.now
        packets = self.query.lease(worker.name, now, patient=now < waiting.patience)
        if packets:
            del self._waiting[worker]
            self._answer(worker, waiting.answer, now, (packets, waiting.void))
        return bool(packets)

    def _open(self, worker: Asker, openings: Sequence[Opening]) -> list[int]:
        void = []
        for packet, last, entries, clusters in openings:
            if not self.query.opened(worker.name, packet, last, entries, clusters):
                void.append(packet)
            elif last < entries:
                self._tell()
        return void

    def _interval(self) -> float:
        return 2 * len(self._workers) * self._settings.merge if self._merged else 0.0

    def _pause(self) -> float:
        return max(LOOK_AROUND, len(self._workers) / LOOKS_PER_SECOND)

    def _tell(self) -> None:
        """There may be work for those who wait."""
        if self._waiting and not self._news:
            self._news = True
            self._clock.at(self._clock.now, self._wake)

    def _wake(self) -> None:
        self._news = False
        for worker, waiting in list(self._waiting.items()):
            self._offer(worker, waiting)
