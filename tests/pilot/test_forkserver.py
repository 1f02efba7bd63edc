"""The forkserver with stand-in workers, driven through its pipes as the agent does."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from gridproof.proxy.masters.children import Child

STANDIN = [sys.executable, str(Path(__file__).with_name("standin_forkserver.py"))]
SECRET = "-----BEGIN PRIVATE KEY----- nobody else's"


@pytest.fixture
def forkserver(tmp_path):
    @asynccontextmanager
    async def start():
        child = await Child.start(STANDIN)
        try:
            assert (await child.first("the forkserver", 20))["event"] == "ready"
            yield child
        finally:
            await child.stop(5.0)

    return start


@pytest.fixture
def spec(tmp_path):
    def make(name, session):
        (tmp_path / name).mkdir()
        return {
            "name": name,
            "session": session,
            "work_dir": str(tmp_path / name),
            "environment": {"GRIDPROOF_TEST": "given"},
            "key": SECRET,
        }

    return make


async def begin(child, spec):
    child.send({"do": "start", "spec": spec})
    report = await child.receive()
    assert (report["event"], report["name"]) == ("started", spec["name"])
    return report["pid"]


async def end(child):
    report = await asyncio.wait_for(child.receive(), 10)
    assert report["event"] == "exited"
    return report


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def open_files(pid):
    return {fd.name: str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}


async def all_gone(*pids, within=10.0):
    for _ in range(int(within / 0.05)):
        if all(map(gone, pids)):
            return True
        await asyncio.sleep(0.05)
    return False


async def settled(pid):
    """Wait until a worker has become one: until then it still looks like the forkserver."""
    for _ in range(200):
        if psutil.Process(pid).cmdline()[0].startswith("gridproof worker"):
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("session", "code", "signum", "words"),
    [("leave", 0, 0, "runs"), ("fail", 1, 0, "ValueError: no worker today"), ("crash", -11, 11, "runs")],
)
def test_how_a_worker_ended_is_reported_with_the_tail_of_its_log(
    forkserver, spec, session, code, signum, words
):
    async def main():
        async with forkserver() as child:
            await begin(child, spec("w", session))
            report = await end(child)
            assert (report["name"], report["code"], report["signal"]) == ("w", code, signum)
            assert words in report["log"]

    asyncio.run(main())


def test_what_a_worker_prints_is_in_its_log_at_once_and_not_when_a_buffer_is_full(
    forkserver, spec, monkeypatch
):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    async def main():
        async with forkserver() as child:
            await begin(child, spec("w", "talk"))
            report = await end(child)
            assert report["signal"] == signal.SIGKILL
            assert "said by Python\nsaid by C\n" in report["log"]

    asyncio.run(main())


def test_a_worker_has_a_session_a_title_and_no_file_of_the_forkservers(forkserver, spec, tmp_path):
    async def main():
        async with forkserver() as child:
            pid = await begin(child, spec("w", "stubborn"))
            await settled(pid)
            process = psutil.Process(pid)
            assert process.cmdline()[0] == "gridproof worker w"
            assert os.getsid(pid) == pid
            log = tmp_path / "w" / "worker.log"
            files = open_files(pid)
            assert files.pop("0") == "/dev/null"
            assert {files.pop("1"), files.pop("2")} == {str(log)}
            assert not [target for target in files.values() if target.startswith(("pipe:", "socket:"))]
            assert log.stat().st_mode & 0o777 == 0o600
            assert process.cwd() == str(tmp_path / "w")

    asyncio.run(main())


def test_secrets_are_in_no_argument_no_environment_and_no_log(forkserver, spec, tmp_path):
    async def main():
        async with forkserver() as child:
            pid = await begin(child, spec("w", "stubborn"))
            await settled(pid)
            assert SECRET not in " ".join(psutil.Process(pid).cmdline())
            assert SECRET not in str(psutil.Process(pid).environ())
            assert SECRET not in (tmp_path / "w" / "worker.log").read_text()

    asyncio.run(main())


def test_stop_is_polite_first_and_then_is_not(forkserver, spec):
    async def main():
        async with forkserver() as child:
            stubborn = await begin(child, spec("a", "stubborn"))
            await settled(stubborn)
            await asyncio.sleep(0.2)
            child.send({"do": "stop", "name": "a", "grace": 3600.0})
            child.send({"do": "stop", "name": "a", "grace": 0.3})  # what comes later may be more urgent
            assert (await end(child))["signal"] == signal.SIGKILL
            child.send({"do": "stop", "name": "a", "grace": 0.3})
            child.send({"do": "stop", "name": "never was", "grace": 0.3})
            assert await begin(child, spec("b", "stubborn"))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["eof", "SIGTERM", "SIGKILL"])
def test_workers_end_with_the_forkserver(forkserver, spec, how):
    async def main():
        async with forkserver() as child:
            pids = [await begin(child, spec(name, "stubborn")) for name in "abc"]
            for pid in pids:
                await settled(pid)
            if how == "eof":
                await child.stop(5.0)
            else:
                os.kill(child.pid, getattr(signal, how))
            assert await all_gone(child.pid, *pids)

    asyncio.run(main())


def test_many_workers_at_once(forkserver, spec):
    async def main():
        async with forkserver() as child:
            for n in range(20):
                child.send({"do": "start", "spec": spec(f"w{n}", "leave")})
            reports = [await asyncio.wait_for(child.receive(), 20) for _ in range(40)]
            for event in ("started", "exited"):
                assert sorted(r["name"] for r in reports if r["event"] == event) == sorted(
                    f"w{n}" for n in range(20)
                )
            assert {r["code"] for r in reports if r["event"] == "exited"} == {0}

    asyncio.run(main())


def test_the_real_forkserver_is_single_threaded_with_all_imported():
    async def main():
        child = await Child.start([sys.executable, "-m", "gridproof.pilot.forkserver"])
        try:
            hello = await child.first("the forkserver", 60)
            assert hello["threads"] == 1
            assert set(hello["versions"]) == {"python", "root", "gridproof", "distributed"}
            assert psutil.Process(child.pid).cmdline()[0] == "gridproof forkserver"
        finally:
            await child.stop(5.0)

    asyncio.run(main())


def test_what_does_not_import_is_reported(tmp_path):
    (tmp_path / "ROOT.py").write_text("raise ImportError('libCore.so: cannot open shared object file')")

    async def main():
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
        child = await Child.start([sys.executable, "-m", "gridproof.pilot.forkserver"], env=environment)
        hello = await child.first("the forkserver", 20)
        assert hello == {"event": "failed", "reason": "libCore.so: cannot open shared object file"}
        assert await child.exited == 1
        await child.stop(1.0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("grace", "signals"), [(0, {signal.SIGTERM, signal.SIGKILL}), (60, {signal.SIGTERM})]
)
def test_a_worker_may_be_stopped_as_soon_as_it_was_told_to_start(forkserver, spec, grace, signals):
    async def main():
        async with forkserver() as child:
            for number in range(20):
                child.send({"do": "start", "spec": spec(f"w{number}", "wait")})
                child.send({"do": "stop", "name": f"w{number}", "grace": grace})
            reports = [await asyncio.wait_for(child.receive(), 10) for _ in range(40)]
            ended = [report["signal"] for report in reports if report["event"] == "exited"]
            assert len(ended) == 20
            assert set(ended) <= signals

    asyncio.run(main())
