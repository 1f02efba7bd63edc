"""``gridproof grid``: the embedded Grid from a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from gridproof.errors import LocalGridError


@click.group()
def grid() -> None:
    """Start, stop and use the embedded Grid."""


@grid.command()
@click.option("--sites", default=3, show_default=True, type=click.IntRange(1), help="Number of sites.")
@click.option("--slots", default=2, show_default=True, type=click.IntRange(1), help="Slots of each site.")
@click.option("--cores", default=1, show_default=True, type=click.IntRange(1), help="CPU cores of each slot.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Keep its state here; default: a temporary directory."
)
@click.option("--open-storage", is_flag=True, help="Serve files to everybody, without access envelopes.")
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME[:GROUP,...]",
    help="A user with groups; may be repeated, the first is you (default: gridproof and guest).",
)
def start(
    sites: int, slots: int, cores: int, root: Path | None, open_storage: bool, users: tuple[str, ...]
) -> None:
    """Start a Grid, with a ProxyServer that keeps sessions, that runs until 'gridproof grid stop'."""
    from gridproof.config import load
    from gridproof.localgrid.grid import start_standing
    from gridproof.localgrid.limits import Limits
    from gridproof.localgrid.settings import Settings
    from gridproof.localgrid.users import DEFAULT_USERS, Users, read_user

    accounts = tuple(map(read_user, users)) or DEFAULT_USERS
    Users(accounts)
    running = start_standing(
        Settings(
            sites=sites,
            slots=slots,
            cores=cores,
            root=str(root.absolute()) if root else "",
            cache=str(load().cache),
            open_storage=open_storage,
            users=accounts,
            limits=Limits(idle_checks=0),  # whoever is at a prompt may take a break
        )
    )
    click.echo(f"Grid with {sites} sites of {slots} slots is running in {running.root} (pid {running.pid})")
    click.echo('For alien.py and other programs: eval "$(gridproof grid env)"')


@grid.command()
def stop() -> None:
    """Stop the Grid that 'gridproof grid start' started."""
    from gridproof.localgrid.grid import stop_standing

    click.echo("Stopped" if stop_standing() else "No embedded Grid is running")


@grid.command()
def status() -> None:
    """Show sites, slots, storage elements, jobs and the ProxyServer."""
    from gridproof.localgrid import discovery
    from gridproof.localgrid.grid import status as ask

    rows = ask(_environment())
    click.echo(f"{'SITE':<10} {'SLOTS':>7}  {'SE':<22} {'PID':>8}  URL")
    for row in (r for r in rows if "site" in r):
        pid = row["pid"] if row["pid"] != "0" else "dead"
        slots = f"{row['used']}/{row['slots']}"
        click.echo(f"{row['site']:<10} {slots:>7}  {row['se']:<22} {pid:>8}  {row['url']}")
    jobs = [f"{row['jobs']} {row['state']}" for row in rows if "state" in row]
    click.echo("Jobs: " + (", ".join(jobs) or "none"))
    standing = discovery.find(0)
    if standing and standing.proxy:
        click.echo(f"ProxyServer: {standing.proxy['host']}:{standing.proxy['port']}, for gridproof.attach()")


@grid.command()
@click.option("--user", help="As this user of the Grid (default: its first).")
def env(user: str | None) -> None:
    """Print what a shell needs to talk to the Grid."""
    from gridproof.localgrid.discovery import environment_of

    environment = _environment()
    for name, value in (environment_of(environment, user) if user else environment).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@grid.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("lfn")
@click.option("--se", "ses", multiple=True, help="A storage element for a replica; may be repeated.")
def put(file: Path, lfn: str, ses: tuple[str, ...]) -> None:
    """Store FILE on the Grid as LFN."""
    from gridproof.localgrid.client import GridAccess

    with GridAccess(_environment()) as access:
        access.put(file, lfn, ses)


@grid.command()
@click.argument("lfn")
@click.argument("file", type=click.Path(path_type=Path))
def get(lfn: str, file: Path) -> None:
    """Copy LFN from the Grid to FILE."""
    from gridproof.localgrid.client import GridAccess

    with GridAccess(_environment()) as access:
        access.get(lfn, file)


def _environment() -> dict[str, str]:
    from gridproof.localgrid.discovery import find_running

    found = find_running()
    if found is None:
        raise LocalGridError("No embedded Grid is running: start one with 'gridproof grid start'")
    return found
