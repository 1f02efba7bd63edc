"""Whatever happens in whatever order, the registry keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gridproof.errors import ProxyError
from gridproof.proxy.pool.registry import Registry
from gridproof.proxy.pool.state import Close, Drop, End, Limits, Start, Stop
from gridproof.proxy.protocol import Ready, Register, Versions

HERE = Versions("3.11.2", "6.40.00", "0.1.0", "2026.8.0")
OTHER = Versions("3.11.2", "6.38.00", "0.1.0", "2026.8.0")
WANTED = 4


class Cluster(RuleBasedStateMachine):
    """Pilots come, go, redial and are doubled; workers start, crash and end; users and other sessions come
    and go."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.registry = Registry()
        self.registry.open_session("s", "me", HERE, WANTED, 0.0)
        self.registry.user_came("s")
        self.registry.session_ready("s", 4000, 0.0)
        self.connected = set()
        self.ended = set()
        self.live = {}  # name -> pilot
        self.session_of = {}
        self.others = 0
        self.other = ""
        self.names = set()
        self.stopped = set()
        self.shown = {}
        self.version = 0
        self.users = 1
        self.running = self.kept = 0
        self.last_used = 0.0
        self.retired_before = False

    def carry_out(self):
        for action in self.registry.decide(self.now):
            if isinstance(action, Close):
                assert action.session == "s"
                assert (self.users, self.kept) == (0, 0), "a session with users or results is not closed"
            elif isinstance(action, Start):
                mine = action.session == "s"
                assert not (mine and self.retired()), "a session that gave its workers back gets no others"
                assert mine or action.session == self.other, "workers start for sessions that are open"
                assert action.name not in self.names, "a worker's name is used once"
                assert action.pilot in self.connected, "workers start on connected pilots only"
                assert action.pilot not in self.ended, "and not on those that were told to go"
                self.names.add(action.name)
                self.live[action.name] = action.pilot
                self.session_of[action.name] = action.session
            elif isinstance(action, Stop):
                again = action.name in self.stopped
                assert not again or action.grace == 0.0, "a worker is told to end once, and then at once"
                assert action.name in self.live
                self.stopped.add(action.name)
            elif isinstance(action, End):
                self.ended.add(action.pilot)
                self.drop_workers(action.pilot)
            elif isinstance(action, Drop):
                self.connected.discard(action.pilot)
                self.drop_workers(action.pilot)

    def retired(self):
        record, *_ = self.registry.session_records("me", self.now)
        return record.state == "retired"

    def workers_of(self, session):
        return {name for name in self.live if self.session_of[name] == session}

    @precondition(lambda self: not self.other)
    @rule(versions=st.sampled_from([HERE, HERE, OTHER]), ready=st.booleans())
    def another_session_opens(self, versions, ready):
        self.others += 1
        self.other = f"t{self.others}"
        self.registry.open_session(self.other, "me", versions, WANTED, self.now)
        self.registry.user_came(self.other)
        if ready:
            self.registry.session_ready(self.other, 5000, self.now)
        self.carry_out()

    @precondition(lambda self: self.other)
    @rule(how=st.sampled_from(["ready", "works", "rests", "ends"]))
    def the_other_session_goes_on(self, how):
        if how == "ready":
            self.registry.session_ready(self.other, 5000, self.now)
        elif how == "ends":
            self.registry.close_session(self.other)
            self.other = ""
        else:
            self.registry.activity(self.other, int(how == "works"), 0, self.now)
        self.carry_out()

    def used(self):
        if self.users or (self.running and self.connected - self.ended):
            self.last_used = self.now

    @rule(comes=st.booleans())
    def user_comes_or_goes(self, comes):
        self.used()
        if comes:
            self.users += 1
            self.registry.user_came("s")
        elif self.users:
            self.users -= 1
            self.registry.user_left("s", self.now)

    @rule(running=st.integers(0, 2), kept=st.integers(0, 2))
    def queries_start_and_end(self, running, kept):
        self.used()
        self.running, self.kept = running, kept
        self.registry.activity("s", running, kept, self.now)

    def drop_workers(self, key):
        self.live = {name: pilot for name, pilot in self.live.items() if pilot != key}

    @rule(
        job=st.integers(0, 3),
        payload=st.integers(0, 1),
        cores=st.integers(1, 3),
        versions=st.sampled_from([HERE, HERE, HERE, OTHER]),
        ready=st.booleans(),
    )
    def join(self, job, payload, cores, versions, ready):
        key = f"{job}-{payload}"
        if key in self.ended:
            return  # its process is gone
        try:
            about = Register(str(job), "0", "A", "h", 1, cores)
            self.registry.register(key, "me", "s", about, self.now)
        except ProxyError:
            return
        self.drop_workers(key)
        self.connected.add(key)
        if ready:
            self.registry.ready(key, Ready(versions), self.now)
        self.carry_out()

    @precondition(lambda self: self.connected)
    @rule(data=st.data(), how=st.sampled_from(["lost", "bye", "draining", "ready", "beat"]))
    def pilot_event(self, data, how):
        key = data.draw(st.sampled_from(sorted(self.connected)))
        if how == "ready":
            self.registry.ready(key, Ready(HERE), self.now)
        elif how == "beat":
            self.registry.heartbeat(key, 0.1, self.now)
        elif how == "draining":
            self.registry.draining(key, "late")
        else:
            self.connected.discard(key)
            self.drop_workers(key)
            if how == "bye":
                self.ended.add(key)
                self.registry.bye(key, "end", self.now)
            self.registry.disconnected(key, self.now)
        self.carry_out()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), code=st.sampled_from([0, 1]), signal=st.sampled_from([0, 9, 11]))
    def worker_exits(self, data, code, signal):
        name = data.draw(st.sampled_from(sorted(self.live)))
        key = self.live.pop(name)
        self.registry.worker_exited(key, name, code, signal, "", self.now)
        self.carry_out()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def worker_starts(self, data):
        name = data.draw(st.sampled_from(sorted(self.live)))
        self.registry.worker_started(self.live[name], name, 1, False)

    @rule(seconds=st.sampled_from([0.1, 1.0, 20.0, 70.0, 4000.0]), beating=st.booleans())
    def time_passes(self, seconds, beating):
        self.used()
        self.now += seconds
        if beating:
            for key in self.connected:
                self.registry.heartbeat(key, 0.1, self.now)
        self.registry.tick(self.now)
        self.carry_out()

    @invariant()
    def no_more_workers_than_wanted_and_all_are_known(self):
        for session in filter(None, ("s", self.other)):
            pilots, workers = self.registry.records(session)
            alive = {w.name for w in workers if w.state != "ended"}
            assert alive == self.workers_of(session)
            assert len(alive) <= WANTED
            cores = {p.id: p.cores for p in pilots}
            for pilot, count in cores.items():
                assert sum(at == pilot for at in self.live.values()) <= count

    @invariant()
    def only_an_idle_session_gives_its_workers_back(self):
        if self.retired():
            assert self.workers_of("s") <= self.stopped
            assert self.retired_before or self.now - self.last_used > Limits().user.idle
            self.retired_before = True

    @invariant()
    def changes_alone_draw_the_same_picture(self):
        pilots, workers = self.registry.records("s", since=self.version)
        self.version = self.registry.version
        self.shown.update({("pilot", p.id): p.state for p in pilots})
        self.shown.update({("worker", w.name): w.state for w in workers})
        now_pilots, now_workers = self.registry.records("s")
        for p in now_pilots:
            assert self.shown["pilot", p.id] == p.state
        for w in now_workers:
            assert self.shown["worker", w.name] == w.state


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
