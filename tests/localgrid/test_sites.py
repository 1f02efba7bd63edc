"""Commands about sites, beyond what was recorded of them."""

from __future__ import annotations

import pytest

from gridproof.errors import LocalGridError
from gridproof.localgrid import LocalGrid
from tests.localgrid.conftest import HOME, Raw


@pytest.fixture(scope="module")
def raw(grid: LocalGrid):
    with Raw(grid.environment) as raw:
        yield raw


def test_ces_are_listed_by_name_with_a_sum_and_none_is_in_a_partition(raw: Raw) -> None:
    *ces, unassigned, total = raw.rows("listCEs", "-s", "-v")
    assert [row["ceName"] for row in ces] == [f"LOCAL::SITE{n}::CE" for n in (1, 2, 3)]
    assert unassigned["ceName"] == "UNASSIGNED::SITE"
    assert total == {"message": "\n    TOTAL: 4 CEs\t \t       6\t       3"}
    assert ces[0]["message"].split("\n")[1].endswith("Partitions")
    (one,) = raw.rows("listCEs", "-s", "local::site2::ce")
    assert one["maxRunning"] == "2"
    assert [list(row) for row in raw.rows("listCEs", "-p", "x")] == [["message"]]
    assert "Member CEs" in raw.rows("listpartitions", "-v")[0]["message"]


def ses(message: str) -> list[str]:
    return [line.split()[0] for line in message.splitlines()]


def test_distances_are_those_from_a_site_to_all_ses_or_to_the_replicas_of_a_file(
    grid: LocalGrid, raw: Raw, tmp_path
) -> None:
    (tmp_path / "file").write_text("x")
    grid.put(tmp_path / "file", f"{HOME}/distances", grid.se_names[:2])
    shown = raw.rows("listSEDistance", "-site", "Site2", "-read", f"{HOME}/distances")[0]["message"]
    assert ses(shown) == ["LOCAL::SITE2::SE", "LOCAL::SITE1::SE"]
    assert len(ses(raw.rows("listSEDistance", "-site", "Site2", "-read")[0]["message"])) == 3
    assert raw.rows("listSEDistance", "-qos", "tape")[0]["message"] == ""
    assert raw.ask("listSEDistance", "-read", "/nowhere")["metadata"]["exitcode"] == "2"


def test_who_says_where_they_are_reads_from_there(grid: LocalGrid, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    grid.put(tmp_path / "file", f"{HOME}/near", grid.se_names)
    with Raw(grid.environment) as raw:
        assert raw.rows("setSite", "Site3")[0]["message"] == "Setting close site to Site3 (was )"
        assert raw.rows("access", "read", f"{HOME}/near")[0]["se"] == "LOCAL::SITE3::SE"
        assert raw.rows("setSite")[0]["message"] == "Keeping the current close site: Site3"
        assert raw.ask("setSite", "Nowhere")["metadata"]["exitcode"] == "22"
        assert raw.rows("setSite", "Site1")[0]["message"] == "Setting close site to Site1 (was Site3)"


@pytest.mark.parametrize(
    ("lfn", "ses", "reason"),
    [
        (f"{HOME}/far", ["Local::Site9::SE"], r"storage element is left; there are Local::Site1::SE, "),
        ("/elsewhere/file", [], "Permission denied: /$"),
    ],
)
def test_why_a_file_cannot_be_put_somewhere_is_told(grid: LocalGrid, tmp_path, lfn, ses, reason) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocalGridError, match=reason):
        grid.put(tmp_path / "file", lfn, ses)


def test_who_has_jobs_is_shown_as_sorted_as_wanted(grid: LocalGrid, raw: Raw) -> None:
    jdl = 'Executable = "/bin/none"; Requirements = other.CE == "A::B::C";'
    (path := grid.root / "none").write_text("x")
    grid.put(path, f"{HOME}/waits")
    jdl = jdl.replace("/bin/none", f"{HOME}/waits")
    with Raw(grid.environment_of("guest")) as guest:
        jobs = {raw: raw.submit(jdl), guest: guest.submit(jdl)}
        second = guest.submit(jdl)

        def names(*options: str) -> list[str]:
            lines = raw.rows("w", "-nokeys", *options)[0]["message"].splitlines()[2:-2]
            return [line.split()[1] for line in lines]

        assert (names(), names("-r")) == (["gridproof", "guest"], ["guest", "gridproof"])
        assert (names("-w"), names("-w", "-r")) == (["guest", "gridproof"], ["gridproof", "guest"])
        assert raw.rows("uptime", "-nomsg") == [
            {"running jobs": " 0", "waiting jobs": " 3", "active users": " 2"}
        ]
        guest.rows("kill", jobs[guest], second)
        raw.rows("kill", jobs[raw])
    assert names() == []


def test_help_comes_also_to_who_wants_no_messages(raw: Raw) -> None:
    assert raw.rows("du", "-nomsg", "-h") == raw.rows("du", "-h")
