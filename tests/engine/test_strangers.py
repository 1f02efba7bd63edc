"""The port of a session's master, which strangers may dial where it is open."""

import asyncio
import contextlib
import json
import pickle
import socket
import ssl
import struct
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from distributed.comm import connect
from distributed.protocol import ToPickle, dumps
from distributed.protocol.utils import pack_frames_prelude

from gridproof import processes
from gridproof.engine.dask import MasterClient, Tls
from gridproof.proxy.masters.certificates import make_identities

MINE, OTHERS = (make_identities("test", datetime.now(timezone.utc)) for _ in range(2))


class Bomb:
    """What whoever unpickles it does."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Of a master; its client still gets answers when the tests are over."""
    directory = tmp_path_factory.mktemp("master")
    argv = [sys.executable, "-m", "gridproof.proxy.masters"]
    master = processes.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    own = {"ca": MINE.scheduler.ca, "cert": MINE.scheduler.cert, "key": MINE.scheduler.key}
    paths = {"cache_dir": str(directory), "scratch_dir": str(directory)}
    limits = {"keep_results": 60.0, "store_size": 1 << 20}
    settings = {"session": "test", "host": "127.0.0.1", **own, **paths, **limits}
    master.stdin.write(json.dumps(settings).encode() + b"\n")
    master.stdin.flush()
    port = json.loads(master.stdout.readline())["port"]
    yield port
    asyncio.run(ask(port))
    processes.stop(master)
    master.stdout.close()


async def ask(port):
    client = MasterClient(f"tls://127.0.0.1:{port}", Tls(MINE.client.ca, MINE.client.cert, MINE.client.key))
    assert not await client.send("workers", at_least=0, wait=0)
    await client.close()


def message(content):
    """A message as distributed writes it, with ``content`` pickled."""
    frames = dumps({"op": "identity", "content": ToPickle(content)})
    rest = b"".join([pack_frames_prelude(frames), *map(bytes, frames)])
    return struct.pack("Q", len(rest)) + rest


def plain(identity, directory):
    return contextlib.nullcontext


def encrypted(identity, directory):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        (directory / "cert").write_text(identity.cert + identity.key)
        context.load_cert_chain(directory / "cert")
    return context.wrap_socket


def send(port, wrap, content):
    with socket.create_connection(("127.0.0.1", port), 10) as raw, wrap(raw) as stream:
        with contextlib.suppress(OSError):
            stream.sendall(content)
        with contextlib.suppress(OSError):
            stream.settimeout(0.5)
            while stream.recv(65536):
                pass


@pytest.mark.parametrize(("dial", "identity"), [(plain, None), (encrypted, None), (encrypted, OTHERS.worker)])
def test_nothing_is_unpickled_from_who_has_no_certificate_of_the_session(port, tmp_path, dial, identity):
    bomb = Bomb(tmp_path / "exploded")
    for content in (message(bomb), pickle.dumps(bomb)):
        send(port, dial(identity, tmp_path), content)
    assert not bomb.path.exists()
    send(port, encrypted(MINE.worker, tmp_path), message(bomb))
    assert bomb.path.exists(), "this is how the session's own workers talk"


def test_another_sessions_certificate_opens_no_comm(port):
    async def main():
        tls = Tls(OTHERS.client.ca, OTHERS.client.cert, OTHERS.client.key).security("client")
        with pytest.raises(OSError, match=r"(?i)certificate|timed out|handshake"):
            await connect(f"tls://127.0.0.1:{port}", timeout=2, **tls.get_connection_args("client"))

    asyncio.run(main())


def test_strangers_that_say_nothing_make_room_for_others(port):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
        asyncio.run(ask(port))
        silent[0].settimeout(10)
        assert silent[0].recv(1) == b"", "the oldest ones are dropped"
        silent[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)
