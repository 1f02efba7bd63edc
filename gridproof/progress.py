"""How far a query or an opening session is: as a value, and drawn on a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How a query stands.

    ``state``: ``running``, ``done``, ``failed`` or ``cancelled``. ``events``: entries whose outputs are
    merged, of the ``expected`` ones (an estimate until every file has been opened, 0 while there is none).
    ``bytes_read`` from storage, ``local_bytes`` of them at the worker's own site; ``workers``: how many the
    session has; ``seconds`` since the query was submitted, at the master.
    """

    state: str
    events: int
    expected: int
    bytes_read: int
    local_bytes: int
    workers: int
    seconds: float

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Progress:
        """From what the master says (see `Master.follow`)."""
        return cls(
            state=_state(status),
            events=status["events"],
            expected=max(status["expected"], status["events"]),
            bytes_read=status["bytes_read"],
            local_bytes=status["local_bytes"],
            workers=status["workers"],
            seconds=status["seconds"],
        )

    @property
    def fraction(self) -> float:
        """Share of the expected events that is done, 0 to 1."""
        if self.state == "done":
            return 1.0
        return self.events / self.expected if self.expected else 0.0

    @property
    def rate(self) -> float:
        """Events per second, on average."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def local_fraction(self) -> float:
        """Share of the bytes that were read at the worker's own site."""
        return self.local_bytes / self.bytes_read if self.bytes_read else 0.0

    @property
    def remaining(self) -> float:
        """Seconds to go at this rate; infinite while nothing is known, 0 when it is over."""
        if self.state != "running":
            return 0.0
        return (self.expected - self.events) / self.rate if self.rate else math.inf

    def __str__(self) -> str:
        share = f"{self.fraction:.0%} of {self.expected:,}" if self.expected else "0"
        return f"{self.state}, {share} events in {self.seconds:.1f} s ({self.rates()})"

    def rates(self) -> str:
        """What is read and by whom, in one phrase."""
        megabytes = self.bytes_read / self.seconds / 1e6 if self.seconds else 0.0
        return (
            f"{self.rate:,.0f}/s, {megabytes:,.1f} MB/s, {self.local_fraction:.0%} local, "
            f"{self.workers} workers"
        )

    def _repr_html_(self) -> str:
        return f'<progress value="{self.fraction:.4f}" max="1"></progress> {self}'


def _state(status: Mapping[str, Any]) -> str:
    if not status["over"]:
        return "running"
    if not status["error"]:
        return "done"
    return "cancelled" if status["error"][0] == "QueryCancelled" else "failed"


def wanted(progress: bool | None) -> bool:
    """Whether to draw: as asked, else if standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def query_bar(show: bool, title: str) -> Iterator[Callable[[Progress], None]]:
    """Gives a callable that draws a query's progress as one line on standard error."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[rates]}, {task.fields[time]}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, rates="", time="")

        def draw(now: Progress) -> None:
            left = 0 < now.remaining < math.inf
            time = f"{now.remaining:,.0f} s left" if left else f"{now.seconds:,.1f} s"
            total = now.expected or None
            bar.update(task, completed=now.events, total=total, rates=now.rates(), time=time)

        yield draw


@contextmanager
def opening(show: bool, workers: int) -> Iterator[Callable[[int, str], None]]:
    """Gives a callable that draws how many workers have registered, and how the pilots are."""
    if not show:
        yield lambda _ready, _pilots: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(f"waiting for {workers} workers") as line:
        yield lambda ready, pilots: line.update(
            escape(f"{ready} of {workers} workers have registered{f'; {pilots}' if pilots else ''}")
        )
