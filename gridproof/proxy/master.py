"""A session's master as a process: ``python -m gridproof.proxy.master``, started by the ProxyServer.

Standard input brings one JSON line ``{session, host, ca, cert, key, cache_dir, scratch_dir, keep_results}``;
standard output answers ``{"port": 40000}`` and then, whenever it changes, how many queries run and the
results of how many others are kept: ``{"running": 1, "kept": 2}``. The process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from ..engine.dask import MasterServer, configure, tls_of


async def _serve(settings: dict[str, Any]) -> None:
    server = MasterServer(
        tls_of(settings),
        settings["host"],
        Path(settings["cache_dir"]),
        Path(settings["scratch_dir"]),
        settings["keep_results"],
    )
    port = await server.start()
    print(json.dumps({"port": port}), flush=True)
    owner_gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, owner_gone.set)
    telling = asyncio.create_task(_tell(server))
    await owner_gone.wait()
    telling.cancel()
    await server.close()


async def _tell(server: MasterServer) -> None:
    running, kept = 0, 0
    while True:
        running, kept = await server.activity(running, kept)
        print(json.dumps({"running": running, "kept": kept}), flush=True)


def main() -> None:
    """Run until the owner goes."""
    settings = json.loads(sys.stdin.readline())
    setproctitle(f"gridproof master {settings['session']}")
    configure(scratch=settings["scratch_dir"])
    asyncio.run(_serve(settings))


if __name__ == "__main__":
    main()
