"""``gridproof pilot``: what worker nodes get."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def pilot() -> None:
    """Prepare what pilots need on worker nodes."""


@pilot.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("gridproof-pilot.tar.gz"),
    show_default=True,
    help="The archive to write.",
)
@click.option("--python", default="", help="For this Python, such as 3.12 (default: the running one).")
@click.option("--glibc", default="", help="For nodes with this glibc or a newer one, such as 2.28.")
@click.option("--with-root", is_flag=True, help="Bring ROOT along too, instead of taking the node's.")
@click.option("--with-python", is_flag=True, help="Bring the running Python along, for nodes without it.")
def bundle(output: Path, python: str, glibc: str, with_root: bool, with_python: bool) -> None:
    """Make the archive that pilots bring along: gridproof and all it needs.

    Without --python and --glibc it is copied from this environment, else fetched as wheels by pip.
    """
    from .collect import make

    made = make(output, python=python, glibc=glibc, with_root=with_root, with_python=with_python)
    manifest = made.manifest
    click.echo(f"{output}: {made.size / 1e6:.0f} MB, {len(manifest.distributions) + 1} distributions")
    click.echo(f"for Python {manifest.python} on {manifest.machine} with glibc {manifest.glibc} or newer")
    for name, version in (("Python", manifest.interpreter), ("ROOT", manifest.root)):
        click.echo(f"{name} {version} is in it" if version else f"{name} is taken from the node")
    click.echo(f"in ~/.config/gridproof.yaml:  pilots: {{bundle: {output.absolute()}}}")
