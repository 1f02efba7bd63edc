"""How workers reach their master, and how they and their node's XRootD server are reached."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from contextlib import ExitStack

import asyncssh
import pytest

from gridproof import xrdclient
from gridproof.errors import ProxyError
from gridproof.proxy.client import ProxyClient

# Tunnels that are being torn down when a test's loop ends have not told their sockets yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def nowhere(host, port):
    return False


def refused(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("forwarding", "way"), [("auto", "direct"), ("tunnel", "tunnel"), ("direct", "direct")]
)
def test_workers_reach_their_master_directly_or_by_tunnel(cluster, forwarding, way):
    async def main():
        async with cluster(packet_forwarding=forwarding) as it:
            await it.open(workers=1)
            await it.pilot()
            await it.running(1)
            (worker,) = it.worker_list
            assert worker.way == way
            assert await it.reached(worker) == worker.name  # which it says when it has met its master

    asyncio.run(main())


def test_a_direct_way_that_is_no_way_fails_the_worker_and_says_so(cluster, monkeypatch):
    async def main():
        async with cluster(packet_forwarding="direct") as it:
            await it.open(workers=1)
            monkeypatch.setattr("gridproof.pilot.workers.listens", nowhere)
            await it.pilot()
            await it.until(lambda _, workers: any("does not reach 127.0.0.1:" in w.reason for w in workers))

    asyncio.run(main())


@pytest.mark.parametrize("barred", ["all ports", "the master's"])
def test_without_a_direct_way_there_is_the_tunnel(cluster, monkeypatch, barred):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            if barred == "all ports":
                it.server._beacon.close()
            else:
                monkeypatch.setattr("gridproof.pilot.workers.listens", nowhere)
            await it.pilot()
            await it.running(1)
            assert it.worker_list[0].way == "tunnel"

    asyncio.run(main())


def test_a_sessions_tunnels_go_with_its_last_worker(cluster):
    async def main():
        async with cluster(packet_forwarding="tunnel") as it:
            await it.open(workers=2)
            agent, _ = await it.pilot(cores=2)
            await it.running(2)
            tunnels = [(await opening).get_port() for opening in agent._workers._tunnels.values()]
            assert len(tunnels) == 2, "to the scheduler and to the store"
            await it.client.resize_session(it.session, 1)
            await it.running(1)
            assert not any(map(refused, tunnels))
            await it.client.close_session(it.session)
            await asyncio.wait_for(agent._workers._empty.wait(), 5)
            assert all(map(refused, tunnels))

    asyncio.run(main())


def test_a_worker_that_is_stopped_before_it_has_started_never_does(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            agent, _ = await it.pilot()
            await it.running(1)
            agent._workers._up.clear()  # as while a forkserver comes up
            os.kill(it.worker_list[0].pid, signal.SIGKILL)
            await it.until(lambda _, workers: [w.state for w in workers] == ["ended", "starting"])
            await it.client.resize_session(it.session, 0)
            await it.until(lambda _, workers: "before it had started" in workers[-1].reason)
            agent._workers._up.set()
            await it.client.resize_session(it.session, 1)
            await it.running(1)
            assert len(it.worker_list) == 3

    asyncio.run(main())


def test_an_order_to_stop_a_worker_may_come_right_after_the_one_to_start_it(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            await it.pilot()
            await it.running(1)
            os.kill(it.worker_list[0].pid, signal.SIGKILL)
            act = it.server.act

            def at_once():  # both orders leave in one write
                act()
                if len(it.server.registry.records(it.session)[1]) == 2:
                    it.server.act = act
                    it.server.registry.resize_session(it.session, 0)
                    act()

            it.server.act = at_once
            await it.until(lambda _, workers: [w.state for w in workers] == ["ended", "ended"])

    asyncio.run(main())


def test_a_port_listens_from_when_it_is_asked_for_until_its_worker_ends(cluster):
    async def main():
        async with cluster(forward_ports=(28321, 28322)) as it:
            await it.open(workers=1)
            await it.pilot()
            await it.running(1)
            (worker,) = it.worker_list
            assert worker.number == 28321
            assert refused(28321)
            assert await it.reached(worker) == worker.name
            assert (await it.client.forward(it.session, worker.name))[1] == 28321
            os.kill(worker.pid, signal.SIGKILL)
            await it.until(lambda _, workers: len(workers) == 2 and workers[1].state == "running")
            assert refused(28321)
            with pytest.raises(ProxyError, match="no worker"):
                await it.client.forward(it.session, worker.name)

    asyncio.run(main())


def test_a_users_forwards_are_nobody_elses(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            await it.pilot()
            await it.running(1)
            host, port, *_ = await it.client.forward(it.session, it.worker_list[0].name)
            _, writer = await it.client.conn.open_connection(host, port)
            writer.close()
            server = it.server
            bob = await ProxyClient.connect("127.0.0.1", server.port, server.host_key, "bob", it.key)
            with pytest.raises(asyncssh.ChannelOpenError):
                await bob.conn.open_connection(host, port)
            await bob.close()

    asyncio.run(main())


def test_ports_that_strangers_hold_are_passed_over_and_a_full_range_harms_nobody(cluster):
    async def main():
        async with cluster(forward_ports=(28323, 28324)) as it:
            await it.open(workers=3)
            await it.pilot(cores=3)
            await it.running(3)
            assert sorted(w.number for w in it.worker_list) == [0, 28323, 28324]
            second = next(w for w in it.worker_list if w.number == 28324)
            with socket.create_server(("127.0.0.1", 28323)):
                for worker in it.worker_list:
                    if worker is not second:
                        with pytest.raises(
                            ProxyError, match="none of the VO-box's ports 28323 to 28324 is free"
                        ):
                            await it.client.forward(it.session, worker.name)
                assert await it.reached(second) == second.name
            await it.running(3)

    asyncio.run(main())


def test_a_pilot_forwards_to_its_own_workers_only(cluster, monkeypatch):
    monkeypatch.setattr("gridproof.proxy.gate._FORWARD_WITHIN", 0.3)

    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            agent, _ = await it.pilot()
            await it.running(1)
            (worker,) = it.worker_list
            agent._workers._workers.clear()
            with pytest.raises(ProxyError, match="did not open"):
                await it.client.forward(it.session, worker.name)

    asyncio.run(main())


def test_a_pilot_that_does_not_answer_keeps_no_forward_of_others_waiting(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=2)
            silent, _ = await it.pilot()
            await it.pilot(job_id="2")
            await it.running(2)
            (name,) = silent._workers._workers
            silent._workers._workers.clear()
            waiting = asyncio.ensure_future(it.client.forward(it.session, name))
            await asyncio.sleep(0)  # it is asked for first
            (other,) = (worker for worker in it.worker_list if worker.name != name)
            await it.client.forward(it.session, other.name)
            assert not waiting.done()
            waiting.cancel()

    asyncio.run(main())


@pytest.mark.skipif(not shutil.which("xrdfs"), reason="there is no XRootD on this machine")
def test_the_nodes_xrootd_is_reached_by_a_forward_with_its_key(cluster, tmp_path, monkeypatch):
    async def main():
        # An XRootD server that runs as another user passes through the job's directory, not through pytest's.
        job = stack.enter_context(tempfile.TemporaryDirectory(prefix="gridproof-test-"))
        monkeypatch.chdir(job)
        async with cluster() as it:
            await it.open(workers=1)
            agent, _ = await it.pilot()
            await it.running(1)
            (agent._exported / "a.txt").write_text("hello")
            host, port, key, keytab = await it.client.forward(it.session, it.worker_list[0].name, "xrootd")
            xrdclient.keep_key(keytab, key)
            stack.callback(os.unlink, keytab)
            reading = await asyncio.create_subprocess_exec(
                "xrdfs", f"root://{host}:{port}", "cat", "/a.txt", stdout=asyncio.subprocess.PIPE
            )
            assert (await reading.communicate())[0] == b"hello"
            assert key not in repr(it.server.registry.find_worker(it.session, it.worker_list[0].name))

    with ExitStack() as stack:
        asyncio.run(main())
