"""The registry's decisions, with time as an argument."""

from dataclasses import replace

import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.pool.registry import Registry
from gridproof.proxy.pool.state import Close, Drop, End, Limits, Start, Stop
from gridproof.proxy.protocol import EXIT_LEFT, Ready, Register, Versions

HERE = Versions("3.11.2", "6.40.00", "0.1.0", "2026.8.0")
LIMITS = Limits()


class World:
    """A registry with one session, and shorthands for what pilots do."""

    def __init__(self, workers=4, cores=1, numbers=range(0), forwarding="auto"):
        self.registry = Registry(LIMITS, numbers, forwarding)
        self.now = 1000.0
        self.cores = cores
        self.jobs = 0
        self.registry.open_session("s", "me", HERE, workers, self.now)
        self.registry.user_came("s")
        self.registry.session_ready("s", 4000, self.now)

    def about(self, **changes):
        self.jobs += 1
        about = Register(str(self.jobs), "0", "Site1", "node", 1, self.cores)
        return replace(about, **changes)

    def register(self, about, payload="a"):
        key = f"{about.job_id}-{payload}"
        self.registry.register(key, "me", "s", about, self.now)
        return key

    def join(self, versions=HERE, payload="a", **changes):
        key = self.register(self.about(**changes), payload)
        self.registry.ready(key, Ready(versions, 1094), self.now)
        return key

    def decide(self):
        return self.registry.decide(self.now)

    def started(self):
        actions = self.decide()
        assert all(isinstance(action, Start) for action in actions)
        for pid, action in enumerate(actions, 100):
            self.registry.worker_started(action.pilot, action.name, pid, action.way != "tunnel")
        return actions

    def exit(self, action, code=0, signal=0):
        self.registry.worker_exited(action.pilot, action.name, code, signal, "last words", self.now)

    def pass_time(self, seconds, beating=()):
        self.now += seconds
        for key in beating:
            self.registry.heartbeat(key, 0.5, self.now)
        self.registry.tick(self.now)

    def pilots(self):
        return {p.job_id: p for p in self.registry.records("s")[0]}

    def workers(self):
        return {w.name: w for w in self.registry.records("s")[1]}


def test_a_pilot_starts_a_worker_per_core_once_it_is_ready():
    world = World(workers=2, cores=2)
    key = world.register(world.about())
    assert world.decide() == []
    assert world.pilots()["1"].state == "joining"
    world.registry.ready(key, Ready(HERE), world.now)
    assert [(a.pilot, a.name) for a in world.decide()] == [(key, "Site1-1-0"), (key, "Site1-1-1")]
    assert world.decide() == []


def test_workers_have_numbers_while_there_are_any_and_contacts_that_nobody_else_has():
    world = World(workers=4, cores=4, numbers=range(20001, 20003))
    pilot = world.join()
    starts = world.started()
    assert [w.number for w in world.workers().values()] == [20001, 20002, 0, 0]
    assert [a.contact for a in starts[:2]] == ["tls://127.0.0.1:20001", "tls://127.0.0.1:20002"]
    assert len({a.contact for a in starts}) == 4
    world.exit(starts[0], code=1)
    (again,) = world.started()
    assert world.workers()[again.name].number == 0  # the scheduler may still know its former holder
    world.pass_time(LIMITS.number_rest, beating=[pilot])
    world.exit(again, code=1)
    (again,) = world.started()
    assert world.workers()[again.name].number == 20001


@pytest.mark.parametrize(
    ("forwarding", "reaches", "way"),
    [
        ("auto", True, "auto"),
        ("auto", False, "tunnel"),
        ("tunnel", True, "tunnel"),
        ("direct", False, "direct"),
    ],
)
def test_workers_go_directly_where_their_pilot_can_unless_told_otherwise(forwarding, reaches, way):
    world = World(workers=1, forwarding=forwarding)
    key = world.register(world.about())
    world.registry.ready(key, Ready(HERE, direct=reaches), world.now)
    assert [a.way for a in world.started()] == [way]
    assert [w.way for w in world.workers().values()] == ["tunnel" if way == "tunnel" else "direct"]


def test_no_worker_starts_before_the_session_is_ready():
    registry = Registry()
    registry.open_session("s", "me", HERE, 1, 0.0)
    registry.register("pilot", "me", "s", Register("1", "0", "Site1", "node", 1, 1), 0.0)
    registry.ready("pilot", Ready(HERE), 0.0)
    assert registry.decide(0.0) == []
    registry.session_ready("s", 4000, 0.0)
    assert [type(a) for a in registry.decide(0.0)] == [Start]


