"""Pilots belong to a user: they outlive sessions, and several sessions share them."""

from collections import Counter
from dataclasses import replace

import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.pool.registry import Registry
from gridproof.proxy.pool.state import End, Limits, Start, Stop, UserLimits
from gridproof.proxy.protocol import Ready, Register, Versions

HERE = Versions("3.11.2", "6.40.00", "0.1.0", "2026.8.0")
OTHER = replace(HERE, root="6.38.00")
LIMITS = Limits(users={"poor": UserLimits(workers=10, sessions=2, pilot_idle=50.0)})


class World:
    """A registry whose decisions are carried out; ``workers`` maps the living ones to session and pilot."""

    def __init__(self, user="me"):
        self.registry = Registry(LIMITS)
        self.user = user
        self.now = 1000.0
        self.pilots = []
        self.ended = {}
        self.workers = {}
        self.stopping = {}
        self.moves = 0

    def open(self, name, workers, near=(), versions=HERE, ready=True):
        self.registry.open_session(name, self.user, versions, workers, self.now, near)
        self.registry.user_came(name)
        self.act()
        if ready:
            self.make_ready(name)

    def make_ready(self, name):
        self.registry.session_ready(name, 4000, self.now)
        self.act()

    def join(self, count=1, cores=1, site="Site1", versions=HERE, session="s"):
        for _ in range(count):
            key = f"{len(self.pilots) + 1}"
            self.pilots.append(key)
            about = Register(key, "0", site, "node", 1, cores)
            self.registry.register(key, self.user, session, about, self.now)
            self.registry.ready(key, Ready(versions), self.now)
            self.act()

    def act(self):
        for action in self.registry.decide(self.now):
            if isinstance(action, Start):
                self.workers[action.name] = (action.session, action.pilot)
                self.registry.worker_started(action.pilot, action.name, 1, False)
                self.moves += 1
            elif isinstance(action, Stop):
                self.stopping[action.name] = action.pilot
            elif isinstance(action, End):
                self.ended[action.pilot] = action.reason
                self.workers = {n: w for n, w in self.workers.items() if w[1] != action.pilot}

    def leave(self):
        """What was told to end has ended."""
        while self.stopping:
            name, pilot = self.stopping.popitem()
            if self.workers.pop(name, None):
                self.registry.worker_exited(pilot, name, 0, 15, "", self.now)
                self.act()

    def pass_time(self, seconds):
        for _ in range(int(seconds)):
            self.now += 1
            for key in self.pilots:
                self.registry.heartbeat(key, 0.1, self.now)
            self.registry.tick(self.now)
            self.act()
            self.leave()

    def work(self, name, running=1):
        self.registry.activity(name, running, 0, self.now)
        self.act()
        self.leave()

    def close(self, name):
        self.registry.close_session(name)
        self.act()

    @property
    def counts(self):
        return Counter(session for session, _ in self.workers.values())


def test_a_session_that_ends_leaves_its_pilots_to_the_next_one():
    world = World()
    world.open("s", 4)
    world.join(4)
    world.close("s")
    assert len(world.stopping) == 4
    world.open("t", 4, ready=False)
    assert world.registry.at_hand("t") == 4
    world.leave()
    world.make_ready("t")
    assert world.counts == {"t": 4}
    assert not world.ended


def test_what_a_session_frees_at_its_end_is_the_next_ones_as_soon_as_it_is_reported():
    world = World()
    world.open("s", 2)
    world.join(2)
    world.open("t", 2, ready=False)
    world.work("s")
    world.make_ready("t")
    world.leave()
    assert world.counts == {"s": 1, "t": 1}
    world.close("s")
    world.leave()
    assert world.counts == {"t": 2}


def test_two_sessions_at_work_share_fairly_and_the_one_that_comes_to_rest_lends_and_gets_back():
    world = World()
    world.open("s", 8)
    world.join(8)
    world.open("t", 8)
    world.leave()
    assert world.counts == {"s": 4, "t": 4}
    world.work("s")
    world.work("t")
    world.work("t", running=0)
    world.pass_time(LIMITS.lend_after + 2)
    assert world.counts == {"s": 8}
    world.work("t")
    world.leave()
    assert world.counts == {"s": 4, "t": 4}


def test_short_pauses_between_queries_move_no_worker():
    world = World()
    world.open("s", 4)
    world.open("t", 4)
    world.join(4)
    world.work("s")
    moves = world.moves
    for _ in range(20):
        world.work("t")
        world.pass_time(3)
        world.work("t", running=0)
        world.pass_time(LIMITS.lend_after - 1)
    assert world.moves == moves


def test_a_session_without_queries_whose_processes_are_gone_lends_at_once():
    world = World()
    world.open("s", 4)
    world.join(4)
    world.registry.user_left("s", world.now)
    world.open("t", 4)
    world.pass_time(2)
    assert world.counts == {"t": 4}


def test_an_idle_session_keeps_its_workers_while_nobody_wants_them():
    world = World()
    world.open("s", 4)
    world.join(4)
    world.pass_time(10 * LIMITS.lend_after)
    assert world.counts == {"s": 4}
    assert world.moves == 4


