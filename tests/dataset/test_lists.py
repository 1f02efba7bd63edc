"""Lists of files: what users and AliEn write is read, what is broken or hostile is refused with a reason."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.dataset import lists
from gridproof.errors import DatasetError

# As `find -x -` and `toXml` of a real central service write it.
COLLECTION = b"""<?xml version="1.0"?>
<alien>
  <collection name="tempCollection">
    <event name="1">
      <file name="blob" aclId="" broken="0" ctime="2026-11-22 13:32:36" dir="99" entryId="100" expiretime="" \
gowner="jalien" guid="2e5efc47-e679-11f1-acad-02fc00000001" guidtime="" jobid="" \
lfn="/alice/cern.ch/user/j/jalien/t1/blob" md5="1c30736df849b03edb353fdee75a0f75" owner="jalien" perm="755" \
replicated="0" size="3000000" turl="alien:///alice/cern.ch/user/j/jalien/t1/blob" type="f" />
    </event>
    <event name="2">
      <file name="AliESDs.root" lfn="/alice/sim/001/AliESDs.root" \
turl="alien:///alice/sim/001/root_archive.zip#AliESDs.root" />
    </event>
    <event name="3">
      <file name="x.root" turl="root://host//x.root" />
      <file name="001" lfn="/alice/sim/001/" type="d" />
    </event>
    <info command="/alice/cern.ch/user/j/jalien/t1/blob" creator="jalien" date="" timestamp="1795354712215" />
  </collection>
</alien>"""

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE alien [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>
<alien><collection><event><file lfn="/x/&c;"/></event></collection></alien>"""

OUTSIDE = b"""<!DOCTYPE alien [<!ENTITY f SYSTEM "file:///etc/passwd">]><alien>&f;</alien>"""


def test_an_xml_collection_gives_its_files_in_order() -> None:
    assert lists.read("wn.xml", COLLECTION) == [
        "alien:///alice/cern.ch/user/j/jalien/t1/blob",
        "alien:///alice/sim/001/root_archive.zip#AliESDs.root",
        "root://host//x.root",
    ]


def test_a_collection_without_an_ending_is_known_by_its_content() -> None:
    assert lists.read("coll", COLLECTION) == lists.read("wn.xml", COLLECTION)
    assert lists.read("data", b"root\x00\x00") is None


@pytest.mark.parametrize("content", [BOMB, OUTSIDE])
def test_a_collection_that_declares_entities_is_refused(content: bytes) -> None:
    with pytest.raises(DatasetError, match=r"wn\.xml is no XML collection of AliEn: it declares"):
        lists.read("wn.xml", content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<alien><collection>\n<event></alien>", "line 2, column 10: mismatched tag"),
        (COLLECTION[:600], "no element found|unclosed token"),
        (b"<html></html>", "it is <html>, not <alien>"),
        (b"<alien><collection/></alien>", "names no files"),
        (b'<alien><file lfn="/a&b.root"/></alien>', "not well-formed|reference"),
    ],
)
def test_a_broken_collection_is_named_with_the_place(content: bytes, reason: str) -> None:
    with pytest.raises(DatasetError, match=rf"wn\.xml.*({reason})"):
        lists.read("wn.xml", content)


def test_a_text_list_has_one_name_a_line() -> None:
    text = b"\n# run 1\n  /alice/a.root \r\nroot://h//b.root\n\n/alice/*/c.root#x\n"
    assert lists.read("f.txt", text) == ["/alice/a.root", "root://h//b.root", "/alice/*/c.root#x"]
    assert lists.read("f.txt", b"\xef\xbb\xbf/alice/a.root\r\n") == ["/alice/a.root"]


@pytest.mark.parametrize("encoding", ["gb2312", "nonsense", "rot13", "idna"])
def test_a_collection_in_an_encoding_that_cannot_be_read_is_refused(encoding: str) -> None:
    with pytest.raises(DatasetError, match=r"wn\.xml is in an encoding"):
        lists.read("wn.xml", f'<?xml version="1.0" encoding="{encoding}"?><alien/>'.encode())


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00", "is no text"), (b"# none\n", "names no files")]
)
def test_a_list_that_cannot_be_used_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(DatasetError, match=rf"f\.txt.*{reason}"):
        lists.read("f.txt", content)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs", "Cs")), min_size=1)


@given(
    st.lists(names.filter(lambda name: name[0] not in "#<\ufeff"), min_size=1),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_what_is_written_into_a_text_list_comes_out(listed: list[str], end: str) -> None:
    kept = [name.strip() for name in listed if name.strip()]
    if kept:
        assert lists.from_text("f.txt", end.join(listed).encode()) == kept


@given(st.binary(max_size=200), st.sampled_from(["f.txt", "f.xml", "f"]))
def test_any_content_is_read_or_refused(content: bytes, name: str) -> None:
    with contextlib.suppress(DatasetError):
        found = lists.read(name, content)
        assert found is None or all(found)
