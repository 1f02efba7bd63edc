"""Pilots are followed by few calls, and what happens to them is told; the Grid here is scripted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from gridproof.alien import ComputingElement, Jdl, Job, PilotRequest
from gridproof.alien.jdl import render
from gridproof.config import PilotConfig
from gridproof.errors import CommandError, ConfigError, CredentialError, WireError
from gridproof.opening import _telling_what_came_first
from gridproof.pilot.bundle import Manifest, write
from gridproof.pilotjobs import POLL_SECONDS, PilotJobs, preview
from gridproof.planning import Planner
from gridproof.proxy.pool.records import PilotRecord
from gridproof.proxy.protocol import Versions

SECRET = "a join key"
VERSIONS = Versions("3.11.7", "6.40.00", "1.2", "2026.8.0")


class Queue:
    """A Grid with a script: ``states`` of pilots by id; calls are noted, and ``now`` is the time."""

    home = "/alice/cern.ch/user/j/jdoe/"

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.submitted: list[Jdl] = []
        self.files: dict[str, tuple[bool, str]] = {}
        self.states: dict[int, tuple[str, str]] = {}
        self.split = True
        self.fault: Exception | None = None

    def note(self, name: str) -> None:
        self.calls.append(name)
        if self.fault:
            raise self.fault

    def mkdir(self, lfn: str) -> None:
        self.note(f"mkdir {lfn}")

    def chmod(self, lfn: str, mode: str) -> None:
        self.note(f"chmod {mode} {lfn}")

    def locate(self, lfns: Sequence[str]) -> list[str]:
        return [lfn for lfn in lfns if f"mkdir {lfn}" in self.calls]

    def stat(self, lfn: str) -> None:
        raise CommandError("no such file", command="stat", exitcode=2)

    def upload(self, source: Path, lfn: str, private: bool = False, replicas: int = 1) -> None:
        self.note(f"upload {lfn}")
        self.files[lfn] = (private, source.read_bytes().decode(errors="replace"))

    def rm(self, lfn: str, recursive: bool = False) -> None:
        self.note(f"rm {lfn}")

    def submit(self, jdl: Jdl, tag: str) -> int:
        self.note("submit")
        self.submitted.append(jdl)
        return 100 * len(self.submitted)

    def kill(self, ids: Sequence[int]) -> None:
        self.note(f"kill {ids}")

    def ps(self, ids: Sequence[int]) -> list[Job]:
        self.note("ps")
        return [Job(id, 0, "SPLIT" if self.split else "INSERTING") for id in ids]

    def subjobs(self, masters: Sequence[int]) -> list[Job]:
        self.note("subjobs")
        return [
            Job(id, id // 100 * 100, status, f"ALICE::{site}::CE" if site else "", "wn" if site else "")
            for id, (status, site) in self.states.items()
            if id // 100 * 100 in masters
        ]

    def trace(self, id: int) -> list[str]:
        self.note(f"trace {id}")
        return [f"20261122 13:00:00 [trace     ]: gridproof pilot: no ROOT at {self.states[id][1]}"]


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def pilots(queue: Queue) -> PilotJobs:
    return PilotJobs(queue, PilotConfig(), "tag", lambda: queue.now)  # type: ignore[arg-type]


def registered(id: int, state: str = "ready") -> PilotRecord:
    return PilotRecord(f"{id}-n", "s", str(id), "100", state, "CERN", "wn", 1, 1, 0.0, 0.0, 0, "")


def test_pilots_that_have_registered_outlive_their_session(pilots: PilotJobs, queue: Queue) -> None:
    pilots.submit([PilotRequest((), 3), PilotRequest((), 1)], {}, VERSIONS)
    queue.states = {
        101: ("RUNNING", "CERN"),
        102: ("RUNNING", "CERN"),
        103: ("WAITING", ""),
        104: ("DONE", ""),
    }
    pilots.end([registered(101), registered(999)])
    assert queue.calls[-2:] == ["kill [200, 102, 103]", f"rm {queue.home}.gridproof/tag"]


def test_nobody_is_killed_when_all_have_registered(pilots: PilotJobs, queue: Queue) -> None:
    pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    queue.states = {101: ("RUNNING", "CERN")}
    pilots.end([registered(101)])
    assert queue.calls[-2:] == ["subjobs", f"rm {queue.home}.gridproof/tag"]


def test_a_session_on_pilots_of_others_submits_asks_and_ends_nothing(pilots: PilotJobs, queue: Queue) -> None:
    follow(pilots, queue, 10, [registered(7)])
    assert not pilots.over
    (line,) = pilots.describe([registered(7)])
    assert line == "registered pilots that other sessions of yours have submitted: 1"
    pilots.end([registered(7)])
    assert queue.calls == []
    pilots.poll([registered(7, "left")])
    assert pilots.over


def follow(pilots: PilotJobs, queue: Queue, seconds: int, records: Sequence[PilotRecord] = ()) -> list[float]:
    """Poll twice a second for so long; returns when the Grid was asked."""
    times = []
    for _ in range(2 * seconds):
        before = len(queue.calls)
        pilots.poll(records)
        times += [queue.now] * (len(queue.calls) - before)
        queue.now += 0.5
    return times


def test_the_sandbox_keeps_the_secret_and_the_jdl_does_not_have_it(pilots: PilotJobs, queue: Queue) -> None:
    pilots.submit([PilotRequest(("A::B::C",), 3), PilotRequest((), 1)], {"join_key": SECRET}, VERSIONS)
    holding = {lfn: private for lfn, (private, text) in queue.files.items() if SECRET in text}
    assert holding == {f"{queue.home}.gridproof/tag/pilot.json": True}
    sandbox = f"{queue.home}.gridproof/tag"
    assert queue.calls[:2] == [f"mkdir {sandbox}", f"chmod 700 {sandbox}"]  # before anything is in it
    assert [jdl.text("Split") for jdl in queue.submitted] == ["production:1-3", "production:1-1"]
    for jdl in queue.submitted:
        assert SECRET not in render(jdl)
        assert jdl.text("Executable") == f"{queue.home}.gridproof/tag/pilot.sh"
    pilots.end()
    assert queue.calls[-2:] == ["kill [100, 200]", f"rm {queue.home}.gridproof/tag"]


def test_a_bundle_is_among_the_input_files_and_known_to_the_script(queue: Queue, tmp_path: Path) -> None:
    manifest = Manifest("3.11", "x86_64", "", "1.2", "", {"distributed": "2026.8.0"})
    made = write(tmp_path / "bundle", manifest, {})
    config = PilotConfig(bundle=str(made.path))
    pilots = PilotJobs(queue, config, "tag", lambda: queue.now)  # type: ignore[arg-type]
    pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    lfn = f"{queue.home}.gridproof/bundles/{made.name}"
    assert lfn in queue.files
    assert f"LF:{lfn}" in queue.submitted[0].strings("InputFile")
    assert made.sha256 in queue.files[f"{queue.home}.gridproof/tag/pilot.sh"][1]
    assert f"LF:<home>/.gridproof/bundles/{made.name}" in preview([PilotRequest((), 1)], config)


def test_a_bundle_that_does_not_fit_is_refused_before_anything_is_uploaded(
    queue: Queue, tmp_path: Path
) -> None:
    made = write(tmp_path / "bundle", Manifest("3.10", "x86_64", "", "1.2", ""), {})
    pilots = PilotJobs(queue, PilotConfig(bundle=str(made.path)), "tag")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Python 3\.10 instead of 3\.11"):
        pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    pilots.end()
    assert not queue.files
    assert not queue.calls


def test_what_goes_wrong_at_the_end_hides_no_error_that_came_before(pilots: PilotJobs, queue: Queue) -> None:
    def undo(error: Exception | None) -> None:
        with ExitStack() as stack:
            stack.push(_telling_what_came_first(pilots.end))
            if error:
                raise error

    pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    queue.fault = WireError("the Grid is gone")
    with pytest.warns(UserWarning, match="the Grid is gone"), pytest.raises(ConfigError):
        undo(ConfigError("of more interest"))
    with pytest.raises(WireError):
        undo(None)


def test_200_pilots_that_wait_ten_minutes_cost_few_calls_less_and_less_often(
    pilots: PilotJobs, queue: Queue
) -> None:
    pilots.submit([PilotRequest((), 200)], {}, VERSIONS)
    queue.states = {100 + n: ("WAITING", "") for n in range(1, 100)}
    times = follow(pilots, queue, 600)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert set(queue.calls[queue.calls.index("submit") + 1 :]) == {"ps", "subjobs"}
    assert gaps[:2] == [POLL_SECONDS[0]] * 2
    assert max(gaps) == POLL_SECONDS[1]
    assert len(times) < 30


def test_what_changes_is_asked_for_again_soon(pilots: PilotJobs, queue: Queue) -> None:
    pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    queue.states = {101: ("WAITING", "")}
    follow(pilots, queue, 120)
    queue.states = {101: ("RUNNING", "CERN")}
    times = follow(pilots, queue, 60)
    assert times[1] - times[0] == POLL_SECONDS[0]
    assert pilots.summary() == "CERN: 1 running"


def test_failures_cost_one_trace_for_each_site_and_state_and_are_told_together(
    pilots: PilotJobs, queue: Queue
) -> None:
    pilots.submit([PilotRequest((), 6)], {}, VERSIONS)
    queue.states = {100 + n: ("ERROR_E", "CERN" if n < 5 else "FZK") for n in range(1, 7)}
    follow(pilots, queue, 60)
    assert sum(call.startswith("trace") for call in queue.calls) == 2
    assert pilots.over
    assert pilots.describe([]) == [
        "4 pilots at CERN ended in ERROR_E (jobs 101, 102, 103, 104): no ROOT at CERN",
        "2 pilots at FZK ended in ERROR_E (jobs 105, 106): no ROOT at FZK",
    ]


def test_a_grid_that_does_not_answer_for_a_while_is_asked_again(pilots: PilotJobs, queue: Queue) -> None:
    pilots.submit([PilotRequest((), 1)], {}, VERSIONS)
    queue.fault = WireError("the central service is gone")
    follow(pilots, queue, 10)
    assert pilots.summary() == "1 waiting; the central service is gone"
    queue.fault = None
    queue.states = {101: ("RUNNING", "CERN")}
    follow(pilots, queue, 40)
    assert pilots.summary() == "CERN: 1 running"
    queue.fault = CredentialError("the certificate has expired")
    with pytest.raises(CredentialError):
        follow(pilots, queue, 40)


def test_failed_pilots_are_replaced_elsewhere_and_not_without_end(pilots: PilotJobs, queue: Queue) -> None:
    ces = tuple(
        ComputingElement(f"ALICE::{site}::CE", "open", 9, 9, 9, site) for site in ("CERN", "FZK", "SARA")
    )
    planner = Planner(PilotConfig(), ces)
    pilots.submit(planner.requests(4), {}, VERSIONS)
    queue.states = {101: ("RUNNING", "CERN")} | {100 + n: ("ERROR_E", "FZK") for n in (2, 3, 4)}
    for _ in range(1000):
        pilots.poll([registered(101)])
        pilots.replace_failed(planner)
        for number, jdl in enumerate(queue.submitted[1:], 2):
            count = int(jdl.text("Split").rpartition("-")[2])
            queue.states |= {100 * number + n: ("ERROR_E", "SARA") for n in range(1, count + 1)}
        queue.now += 0.5
    assert [jdl.text("Split") for jdl in queue.submitted] == [
        "production:1-4",
        "production:1-3",
        "production:1-1",
    ]
    assert queue.submitted[1].text("Requirements") == (
        '( other.CE == "ALICE::CERN::CE" || other.CE == "ALICE::SARA::CE" )'
    )
    assert queue.submitted[2].text("Requirements") == '( other.CE == "ALICE::CERN::CE" )'


def test_a_replacement_that_is_refused_is_tried_again_later(pilots: PilotJobs, queue: Queue) -> None:
    planner = Planner(PilotConfig(), (ComputingElement("ALICE::CERN::CE", "open", 9, 9, 9, "CERN"),))
    pilots.submit(planner.requests(2), {}, VERSIONS)
    queue.states = {101: ("RUNNING", "CERN"), 102: ("ERROR_E", "FZK")}
    follow(pilots, queue, 10, [registered(101)])
    queue.fault = CommandError("over quota", command="submit", exitcode=122)
    for _ in range(200):
        pilots.replace_failed(planner)
        queue.now += 0.5
    assert queue.calls.count("submit") == 1 + 4  # every 30 s
    assert pilots.summary().endswith("over quota")


def test_a_pilot_on_its_way_is_seen_by_asking_now(pilots: PilotJobs, queue: Queue) -> None:
    pilots.adopt([100])
    queue.states = {101: ("RUNNING", "CERN")}
    assert pilots.coming([])
    assert not pilots.coming([registered(101)])


def test_what_another_process_has_submitted_is_taken_over_with_its_sandbox_if_it_has_one(
    queue: Queue,
) -> None:
    for submitted in (False, True):
        pilots = PilotJobs(queue, PilotConfig(), "s1")
        if submitted:
            pilots.submit([], {}, VERSIONS)
        queue.calls = [call for call in queue.calls if call.startswith("mkdir")]
        pilots.adopt([])
        pilots.end([])
        assert [call.split()[0] for call in queue.calls] == (["mkdir", "rm"] if submitted else [])
