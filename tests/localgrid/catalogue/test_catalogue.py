"""The file catalogue alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking, CatalogueError, normal, pfn_path
from gridproof.localgrid.users import DEFAULT_USERS, Users

HOME = "/local/user/g/gproof"


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(tmp_path / "catalogue.db", Users(DEFAULT_USERS))
    catalogue.make_root(1_000)
    yield catalogue
    catalogue.close()


def add(catalogue: Catalogue, lfn: str, user: str = "gridproof", se: str = "A", perm: str = "644") -> None:
    catalogue.commit(Booking("t", lfn, f"guid-{lfn}", se, user), size=3, md5="m", perm=perm, now_ms=2_000)


def code(error: pytest.ExceptionInfo[CatalogueError]) -> int:
    return error.value.code


def test_a_file_brings_its_directories_and_keeps_its_replicas_in_order(catalogue: Catalogue) -> None:
    for se in ("B", "A", "B"):
        add(catalogue, "/local/x/y/file.root", se=se)
    assert catalogue.replicas("guid-/local/x/y/file.root") == ["B", "A"]
    assert [entry.path for entry in catalogue.children("/local/x")] == ["/local/x/y/"]
    assert catalogue.usage() == {"A": (1, 3), "B": (1, 3)}


def test_what_storage_elements_hold_is_kept_with_every_change(catalogue: Catalogue) -> None:
    for lfn, se in ("d/one", "A"), ("d/one", "B"), ("d/two", "A"), ("three", "A"):
        add(catalogue, f"/local/{lfn}", se=se)
    assert catalogue.usage() == {"A": (3, 9), "B": (1, 3)}
    catalogue.move("/local/d", "/local/e", "gridproof")
    catalogue.remove("/local/e", "gridproof", recursive=True)
    assert catalogue.usage() == {"A": (1, 3), "B": (0, 0)}


def test_what_storage_elements_held_before_that_was_kept_is_added_up(tmp_path: Path) -> None:
    path, users = tmp_path / "catalogue.db", Users(DEFAULT_USERS)
    catalogue = Catalogue(path, users)
    catalogue.make_root(0)
    add(catalogue, "/local/a")
    with catalogue.change() as connection:
        connection.execute("DROP TABLE held")
    catalogue.close()
    catalogue = Catalogue(path, users)
    assert catalogue.usage() == {"A": (1, 3)}
    catalogue.close()


def test_everybody_writes_below_local_but_not_in_the_home_of_another(catalogue: Catalogue) -> None:
    add(catalogue, "/local/data/a", "guest")
    with pytest.raises(CatalogueError) as error:
        add(catalogue, f"{HOME}/a", "guest")
    assert code(error) == 13
    with pytest.raises(CatalogueError) as error:
        catalogue.mkdir("/elsewhere", "gridproof", 1)
    assert code(error) == 13


def test_an_lfn_is_written_once(catalogue: Catalogue) -> None:
    add(catalogue, "/local/a")
    with pytest.raises(CatalogueError) as error:
        catalogue.check_new("/local/a", "gridproof")
    assert code(error) == 17
    with pytest.raises(CatalogueError, match="differs"):
        catalogue.commit(
            Booking("t", "/local/a", "guid-/local/a", "B", "gridproof"), size=4, md5="m", perm="644", now_ms=1
        )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["a.root", "a.txt", "b[1].root", "sub/a.root"]),
        ("*.root", ["a.root", "b[1].root", "sub/a.root"]),
        ("a", ["a.root", "a.txt", "sub/a.root"]),
        ("%sub%", ["sub/a.root"]),
        ("b[1]", ["b[1].root"]),
        ("none", []),
    ],
)
def test_find_looks_for_a_pattern_anywhere_in_the_path_below(
    catalogue: Catalogue, pattern: str, names: list[str]
) -> None:
    for name in ("a.root", "a.txt", "b[1].root", "sub/a.root"):
        add(catalogue, f"/local/d/{name}")
    add(catalogue, "/local/d2/a.root")
    found = catalogue.find("/local/d", pattern, "gridproof")
    assert [entry.lfn.removeprefix("/local/d/") for entry in found] == names


def test_wildcards_of_ls_stay_within_a_name(catalogue: Catalogue) -> None:
    for name in ("a1", "a2", "sub/a3"):
        add(catalogue, f"/local/d/{name}")
    assert [entry.lfn for entry in catalogue.match("/local/d/a?", "guest")] == ["/local/d/a1", "/local/d/a2"]
    assert [entry.lfn for entry in catalogue.match("/local/*/*/a?", "guest")] == ["/local/d/sub/a3"]


def test_removing_tells_which_replicas_are_to_go(catalogue: Catalogue) -> None:
    add(catalogue, "/local/d/a", se="A")
    add(catalogue, "/local/d/sub/b", se="B")
    with pytest.raises(CatalogueError):
        catalogue.remove("/local/d", "gridproof")
    catalogue.remove("/local/d", "gridproof", recursive=True)
    assert catalogue.get("/local/d") is None
    assert catalogue.orphans() == [("A", "guid-/local/d/a"), ("B", "guid-/local/d/sub/b")]
    catalogue.forget([("A", "guid-/local/d/a")])
    assert catalogue.orphans() == [("B", "guid-/local/d/sub/b")]


def test_a_directory_moves_with_all_in_it(catalogue: Catalogue) -> None:
    add(catalogue, "/local/d/sub/b")
    catalogue.move("/local/d", "/local/e", "gridproof")
    assert catalogue.get("/local/e/sub/b")
    assert [entry.lfn for entry in catalogue.children("/local/e/sub")] == ["/local/e/sub/b"]
    with pytest.raises(CatalogueError, match="into itself"):
        catalogue.move("/local/e", "/local/e/f/", "gridproof")


@pytest.mark.parametrize("name", ["a\x1b]0;title\x07", "two\nlines", "\x7f", "\x9b2J"])
def test_a_name_does_nothing_to_a_terminal(catalogue: Catalogue, name: str) -> None:
    add(catalogue, f"{HOME}/plain")
    for make in (
        lambda lfn: catalogue.touch(lfn, "gridproof", 0),
        lambda lfn: catalogue.mkdir(lfn, "gridproof", 0),
        lambda lfn: catalogue.move(f"{HOME}/plain", lfn, "gridproof"),
        lambda lfn: catalogue.collect(lfn, (), "gridproof", 0),
        lambda lfn: add(catalogue, lfn),
    ):
        with pytest.raises(CatalogueError, match="has a control character") as error:
            make(f"{HOME}/{name}")
        assert code(error) == 22
    catalogue.touch(f"{HOME}/häßlich ☃", "gridproof", 0)


def test_members_of_an_archive_lie_beside_it_and_below(catalogue: Catalogue) -> None:
    add(catalogue, f"{HOME}/a/x.zip")
    archive = catalogue.get(f"{HOME}/a/x.zip")
    assert archive
    catalogue.enter_members(archive, [("./m", 1, ""), ("deep/n", 1, "")], "gridproof", 0)
    assert [entry.path for entry in catalogue.children(f"{HOME}/a")] == [
        *(f"{HOME}/a/deep/", f"{HOME}/a/m", f"{HOME}/a/x.zip")
    ]
    for name in ("../n", f"{HOME}/n", "..", "deep/../../n"):
        with pytest.raises(CatalogueError, match="would not lie beside it"):
            catalogue.enter_members(archive, [(name, 1, "")], "gridproof", 0)


def test_a_failed_commit_leaves_no_directories_behind(catalogue: Catalogue) -> None:
    add(catalogue, "/local/file")
    with pytest.raises(CatalogueError) as error:
        add(catalogue, "/local/file/below/it")
    assert code(error) == 20
    assert catalogue.get("/local/file/below") is None


@pytest.mark.parametrize(
    ("given", "path"), [("/a//b/", "/a/b"), ("/a/../b", "/b"), ("/../..", "/"), ("/", "/")]
)
def test_paths_are_made_normal(given: str, path: str) -> None:
    assert normal(given) == path


@pytest.mark.parametrize(
    "path",
    ["/10/27446/2e5efc47-e679-11f1-acad-02fc00000001", "/09/30272/ea7f583a-e679-11f1-acad-02fc00000001"],
)
def test_a_pfn_is_made_of_a_guid_as_aliens(path: str) -> None:
    assert pfn_path(path.rsplit("/", 1)[-1]) == path


def test_a_failed_job_s_files_come_into_the_catalogue_when_they_are_asked_for(catalogue):
    def book(job, name, members=()):
        booking = Booking(f"t{job}{name}", f"{HOME}/{job}/{name}", str(uuid.uuid1()), "SE", "gridproof")
        catalogue.book([booking], 1)
        kept.keep(catalogue, job, [booking], 5, "md5", members)
        return booking

    book(1, "log.zip", [("stdout", 3, "m")])
    other = book(2, "log.zip")
    late = book(3, "log.zip")
    assert catalogue.get(f"{HOME}/1/log.zip") is None
    assert kept.register(catalogue, 1, 2) == [f"{HOME}/1/log.zip"]
    member = catalogue.get(f"{HOME}/1/stdout")
    assert (member.size, member.md5) == (3, "m")
    assert catalogue.replicas(catalogue.get(f"{HOME}/1/log.zip").guid) == ["SE"]
    assert kept.register(catalogue, 1, 2) == []
    kept.drop(catalogue, 2)
    assert catalogue.orphans() == [("SE", other.guid)]
    kept.expire(catalogue, 2 + kept.KEPT_MS)
    assert ("SE", late.guid) in catalogue.orphans()
    assert kept.register(catalogue, 2, 3) == kept.register(catalogue, 3, 3) == []


def test_a_booking_that_is_over_takes_nothing_from_a_file_that_was_entered_by_another(catalogue):
    twice = [Booking(ticket, f"{HOME}/file", "guid", "SE", "gridproof") for ticket in ("first", "second")]
    catalogue.book(twice, 1)
    catalogue.commit(twice[0], size=5, md5="md5", perm="755", now_ms=2)
    kept.expire(catalogue, 2 + kept.KEPT_MS)
    assert catalogue.orphans() == []
    assert catalogue.replicas("guid") == ["SE"]
