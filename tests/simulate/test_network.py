"""Reads share links fairly, and never carry more than these do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.simulate.clock import Clock, Process
from gridproof.simulate.network import TOLERANCE, Link, Read


def forever():
    return False


def start(clock, ends, links, entries=100, rate=10.0, size=1.0, **limits):
    """A process that reads, and writes down what became of it and when."""

    def steps():
        read = Read(clock, tuple(links), entries, rate, size, **limits)
        news = yield read.news
        ends.append((news, clock.now))
        read.stop()

    return Process(clock, steps())


def run(clock):
    clock.run(forever)


def test_a_read_alone_goes_at_its_workers_rate():
    clock, ends = Clock(), []
    start(clock, ends, [Link(1000.0)])
    run(clock)
    assert ends == [("done", 10.0)]


def test_reads_that_want_more_than_a_link_carries_are_slowed_alike():
    clock, ends, link = Clock(), [], Link(10.0)
    for _ in range(2):
        start(clock, ends, [link])
    run(clock)
    assert [news for news, _ in ends] == ["done", "done"]
    for _, when in ends:
        assert when == pytest.approx(20.0, rel=2 * TOLERANCE)


def test_a_read_speeds_up_when_another_one_has_ended():
    clock, ends, link = Clock(), [], Link(10.0)
    start(clock, ends, [link], entries=100)
    start(clock, ends, [link], entries=50)
    run(clock)
    assert ends[0][1] == pytest.approx(10.0, rel=3 * TOLERANCE)
    assert ends[1][1] == pytest.approx(15.0, rel=3 * TOLERANCE)


def test_the_narrowest_link_of_a_way_decides():
    clock, ends = Clock(), []
    start(clock, ends, [Link(1000.0), Link(5.0), Link(8.0)])
    run(clock)
    assert ends[0][1] == pytest.approx(20.0, rel=2 * TOLERANCE)


def test_a_read_over_a_cut_link_is_stuck_after_the_time_out_and_not_before():
    clock, ends, link = Clock(), [], Link(1000.0)
    start(clock, ends, [link], timeout=7.0)
    clock.at(3.0, link.cut)
    run(clock)
    assert ends == [("stuck", 10.0)]


def test_a_link_that_is_mended_in_time_does_no_harm_but_delay():
    clock, ends, link = Clock(), [], Link(1000.0)
    start(clock, ends, [link], timeout=7.0)
    clock.at(3.0, link.cut)
    clock.at(5.0, link.mend)
    run(clock)
    assert ends == [("done", 12.0)]


def test_a_late_read_says_so_and_can_be_waited_for_again():
    clock, ends = Clock(), []

    def steps():
        read = Read(clock, (), 100, 10.0, 1.0, patience=4.0)
        ends.append(((yield read.news), clock.now))
        ends.append(((yield read.wait_again(2.0)), clock.now))
        ends.append(((yield read.wait_again(20.0)), clock.now))

    Process(clock, steps())
    run(clock)
    assert ends == [("late", 4.0), ("late", 6.0), ("done", 10.0)]


def test_a_hung_read_never_ends_by_itself():
    clock, ends = Clock(), []
    start(clock, ends, [], hung=True)
    run(clock)
    assert not ends


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(1, 50), st.floats(0, 30)), min_size=1, max_size=8),
    st.floats(5, 200),
)
def test_a_link_never_carries_more_than_it_can(reads, capacity):
    clock, ends, link = Clock(), [], Link(capacity)
    for entries, rate, begin in reads:
        clock.at(begin, start, clock, ends, [link], entries, rate)
    run(clock)
    assert len(ends) == len(reads)
    total = sum(entries for entries, _, _ in reads)
    assert link.carried == pytest.approx(total)
    first, last = min(begin for *_, begin in reads), max(when for _, when in ends)
    assert total <= (last - first) * capacity * (1 + 1e-6)
