"""The worker's loop against a master that answers as it is told, and a runner that only notes down."""

import asyncio
import math
import threading
import time
from collections import defaultdict

import pytest

from gridproof.engine.committer import Committer
from gridproof.engine.memory import MemoryGuard
from gridproof.engine.packets import Packet
from gridproof.engine.runner import Delta, Failure, PacketFailed
from gridproof.engine.watch import Attempt, Pace, Unfit
from gridproof.engine.worker import WorkerLoop

QUERY = {
    "loads": [],
    "selector": "",
    "class_name": "S",
    "friends": False,
    "feedback": 1.0,
    "commit": "interval",
    "interval": 0.0,
    "ask": 0.0,
}
FILE = {"name": "/data/f.root", "kind": "path", "size": 1, "replicas": []}


class Master:
    """Answers leases from a list and notes every message; `done` is set when the list is used up."""

    def __init__(self, *leases, **answers):
        self.leases = list(leases)
        self.answers = {
            "query": QUERY,
            "commit": {"accepted": True, "interval": 0.0},
            "begin": True,
            **answers,
        }
        self.said = defaultdict(list)
        self.order = []
        self.when = {}  # what happens before a message is answered
        self.done = asyncio.Event()

    def __getattr__(self, message):
        async def answer(**content):
            self.said[message].append(content)
            self.order.append(message)
            self.when.pop(message, lambda: None)()
            if message == "leave":
                self.leases.clear()
            if message != "lease":
                return self.answers.get(message)
            if self.leases:
                return self.leases.pop(0)
            if content["wait"]:
                self.done.set()
                await asyncio.Event().wait()
            return {}

        return answer


class Runner:
    """Has run what it was given.

    ``blocks``: a packet that waits until it is told to stop or let go; ``ends``: False if `finish` waits so.
    """

    instance_cost = 0.0

    def __init__(self, blocks=-1, obeys=True, entries=100, fails=(), ends=True):
        self.ran, self.uncommitted = [], ()
        self._ends = ends
        self._blocks, self._obeys, self._entries, self._fails = blocks, obeys, entries, fails
        self.let_go = threading.Event()

    def begin(self, query, code):
        self.query = query

    def stop(self, stop=True):
        if stop and self._obeys:
            self.let_go.set()

    def entry(self):
        return len(self.ran)

    def locate(self, files):
        self.located = len(files)

    def run(self, packet, file, opened, layout):
        if packet.id == self._blocks:
            self.let_go.wait()
            raise PacketFailed(Failure("stopped", "called off"))
        if packet.id in self._fails:
            self.uncommitted = ()
            raise PacketFailed(Failure("read", "no luck", ("SE",)))
        if packet.last < 0:
            opened(min(packet.limit, self._entries), self._entries, [0])
        self.ran.append(packet.id)
        self.uncommitted += (packet.id,)
        return self._entries, 0.01, "site"

    def finish(self):
        if not self._ends:
            self.let_go.wait()
        packets, self.uncommitted = self.uncommitted, ()
        return Delta(packets, b"", (), 0, 0)

    def discard(self):
        self.uncommitted = ()


def lease(*packets, query=1):
    described = [packet.to_message() for packet in packets]
    return {"query": query, "count": False, "packets": described, "files": [(p.file, FILE) for p in packets]}


def packet(number, **fields):
    return Packet(number, 0, 0, 100)._replace(**fields)


