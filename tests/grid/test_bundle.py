"""Pilots that have nothing on their nodes but a Python and a package with ROOT."""

import json
import sys
from pathlib import Path

import gridproof
from gridproof.localgrid.packages import available


def test_pilots_run_from_their_bundle_and_the_packages_of_the_grid(
    world, pilot_bundle, tmp_path, monkeypatch
):
    settings = tmp_path / "gridproof.yaml"
    python = str(Path(sys.executable).resolve())  # the interpreter below the virtual environment
    pilots = {"bundle": str(pilot_bundle.path), "python": python, "packages": list(available())}
    settings.write_text(json.dumps({"pilots": pilots}))
    monkeypatch.setenv("GRIDPROOF_CONFIG", str(settings))
    with gridproof.open(world.grid, workers=2, timeout=90) as session:
        for worker in session.workers:
            maps = Path(f"/proc/{worker.pid}/maps").read_text()
            assert "gridproof-bundle/numpy" in maps
            assert f"{sys.prefix}/lib/python" not in maps.replace("/ROOT/", "/").replace("root.libs", "")
        data = session.dataset(world.pattern, tree="events")
        world.assert_exact(session.process(data, world.selector))
