"""Who answers a pilot's probe is the ProxyServer, or is not believed."""

import asyncio
from contextlib import closing

import pytest

from gridproof.proxy.reach import Beacon, local, reaches


def test_a_beacon_is_reached_with_its_key_only():
    async def main():
        beacon = Beacon("127.0.0.1")
        await beacon.start()
        with closing(beacon):
            assert await reaches("127.0.0.1", beacon.port, beacon.key)
            assert not await reaches("127.0.0.1", beacon.port, "00" * 32)
        assert not await reaches("127.0.0.1", beacon.port, beacon.key)

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"", b"welcome", b"x" * 32])
def test_something_else_that_answers_is_not_believed(answer):
    async def stranger(_, writer):
        writer.write(answer)
        writer.close()

    async def main():
        async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
            assert not await reaches("127.0.0.1", server.sockets[0].getsockname()[1], "00" * 32)

    asyncio.run(main())


def test_what_listens_everywhere_is_reached_on_the_loopback():
    assert [local(host) for host in ("0.0.0.0", "::", "192.0.2.1")] == ["127.0.0.1", "::1", "192.0.2.1"]
