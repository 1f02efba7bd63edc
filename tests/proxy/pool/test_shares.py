"""Slots are shared fairly among a user's sessions, all of them are used, and nothing moves without need."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridproof.proxy.pool.shares import Claim, Slot, share


def slots(pilots, cores=1, sites=2):
    return [Slot(f"p{p:03}", n, f"SITE{p % sites}") for p in range(pilots) for n in range(cores)]


def claim(name, wanted, held=(), **changes):
    return Claim(name, wanted, held=frozenset(held), **changes)


def apply(claims, free, limit=None):
    """Carry shares out until nothing is to be done: workers that are told to leave do; returns both."""
    free = set(free)
    for _ in range(100):
        done = share(claims, free, limit)
        if not (done.take or done.give or any(c.leaving for c in claims)):
            return claims, free
        held = {c.session: set(c.held) for c in claims}
        for name, slot in done.take:
            free.remove(slot)
            held[name].add(slot)
        left = {slot for c in claims for slot in c.leaving}
        going = {c.session: set() for c in claims}
        for name, slot in done.give:
            held[name].remove(slot)
            going[name].add(slot)
        free |= left
        claims = [
            replace(c, held=frozenset(held[c.session]), leaving=frozenset(going[c.session])) for c in claims
        ]
    pytest.fail("slots go to and fro without end")


def counts(claims):
    return {c.session: len(c.held) for c in claims}


def test_two_sessions_at_work_have_half_each():
    there = slots(8)
    claims, free = apply([claim("a", 8, there), claim("b", 8)], [])
    assert counts(claims) == {"a": 4, "b": 4}
    assert not free


def test_an_idle_session_lends_what_another_one_wants_and_gets_it_back():
    there = slots(8)
    idle, _ = apply([claim("a", 8, there, at_work=False), claim("b", 6)], [])
    assert counts(idle) == {"a": 2, "b": 6}
    again, _ = apply([replace(c, at_work=True) for c in idle], [])
    assert counts(again) == {"a": 4, "b": 4}


def test_an_idle_session_keeps_what_nobody_wants():
    there = slots(4)
    assert share([claim("a", 4, there, at_work=False)], []) == share([], [])
    assert counts(apply([claim("a", 4, there, at_work=False), claim("b", 2)], slots(6)[4:])[0])["a"] == 4


def test_workers_are_spread_over_pilots_first_and_then_over_sites():
    claims, _ = apply([claim("a", 4)], slots(4, cores=4))
    assert Counter(slot.pilot for slot in claims[0].held) == {f"p{p:03}": 1 for p in range(4)}
    claims, _ = apply([claim("a", 2)], slots(4))
    assert Counter(slot.site for slot in claims[0].held) == {"SITE0": 1, "SITE1": 1}
    smaller, _ = apply([replace(apply([claim("a", 16)], slots(4, cores=4))[0][0], wanted=4)], [])
    assert Counter(slot.pilot for slot in smaller[0].held) == {f"p{p:03}": 1 for p in range(4)}


def test_slots_near_the_data_are_taken_first_and_replace_those_that_are_far():
    near = frozenset({"SITE1"})
    (first,), _ = apply([claim("a", 3, near=near)], slots(4))
    assert Counter(slot.site for slot in first.held) == {"SITE1": 2, "SITE0": 1}
    (later,), free = apply([first], [Slot("new", 0, "SITE1"), Slot("new", 1, "SITE1")])
    assert {slot.site for slot in later.held} == near
    assert len(later.held) == 3
    assert len(free) == 2


def test_a_slot_that_one_session_cannot_use_is_another_ones():
    one, two = slots(2)
    claims, _ = apply([claim("a", 2, barred={one, two}), claim("b", 1)], [one, two])
    assert counts(claims) == {"a": 0, "b": 1}


def test_workers_that_leave_count_until_they_are_gone():
    one, two = slots(2)
    assert not share([claim("a", 1, leaving={one})], [two]).take
    done = share([Claim("a", 1, held=[two]), Claim("b", 1, leaving=[one])], [])
    assert not done.give


def test_slots_are_kept_for_a_session_that_opens():
    there = slots(4)
    opens, other = claim("a", 4, opening=True), claim("b", 4, there)
    assert len(share([opens, other], []).give) == 2
    done = share([opens, claim("b", 4, there[:2])], there[2:])
    assert not done.take
    assert not done.give


def test_a_limit_for_all_sessions_together_is_kept_and_shared():
    claims, free = apply([claim("a", 9), claim("b", 9)], slots(20), limit=7)
    assert sorted(counts(claims).values()) == [3, 4]
    assert len(free) == 13


@pytest.mark.parametrize(
    ("wanted", "there", "fair"),
    [
        ((4, 4), 5, (2, 3)),
        ((1, 9, 9), 11, (1, 5, 5)),
        ((2, 2), 9, (2, 2)),
        ((3, 0, 3), 4, (0, 2, 2)),
        ((5, 5, 5), 0, (0, 0, 0)),
    ],
)
def test_whoever_wants_less_than_its_share_has_it_and_the_rest_goes_to_the_others(wanted, there, fair):
    claims, _ = apply([claim(str(n), some) for n, some in enumerate(wanted)], slots(there))
    assert tuple(sorted(counts(claims).values())) == fair


@st.composite
def situations(draw, barring=True):
    """Sessions and slots, in any state that can be."""
    there = slots(draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    names = [f"s{n}" for n in range(draw(st.integers(1, 4)))]
    owner = {slot: draw(st.sampled_from([*names, "", "", *(f"-{n}" for n in names)])) for slot in there}
    sites = sorted({slot.site for slot in there})
    claims = []
    for name in names:
        held = frozenset(s for s in there if owner[s] == name)
        leaving = frozenset(s for s in there if owner[s] == f"-{name}")
        some = st.frozensets(st.sampled_from(there), max_size=4)
        claims.append(
            Claim(
                name,
                draw(st.integers(0, 12)),
                draw(st.booleans()),
                held,
                leaving,
                (draw(some) - held if barring else frozenset()),
                draw(st.sampled_from([frozenset(), frozenset(sites[:1])])),
            )
        )
    return claims, [slot for slot in there if not owner[slot]]


@given(situations())
@settings(max_examples=100, deadline=None)
def test_one_step_takes_free_slots_once_and_gives_back_what_is_held(situation):
    claims, free = situation
    done = share(claims, free)
    taken = [slot for _, slot in done.take]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(free)
    held = {c.session: set(c.held) for c in claims}
    for name, slot in done.give:
        held[name].remove(slot)
    by_name = {c.session: c for c in claims}
    for name, slot in done.take:
        assert slot not in by_name[name].barred
    for c in claims:
        living = len(c.held) + len(c.leaving) + sum(name == c.session for name, _ in done.take)
        assert living <= max(c.wanted, len(c.held) + len(c.leaving))
    assert done == share(claims, free), "the same always"
    assert done == share(claims, free[::-1]), "in whatever order they are named"


@given(situations())
@settings(max_examples=200, deadline=None)
def test_in_the_end_all_is_used_and_nobody_envies_anybody(situation):
    claims, free = apply(*situation)
    for c in claims:
        assert len(c.held) <= c.wanted
        if len(c.held) < c.wanted:
            assert free <= set(c.barred), "everything is used when somebody wants it"
            for other in claims:
                if other is c or (other.at_work and not c.at_work):
                    continue
                richer = len(other.held) > len(c.held) + 1 or (not other.at_work and c.at_work)
                assert not (richer and set(other.held) - set(c.barred)), "nobody has two more than another"


@given(situations(barring=False), st.data())
@settings(max_examples=60, deadline=None)
def test_few_workers_move_when_a_session_comes_to_rest_or_to_work(situation, data):
    before, free = apply(*situation)
    turned = data.draw(st.sampled_from([c.session for c in before]))
    changed = [replace(c, at_work=c.at_work ^ (c.session == turned)) for c in before]
    after, _ = apply(changed, free)
    old, new = counts(before), counts(after)
    lost = sum(max(0, old[name] - new[name]) for name in old)
    moved = sum(len(set(b.held) - set(a.held)) for b, a in zip(before, after, strict=True))
    assert moved == lost or any(c.near for c in before), "only those move that must"


@given(situations(barring=False), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_limit_is_never_passed_by_what_is_taken(situation, limit):
    claims, free = situation
    living = sum(len(c.held) + len(c.leaving) for c in claims)
    assert len(share(claims, free, limit).take) <= max(0, limit - living)
