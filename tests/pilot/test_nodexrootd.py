"""The node's XRootD server: real xrootd, real clients."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from gridproof import xrootd
from gridproof.errors import ProxyError
from gridproof.pilot import nodexrootd

pytestmark = pytest.mark.skipif(not shutil.which("xrootd"), reason="xrootd is not installed")
QUICK = {"XRD_CONNECTIONWINDOW": "3", "XRD_CONNECTIONRETRY": "1", "XRD_LOGLEVEL": "Error"}


@pytest.fixture
def job(monkeypatch):
    """A job's directory, which others may not even pass through until the pilot lets them."""
    with tempfile.TemporaryDirectory(prefix="gridproof-test-") as name:
        monkeypatch.chdir(name)
        cache = Path(name) / "cache"
        cache.mkdir()
        (cache / "sub").mkdir()
        (cache / "a.txt").write_text("near")
        (Path(name) / "outside.txt").write_text("secret")
        yield Path(name)


def key_of(server):
    """A file with its key, for its clients."""
    path = Path.cwd() / f"{server.port}.keytab"
    xrootd.write_secret(path, server.key)
    return path


async def client(*argv, keytab=None):
    env = {k: v for k, v in os.environ.items() if k != "XrdSecSSSKT"} | QUICK
    if keytab:
        env["XrdSecSSSKT"] = str(keytab)
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode()


def test_the_cache_is_read_with_the_key_and_nothing_else_is_reached(job):
    async def main():
        server = await nodexrootd.start(job / "cache", job / "xrootd")
        try:
            url, out = f"root://127.0.0.1:{server.port}", job / "out.txt"
            code, said = await client("xrdcp", "-f", f"{url}//a.txt", str(out), keytab=key_of(server))
            assert (code, out.read_text()) == (0, "near"), said

            code, said = await client("xrdcp", "-f", f"{url}//a.txt", str(job / "no.txt"))
            assert code != 0
            assert "Auth failed" in said

            other = job / "other.keytab"
            xrootd.write_secret(other, xrootd.make_key(time.time()))
            code, said = await client("xrdcp", "-f", f"{url}//a.txt", str(job / "no.txt"), keytab=other)
            assert code != 0

            for path in (
                "/../outside.txt",
                str(job / "outside.txt"),
                "/etc/passwd",
                "/../xrootd/run/server.keytab",
            ):
                code, said = await client(
                    "xrdcp", "-f", f"{url}/{path}", str(job / "no.txt"), keytab=key_of(server)
                )
                assert code != 0, path
            code, said = await client("xrdfs", url, "ls", "-R", "/", keytab=key_of(server))
            assert sorted(said.split()) == ["a.txt", "sub"]
            assert not (job / "no.txt").exists()
        finally:
            await server.stop()

    asyncio.run(main())


def test_nothing_can_be_written(job):
    async def main():
        server = await nodexrootd.start(job / "cache", job / "xrootd")
        try:
            url = f"root://127.0.0.1:{server.port}"
            code, said = await client(
                "xrdcp", str(job / "outside.txt"), f"{url}//b.txt", keytab=key_of(server)
            )
            assert code != 0
            assert "read/only" in said
            code, _ = await client("xrdfs", url, "rm", "/a.txt", keytab=key_of(server))
            assert code != 0
        finally:
            await server.stop()

    asyncio.run(main())


def own_addresses():
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]


@pytest.mark.skipif(not own_addresses(), reason="this machine has no address but the loopback's")
def test_who_does_not_come_through_the_loopback_is_turned_away(job):
    async def main():
        server = await nodexrootd.start(job / "cache", job / "xrootd")
        try:
            url = f"root://{own_addresses()[0]}:{server.port}"
            code, _ = await client("xrdcp", "-f", f"{url}//a.txt", str(job / "no.txt"), keytab=key_of(server))
            assert code != 0
        finally:
            await server.stop()

    asyncio.run(main())


def test_keys_are_readable_by_their_owners_only_and_the_server_is_not_root(job):
    async def main():
        server = await nodexrootd.start(job / "cache", job / "xrootd")
        try:
            process = psutil.Process(server.server.child.pid)
            assert process.uids().real != 0
            assert process.uids() == (process.uids().real,) * 3
            status = (job / "xrootd/run/server.keytab").stat()
            assert (status.st_mode & 0o777, status.st_uid) == (0o600, process.uids().real)
            assert server.key not in repr(server)
            assert server.key not in " ".join(process.cmdline())
        finally:
            await server.stop()
        assert not psutil.pid_exists(server.server.child.pid)

    asyncio.run(main())


def test_two_servers_of_a_node_have_ports_and_keys_of_their_own(job):
    async def main():
        servers = await asyncio.gather(
            *(nodexrootd.start(job / "cache", job / f"xrootd-{n}") for n in range(2))
        )
        try:
            assert servers[0].port != servers[1].port
            url = f"root://127.0.0.1:{servers[0].port}"
            code, _ = await client("xrdfs", url, "ls", "/", keytab=key_of(servers[1]))
            assert code != 0
        finally:
            await asyncio.gather(*(server.stop() for server in servers))

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")
def test_a_cache_that_its_user_cannot_reach_is_an_error(job, monkeypatch):
    monkeypatch.chdir("/")
    job.chmod(0o700)

    async def main():
        (job / "work").mkdir()
        monkeypatch.chdir(job / "work")
        with pytest.raises(ProxyError, match="cannot pass through"):
            await nodexrootd.start(job / "cache", job / "xrootd")

    asyncio.run(main())


def test_a_node_without_xrootd_says_so(job, monkeypatch):
    monkeypatch.setenv("PATH", str(job))
    with pytest.raises(ProxyError, match="not installed"):
        asyncio.run(nodexrootd.start(job / "cache", job / "xrootd"))


def test_an_xrootd_that_does_not_start_shows_its_last_lines(job, monkeypatch):
    broken = job / "xrootd"
    broken.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{job}:{os.environ['PATH']}")
    with pytest.raises(ProxyError, match="the disk is on fire"):
        asyncio.run(nodexrootd.start(job / "cache", job / "server"))


def test_it_dies_with_its_owner_even_by_kill_9(job):
    code = f"""
import asyncio
from pathlib import Path
from gridproof import xrootd
from gridproof.pilot import nodexrootd
async def main():
    server = await nodexrootd.start(Path({str(job / "cache")!r}), Path({str(job / "xrootd")!r}))
    print(server.server.child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not psutil.pid_exists(pid)
