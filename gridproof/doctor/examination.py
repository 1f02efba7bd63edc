"""The checks in their order, and what each may take."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timezone

from gridproof import config, grids
from gridproof.alien import Alien
from gridproof.doctor import machine, services, vobox
from gridproof.doctor.verdict import Verdict, bounded, failed, skipped
from gridproof.errors import GridproofError

MACHINE_SECONDS = 70.0
CONNECT_SECONDS = 120.0  # a key's password may have to be typed
GRID_SECONDS = 60.0
STORAGE_SECONDS = 180.0  # a dead SE costs some 20 s, and there may be several


def examine(grid: str) -> Iterator[tuple[str, Verdict]]:
    """Check after check, by name; ``grid`` is ``"alien"``, a ``"proxy://…"`` or ``"local"`` (the embedded
    Grid that runs).

    Raises:
        ConfigError: no such kind of Grid, or the configuration cannot be used.
    """
    settings = config.load()
    grids.check_name(grid)
    real = grids.is_remote(grid)
    yield "ROOT", bounded(machine.root, MACHINE_SECONDS)
    yield "compiler", bounded(machine.compiler, MACHINE_SECONDS)
    yield "XRootD", bounded(lambda: machine.xrootd(server=not real), MACHINE_SECONDS)
    if real:
        yield "pilots' bundle", bounded(lambda: machine.bundle(settings.pilots), MACHINE_SECONDS)
        environ: Mapping[str, str] | None = os.environ
    else:
        environ = _embedded()
    if environ is None:
        yield "embedded Grid", failed("none is running", "gridproof grid start")
        return
    yield from _examine_grid(environ)
    try:
        endpoint = grids.standing(grid, settings).proxy
    except GridproofError as error:
        yield "ProxyServer", failed(str(error)) if real else skipped(str(error))
        return
    yield "ProxyServer", bounded(lambda: vobox.proxy(endpoint, public=real), GRID_SECONDS)


def _embedded() -> Mapping[str, str] | None:
    from gridproof.localgrid import discovery

    found = discovery.find_running()
    return {**os.environ, **found} if found else None


def _examine_grid(environ: Mapping[str, str]) -> Iterator[tuple[str, Verdict]]:
    now = datetime.now(timezone.utc)
    certificate = bounded(lambda: services.certificate(environ, now), GRID_SECONDS)
    yield "certificate", certificate
    names = ("central service", "clock", "catalogue", "storage")
    if certificate.state == "failed":
        yield from ((name, skipped("needs a certificate")) for name in names)
        return
    opened: list[Alien] = []

    def connect() -> Verdict:
        verdict, alien = services.central(environ)
        opened.append(alien)
        return verdict

    yield names[0], bounded(connect, CONNECT_SECONDS)
    if not opened:
        yield from ((name, skipped("needs the central service")) for name in names[1:])
        return
    with closing(opened[0]) as alien:
        now = datetime.now(timezone.utc)
        yield names[1], bounded(lambda: services.clock(environ, now), GRID_SECONDS)
        yield names[2], bounded(lambda: services.catalogue(alien), GRID_SECONDS)
        yield names[3], bounded(lambda: services.storage(alien), STORAGE_SECONDS)
