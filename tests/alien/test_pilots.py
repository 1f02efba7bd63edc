"""Pilots go where the bytes are, within what the sites can run, the same way every time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.jdl import Expression, parse, production_range, render, validate
from gridproof.alien.pilots import PilotRequest, pilot_jdl, pilot_requests, plan_pilots
from gridproof.alien.wire import REQUEST_LIMIT
from gridproof.errors import JdlError

SITES = {f"Local::Site{n}::SE": f"Site{n}" for n in range(1, 6)}
GB = 10**9

files_of = st.lists(
    st.tuples(
        st.one_of(st.just(-1), st.integers(0, 5 * GB)),
        st.lists(st.sampled_from([*SITES, "Other::Place::SE"]), max_size=3, unique=True).map(tuple),
    ),
    max_size=30,
)
capacities = st.dictionaries(st.sampled_from(list(SITES.values())), st.integers(0, 40), max_size=5)


def by_site(requests: list[PilotRequest]) -> dict[str, int]:
    return {request.ses[0].split("::")[1] if request.ses else "": request.count for request in requests}


@given(st.integers(1, 60), files_of, capacities, st.integers(1, 4))
def test_all_workers_are_placed_and_no_site_is_overfilled_while_another_has_room(
    workers: int, files: list[tuple[int, tuple[str, ...]]], capacity: dict[str, int], cores: int
) -> None:
    requests = plan_pilots(workers, files, SITES, capacity, cores)
    pilots = -(-workers // cores)
    assert sum(request.count for request in requests) == pilots
    assert all(request.count > 0 for request in requests)
    if 0 < pilots <= sum(capacity.values()):
        assert all(count <= capacity[site] for site, count in by_site(requests).items())
    assert requests == plan_pilots(workers, files, SITES, capacity, cores)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.integers(1, 200))
def test_shares_are_proportional_to_bytes_where_nothing_limits(sizes: list[int], workers: int) -> None:
    files = [(size, (se,)) for size, se in zip(sizes, SITES, strict=False)]
    counts = by_site(plan_pilots(workers, files, SITES, dict.fromkeys(SITES.values(), workers)))
    for size, site in zip(sizes, SITES.values(), strict=False):
        assert abs(counts.get(site, 0) - workers * size / sum(sizes)) < 1


def test_a_site_with_all_bytes_gets_all_pilots_though_names_differ_in_case() -> None:
    files = [(GB, ("LOCAL::SITE2::SE",))] * 3
    assert plan_pilots(6, files, SITES, {"SITE2": 10, "SITE1": 10}) == [
        PilotRequest(("Local::Site2::SE",), 6)
    ]


def test_what_a_full_site_cannot_run_goes_to_others_with_data_first() -> None:
    files = [(GB, ("Local::Site1::SE",)), (GB // 4, ("Local::Site2::SE",))]
    capacity = {"Site1": 2, "Site2": 3, "Site3": 8}
    assert by_site(plan_pilots(6, files, SITES, capacity)) == {"Site1": 2, "Site2": 3, "Site3": 1}


def test_replicas_balance_what_one_site_cannot_run() -> None:
    both = ("Local::Site1::SE", "Local::Site2::SE")
    files = [(GB, both)] * 10
    assert by_site(plan_pilots(8, files, SITES, {"Site1": 8, "Site2": 8})) == {"Site1": 4, "Site2": 4}
    assert by_site(plan_pilots(8, files, SITES, {"Site1": 2, "Site2": 8})) == {"Site1": 2, "Site2": 6}
    assert by_site(plan_pilots(8, files, SITES, {"Site1": 0, "Site2": 8})) == {"Site2": 8}


def test_a_site_with_bytes_of_its_own_takes_less_of_the_shared_ones_when_it_is_full() -> None:
    files = [(3 * GB, ("Local::Site1::SE",)), (3 * GB, ("Local::Site1::SE", "Local::Site2::SE"))]
    assert by_site(plan_pilots(6, files, SITES, {"Site1": 3, "Site2": 6})) == {"Site1": 3, "Site2": 3}


@pytest.mark.parametrize("files", [[], [(GB, ())], [(GB, ("Other::Place::SE",))]])
def test_without_data_at_the_sites_all_are_alike(files: list[tuple[int, tuple[str, ...]]]) -> None:
    capacity = {"Site1": 2, "Site2": 2, "Site3": 2}
    assert by_site(plan_pilots(6, files, SITES, capacity)) == {"Site1": 2, "Site2": 2, "Site3": 2}


def test_more_than_the_grid_can_run_is_asked_for_all_the_same() -> None:
    assert sum(r.count for r in plan_pilots(50, [], SITES, {"Site1": 2, "Site2": 2})) == 50


def test_without_any_knowledge_pilots_go_anywhere() -> None:
    assert plan_pilots(5, [], {}, {}) == [PilotRequest((), 5)]
    assert plan_pilots(5, [], {}, {"SiteX": 10}, cores=2) == [PilotRequest((), 3)]


def test_all_ses_of_a_site_that_hold_data_are_named() -> None:
    sites = {"A::X::ONE": "X", "A::X::TWO": "X", "A::X::EMPTY": "X"}
    files = [(5, ("A::X::TWO",)), (5, ("a::x::one",))]
    assert plan_pilots(2, files, sites, {"X": 2}) == [PilotRequest(("A::X::ONE", "A::X::TWO"), 2)]


def test_a_production_jdl_asks_for_so_many_pilots_near_these_ses() -> None:
    request = PilotRequest(("A::B::C", "A::B-T2::D"), 12)
    jdl = pilot_jdl(
        request,
        executable="/x/pilot.sh",
        tag="session-1",
        arguments="--join join.json",
        input_files=["/x/pilot.json"],
        cores=2,
        ttl=3600,
        memory="8GB",
        price=2,
        packages=["VO_ALICE@ROOT::v6"],
    )
    validate(jdl)
    assert parse(render(jdl)) == jdl
    assert production_range(jdl) == range(1, 13)
    assert jdl["Requirements"] == Expression(
        '( member(other.CloseSE,"A::B::C") || member(other.CloseSE,"A::B-T2::D") )'
    )
    # as the broker reads it
    pattern = r'member\(other.CloseSE,"([^:]*::[^:]*::[^:]*)"\)'
    assert re.findall(pattern, jdl.text("Requirements")) == list(request.ses)
    assert (jdl["InputFile"], jdl["CPUCores"], jdl["TTL"]) == (("LF:/x/pilot.json",), "2", 3600)
    assert (jdl["JobTag"], jdl["Price"]) == (("comment:session-1",), 2.0)
    assert not any(key.lower().startswith("output") for key in jdl)


def test_pilots_for_anywhere_require_nothing() -> None:
    assert "Requirements" not in pilot_jdl(PilotRequest((), 1), executable="/x", tag="t")


def test_the_split_over_storage_elements_lists_the_data_without_downloading_it() -> None:
    lfns = [f"/d/{n}.root" for n in range(10)]
    jdl = pilot_jdl(PilotRequest((), 4), executable="/x", tag="t", strategy="se", lfns=lfns)
    validate(jdl)
    assert jdl["Split"] == "se"
    assert jdl["SplitMaxInputFileNumber"] == 3
    assert jdl.strings("InputData")[0] == "LF:/d/0.root,nodownload"


def test_a_strategy_must_be_known_and_possible() -> None:
    with pytest.raises(JdlError, match="there are none"):
        pilot_jdl(PilotRequest((), 4), executable="/x", tag="t", strategy="se")
    with pytest.raises(JdlError, match="not 'best'"):
        pilot_jdl(PilotRequest((), 4), executable="/x", tag="t", strategy="best")


def test_one_split_serves_all_requests_and_is_cut_only_at_the_commands_limit() -> None:
    requests = [PilotRequest(("A::B::C",), 4), PilotRequest(("A::D::E",), 6)]
    assert list(pilot_requests(requests, "production", ["/a"])) == [(r, ["/a"]) for r in requests]
    few = [f"/d/{n}.root" for n in range(10)]
    assert list(pilot_requests(requests, "se", few)) == [(PilotRequest((), 10), few)]
    many = [f"/alice/data/2026/run/{n:06}/AliESDs.root" for n in range(20_000)]
    cut = list(pilot_requests(requests, "se", many))
    assert [lfn for _, lfns in cut for lfn in lfns] == many
    assert len(cut) > 5
    for request, lfns in cut:
        text = render(pilot_jdl(request, executable="/x", tag="t", strategy="se", lfns=lfns))
        assert len(text) * 1.1 < REQUEST_LIMIT
