"""A ProxyServer in the test's own event loop, with a stand-in for the master."""

import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest

from gridproof.pilot.config import PilotConfig, job_of
from gridproof.pilot.membership import Membership
from gridproof.proxy.client import ProxyClient
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.protocol import Versions
from gridproof.proxy.server import ProxyServer

MASTER = (sys.executable, str(Path(__file__).with_name("standin_master.py")))
VERSIONS = Versions("3.11.2", "6.40.00", "1", "2026.1")


@dataclass
class Proxy:
    """A running server and who may use it."""

    server: ProxyServer
    keys: dict[str, asyncssh.SSHKey]
    events: list = field(default_factory=list)

    @asynccontextmanager
    async def client(self, user="alice", key=None):
        async def on_event(event):
            self.events.append(event)

        client = await ProxyClient.connect(
            "127.0.0.1",
            self.server.port,
            self.server.host_key,
            user,
            key or self.keys[user],
            on_event=on_event,
            timeout=10,
        )
        try:
            yield client
        finally:
            await client.close()

    def membership(self, submission, job_id="1", **environ):
        """What a payload with this job id would join with."""
        config = PilotConfig(
            "127.0.0.1",
            self.server.port,
            self.server.host_key,
            submission.submission,
            submission.join_key,
        )
        return Membership(config, job_of({"ALIEN_PROC_ID": job_id, **environ}))

    async def dial(self, username, key, **options):
        """A plain SSH connection, as a stranger would make it."""
        return await asyncssh.connect(
            "127.0.0.1",
            self.server.port,
            username=username,
            client_keys=key if isinstance(key, list) else [key] if key else None,
            known_hosts=None,
            config=None,
            agent_path=None,
            connect_timeout=10,
            **options,
        )


@pytest.fixture
def running_proxy():
    """``async with running_proxy() as proxy``; users alice and bob."""

    @asynccontextmanager
    async def start(**changes):
        keys = {user: asyncssh.generate_private_key("ssh-ed25519") for user in ("alice", "bob")}
        users = {user: [key.export_public_key().decode()] for user, key in keys.items()}
        config = replace(
            ServerConfig(users=users, accounts=dict.fromkeys(users), port=0, master=MASTER), **changes
        )
        server = await ProxyServer.start(replace(config, **changes))
        try:
            yield Proxy(server, keys)
        finally:
            await server.close("the test is over")

    return start


@pytest.fixture
def versions():
    return VERSIONS
