"""The ProxyServer as a process: it dies with its owner, and everything of it."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncssh
import psutil
import pytest

from gridproof import processes
from gridproof.proxy.client import ProxyClient

MASTER = [sys.executable, str(Path(__file__).with_name("standin_master.py"))]
ARGV = [sys.executable, "-m", "gridproof.proxy"]


def settings(key, **more):
    users = {"alice": [key.export_public_key().decode()]}
    shared = {"users": users, "accounts": {"alice": None}, "port": 0, "master": MASTER}
    return json.dumps({**shared, **more}).encode() + b"\n"


def gone(pids, within=10.0):
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(map(running, pids)):
            return True
        time.sleep(0.05)
    return False


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def with_session(ready, key, versions):
    client = await ProxyClient.connect("127.0.0.1", ready["port"], ready["host_key"], "alice", key)
    await client.open_session(versions, 1)
    return client


@pytest.fixture
def key():
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def server(key, tmp_path):
    process = processes.spawn(ARGV, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    process.stdin.write(settings(key))
    process.stdin.flush()
    yield process
    processes.stop(process)
    process.stdout.close()


@pytest.mark.parametrize("how", ["owner pipe", "SIGTERM", "SIGINT"])
def test_it_ends_with_its_masters_when_its_owner_goes_or_asks(server, key, versions, how):
    ready = json.loads(server.stdout.readline())

    async def main():
        client = await with_session(ready, key, versions)
        masters = [child.pid for child in psutil.Process(server.pid).children()]
        assert len(masters) == 1
        if how == "owner pipe":
            server.stdin.close()
        else:
            server.send_signal(getattr(signal, how))
        await asyncio.wait_for(client.closed, 10)
        await client.close()
        return masters

    masters = asyncio.run(main())
    assert server.wait(10) == 0
    assert gone(masters)


def test_its_masters_die_even_when_it_is_killed(server, key, versions):
    ready = json.loads(server.stdout.readline())

    async def main():
        client = await with_session(ready, key, versions)
        masters = [child.pid for child in psutil.Process(server.pid).children()]
        server.kill()
        await asyncio.wait_for(client.closed, 10)
        await client.close()
        return masters

    assert gone(asyncio.run(main()))


def test_what_a_killed_server_leaves_the_next_one_removes(server, key, tmp_path):
    assert server.stdout.readline()
    server.kill()
    server.wait(10)
    (left,) = tmp_path.iterdir()
    (left / "session-x").mkdir()
    os.utime(left, (0, 0))
    again = processes.spawn(ARGV, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    again.stdin.write(settings(key))
    again.stdin.flush()
    assert again.stdout.readline()
    (own,) = tmp_path.iterdir()
    assert own != left
    os.utime(own, (0, 0))
    third = processes.spawn(ARGV, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)})
    third.stdin.write(settings(key))
    third.stdin.flush()
    assert third.stdout.readline()
    assert own.exists(), "it is in use"
    for process in (again, third):
        processes.stop(process)
        process.stdout.close()
    assert not any(tmp_path.iterdir())


def test_kill_9_of_its_owner_ends_it_and_its_masters(key, versions, tmp_path):
    owner_code = f"""
import subprocess, sys
from gridproof import processes
process = processes.spawn({ARGV!r}, stdout=subprocess.PIPE)
process.stdin.write(sys.stdin.buffer.readline())
process.stdin.flush()
print(process.pid, process.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", owner_code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    with owner:
        owner.stdin.write(settings(key))
        owner.stdin.flush()
        pid, line = owner.stdout.readline().decode().split(" ", 1)

        async def main():
            client = await with_session(json.loads(line), key, versions)
            below = [int(pid), *(child.pid for child in psutil.Process(int(pid)).children())]
            owner.kill()
            await asyncio.wait_for(client.closed, 10)
            await client.close()
            return below

        below = asyncio.run(main())
        assert len(below) == 2
        assert gone(below)
    assert not any(tmp_path.iterdir())


def test_it_serves_more_connections_than_the_usual_limit_of_open_files(key):
    few = ["sh", "-c", 'ulimit -Sn 256; exec "$0" "$@"', *ARGV]
    server = processes.spawn(few, stdout=subprocess.PIPE)
    server.stdin.write(settings(key))
    server.stdin.flush()
    assert json.loads(server.stdout.readline())
    now, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    processes.stop(server)
    server.stdout.close()
    assert now > 256
    assert most == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello\n", "not JSON"),
        (b"{}\n", "users"),
        (b'{"users": {"a": []}, "colour": 1}\n', "no setting colour"),
        (b'{"users": {"a": ["ssh-rsa rubbish"]}}\n', "public key"),
        (b'{"users": {"a": []}, "forward_ports": [1, 2]}\n', "not [first"),
        (b'{"users": {"a": []}, "forward_ports": "all"}\n', "forward_ports cannot"),
        (b'{"users": {"a": []}, "port": "twenty"}\n', "port cannot be"),
        (b'{"users": {"a": []}, "store_size": 1000}\n', "store_size cannot be 1000: it lies between 1048576"),
        (b'{"users": {"a": []}, "accounts": {"b": "c"}}\n', "accounts map its users to names of accounts"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error(line, message):
    done = subprocess.run(ARGV, input=line, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
