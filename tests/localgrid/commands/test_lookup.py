"""Commands that look files up, and collections in XML, beyond what was recorded of them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from gridproof.localgrid import LocalGrid
from tests.localgrid.conftest import HOME, Raw

TOP = f"{HOME}/lookup"


@pytest.fixture(scope="module")
def raw(grid: LocalGrid):
    with Raw(grid.environment) as raw:
        yield raw


@pytest.fixture(scope="module", autouse=True)
def files(grid: LocalGrid, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two files with two replicas and one each, an archive with a member, an empty file without any."""
    scratch = tmp_path_factory.mktemp("lookup")
    for name, size, copies in (("a/one", 2000, 2), ("a/two", 500, 1)):
        (scratch / "file").write_bytes(b"x" * size)
        grid.put(scratch / "file", f"{TOP}/{name}", grid.se_names[:copies])
    with zipfile.ZipFile(scratch / "all.zip", "w") as archive:
        archive.writestr("member", "y" * 70)
    grid.put(scratch / "all.zip", f"{TOP}/all.zip", grid.se_names[:1])
    grid.enter_members(f"{TOP}/all.zip")
    with Raw(grid.environment) as raw:
        raw.rows("touch", f"{TOP}/empty")


def stat(raw: Raw, name: str) -> dict[str, str]:
    return raw.rows("stat", f"{TOP}/{name}")[0]


