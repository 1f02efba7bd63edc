"""Runs a scenario on an offline Grid again and again, each time cut off one step later, as by ``kill -9``.

``python -m tests.localgrid.cuts DIRECTORY``: run number N happens in DIRECTORY/N, beside its ``told``: a line
for each command that was begun, and one for each that was answered. A step is a statement that changes the
catalogue or the jobs, a row of it, or a look at a storage element's disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.database import Database
from gridproof.localgrid.jobs import state
from tests.localgrid.offline import Disk, Offline

SUBJOBS = 4
JDL = 'Executable = "/local/job.sh";'
OUTPUT, OUTPUT_GUID = "/local/user/g/gproof/out", "00000000-0000-11f1-8000-000000000001"
CUT = 9  # the exit code of a run that did not come to its end


class Scissors:
    """Ends the process at a step."""

    def __init__(self, step: int) -> None:
        self._left = step
        connect, file = Database._connect, Disk.file

        def cutting(database: Database) -> sqlite3.Connection:
            connection = connect(database)
            connection.set_trace_callback(self._statement)
            return connection

        def counted(disk: Disk, guid: str) -> Path:
            self._count()
            return file(disk, guid)

        Database._connect, Disk.file = cutting, counted  # type: ignore[method-assign]

    def _statement(self, text: str) -> None:
        if not text.startswith(("SELECT", "PRAGMA")):
            self._count()

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os._exit(CUT)


class Story:
    """The scenario; it notes what it does and what it was told."""

    def __init__(self, grid: Offline, notes: Path) -> None:
        self._grid = grid
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @contextmanager
    def _noted(self, *what: object) -> Iterator[None]:
        os.write(self._notes, json.dumps(["begun", *what]).encode() + b"\n")
        yield
        os.write(self._notes, json.dumps(["told", *what]).encode() + b"\n")

    def tell(self) -> None:
        """From beginning to end."""
        for name in ("job.sh", "d/one", "d/sub/two"):
            self._put(f"/local/{name}", name.encode() * 10)
        self._archive()
        with self._noted("put", "/local/c", "/local/d/one /local/d/sub/two"):
            self._grid.rows("gridCollect", "/local/c", "/local/d/one", "/local/d/sub/two")
        alone, killed = self._submit(JDL), self._submit(JDL + 'Requirements = other.CE == "Not::Here::CE";')
        master = self._submit(JDL + f'Split = "production:1-{SUBJOBS}"; Priority = -1;')
        self._run(alone, OUTPUT)
        self._jobs("kill", str(killed), state.KILLED)
        self._jobs("resubmit", str(killed), state.WAITING)
        self._jobs("kill", str(master), state.KILLED)
        with self._noted("move", "/local/d", "/local/e"):
            self._grid.rows("mv", "/local/d", "/local/e")
        with self._noted("remove", "/local/job.sh"):
            self._grid.rows("rm", "/local/job.sh")
        with self._noted("remove", "/local/e"):
            self._grid.rows("rm", "-r", "/local/e")

    def _put(self, lfn: str, content: bytes) -> None:
        with self._noted("put", lfn, content.decode(errors="replace")):
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            for permit in self._grid.rows("access", "write", lfn, "disk:2"):
                self._write(permit["se"], permit["guid"], content)
                self._grid.rows(
                    *("commit", permit["envelope"], str(len(content)), lfn, "755", "0", permit["url"]),
                    *(permit["se"], permit["guid"], md5),
                )

    def _write(self, se: str, guid: str, content: bytes) -> None:
        disk = next(disk for disk in self._grid.disks.values() if disk.name.casefold() == se.casefold())
        disk.store(guid, content)

    def _archive(self) -> None:
        path = self._grid.core.root / "zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("member", "in the archive")
        self._put("/local/d/zip", path.read_bytes())
        with self._noted("put", "/local/d/member", "in the archive"):
            self._grid.rows("gridUnzip", "/local/d/zip")

    def _submit(self, jdl: str) -> int:
        with self._noted("submit"):
            job = int(self._grid.rows("submit", jdl)[0]["jobId"])
        with self._noted("job", job, ""):
            self._grid.rows("ps", "-j", str(job))
        return job

    def _jobs(self, command: str, job: str, becomes: str) -> None:
        with self._noted("job", int(job), becomes):
            self._grid.rows(command, job)

    def _run(self, job_id: int, output: str) -> None:
        """As an agent does it."""
        core, content = self._grid.core, b"output"
        job = self._grid.loop.run_until_complete(core.next_job(core.sites[0], "node"))
        assert job.id == job_id, f"{job.id} instead of {job_id}"
        for step in (state.STARTED, state.RUNNING, state.SAVING):
            core.trace(job_id, f"Going to be {step}")
            core.move(job, step)
        with self._noted("put", output, content.decode()):
            booking = Booking("ticket", output, OUTPUT_GUID, core.sites[0].se, "gridproof")
            core.catalogue.book([booking], 1)
            self._write(booking.se, booking.guid, content)
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            core.catalogue.commit(booking, size=len(content), md5=md5, perm="644", now_ms=1)
        with self._noted("job", job_id, state.DONE):
            core.move(job, state.DONE)


def main(directory: Path) -> None:
    """All runs, the last of which comes to its end."""
    Offline(directory / "new").close()
    code, step = CUT, 0
    while code == CUT:
        step += 1
        root = directory / str(step)
        shutil.copytree(directory / "new", root)
        pid = os.fork()
        if pid == 0:
            Scissors(step)
            Story(Offline(root), root / "told").tell()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise SystemExit(f"run {step} failed with {code}")


def read_notes(root: Path) -> list[tuple[bool, list[Any]]]:
    """What was begun, in order, and whether it was told to be done."""
    notes = root / "told"
    lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    begun = [line[1:] for line in lines if line[0] == "begun"]
    told = sum(line[0] == "told" for line in lines)  # one command at a time: all but the last, or all
    return [(number < told, what) for number, what in enumerate(begun)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
