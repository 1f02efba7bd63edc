"""No interleaving of the protocol loses or doubles an entry, and a query ends while a worker lives.

The model has workers that lease ahead, run, commit, fail, hang, leave and die; and a network in which each
message may come late, behind others, again, or be answered in vain, so that its worker sends it again. What
is merged is counted entry by entry, apart from the query's own books.
"""

import math
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gridproof.engine.packets import Packet, cut
from gridproof.engine.query import FileInfo, Query
from gridproof.errors import SelectorCrashed

SITES = ("A", "B", "C")
KEPT = 12  # messages that may come once more
ROUNDS = 2_000  # in which a query must be over, of some seconds each

Range = tuple[int, int, int]  # file, first, last


@dataclass(eq=False)
class Message:
    kind: str
    sender: "Worker"
    content: dict = field(default_factory=dict)


@dataclass(eq=False)
class Worker:
    name: str
    site: str
    rate: float
    alive: bool = True
    hung: bool = False
    held: list[tuple[Packet, int, bool]] = field(default_factory=list)  # packet, its file's entries, waited
    instance: dict[int, Range] = field(default_factory=dict)  # run and not sent
    ran: list[tuple[int, int, float, str]] = field(default_factory=list)  # not told
    void: set[int] = field(default_factory=set)  # packets whose opening was refused
    waiting: list[Message] = field(default_factory=list)  # for an answer
    commits: int = 0
    leaving: bool = False
    ends: float = math.inf

    def waits(self, *kinds):
        return any(message.kind in kinds for message in self.waiting)


