"""JSON lines over an SSH channel, the same on both sides."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import asyncssh

from gridproof import patience
from gridproof.errors import ProxyError
from gridproof.proxy.protocol import CONTROL, LineBuffer, Message, decode, encode

BACKLOG = 32 << 20  # bytes unsent to a peer that does not read: it is dropped

# Fast on every machine of this decade; what both sides speak is fixed here, not negotiated by habit.
KEX = ("curve25519-sha256",)
CIPHERS = ("aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com")
# asyncssh gives up one interval after the last message that counts.
KEEPALIVE = {
    "keepalive_interval": patience.KEEPALIVE,
    "keepalive_count_max": round(patience.SILENCE / patience.KEEPALIVE) - 1,
}

_TCP_RTO_MAX_MS = 44  # Linux 6.15 and later; Python has no name for it yet
_RETRY_EVERY = 4.0  # s


def retry_often(conn: asyncssh.SSHClientConnection | asyncssh.SSHServerConnection) -> None:
    """Have TCP try again every few seconds while a connection is cut.

    By itself it waits twice as long each time, so that nothing moves for as long again as the cut was. It
    must be told then when to give up too: it would after fifteen times.
    """
    connected = conn.get_extra_info("socket")
    with suppress(OSError):  # the kernel does not know it, or the connection is gone already
        connected.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(1000 * _RETRY_EVERY))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience.SILENCE))


class ControlChannel:
    """Mixed into asyncssh's sessions; a subclass handles `received` and `lost`."""

    def __init__(self) -> None:
        self._buffer = LineBuffer()
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._channel is None or datatype is not None:
            return
        try:
            for line in self._buffer.feed(data):
                self.received(decode(line))
        except ProxyError as error:
            self.rubbish(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel = None
        self.lost(exc)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue one message, if the channel is open; a peer that does not read is dropped."""
        chan = self._channel
        if chan is None or chan.is_closing():
            return
        try:
            chan.write(encode(message))
        except BrokenPipeError:
            return
        if chan.get_write_buffer_size() > BACKLOG:
            self.abort()

    def close(self) -> None:
        """Close the whole connection when what was sent has gone out."""
        if self._channel is not None:
            self._channel.get_connection().close()

    def abort(self) -> None:
        """Drop the whole connection."""
        if self._channel is not None:
            self._channel.get_connection().abort()

    def received(self, message: Message) -> None:
        """One message came."""
        raise NotImplementedError

    def rubbish(self, error: ProxyError) -> None:  # noqa: ARG002
        """The peer broke the protocol."""
        self.abort()

    def lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        raise NotImplementedError


class ServerControl(ControlChannel, asyncssh.SSHServerSession[bytes]):
    """The server's side: there is the control channel, and no shell, command or terminal."""

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == CONTROL

    def shell_requested(self) -> bool:
        return False

    def exec_requested(self, command: str) -> bool:  # noqa: ARG002
        return False

    def pty_requested(self, *_: Any) -> bool:
        return False
