"""``gridproof doctor`` on a terminal."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridproof.doctor.verdict import Verdict

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.option(
    "--grid",
    default="alien",
    show_default=True,
    help="The real Grid (alien, or proxy://user@host), or local: the embedded one that is running.",
)
def doctor(grid: str) -> None:
    """Check what a session needs, and how to mend it.

    The exit code is 1 if something is wrong without which no session works.
    """
    from gridproof.doctor.examination import examine

    console = Console()
    states = set()
    for name, verdict in examine(grid):
        states.add(verdict.state)
        console.print(_row(name, verdict))
    sys.exit(int("failed" in states))


def _row(name: str, verdict: Verdict) -> Table:
    """A line of the table; each is printed at once, since a check may take long or ask for a password."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=15)
    table.add_column(width=7)
    table.add_column(overflow="fold")
    style = _STYLES[verdict.state]
    found = Text(verdict.found)
    if verdict.remedy:
        found.append(f"\n→ {verdict.remedy}", style)
    table.add_row(name, Text(verdict.state, style), found)
    return table
