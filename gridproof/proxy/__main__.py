"""``python -m gridproof.proxy``: the ProxyServer as a process.

Its configuration (see `gridproof.proxy.config`) is one JSON object on the first line of standard
input. When it listens, it prints one line ``{"port": …, "host_key": "ssh-ed25519 …"}``. It ends,
with all masters and pilots, at SIGTERM, SIGINT and (``owner_pipe``) at the end of standard input.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import setproctitle

from gridproof.errors import GridproofError
from gridproof.proxy.children import watch_owner
from gridproof.proxy.config import ServerConfig, read_config
from gridproof.proxy.protocol import decode
from gridproof.proxy.server import ProxyServer


async def serve(config: ServerConfig) -> None:
    """Run until told to end, or until the owner is gone."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, end, "the ProxyServer was stopped")
    if config.owner_pipe:
        watch_owner(sys.stdin.fileno(), lambda: end("the ProxyServer's owner is gone"))
    server = await ProxyServer.start(config)
    try:
        print(json.dumps({"port": server.port, "host_key": server.host_key}), flush=True)
        await server.close(await ended)
    except BrokenPipeError:
        await server.close("the ProxyServer's owner is gone")


def main() -> int:
    """Entry point; returns the exit code."""
    setproctitle.setproctitle("gridproof proxy")
    try:
        asyncio.run(serve(read_config(decode(sys.stdin.buffer.readline()))))
    except GridproofError as error:
        print(f"gridproof proxy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
