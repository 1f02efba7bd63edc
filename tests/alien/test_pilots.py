"""Pilots go where the bytes are, within what the sites can run, the same way every time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.jdl import Expression, Jdl, parse, production_range, render, validate
from gridproof.alien.pilots import PilotRequest, pilot_jdl, plan_by_files, plan_pilots, requirements
from gridproof.alien.wire import REQUEST_LIMIT
from gridproof.errors import JdlError
from gridproof.localgrid.jobs.requirements import read_requirements

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


@given(st.integers(1, 60), files_of, capacities)
def test_all_pilots_are_placed_and_no_site_is_overfilled_while_another_has_room(
    pilots: int, files: list[tuple[int, tuple[str, ...]]], capacity: dict[str, int]
) -> None:
    requests = plan_pilots(pilots, files, SITES, capacity)
    assert sum(request.count for request in requests) == pilots
    assert all(request.count > 0 for request in requests)
    if 0 < pilots <= sum(capacity.values()):
        assert all(count <= capacity[site] for site, count in by_site(requests).items())
    assert requests == plan_pilots(pilots, files, SITES, capacity)


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
    assert plan_pilots(3, [], {}, {"SiteX": 10}) == [PilotRequest((), 3)]


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
    assert (jdl["InputFile"], jdl["CPUCores"], jdl["TTL"]) == (("LF:/x/pilot.json",), "2", 3600)
    assert (jdl["JobTag"], jdl["Price"]) == (("comment:session-1",), 2.0)
    assert not any(key.lower().startswith("output") for key in jdl)


def test_pilots_for_anywhere_require_nothing() -> None:
    assert "Requirements" not in pilot_jdl(PilotRequest((), 1), executable="/x", tag="t")


def broker(text: str, sites_of: dict[str, set[str]]) -> tuple[set[str], set[str]]:
    """Sites and CEs ("" for none: any) as JAliEn's broker takes them from Requirements.

    Written after ``TaskQueueUtils.extractJAParametersFromJDL``, independently of the embedded Grid's.
    ``sites_of``: the sites that are close to an SE.
    """
    name = r"(\w+::[\w-]+::[\w+-]+)"
    wanted = re.findall(rf'(?:^|[^!])member\(other.CloseSE,"{name}"\)', text)
    unwanted = re.findall(rf'!member\(other.CloseSE,"{name}"\)', text)
    sites = {site for se in wanted for site in sites_of[se]}
    sites -= {site for se in unwanted for site in sites_of[se]}
    return sites, set(re.findall(r'other.CE\s*==\s*"([^"]+)"', text))


se_names = st.from_regex(r"\A[A-Za-z]{1,8}::[A-Za-z0-9_-]{1,8}::[A-Za-z0-9_-]{1,8}\Z")


@given(st.lists(se_names, max_size=5, unique=True), st.lists(se_names, max_size=5, unique=True))
def test_the_broker_reads_requirements_as_they_are_meant(ses: list[str], ces: list[str]) -> None:
    request = PilotRequest(tuple(ses), 3, tuple(ces))
    text = parse(render(pilot_jdl(request, executable="/x", tag="t"))).text("Requirements")
    closeness = {se: {se, f"neighbour of {se}"} for se in ses}
    assert broker(text, closeness) == (set().union(*closeness.values()), set(ces))
    embedded = read_requirements(Jdl({"Requirements": Expression(text)} if text else {}))
    assert embedded.close_ses == {se.upper() for se in ses}
    assert embedded.ces == {ce.upper() for ce in ces}
    assert not embedded.no_ses | embedded.no_ces


def test_the_broker_still_reads_requirements_when_alien_has_added_its_own() -> None:
    ours = requirements(["ALICE::CERN::EOS", "ALICE::FZK::SE"], ["ALICE::CERN::CE"])
    text = f"{ours} && ( other.TTL > 600 ) && ( other.Price <= 1 ) && ( other.LocalDiskSpace > 0 )"
    sites = {"ALICE::CERN::EOS": {"CERN"}, "ALICE::FZK::SE": {"FZK"}}
    assert broker(text, sites) == ({"CERN", "FZK"}, {"ALICE::CERN::CE"})


def test_a_name_that_the_broker_would_not_read_is_refused_and_no_plan_has_it() -> None:
    for names in ((["A::B.C::D"],), (["no_se"],), ([], ['x"'])):
        with pytest.raises(JdlError, match="does not read the name"):
            requirements(*names)
    assert plan_pilots(2, [(GB, ("A::B.C::D",))], {"A::B.C::D": "B.C"}, {"B.C": 2}) == [PilotRequest((), 2)]


def test_the_split_by_storage_elements_names_a_file_for_each_pilot() -> None:
    requests = plan_by_files(4, [(f"/d/{n}.root", (f"A::S{n % 2}::SE",)) for n in range(10)])
    assert [(r.count, len(r.lfns)) for r in requests] == [(4, 4)]
    assert sorted(int(lfn[3]) % 2 for lfn in requests[0].lfns) == [0, 0, 1, 1]  # both sites alike
    jdl = pilot_jdl(requests[0], executable="/x", tag="t")
    validate(jdl)
    assert (jdl["Split"], jdl["SplitMaxInputFileNumber"]) == ("se", 1)
    assert jdl.strings("InputData") == tuple(f"LF:{lfn},nodownload" for lfn in requests[0].lfns)


@given(st.integers(1, 40), st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30))
def test_every_pilot_has_a_file_and_no_jdl_names_one_twice(pilots: int, names: list[str]) -> None:
    requests = plan_by_files(pilots, [(f"/d/{name}", ()) for name in names])
    assert sum(request.count for request in requests) == pilots
    assert all(len(set(request.lfns)) == request.count for request in requests)
    assert len(requests) == -(-pilots // len(set(names)))


def test_a_split_is_cut_at_the_limit_of_a_command() -> None:
    many = [(f"/alice/data/2026/run/{n:06}/AliESDs.root", ()) for n in range(20_000)]
    requests = plan_by_files(10_000, many)
    assert sum(request.count for request in requests) == 10_000
    assert len({lfn for request in requests for lfn in request.lfns}) == 10_000
    assert 2 < len(requests) < 10
    for request in requests:
        assert len(render(pilot_jdl(request, executable="/x", tag="t"))) * 1.1 < REQUEST_LIMIT


def test_a_split_by_storage_elements_needs_files() -> None:
    with pytest.raises(JdlError, match="there are none"):
        plan_by_files(4, [])
