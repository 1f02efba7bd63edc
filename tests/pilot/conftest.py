"""A ProxyServer with stand-ins for master and workers, and pilots that join it."""

import asyncio
import gc
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from gridproof.pilot.agent import Agent, Timing
from gridproof.pilot.config import PilotConfig, job_of
from gridproof.proxy.client import ProxyClient, StatusChanged
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.masters.children import Child
from gridproof.proxy.protocol import Versions
from gridproof.proxy.server import ProxyServer

HERE = Path(__file__).parent
MASTER = (sys.executable, str(HERE.parent / "proxy" / "standin_master.py"))
FORKSERVER = [sys.executable, str(HERE / "standin_forkserver.py")]
VERSIONS = Versions("3.11.2", "6.40.00", "1", "2026.1")


async def start_forkserver():
    return await Child.start(FORKSERVER)


async def greeting(host, port):
    """What the worker at the end of a forward says; "" while it does not listen."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    finally:
        writer.close()


class Cluster:
    """A server, its user's client with an open session, and pilots in the same event loop."""

    def __init__(self, server, key, user="alice"):
        self.server = server
        self.key = key
        self.user = user
        self.pilots = []

    async def open(self, session="echo", workers=2, versions=VERSIONS):
        """``session`` names what the stand-in workers do."""
        self.client = await ProxyClient.connect(
            "127.0.0.1", self.server.port, self.server.host_key, self.user, self.key, on_event=self.on_event
        )
        self.changed = asyncio.Condition()
        self.status = None
        self.session = session
        await self.client.open_session(versions, workers, session=session)
        self.submission = await self.client.new_submission(self.session, 100, self.user)

    async def open_next(self, workers=2, versions=VERSIONS):
        """Another session of the user, which is then the one to watch."""
        self.session = "next"
        await self.client.open_session(versions, workers, session="next")

    async def on_event(self, event):
        if isinstance(event, StatusChanged) and event.session == self.session:
            async with self.changed:
                self.status = event.status
                self.changed.notify_all()

    def config(self, **changes):
        config = PilotConfig(
            "127.0.0.1",
            self.server.port,
            self.server.host_key,
            self.submission.submission,
            self.submission.join_key,
            orphan_limit=5.0,
        )
        return replace(config, **changes)

    async def pilot(self, job_id="1", timing=None, start=start_forkserver, **changes):
        job = job_of({"ALIEN_PROC_ID": job_id, "ALIEN_SITE": "Site1", "ALIEN_USER": "alice"})
        agent = Agent(self.config(**changes), job, await start(), start, timing)
        task = asyncio.create_task(agent.run())
        self.pilots.append(task)
        return agent, task

    async def until(self, condition, timeout=15.0):
        """Wait for a status with ``condition(pilots, workers)``; both are lists of records."""

        async def wait():
            async with self.changed:
                while not (self.status and condition(self.pilot_list, self.worker_list)):
                    await self.changed.wait()

        try:
            await asyncio.wait_for(wait(), timeout)
        except asyncio.TimeoutError:
            pytest.fail(f"never came to be: {self.status}")

    async def reached(self, worker):
        """Its name, as it says itself through its forward; it may take a moment to listen."""
        address = await self.client.forward(worker.session, worker.name)
        for _ in range(50):
            if said := await greeting(*address[:2]):
                return said
            await asyncio.sleep(0.1)
        return ""

    @property
    def pilot_list(self):
        return list(self.status.pilots.values())

    @property
    def worker_list(self):
        return list(self.status.workers.values())

    def running(self, count):
        return self.until(lambda _, workers: sum(w.state == "running" for w in workers) == count)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """``async with cluster() as it``: everything but the session is up."""
    monkeypatch.chdir(tmp_path)

    @asynccontextmanager
    async def start(**changes):
        key = asyncssh.generate_private_key("ssh-ed25519")
        users = {user: [key.export_public_key().decode()] for user in ("alice", "bob")}
        config = ServerConfig(users=users, accounts=dict.fromkeys(users), port=0, master=MASTER)
        server = await ProxyServer.start(replace(config, **changes))
        it = Cluster(server, key)
        try:
            yield it
        finally:
            await server.close("the test is over")
            await asyncio.wait_for(asyncio.gather(*it.pilots), 20)
            await it.client.close()

    yield start
    gc.collect()  # what tunnels left behind that an ended loop was tearing down is this test's


@pytest.fixture
def at_server(tmp_path, monkeypatch):
    """``at_server(server, key)``: a user at a server of the test's own."""
    monkeypatch.chdir(tmp_path)
    yield Cluster
    gc.collect()


@pytest.fixture
def quick():
    """Timing for tests that wait for time-outs."""
    return Timing(heartbeat=0.2, backoff=0.05, backoff_max=0.2)


@pytest.fixture
def sandbox(tmp_path):
    """Writes a pilot's configuration file; returns its path and the environment of its job."""

    def write(config, job_id="1"):
        path = tmp_path / f"pilot-{job_id}.json"
        path.touch(0o600)
        path.write_text(json.dumps(config.__dict__))
        return path, {**os.environ, "ALIEN_PROC_ID": job_id, "ALIEN_SITE": "Site1"}

    return write
