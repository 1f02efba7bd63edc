"""The genuine alienpy copies files to the embedded Grid and back: envelopes, replicas, checksums, commits."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridproof.localgrid import LocalGrid
from gridproof.localgrid.client import GridAccess
from tests.conformance.client import Library, Returned

SES = ("LOCAL::SITE1::SE", "LOCAL::SITE2::SE", "LOCAL::SITE3::SE")


class Copying:
    """alienpy in a directory with files, and the Grid that it copies to."""

    def __init__(self, grid: LocalGrid, alienpy: Library, directory: Path) -> None:
        self.grid = grid
        self.directory = directory
        self._alienpy = alienpy

    def copy(self, *words: str) -> Returned:
        return self._alienpy.run(" ".join(("cp", *words)))

    def local(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def replicas(self, lfn: str) -> dict[str, Path]:
        """Where each SE keeps a file."""
        found = {}
        for row in self._alienpy.run(f"whereis -r {lfn}").rows:
            site = row["seName"].split("::")[1].capitalize()
            path = row["pfn"].removeprefix("root://").partition("//")[2].partition("?")[0]
            found[row["seName"]] = self.grid.root / "se" / site / "data" / path
        return found

    def stat(self, lfn: str) -> dict[str, str]:
        [row] = self._alienpy.run(f"stat {lfn}").rows
        return row


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copying]:
    directory = tmp_path_factory.mktemp("alienpy")
    with LocalGrid() as grid, Library(grid.environment, directory) as alienpy:
        yield Copying(grid, alienpy, directory)


@pytest.fixture
def blob(copying: Copying) -> Path:
    return copying.local("blob", os.urandom(3_000_000))


def test_a_file_goes_out_in_two_replicas_and_comes_back_whole(copying: Copying, blob: Path) -> None:
    assert copying.copy(f"file:{blob}", "there/blob").exitcode == 0
    replicas = copying.replicas("there/blob")
    assert len(replicas) == 2
    assert {path.read_bytes() for path in replicas.values()} == {blob.read_bytes()}
    entry, md5 = copying.stat("there/blob"), hashlib.md5(blob.read_bytes(), usedforsecurity=False)
    assert (entry["size"], entry["md5"], entry["perm"]) == ("3000000", md5.hexdigest(), "755")
    assert copying.copy("there/blob", f"file:{copying.directory}/back").exitcode == 0
    assert (copying.directory / "back").read_bytes() == blob.read_bytes()


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ("disk:3", set(SES)),
        ("disk:9", set(SES)),
        ("Local::Site2::SE,Local::Site3::SE", set(SES[1:])),
        ("Local::Site2::SE,!Local::Site1::SE,disk:1", set(SES[1:])),
        ("!Local::Site1::SE,!Local::Site3::SE,disk:1", {SES[1]}),
    ],
)
def test_replicas_go_where_they_are_asked_for(copying: Copying, specs: str, expected: set[str]) -> None:
    small = copying.local("small", b"small")
    lfn = f"specs/{hashlib.md5(specs.encode(), usedforsecurity=False).hexdigest()}"
    assert copying.copy(f"file:{small}", f"'{lfn}@{specs}'").exitcode == 0
    assert set(copying.replicas(lfn)) == expected
    for se in expected:
        assert copying.copy(f"{lfn}@{se}", f"file:{copying.directory}/{lfn}.{se[-5]}").exitcode == 0


@pytest.mark.parametrize("specs", ["No::Such::SE", "disk:0", "disk:x", "x", "!Local::Site1::SE,tape:1"])
def test_specs_that_cannot_be_met_leave_nothing(copying: Copying, blob: Path, specs: str) -> None:
    assert copying.copy(f"file:{blob}", f"'specs/none@{specs}'").exitcode != 0
    assert copying.replicas("specs/none") == {}


def test_directories_go_both_ways_side_by_side(copying: Copying) -> None:
    files = {"tree/a": b"a", "tree/empty": b"", "tree/deep/er/b": b"b" * 100_000, "tree/deep/c": b"c"}
    for name, content in files.items():
        copying.local(name, content)
    assert copying.copy(f"file:{copying.directory}/tree/", "tree/").exitcode == 0
    assert copying.copy("-T", "3", "tree/", f"file:{copying.directory}/again/").exitcode == 0
    for name, content in files.items():
        assert (copying.directory / name.replace("tree", "again", 1)).read_bytes() == content


def test_a_file_is_replaced_when_it_is_said_so(copying: Copying) -> None:
    first, second = copying.local("first", b"first"), copying.local("second", b"2nd..")
    os.utime(second, (0, 0))
    copying.copy(f"file:{first}", "place")
    assert copying.copy(f"file:{second}", "place").exitcode == 0  # the target is newer: nothing is done
    assert {path.read_bytes() for path in copying.replicas("place").values()} == {b"first"}
    assert copying.copy("-f", f"file:{second}", "place").exitcode == 0
    assert {path.read_bytes() for path in copying.replicas("place").values()} == {b"2nd.."}


def test_when_one_replica_has_vanished_another_is_read(copying: Copying, blob: Path) -> None:
    copying.copy(f"file:{blob}", "vanishing@disk:3")
    for se, path in list(copying.replicas("vanishing").items())[:2]:
        path.unlink()
        assert copying.copy("-f", f"vanishing@{se}", f"file:{copying.directory}/found").exitcode == 0
        assert (copying.directory / "found").read_bytes() == blob.read_bytes()


def test_a_replica_of_other_content_is_not_accepted(copying: Copying, blob: Path) -> None:
    copying.copy(f"file:{blob}", "rotten")
    for path in copying.replicas("rotten").values():
        path.write_bytes(b"x" * 3_000_000)
    refused = copying.copy("rotten", f"file:{copying.directory}/rotten")
    assert refused.exitcode == 1
    assert "CheckSum error" in refused.printed
    assert not (copying.directory / "rotten").exists()


def test_a_member_of_an_archive_is_copied_out_of_it(copying: Copying) -> None:
    archive = copying.directory / "archive.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("member.txt", "a member")
    copying.grid.put(archive, "/local/zip/archive.zip")
    copying.grid.enter_members("/local/zip/archive.zip")
    assert copying.copy("/local/zip/member.txt", f"file:{copying.directory}/member").exitcode == 0
    assert (copying.directory / "member").read_text() == "a member"


def test_a_replica_is_added_to_a_file_that_is_there(copying: Copying, blob: Path) -> None:
    copying.copy(f"file:{blob}", "more@Local::Site1::SE")
    lfn, size = "/local/user/g/gproof/more", str(blob.stat().st_size)
    with GridAccess(copying.grid.environment) as access:
        [permit] = access.command("access", "write", "-s", size, lfn, "disk:3")[:1]
        assert permit["guid"] == copying.stat("more")["guid"]
        with pytest.raises(Exception, match="You seem to want to write a different file"):
            access.command("access", "write", "-s", "7", lfn)
