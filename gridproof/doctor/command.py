"""``gridproof doctor`` on a terminal."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.option(
    "--grid",
    type=click.Choice(["alien", "local"]),
    default="alien",
    show_default=True,
    help="The real Grid, or the embedded one that is running.",
)
def doctor(grid: str) -> None:
    """Check all that a session needs and say how to mend what is wrong; exit code 1 if something is."""
    from gridproof.doctor import examine

    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for wraps in ("ignore", "ignore", "fold"):
        table.add_column(overflow=wraps, no_wrap=wraps == "ignore")
    states = []
    with console.status("looking …") as status:
        for name, verdict in examine(grid):
            status.update(f"looking beyond {name} …")
            states.append(verdict.state)
            found = Text(verdict.found)
            if verdict.remedy:
                found.append(f"\n→ {verdict.remedy}", _STYLES[verdict.state])
            table.add_row(name, Text(verdict.state, _STYLES[verdict.state]), found)
    console.print(table)
    sys.exit(int("failed" in states))
