"""The ``gridproof`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

import click

from .errors import GridproofError

FOLLOW_SECONDS = 2.0
MOST_LINES = 10_000  # of a log, between two looks at it

_ELSEWHERE = {
    "doctor": ("gridproof.doctor.command", "doctor"),
    "grid": ("gridproof.localgrid.shell", "grid"),
    "pilot": ("gridproof.pilot.command", "pilot"),
    "simulate": ("gridproof.simulate.command", "simulate"),
}


class _Commands(click.Group):
    """Subcommands, some of them in rooms that are opened only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            module, name = _ELSEWHERE[cmd_name]
            command = getattr(import_module(module), name)
            assert isinstance(command, click.Command)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gridproof")
def cli() -> None:
    """Interactive ROOT analysis on the Grid, next to the data."""


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Directory for pt_spectrum.png (default: the current one).",
)
def demo(as_json: bool, output: Path) -> None:
    """The main job on an embedded Grid: make data, open a session, fill a pT spectrum, check it."""
    from . import demo as demonstration

    sys.exit(demonstration.main(as_json, output))


@cli.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML: users (name: [public keys]), authorized_keys_file, accounts, host, port, packet_forwarding, "
    "forward_ports, forward_host, state_dir, cache_dir, grid_cas, orphan_limit, lost_after, join_lifetime, "
    "keep_results (s), store_size (bytes), limits, user_limits. "
    "Without it, one line of JSON on standard input, whose end ends the ProxyServer.",
)
def proxy(config: Path | None) -> None:
    """Run a ProxyServer until it is told to end; prints its port and host key."""
    from .proxy.__main__ import main as serve

    sys.exit(serve(config))


@cli.command()
@click.argument("selector")
@click.argument("dataset", nargs=-1, required=True)
@click.option("--tree", required=True, help="The tree's name.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--grid", default="local", show_default=True, help="local, alien or proxy://user@host")
@click.option("--option", default="", help="The selector's option.")
@click.option("--on-missing", type=click.Choice(["fail", "skip"]), default="fail", show_default=True)
@click.option("--output", required=True, help="Local file or LFN for the outputs.")
def run(
    selector: str,
    dataset: tuple[str, ...],
    tree: str,
    workers: int,
    grid: str,
    option: str,
    on_missing: str,
    output: str,
) -> None:
    """Run SELECTOR over DATASET (an LFN pattern, LFNs, root:// URLs or paths) and save its outputs."""
    from . import opening

    source = dataset[0] if len(dataset) == 1 else list(dataset)
    with opening.open(grid, workers=workers, dataset=source, tree=tree) as opened:
        result = opened.process(opened.dataset(source, tree), selector, option, on_missing=on_missing)
        result.save(output)
    click.echo(result.summary, err=True)


@cli.command()
@click.argument("dataset", nargs=-1)
@click.option("--workers", type=click.IntRange(min=1), required=True)
@click.option("--grid", default="local", show_default=True, help="local, alien or proxy://user@host")
@click.option("--se", "ses", multiple=True, help="Plan for this SE (may be repeated), and ask no Grid.")
def jdl(dataset: tuple[str, ...], workers: int, grid: str, ses: tuple[str, ...]) -> None:
    """Print the JDLs of the pilots that a session over DATASET would submit, and submit nothing."""
    from . import config, pilotjobs, planning

    pilots = config.load().pilots
    requests = planning.plan(list(dataset), workers, pilots, grid, ses)
    click.echo(pilotjobs.preview(requests, pilots), nl=False)


@cli.command()
@click.option("--grid", default="local", show_default=True, help="local, alien or proxy://user@host")
def queries(grid: str) -> None:
    """List the sessions that live on the Grid's ProxyServer, and their queries."""
    from . import opening

    records = opening.sessions(grid)
    if not records:
        click.echo("No session lives there; gridproof.open() opens one")
    for record in records:
        click.echo(f"session {record.name}: {record.state}, {record.workers} workers")
        session = opening.attach(record.name, grid)
        for query in session.queries():
            click.echo(f"  {query.id} {query.title}: {query.progress}")
        session.detach()


@cli.command()
@click.argument("session", required=False)
@click.option("--worker", help='Of this worker only, or of the session\'s "master".')
@click.option("--pilot", help="Of this pilot only, by its job id.")
@click.option("--lines", type=click.IntRange(min=1), default=20, show_default=True, help="Of each.")
@click.option("--follow", is_flag=True, help="Show what is written from now on too, until interrupted.")
@click.option("--grid", default="local", show_default=True, help="local, alien or proxy://user@host")
def logs(
    session: str | None, worker: str | None, pilot: str | None, lines: int, follow: bool, grid: str
) -> None:
    """Show what workers, pilots and the master of SESSION have written last, also after their death."""
    from .logs import reader

    with reader(session, grid) as read:
        shown = read(worker, pilot, lines)
        click.echo(str(shown))
        while follow:
            time.sleep(FOLLOW_SECONDS)
            since = {log.source: log.written for log in shown}
            shown = read(worker, pilot, MOST_LINES, since)
            for log in shown:
                if log.text and log.written:
                    click.echo(str(log))


@cli.command()
@click.option("--renew", is_flag=True, help="Get a new token first, with the user's own certificate.")
@click.option(
    "--days", type=click.IntRange(min=1), help="How long the new token shall be valid (default: 31)."
)
def token(renew: bool, days: int | None) -> None:
    """Show the token and the certificate that the Grid knows you by."""
    from .alien import token as tokens

    if renew or days:
        tokens.renew(os.environ, days)
    for line in tokens.describe(os.environ, datetime.now(timezone.utc)):
        click.echo(line)


def main() -> None:
    """Entry point: errors of gridproof's own become one message and exit code 1."""
    try:
        cli(prog_name="gridproof")
    except GridproofError as error:
        click.echo(f"gridproof: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
