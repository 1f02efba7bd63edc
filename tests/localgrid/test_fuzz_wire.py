"""Whatever bytes come to the central service's port: it goes on serving everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gridproof.localgrid.central import MESSAGE_LIMIT, CentralService
from gridproof.localgrid.certificates import user_subject, write_private
from tests.localgrid.offline import NOW, Offline

FACTOR = int(os.environ.get("GRIDPROOF_FUZZ", "1"))
QUESTION = json.dumps({"command": "pwd", "options": []})
TEXT, BINARY, CONTINUATION, CLOSE, PING = 0x1, 0x2, 0x0, 0x8, 0x9


class Port:
    """A service that listens, and how strangers and good clients come to it."""

    def __init__(self, root: Path) -> None:
        self.grid = Offline(root)
        self.went_wrong: list[Any] = []
        self.grid.loop.set_exception_handler(lambda _, context: self.went_wrong.append(context))
        self.service = CentralService(self.grid.core, root)
        self.port = self.grid.loop.run_until_complete(self.service.start())
        issued = self.grid.core.authority.issue(
            user_subject(self.grid.user.name), NOW, datetime.timedelta(days=1)
        )
        write_private(root / "cert.pem", issued.cert)
        write_private(root / "key.pem", issued.key)
        self.tls = ssl.create_default_context(cafile=self.grid.core.authority.cert_path)
        self.tls.check_hostname = False
        self.tls.load_cert_chain(root / "cert.pem", root / "key.pem")

    def run(self, work: Any) -> Any:
        return self.grid.loop.run_until_complete(asyncio.wait_for(work, 20))

    def close(self) -> None:
        self.run(self.service.stop())
        self.grid.close()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with contextlib.closing(Port(tmp_path_factory.mktemp("wire") / "grid")) as port:
        yield port
        assert not port.went_wrong


async def raw(port: Port, data: bytes, *, upgraded: bool, half: bool) -> bytes:
    """Send bytes within TLS, after a websocket's handshake or instead of one; what comes until the end.

    ``half``: the client says that it will send no more; otherwise it hangs up without a word.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=port.tls)
    came = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        if upgraded:
            writer.write(
                b"GET /websocket/json HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b"101" in await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        if half:
            writer.write(frame(CLOSE, struct.pack("!H", 1000)))
            with contextlib.suppress(asyncio.TimeoutError):
                came = await asyncio.wait_for(reader.read(-1), 0.5)
    writer.transport.abort()
    return came


def frame(opcode: int, data: bytes, *, last: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """One frame, of any kind and as wrong as wanted."""
    head = bytes([(0x80 if last else 0) | reserved << 4 | opcode])
    mask = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([mask | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([mask | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", len(data))
    return head + (bytes(4) if masked else b"") + data


async def all_is_well(port: Port) -> None:
    """Another client is served."""
    async with connect(f"wss://127.0.0.1:{port.port}/websocket/json", ssl=port.tls, proxy=None) as client:
        await client.send(QUESTION)
        assert json.loads(await client.recv())["metadata"]["exitcode"] == "0"


payloads = st.one_of(
    st.just(QUESTION.encode()), st.binary(max_size=200), st.text(max_size=50).map(str.encode)
)
frames = st.builds(
    frame,
    st.integers(0, 15),
    payloads,
    last=st.booleans(),
    masked=st.sampled_from([True, True, True, False]),
    reserved=st.sampled_from([0, 0, 0, 1, 4, 7]),
)


@given(st.lists(frames, max_size=6).map(b"".join) | st.binary(max_size=300), st.booleans(), st.booleans())
@settings(max_examples=40 * FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
@example(frame(TEXT, QUESTION.encode()) * 200, True, True)
@example(frame(TEXT, b"x" * (MESSAGE_LIMIT + 1)), True, True)
@example(frame(TEXT, b"[" * 1000, last=False) * 200, True, True)
@example(frame(TEXT, b"\xff\xfe"), True, True)
@example(frame(BINARY, QUESTION.encode()), True, False)
@example(frame(CONTINUATION, b"x"), True, True)
@example(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", True, True)
@example(b"GET /websocket/json HTTP/1.1\r\n" + b"X: y\r\n" * 5_000, False, True)
def test_bytes_within_tls_harm_nobody_else(port: Port, data: bytes, upgraded: bool, half: bool) -> None:
    port.run(raw(port, data, upgraded=upgraded, half=half))
    port.run(all_is_well(port))


@given(st.binary(max_size=300))
@settings(max_examples=20 * FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
@example(b"")
@example(b"\x16\x03\x01\x02\x00")
@example(b"GET / HTTP/1.1\r\n\r\n")
def test_bytes_that_are_no_tls_harm_nobody(port: Port, data: bytes) -> None:
    async def send() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.transport.abort()

    port.run(send())
    port.run(all_is_well(port))


def test_commands_sent_before_the_answers_are_answered_in_their_order(port: Port) -> None:
    async def hurry() -> list[str]:
        async with connect(f"wss://127.0.0.1:{port.port}/websocket/json", ssl=port.tls, proxy=None) as client:
            for number in range(50):
                await client.send(json.dumps({"command": f"none{number}"}))
            return [json.loads(await client.recv())["metadata"]["error"] for _ in range(50)]

    assert [f"[none{number}]" in error for number, error in enumerate(port.run(hurry()))] == [True] * 50


def test_who_does_not_read_a_long_answer_holds_up_nobody(port: Port) -> None:
    async def stall() -> None:
        url = f"wss://127.0.0.1:{port.port}/websocket/json"
        async with connect(url, ssl=port.tls, proxy=None, max_queue=1, max_size=None) as client:
            for number in range(2_000):
                port.grid.catalogue.touch(f"/local/user/g/gproof/{number:0200}", port.grid.user.name, 0)
            for _ in range(20):
                await client.send(json.dumps({"command": "ls", "options": ["-l"]}))
            await all_is_well(port)
            client.transport.abort()

    port.run(stall())
    port.run(all_is_well(port))


def test_a_message_beyond_the_limit_is_told_so(port: Port) -> None:
    async def shout() -> int | None:
        async with connect(f"wss://127.0.0.1:{port.port}/websocket/json", ssl=port.tls, proxy=None) as client:
            with contextlib.suppress(ConnectionClosed):
                await client.send("x" * (MESSAGE_LIMIT + 1))
                await client.recv()
            await client.wait_closed()
            return client.close_code

    assert port.run(shout()) == 1009
