"""What is learnt of files outlives the process, and never stands in the way."""

import asyncio

import pytest

from gridproof.engine.master.known import FileKey, KnownFiles, Learnt

KEY = FileKey("/alice/AliESDs.root", 1_000_000, "esdTree")
LEARNT = Learnt(2_500, (0, 1_000, 2_000))


def find(path, *keys):
    known = KnownFiles(path)
    try:
        return asyncio.run(known.find(keys))
    finally:
        known.close()


def learn(path, *items, most=100):
    known = KnownFiles(path, most)
    for item in items:
        known.learn([item])
    known.close()


def test_what_one_session_learns_the_next_one_knows(tmp_path):
    learn(tmp_path / "files", (KEY, LEARNT))
    assert find(tmp_path / "files", KEY) == {KEY: LEARNT}


@pytest.mark.parametrize("other", [KEY._replace(size=7), KEY._replace(name="/x"), KEY._replace(tree="t")])
def test_another_file_size_or_tree_is_another_matter(tmp_path, other):
    learn(tmp_path / "files", (KEY, LEARNT))
    assert find(tmp_path / "files", other) == {}


def test_what_is_learnt_anew_replaces_what_was_known(tmp_path):
    learn(tmp_path / "files", (KEY, Learnt(7, ())), (KEY, LEARNT))
    assert find(tmp_path / "files", KEY) == {KEY: LEARNT}


def test_what_turned_out_wrong_is_forgotten(tmp_path):
    learn(tmp_path / "files", (KEY, LEARNT))
    known = KnownFiles(tmp_path / "files")
    known.forget([KEY])
    known.close()
    assert find(tmp_path / "files", KEY) == {}


def test_the_files_used_longest_ago_make_room(tmp_path):
    keys = [KEY._replace(name=f"/f{number}") for number in range(5)]
    learn(tmp_path / "files", *((key, LEARNT) for key in keys), most=3)
    assert list(find(tmp_path / "files", *keys)) == keys[2:]


def test_a_damaged_file_is_as_if_nothing_were_known(tmp_path):
    (tmp_path / "files").write_text(
        "this is no database, but a text that is long enough to be taken for one" * 20
    )
    learn(tmp_path / "files", (KEY, LEARNT))
    assert find(tmp_path / "files", KEY) == {}
