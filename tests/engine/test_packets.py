from hypothesis import given
from hypothesis import strategies as st

from gridproof.engine.packets import Packet, cut


@given(st.integers(0, 10**6), st.integers(-5, 10**5), st.integers(1, 10**6), st.lists(st.integers(0, 10**6)))
def test_a_cut_makes_progress_and_stays_inside_the_file(first, wanted, more, clusters):
    entries = first + more
    end = cut(first, wanted, entries, sorted(clusters))
    assert first < end <= entries


def test_a_cut_lies_on_a_cluster_boundary_when_one_is_near():
    assert cut(0, 900, 10_000, range(0, 10_000, 1_000)) == 1_000
    assert cut(1_000, 2_600, 10_000, range(0, 10_000, 1_000)) == 4_000


def test_a_cut_ignores_boundaries_that_are_far_from_what_is_wanted():
    assert cut(0, 100, 10_000, range(0, 10_000, 1_000)) == 100


def test_a_crumb_at_the_end_is_taken_along():
    assert cut(0, 1_000, 1_400, [0]) == 1_400


def test_packets_survive_their_travel():
    packet = Packet(3, 1, 0, -1, 500, True, ("A::B::SE",))
    assert Packet.from_message(packet.to_message()) == packet
