"""How far a query or an opening session is, on a terminal; nothing where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Watch = Callable[[Mapping[str, Any]], None]


def wanted(progress: bool | None) -> bool:
    """Whether to draw: as asked, else if standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def query_bar(show: bool) -> Iterator[Watch]:
    """Gives a callable that draws the states of a query (see `Master.follow`)."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[rates]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("processing", total=None, rates="")

        def watch(status: Mapping[str, Any]) -> None:
            seconds = max(status["seconds"], 1e-9)
            bar.update(
                task,
                completed=status["events"],
                total=max(status["expected"], status["events"]) or None,
                rates=(
                    f"{status['events'] / seconds:,.0f} events/s  "
                    f"{status['bytes_read'] / seconds / 1e6:,.1f} MB/s  {status['workers']} workers"
                ),
            )

        yield watch


@contextmanager
def opening(show: bool, workers: int) -> Iterator[Callable[[int], None]]:
    """Gives a callable that draws how many workers have registered."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"waiting for {workers} workers") as line:
        yield lambda ready: line.update(f"{ready} of {workers} workers have registered")
