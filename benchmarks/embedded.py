"""How an embedded Grid bears much: 100 000 files, jobs by the thousand, and how it grows to that.

Two Grids run side by side, one with ten times what the other has. Each pair asks both for the same over the
wire, and the ratio of a pair is the growth. Files are entered into the catalogues directly, since only their
names are asked for; the jobs wait for a CE that is not there.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import harness
import psutil

from gridproof.localgrid import LocalGrid
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.client import GridAccess
from gridproof.localgrid.users import DEFAULT_USERS, Users

TOP, EXECUTABLE = "/local/data", "/local/job.sh"
IN_A_DIRECTORY = 100
GROWTH = 12.0  # at most, from ten times fewer: linear, and what other work on the machine does to it
PATIENCE = 0.5  # s that others wait at most


def other_caller(environment: Mapping[str, str], orders: Connection) -> None:
    """Ask one small thing after the other; at each word the longest that an answer has taken since the last.

    A process of its own: reading a long answer must not hold it up.
    """
    longest = 0.0
    with GridAccess(environment, timeout=600) as access:
        while True:
            for command in (("pwd",), ("ls", "/local"), ("ps", "-j", "1")):
                longest = max(longest, harness.timed(functools.partial(access.command, *command))[0])
            if orders.poll(0.002):
                orders.recv()
                orders.send(longest)
                longest = 0.0


class Loaded:
    """A Grid with so many files and one master with so many subjobs, and a connection to it."""

    def __init__(self, stack: contextlib.ExitStack, files: int, jobs: int) -> None:
        self.files, self.jobs = files, jobs
        self._grid = stack.enter_context(LocalGrid(sites=1, slots=1))
        self.memory = {"idle": self._memory()}
        self._fill()
        self._access = stack.enter_context(GridAccess(self._grid.environment, timeout=600))
        self._orders, theirs = multiprocessing.Pipe()
        other = multiprocessing.get_context("spawn").Process(
            target=other_caller, args=(self._grid.environment, theirs), daemon=True
        )
        other.start()
        stack.callback(other.kill)
        self.longest()
        self.waits: dict[str, list[float]] = {}

    def _fill(self) -> None:
        catalogue = Catalogue(self._grid.root / "private" / "catalogue.db", Users(DEFAULT_USERS))
        now, se = int(time.time() * 1000), self._grid.se_names[0]
        lfns = [f"{TOP}/{n // IN_A_DIRECTORY:06}/{n:08}/AO2D.root" for n in range(self.files)]
        with catalogue.change():
            for number, lfn in enumerate([*lfns, EXECUTABLE]):
                booked = Booking("", lfn, f"{number:08x}-0000-11f1-8000-02fc00000001", se, "gridproof")
                catalogue.commit(booked, size=10**6, md5="0" * 32, perm="755", now_ms=now)
        catalogue.close()

    def _memory(self) -> float:
        """Megabytes that the service's process has."""
        return round(psutil.Process(self._grid.pid).memory_info().rss / 1e6, 1)

    def longest(self) -> float:
        """Seconds that the other caller has waited at most since this was asked last."""
        self._orders.send("")
        return float(self._orders.recv())

    def _noted(self, what: str, seconds: float) -> float:
        self.waits.setdefault(what, []).append(self.longest())
        self.memory[what] = max(self.memory.get(what, 0.0), self._memory())
        return seconds

    def find(self) -> float:
        """Seconds of one ``find`` over all files."""
        self.longest()
        seconds, found = harness.timed(lambda: self._access.command("find", TOP, "*AO2D.root"))
        if len(found) != self.files:
            raise SystemExit(f"find gave {len(found)} rows, not {self.files}")
        return self._noted("find", seconds)

    def submit(self) -> float:
        """Seconds from a master's submission until it is SPLIT, when all of its subjobs must wait."""
        self.longest()
        seconds, master = harness.timed(self._split)
        subjobs = [row["status"] for row in self._access.command("ps", "-m", master)]
        if subjobs != ["WAITING"] * self.jobs:
            raise SystemExit(f"{subjobs.count('WAITING')} of {self.jobs} subjobs are WAITING")
        return self._noted("submit", seconds)

    def _split(self) -> str:
        text = f'Executable = "{EXECUTABLE}"; Split = "production:1-{self.jobs}";'
        text += 'OutputDir = "/local/out/#alien_counter_05i#"; Requirements = other.CE == "Not::Here::CE";'
        master = str(self._access.command("submit", text)[0]["jobId"])
        while self._access.command("ps", "-j", master)[0]["status"] != "SPLIT":
            pass
        return master

    def ps(self) -> float:
        """Seconds of one ``ps`` of the user's last jobs, as many as a master has here."""
        self.longest()
        seconds, found = harness.timed(lambda: self._access.command("ps", "-l", str(self.jobs)))
        if len(found) != self.jobs:
            raise SystemExit(f"ps gave {len(found)} rows, not {self.jobs}")
        return self._noted("ps", seconds)


def main() -> None:
    """Measure and report."""
    scale = harness.scale()
    files, jobs = scale(100_000, 2_000), scale(1_000, 100)
    figures: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        small = Loaded(stack, files // 10, jobs // 10)
        large = Loaded(stack, files, jobs)
        for what in ("find", "submit", "ps"):
            harness.say(what)
            ways = (getattr(small, what), getattr(large, what))
            for way in ways:  # as on a Grid that has been asked before
                way()
            few, many = harness.interleaved(scale.pairs, *ways)
            figures[f"{what}, seconds"] = harness.spread(many)
            figures[f"{what}, seconds with ten times fewer"] = harness.spread(few)
            figures[f"{what}, growth"] = harness.ratios(many, few)
            figures[f"{what}, others waited at most"] = round(max(large.waits[what]), 4)
        figures["memory in MB"] = {"ten times fewer": small.memory, "all": large.memory}
    value = {f"{what}, growth": figures[f"{what}, growth"]["median"] for what in ("find", "submit", "ps")}
    value |= {f"{what}, s": figures[f"{what}, seconds"]["median"] for what in ("find", "submit", "ps")}
    waited = value["others waited at most, s"] = max(max(waits) for waits in large.waits.values())
    met = waited <= PATIENCE and all(value[f"{what}, growth"] <= GROWTH for what in ("find", "submit", "ps"))
    claim = (
        f"find over {files} files, submit of {jobs} subjobs and ps of {jobs} jobs take at most {GROWTH:g}"
        f" times as long as with ten times fewer, and nobody else waits longer than {PATIENCE:g} s meanwhile"
    )
    harness.report("embedded", claim, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
