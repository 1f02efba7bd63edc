"""A session on the Grid of ``gridproof grid start`` outlives the process that opened it."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import gridproof
from gridproof.cli import cli
from gridproof.errors import NotEnoughWorkers, SessionError
from gridproof.localgrid import discovery

SUBMITS = """
import sys, threading, gridproof
session = gridproof.open("local", workers=2)
data = session.dataset(sys.argv[1].split(","), tree="events")
session.submit(data, sys.argv[2], title="first").wait()
query = session.submit(data, sys.argv[2], "wait a bit", title="second")
while not query.progress.events:
    query.wait(0.1)
print("submitted", flush=True)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A Grid that no process owns, found by a state directory of its own."""
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        started = CliRunner().invoke(cli, ["grid", "start", "--sites", "2", "--slots", "1"])
        assert started.exit_code == 0, started.output
        try:
            yield discovery.find(0)
        finally:
            CliRunner().invoke(cli, ["grid", "stop"])


def test_another_process_finds_queries_and_results_of_one_that_was_killed(world, standing):
    files = [str(path) for path in world.files]
    arguments = [sys.executable, "-c", SUBMITS, ",".join(files), world.selector]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"submitted\n"
        with pytest.raises(SessionError, match="there is no session nobodys; attach to one of s"):
            gridproof.attach("nobodys")
        user.kill()
    (record,) = gridproof.sessions()
    assert (record.workers, record.running, record.kept) == (2, 1, 1)
    with pytest.raises(NotEnoughWorkers, match=f"of your other sessions {record.name} has [12]"):
        gridproof.open("local", workers=2, timeout=4)  # its fair share is one
    with gridproof.attach() as session:
        assert session.name == record.name
        queries = session.queries()
        assert [query.title for query in queries] == ["first", "second"]
        for query in queries:
            world.assert_exact(query.result())
        shown = CliRunner().invoke(cli, ["logs", session.name, "--lines", "50"]).output
        assert f"── master of session {session.name}\n" in shown
        for worker in session.workers:
            assert f"── worker {worker.name} at {worker.site} ({worker.host}): running\n" in shown
            assert f"worker {worker.name} runs, pid {worker.pid}\n" in shown
        data = session.dataset(files, tree="events")
        world.assert_exact(session.process(data, world.selector))
        pilots = {psutil.Process(worker.pid).ppid() for worker in session.workers}
        assert len(pilots) == 2
        session.detach()
        with pytest.raises(SessionError, match=r"gridproof\.attach"):
            session.process(data, world.selector)
    listed = CliRunner().invoke(cli, ["queries"])
    assert listed.exit_code == 0, listed.output
    assert "second" in listed.output
    gridproof.attach(record.name).close()
    assert gridproof.sessions() == []
    assert "No session lives there" in CliRunner().invoke(cli, ["queries"]).output
    with pytest.raises(SessionError, match="no sessions to attach to"):
        gridproof.attach()
    with gridproof.open("local", workers=2) as session:
        assert {psutil.Process(worker.pid).ppid() for worker in session.workers} == pilots, "the same ones"
        world.assert_exact(session.process(session.dataset(files, tree="events"), world.selector))


def test_the_users_key_is_for_its_owner_alone(standing):
    assert Path(standing.proxy["key_file"]).stat().st_mode & 0o777 == 0o600


def test_a_session_of_a_process_of_ones_own_cannot_be_left(world):
    with gridproof.open(world.grid, workers=1) as session, pytest.raises(SessionError, match="grid start"):
        session.detach()


def test_the_doctor_finds_a_standing_grid_well(standing):
    done = CliRunner().invoke(cli, ["doctor", "--grid", "local"])
    assert done.exit_code == 0, done.output
    assert "sessions there: " in done.output
    assert not {"warning", "failed", "skipped"} & set(done.output.split())
