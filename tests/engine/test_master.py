"""The master's answers to workers whose messages come twice, late, or all at once; merging is a list."""

import asyncio
import math

import pytest

from gridproof.engine.master import Master
from gridproof.engine.master.workers import LARGE_DELTAS
from gridproof.errors import MergeError

FILES = [{"name": f"/f{n}", "kind": "path", "size": 100, "replicas": [], "entries": 1000} for n in range(3)]
SPEC = {
    "selector": None,
    "class_name": "S",
    "option": "",
    "input": b"",
    "on_missing": "fail",
    "feedback": 1.0,
    "commit": "interval",
    "title": "a query",
    "parts": [{"tree": "t", "alias": "", "files": FILES}],
}


class Merge:
    """In place of the thread with ROOT: merged deltas in a list; `gate` holds everything up while clear."""

    def __init__(self):
        self.merged = []
        self.disk_is_full = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, call, *arguments):
        await self.gate.wait()
        return call(*arguments)

    def soon(self, call, *arguments):
        call(*arguments)

    def merger(self, query, code):
        return self

    def decode(self, delta, classes, files):
        return delta

    def merge(self, delta, files):
        self.merged.append(delta)

    def warnings(self):
        return []

    def finish(self, good):
        if self.disk_is_full:
            raise MergeError("the disk is full")

    def drop(self, uploads):
        pass

    def lost(self, worker):
        pass

    def close(self):
        pass

    @property
    def spool(self):
        return self


@pytest.fixture
def session(tmp_path):
    """Runs a coroutine function of (workers' side, clients' side, merge)."""

    def run(scene):
        async def go():
            master = Master(tmp_path, tmp_path, 60.0)
            merge = master._state.merge = Merge()
            try:
                await scene(master.for_workers, master.for_clients, merge)
            finally:
                master.close()

        asyncio.run(asyncio.wait_for(go(), 20))

    return run


async def hello(workers, *names):
    for name in names:
        await workers.hello(name, name, "A", "host", 1)


def lease(workers, name, number, wait=0.0, ran=(), opened=(), left=math.inf):
    return workers.lease(name, number, ran, opened, wait, left)


def commit(workers, name, query, sequence, packets, delta=b"x"):
    return workers.commit(name, name, query, sequence, packets, delta, [], [], 0, 0)


async def run_all(workers, name, query, number=1):
    """Lease and commit until there is nothing more; the last commit's number and packets."""
    last = None
    while "packets" in (answer := await lease(workers, name, number)):
        packets = [packet[0] for packet in answer["packets"]]
        assert (await commit(workers, name, query, number, packets))["accepted"]
        last, number = (number, packets), number + 1
    return last


async def until_over(clients, query):
    return await clients.follow(query, 1 << 62, 10)


