"""The recorded job, run: it leaves the recorded trace, line by line, and the file that it left there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gridproof.localgrid import LocalGrid, User
from tests.localgrid.conftest import Raw
from tests.localgrid.recorded import HOME, JDL, ROWS, SCRIPT

MASKS = (  # what another machine at another time has otherwise
    r"^\d{8} \d\d:\d\d:\d\d",
    r"(?<=ASSIGNED to: )\S+",
    r"\S+(?=/alien-job-)",
    r"(?<=alien-job-)[\d.]+",
    r"(?<= on )\S+(?=\. Builddate)",
    r"(?<=\[proc      \]: )[\d:. ]+$",
    r"(?<=real )[\d.]+(?=,)|(?<=user )[\d.]+(?=,)|(?<=sys )[\d.]+(?=,)",
    r"(?<=detected: ).*",
)


def masked(trace: str) -> list[str]:
    return [re.sub("|".join(MASKS), "*", line) for line in trace.splitlines()]


def test_the_recorded_job_leaves_the_recorded_trace(tmp_path: Path, until: Callable[..., None]) -> None:
    recorded = next(row["trace"] for row in ROWS if "trace" in row)
    with LocalGrid(sites=1, slots=1, users=[User("jalien", home=HOME)]) as grid, Raw(grid.environment) as raw:
        for name, content in (("job.sh", SCRIPT), ("j.jdl", JDL)):
            (tmp_path / name).write_bytes(content)
            grid.put(tmp_path / name, f"{HOME}t1/{name}")
        job = raw.submit(f"{HOME}t1/j.jdl")
        raw.wait(job, "DONE")
        until(lambda: "Cleaning up" in raw.trace(job))
        assert masked(raw.trace(job)) == masked(recorded)
        assert raw.rows("cat", f"{HOME}t1/o/out.txt")[0]["message"] == f"hello {job} world"
