"""What a Grid leaves behind when it ends in whatever way: nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from gridproof.errors import LocalGridError
from gridproof.localgrid import LocalGrid, find_running
from gridproof.localgrid.shell import grid as command
from gridproof.localgrid.vobox import VoBox

HOME = "/local/user/g/gproof"
OWNER = """
    import sys, time
    from pathlib import Path
    from gridproof.localgrid import LocalGrid
    from gridproof.localgrid.client import GridAccess
    grid = LocalGrid(sites=2, slots=1)
    grid.start()
    job = Path(sys.argv[1])
    job.write_text("#!/bin/sh\\nsetsid sleep 1000 &\\nsleep 1000\\n")
    grid.put(job, "/local/job.sh")
    with GridAccess(grid.environment) as access:
        job = access.command("submit", 'Executable = "/local/job.sh";')[0]["jobId"]
        while access.command("ps", "-j", job)[0]["status"] != "RUNNING":
            time.sleep(0.02)
    print(grid.root, grid.pid, flush=True)
    time.sleep(1000)
"""


def below(root: Path) -> list[psutil.Process]:
    """Processes that have to do with this Grid: by working directory or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.cwd().startswith(str(root)) or process.environ().get("HOME", "").startswith(str(root)):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def owner(tmp_path):
    """A process that owns a Grid with a running job: itself, the Grid's root and service."""
    argv = [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path / "job.sh")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            root, service = process.stdout.readline().split()
            yield process, Path(root), int(service)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(owner, until, number):
    process, root, service = owner
    until(lambda: len(below(root)) >= 6)  # two xrootd, wrapper, shell and two sleeps
    process.send_signal(number)
    process.wait()
    until(lambda: not below(root) and not psutil.pid_exists(service) and not root.exists(), timeout=10)


def test_no_process_is_left_when_the_service_is_killed(owner, until):
    process, root, service = owner
    os.kill(service, signal.SIGKILL)
    until(lambda: not below(root), timeout=5)
    process.kill()
    process.wait()
    with LocalGrid(sites=1, slots=1):  # the next one sweeps
        assert not root.exists()


def test_stop_is_quick_and_leaves_nothing(until):
    grid = LocalGrid(sites=2, slots=1)
    grid.start()
    root, environment = grid.root, grid.environment
    assert find_running() == environment
    grid.stop()
    grid.stop()
    assert not root.exists()
    assert not below(root)
    assert (find_running() or {}) != environment
    with pytest.raises(LocalGridError, match="not running"):
        grid.put("x", "/local/x")


def test_two_grids_do_not_know_each_other(tmp_path):
    with LocalGrid(sites=1, slots=1) as one, LocalGrid(sites=1, slots=1) as two:
        (tmp_path / "file").write_text("one")
        one.put(tmp_path / "file", "/local/file")
        with pytest.raises(LocalGridError, match="No such file"):
            two.get("/local/file", tmp_path / "other")


def test_a_grid_with_a_root_of_its_own_remembers_everything(roots, tmp_path, until):
    (tmp_path / "job.sh").write_text("#!/bin/sh\nsleep 1000\n")
    root = roots / ("deep-" * 20)
    from gridproof.localgrid.client import GridAccess

    with LocalGrid(sites=1, slots=1, root=root) as grid, GridAccess(grid.environment) as access:
        grid.put(tmp_path / "job.sh", "/local/job.sh")
        jobs = [access.command("submit", 'Executable = "/local/job.sh";')[0]["jobId"] for _ in range(2)]
        until(lambda: access.command("ps", "-j", jobs[0])[0]["status"] == "RUNNING")
        service = psutil.Process(grid.pid)
        service.kill()
        service.wait()
    until(lambda: not below(root))
    with LocalGrid(sites=1, slots=1, root=root) as grid, GridAccess(grid.environment) as access:
        assert access.command("ps", "-j", jobs[0])[0]["status"] == "ERROR_E"
        until(lambda: access.command("ps", "-j", jobs[1])[0]["status"] == "RUNNING")
        assert "started anew" in access.command("ps", "-trace", jobs[0])[0]["trace"]
        grid.get("/local/job.sh", tmp_path / "again")
        with pytest.raises(LocalGridError, match="Another embedded Grid"):
            LocalGrid(root=root).start()
        assert access.command("pwd")
    assert (root / "private").is_dir()


def test_a_root_that_cannot_be_used_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalGridError, match="cannot use"):
        LocalGrid(root=tmp_path / "file" / "below").start()


