"""A job that is killed while its agent waits for a storage element: the agent hears of it then, too."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

HOME = "/local/user/g/gproof"


@pytest.fixture
def stopped(grid):
    """While a storage element does not answer."""

    @contextlib.contextmanager
    def stop(se):
        pid = next(int(row["pid"]) for row in grid.status() if row.get("se") == se)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    return stop


@pytest.fixture
def left(grid):
    """What is left of a job on its node."""
    return lambda job, what="": list((grid.root / "wn").glob(f"alien-job-{job}.*/{what}"))


def test_while_its_inputs_come(grid, raw, script, tmp_path, until, stopped, left):
    data, se = tmp_path / "data", grid.se_names[0]
    data.write_text("x")
    grid.put(data, f"{HOME}/{tmp_path.name}/data", [se])
    lfn = script("true")
    with stopped(se):
        job = raw.submit(f'Executable = "{lfn}"; InputFile = {{"LF:{HOME}/{tmp_path.name}/data"}};')
        until(lambda: left(job, ".incoming"))
        raw.rows("kill", job)
        until(lambda: not left(job))
    assert raw.status(job) == "KILLED"


def test_while_its_outputs_are_saved(grid, raw, script, tmp_path, until, stopped, left):
    go_on, se = tmp_path / "go-on", grid.se_names[0]
    lfn = script(f"until [ -e {go_on} ]; do sleep 0.1; done; echo x >out.txt")
    out = f"{HOME}/{tmp_path.name}/out"
    job = raw.submit(f'Executable = "{lfn}"; OutputFile = {{"out.txt@{se}"}}; OutputDir = "{out}";')
    raw.wait(job, "RUNNING")
    with stopped(se):
        go_on.touch()
        until(lambda: "Uploading: out.txt" in raw.trace(job))
        raw.rows("kill", job)
        until(lambda: not left(job))
    assert raw.status(job) == "KILLED"
    assert raw.ask("stat", f"{out}/out.txt")["metadata"]["exitcode"] != "0"