class Protocol(RuleBasedStateMachine):
    @initialize(
        entries=st.lists(st.integers(0, 200), min_size=1, max_size=5),
        hints=st.lists(st.sampled_from(["none", "right", "wrong", "zero"]), min_size=5, max_size=5),
        places=st.lists(st.lists(st.sampled_from(SITES), max_size=2, unique=True), min_size=5, max_size=5),
        at_end=st.booleans(),
    )
    def submit(self, entries, hints, places, at_end):
        self.entries = entries
        self.query = Query(
            [
                FileInfo(
                    f"/f{i}",
                    100 * n,
                    tuple((f"V::{site}::SE", site) for site in places[i]),
                    {"none": -1, "right": n, "wrong": n + 7, "zero": 0}[hints[i]],
                )
                for i, n in enumerate(entries)
            ],
            "skip",
            at_end,
        )
        self.now = 100.0
        self.workers = []
        self.born = 0
        self.failures = 0
        self.strays = []  # messages that may come again
        self.leases = {}  # answers by message: the master knows a repeated lease by its number
        self.merged = [[0] * n for n in entries]
        self.verdicts = {}  # first answers, by commit

    # ------------------------------------------------------------ workers

    @rule(
        site=st.sampled_from(SITES),
        rate=st.sampled_from([20.0, 200.0, 2_000.0]),
        left=st.sampled_from([1.0, 30.0, math.inf, math.inf]),
    )
    @precondition(lambda self: len(self.living()) < 4)
    def join(self, site, rate, left):
        self.born += 1
        self.workers.append(Worker(f"w{self.born}", site, rate, ends=self.now + left))
        self.query.join(f"w{self.born}", site)

    @rule(data=st.data(), packets=st.integers(1, 4), commit=st.booleans())
    @precondition(lambda self: self.free())
    def work(self, data, packets, commit):
        worker = self.pick(data, self.free())
        for _ in range(packets):
            self.lease(worker, patient=False)
            self.deliver_all(worker)
            if worker.held:
                self.run_next(worker)
                self.deliver_all(worker)
        if commit:
            self.send_commit(worker)
            self.deliver_all(worker)

    @rule(data=st.data(), patient=st.booleans())
    @precondition(lambda self: self.free())
    def ask_for_packets(self, data, patient):
        self.lease(self.pick(data, self.free()), patient)

    @rule(data=st.data())
    @precondition(lambda self: any(w.held for w in self.free()))
    def run_a_packet(self, data):
        self.run_next(self.pick(data, [w for w in self.free() if w.held]))

    @rule(data=st.data())
    @precondition(lambda self: any(w.instance for w in self.free()))
    def commit(self, data):
        self.send_commit(self.pick(data, [w for w in self.free() if w.instance]))

    @rule(data=st.data(), kind=st.sampled_from(["read", "hung", "stopped", "tree"]))
    @precondition(lambda self: self.failures < 4 and any(w.held for w in self.free()))
    def fail_a_packet(self, data, kind):
        worker = self.pick(data, [w for w in self.free() if w.held])
        packet, _, _ = worker.held.pop(0)
        ses = [se for se, _ in self.query.files[packet.file].replicas]
        self.failures += 1
        self.fail(worker, packet.id, kind, ses[:1])

    @rule(data=st.data())
    @precondition(lambda self: any(w.held for w in self.free()) and not any(w.hung for w in self.living()))
    def hang(self, data):
        self.pick(data, [w for w in self.free() if w.held]).hung = True

    @rule(data=st.data(), told=st.sampled_from(["later", "now", "before its last messages"]))
    @precondition(lambda self: self.living())
    def die(self, data, told):
        worker = self.pick(data, self.living())
        underway = worker.waiting
        self.replace(worker)
        if told != "later":
            self.deliver_all(worker)
        if told == "before its last messages":
            for message in underway:
                self.receive(message)

    @rule(data=st.data())
    @precondition(lambda self: any(not w.leaving for w in self.free()))
    def leave(self, data):
        worker = self.pick(data, [w for w in self.free() if not w.leaving])
        worker.leaving = True
        self.send(worker, "leave")

    @rule(data=st.data())
    @precondition(lambda self: any(w.leaving for w in self.free()))
    def finish_leaving(self, data):
        self.go(self.pick(data, [w for w in self.free() if w.leaving]))

    # ------------------------------------------------------------ the network, the clock

    @rule(data=st.data())
    @precondition(lambda self: self.on_the_way())
    def a_message_comes(self, data):
        self.deliver(data.draw(st.sampled_from(self.on_the_way())))

    @rule(data=st.data())
    @precondition(lambda self: self.on_the_way())
    def an_answer_is_lost(self, data):
        self.receive(data.draw(st.sampled_from(self.on_the_way())))

    @rule(data=st.data())
    @precondition(lambda self: self.strays)
    def a_message_comes_again(self, data):
        self.receive(data.draw(st.sampled_from(self.strays)))

    @rule(seconds=st.sampled_from([0.1, 1.0, 15.0, 100.0]))
    def time_goes_on(self, seconds):
        self.now += seconds

    @rule(data=st.data())
    @precondition(lambda self: any(w.held for w in self.living()))
    def a_late_worker_asks(self, data):
        self.ask_whether_to_go_on(self.pick(data, [w for w in self.living() if w.held]))

    # ------------------------------------------------------------ what workers do

    def lease(self, worker, patient):
        if not worker.waits("lease") and not worker.leaving:
            ran, worker.ran = worker.ran, []
            self.send(worker, "lease", ran=ran, patient=patient, ahead=bool(worker.held))

    def run_next(self, worker):
        packet, expected, waited = worker.held.pop(0)
        if packet.solo:
            self.send_commit(worker)
            if worker.instance:  # it waits for an answer
                worker.held.insert(0, (packet, expected, waited))
                return
        if packet.solo and waited and not self.query.begin(worker.name, packet.id, self.now):
            return
        entries = self.entries[packet.file]
        first, last = packet.first, packet.last
        if last < 0:
            last = cut(0, packet.limit, entries, ())
            self.send(worker, "opened", packet=packet.id, last=last, entries=entries)
        elif expected != entries:
            self.fail(worker, packet.id, "changed", [])
            return
        worker.instance[packet.id] = packet.file, first, last
        worker.ran.append((packet.id, last - first, (last - first) / worker.rate, worker.site))
        if packet.solo:
            self.send_commit(worker)

    def send_commit(self, worker):
        if not worker.instance or worker.waits("opened", "commit"):
            return
        if worker.void & worker.instance.keys():
            self.fail(worker, next(iter(worker.instance)), "stopped", [])
            return
        worker.commits += 1
        self.send(worker, "commit", sequence=worker.commits, ranges=worker.instance)
        worker.instance = {}

    def fail(self, worker, packet_id, kind, ses):
        released, worker.instance = list(worker.instance), {}
        worker.void.clear()
        self.send(worker, "fail", packet=packet_id, released=released, failure=kind, ses=ses)

    def ask_whether_to_go_on(self, worker):
        if self.query.late(worker.name, worker.held[0][0].id, self.now) or not worker.hung:
            return
        self.replace(worker)

    def go(self, worker):
        """Commit what has run, give back what has not begun, and end once all is answered."""
        self.send_commit(worker)
        if worker.instance or worker.waits("lease", "opened", "commit"):
            return
        if worker.held:
            (first, *others), worker.held = [packet.id for packet, _, _ in worker.held], []
            self.send(worker, "fail", packet=first, released=others, failure="stopped", ses=[])
        elif not worker.waiting:
            self.replace(worker)

    def replace(self, worker):
        worker.alive = False
        self.strays += worker.waiting  # they may still be on their way
        worker.waiting = [Message("lost", worker)]

    # ------------------------------------------------------------ what the master does

    def send(self, worker, kind, **content):
        worker.waiting.append(Message(kind, worker, content))

    def deliver(self, message):
        """A message comes and its answer too."""
        answer = self.receive(message)
        worker, content = message.sender, message.content
        worker.waiting.remove(message)
        self.strays = [*self.strays, message][-KEPT:]
        if message.kind == "opened" and not answer:
            worker.void.add(content["packet"])
        if message.kind == "lease":
            for packet, entries in answer:
                worker.held.append((packet, entries, content["ahead"] or bool(worker.held)))

    def deliver_all(self, worker):
        for message in list(worker.waiting):
            self.deliver(message)

    def receive(self, message):
        worker, content, query = message.sender, message.content, self.query
        name = worker.name
        if message.kind == "lease":
            if message not in self.leases:
                for packet_id, entries, seconds, source in content["ran"]:
                    query.ran(name, packet_id, entries, seconds, source)
                packets = query.lease(name, self.now, content["patient"], worker.ends)
                self.leases[message] = [(packet, query.entries(packet.file)) for packet in packets]
            return self.leases[message]
        if message.kind == "opened":
            return query.opened(name, content["packet"], content["last"], content["entries"], ())
        if message.kind == "fail":
            query.fail(
                name, content["packet"], content["released"], content["failure"], "bad luck", content["ses"]
            )
        if message.kind == "leave":
            query.excuse(name)
        if message.kind == "lost":
            query.lose(name)
        if message.kind == "commit":
            self.claim(message)
        return None

    def claim(self, message):
        name, content = message.sender.name, message.content
        verdict = self.query.claim(name, name, content["sequence"], list(content["ranges"]))
        first = self.verdicts.setdefault(message, verdict.accepted)
        if message in message.sender.waiting:
            assert verdict.accepted == first
        assert first or not verdict.accepted
        if verdict.accepted and not verdict.repeated:
            for file, first, last in content["ranges"].values():
                for entry in range(first, last):
                    self.merged[file][entry] += 1

    # ------------------------------------------------------------ what must hold

    @invariant()
    def nothing_is_merged_twice(self):
        assert all(count <= 1 for counts in getattr(self, "merged", ()) for count in counts)

    def teardown(self):
        """Everything comes to an end: whoever lives works on, and one more worker."""
        if not hasattr(self, "query"):
            return
        last = Worker("last", "A", 200.0)
        self.workers.append(last)
        self.query.join(last.name, last.site)
        for _ in range(ROUNDS):
            if self.query.finished or self.query.error:
                break
            self.now += 3.0
            for worker in self.workers:
                self.deliver_all(worker)
            for worker in self.living():
                if worker.hung and worker.held:
                    self.ask_whether_to_go_on(worker)
                    continue
                if worker.leaving:
                    self.go(worker)
                    continue
                while worker.held and not worker.waits("opened", "commit"):
                    self.run_next(worker)
                self.lease(worker, patient=False)
                self.send_commit(worker)
        self.check()

    def check(self):
        if self.query.error:
            assert isinstance(self.query.error, SelectorCrashed)  # three workers died at one place
            return
        assert self.query.finished
        for info, counts in zip(self.query.files, self.merged, strict=True):
            assert info.name in self.query.missing or all(count == 1 for count in counts)
        assert self.query.tally.entries == sum(map(sum, self.merged))

    # ------------------------------------------------------------ helpers

    def living(self):
        return [worker for worker in self.workers if worker.alive]

    def free(self):
        return [worker for worker in self.living() if not worker.hung]

    def on_the_way(self):
        return [message for worker in self.workers for message in worker.waiting]

    def pick(self, data, workers):
        return data.draw(st.sampled_from(workers))


Protocol.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestProtocol = Protocol.TestCase
