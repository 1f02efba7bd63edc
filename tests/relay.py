"""A network on the loopback that can be cut: what passes through it can be held up, or lost for good."""

import asyncio
from contextlib import suppress


class Relay:
    """``async with Relay() as relay``: passes on what comes to ``relay.port``, to ``relay.target``."""

    def __init__(self):
        self.target = 0  # a port
        self.connections = 0
        self._passes = asyncio.Event()
        self._passes.set()
        self._pumps = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self):
        """Hold up what is on its way, and what comes."""
        self._passes.clear()

    def mend(self):
        """Let it pass, with what was held up."""
        self._passes.set()

    def forget(self):
        """As a NAT does: nothing of what is connected now gets through any more, and nobody is told."""
        self._passes.clear()
        self._passes = asyncio.Event()
        self._passes.set()

    async def _accept(self, reader, writer):
        self.connections += 1
        passes = self._passes
        far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink in ((reader, far), (far_reader, writer)):
            self._pumps.add(asyncio.ensure_future(self._pump(source, sink, passes)))

    async def _pump(self, source, sink, passes):
        try:
            with suppress(OSError):
                while data := await source.read(1 << 16):
                    await passes.wait()
                    sink.write(data)
                    await sink.drain()
                await passes.wait()
        finally:
            sink.close()
