"""Jobs are split in a thread: others are served meanwhile, and what happens to the job meanwhile counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

from gridproof.localgrid.database import Database
from gridproof.localgrid.jobs import plan, splitting, state
from tests.localgrid.offline import Offline

SUBJOBS = 4


class Split:
    """The splitting of a master that was submitted: it has begun, and ends with :meth:`finish`."""

    def __init__(self, grid: Offline, begun: threading.Event, go_on: threading.Event) -> None:
        self._grid, self._go_on = grid, go_on
        self.master = int(self.ask("submit", JDL)["results"][0]["jobId"])
        assert begun.wait(10)

    def ask(self, command: str, *options: str) -> Any:
        """An answer while the master is being split."""
        message = json.dumps({"command": command, "options": options})
        return self._grid.loop.run_until_complete(self._grid.service.answer(self._grid.caller, message))

    def status(self) -> str:
        return str(self.ask("ps", "-j", str(self.master))["results"][0]["status"])

    def finish(self) -> list[str]:
        """The states of the subjobs."""
        self._go_on.set()
        self._grid.optimise()
        return [job.status for job in self._grid.core.queue.subjobs(self.master)]


JDL = f'Executable = "/local/job.sh"; Split = "production:1-{SUBJOBS}";'


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Offline]:
    grid = Offline(tmp_path / "grid")
    grid.core.store_file("/local/job.sh", b"#!/bin/sh\n", "gridproof")
    yield grid
    grid.close()


@pytest.fixture
def halted(grid: Offline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Split]]:
    begun, go_on = threading.Event(), threading.Event()

    def waiting(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(10)
        return splitting.split(*arguments)

    monkeypatch.setattr(plan, "split", waiting)
    yield lambda: Split(grid, begun, go_on)
    go_on.set()


def test_others_are_served_while_a_job_is_split(halted: Callable[[], Split]) -> None:
    split = halted()
    assert split.status() == state.INSERTING
    assert split.ask("pwd")["metadata"]["exitcode"] == "0"
    assert split.finish() == [state.WAITING] * SUBJOBS
    assert split.status() == state.SPLIT


def test_a_master_that_is_killed_while_it_is_split_stays_killed(halted: Callable[[], Split]) -> None:
    split = halted()
    assert split.ask("kill", str(split.master))["results"][0]["status"] == "killed"
    assert split.finish() == []
    assert split.status() == state.KILLED


def test_a_master_and_its_subjobs_are_stored_together(
    grid: Offline, halted: Callable[[], Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = halted()
    commits, change = [], Database.change

    def counted(database: Database) -> AbstractContextManager[Connection]:
        commits.append(database)
        return change(database)

    monkeypatch.setattr(Database, "change", counted)
    assert len(split.finish()) == SUBJOBS
    assert commits == [grid.store._database]
    assert [job.status for job in grid.store.load()] == [state.SPLIT] + [state.WAITING] * SUBJOBS
