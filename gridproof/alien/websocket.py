"""A blocking websocket without threads of its own.

The protocol is websockets' own; only the I/O is here. A TLS connection that one thread reads while another
one writes, as in websockets' blocking client, now and then loses data with TLS 1.3 before Python 3.13.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError, PayloadTooBig
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

_BLOCK = 1 << 16
_GOODBYE = 0.5  # s that the other side has to say it too


class WebSocket:
    """One connection, for one thread at a time; times are in seconds.

    Whatever goes wrong is an OSError (TLS and time-outs among them) or one of websockets' exceptions.
    """

    def __init__(self, connected: socket.socket, uri: str, timeout: float, max_size: int) -> None:
        """Shake hands over a connected socket; messages may have ``max_size`` bytes."""
        self._socket = connected
        self._parts: list[bytes] = []
        self._protocol = ClientProtocol(
            parse_uri(uri),
            extensions=[ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})],
            max_size=max_size,
        )
        request = self._protocol.connect()
        request.headers["User-Agent"] = "gridproof"
        deadline = time.monotonic() + timeout
        self._protocol.send_request(request)
        with contextlib.suppress(OSError):  # why the other side hung up is to be read
            self._flush()
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._read(deadline)
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    def send(self, text: str, timeout: float) -> None:
        """Send one message."""
        self._socket.settimeout(timeout)
        self._protocol.send_text(text.encode())
        self._flush()

    def receive(self, timeout: float) -> bytes:
        """The next message; TimeoutError if none comes in time."""
        for frame in self._frames(timeout):
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    break
        message, self._parts = b"".join(self._parts), []
        return message

    def ping(self, timeout: float) -> None:
        """Ask for a sign of life, and give those that were asked for; TimeoutError if none comes."""
        token = secrets.token_bytes(4)
        self._socket.settimeout(timeout)
        self._protocol.send_ping(token)
        self._flush()
        for frame in self._frames(timeout):
            if frame.opcode is Opcode.PONG and frame.data == token:
                return

    def close(self) -> None:
        """Say goodbye, shortly, and close; never fails."""
        with contextlib.suppress(Exception):
            self._socket.settimeout(_GOODBYE)
            self._protocol.send_close(1000)
            self._flush()
            deadline = time.monotonic() + _GOODBYE
            while self._protocol.close_rcvd is None:
                self._read(deadline)
        with contextlib.suppress(OSError):
            self._socket.close()

    def _frames(self, timeout: float) -> Iterator[Frame]:
        """Frames as they come, without end: it is for the reader to stop."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    yield event
            if self._protocol.state is not State.OPEN:
                raise self._ended()
            self._read(deadline)

    def _read(self, deadline: float) -> None:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        data = self._socket.recv(_BLOCK)
        if not data:
            self._protocol.receive_eof()
            raise self._ended()
        self._protocol.receive_data(data)
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)

    def _ended(self) -> Exception:
        state = self._protocol
        if isinstance(state.parser_exc, PayloadTooBig):
            return state.parser_exc
        return state.handshake_exc or ConnectionClosedError(
            state.close_rcvd, state.close_sent, state.close_rcvd_then_sent
        )
