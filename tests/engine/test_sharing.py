"""Workers are shared among queries evenly, and change between them seldom."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gridproof.engine.master.sharing import TURN_SECONDS, Sharing


def work(sharing, workers, queries, now):
    """Each worker asks once, and every query has packets for it; returns where each one works."""
    places = {}
    for worker in workers:
        places[worker] = sharing.order(worker, queries, now)[0]
        sharing.works(worker, places[worker], now)
    return places


def test_a_second_query_gets_half_of_the_workers():
    sharing = Sharing()
    assert set(work(sharing, "abcd", [1], 0.0).values()) == {1}
    work(sharing, "abcd", [1, 2], 1.0)
    assert Counter(work(sharing, "abcd", [1, 2], 2.0).values()) == {1: 2, 2: 2}


def test_workers_stay_while_that_is_fair():
    sharing = Sharing()
    before = work(sharing, "abcde", [1, 2], 0.0)
    assert work(sharing, "abcde", [1, 2], 1.0) == before


def test_a_single_worker_serves_two_queries_by_turns():
    sharing = Sharing()
    places = [work(sharing, "a", [1, 2], now * TURN_SECONDS)["a"] for now in range(4)]
    assert places == [1, 2, 1, 2]


def test_a_query_that_ends_leaves_its_workers_to_the_others():
    sharing = Sharing()
    work(sharing, "abcd", [1, 2], 0.0)
    assert set(work(sharing, "abcd", [2], 1.0).values()) == {2}


def test_workers_that_rest_or_are_gone_do_not_count():
    sharing = Sharing()
    work(sharing, "ab", [1], 0.0)
    sharing.rests("a")
    sharing.rests("b")
    work(sharing, "c", [2], 0.0)
    assert sharing.order("d", [2, 1], 0.0) == [1, 2]


@given(st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=5, unique=True))
def test_shares_differ_by_one_worker_at_most(workers, queries):
    sharing = Sharing()
    names = [f"w{number}" for number in range(workers)]
    work(sharing, names, queries[:1], 0.0)
    for second in range(2):
        places = work(sharing, names, queries, second)
    shares = [list(places.values()).count(query) for query in queries]
    assert max(shares) - min(shares) <= 1
