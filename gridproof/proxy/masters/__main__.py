"""A session's master as a process: ``python -m gridproof.proxy.masters``, started by the ProxyServer.

Standard input brings one JSON line ``{session, host, ca, cert, key, cache_dir, scratch_dir, keep_results,
store_size}``; standard output answers ``{"port": 40000, "store": …}`` (see `StoreAccess`) and then, whenever
it changes, how many queries run and the results of how many others are kept: ``{"running": 1, "kept": 2}``.
The process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from ...engine.dask import MasterServer, configure, tls_of
from ...errors import ConfigError, ProxyError
from ..protocol import StoreAccess
from .store import Store


async def _serve(settings: dict[str, Any]) -> None:
    store = Store(settings["session"], Path(settings["scratch_dir"]), settings["store_size"])
    server = MasterServer(
        tls_of(settings),
        settings["host"],
        Path(settings["cache_dir"]),
        store.results,
        settings["keep_results"],
        store.room,
    )
    port, access = await asyncio.gather(server.start(), _start(store))
    print(json.dumps({"port": port, "store": asdict(access)}), flush=True)
    owner_gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, owner_gone.set)
    telling = asyncio.create_task(_tell(server))
    await owner_gone.wait()
    telling.cancel()
    await asyncio.gather(server.close(), store.stop())


async def _start(store: Store) -> StoreAccess:
    """A session can do without."""
    try:
        return await store.start()
    except (ConfigError, ProxyError) as error:
        return StoreAccess(store.session, problem=str(error))


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
