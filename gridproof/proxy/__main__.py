"""``python -m gridproof.proxy``: the ProxyServer as a process.

Its configuration (see `gridproof.proxy.config`) is one JSON object on the first line of standard
input. When it listens, it prints one line ``{"port": …, "host_key": "ssh-ed25519 …", "fingerprint":
"SHA256:…"}``. It ends, with all masters and pilots, at SIGTERM, SIGINT and (``owner_pipe``) at the end of
standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import setproctitle
import yaml

from gridproof.errors import ConfigError, GridproofError
from gridproof.processes import allow_many_files
from gridproof.proxy.config import ServerConfig, read_config
from gridproof.proxy.masters.children import watch_owner
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
        ready = {"port": server.port, "host_key": server.host_key, "fingerprint": server.fingerprint}
        print(json.dumps(ready), flush=True)
        await server.close(await ended)
    except BrokenPipeError:
        await server.close("the ProxyServer's owner is gone")


def main(file: Path | None = None) -> int:
    """Entry point; returns the exit code. ``file``: the configuration as YAML, for a service of its own."""
    setproctitle.setproctitle("gridproof proxy")
    # It warns of every byte that comes through a tunnel after the other end has gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    allow_many_files()
    try:
        if file is None:
            settings = decode(sys.stdin.buffer.readline())
        else:
            settings = {"owner_pipe": False, **_settings(file)}
        asyncio.run(serve(read_config(settings)))
    except GridproofError as error:
        print(f"gridproof proxy: {error}", file=sys.stderr)
        return 2
    return 0


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"the ProxyServer's configuration {file} cannot be read: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"the ProxyServer's configuration {file} holds no settings")
    return settings


if __name__ == "__main__":
    sys.exit(main())