def test_workers_are_spread_over_pilots_and_no_more_start_than_wanted():
    world = World(workers=4, cores=4)
    keys = [world.join() for _ in range(2)]
    assert sorted(a.pilot for a in world.decide()) == sorted(keys * 2)


def test_late_pilots_join_while_workers_are_missing():
    world = World(workers=3)
    world.join()
    assert len(world.started()) == 1
    world.pass_time(500, beating=["1-a"])
    world.join()
    world.join()
    world.join()
    assert len(world.started()) == 2


def test_a_lost_pilots_workers_are_replaced_by_a_spare_pilot():
    world = World(workers=1)
    first, second = world.join(), world.join()
    assert [a.pilot for a in world.started()] == [first]
    world.registry.disconnected(first, world.now)
    assert [a.pilot for a in world.started()] == [second]
    assert world.workers()["Site1-1-0"].state == "ended"
    assert world.pilots()["1"].state == "lost"


@pytest.mark.parametrize(
    ("versions", "names"),
    [
        (replace(HERE, root="6.38.00"), ("root 6.38.00", "root 6.40.00")),
        (replace(HERE, python="3.12.1"), ("python 3.12.1", "python 3.11.2")),
        (replace(HERE, distributed="2026.9"), ("distributed 2026.9", "distributed 2026.8.0")),
        (replace(HERE, gridproof="9"), ("gridproof 9", "gridproof 0.1.0")),
    ],
)
def test_a_pilot_with_other_versions_is_refused_and_both_are_named(versions, names):
    world = World()
    key = world.join(versions=versions)
    (end,) = world.decide()
    assert end == End(key, end.reason)
    for name in names:
        assert name in end.reason
    assert world.pilots()["1"].state == "refused"
    assert world.pilots()["1"].reason == end.reason


def test_another_patch_release_of_python_is_no_difference():
    world = World()
    world.join(versions=replace(HERE, python="3.11.14"))
    assert [type(a) for a in world.decide()] == [Start]


def test_a_pilot_that_is_told_to_go_leaves_its_workers_to_another_one():
    world = World(workers=1)
    older = world.join(job_id="7", payload="a")
    world.started()
    newer = world.join(job_id="7", payload="b")
    world.registry.end(older, "enough", world.now)
    actions = world.decide()
    assert [a for a in actions if isinstance(a, End)] == [End(older, "enough")]
    assert [(a.pilot, a.name) for a in actions if isinstance(a, Start)] == [(newer, "Site1-7-0.2")]


def test_a_pilot_that_comes_back_gets_workers_under_new_names():
    world = World(workers=1)
    key = world.join(job_id="7", payload="a")
    world.started()
    world.registry.disconnected(key, world.now)
    assert world.join(job_id="7", payload="a") == key
    assert [a.name for a in world.started()] == ["Site1-7-0.2"]


def test_a_pilot_that_redials_before_its_old_connection_is_noticed_loses_its_workers_only_once():
    world = World(workers=1)
    world.join(job_id="7", payload="a")
    world.started()
    world.join(job_id="7", payload="a")
    assert [a.name for a in world.started()] == ["Site1-7-0.2"]
    assert [w.state for w in world.workers().values()] == ["ended", "running"]


def test_silence_is_seen_and_then_costs_the_pilot():
    world = World(workers=1)
    key = world.join()
    (start,) = world.started()
    world.pass_time(LIMITS.silent_after + 1)
    assert world.pilots()["1"].state == "silent"
    assert world.workers()[start.name].state == "running"
    assert world.decide() == []
    world.pass_time(1, beating=[key])
    assert world.pilots()["1"].state == "ready"
    world.pass_time(LIMITS.lost_after + 1)
    assert world.decide() == [Drop(key)]
    assert world.pilots()["1"].reason == f"no heartbeat for {LIMITS.lost_after + 1:.0f} s"
    assert world.pilots()["1"].state == "lost"


def test_a_silent_pilot_gets_no_workers():
    world = World(workers=1)
    world.join()
    world.pass_time(LIMITS.silent_after + 1)
    assert world.decide() == []


def test_a_worker_that_crashes_late_is_replaced_at_once():
    world = World(workers=1)
    key = world.join()
    (start,) = world.started()
    world.pass_time(LIMITS.young + 1, beating=[key])
    world.exit(start, signal=11)
    assert [a.name for a in world.started()] == ["Site1-1-0.2"]
    assert "signal 11" in world.workers()[start.name].reason
    assert "last words" in world.workers()[start.name].reason


