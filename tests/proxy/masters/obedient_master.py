"""Stands in for a session's master that its user has taken over: runs the commands it is sent."""

import asyncio
import json
import os
import sys


async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    command = (await reader.readline()).decode()
    shell = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    writer.write((await shell.communicate())[0])
    writer.close()


async def main() -> None:
    json.loads(sys.stdin.readline())
    server = await asyncio.start_server(obey, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 1) or ended.set())
    await ended.wait()


asyncio.run(main())
