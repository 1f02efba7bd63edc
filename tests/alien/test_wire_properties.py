"""Whatever goes wrong, in whatever order: no submission reaches the queue twice, and answers are true."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError, WebSocketException

from gridproof.alien.client import Alien
from gridproof.alien.jdl import Jdl, parse
from gridproof.alien.websocket import WebSocket
from gridproof.alien.wire import Wire, decode
from gridproof.errors import AlienError, AnswerLost, CommandError, WireError

JOB = Jdl({"Executable": "/alice/cern.ch/user/j/jalien/bin/pilot.sh"})

# What becomes of a request, and of its answer.
FATES = (
    "well",
    "well",
    "lost",
    "lost done",
    "late",
    "late done",
    "nonsense done",
    "refused",
    "slowly stored",
)


class Service:
    """A task queue and a catalogue behind a line on which each request has a fate."""

    def __init__(self) -> None:
        self.fates: list[str] = []
        self.jobs: dict[int, tuple[str, str]] = {}  # JDL and state
        self.stored: dict[int, float] = {}  # when a job appears
        self.now = 0.0
        self.names = {"/a", "/b"}
        self.submitted: list[str] = []

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def connect(self) -> Line:
        if self.fates and self.fates[0] == "refused":
            self.fates.pop(0)
            raise WireError("cannot connect")
        return Line(self)

    def do(self, command: str, options: list[str]) -> dict[str, Any]:
        rows, exitcode = getattr(self, command)([o for o in options if not o.startswith("-nom")])
        return {"metadata": {"exitcode": exitcode}, "results": rows}

    def whoami(self, options: list[str]) -> Any:
        return [{"username": "u", "homedir": "/h"}], 0

    def submit(self, options: list[str]) -> Any:
        self.jobs[1000 + len(self.jobs)] = (options[0], "WAITING")
        return [{"jobId": str(max(self.jobs))}], 0

    def ps(self, options: list[str]) -> Any:
        if "-jdl" in options:
            return [{"id": options[1], "jdl": self.jobs[int(options[1])][0]}], 0
        seen = [id for id in self.jobs if self.stored.get(id, 0.0) <= self.now]
        return [
            {"id ": str(id), "split": 0, "status": self.jobs[id][1], "name": "pilot.sh"} for id in seen
        ], 0

    def is_final(self, id: int) -> bool:
        return self.jobs[id][1] == "KILLED"

    def kill(self, options: list[str]) -> Any:
        rows = []
        for id in map(int, options):
            failed = self.jobs[id][1] == "KILLED"
            self.jobs[id] = self.jobs[id][0], "KILLED"
            rows.append({"jobid": str(id), "status": "failed_to_kill" if failed else "killed"})
        return rows, 0

    def mkdir(self, options: list[str]) -> Any:
        self.names.add(options[-1])
        return [], 0

    def rm(self, options: list[str]) -> Any:
        gone = set(options) <= self.names
        self.names -= set(options)
        return [], 0 if gone else 5

    def stat(self, options: list[str]) -> Any:
        wanted = [o for o in options if o[0] == "/"]
        rows = [{"lfn": lfn} for lfn in wanted if lfn in self.names]
        return rows, 0 if len(rows) == len(wanted) else 2


class Line:
    """A connection to the service, as `WebSocket`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._request = ""
        self._broken = False

    def send(self, text: str, timeout: float) -> None:
        assert not self._broken
        self._request = text

    def ping(self, timeout: float) -> None:
        pass

    def close(self) -> None:
        self._broken = True

    def receive(self, timeout: float) -> bytes:
        service, request = self._service, json.loads(self._request)
        if request["command"] == "submit":
            service.submitted.append(parse(request["options"][0]).text("JobTag"))
        fate = service.fates.pop(0) if service.fates else "well"
        answer = b""
        if fate not in ("lost", "late"):
            answer = json.dumps(service.do(request["command"], request["options"])).encode()
        if fate.startswith("late"):
            raise TimeoutError
        if fate.startswith("lost"):
            raise ConnectionClosedError(None, None)
        if fate == "nonsense done":
            return b"<html>"
        if fate == "slowly stored":
            if request["command"] == "submit":
                service.stored[max(service.jobs)] = service.now + 10.0
            raise ConnectionClosedError(None, None)
        return answer


@pytest.fixture(autouse=True)
def impatient() -> None:
    """Not here: time is the service's own."""


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory, make_authority: Any) -> Any:
    return make_authority(tmp_path_factory.mktemp("ca"), "ca").issue("jalien", ends=timedelta(days=2))


