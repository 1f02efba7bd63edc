"""Stands in for a session's master: one line in, a port out, echoes what it is sent, ends at EOF."""

import asyncio
import json
import os
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):  # until the peer is done
        writer.write(data)
    writer.close()


async def main() -> None:
    settings = json.loads(sys.stdin.readline())
    assert settings["session"]
    assert "PRIVATE KEY" in settings["key"]
    servers = [await asyncio.start_server(echo, "127.0.0.1", 0) for _ in range(2)]
    port, store = (server.sockets[0].getsockname()[1] for server in servers)
    access = {"session": settings["session"], "port": store, "key": "the key", "size": settings["store_size"]}
    print(json.dumps({"port": port, "store": access}), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 1) or ended.set())
    await ended.wait()


asyncio.run(main())
