"""The service killed at any moment: nothing torn is left, and what a client was told is still true."""

from __future__ import annotations

import hashlib
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gridproof.localgrid.catalogue import kept as kept_outputs
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.splitting import is_split
from tests.localgrid.cuts import OUTPUT, SUBJOBS, read_notes
from tests.localgrid.offline import Offline


@dataclass(frozen=True)
class Kept:
    """What a Grid has, read from its databases and disks."""

    files: dict[str, str]  # content by LFN
    stray: list[Any]  # rows that belong to nothing, quotas that do not add up
    held: dict[str, set[str]]  # by SE, the GUIDs that the catalogue says it holds
    on_disk: dict[str, set[str]]
    booked: set[str]
    jobs: dict[int, Job]
    subjobs: dict[int, int]  # by master
    traced: dict[int, str]  # the state that a job's trace ends with


@dataclass(frozen=True)
class Left:
    """What a run that was cut off has left: as it was found, and after a start of the service."""

    run: str
    notes: list[tuple[bool, list[Any]]]  # commands that were begun, and whether they were answered
    found: Kept
    started: Kept
    swept: Kept  # when all bookings have expired


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Left]]:
    """A scenario that was cut off at each step that it has; the last run is the whole of it."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path_factory.getbasetemp()))
    subprocess.run([sys.executable, "-m", "tests.localgrid.cuts", directory], check=True)
    shutil.rmtree(directory / "new")
    yield [left(root) for root in sorted(directory.iterdir(), key=lambda root: int(root.name))]
    shutil.rmtree(directory)


def left(root: Path) -> Left:
    grid = Offline(root)
    found = kept(grid)
    grid.recover()
    started = kept(grid)
    kept_outputs.expire(grid.catalogue, 1 << 60)
    grid.core.sweep()
    swept = kept(grid)
    grid.close()
    return Left(root.name, read_notes(root), found, started, swept)


def kept(grid: Offline) -> Kept:
    rows, queue = grid.catalogue._database.rows, grid.core.queue
    entries = grid.catalogue.find("/", "*", "admin", "fcd")
    directories = {entry.lfn for entry in entries if entry.is_dir} | {"/"}
    stray: list[Any] = [e for e in entries if posixpath.dirname(e.lfn) not in directories]
    for table in ("replicas", "members", "collections"):
        stray += rows(f"SELECT * FROM {table} WHERE guid NOT IN (SELECT guid FROM lfns)")
    stray += grid.store._database.rows("SELECT * FROM trace WHERE job NOT IN (SELECT id FROM jobs)")
    owned = "SELECT owner, count(*), sum(size) FROM lfns WHERE type = 'f' GROUP BY owner"
    stray += rows(f"SELECT owner, files, bytes FROM used WHERE files > 0 EXCEPT {owned}")
    stray += rows(f"{owned} EXCEPT SELECT owner, files, bytes FROM used")
    on_ses = "SELECT se, count(*), sum(size) FROM replicas JOIN lfns USING (guid) GROUP BY se"
    stray += rows(f"SELECT se, files, bytes FROM held WHERE files > 0 EXCEPT {on_ses}")
    stray += rows(f"{on_ses} EXCEPT SELECT se, files, bytes FROM held")
    replicas = rows("SELECT se, guid FROM replicas")
    return Kept(
        files={e.lfn: content(grid, e.lfn) for e in entries if not e.is_dir},
        stray=stray,
        held={se: {str(guid) for on, guid in replicas if on == se} for se in grid.disks},
        on_disk={se: disk.files() for se, disk in grid.disks.items()},
        booked={str(guid) for (guid,) in rows("SELECT guid FROM bookings")},
        jobs={job.id: job for job in queue.jobs()},
        subjobs={job.id: len(queue.subjobs(job.id)) for job in queue.jobs() if is_split(queue.jdl(job.id))},
        traced={job.id: last_state(grid, job) for job in queue.jobs()},
    )


def content(grid: Offline, lfn: str) -> str:
    """What all replicas of a file hold, which is what the catalogue says; of a collection, its files."""
    entry = grid.catalogue.get(lfn)
    assert entry
    if entry.type == "c":
        return " ".join(grid.catalogue.collected(entry.guid))
    if grid.catalogue.member(entry.guid):
        return "in the archive"
    replicas = [grid.disks[se].file(entry.guid) for se in grid.catalogue.replicas(entry.guid)]
    (found,) = {path.read_bytes() for path in replicas}
    assert (entry.size, entry.md5) == (len(found), hashlib.md5(found, usedforsecurity=False).hexdigest())
    return found.decode(errors="replace")


def last_state(grid: Offline, job: Job) -> str:
    *_, last = [line.text for line in grid.store.trace(job.id) if line.tag == "state"]
    found = re.search(r"\bto ([A-Z_]+)|Job (ASSIGNED)", last)
    return (found[1] or found[2]) if found else last


def done(files: dict[str, str], what: str, details: list[str]) -> dict[str, str]:
    """The files after a command."""
    if what == "put":
        return {**files, details[0]: details[1]}
    if what == "move":
        return {re.sub(f"^{details[0]}(?=/|$)", details[1], lfn): text for lfn, text in files.items()}
    if what == "remove":
        return {lfn: text for lfn, text in files.items() if not f"{lfn}/".startswith(f"{details[0]}/")}
    return files


def test_the_scenario_was_cut_at_every_step(runs: list[Left]) -> None:
    assert len(runs) > 150
    assert len({len(run.notes) for run in runs}) > 15  # in as many commands
    assert all(told for told, _ in runs[-1].notes)


def test_files_are_as_before_a_command_or_as_after_it_and_what_was_answered_is_done(runs: list[Left]) -> None:
    for run in runs:
        before: dict[str, str] = {}
        possible = [before]
        for told, (what, *details) in run.notes:
            after = done(before, what, details)
            possible = [after] if told else [before, after]
            before = after
        assert run.found.files in possible, run.run
        assert run.started.files == run.swept.files == run.found.files


def test_no_row_belongs_to_nothing(runs: list[Left]) -> None:
    for run in runs:
        assert (run.found.stray, run.started.stray) == ([], []), run.run


def test_after_a_start_storage_elements_hold_what_the_catalogue_says_and_what_is_booked(
    runs: list[Left],
) -> None:
    for run in runs:
        for se, held in run.started.held.items():
            assert held <= run.started.on_disk[se] <= held | run.started.booked, run.run
        assert run.swept.on_disk == run.swept.held, run.run


def test_a_master_has_all_of_its_subjobs_or_none_and_a_start_splits_it(runs: list[Left]) -> None:
    for run in runs:
        for master, subjobs in run.found.subjobs.items():
            inserted = run.found.jobs[master].status == state.INSERTING
            assert subjobs == (0 if inserted else SUBJOBS), run.run
        assert set(run.started.subjobs.values()) <= {SUBJOBS}, run.run


def test_a_jobs_trace_ends_with_the_state_that_it_has(runs: list[Left]) -> None:
    for run in runs:
        for kept in (run.found, run.started):
            assert kept.traced == {job.id: job.status for job in kept.jobs.values()}, run.run


def test_a_job_whose_submission_was_answered_is_there_in_the_state_that_was_answered(
    runs: list[Left],
) -> None:
    for run in runs:
        states: dict[int, str] = {}
        for told, (what, *details) in run.notes:
            if what == "job":
                states[details[0]] = details[1] if told else ""
        submitted = sum(told for told, (what, *_) in run.notes if what == "submit")
        assert len([job for job in run.found.jobs.values() if not job.master]) >= submitted, run.run
        for job_id, status in states.items():
            assert status in ("", run.found.jobs[job_id].status), run.run


def test_a_job_that_is_done_has_its_output(runs: list[Left]) -> None:
    for run in runs:
        states = {job.status for job in run.found.jobs.values()}
        assert state.DONE not in states or OUTPUT in run.found.files, run.run
