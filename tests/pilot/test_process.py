"""Pilots as processes, with the real forkserver, worker and master: what they leave behind is nothing."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from gridproof.proxy.config import MASTER
from gridproof.proxy.pool.state import Limits, UserLimits
from gridproof.proxy.versions import here

ARGV = [sys.executable, "-m", "gridproof.pilot"]

# Tunnels that are being torn down when a test's loop ends have not told their sockets yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def job(sandbox, config, job_id="1"):
    """A pilot in a job's directory of its own, one that xrootd can be let through."""
    path, env = sandbox(config, job_id)
    with tempfile.TemporaryDirectory(prefix="gridproof-test-") as directory:
        process = subprocess.Popen([*ARGV, str(path)], cwd=directory, env=env)
        try:
            yield process, Path(directory)
        finally:
            process.kill()
            process.wait()


def family(pid):
    """Pids by the kind of process."""
    kinds = {}
    for child in psutil.Process(pid).children(recursive=True):
        words = child.as_dict(["cmdline"])["cmdline"]
        if not words:  # a zombie
            continue
        kind = words[0].split()[1] if words[0].startswith("gridproof ") else Path(words[0]).name
        kinds.setdefault(kind, []).append(child.pid)
    return kinds


def settled(pid, within=10.0, **numbers):
    """The family once it has these numbers: a worker looks like the forkserver at first."""
    deadline = time.monotonic() + within
    while {kind: len(pids) for kind, pids in family(pid).items()} != numbers:
        assert time.monotonic() < deadline, family(pid)
        time.sleep(0.05)
    return family(pid)


def gone(pids, within=10.0):
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        left = [
            p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE
        ]
        if not left:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_with_a_pilot_ends_all_that_it_started(cluster, sandbox, signum):
    async def main():
        async with cluster(master=MASTER) as it:
            await it.open(workers=2, versions=here())
            with job(sandbox, it.config(cores=2)) as (process, directory):
                await it.until(lambda _, ws: sum(w.state == "running" for w in ws) == 2, timeout=60)
                assert psutil.Process(process.pid).cmdline()[0] == "gridproof pilot Site1"
                (pilot,) = it.pilot_list
                assert pilot.xrootd_port
                below = await asyncio.to_thread(settled, process.pid, forkserver=1, worker=2, xrootd=1)
                process.send_signal(signum)
                assert gone([pid for pids in below.values() for pid in pids], within=5)
                expected = "lost" if signum == signal.SIGKILL else "left"
                await it.until(lambda pilots, _: pilots[0].state == expected)
                if signum == signal.SIGTERM:
                    assert await asyncio.to_thread(process.wait, 10) == 0
                    assert not any(directory.iterdir())

    asyncio.run(main())


def test_real_pilots_end_when_no_session_needs_them(cluster, sandbox):
    async def main():
        async with cluster(master=MASTER, limits=Limits(user=UserLimits(pilot_idle=0.1))) as it:
            await it.open(workers=1, versions=here())
            with job(sandbox, it.config()) as (process, directory):
                await it.until(lambda _, ws: any(w.state == "running" for w in ws), timeout=60)
                await it.client.close_session(it.session)
                assert await asyncio.to_thread(process.wait, 10) == 0
                assert not any(directory.iterdir())

    asyncio.run(main())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{}", "lacks its field host"),
        ("rubbish", "not JSON"),
        ('{"hosts": 1}', "no field hosts"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error(tmp_path, content, message):
    path = tmp_path / "pilot.json"
    if content is not None:
        path.write_text(content)
    done = subprocess.run([*ARGV, str(path)], capture_output=True, timeout=30)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_configuration_that_the_sandbox_left_open_is_closed(tmp_path):
    path = tmp_path / "pilot.json"
    path.write_text("{}")
    path.chmod(0o644)
    subprocess.run([*ARGV, str(path)], capture_output=True, timeout=30)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_agent_imports_neither_root_nor_distributed():
    code = "import gridproof.pilot.agent, sys; print(*{'ROOT', 'distributed', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b""