def work(master_of, runner, pace=None, leaves_at="", ends=math.inf):
    """Run the loop until its master has nothing more; returns that master.

    ``leaves_at``: the message to the master at which the worker is told to leave.
    """

    async def go():
        master = master_of()
        loop = WorkerLoop(master, "address", "w1", lambda: runner, MemoryGuard(0), pace or Pace(), ends)
        master.when[leaves_at] = loop.leave
        running = asyncio.ensure_future(loop.run("site", "host", 1))
        done = asyncio.ensure_future(master.done.wait())
        try:
            await asyncio.wait({running, done}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            if running.done():
                running.result()
        finally:
            runner.let_go.set()
            running.cancel()
            done.cancel()
            await asyncio.gather(running, done, return_exceptions=True)
        return master

    return asyncio.run(go())


def test_packets_of_a_lease_run_in_order_and_are_committed_together():
    runner = Runner()
    master = work(lambda: Master(lease(packet(1), packet(2)), lease(packet(3))), runner)
    assert runner.ran == [1, 2, 3]
    assert [commit["packets"] for commit in master.said["commit"]] == [[1, 2, 3]]
    told = [item[1] for message in master.said["lease"] for item in message["ran"]]
    assert told == [1, 2, 3]


def test_the_next_lease_is_asked_for_while_the_first_one_runs():
    master = work(lambda: Master(lease(packet(1)), lease(packet(2))), Runner())
    assert master.order.index("lease", master.order.index("lease") + 1) < master.order.index("commit")


def test_a_solo_packet_is_committed_alone_and_one_that_waited_is_asked_about_first():
    master = work(lambda: Master(lease(packet(1)), lease(packet(2, solo=True))), Runner())
    assert [commit["packets"] for commit in master.said["commit"]] == [[1], [2]]
    assert [asked["packet"] for asked in master.said["begin"]] == [2]


def test_a_packet_that_was_taken_back_is_not_run():
    runner = Runner()
    work(lambda: Master(lease(packet(1)), lease(packet(2, solo=True)), begin=False), runner)
    assert runner.ran == [1]


def test_with_one_commit_at_the_end_a_copy_of_another_workers_packet_is_committed_alone():
    query = {**QUERY, "commit": "end"}
    leases = (lease(packet(1)), lease(packet(2)), lease(packet(3, solo=True)))
    master = work(lambda: Master(*leases, query=query), Runner())
    assert [commit["packets"] for commit in master.said["commit"]] == [[1, 2], [3]]


def test_a_file_that_is_used_up_by_its_first_packet_needs_no_message_of_its_own():
    leases = (lease(packet(1, last=-1, limit=500)), lease(packet(2)))
    master = work(lambda: Master(*leases), Runner(entries=100))
    openings = [opening for message in master.said["lease"] for opening in message["opened"]]
    assert openings == [(1, 1, 100, 100, [0])]
    assert "opened" not in master.order


def test_the_lease_ahead_waits_for_a_file_to_be_opened_and_tells_of_it():
    runner = Runner(entries=100)
    master = work(lambda: Master(lease(packet(1, last=-1, limit=50)), lease(packet(2))), runner)
    _, second, *_ = master.said["lease"]
    assert second["opened"] == [(1, 1, 50, 100, [0])]
    assert "opened" not in master.order


def test_a_further_file_with_more_to_give_is_told_at_once():
    leases = (lease(packet(1), packet(2, last=-1, limit=50)), lease(packet(3)))
    master = work(lambda: Master(*leases, opened=[]), Runner(entries=100))
    assert master.said["opened"][0]["opened"] == [(1, 2, 50, 100, [0])]


def test_what_ran_beside_a_packet_that_was_taken_back_is_given_back_too():
    leases = (lease(packet(1), packet(2, last=-1, limit=50)), lease(packet(3)))
    master = work(lambda: Master(*leases, opened=[(1, 2)]), Runner(entries=100))
    (failed,) = master.said["fail"]
    assert (failed["packet"], failed["released"], failed["kind"]) == (2, [1], "stopped")
    assert [commit["packets"] for commit in master.said["commit"]] == [[3]]


def test_after_a_bad_read_the_other_packets_of_the_lease_go_on():
    runner = Runner(fails={2})
    master = work(lambda: Master(lease(packet(1), packet(2), packet(3))), runner)
    (failed,) = master.said["fail"]
    assert (failed["packet"], failed["released"], failed["kind"]) == (2, [1], "read")
    assert [commit["packets"] for commit in master.said["commit"]] == [[3]]


def test_a_packet_that_is_not_wanted_any_more_is_left():
    runner = Runner(blocks=1)
    leases = (lease(packet(1)), lease(packet(2)))
    master = work(lambda: Master(*leases, late=False), runner, Pace(ask=0.01, leave=100))
    assert [(message["packet"], message["stuck"]) for message in master.said["late"]] == [(1, 0.0)]
    assert [commit["packets"] for commit in master.said["commit"]] == [[2]]


def test_how_long_a_packet_has_been_at_one_entry_counts_from_its_beginning():
    attempt = Attempt(1, 7)
    assert attempt.stuck(5, 100.0) == 0.0
    assert attempt.stuck(5, 130.0) == 30.0
    assert attempt.stuck(6, 140.0) == 0.0
    assert attempt.stuck(6, 141.0) == 1.0


def test_a_packet_that_hangs_ends_the_process_once_another_worker_has_run_it():
    runner = Runner(blocks=3, obeys=False)
    leases = (lease(packet(1), packet(2), packet(3), packet(4)),)
    masters = []

    def make():
        masters.append(Master(*leases, late=False))
        return masters[-1]

    with pytest.raises(Unfit):
        work(make, runner, Pace(ask=0.01, leave=0.01))
    (failed,) = masters[0].said["fail"]
    assert (failed["packet"], failed["kind"]) == (3, "hung")
    assert set(failed["released"]) == {1, 2, 4}


def test_an_instance_whose_end_hangs_ends_the_process_once_its_query_is_over():
    runner = Runner(ends=False, obeys=False)
    with pytest.raises(Unfit):
        work(lambda: Master(lease(packet(1)), late=False), runner, Pace(ask=0.01, leave=0.01))


def test_a_worker_that_leaves_commits_what_it_is_at_and_gives_back_what_it_has_not_begun():
    runner = Runner()
    leases = (lease(packet(1), packet(2, solo=True), packet(3), packet(4)), lease(packet(5)))
    master = work(lambda: Master(*leases), runner, leaves_at="begin")
    assert runner.ran == [1, 2]
    assert [commit["packets"] for commit in master.said["commit"]] == [[1], [2]]
    released = [[failed["packet"], *failed["released"]] for failed in master.said["fail"]]
    assert released == [[3, 4], [5]]
    assert {failed["kind"] for failed in master.said["fail"]} == {"stopped"}
    assert len(master.said["leave"]) == 1


def test_packets_that_come_as_a_worker_leaves_are_given_back_and_what_has_run_is_committed():
    query = {**QUERY, "commit": "end"}
    runner = Runner()
    leases = (lease(packet(1)), lease(packet(2), query=2))
    master = work(lambda: Master(*leases, query=query), runner, leaves_at="commit")
    assert runner.ran == [1]
    assert [commit["packets"] for commit in master.said["commit"]] == [[1]]
    assert [failed["packet"] for failed in master.said["fail"]] == [2]


def test_a_worker_that_is_told_to_leave_before_it_is_ready_takes_nothing():
    master = work(lambda: Master(lease(packet(1))), Runner(), leaves_at="hello")
    assert master.order == ["hello"]


def test_a_worker_says_how_long_it_has_and_leaves_when_that_is_too_short():
    leases = (lease(packet(1), packet(2)), {"leave": True}, {"leave": True}, lease(packet(3)))
    runner = Runner()
    master = work(lambda: Master(*leases), runner, ends=time.time() + 100)
    assert all(90 < asked["left"] < 100 for asked in master.said["lease"])
    assert [commit["packets"] for commit in master.said["commit"]] == [[1, 2]]
    assert len(master.said["leave"]) == 1


def test_files_that_are_not_counted_before_a_worker_leaves_are_given_back():
    counting = {**lease(packet(1), packet(2), query=-1), "count": True}
    runner = Runner()
    runner.count = lambda file, avoid: (100, [0])
    master = work(lambda: Master(counting, opened=[]), runner, leaves_at="lease")
    (failed,) = master.said["fail"]
    assert (failed["query"], failed["packet"], failed["released"]) == (-1, 1, [2])


def test_two_queries_by_turns_are_described_once():
    leases = [lease(packet(n), query=1 + n % 2) for n in range(6)]
    master = work(lambda: Master(*leases), Runner())
    assert len(master.said["query"]) == 2
    assert [commit["packets"] for commit in master.said["commit"]] == [[n] for n in range(6)]


def committer(**query):
    made = Committer(None, "w1", Runner())
    made.begin(1, {**QUERY, **query})
    return made


def test_first_commits_come_early():
    made = committer(feedback=1.0)
    assert not made.due(0.2)
    assert made.due(0.3)


def test_the_master_says_how_far_apart_commits_have_to_be():
    assert not committer(interval=5.0).due(4.9)
    assert committer(interval=5.0).due(5.1)


def test_no_commit_is_due_before_the_end_where_there_is_to_be_one_only():
    assert not committer(commit="end").due(1e9)
