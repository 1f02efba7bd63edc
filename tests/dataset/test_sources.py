"""Datasets name the files a user means, with sizes and places, and say what is wrong when there are none."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.dataset import Dataset, File, resolve
from gridproof.dataset.patterns import matcher
from gridproof.errors import CommandError, DatasetError


@dataclass(frozen=True)
class Entry:
    lfn: str
    type: str
    size: int
    ses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class Shelf:
    """A catalogue in memory; ``calls`` are the commands it got."""

    def __init__(self, files: dict[str, tuple[int, tuple[str, ...]]]) -> None:
        self.stored = files
        self.collections: dict[str, list[str]] = {}
        self.contents: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.directories = {"/"}
        for lfn in files:
            while lfn != "/":
                lfn = posixpath.dirname(lfn)
                self.directories.add(lfn)

    def _entry(self, lfn: str) -> Entry:
        if lfn in self.stored:
            return Entry(lfn, "f", *self.stored[lfn])
        if lfn in self.collections:
            return Entry(lfn, "c", 0)
        if lfn in self.contents:
            return Entry(lfn, "f", len(self.contents[lfn]))
        if lfn in self.directories:
            return Entry(lfn, "d", 0)
        raise CommandError(f"no {lfn}", command="stat", exitcode=2)

    def locate(self, lfns: Iterable[str]) -> Mapping[str, Entry]:
        self.calls.append("locate")
        known = {*self.stored, *self.collections, *self.contents, *self.directories}
        return {lfn: self._entry(lfn) for lfn in lfns if lfn in known}

    def collection(self, lfn: str) -> Sequence[Entry]:
        self.calls.append("collection")
        return [self._entry(member) for member in self.collections[lfn]]

    def cat(self, lfn: str) -> bytes:
        self.calls.append("cat")
        return self.contents[lfn]

    def ls(self, lfn: str) -> Sequence[Entry]:
        self.calls.append("ls")
        if lfn not in self.directories:
            raise CommandError(f"no {lfn}", command="ls", exitcode=2)
        names = sorted({*self.stored, *self.directories} - {"/"})
        return [self._entry(name) for name in names if posixpath.dirname(name) == lfn]

    def find(self, directory: str, pattern: str) -> Sequence[Entry]:
        self.calls.append(f"find {directory} {pattern}")
        if directory not in self.directories:
            raise CommandError(f"no {directory}", command="find", exitcode=20)
        top = directory.rstrip("/") + "/"
        return [
            self._entry(lfn)
            for lfn in reversed(list(self.stored))
            if lfn.startswith(top) and fnmatch.fnmatchcase(lfn[len(top) - 1 :], f"*{pattern}*")
        ]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(
        {
            "/local/demo/b.root": (200, ("L::ONE::SE", "L::TWO::SE")),
            "/local/demo/a.root": (100, ("L::ONE::SE",)),
            "/local/demo/a.root.txt": (5, ()),
            "/local/demo/run1/c.root": (30, ("L::TWO::SE",)),
            "/local/demo/run2/c.root": (40, ()),
            "/local/demo/run2/deep/c.root": (50, ()),
        }
    )


def names(dataset: Dataset) -> list[str]:
    return [file.name.removeprefix("/local/demo/") for file in dataset.files]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/local/demo/*.root", ["a.root", "b.root"]),
        ("alien:///local/demo/*.root", ["a.root", "b.root"]),
        ("/local/demo/?.root", ["a.root", "b.root"]),
        ("/local/demo/[b-z].root", ["b.root"]),
        ("/local/demo/[!b].root", ["a.root"]),
        ("/local/demo/run*/c.root", ["run1/c.root", "run2/c.root"]),
        ("/local/*/run?/c.root", ["run1/c.root", "run2/c.root"]),
        ("/local/demo/**/c.root", ["run1/c.root", "run2/c.root", "run2/deep/c.root"]),
        ("/local/demo/**/a.root", ["a.root"]),
        ("/local/demo/run2/**", ["run2/c.root", "run2/deep/c.root"]),
        ("/local/**/deep/*", ["run2/deep/c.root"]),
        ("/**/b.root", ["b.root"]),
        ("//local//demo/../demo/?.root", ["a.root", "b.root"]),
    ],
)
def test_a_pattern_gives_its_files_by_name_in_one_find(
    shelf: Shelf, pattern: str, expected: list[str]
) -> None:
    assert names(resolve(pattern, "esd", shelf)) == expected
    assert [call.split()[0] for call in shelf.calls] == ["find", "locate"]


def test_files_come_with_size_and_storage_elements(shelf: Shelf) -> None:
    dataset = resolve("/local/demo/*.root", "esd", shelf)
    assert dataset.files[1] == File("/local/demo/b.root", 200, ("L::ONE::SE", "L::TWO::SE"), "lfn")
    assert dataset.size == 300
    assert dataset.bytes_by_se() == {"L::ONE::SE": 300, "L::TWO::SE": 200}


def test_one_lfn_and_a_list_in_its_own_order_with_repeats(shelf: Shelf) -> None:
    assert names(resolve("/local/demo/b.root", "esd", shelf)) == ["b.root"]
    wanted = ["/local/demo/b.root", "/local/demo/a.root", "/local/demo/b.root", "/local/demo/run1/c.root"]
    shelf.calls.clear()
    assert names(resolve(wanted, "esd", shelf)) == ["b.root", "a.root", "b.root", "run1/c.root"]
    assert shelf.calls == ["locate"]


def test_a_list_mixes_kinds(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "x.root").write_bytes(b"1234")
    (tmp_path / "y.root").write_bytes(b"12")
    sources = [
        "root://host:1094//data/z.root",
        "/local/demo/run*/c.root",
        f"file:{tmp_path}/x.root",
        f"{tmp_path}/*.root",
        f"{tmp_path}/y.root",
    ]
    dataset = resolve(sources, "esd", shelf)
    assert [(f.kind, f.name.rpartition("/")[2], f.size) for f in dataset.files] == [
        ("url", "z.root", -1),
        ("lfn", "c.root", 30),
        ("lfn", "c.root", 40),
        ("path", "x.root", 4),
        ("path", "x.root", 4),
        ("path", "y.root", 2),
        ("path", "y.root", 2),
    ]


def test_local_files_need_no_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.root").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (
        "sub/x.root",
        "**/*.root",
        "~/sub/*.root",
        f"file://{tmp_path}/sub/x.root",
        "file:sub/x.root",
    ):
        dataset = resolve(source, "t", None)
        assert dataset.files == (File(str(tmp_path / "sub" / "x.root"), 1, (), "path"),)


def test_a_name_with_brackets_that_exists_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x[1].root").write_bytes(b"1")
    assert resolve(str(tmp_path / "x[1].root"), "t", None).files[0].size == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/local/demo/d.root", r"there is no file /local/demo/d.root .*; there is .*/local/demo/b.root"),
        ("/local/dmo/*.root", r"nothing matches /local/dmo/\*.root .*; there is /local/demo"),
        ("/local/demo/*.rot", r"nothing matches /local/demo/\*.rot .*; there is .*/local/demo/a.root"),
        ("/local/demo", r"/local/demo is a directory: .* /local/demo/\*.root"),
        ("alien:///local/x.root", r"there is no file /local/x.root"),
        ("nowhere.root", "there is no file"),
        ("root://host//*.root", "a URL cannot be a pattern"),
        ([], "an empty list"),
        ("", "'' names no file"),
        (["/local/demo/a.root", 5], "5 names no file"),
        ("/local/demo/[z-a].root", r"nothing matches /local/demo/\[z-a\].root"),
        ("~nobody-of-that-name/a.root", "no such user"),
        ("a" * 300, "cannot be looked at here: File name too long"),
        (["/local/demo/a.root", "/local/demo/run1"], "/local/demo/run1 is a directory"),
    ],
)
def test_what_names_no_files_is_an_error_that_helps(shelf: Shelf, source: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        resolve(source, "esd", shelf)


@pytest.mark.parametrize("tree", ["", " esd", "/esd"])
def test_a_tree_must_have_a_name(shelf: Shelf, tree: str) -> None:
    with pytest.raises(DatasetError, match="no tree's name"):
        resolve("/local/demo/*.root", tree, shelf)


def test_a_refusal_of_the_catalogue_is_not_taken_for_a_missing_file(shelf: Shelf) -> None:
    def refuse(lfns: Iterable[str]) -> Mapping[str, Entry]:
        raise CommandError("permission denied", command="stat", exitcode=13)

    shelf.locate = refuse  # type: ignore[method-assign]
    with pytest.raises(CommandError, match="permission denied"):
        resolve("/local/demo/a.root", "esd", shelf)


def test_friends_have_an_alias_and_no_circles() -> None:
    first, second, third = (Dataset((File(f"/{n}.root", 5),), n) for n in ("esd", "dir/tags", "more"))
    first.add_friend(second)
    second.add_friend(third, "m")
    assert [(friend.alias, friend.dataset) for friend in first.friends] == [("tags", second)]
    for other, alias, message in [
        (first, "x", "its own friend"),
        (third, "tags", "already"),
        (third, "a b", "cannot be a friend's alias"),
    ]:
        with pytest.raises(DatasetError, match=message):
            first.add_friend(other, alias)
    with pytest.raises(DatasetError, match="its own friend"):
        third.add_friend(first)
    assert "friends tags" in repr(first)


def test_a_dataset_is_shown_in_short_and_in_full() -> None:
    files = tuple(File(f"/d/{n}.root", 1_500_000, ("L::ONE::SE",)) for n in range(5))
    dataset = Dataset(files, "esd")
    assert repr(dataset) == "<Dataset 'esd': 5 files, 7.5 MB at 1 SE>"
    assert "… and 2 more" in dataset.summary()
    assert "at L::ONE::SE: 7.5 MB" in dataset.summary()
    assert repr(Dataset((File("root://x//y", kind="url"),), "t")) == "<Dataset 't': 1 file, size unknown>"


paths = st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=3)


@given(paths, paths)
def test_a_pattern_without_double_stars_matches_as_the_shell_does(
    pattern: list[str], path: list[str]
) -> None:
    glob = [part.replace("a", "*").replace(".", "?") for part in pattern]
    expected = len(glob) == len(path) and all(
        fnmatch.fnmatchcase(name, part) for name, part in zip(path, glob, strict=True)
    )
    if any("**" in part for part in glob):
        return
    assert matcher("/" + "/".join(glob))("/" + "/".join(path)) == expected


def collection(*lfns: str) -> bytes:
    files = "".join(f'<event name="1"><file name="x" lfn="{lfn}"/></event>' for lfn in lfns)
    return f"<alien><collection>{files}</collection></alien>".encode()


def test_lists_on_the_grid_and_here_give_their_files_located_in_one_call(
    shelf: Shelf, tmp_path: Path
) -> None:
    wanted = ["/local/demo/b.root", "/local/demo/run1/c.root"]
    shelf.collections["/local/coll"] = wanted
    shelf.contents["/local/wn.xml"] = shelf.contents["/local/wn"] = collection(*wanted)
    shelf.contents["/local/list.txt"] = "\n".join(wanted).encode()
    here = tmp_path / "wn.xml"
    here.write_bytes(collection(*wanted))
    for source, fetched in [
        ("/local/coll", ["locate", "collection"]),
        ("/local/wn.xml", ["locate", "cat"]),
        ("/local/wn", ["locate", "cat"]),
        ("alien:///local/list.txt", ["locate", "cat"]),
        (str(here), ["locate"]),
        (f"file:{here}", []),
    ]:
        shelf.calls.clear()
        dataset = resolve(source, "esd", shelf)
        assert names(dataset) == ["b.root", "run1/c.root"]
        assert [file.ses for file in dataset.files] == [("L::ONE::SE", "L::TWO::SE"), ("L::TWO::SE",)]
        assert shelf.calls == [*fetched, "locate"]


def test_of_several_names_without_an_ending_none_is_fetched_to_look_at_it(shelf: Shelf) -> None:
    shelf.contents["/local/wn"] = shelf.contents["/local/other"] = collection("/local/demo/b.root")
    assert names(resolve(["/local/wn", "/local/other"], "esd", shelf)) == ["/local/wn", "/local/other"]
    assert shelf.calls == ["locate"]


def test_a_list_may_hold_patterns_and_members_but_a_pattern_reads_no_lists(
    shelf: Shelf, tmp_path: Path
) -> None:
    (tmp_path / "all.txt").write_text("/local/demo/run*/c.root\n/local/demo/b.root#m.root\n")
    assert names(resolve(tmp_path / "all.txt", "esd", shelf)) == [
        "run1/c.root",
        "run2/c.root",
        "b.root#m.root",
    ]
    assert names(resolve("/local/demo/*.txt", "esd", shelf)) == ["a.root.txt"]


def test_members_of_archives_lie_where_their_archive_does(shelf: Shelf, tmp_path: Path) -> None:
    shelf.stored["/local/demo/run1/a.zip"] = (99, ("L::TWO::SE",))
    expected = File("/local/demo/run1/a.zip#esd.root", -1, ("L::TWO::SE",))
    for source in (expected.name, f"alien://{expected.name}", "/local/demo/run*/*.zip#esd.root"):
        assert resolve(source, "esd", shelf).files == (expected,)
    (tmp_path / "a.zip").write_bytes(b"PK")
    local = resolve(f"{tmp_path}/a.zip#esd.root", "esd", shelf).files
    assert local == (File(f"{tmp_path}/a.zip#esd.root", -1, (), "path"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            collection("/local/demo/a.root", "/local/demo/gone.root"),
            r"in /local/wn.xml: there is no file /local/de",
        ),
        (collection("/local/demo"), "in /local/wn.xml: /local/demo is a directory"),
        (collection(), "the list /local/wn.xml names no files"),
        (b"<alien", "/local/wn.xml is no XML collection"),
        (b"", "the list /local/wn.xml names no files"),
    ],
)
def test_a_list_that_does_not_give_files_is_named(shelf: Shelf, content: bytes, message: str) -> None:
    shelf.contents["/local/wn.xml"] = content
    with pytest.raises(DatasetError, match=message):
        resolve("/local/wn.xml", "esd", shelf)


def test_a_list_that_lists_itself_is_named(shelf: Shelf, tmp_path: Path) -> None:
    shelf.contents["/local/a.txt"] = b"/local/demo/a.root\n/local/b.txt"
    shelf.contents["/local/b.txt"] = b"/local/a.txt"
    with pytest.raises(DatasetError, match=r"in /local/a\.txt: in /local/b\.txt: /local/a\.txt lists itself"):
        resolve("/local/a.txt", "esd", shelf)


def test_lists_in_lists_have_an_end(shelf: Shelf) -> None:
    for number in range(2000):
        shelf.contents[f"/local/{number}.txt"] = f"/local/{number + 1}.txt".encode()
    with pytest.raises(DatasetError, match=r"in /local/1\.txt: .*lists in lists are read 20 deep"):
        resolve("/local/0.txt", "esd", shelf)


def test_a_collection_that_cannot_be_listed_is_named(shelf: Shelf) -> None:
    def refuse(lfn: str) -> Sequence[Entry]:
        raise CommandError("Remote I/O error", command="listFilesFromCollection", exitcode=121)

    shelf.collections["/local/coll"] = []
    with pytest.raises(DatasetError, match="the collection /local/coll names no files"):
        resolve("/local/coll", "esd", shelf)
    shelf.collection = refuse  # type: ignore[method-assign]
    with pytest.raises(DatasetError, match=r"the collection /local/coll cannot be listed.*Remote I/O"):
        resolve("/local/coll", "esd", shelf)


def test_many_missing_names_are_counted(shelf: Shelf) -> None:
    gone = [f"/local/demo/{n}.root" for n in range(1000)]
    with pytest.raises(DatasetError, match=r"no file /local/demo/0.root .*and 999 more of 1001 names"):
        resolve(["/local/demo/a.root", *gone], "esd", shelf)
    assert shelf.calls.count("locate") == 1


def test_a_chain_with_its_friends_and_a_file_collection_become_datasets(shelf: Shelf) -> None:
    from gridproof import _root

    root = _root.load()
    chain, friend = root.TChain("esd"), root.TChain("tags")
    chain.AddFile("alien:///local/demo/b.root")
    chain.AddFile("/local/demo/run1/c.root")
    friend.AddFile("/local/demo/a.root")
    chain.AddFriend(friend, "t")
    dataset = resolve(chain, None, shelf)
    assert (names(dataset), dataset.tree) == (["b.root", "run1/c.root"], "esd")
    assert [(f.alias, f.dataset.tree, names(f.dataset)) for f in dataset.friends] == [
        ("t", "tags", ["a.root"])
    ]
    assert resolve(chain, "other", shelf).tree == "other"
    collected = root.TFileCollection("data")
    for name in ("/local/demo/b.root", "alien:///local/demo/a.root", "root://h//x.root"):
        info = root.TFileInfo(name)
        root.SetOwnership(info, False)
        collected.Add(info)
    assert names(resolve(collected, "esd", shelf)) == ["b.root", "a.root", "root://h//x.root"]
    with pytest.raises(DatasetError, match="'' is no tree's name"):
        resolve(collected, None, shelf)
    chain.AddFile("/local/demo/a.root", root.TTree.kMaxEntries, "DF_1/O2track")
    with pytest.raises(DatasetError, match=r"different trees: DF_1/O2track, esd; .*pattern"):
        resolve(chain, None, shelf)


@pytest.mark.parametrize("source", [5, {"a": 1}, object()])
def test_what_is_no_source_is_said_to_be_none(source: object) -> None:
    with pytest.raises(DatasetError, match="names no files: give LFNs"):
        resolve(source, "esd", None)