def client(credentials: Any, service: Service) -> Alien:
    wire = Wire("nowhere", 1, credentials)
    wire._connect = lambda context: service.connect()  # type: ignore[method-assign, assignment, return-value]
    return Alien(wire)


def failure_of(call: Callable[[], Any]) -> AlienError | None:
    try:
        call()
    except AlienError as error:
        return error
    return None


def submit(alien: Alien, service: Service) -> None:
    """Submit a job; what is said of it must be true."""
    before, ids = len(service.submitted), []
    failure = failure_of(lambda: ids.append(alien.submit(JOB, "x")))
    sent = service.submitted[before:]
    assert len(sent) <= 1
    accepted = [id for id, (text, _) in service.jobs.items() if sent and sent[0] in text]
    if isinstance(failure, AnswerLost):
        assert sent[0] in str(failure)
    else:
        assert accepted == ids
        assert isinstance(failure, WireError) == (not ids)


def change(alien: Alien, service: Service, what: str) -> None:
    """Change something; when that is said to have gone well, or to have failed, it must be true."""
    newest = max(service.jobs, default=0)
    calls: dict[str, tuple[Callable[[], Any], Callable[[], bool]]] = {
        "kill": (
            lambda: alien.kill([newest] if newest else []),
            lambda: not newest or service.is_final(newest),
        ),
        "mkdir": (lambda: alien.mkdir("/a"), lambda: "/a" in service.names),
        "rm": (lambda: alien.rm("/a"), lambda: "/a" not in service.names),
    }
    call, done = calls[what]
    existed = "/a" in service.names
    failure = failure_of(call)
    assert failure is not None or done()
    assert not isinstance(failure, CommandError) or (what == "rm" and not existed)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "submit", "submit", "kill", "mkdir", "rm"]),
            st.lists(st.sampled_from(FATES), max_size=14),
        ),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
@example([("submit", ["slowly stored"])])
@example([("submit", ["lost done", "lost", "refused", "refused", "refused", "well"])])
def test_each_submission_reaches_the_queue_once_at_most_and_answers_are_true(
    credentials: Any, story: Sequence[tuple[str, list[str]]]
) -> None:
    service = Service()
    alien = client(credentials, service)
    with patch("time.sleep", service.pass_time):
        for what, fates in story:
            service.fates = list(fates)
            if what == "submit":
                submit(alien, service)
            else:
                change(alien, service, what)
    assert len(set(service.submitted)) == len(service.submitted) >= len(service.jobs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
answers = st.one_of(
    st.text(),
    st.binary(),
    json_values.map(json.dumps),
    st.fixed_dictionaries({}, optional={"metadata": json_values, "results": json_values}).map(json.dumps),
)


@given(answers)
@settings(max_examples=300)
@example(b"\xff\xfe")
@example("[" * 50_000)
def test_whatever_comes_is_an_answer_or_said_to_be_none(text: str | bytes) -> None:
    answers = []
    failure = failure_of(lambda: answers.append(decode(text)))
    assert failure is None or "no answer" in str(failure)
    for row in (row for answer in answers for row in (answer.metadata, *answer.results)):
        assert all(key == key.strip() for key in row)
        "".join(row.values()).encode()


GREETING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n"
)


class Pipe:
    """A socket from which bytes come in these pieces, then no more."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)

    def settimeout(self, timeout: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        if data.startswith(b"GET") and self._pieces[:1] == [GREETING]:
            from websockets.utils import accept_key

            key = next(line for line in data.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key"))
            self._pieces[0] = GREETING % accept_key(key.partition(": ")[2]).encode()

    def recv(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def close(self) -> None:
        pass


frames = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=200),
        st.sampled_from(
            [b"\x81\x02{}", b"\x01\x01{", b"\x80\x01}", b"\x88\x02\x03\xf5", b"\x8a\x00", b"\x89\x00"]
        ),
        st.sampled_from(
            [b"\xc1\x03abc", b"\x81\x7f" + b"\xff" * 8, b"\x81\x7e\x00\x7d", b"\x88\x01x", b"\x00"]
        ),
    ),
    max_size=6,
)


@given(st.booleans(), frames)
@settings(max_examples=500)
def test_whatever_bytes_come_a_message_or_an_error_comes_of_it(greeted: bool, pieces: list[bytes]) -> None:
    pipe: Any = Pipe([GREETING, *pieces] if greeted else pieces)

    def converse() -> None:
        line = WebSocket(pipe, "wss://nowhere/websocket/json", 1.0, 1000)
        while True:
            assert isinstance(line.receive(1.0), bytes)

    with pytest.raises((WebSocketException, OSError, EOFError)):
        converse()