def test_archives_are_entered_with_their_directories_and_strange_ones_are_refused(
    grid: LocalGrid, raw: Raw, tmp_path: Path
) -> None:
    for name, member in ("deep", "sub/file"), ("escaping", "../file"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("sub/", "")
            archive.writestr(member, "z")
    (tmp_path / "text").write_text("no archive")
    locked = bytearray((tmp_path / "deep").read_bytes())
    for header in re.finditer(rb"PK\x01\x02", bytes(locked)):
        locked[header.start() + 8] |= 1  # as if members were encrypted
    (tmp_path / "locked").write_bytes(locked)
    for name, code in ("deep", "0"), ("escaping", "5"), ("text", "5"), ("locked", "5"):
        grid.put(tmp_path / name, f"{TOP}/zips/{name}")
        answer = raw.ask("gridUnzip", f"{TOP}/zips/{name}")
        assert (answer["metadata"]["exitcode"], "Internal" in answer["metadata"]["error"]) == (code, False), (
            name
        )
    assert [row["path"] for row in raw.rows("ls", f"{TOP}/zips/sub")] == [f"{TOP}/zips/sub/file"]
    raw.rows("rm", "-r", f"{TOP}/zips")


def test_guid2lfn_finds_guids_in_what_it_is_given_and_tells_of_those_that_nobody_has(raw: Raw) -> None:
    known, unknown = stat(raw, "a/one")["guid"], "12345678-1234-11f1-acad-02fc00000001"
    answer = raw.ask("guid2lfn", "-nomsg", f"root://se:1094//10/27446/{known}", unknown)
    assert answer["results"] == [
        {"guid": known, "lfn": f"{TOP}/a/one"},
        {"guid": unknown, "error": "No GUID"},
    ]
    assert answer["metadata"]["exitcode"] == "2"
    assert raw.ask("guid2lfn", "abc")["metadata"]["error"].endswith("No GUID in this string: abc")


def test_lfn2guid_knows_files_only(raw: Raw) -> None:
    assert raw.rows("lfn2guid", f"{TOP}/a/one")[0]["guid"] == stat(raw, "a/one")["guid"]
    assert raw.ask("lfn2guid", TOP)["metadata"]["exitcode"] == "21"
    assert raw.ask("lfn2guid", "/nowhere")["metadata"]["exitcode"] == "2"


def test_du_counts_replicas_and_members_of_archives_apart(raw: Raw) -> None:
    size = int(stat(raw, "all.zip")["size"])
    text, keys = raw.rows("du", "-n", TOP)
    assert {name: int(value) for name, value in keys.items() if name != "entry"} == {
        "folders": 2,
        "physical_files_count": 3,
        "physical_files_size": 4500 + size,
        "physical_files_replicas": 4,
        "physical_files_one_replica_size": 2500 + size,
        "logical_files_count": 1,
        "logical_files_size": 70,
    }
    assert f"  - physical files: 3 files of {4500 + size} bytes with 4 replicas" in text["message"]
    assert "  - archive members : 1 files of 70 bytes" in text["message"]


def test_du_sums_up_and_takes_patterns(raw: Raw) -> None:
    names = [row["entry"] for row in raw.rows("du", "-nomsg", f"{TOP}/a/*")]
    assert names == [f"{TOP}/a/one", f"{TOP}/a/two"]
    (row,) = raw.rows("du", "-s", "-nomsg", f"{TOP}/a", f"{TOP}/all.zip")
    assert (row["entry"], row["physical_files_count"]) == ("Summary of 2 paths", "3")
    assert raw.ask("du", f"{TOP}/none*")["metadata"]["exitcode"] == "2"


def test_xrdstat_sees_a_replica_that_is_gone(grid: LocalGrid, raw: Raw) -> None:
    rows = raw.rows("xrdstat", f"{TOP}/a/one")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    replica = next(grid.root.glob(f"se/Site1/data/*/*/{stat(raw, 'a/one')['guid']}"))
    content = replica.read_bytes()
    replica.unlink()
    try:
        rows = raw.rows("xrdstat", stat(raw, "a/one")["guid"])
        assert {row["seName"]: row["status"] for row in rows} == {
            "LOCAL::SITE1::SE": "error",
            "LOCAL::SITE2::SE": "ok",
        }
        assert [row["seNumber"] for row in raw.rows("xrdstat", "-s", grid.se_names[1], f"{TOP}/a/one")] == [
            "2"
        ]
    finally:
        replica.write_bytes(content)
    assert raw.ask("xrdstat", "-s", "A::B::C", f"{TOP}/a/one")["metadata"]["exitcode"] == "6"


def test_xrdstat_compares_contents_when_asked_to_and_says_what_is_wrong(grid: LocalGrid, raw: Raw) -> None:
    guid = stat(raw, "a/two")["guid"]
    assert raw.rows("xrdstat", "-d", f"{TOP}/a/two")[0]["status"] == "ok"
    replica = next(grid.root.glob(f"se/*/data/*/*/{guid}"))
    content = replica.read_bytes()
    replica.write_bytes(b"z" * len(content))
    try:
        assert raw.rows("xrdstat", f"{TOP}/a/two")[0]["status"] == "ok"
        answer = raw.ask("xrdstat", "-d", "-v", f"{TOP}/a/two")
    finally:
        replica.write_bytes(content)
    assert answer["metadata"]["exitcode"] == "5"
    assert answer["results"][0]["errorMessage"].startswith("Its MD5 is not the expected one")


def test_xrdstat_of_a_member_looks_at_the_archive(raw: Raw) -> None:
    assert [row["status"] for row in raw.rows("xrdstat", f"{TOP}/member")] == ["ok"]


def lfns(xml: str) -> list[str]:
    return re.findall(r' lfn="([^"]*)"', xml)


def test_toxml_wants_every_file_unless_told_otherwise(raw: Raw) -> None:
    names = (f"{TOP}/a/one", "/nowhere", f"{TOP}/a/two")
    assert raw.ask("toXml", *names)["metadata"]["error"].endswith("Only 2 out of 3 files could be resolved")
    assert lfns(raw.rows("toXml", "-i", *names)[0]["message"]) == [f"{TOP}/a/one", f"{TOP}/a/two"]
    assert raw.ask("toXml", "-i", "/nowhere")["metadata"]["exitcode"] == "61"


def test_toxml_writes_a_file_reads_names_from_one_and_adds_to_one(
    grid: LocalGrid, raw: Raw, tmp_path
) -> None:
    (tmp_path / "list").write_text(f"{TOP}/a/one\n\n{TOP}/all.zip\n")
    grid.put(tmp_path / "list", f"{TOP}/list")
    target = f"{TOP}/coll.xml"
    assert raw.rows("toXml", "-x", target, "-l", f"{TOP}/list") == []
    assert raw.rows("toXml", "-a", "-x", target, f"{TOP}/a/one", f"{TOP}/a/two") == []
    xml = raw.rows("cat", target)[0]["message"]
    assert lfns(xml) == [f"{TOP}/a/one", f"{TOP}/all.zip", f"{TOP}/a/two"]
    assert f'<collection name="{target}">' in xml
    again = raw.rows("toXml", "-a", "-x", target, f"{TOP}/a/two")[0]["message"]
    assert again == "Collection was not modified, all 1 entries were already included in it"


def test_find_writes_a_collection_in_place_of_an_older_one(raw: Raw) -> None:
    target = f"{TOP}/found.xml"
    for pattern, names in (("one", ["a/one"]), ("o", ["a/one", "a/two"])):
        assert raw.rows("find", "-x", target, f"{TOP}/a", pattern) == []
        assert lfns(raw.rows("cat", target)[0]["message"]) == [f"{TOP}/{name}" for name in names]
    assert len(raw.rows("whereis", target)) == 2
    assert raw.ask("find", "-x", TOP, f"{TOP}/a", "o")["metadata"]["exitcode"] == "21"


def test_names_in_a_collection_are_escaped(raw: Raw) -> None:
    raw.rows("touch", f'{TOP}/a"<&>')
    xml = raw.rows("toXml", f'{TOP}/a"<&>')[0]["message"]
    assert f'lfn="{TOP}/a&quot;&lt;&amp;&gt;"' in xml
