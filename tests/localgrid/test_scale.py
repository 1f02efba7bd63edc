"""What much costs, counted in SQL statements, in steps of SQLite, in jobs looked at; never in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridproof.alien.jdl import parse
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.database import Database
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.requirements import Requirements
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.sites import Slot, make_sites
from tests.localgrid.offline import Offline

FILES, JOBS = 20_000, 3_000


class Counted:
    """SQLite's work since :meth:`reset`: statements, and steps of its machine (in hundreds)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect = Database._connect

        def watched(database: Database) -> sqlite3.Connection:
            connection = connect(database)
            connection.set_trace_callback(
                lambda text: self.statements.append(text)
            )  # reset() makes a new one
            connection.set_progress_handler(self._step, 100)
            return connection

        self.reset()
        monkeypatch.setattr(Database, "_connect", watched)

    def _statement(self, text: str) -> None:
        self.statements.append(text)

    def _step(self) -> int:
        self.hundreds += 1
        return 0

    def reset(self) -> None:
        self.statements: list[str] = []
        self.hundreds = 0


@pytest.fixture(scope="module")
def counted() -> Iterator[Counted]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Counted(monkeypatch)


def filled(root: Path, files: int) -> Offline:
    """A Grid with so many files below /local/data, a hundred in each directory."""
    grid = Offline(root)
    with grid.catalogue.change():
        for number in range(files):
            guid = f"{number:08x}-0000-11f1-8000-02fc00000001"
            lfn = f"/local/data/{number // 100}/{number}"
            booked = Booking("", lfn, guid, "Local::Site1::SE", "gridproof")
            grid.catalogue.commit(booked, size=10, md5="0" * 32, perm="755", now_ms=0)
    return grid


@pytest.fixture(scope="module")
def services(counted: Counted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Offline, Offline]]:
    """One with few files, one with many."""
    root = tmp_path_factory.mktemp("scale")
    few, many = filled(root / "few", 300), filled(root / "many", FILES)
    yield few, many
    few.close()
    many.close()


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "-l", "/local/data/1"),
        ("stat", "/local/data/1/100", "/local/data/1/101"),
        ("find", "/local/data/1", "*"),
        ("find", "/local/data/2/", "5"),
        ("touch", "/local/data/1/new"),
        ("mkdir", "-p", "/local/other/place"),
        ("chmod", "-R", "755", "/local/data/1"),
        ("du", "/local/data/1"),
        ("listSEs",),
        ("mv", "/local/data/1", "/local/other"),
        ("rm", "/local/other/1/new"),
        ("rm", "-r", "/local/other/1"),
    ],
    ids=" ".join,
)
def test_a_small_directory_costs_the_same_however_large_the_catalogue_is(
    services: tuple[Offline, Offline], counted: Counted, command: tuple[str, ...]
) -> None:
    costs = []
    for service in services:
        counted.reset()
        service.rows(*command)
        costs.append((len(counted.statements), counted.hundreds))
    (statements, hundreds), (many_statements, many_hundreds) = costs
    assert many_statements == statements > 0
    assert many_hundreds <= hundreds + 3


def test_a_tree_of_20_000_files_is_found_moved_and_removed_by_a_few_statements(
    services: tuple[Offline, Offline], counted: Counted
) -> None:
    many = services[1]
    counted.reset()
    assert len(many.rows("find", "/local/data", "*")) == FILES - 100
    assert counted.hundreds > FILES / 100  # what the other tests count is there
    for command in (("mv", "/local/data", "/local/moved"), ("rm", "-r", "/local/moved")):
        counted.reset()
        many.rows(*command)
        files = sum(
            text.startswith("DELETE FROM orphans") for text in counted.statements
        )  # deleted, one by one
        assert 0 < len(counted.statements) - files <= 30
    assert not many.rows("find", "/local", "moved")


def test_a_split_into_3_000_subjobs_is_stored_in_one_transaction(counted: Counted, tmp_path: Path) -> None:
    store, queue = JobStore(tmp_path / "jobs.db"), TaskQueue()
    job = queue.submit(parse(f'Executable = "/x"; Split = "production:1-{JOBS}";'), "gridproof", 0.0)
    queue.optimise(job.id, queue.plan(job.id, ()), 0.0)
    counted.reset()
    store.save(queue.take_changes())
    assert [text for text in counted.statements if text in ("BEGIN IMMEDIATE", "COMMIT")] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]
    assert len(store.load()) == JOBS + 1
    store.close()


def test_the_broker_looks_at_kinds_of_jobs_not_at_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    allow = Requirements.allow

    def watched(needs: Requirements, slot: Slot) -> bool:
        nonlocal looked
        looked += 1
        return allow(needs, slot)

    monkeypatch.setattr(Requirements, "allow", watched)
    queue, (one, two) = TaskQueue(), make_sites(2, 1, 1)
    kinds = ("", "Priority = 3;", 'Requirements = other.CE == "Local::Site2::CE";')
    for kind in kinds:
        text = f'Executable = "/x"; Split = "production:1-{JOBS // len(kinds)}"; {kind}'
        master = queue.submit(parse(text), "gridproof", 0.0).id
        queue.optimise(master, queue.plan(master, ()), 0.0)
    started = 0
    for now, site in enumerate((one, two) * JOBS):
        job = queue.match(Slot(site), float(now))
        if job:
            started += 1
            queue.assign(job.id, site, "node", float(now))
            for status in (state.STARTED, state.RUNNING, state.SAVING, state.DONE):
                queue.move(job.id, status, float(now))
    assert started == JOBS
    assert looked <= len(kinds) * 2 * JOBS
    assert {job.status for job in queue.jobs()} == {state.DONE}
