"""A small embedded Grid and a ProxyServer, for the doctor to look at."""

import getpass

import asyncssh
import pytest

from gridproof.grids import Endpoint
from gridproof.localgrid import LocalGrid
from gridproof.loopthread import LoopThread
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.server import ProxyServer


@pytest.fixture(scope="module")
def environ():
    """The variables of a Grid with one site."""
    with LocalGrid(sites=1, slots=1) as grid:
        yield grid.environment


@pytest.fixture(scope="module")
def endpoint():
    """A ProxyServer that lets this user in."""
    loop, key, user = LoopThread("test"), asyncssh.generate_private_key("ssh-ed25519"), getpass.getuser()
    users = {user: [key.export_public_key().decode().strip()]}
    server = loop.run(ProxyServer.start(ServerConfig(users, port=0)))
    yield Endpoint("127.0.0.1", server.port, server.host_key, user, key.export_private_key().decode())
    loop.run(server.close("the test is over"))
    loop.close()
