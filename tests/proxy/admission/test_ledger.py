"""What outlives the ProxyServer, also when it is killed."""

import os
import signal
import subprocess
import sys

import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.admission.joining import Applicant, Submission
from gridproof.proxy.admission.ledger import Ledger

NOW = 1e9
SUBMISSION = Submission("sub", "alice", "al", "s", b"join", 3, NOW + 86400)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "joining.sqlite"


def reopened(path, now=NOW):
    """What the next ProxyServer knows."""
    ledger = Ledger(path)
    joining = ledger.read(now)
    ledger.close()
    return joining


def test_submissions_and_pilots_are_known_again(path):
    ledger = Ledger(path)
    joining = ledger.read(NOW)
    joining.submit(SUBMISSION)
    stays, _ = joining.enrol("sub", Applicant("1", b"a", NOW), NOW)
    leaves, _ = joining.enrol("sub", Applicant("2", b"b", NOW), NOW)
    joining.leave(leaves.pilot, "signal SIGTERM")
    ledger.write(joining.take_changes())
    assert joining.take_changes() is None
    ledger.close()
    after = reopened(path)
    assert after.admit("sub", b"join", NOW) == SUBMISSION
    assert after.recognise(stays.pilot, b"a") == stays
    with pytest.raises(ProxyError, match="SIGTERM"):
        after.recognise(leaves.pilot, b"b")


def test_a_revocation_is_kept_and_what_is_over_is_forgotten(path):
    ledger = Ledger(path)
    joining = ledger.read(NOW)
    joining.submit(SUBMISSION)
    pilot, _ = joining.enrol("sub", Applicant("1", b"a", NOW), NOW)
    joining.revoke("s")
    ledger.write(joining.take_changes())
    ledger.close()
    with pytest.raises(ProxyError, match="revoked with session s"):
        reopened(path).admit("sub", b"join", NOW)
    ledger = Ledger(path)
    joining = ledger.read(NOW)
    joining.tick(NOW + 99999)
    ledger.write(joining.take_changes())
    ledger.close()
    after = reopened(path)
    with pytest.raises(ProxyError, match="no such submission"):
        after.admit("sub", b"join", NOW)
    with pytest.raises(ProxyError, match="forgotten"):
        after.pilot(pilot.pilot)


def test_only_its_owner_reads_it_and_one_server_at_a_time(path, monkeypatch):
    ledger = Ledger(path)
    ledger.read(NOW).submit(SUBMISSION)
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr("gridproof.proxy.admission.ledger._PATIENCE", 0.1)
    with pytest.raises(ProxyError, match="is locked"):
        Ledger(path)
    ledger.close()


def test_a_file_that_is_none_is_an_error_that_names_it(path):
    path.write_text("this is no database, it is long enough to be read as one and is none all the same")
    with pytest.raises(ProxyError, match=r"joining\.sqlite cannot be used"):
        Ledger(path)


def test_a_damaged_file_is_an_error_that_names_it(path):
    reopened(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # all but the page that says what there is
    path.write_bytes(content)
    with pytest.raises(ProxyError, match=r"joining\.sqlite is damaged"):
        reopened(path)


def test_whatever_was_written_when_the_server_was_killed_is_there_whole(path):
    program = """
import sys, pathlib
from gridproof.proxy.admission.joining import *
from gridproof.proxy.admission.ledger import Ledger
ledger = Ledger(pathlib.Path(sys.argv[1]))
joining = ledger.read(0.0)
joining.submit(Submission("sub", "alice", "al", "s", b"join", 10**6, 1e12))
for job in range(10**6):
    pilot, _ = joining.enrol("sub", Applicant(str(job), str(job).encode(), 0.0), 0.0)
    ledger.write(joining.take_changes())
    print(pilot.pilot, job, flush=True)
"""
    server = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)
    welcomed = [server.stdout.readline().split() for _ in range(50)]
    os.kill(server.pid, signal.SIGKILL)
    welcomed += [line.split() for line in server.stdout if line.endswith("\n")]
    server.wait()
    server.stdout.close()
    after = reopened(path)
    for pilot, job in welcomed:
        assert after.recognise(pilot, job.encode()).job_id == job


def test_what_the_disk_did_not_take_is_written_later(path):
    ledger = Ledger(path)
    joining = ledger.read(NOW)
    joining.submit(SUBMISSION)
    ledger._base.execute("PRAGMA query_only = ON")
    with pytest.raises(ProxyError, match="cannot be written"):
        ledger.write(joining.take_changes())
    ledger._base.execute("PRAGMA query_only = OFF")
    joining.enrol("sub", Applicant("1", b"a", NOW), NOW)
    ledger.write(joining.take_changes())
    ledger.close()
    assert reopened(path).admit("sub", b"join", NOW) == SUBMISSION
