"""A ProxyServer that is killed and started again finds its pilots, and they are still their user's."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncssh
import pytest

from gridproof.proxy.masters.children import Child

MASTER = [sys.executable, str(Path(__file__).parent.parent / "proxy" / "standin_master.py")]

# Tunnels that are being torn down when a test's loop ends have not told their sockets yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@asynccontextmanager
async def service(settings):
    """A ProxyServer as a process; ends by ``kill -9``."""
    child = await Child.start([sys.executable, "-m", "gridproof.proxy"])
    child.send(settings)
    ready = await child.first("the ProxyServer", 30.0)
    try:
        yield SimpleNamespace(port=ready["port"], host_key=ready["host_key"])
    finally:
        os.kill(child.pid, signal.SIGKILL)
        await child.exited
        await child.stop(1.0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_pilots_find_a_killed_server_again_and_serve_the_next_session(at_server, quick, tmp_path):
    alice, bob = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    settings = {
        "users": {"alice": [alice.export_public_key().decode()], "bob": [bob.export_public_key().decode()]},
        "accounts": {"alice": None, "bob": None},
        "port": free_port(),
        "state_dir": str(tmp_path / "state"),
        "master": MASTER,
    }

    async def main():
        async with service(settings) as server:
            first = at_server(server, alice)
            await first.open(workers=1)
            agent, task = await first.pilot(timing=quick, orphan_limit=30.0)
            await first.running(1)
            (pilot,) = first.pilot_list
        assert "was lost" in await asyncio.wait_for(first.client.closed, 5)
        async with service(settings) as server:
            assert server.host_key == first.server.host_key
            other = at_server(server, bob, "bob")
            await other.open("others", workers=1)
            again = at_server(server, alice)
            await again.open("next", workers=1)
            await again.running(1)
            (worker,) = again.worker_list
            assert worker.pilot == pilot.id
            assert await other.client._request("at_hand", session="others") == 0
            agent.end("the test is over")
            assert await asyncio.wait_for(task, 20) == "the test is over"
            for one in (first, other, again):
                await one.client.close()

    asyncio.run(main())