def test_a_session_that_still_waits_for_pilots_counts_as_at_work():
    world = World()
    world.open("s", 4)
    world.join(4)
    world.work("s")
    world.open("t", 4)
    world.leave()
    world.pass_time(3 * LIMITS.lend_after)
    assert world.counts == {"s": 2, "t": 2}
    world.join(4, session="t")
    assert world.counts == {"s": 4, "t": 4}


def test_a_pilot_without_a_worker_leaves_after_a_while_and_says_why():
    world = World()
    world.open("s", 1)
    world.join(2)
    world.pass_time(LIMITS.user.pilot_idle + 1)
    assert list(world.ended) == ["2"]
    assert "no session of me has needed it for 30" in world.ended["2"]


def test_pilots_do_not_leave_while_a_session_opens_that_may_want_them():
    world = World()
    world.open("s", 2)
    world.join(2)
    world.close("s")
    world.leave()
    world.pass_time(LIMITS.user.pilot_idle - 1)
    world.open("t", 2, ready=False)
    world.pass_time(60)
    world.make_ready("t")
    assert world.counts == {"t": 2}


def test_a_pilot_serves_those_of_the_users_sessions_that_run_its_versions():
    world = World()
    world.open("s", 2)
    world.open("o", 2, versions=OTHER)
    world.join(1, versions=OTHER, session="s")
    world.join(1)
    assert dict(world.workers.values()) == {"o": "1", "s": "2"}


def test_a_pilot_that_fits_no_session_of_its_user_is_refused_unless_its_own_is_closed():
    world = World()
    world.open("s", 1)
    world.join(1, versions=OTHER)
    assert "root differ" in world.ended["1"]
    world.join(1, versions=OTHER, session="closed meanwhile")
    assert list(world.ended) == ["1"]
    assert not world.workers


def test_a_pilot_serves_no_other_user():
    world = World()
    world.open("s", 2)
    world.user = "you"
    world.join(2)
    assert not world.workers
    assert world.registry.records("s") == ([], [])


def test_crashes_of_one_sessions_workers_cost_no_other_session_the_slot():
    world = World()
    world.open("s", 1)
    world.join(1)
    while world.workers:
        ((name, (_, pilot)),) = world.workers.items()
        del world.workers[name]
        world.registry.worker_exited(pilot, name, 1, 0, "", world.now)
        world.act()
    world.open("t", 1)
    assert world.counts == {"t": 1}


def test_what_is_at_hand_for_a_session_that_opens():
    world = World()
    world.open("s", 4)
    world.join(6, cores=2)
    world.work("s")
    world.open("t", 8, ready=False)
    assert world.registry.at_hand("t") == 8
    world.work("s", running=0)
    world.pass_time(LIMITS.lend_after + 2)
    assert world.registry.at_hand("t") == 12
    world.open("o", 8, versions=OTHER, ready=False)
    assert world.registry.at_hand("o") == 0


def test_pilots_far_from_the_data_count_half_and_are_left_for_near_ones():
    world = World()
    world.open("s", 1, ready=False)
    world.join(4, site="Far")
    world.open("t", 4, near=["Near"], ready=False)
    world.close("s")
    assert world.registry.at_hand("t") == 2
    world.make_ready("t")
    assert world.counts == {"t": 4}
    world.join(2, site="Near")
    world.leave()
    assert Counter(pilot in ("5", "6") for _, pilot in world.workers.values()) == {True: 2, False: 2}


def test_workers_on_a_pilot_that_is_silent_are_not_asked_for():
    world = World()
    world.open("s", 2)
    world.join(2)
    world.now += LIMITS.silent_after + 1
    world.registry.tick(world.now)
    world.open("t", 2)
    assert not world.stopping
    world.pass_time(1)
    assert world.counts == {"s": 1, "t": 1}


def test_limits_of_a_user_are_named_with_what_to_close():
    world = World("poor")
    with pytest.raises(ProxyError, match=r"poor may have 10 workers at once.*11 are too many; ask for 10"):
        world.open("s", 11)
    world.open("s", 6)
    with pytest.raises(ProxyError, match=r"s is at work with 6; close one .*; ask for 4 at most"):
        world.open("t", 5)
    world.open("t", 4)
    with pytest.raises(ProxyError, match=r"may have 2 sessions at once .* has s, t; close one"):
        world.open("u", 1)
    with pytest.raises(ProxyError, match="7 are too many"):
        world.registry.resize_session("s", 7)


def test_idle_sessions_leave_the_limit_to_those_at_work():
    world = World("poor")
    world.open("s", 10)
    world.join(12)
    world.pass_time(LIMITS.lend_after + 2)
    world.open("t", 8)
    world.leave()
    assert world.counts == {"s": 2, "t": 8}


def test_what_a_user_had_is_forgotten_with_the_last_pilot():
    world = World()
    world.open("s", 1)
    world.join(1)
    world.close("s")
    world.registry.bye("1", "end", world.now)
    world.pass_time(LIMITS.forget_after + 2)
    assert world.registry._users == {}