def test_a_lease_that_is_asked_for_again_is_the_same_lease(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        await clients.submit(SPEC)
        first = await lease(workers, "w", 1)
        assert first["packets"]
        assert await lease(workers, "w", 1) == first
        assert (await lease(workers, "w", 2))["packets"] != first["packets"]

    session(scene)


def test_a_lease_that_is_asked_for_again_while_the_first_request_waits_is_given_once(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        both = [asyncio.ensure_future(lease(workers, "w", 1, wait=10)) for _ in range(2)]
        await asyncio.sleep(0)
        query = await clients.submit(SPEC)
        first, second = await asyncio.gather(*both)
        assert first["packets"]
        assert first == second
        packets = [packet[0] for packet in first["packets"]]
        assert (await commit(workers, "w", query, 1, packets))["accepted"]
        await run_all(workers, "w", query, 2)
        assert (await until_over(clients, query))["over"]

    session(scene)


def test_a_worker_that_leaves_gets_nothing_more_and_may_commit_what_it_has(session):
    async def scene(workers, clients, merge):
        await hello(workers, "leaves", "stays")
        waiting = asyncio.ensure_future(lease(workers, "leaves", 1, wait=10))
        await asyncio.sleep(0)
        await workers.leave("leaves")
        assert await waiting == {}
        await workers.hello("late", "late", "A", "host", 1)
        query = await clients.submit(SPEC)
        answer = await lease(workers, "late", 1)
        await workers.leave("late")
        assert await lease(workers, "late", 2, wait=10) == {}
        packets = [packet[0] for packet in answer["packets"]]
        assert (await commit(workers, "late", query, 1, packets))["accepted"]
        workers.lost("late")
        await run_all(workers, "stays", query)
        state = await until_over(clients, query)
        assert (state["events"], state["error"]) == (3000, None)

    session(scene)


def test_a_worker_that_has_no_time_for_anything_there_is_is_told_to_leave(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        assert await lease(workers, "w", 1, left=1.0) == {}
        query = await clients.submit(SPEC)
        (packet,) = (await lease(workers, "w", 2, left=60.0))["packets"]
        slow = [(query, packet[0], 10, 20.0, "")]
        assert await lease(workers, "w", 3, ran=slow, left=5.0, wait=10) == {"leave": True}
        assert (await lease(workers, "w", 4, left=60.0))["packets"]

    session(scene)


def test_a_commit_that_comes_again_is_merged_once_and_gets_the_same_answer(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        query = await clients.submit(SPEC)
        packets = [packet[0] for packet in (await lease(workers, "w", 1))["packets"]]
        merge.gate.clear()
        both = [asyncio.ensure_future(commit(workers, "w", query, 1, packets)) for _ in range(2)]
        await asyncio.sleep(0)
        merge.gate.set()
        assert [answer["accepted"] for answer in await asyncio.gather(*both)] == [True, True]
        assert merge.merged == [b"x"]
        last = await run_all(workers, "w", query, 2)
        merged = len(merge.merged)
        assert (await until_over(clients, query))["over"]
        assert (await commit(workers, "w", query, *last))["accepted"]
        assert len(merge.merged) == merged

    session(scene)


def test_a_query_whose_outputs_cannot_be_completed_has_failed(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        query = await clients.submit(SPEC)
        merge.disk_is_full = True
        await run_all(workers, "w", query)
        status = await until_over(clients, query)
        assert (status["over"], status["error"]) == (True, ["MergeError", "the disk is full"])

    session(scene)


def test_a_failure_that_is_told_again_takes_nothing_from_the_worker(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        query = await clients.submit(SPEC)
        (packet, *_), *_ = (await lease(workers, "w", 1))["packets"]
        for _ in range(2):
            await workers.fail("w", 2, query, packet, [], "stopped", "why not", [])
        again = [p[0] for p in (await lease(workers, "w", 3))["packets"]]
        await workers.fail("w", 2, query, packet, [], "stopped", "why not", [])
        assert (await commit(workers, "w", query, 1, again))["accepted"]

    session(scene)


def test_the_commit_of_a_worker_that_is_lost_meanwhile_is_not_merged(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w", "v")
        query = await clients.submit(SPEC)
        packets = [packet[0] for packet in (await lease(workers, "w", 1))["packets"]]
        merge.gate.clear()
        late = asyncio.ensure_future(commit(workers, "w", query, 1, packets))
        await asyncio.sleep(0)
        workers.lost("w")
        merge.gate.set()
        assert not (await late)["accepted"]
        await run_all(workers, "v", query)
        status = await until_over(clients, query)
        assert (status["over"], status["events"]) == (True, 3000)

    session(scene)


def test_only_so_many_large_outputs_are_on_their_way_at_a_time(session):
    async def scene(workers, clients, merge):
        names = [f"w{n}" for n in range(LARGE_DELTAS + 2)]
        await hello(workers, *names)
        asking = [asyncio.ensure_future(workers.admit(name)) for name in names]
        done, _ = await asyncio.wait(asking, timeout=0.05)
        assert len(done) == LARGE_DELTAS
        await commit(workers, "w0", 99, 1, [])  # which makes room, whatever comes of it
        assert await asking[LARGE_DELTAS]
        workers.lost("w1")  # and so does a death
        assert await asking[LARGE_DELTAS + 1]

    session(scene)


def test_what_was_meant_for_the_counting_of_a_query_does_not_touch_the_query(session):
    async def scene(workers, clients, merge):
        unknown = [{**FILES[0], "entries": -1}]
        friend = {"tree": "u", "alias": "u", "files": [{**FILES[1], "entries": 1000}]}
        query = await clients.submit(
            {**SPEC, "parts": [{"tree": "t", "alias": "", "files": unknown}, friend]}
        )
        await hello(workers, "w")
        counting = await lease(workers, "w", 1)
        assert counting["count"]
        phase, (packet, *_) = counting["query"], counting["packets"][0]
        assert await workers.opened("w", 2, [(phase, packet, 1000, 1000, [0])]) == []
        assert (await commit(workers, "w", phase, 1, [packet], b""))["accepted"]
        assert not (await commit(workers, "w", phase, 1, [packet], b""))["accepted"]
        await run_all(workers, "w", query, 3)
        status = await until_over(clients, query)
        assert (status["over"], status["events"], set(merge.merged)) == (True, 1000, {b"x"})

    session(scene)


def test_a_cancelled_query_is_called_off_at_the_next_question(session):
    async def scene(workers, clients, merge):
        await hello(workers, "w")
        query = await clients.submit(SPEC)
        (packet, *_), *_ = (await lease(workers, "w", 1))["packets"]
        assert await workers.late("w", query, packet, 0.0)
        await clients.cancel(query)
        assert not await workers.late("w", query, packet, 0.0)
        assert await lease(workers, "w", 2) == {}

    session(scene)