def test_workers_that_die_young_wait_longer_each_time_and_are_given_up_at_last():
    world = World(workers=1)
    key = world.join()
    waits = []
    actions = world.decide()
    while actions:
        world.exit(actions[0], code=1)
        waited = 0.0
        while not (actions := world.decide()) and waited < 100:
            world.pass_time(0.25, beating=[key])
            waited += 0.25
        waits.append(waited)
    assert waits[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert len(waits) == LIMITS.young_deaths
    assert waits[-2:] == [LIMITS.backoff_max, 100]
    assert "given up" in list(world.workers().values())[-1].reason


def test_a_worker_whose_selector_calls_exit_is_replaced():
    world = World(workers=1)
    world.join()
    (start,) = world.started()
    world.exit(start, code=0)
    world.pass_time(1)
    assert len(world.started()) == 1


def test_a_worker_that_leaves_has_not_died_and_its_slot_rests_a_while():
    world = World(workers=1)
    pilot = world.join()
    (start,) = world.started()
    world.exit(start, code=EXIT_LEFT)
    assert "it left after" in world.workers()[start.name].reason
    world.pass_time(1, beating=[pilot])
    assert world.started() == []
    world.pass_time(LIMITS.backoff_max, beating=[pilot])
    assert len(world.started()) == 1


def test_the_surplus_is_stopped_once_and_may_come_back():
    world = World(workers=3, cores=3)
    world.join()
    starts = world.started()
    world.registry.resize_session("s", 1)
    stops = world.decide()
    assert stops == [Stop(a.pilot, a.name, LIMITS.leave) for a in starts[:0:-1]]
    assert world.decide() == []
    for stop in stops:
        world.exit(stop, signal=15)
    assert world.decide() == []
    world.registry.resize_session("s", 3)
    assert [a.name for a in world.decide()] == ["Site1-1-1.2", "Site1-1-2.2"]


def test_workers_that_leave_are_not_replaced_before_they_are_gone():
    world = World(workers=2, cores=3)
    world.join()
    world.started()
    world.registry.resize_session("s", 1)
    (stop,) = world.decide()
    world.registry.resize_session("s", 2)
    assert world.decide() == []
    world.exit(stop)
    assert [type(action) for action in world.decide()] == [Start]


def test_a_draining_pilot_keeps_its_workers_and_gets_no_more():
    world = World(workers=1)
    key = world.join()
    (start,) = world.started()
    world.registry.draining(key, "late")
    world.exit(start, signal=9)
    assert world.decide() == []
    world.registry.heartbeat(key, 1.0, world.now)
    assert world.pilots()["1"].state == "draining"


def test_closing_a_session_ends_its_workers_at_once_and_leaves_its_pilots():
    world = World()
    key = world.join()
    (start,) = world.started()
    world.registry.close_session("s")
    assert world.decide() == [Stop(key, start.name, 0.0)]
    world.exit(start, signal=9)
    world.pass_time(LIMITS.user.pilot_idle - 1, beating=[key])
    assert world.decide() == []
    world.registry.disconnected(key, world.now)
    world.registry.worker_exited(key, "Site1-1-0", 0, 9, "", world.now)
    world.registry.heartbeat(key, 0.0, world.now)
    assert world.decide() == []


def test_pilots_reach_only_the_schedulers_of_sessions_whose_workers_they_run():
    world = World()
    world.registry.open_session("t", "you", HERE, 1, world.now)
    world.registry.session_ready("t", 5000, world.now)
    key = world.join()
    assert world.registry.scheduler_ports(key) == ()
    world.started()
    assert world.registry.scheduler_ports(key) == (4000,)
    assert world.registry.scheduler_ports("other") == ()
    assert world.registry.sessions("you") == ("t",)
    with pytest.raises(ProxyError, match="you has no session 's'"):
        world.registry.check_owner("s", "you")


@pytest.mark.parametrize("changes", [{"site": "../x"}, {"cores": 0}, {"cores": 10**6}, {"host": "a b"}])
def test_a_pilot_that_tells_nonsense_is_refused(changes):
    with pytest.raises(ProxyError):
        World().join(**changes)


def test_records_tell_only_what_changed_since():
    world = World(workers=2)
    world.join()
    world.started()
    before = world.registry.version
    assert world.registry.records("s", since=before) == ([], [])
    key = world.join()
    pilots, workers = world.registry.records("s", since=before)
    assert [p.job_id for p in pilots] == ["2"]
    assert workers == []
    before = world.registry.version
    world.registry.heartbeat(key, 3.0, world.now)
    assert world.registry.version == before


def test_lost_pilots_and_ended_workers_are_forgotten_in_time():
    world = World(workers=1)
    key = world.join()
    for _ in range(LIMITS.ended_kept + 10):
        (start,) = world.started()
        world.pass_time(LIMITS.young + 1, beating=[key])
        world.exit(start, signal=9)
    assert len(world.workers()) == LIMITS.ended_kept
    world.registry.bye(key, "end", world.now)
    world.pass_time(LIMITS.forget_after + 1)
    assert world.pilots() == {}


def test_a_session_that_nobody_uses_gives_its_workers_back_and_ends():
    world = World(workers=1)
    key = world.join()
    world.started()
    world.registry.user_left("s", world.now)
    world.pass_time(LIMITS.user.idle - 1, beating=[key])
    assert world.decide() == []
    world.pass_time(2, beating=[key])
    closed, stopped = world.decide()
    assert (closed, stopped.pilot) == (Close("s"), key)


@pytest.mark.parametrize("use", ["connected", "at work"])
def test_a_session_in_use_stays_as_it_is_however_long(use):
    world = World(workers=1)
    key = world.join()
    world.started()
    if use == "at work":
        world.registry.activity("s", 1, 0, world.now)
        world.registry.user_left("s", world.now)
    for _ in range(10):
        world.pass_time(LIMITS.user.idle, beating=[key])
        assert world.decide() == []


def test_the_idle_time_begins_when_the_last_use_ends():
    world = World(workers=1)
    key = world.join()
    world.started()
    world.registry.activity("s", 1, 0, world.now)
    world.registry.user_left("s", world.now)
    world.pass_time(LIMITS.user.idle * 3, beating=[key])
    world.registry.activity("s", 0, 0, world.now)
    world.pass_time(LIMITS.user.idle, beating=[key])
    assert world.decide() == []
    world.pass_time(1, beating=[key])
    assert [type(action) for action in world.decide()] == [Close, Stop]


def test_a_query_without_any_pilot_is_no_use():
    world = World(workers=1)
    key = world.join()
    world.started()
    world.registry.activity("s", 1, 0, world.now)
    world.registry.user_left("s", world.now)
    world.registry.bye(key, "its time is over", world.now)
    world.pass_time(LIMITS.user.idle + 1)
    assert [type(action) for action in world.decide()] == [Close]


def test_a_session_without_workers_lasts_as_long_as_its_results_or_whoever_fetches_them():
    world = World(workers=1)
    key = world.join()
    world.started()
    world.registry.activity("s", 0, 2, world.now)
    world.registry.user_left("s", world.now)
    world.pass_time(LIMITS.user.idle + 1, beating=[key])
    (stop,) = world.decide()
    world.exit(stop)
    (record,) = world.registry.session_records("me", world.now)
    assert (record.state, record.workers, record.kept) == ("retired", 0, 2)
    world.registry.check_attachable("s", "me", HERE)
    world.registry.user_came("s")
    world.registry.activity("s", 0, 0, world.now)
    world.pass_time(LIMITS.user.idle + 1)
    assert [type(action) for action in world.decide()] == [Drop]
    world.registry.user_left("s", world.now)
    world.pass_time(1)
    assert [type(action) for action in world.decide()] == [Close]


def test_who_may_attach_to_a_session():
    world = World()
    with pytest.raises(ProxyError, match="you has no session 's'; there are: none"):
        world.registry.check_attachable("s", "you", HERE)
    with pytest.raises(ProxyError, match=r"root differ: session s has .*6\.40.*this process has .*6\.38"):
        world.registry.check_attachable("s", "me", replace(HERE, root="6.38.00"))
    world.registry.open_session("new", "me", HERE, 1, world.now)
    with pytest.raises(ProxyError, match="still opening"):
        world.registry.check_attachable("new", "me", HERE)
    world.registry.check_attachable("s", "me", HERE)


def test_a_user_sees_the_own_sessions_only():
    world = World(workers=1)
    world.join()
    world.started()
    world.registry.open_session("t", "you", HERE, 1, world.now)
    world.pass_time(3)
    (mine,) = world.registry.session_records("me", world.now)
    assert (mine.name, mine.state, mine.workers, mine.users, mine.age) == ("s", "open", 1, 1, 3.0)
    assert [record.state for record in world.registry.session_records("you", world.now)] == ["opening"]
    assert world.registry.session_records("nobody", world.now) == []
