"""Pilots that have nothing on their nodes but a Python and a package with ROOT."""

import json
import sys
from pathlib import Path

import pytest

import gridproof
from gridproof.errors import NotEnoughWorkers
from gridproof.localgrid.jobs.packages import available


@pytest.fixture
def configure(pilot_bundle, tmp_path, monkeypatch):
    """Have pilots bring the bundle along; their Python is the one below the virtual environment."""

    def write(**pilots):
        settings = tmp_path / "gridproof.yaml"
        python = str(Path(sys.executable).resolve())
        settings.write_text(
            json.dumps({"pilots": {"bundle": str(pilot_bundle.path), "python": python, **pilots}})
        )
        monkeypatch.setenv("GRIDPROOF_CONFIG", str(settings))

    return write


def test_pilots_run_from_their_bundle_and_a_package_of_the_grid(world, configure):
    configure(packages=list(available()))
    with gridproof.open(world.grid, workers=1, timeout=90) as session:
        for worker in session.workers:
            maps = Path(f"/proc/{worker.pid}/maps").read_text().splitlines()
            libraries = {line.split()[-1] for line in maps if ".so" in line}
            ours = {path for path in libraries if path.startswith(sys.prefix)}
            assert all("/ROOT/" in path or "/cppyy/" in path or "/root.libs/" in path for path in ours), ours
            assert any("gridproof-bundle/numpy" in path for path in libraries)
        data = session.dataset(world.pattern, tree="events")
        world.assert_exact(session.process(data, world.selector))


def test_pilots_that_find_no_root_say_so_when_workers_do_not_come(world, configure):
    configure()
    with pytest.raises(NotEnoughWorkers, match=r"(?s)ERROR_E.*ROOT \S+ is wanted.*--with-root"):
        gridproof.open(world.grid, workers=1, timeout=20)
