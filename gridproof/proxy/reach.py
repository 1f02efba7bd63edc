"""Whether a pilot reaches the VO-box directly, without its SSH connection.

The ProxyServer listens on its own interface, on a port that the system chooses, as masters do. A pilot is
told that port and a key over SSH; it dials the address that it knows the VO-box by, says some random
bytes, and expects their HMAC with the key: whatever else answers there is not the ProxyServer.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from contextlib import closing, suppress

CONNECT_WITHIN = 2.0  # s; what a firewall drops is not answered at all
_ANSWER_WITHIN = 10.0  # s; a server with many pilots to greet may be slow
_CHALLENGE = 32  # bytes
_BACKLOG = 1024
_AT_ONCE = 1024  # connections; further ones are closed


class Beacon:
    """The server's side; ``key`` in hexadecimal."""

    def __init__(self, host: str) -> None:
        self.key = secrets.token_hex(32)
        self.port = 0
        self._host = host
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: it cannot be.
        """
        self._server = await asyncio.start_server(
            self._answer, self._host, 0, limit=_CHALLENGE, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _AT_ONCE:
                challenge = await asyncio.wait_for(reader.readexactly(_CHALLENGE), _ANSWER_WITHIN)
                writer.write(_proof(self.key, challenge))
                await writer.drain()
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError):
            pass  # a stranger, a pilot that is gone, or the end of the server: asyncio would report each
        finally:
            self._open -= 1
            writer.close()


async def reaches(host: str, port: int, key: str) -> bool:
    """Whether the `Beacon` with that ``key`` answers there."""
    challenge = secrets.token_bytes(_CHALLENGE)
    with suppress(OSError, EOFError, asyncio.TimeoutError):
        reader, writer = await _dial(host, port)
        with closing(writer):
            writer.write(challenge)
            answer = await asyncio.wait_for(reader.readexactly(_CHALLENGE), _ANSWER_WITHIN)
        return hmac.compare_digest(answer, _proof(key, challenge))
    return False


async def listens(host: str, port: int) -> bool:
    """Whether something can be dialled there."""
    with suppress(OSError, asyncio.TimeoutError):
        _, writer = await _dial(host, port)
        writer.close()
        return True
    return False


async def _dial(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_WITHIN)


def local(host: str) -> str:
    """Where this machine reaches what listens on ``host``."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _proof(key: str, challenge: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(key), challenge, "sha256")
