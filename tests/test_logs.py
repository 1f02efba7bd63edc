"""Whose logs a user is shown, and how they look."""

from contextlib import contextmanager
from dataclasses import fields

import pytest
from click.testing import CliRunner

from gridproof.cli import cli
from gridproof.errors import ConfigError
from gridproof.logs import Log, Logs, gather
from gridproof.proxy.logs import Source
from gridproof.proxy.pool.records import PilotRecord, Status, WorkerRecord

NOTHING = {"str": "", "int": 0, "float": 0.0, "bool": False}


def record(kind, **known):
    """A record in which only what matters here is filled in."""
    return kind(**{field.name: known.get(field.name, NOTHING[field.type]) for field in fields(kind)})


PILOT = record(PilotRecord, id="77-ab", job_id="77", state="lost", site="CERN", host="b7")
WORKER = record(
    WorkerRecord,
    name="CERN-77-0",
    site="CERN",
    host="b7",
    state="ended",
    pilot="77-ab",
    reason="signal 11 after 3.0 s:\nlast words",
)


@pytest.fixture
def status():
    return Status({PILOT.id: PILOT}, {WORKER.name: WORKER})


def show(status, worker=None, pilot=None, lines=20):
    """What is asked of the ProxyServer is answered by naming it."""

    def ask(sources, lines, since):
        return {source: (f"{source.kind} says {lines}\n", 5) for source in sources}

    def trace(job):
        return [f"trace {n} of {job}" for n in range(100)]

    return gather("s", status, ask, trace, worker, pilot, lines)


def test_without_a_name_all_are_shown(status):
    assert [log.source.kind for log in show(status)] == ["master", "pilot", "worker"]


@pytest.mark.parametrize(
    ("asked", "source"),
    [
        ({"worker": "CERN-77-0"}, Source("worker", "77-ab", "CERN-77-0")),
        ({"worker": "master"}, Source("master", "s")),
        ({"pilot": 77}, Source("pilot", "77-ab")),
        ({"pilot": "77-ab"}, Source("pilot", "77-ab")),
    ],
)
def test_one_is_shown_by_its_name(status, asked, source):
    assert [log.source for log in show(status, **asked)] == [source]


def test_of_a_worker_whose_log_is_not_known_the_last_words_are_shown(status):
    (log,) = gather("s", status, lambda *_: {}, None, "CERN-77-0", None, 20)
    assert log.text == "last words"


def test_of_a_pilot_that_never_registered_the_trace_of_its_job_is_shown(status):
    (log,) = show(status, pilot=78, lines=2)
    assert str(log) == "── pilot 78: never registered; the trace of its job\ntrace 98 of 78\ntrace 99 of 78"


@pytest.mark.parametrize("asked", [{"worker": "CERN-77-1"}, {"pilot": "CERN-77-0"}, {"lines": 0}])
def test_who_is_not_there_is_an_error_that_names_the_nearest(status, asked):
    with pytest.raises(ConfigError, match=r"CERN-77-0|77|at least one line"):
        show(status, **asked)


def test_they_print_below_lines_that_say_who_where_and_how_it_ended(status):
    assert str(show(status, worker="CERN-77-0", lines=3)) == (
        "── worker CERN-77-0 at CERN (b7): ended (signal 11 after 3.0 s)\nworker says 3"
    )


def test_following_shows_what_is_new_of_those_that_have_written(monkeypatch):
    """Until it is interrupted."""
    written = {"a": "old\n", "b": ""}
    later = iter([{"a": "", "b": "new\n"}, {"a": "last\n", "b": ""}])

    @contextmanager
    def reader(session, grid):
        assert (session, grid) == ("s", "local")
        yield read

    def read(worker, pilot, lines, since=None):
        if since is None:
            texts = written
        else:
            texts = next(later, None)
            assert since == dict.fromkeys(map(source, "ab"), 1)
        if texts is None:
            raise KeyboardInterrupt
        return Logs([Log(source(name), name, text, 1) for name, text in texts.items()])

    def source(name):
        return Source("worker", "p", name)

    monkeypatch.setattr("gridproof.logs.reader", reader)
    monkeypatch.setattr("gridproof.cli.FOLLOW_SECONDS", 0.0)
    shown = CliRunner().invoke(cli, ["logs", "s", "--follow"]).output
    assert [line for line in shown.splitlines() if line] == [
        *("── a", "old", "── b", "(nothing)"),
        *("── b", "new"),
        *("── a", "last"),
        "Aborted!",
    ]


def test_a_notebook_shows_them_as_text_whatever_they_hold():
    logs = Logs([Log(Source("master", "s"), "master", "<script>\x1b[2J\n")])
    assert logs._repr_html_() == "<pre>── master\n&lt;script&gt;\\x1b[2J</pre>"
