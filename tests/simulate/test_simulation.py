"""Whatever happens to a simulated Grid, each entry counts once, and nothing is faster than the bound."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridproof.simulate import scenario
from gridproof.simulate.report import simulate

SITES = ("A", "B", "C")

sites = st.lists(
    st.fixed_dictionaries(
        {
            "slots": st.integers(1, 4),
            "rate": st.floats(100, 5_000),
            "spread": st.floats(0, 0.5),
            "slow": st.sampled_from([0.0, 0.5]),
            "storage": st.sampled_from([2e5, 1e6, float("inf")]),
            "outgoing": st.sampled_from([1e5, float("inf")]),
            "arrive": st.sampled_from([[0.0, 0.0], [0.0, 4.0], [3.0, 3.0]]),
        }
    ),
    min_size=1,
    max_size=3,
).map(lambda made: [{"name": name, **site} for name, site in zip(SITES, made, strict=False)])
datasets = st.fixed_dictionaries(
    {
        "files": st.integers(1, 12),
        "entries": st.integers(0, 30_000),
        "entry_bytes": st.just(100.0),
        "replicas": st.integers(0, 3),
        "file_spread": st.sampled_from([0.0, 0.9]),
        "cost_spread": st.sampled_from([0.0, 0.5]),
        "placement": st.sampled_from(["slots", "even"]),
        "known": st.booleans(),
    }
)
when = st.floats(0, 6)


def outages(names):
    return st.lists(
        st.fixed_dictionaries({"site": st.sampled_from(names), "at": when, "lasts": st.floats(0.5, 8)}),
        max_size=2,
    )


@st.composite
def grids(draw):
    places = draw(sites)
    names = [place["name"] for place in places]
    failures = {
        "deaths": [{"at": at} for at in draw(st.lists(when, max_size=4))],
        "replacement": draw(st.floats(0.1, 3)),
        "notice": draw(st.floats(0, 2)),
        "hang_rate": draw(st.sampled_from([0.0, 0.02])),
        "storage": draw(outages(names)),
        "connections": draw(outages(names)),
        "connect_timeout": 0.5,
        "read_timeout": draw(st.sampled_from([1.0, 30.0])),
    }
    settings = {
        "dataset": draw(datasets),
        "sites": places,
        "failures": failures,
        "seed": draw(st.integers(0, 99)),
    }
    return scenario.build(scenario.Scenario, settings, "drawn")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grids())
def test_each_entry_counts_once_whatever_fails(grid):
    report = simulate(grid)
    # A file may have become unreadable, or a packet have met too many deaths: then the query says so.
    assert (
        report.exact or report.error.split(" ")[0].startswith("/simulated/") or "workers died" in report.error
    )
    if report.exact:
        assert report.makespan >= report.bound.seconds * (1 - 1e-9)


def test_without_failures_nothing_is_run_in_vain_and_all_counts(make):
    report = simulate(make())
    assert report.exact
    assert not report.error
    assert report.run_twice == pytest.approx(0.0, abs=0.02)


def test_the_same_seed_gives_the_same(make):
    grid = make(failures={"death_rate": 200, "replacement": 1, "hang_rate": 0.01}, seed=5)
    first, second = simulate(grid), simulate(grid)
    assert replace(first, wall=0) == replace(second, wall=0)
    other = simulate(replace(grid, seed=6))
    assert other.makespan != first.makespan


def test_with_a_replica_at_every_site_all_is_read_locally(make):
    report = simulate(make(dataset={"replicas": 2}))
    assert report.locality == 1.0


def test_what_is_elsewhere_is_read_elsewhere_when_that_is_sooner(make):
    sites = [{"name": "A", "slots": 1}, {"name": "B", "slots": 7, "storage": 0}]
    report = simulate(make(dataset={"replicas": 1, "entries": 400_000}, sites=sites))
    assert report.exact
    assert 0.05 < report.locality < 0.5
    assert report.ratio < 1.15


def test_a_storage_element_that_carries_little_bounds_the_makespan(make):
    grid = make(sites=[{"name": "A", "slots": 8, "storage": 2e6}], dataset={"replicas": 1})
    report = simulate(grid)
    assert report.bound.storage == pytest.approx(20.0)
    assert 1.0 <= report.ratio < 1.25


def test_a_slow_worker_does_not_hold_up_the_end():
    report = simulate(scenario.load("tails"))
    assert report.exact
    assert report.ratio < 1.15


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_killed_worker_costs_its_lost_packets_and_little_more(share):
    grid = scenario.load("faults")
    whole = simulate(replace(grid, failures=scenario.Failures()))
    death = scenario.Death(share * whole.makespan)
    report = simulate(replace(grid, failures=replace(grid.failures, deaths=(death,))))
    assert report.exact
    assert report.deaths == 1
    assert report.ratio < 1.15


def test_a_dead_storage_element_is_replaced_by_the_other_replicas(make):
    outage = {"storage": [{"site": "A", "at": 2}], "connect_timeout": 1, "read_timeout": 2}
    report = simulate(make(failures=outage))
    assert report.exact


def test_late_workers_get_work(make):
    sites = [{"name": "A", "slots": 2}, {"name": "B", "slots": 6, "arrive": [5, 5]}]
    report = simulate(make(sites=sites))
    assert report.exact
    assert report.ratio < 1.15


def test_a_query_whose_workers_all_die_for_good_is_reported_as_hanging(make):
    report = simulate(make(failures={"deaths": [{"at": 1, "workers": 8}]}))
    assert "hangs" in report.error
    assert not report.exact