@pytest.mark.parametrize("name", ["two words", "dollar$"])
def test_a_root_that_xrootd_cannot_name_is_told_at_once(roots, name):
    with pytest.raises(LocalGridError, match="has a blank or a \\$ in it"):
        LocalGrid(root=roots / name).start()


@pytest.mark.parametrize("name", ["ca.key", "envelopes.key", "catalogue.db", "jobs.db"])
def test_a_root_that_is_damaged_is_told_at_once(roots, name):
    (roots / "private").mkdir()
    if name == "ca.key":
        (roots / "private" / "ca.pem").touch()
    (roots / "private" / name).write_text("no such thing, and longer than SQLite's header is" * 3)
    with pytest.raises(LocalGridError, match=r"cannot use .* \(damaged, or another version's\?\)"):
        LocalGrid(sites=1, root=roots).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only for root does XRootD run as another account")
def test_a_root_that_xrootd_cannot_enter_is_told_at_once(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LocalGridError, match="cannot enter"):
        LocalGrid(root=closed / "grid").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_told_at_once(tmp_path):
    full = Path("/tmp") / f"gridproof-full-{os.getpid()}"
    full.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", full], check=False)
    if mount.returncode:
        full.rmdir()
        pytest.skip("cannot mount here")
    try:
        with pytest.raises(LocalGridError, match=r"cannot use|does not start"):
            LocalGrid(root=full / "grid").start()
        assert not below(full)
    finally:
        subprocess.run(["umount", "-l", full], check=True)
        full.rmdir()


def test_missing_programs_are_named_with_their_packages(monkeypatch, tmp_path):
    (tmp_path / "setpriv").symlink_to(str(shutil.which("setpriv")))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalGridError, match=r"xrootd, xrdcp.*apt-get install xrootd-server xrootd-client"):
        LocalGrid().start()


@pytest.mark.parametrize("wrong", [{"sites": 0}, {"slots": 0}, {"cores": -1}])
def test_a_grid_of_nothing_is_refused(wrong):
    with pytest.raises(LocalGridError, match="at least one"):
        LocalGrid(**wrong)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No other Grid of this user is seen."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_the_standing_grid_from_a_shell(alone, tmp_path, until):
    runner = CliRunner()

    def run(*arguments):
        result = runner.invoke(command, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    run("start", "--sites", "2", "--slots", "1")
    try:
        environment = find_running()
        assert environment
        assert f"export ALIENPY_JCENTRAL_PORT={environment['ALIENPY_JCENTRAL_PORT']}" in run("env")
        (tmp_path / "file").write_text("content")
        run(
            "put",
            str(tmp_path / "file"),
            "/local/file",
            "--se",
            "Local::Site1::SE",
            "--se",
            "Local::Site2::SE",
        )
        run("get", "/local/file", str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == "content"
        shown = run("status")
        assert "Local::Site2::SE" in shown
        assert "Jobs: none" in shown
        with pytest.raises(LocalGridError, match="running already"):
            runner.invoke(command, ["start"], catch_exceptions=False)
        root = Path(json.loads(next((tmp_path / "gridproof").glob("grid*.json")).read_text())["root"])
    finally:
        assert "Stopped" in run("stop")
    assert not root.exists()
    assert not below(root)
    assert "No embedded Grid" in run("stop")
    with pytest.raises(LocalGridError, match="grid start"):
        runner.invoke(command, ["status"], catch_exceptions=False)


def test_what_is_given_up_while_it_starts_writes_nothing_afterwards(tmp_path):
    async def give_up():
        before = set(psutil.Process().children())
        starting = asyncio.ensure_future(VoBox.start(tmp_path / "vobox", "", tmp_path))
        await asyncio.sleep(0)
        started = set(psutil.Process().children()) - before
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        return started

    (server,) = asyncio.run(give_up())
    assert not server.is_running()
    assert [path.name for path in (tmp_path / "vobox").iterdir()] == ["user_key"]


def test_a_umask_that_keeps_others_out_keeps_storage_in(tmp_path):
    before = os.umask(0o077)
    try:
        (tmp_path / "file").write_text("content")
        with LocalGrid(sites=1, slots=1) as grid:
            grid.put(tmp_path / "file", "/local/file")
            grid.get("/local/file", tmp_path / "again")
    finally:
        os.umask(before)
    assert (tmp_path / "again").read_text() == "content"
