"""Commands and seconds that 200 pilots cost at the central service: from a plan until all hold a slot.

Against the embedded Grid, with pilots that only hold their slots; what a session waits for beyond that
(imports on the nodes, registration) is the same for one pilot and for many.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import harness
from calls import Counted, fill

from gridproof.alien import Alien
from gridproof.config import PilotConfig
from gridproof.dataset import resolve
from gridproof.localgrid import LocalGrid
from gridproof.pilotjobs import PilotJobs
from gridproof.planning import Planner
from gridproof.proxy.versions import here

SITES = 3
FILES = 300
PATIENCE = 300.0  # s


def wait_for_slots(pilots: PilotJobs) -> None:
    """Follow them as an opening session does, until none waits any more."""
    deadline = time.monotonic() + PATIENCE
    while "waiting" in pilots.summary():
        if time.monotonic() > deadline:
            raise SystemExit(f"not all have a slot in {PATIENCE:.0f} s: {pilots.summary()}")
        pilots.poll([])
        time.sleep(0.1)
    if "failed" in pilots.summary():
        raise SystemExit(pilots.summary())


def main() -> None:
    """Measure and report."""
    scale = harness.scale(1)
    count = scale(200, 12)
    with (
        LocalGrid(sites=SITES, slots=-(-count // SITES) + 1) as grid,
        tempfile.TemporaryDirectory() as directory,
    ):
        fill(grid, FILES)
        idle = Path(directory) / "idle.sh"
        idle.write_text("#!/bin/sh\nexec sleep 3600\n")
        idle.chmod(0o755)
        Path(directory).chmod(0o755)
        config = PilotConfig(python=str(idle))
        counted = Counted(grid)
        with Alien.connect(grid.environment) as alien:
            pilots = PilotJobs(alien, config, "benchmark")
            with counted("plan"):
                known = resolve("/local/data/**/AO2D.root", "any", alien)
                planner = Planner.ask(alien, known, config)
                requests = planner.requests(count)
            with counted("submit"):
                pilots.submit(requests, {}, here())
            with counted("follow until all hold a slot"):
                wait_for_slots(pilots)
            with counted("end"):
                pilots.end()
    figures = counted.figures
    following = figures["follow until all hold a slot"]
    fixed = sum(figures[name]["calls"] for name in ("plan", "submit", "end"))
    met = fixed <= 40 and following["calls"] <= following["seconds"] + 2
    value = {f"{name}, {what}": figures[name][what] for name in figures for what in ("calls", "seconds")}
    claim = f"{count} pilots near {FILES} files: at most 40 commands and one ps a second"
    harness.report("pilots", claim, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
