"""Input data of a JDL: files, members of archives, collections in the catalogue and in XML."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridproof.alien.jdl import parse
from gridproof.errors import JdlError
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking, Entry
from gridproof.localgrid.jobs.inputs import files_in_xml, find_inputs
from gridproof.localgrid.jobs.splitting import Located
from gridproof.localgrid.users import User, Users

CAPTURES = Path(__file__).parents[2] / "alien" / "captures.jsonl"
SE = "Local::Site1::SE"
XML = '<alien><collection><event><file name="b" lfn="/local/d/b" /><file lfn="/local/d/a&amp;c"/></event>'
Find = Callable[[str], list[Located]]


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    catalogue = Catalogue(tmp_path / "catalogue.db", Users([User("ada"), User("bob")]))
    catalogue.make_root(0)
    for name in ("a", "b", "a&c", "set.xml", "plain.txt", "archive.zip"):
        booking = Booking("", f"/local/d/{name}", f"guid-{name}", SE, "ada")
        catalogue.commit(booking, size=len(name), md5="", perm="644", now_ms=0)
    archive = catalogue.get("/local/d/archive.zip")
    assert archive
    catalogue.enter_members(archive, [("member", 7, "")], "ada", 0)
    catalogue.touch("/local/d/nowhere", "ada", 0)
    files = [entry for name in "ab" if (entry := catalogue.get(f"/local/d/{name}"))]
    catalogue.collect("/local/d/set", files, "ada", 0)
    catalogue.chmod("/local/d/plain.txt", "600", "ada", 0)
    yield catalogue
    catalogue.close()


@pytest.fixture
def find(catalogue: Catalogue) -> Find:
    async def read(entry: Entry) -> bytes:
        return XML.encode() if entry.lfn.endswith(".xml") else b"just text"

    def ask(text: str, owner: str = "ada") -> list[Located]:
        return asyncio.run(find_inputs(parse(f'Executable = "x"; {text}'), owner, catalogue, read))

    return ask


def test_input_data_are_located(find: Find) -> None:
    assert find('InputData = {"LF:/local/d/a,nodownload", "LF:/local/d/member"};') == [
        Located("LF:/local/d/a,nodownload", 1, (SE,)),
        Located("LF:/local/d/member", 7, (SE,)),
    ]


@pytest.mark.parametrize(
    ("collection", "lfns"),
    [
        ("LF:/local/d/set,nodownload", ["/local/d/a", "/local/d/b"]),
        ("/local/d/set,nodownload", ["/local/d/a", "/local/d/b"]),
        ("LF:/local/d/set.xml,nodownload", ["/local/d/b", "/local/d/a&c"]),
    ],
)
def test_a_collection_stands_for_its_files(find: Find, collection: str, lfns: list[str]) -> None:
    entries = [file.entry for file in find(f'InputDataCollection = "{collection}";')]
    assert entries == [f"LF:{lfn},nodownload" for lfn in lfns]


def test_what_is_named_twice_is_there_once(find: Find) -> None:
    files = find(
        'InputDataCollection = {"LF:/local/d/set","LF:/local/d/set.xml"}; InputData = {"LF:/local/d/a"};'
    )
    assert [file.lfn for file in files] == ["/local/d/a", "/local/d/b", "/local/d/a&c"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('InputData = {"LF:/local/none"};', "/local/none is not in the catalogue"),
        ('InputData = {"LF:/local/d"};', "/local/d is not in the catalogue"),
        ('InputData = {"LF:/local/d/nowhere"};', "/local/d/nowhere is on no storage element"),
        ('InputDataCollection = "LF:/local/none.xml";', "/local/none.xml is not in the catalogue"),
        ('InputDataCollection = "LF:/local/d/plain.txt";', "/local/d/plain.txt names no file"),
    ],
)
def test_input_data_that_cannot_be_had_are_named(find: Find, text: str, why: str) -> None:
    with pytest.raises(JdlError) as caught:
        find(text)
    assert why in str(caught.value)


def test_another_users_private_collection_is_not_read(find: Find) -> None:
    with pytest.raises(JdlError, match=r"bob is not allowed to read /local/d/plain\.txt"):
        find('InputDataCollection = "LF:/local/d/plain.txt";', "bob")


def test_xml_as_the_central_service_writes_it_is_read() -> None:
    shown = [json.loads(line) for line in CAPTURES.read_text().splitlines()]
    (answer,) = (one["response"] for one in shown if one["command"] == "toXml" and one["response"]["results"])
    assert files_in_xml(answer["results"][0]["message"]) == ["/alice/cern.ch/user/j/jalien/t1/blob"]
