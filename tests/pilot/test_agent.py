"""Pilots at a real ProxyServer, over real SSH, with real worker processes that only echo."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from dataclasses import replace

import asyncssh
import psutil
import pytest

from gridproof.pilot.agent import BROKEN, UNREACHED, Agent, Timing
from gridproof.pilot.workers import reserve_port
from gridproof.proxy.logs import Source
from gridproof.proxy.masters.children import Child
from gridproof.proxy.pool.state import Limits, UserLimits

# Tunnels that are being torn down when a test's loop ends have not told their sockets yet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_start_reach_their_scheduler_and_store_and_can_be_reached(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=4)
            await it.pilot("1", cores=2)
            await it.pilot("2", cores=2)
            await it.running(4)
            assert sorted([await it.reached(w) for w in it.worker_list]) == sorted(it.status.workers)
            assert {w.site for w in it.worker_list} == {"Site1"}
            assert {w.host for w in it.worker_list} == {socket.gethostname()}
            titles = {psutil.Process(w.pid).cmdline()[0] for w in it.worker_list}
            assert titles == {f"gridproof worker {w.name}" for w in it.worker_list}

    asyncio.run(main())


def test_a_session_that_ends_frees_its_workers_for_the_next_one(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=2)
            await it.pilot(cores=2)
            await it.running(2)
            pids = [w.pid for w in it.worker_list]
            await it.open_next()
            assert await it.client.at_hand("next") == 0
            await it.client.close_session("echo")
            await it.until(lambda _, ws: [(w.session, w.state) for w in ws] == 2 * [("next", "running")])
            assert not any(map(alive, pids))
            assert [await it.reached(worker) for worker in it.worker_list] == list(it.status.workers)

    asyncio.run(main())


def test_a_session_that_opens_on_a_warm_pilot_needs_no_submission(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=2)
            await it.pilot(cores=2)
            await it.running(2)
            await it.client.close_session(it.session)
            await it.open_next()
            assert await it.client.at_hand("next") == 2
            await it.until(lambda _, ws: [(w.session, w.state) for w in ws] == 2 * [("next", "running")])
            (pilot,) = it.pilot_list
            assert (pilot.session, pilot.state) == ("echo", "ready")

    asyncio.run(main())


def test_a_pilot_that_no_session_needs_ends_with_its_workers_and_leaves_no_file(cluster, tmp_path):
    async def main():
        limits = replace(Limits(), user=UserLimits(pilot_idle=0.1))
        async with cluster(limits=limits) as it:
            await it.open(workers=2)
            _, task = await it.pilot(cores=2)
            await it.running(2)
            pids = [w.pid for w in it.worker_list]
            await it.client.close_session(it.session)
            assert "no session of alice has needed it" in await asyncio.wait_for(task, 10)
            assert not any(map(alive, pids))
            assert not any(tmp_path.iterdir())

    asyncio.run(main())


def test_a_killed_worker_is_replaced_under_a_new_name(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            await it.pilot()
            await it.running(1)
            (worker,) = it.worker_list
            os.kill(worker.pid, signal.SIGKILL)
            await it.until(lambda _, workers: len(workers) == 2 and workers[1].state == "running")
            first, second = it.worker_list
            assert (first.state, second.name) == ("ended", "Site1-1-0.2")
            assert "signal 9" in first.reason
            assert await it.reached(second) == second.name

    asyncio.run(main())


@pytest.mark.parametrize(("session", "words"), [("crash", "signal 11"), ("fail", "no worker today")])
def test_what_a_worker_died_of_is_told_and_after_a_while_it_is_given_up(cluster, session, words):
    async def main():
        limits = replace(Limits(), backoff=0.01, young_deaths=3)
        async with cluster(limits=limits) as it:
            await it.open(session, workers=1)
            await it.pilot()
            await it.until(lambda _, workers: any("given up" in w.reason for w in workers))
            assert len(it.worker_list) == 3
            assert all(words in w.reason for w in it.worker_list)

    asyncio.run(main())


async def wrote(it, source, words):
    """Wait until these words are in its log at the server."""
    while words not in (await it.client.logs([source], 20)).get(source, ("", 0))[0]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def test_what_workers_and_pilots_wrote_can_be_read_after_their_death(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            agent, task = await it.pilot(timing=quick)
            await it.running(1)
            (worker,) = it.worker_list
            pilot, own = Source("pilot", worker.pilot), Source("worker", worker.pilot, worker.name)

            await wrote(it, own, f"worker {worker.name} of echo runs\n")
            await wrote(it, pilot, f"worker {worker.name} runs, pid {worker.pid}\n")
            os.kill(worker.pid, signal.SIGKILL)
            await wrote(it, pilot, f"worker {worker.name} ended, signal 9\n")
            agent.end("enough")
            await asyncio.wait_for(task, 10)
            await wrote(it, pilot, "ends: enough\n")
            await wrote(it, own, f"worker {worker.name} of echo runs\n")

    asyncio.run(main())


def test_stopped_workers_end_even_if_they_do_not_want_to(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open("stubborn", workers=2)
            agent, _ = await it.pilot(timing=quick, cores=2)
            await it.running(2)
            worker = it.worker_list[0]
            await wrote(it, Source("worker", worker.pilot, worker.name), "will not end")
            agent._workers.stop(worker.name, grace=0.2)
            await it.until(lambda _, workers: any("signal 9" in w.reason for w in workers))

    asyncio.run(main())


def test_fewer_workers_are_stopped_politely(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=2)
            await it.pilot(cores=2)
            await it.running(2)
            await it.client.resize_session(it.session, 1)
            await it.until(lambda _, workers: any("told to end, signal 15" in w.reason for w in workers))
            assert sum(w.state == "running" for w in it.worker_list) == 1

    asyncio.run(main())


def test_a_pilot_redials_and_its_workers_start_anew(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            agent, _ = await it.pilot(timing=quick)
            await it.running(1)
            (old,) = it.worker_list
            agent._conn.abort()
            await it.until(
                lambda _, workers: any(w.name == "Site1-1-0.2" and w.state == "running" for w in workers)
            )
            assert not alive(old.pid)
            assert [p.state for p in it.pilot_list] == ["ready"]
            assert await it.reached(it.status.workers["Site1-1-0.2"]) == "Site1-1-0.2"

    asyncio.run(main())


def test_a_pilot_whose_server_stays_away_ends(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open()
            agent, task = await it.pilot(timing=quick, orphan_limit=0.5)
            await it.running(1)
            it.server._acceptor.close()
            agent._conn.abort()
            assert "stayed away" in await asyncio.wait_for(task, 10)
            assert agent.exit_code == 0

    asyncio.run(main())


def test_a_pilot_whose_key_is_revoked_ends_at_once(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open()
            config = it.submission
            await it.client.close_session(it.session)
            it.submission = config
            _, task = await it.pilot(timing=quick)
            assert "refused its join key" in await asyncio.wait_for(task, 5)

    asyncio.run(main())


def test_a_pilot_that_its_server_does_not_know_any_more_ends_and_says_why(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            agent, task = await it.pilot(timing=quick)
            await it.running(1)
            it.server.door.joining.leave(it.pilot_list[0].id, "its user was removed")
            agent._conn.abort()
            assert "does not know this pilot any more" in await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_a_pilot_trusts_only_the_host_key_it_was_given(cluster, quick):
    async def main():
        async with cluster() as it:
            await it.open()
            other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
            agent, task = await it.pilot(timing=quick, host_key=other, orphan_limit=1.0)
            reason = await asyncio.wait_for(task, 10)
            assert f"127.0.0.1:{it.server.port} stayed away for 1 s; cannot reach" in reason
            assert agent.exit_code == UNREACHED
            assert it.status is None


def test_a_pilot_that_never_reaches_its_server_says_so_in_the_trace_of_its_job(
    cluster, quick, tmp_path, monkeypatch
):
    monkeypatch.setenv("GRIDPROOF_TRACE", str(tmp_path / "trace"))

    async def main():
        async with cluster() as it:
            await it.open()
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                port = nobody.getsockname()[1]
                _, task = await it.pilot(timing=quick, port=port, orphan_limit=0.5)
                await asyncio.wait_for(task, 10)
            lines = (tmp_path / "trace").read_text().splitlines()
            assert all(line.startswith("gridproof pilot: ") for line in lines)
            assert f"ends: the ProxyServer at 127.0.0.1:{port} stayed away" in lines[-1]

    asyncio.run(main())


def test_a_node_on_which_workers_cannot_run_ends_its_pilot_with_the_reason(cluster):
    report = {"event": "failed", "reason": "libCore.so is missing"}

    async def start():
        return await Child.start([sys.executable, "-c", f"print({json.dumps(json.dumps(report))})"])

    async def main():
        async with cluster() as it:
            await it.open()
            agent, task = await it.pilot(start=start)
            assert await asyncio.wait_for(task, 10) == "this node cannot run workers: libCore.so is missing"
            assert agent.exit_code == BROKEN

    asyncio.run(main())


def test_a_pilot_that_ends_at_the_moment_it_connects_ends(cluster, monkeypatch):
    connect = Agent._connect

    async def connect_and_end(agent):
        await connect(agent)
        agent.end("as it connects")

    async def main():
        async with cluster() as it:
            await it.open()
            _, task = await it.pilot()
            assert await asyncio.wait_for(task, 10) == "as it connects"

    monkeypatch.setattr(Agent, "_connect", connect_and_end)
    asyncio.run(main())


def test_a_pilot_with_other_versions_is_told_why_and_goes(cluster):
    async def main():
        async with cluster() as it:
            from gridproof.proxy.protocol import Versions

            await it.open(versions=Versions("3.11.2", "6.38.00", "1", "2026.1"))
            _, task = await it.pilot()
            reason = await asyncio.wait_for(task, 10)
            assert "root 6.38.00" in reason
            assert "root 6.40.00" in reason
            await it.until(lambda pilots, _: [p.state for p in pilots] == ["refused"])
            assert it.pilot_list[0].reason == reason

    asyncio.run(main())


def test_of_two_payloads_of_one_job_the_older_goes(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            _, older = await it.pilot("7")
            await it.running(1)
            _, newer = await it.pilot("7")
            assert "newer payload" in await asyncio.wait_for(older, 10)
            await it.until(
                lambda _, workers: any(w.name == "Site1-7-0.2" and w.state == "running" for w in workers)
            )
            assert not newer.done()

    asyncio.run(main())


def test_a_pilot_drains_and_leaves_before_its_time_is_over(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            _, task = await it.pilot(ttl=8.0, timing=Timing(drain=4.0, drain_share=0.5))
            began = time.monotonic()
            await it.running(1)
            await it.until(lambda pilots, _: any("its time is over" in p.reason for p in pilots))
            assert "its time is over" in await asyncio.wait_for(task, 10)
            assert time.monotonic() - began < 8.0
            await it.until(lambda pilots, _: [p.state for p in pilots] == ["left"])
            assert [w.state for w in it.worker_list] == ["ended"]

    asyncio.run(main())


def test_silence_is_shown_and_a_silent_pilot_is_dropped_and_may_dial_again(cluster, quick):
    async def main():
        limits = replace(Limits(), silent_after=0.5, lost_after=2.0)
        async with cluster(limits=limits) as it:
            await it.open(workers=1)
            timing = replace(quick, heartbeat=3600.0, backoff=1.0, backoff_max=1.0)  # away long enough
            await it.pilot(timing=timing, orphan_limit=1.0)
            await it.running(1)
            await it.until(lambda pilots, _: pilots[0].state == "silent")
            await it.until(lambda _, workers: "its pilot lost: no heartbeat" in workers[0].reason)
            await it.until(lambda pilots, _: pilots[0].state == "ready")
            assert it.worker_list[0].state == "ended"

    asyncio.run(main())


def kill_forkserver():
    """Kill this process's only forkserver."""
    children = psutil.Process().children()
    words = [" ".join(child.as_dict(["cmdline"])["cmdline"] or []) for child in children]  # a zombie has none
    (forkserver,) = [c for c, said in zip(children, words, strict=True) if "standin_forkserver.py" in said]
    forkserver.kill()


async def other_workers(it, count, known):
    """Wait until so many workers run that are not among ``known``; all workers' names then."""
    await it.until(
        lambda _, workers: sum(w.state == "running" and w.name not in known for w in workers) == count
    )
    return {worker.name for worker in it.worker_list}


def test_a_forkserver_that_dies_is_replaced_and_so_are_its_workers(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=2)
            await it.pilot(cores=2)
            before = await other_workers(it, 2, set())
            kill_forkserver()
            await other_workers(it, 2, before)
            assert [pilot.state for pilot in it.pilot_list] == ["ready"]

    asyncio.run(main())


def test_forkservers_that_die_again_and_again_end_the_pilot(cluster):
    async def main():
        async with cluster() as it:
            await it.open(workers=1)
            _, task = await it.pilot()
            seen = set()
            for _ in range(4):
                seen = await other_workers(it, 1, seen)
                kill_forkserver()
            assert "forkserver ended with code -9, once more" in await asyncio.wait_for(task, 10)
            await it.until(lambda pilots, _: [p.state for p in pilots] == ["left"])

    asyncio.run(main())


def test_a_reserved_port_can_be_listened_on_and_is_given_to_nobody_else():
    reserved, port = reserve_port()
    with reserved:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()
