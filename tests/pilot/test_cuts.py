"""Cuts of the network between pilots and the ProxyServer, with all limits many times shorter."""

import asyncio
from dataclasses import replace

import pytest

from gridproof import patience
from gridproof.proxy.channel import KEEPALIVE
from gridproof.proxy.pool.state import Limits
from tests.relay import Relay

# Tunnels that are being torn down when a test's loop ends have not told their sockets yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FASTER = 50
SILENCE = patience.SILENCE / FASTER


@pytest.fixture
def fast(monkeypatch):
    """Shorter limits, on both sides; those of the server are to be given to it."""
    monkeypatch.setitem(KEEPALIVE, "keepalive_interval", patience.KEEPALIVE / FASTER)
    return {"limits": replace(Limits(), silent_after=0.3, lost_after=SILENCE), "packet_forwarding": "tunnel"}


async def joined(it, relay, quick):
    relay.target = it.server.port
    await it.open(workers=1)
    await it.pilot(timing=quick, port=relay.port)
    await it.running(1)
    assert await it.reached(it.worker_list[0]) == it.worker_list[0].name
    return it.worker_list[0]


def test_all_who_wait_for_a_sign_of_life_wait_longer_than_two_cuts():
    assert patience.SILENCE > 2 * patience.CUT
    interval, count = KEEPALIVE.values()
    assert interval * (count + 1) == Limits().lost_after == patience.SILENCE


def test_a_cut_costs_no_worker(cluster, fast, quick):
    async def main():
        async with Relay() as relay, cluster(**fast) as it:
            worker = await joined(it, relay, quick)
            before = relay.connections
            relay.cut()
            await asyncio.sleep(patience.CUT / FASTER)
            relay.mend()
            assert await it.reached(worker) == worker.name
            await it.until(lambda pilots, _: pilots[0].state == "ready")
            assert [(w.name, w.pid) for w in it.worker_list] == [(worker.name, worker.pid)]
            assert relay.connections == before

    asyncio.run(main())


def test_a_longer_cut_costs_the_worker_and_the_pilot_brings_another_one(cluster, fast, quick):
    async def main():
        async with Relay() as relay, cluster(**fast) as it:
            worker = await joined(it, relay, quick)
            relay.cut()
            await it.until(lambda pilots, _: pilots[0].state == "lost")
            await asyncio.sleep(patience.KEEPALIVE / FASTER)  # the pilot, too, gives up
            relay.mend()
            await it.until(lambda _, workers: [w.state for w in workers] == ["ended", "running"])
            assert it.worker_list[0].name == worker.name
            assert it.worker_list[1].pid != worker.pid

    asyncio.run(main())


def test_a_connection_that_a_nat_has_forgotten_is_noticed_by_both_ends(cluster, fast, quick):
    async def main():
        silent = replace(quick, heartbeat=3600.0)  # so that nothing but SSH itself can notice
        patient = replace(fast["limits"], silent_after=1e6, lost_after=1e6)
        async with Relay() as relay, cluster(**{**fast, "limits": patient}) as it:
            worker = await joined(it, relay, silent)
            before = relay.connections
            relay.forget()
            await it.until(lambda _, workers: [w.state for w in workers] == ["ended", "running"])
            assert relay.connections == before + 1
            assert worker.name == it.worker_list[0].name
            assert len(it.server._pilots) == 1

    asyncio.run(main())
