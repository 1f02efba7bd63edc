"""``gridproof simulate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from . import measured, plot, scenario
from .report import simulate as run


@click.command()
@click.argument("name", metavar="[SCENARIO]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw into this SVG."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    multiple=True,
    help="So many workers, data and bandwidths in proportion; may be given several times.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What benchmarks have measured (JSON): simulate the same and compare.",
)
def simulate(
    name: str | None, as_json: bool, picture: Path | None, workers: tuple[int, ...], against: Path | None
) -> None:
    """Simulate a query on a Grid with gridproof's own packetizer and commit log.

    SCENARIO is a YAML file or one of: tails, faults, thousand, ten-thousand.
    """
    if (name is None) == (against is None):
        raise click.UsageError("give either a SCENARIO or --against")
    if against is not None:
        comparisons = measured.compare(against)
        if as_json:
            click.echo(json.dumps([comparison.to_dict() for comparison in comparisons], indent=1))
        else:
            click.echo(measured.table(comparisons))
        sys.exit(0 if all(comparison.agrees for comparison in comparisons) else 1)
    chosen = scenario.load(str(name))
    scenarios = [chosen.with_workers(number) for number in workers] if workers else [chosen]
    reports = []
    for one in scenarios:
        reports.append(run(one))
        if not as_json:
            click.echo(f"{reports[-1]}\n")
    if as_json:
        shown = [report.to_dict() for report in reports]
        click.echo(json.dumps(shown if workers else shown[0]))
    if picture is not None:
        picture.write_text(plot.picture(reports), encoding="utf-8")
    sys.exit(0 if all(report.exact for report in reports) else 1)
