"""Opening a session: what is refused, what is reported, who may come late, and who ends with whom."""

import json
import subprocess
import sys
import time

import asyncssh
import psutil
import pytest

import gridproof
from gridproof import opening
from gridproof.errors import ConfigError, NotEnoughWorkers, SessionError

GONE_WITHIN = 30.0


def title(process: psutil.Process) -> str:
    """How a process calls itself, "" if it is a zombie."""
    return " ".join(process.as_dict(["cmdline"])["cmdline"] or [])


def test_a_wish_that_the_grid_cannot_fulfil_is_refused_at_once(world):
    began = time.monotonic()
    with pytest.raises(NotEnoughWorkers, match="run 6 at most"):
        gridproof.open(world.grid, workers=7)
    assert time.monotonic() - began < 10


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="min_workers"):
        gridproof.open("local", workers=2, min_workers=3)
    with pytest.raises(ConfigError, match="engine"):
        gridproof.open("local", workers=2, engine="spark")
    with pytest.raises(ConfigError, match="LocalGrid"):
        gridproof.open("mars", workers=2)
    with pytest.raises(SessionError, match="no TProof"):
        gridproof.open("local", workers=2, engine="proof")


USER = """
import sys, gridproof, threading
with gridproof.open("local", workers=2) as session:
    print("ready", flush=True)
    data = session.dataset(sys.argv[1], tree="events")
    session.process(data, sys.argv[2], "wait for it")
    threading.Event().wait()
"""


def test_nothing_of_a_killed_user_process_runs_on(world):
    selector, file = world.selector, str(world.files[0])
    with subprocess.Popen([sys.executable, "-c", USER, file, selector], stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"ready\n"
        below = psutil.Process(user.pid).children(recursive=True)
        titles = " ".join(map(title, below))
        assert all(
            part in titles for part in ("gridproof proxy", "gridproof pilot", "gridproof worker", "xrootd")
        )
        user.kill()
    _, alive = psutil.wait_procs(below, timeout=GONE_WITHIN)
    assert not alive


@pytest.mark.parametrize("strategy", ["production", "se"])
def test_both_strategies_of_submission_bring_workers(world, strategy, tmp_path, monkeypatch):
    settings = tmp_path / "gridproof.yaml"
    settings.write_text(json.dumps({"pilots": {"strategy": strategy}}))
    monkeypatch.setenv("GRIDPROOF_CONFIG", str(settings))
    with gridproof.open(world.grid, workers=3, dataset=world.pattern, tree="events") as session:
        assert len(session.workers) >= 3
        data = session.dataset(world.pattern, tree="events")
        world.assert_exact(session.process(data, world.selector))


@pytest.mark.parametrize("part", ["gridproof master", "gridproof proxy"])
def test_the_death_of_master_or_proxy_is_told_at_once(world, part):
    with gridproof.open(world.grid, workers=1) as session:
        below = psutil.Process().children(recursive=True)
        (victim,) = [p for p in below if title(p).startswith(part)]
        send = session._queries.send

        def kill_it(message, **arguments):
            if message == "follow":
                victim.kill()
            return send(message, **arguments)

        session._queries.send = kill_it
        data = session.dataset(world.pattern, tree="events")
        began = time.monotonic()
        with pytest.raises(SessionError, match="open a new session"):
            session.process(data, world.selector, "wait for it")
        assert time.monotonic() - began < 20


@pytest.fixture
def half_of_the_grid(world):
    """A session that holds one of the two slots of each site."""
    with gridproof.open(world.grid, workers=3) as session:
        yield session


def test_pilots_that_do_not_register_in_time_are_named(world, half_of_the_grid):
    with pytest.raises(NotEnoughWorkers, match=r"(?s)of 6 workers.*pilots? WAITING \(jobs? \d+"):
        gridproof.open(world.grid, workers=6, timeout=3)


def test_an_opening_ends_at_once_when_all_pilots_fail_and_says_why(world, monkeypatch):
    join = opening._join

    def with_a_void_key(link, count):
        key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
        return {**join(link, count), "join_key": key}

    monkeypatch.setattr(opening, "_join", with_a_void_key)
    with pytest.raises(NotEnoughWorkers, match=r"(?s)no pilot is left.*pilots? at SITE\d ended") as caught:
        gridproof.open(world.grid, workers=3, timeout=300)
    assert caught.value.pilots


def test_late_workers_join_a_running_query(world, half_of_the_grid):
    with gridproof.open(world.grid, workers=6, min_workers=1, timeout=25) as session:
        early = len(session.workers)
        assert 1 <= early <= 3
        send = session._queries.send

        def make_room(message, **arguments):
            if message == "submit":
                half_of_the_grid.close()
            return send(message, **arguments)

        session._queries.send = make_room
        data = session.dataset(world.pattern, tree="events")
        result = session.process(data, world.selector, "wait a little while, please")
        world.assert_exact(result)
        assert len(result.summary.per_worker) > early
