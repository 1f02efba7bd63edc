"""The client against a service that plays what a real one has answered, and everything that can go wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gridproof.alien.catalogue import Access
from gridproof.alien.client import Alien
from gridproof.alien.jdl import Jdl, parse
from gridproof.alien.wire import REQUEST_LIMIT, Wire
from gridproof.errors import AlienError, AnswerLost, CommandError, WireError

CAPTURES = [json.loads(line) for line in Path(__file__).with_name("captures.jsonl").read_text().splitlines()]
JOB = Jdl({"Executable": "/alice/cern.ch/user/j/jalien/bin/pilot.sh"})
UNANSWERED = ["drop", "torn", "1013", "nonsense", "no-frame"]  # the service goes on
SILENT = ["hang", "late", "huge"]


class Grid:
    """A queue and a catalogue as far as the commands of these tests go; it counts what it has done."""

    def __init__(self) -> None:
        self.jobs: dict[int, str] = {1000: 'JobTag = {"comment:another"};'}
        self.names = {"/a", "/b"}
        self.replicas: dict[str, str] = {}
        self.done: list[str] = []

    def __call__(self, command: str, options: list[str]) -> Any:
        self.done.append(command)
        rows, exitcode = getattr(self, command)(*options)
        return {"metadata": {"exitcode": str(exitcode), "error": ""}, "results": rows}

    def whoami(self) -> Any:
        return [{"username": "jalien", "homedir": "/alice/cern.ch/user/j/jalien/"}], 0

    def submit(self, jdl: str) -> Any:
        id = max(self.jobs) + 1
        self.jobs[id] = jdl
        return [{"message": "Your new job ID is", "jobId": str(id)}], 0

    def ps(self, *options: str) -> Any:
        if options[0] == "-jdl":
            return [{"id": options[1], "jdl": self.jobs[int(options[1])]}], 0
        return [{"id": str(id), "split": "0", "status": "WAITING", "name": "pilot.sh"} for id in self.jobs], 0

    def kill(self, *ids: str) -> Any:
        return [{"jobid": id, "status": "killed"} for id in ids], 0

    def mkdir(self, *options: str) -> Any:
        self.names.add(options[-1])
        return [], 0

    def rm(self, *lfns: str) -> Any:
        if not set(lfns) <= self.names:
            return [], 5
        self.names -= set(lfns)
        return [], 0

    def stat(self, *options: str) -> Any:
        lfns = [option for option in options if option != "-v"]
        rows = [{"lfn": lfn, "type": "f", "replicas": self.replicas} for lfn in lfns if lfn in self.names]
        return rows, 0 if len(rows) == len(lfns) else 2

    def commit(self, envelope: str, size: str, lfn: str, *rest: str) -> Any:
        self.names.add(lfn)
        self.replicas = {"A::B::C": "root://c//1"}
        return [{"lfn": "1"}], 0

    def chmod(self, mode: str, lfn: str) -> Any:
        return [], 0

    def mv(self, old: str, new: str) -> Any:
        self.names = self.names - {old} | {new}
        return [], 0


@pytest.fixture
def grid(central: Any) -> Grid:
    central.play = grid = Grid()
    return grid


@pytest.fixture
def alien(central: Any, authority: Any, grid: Grid) -> Iterator[Alien]:
    with Alien(Wire("127.0.0.1", central.port, authority.issue("jalien"), timeout=0.3)) as alien:
        central.requests.clear()
        grid.done.clear()
        yield alien


def both(faults: list[str]) -> list[str]:
    """Each fault before the command was done, and after."""
    return [name for fault in faults for name in (fault, f"{fault} done")]


def test_every_recorded_answer_is_read(central: Any, wire: Wire) -> None:
    for exchange in CAPTURES:
        command, options, response = exchange["command"], exchange["options"], exchange["response"]
        central.play = lambda command, options, response=response: response
        metadata = response["metadata"]
        if metadata["exitcode"] == "0":
            answer = wire.command(command, *options)
            rows = [{k: "" if v is None else str(v) for k, v in row.items()} for row in response["results"]]
            assert (list(answer.results), answer.metadata) == (rows, metadata)
        else:
            with pytest.raises(CommandError) as caught:
                wire.command(command, *options)
            assert str(caught.value.exitcode) == metadata["exitcode"]
            assert metadata["error"].strip() in str(caught.value)
    assert len(central.requests) == len(CAPTURES)


Change = Callable[[Alien], Any]
READS: dict[str, Change] = {
    "ps": lambda alien: alien.ps([1000]),
    "stat": lambda alien: alien.stat("/a"),
    "mkdir": lambda alien: alien.mkdir("/new"),
    "chmod": lambda alien: alien.chmod("/a", "600"),
    "kill": lambda alien: alien.kill([1000]),
}


@pytest.mark.parametrize("command", READS)
@pytest.mark.parametrize("fault", [*both(UNANSWERED), "throttled done", "pieces done"])
def test_what_may_be_repeated_is_answered_after_all(
    alien: Alien, central: Any, grid: Grid, fault: str, command: str
) -> None:
    central.faults = [fault]
    READS[command](alien)
    assert set(central.names()) == {command}
    assert len(central.requests) == (1 if fault in ("throttled done", "pieces done") else 2)


@pytest.mark.parametrize("fault", both(SILENT))
def test_who_is_silent_is_not_asked_again(alien: Alien, central: Any, grid: Grid, fault: str) -> None:
    central.faults = [fault]
    with pytest.raises(WireError, match=r"no answer from 127.0.0.1|has more than 256 MB"):
        alien.ps([1000])
    assert central.names() == ["ps"]
    assert alien.stat("/a").lfn == "/a"  # over a new connection: no late answer is taken for this one's


@pytest.mark.parametrize("fault", both(["dies"]))
@pytest.mark.parametrize("change", [*READS.values(), lambda a: a.submit(JOB, "x"), lambda a: a.rm("/a")])
def test_a_service_that_died_is_named(
    alien: Alien, central: Any, grid: Grid, fault: str, change: Change
) -> None:
    central.faults = [fault]
    with pytest.raises(WireError, match=r"cannot connect to the central service at 127.0.0.1:\d+"):
        change(alien)
    assert len(central.requests) == 1


@pytest.mark.parametrize("fault", both(UNANSWERED))
def test_a_submission_is_settled_and_sent_once(alien: Alien, central: Any, grid: Grid, fault: str) -> None:
    first = alien.submit(JOB, "first")
    central.requests.clear()
    central.faults = [fault]
    if fault.endswith("done"):
        id = alien.submit(JOB, "second")
        assert parse(grid.jobs[id]).text("JobTag").startswith("comment:second ")
        assert [command for command in central.names() if command != "submit"] == ["ps", "ps"]
    else:
        with pytest.raises(WireError, match="so it was not accepted: submit it again") as caught:
            alien.submit(JOB, "second")
        assert not isinstance(caught.value, AnswerLost)
        assert sorted(grid.jobs) == [1000, first]
    assert central.names().count("submit") == 1


@pytest.mark.parametrize("fault", both(SILENT))
def test_a_submission_without_an_answer_in_time_is_found_or_said_to_be_open(
    alien: Alien, central: Any, grid: Grid, fault: str
) -> None:
    central.faults = [fault]
    if fault.endswith("done"):
        assert "comment:x " in grid.jobs[alien.submit(JOB, "x")]
    else:
        with pytest.raises(AnswerLost, match=r"is not known: before you .* JobTag 'comment:x \w+'"):
            alien.submit(JOB, "x")
    assert central.names().count("submit") == 1


def test_a_submission_answered_without_a_job_id_is_settled(alien: Alien, central: Any, grid: Grid) -> None:
    def play(command: str, options: list[str]) -> Any:
        answer = grid(command, options)
        return {"metadata": {}, "results": []} if command == "submit" else answer

    central.play = play
    assert alien.submit(JOB, "x") == 1001


def test_a_job_whose_jdl_is_stored_late_is_found(alien: Alien, central: Any, grid: Grid) -> None:
    looks: list[str] = []

    def play(command: str, options: list[str]) -> Any:
        answer = grid(command, options)
        if options[0] == "-jdl" and options[1] == "1001":
            looks.append(options[1])
            if len(looks) == 1:
                answer["results"] = []
        return answer

    central.play, central.faults = play, ["drop done"]
    assert alien.submit(JOB, "x") == 1001
    assert len(looks) == 2


def test_a_queue_that_can_be_asked_at_last_closes_the_question(
    alien: Alien, central: Any, grid: Grid
) -> None:
    central.faults = ["drop", *["drop"] * 4]
    with pytest.raises(WireError, match="so it was not accepted"):
        alien.submit(JOB, "x")
    assert central.names() == [
        "submit",
        *["ps"] * 7,
    ]  # four tries; then two looks, and at the other job's JDL


def test_a_submission_is_open_while_the_queue_cannot_be_asked(alien: Alien, central: Any, grid: Grid) -> None:
    central.faults = ["drop done", *["drop"] * 12]
    with pytest.raises(AnswerLost, match=r"whether the job was accepted is not known \(ps: .* broke off"):
        alien.submit(JOB, "x")
    assert central.names().count("submit") == 1


@pytest.mark.parametrize("fault", [*both(UNANSWERED), *both(SILENT)])
def test_what_cannot_be_settled_is_sent_once(alien: Alien, central: Any, grid: Grid, fault: str) -> None:
    central.faults = [fault]
    with pytest.raises(AnswerLost):
        alien._wire.command("mv", "/a", "/c")
    assert central.names() == ["mv"]


@pytest.mark.parametrize("fault", both(UNANSWERED))
def test_a_commit_is_settled(alien: Alien, central: Any, grid: Grid, fault: str) -> None:
    central.faults = [fault]
    alien.commit("/new", Access("A::B::C", "root://c//1", "<envelope>", "guid", 5, ""), 5, "")
    assert grid.replicas
    assert grid.done.count("commit") == 1


@pytest.mark.parametrize("fault", both(UNANSWERED))
def test_what_was_to_be_removed_is_gone_after_all(alien: Alien, central: Any, grid: Grid, fault: str) -> None:
    central.faults = [fault]
    alien.rm("/a", "/b")
    assert grid.names == set()
    assert grid.done.count("rm") == 1


def test_idling_closed_with_1013_costs_nothing_but_a_connection(
    alien: Alien, central: Any, grid: Grid
) -> None:
    central.close_idle()
    assert alien.submit(JOB, "x") == 1001
    central.close_idle()
    assert alien.ps([1001])
    assert central.names() == ["submit", "ps"]
    assert central.connections == 3


def test_a_server_that_forgot_the_connection_is_found_out_before_submitting(
    alien: Alien, central: Any, grid: Grid
) -> None:
    assert alien._wire._connection is not None
    alien._wire._connection._socket.shutdown(socket.SHUT_RDWR)
    assert alien.submit(JOB, "x") == 1001
    assert central.names() == ["submit"]


def test_messages_above_the_limit_never_leave(alien: Alien, central: Any) -> None:
    big = Jdl({"Executable": "/bin/true", "Arguments": "x" * REQUEST_LIMIT})
    with pytest.raises(AlienError, match=r"submit: \d+ bytes are more than the 130000 of one command"):
        alien.submit(big, "big")
    assert central.requests == []
