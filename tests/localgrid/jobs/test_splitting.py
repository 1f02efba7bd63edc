"""One JDL into those of its subjobs: strategies, limits, patterns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.jdl import Jdl, parse, render
from gridproof.errors import JdlError
from gridproof.localgrid.jobs.patterns import fill
from gridproof.localgrid.jobs.plan import make_plan
from gridproof.localgrid.jobs.requirements import read_requirements
from gridproof.localgrid.jobs.splitting import Located, split

ONE, TWO, BOTH = ("L::S1::SE",), ("L::S2::SE",), ("L::S1::SE", "L::S2::SE")
FILES = [
    Located("LF:/d/r1/1/a.root,nodownload", 10, BOTH),
    Located("LF:/d/r1/1/b.root,nodownload", 10, ONE),
    Located("LF:/d/r1/2/a.root,nodownload", 30, TWO),
    Located("LF:/d/r2/1/a.root,nodownload", 10, ONE),
    Located("LF:/d/r2/1/b.root,nodownload", 10, BOTH),
]


def subjobs(text: str, files: Sequence[Located] = FILES, limit: int = 1000) -> list[Jdl]:
    made = split(parse(f'Executable = "/x.sh"; {text}'), files, limit, 77)
    assert all(parse(render(sub)) == sub for sub in made)
    return made


def names(sub: Jdl) -> str:
    return " ".join(
        entry.removeprefix("LF:/d/").removesuffix(".root,nodownload") for entry in sub.strings("InputData")
    )


@pytest.mark.parametrize(
    ("text", "chunks"),
    [
        ('Split = "file";', ["r1/1/a", "r1/1/b", "r1/2/a", "r2/1/a", "r2/1/b"]),
        ('Split = "directory";', ["r1/1/a r1/1/b", "r1/2/a", "r2/1/a r2/1/b"]),
        ('Split = "ParentDirectory";', ["r1/1/a r1/1/b r1/2/a", "r2/1/a r2/1/b"]),
        (
            'Split = "parentdirectory"; SplitMaxInputFileNumber = "2";',
            ["r1/1/a r1/1/b", "r1/2/a", "r2/1/a r2/1/b"],
        ),
        (
            'Split = "parentdirectory"; SplitMaxInputFileSize = "20B";',
            ["r1/1/a r1/1/b", "r1/2/a", "r2/1/a r2/1/b"],
        ),
        ('Split = "se"; SplitMaxInputFileNumber = 9;', ["r1/1/a r2/1/b", "r1/1/b r2/1/a", "r1/2/a"]),
        ('Split = "SE"; SplitMaxInputFileSize = 10;', ["r1/1/a", "r2/1/b", "r1/1/b", "r2/1/a", "r1/2/a"]),
    ],
)
def test_input_files_are_split_by_the_strategy_and_within_its_limits(text: str, chunks: list[str]) -> None:
    assert [names(sub) for sub in subjobs(text)] == chunks


def test_subjobs_of_input_files_are_bound_to_the_sites_of_theirs() -> None:
    found = [
        read_requirements(sub).close_ses for sub in subjobs('Split = "se"; SplitMaxInputFileNumber = 9;')
    ]
    assert found == [{"L::S1::SE", "L::S2::SE"}, {"L::S1::SE"}, {"L::S2::SE"}]
    (sub, _) = subjobs('Split = "parentdirectory"; Requirements = other.TTL > 5 && other.CE == "A::B::C";')
    needs = read_requirements(sub)
    assert (needs.ttl, needs.ces, needs.close_ses) == (5, {"A::B::C"}, {"L::S1::SE", "L::S2::SE"})


def test_a_production_counts_as_it_is_told_and_all_of_its_subjobs_have_all_input() -> None:
    text = (
        'Split = "production:8-10"; OutputDir = "/o/#alien_counter_03i#"; InputData = {"LF:/d/r1/1/b.root"};'
    )
    made = subjobs(text, FILES[1:2])
    assert [sub["OutputDir"] for sub in made] == ["/o/008", "/o/009", "/o/010"]
    assert {sub["InputData"] for sub in made} == {("LF:/d/r1/1/b.root",)}
    assert all(read_requirements(sub).close_ses == {"L::S1::SE"} for sub in made)


def test_a_subjob_keeps_what_concerns_it_and_loses_what_was_the_masters() -> None:
    text = (
        'Split = "file"; SplitArguments = {"--in #alienfilename#", "--seed 1#alien_counter_02i#"};'
        'Arguments = "run";'
        'Email = "a@b.c"; InputDataCollection = "LF:/c.xml,nodownload"; JobTag = {"comment:x"}; TTL = 600;'
        'OutputFile = {"#alienfilename/.root/.txt/#@disk=1"}; SplitMaxInputFileNumber = 1;'
    )
    first = subjobs(text)[0]
    assert {key: first[key] for key in first if key not in ("Requirements", "InputData")} == {
        "Executable": "/x.sh",
        "Arguments": "run --in a.root --seed 101",
        "JobTag": ("comment:x",),
        "TTL": 600,
        "OutputFile": ("a.txt@disk=1",),
        "MasterJobID": "77",
    }
    assert list(first) == [
        *(
            "JobTag",
            "Executable",
            "Arguments",
            "InputData",
            "OutputFile",
            "Requirements",
            "TTL",
            "MasterJobID",
        )
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('Split = "af"; SplitMaxInputFileNumber = 1;', "'af' is not known here: one of se, file"),
        ('Split = "se";', "needs a SplitMaxInputFileNumber or a SplitMaxInputFileSize"),
        ('Split = "file"; SplitMaxInputFileNumber = "many";', "must be a number"),
        ('Split = "directory"; SplitMaxInputFileSize = "big";', "like '7GB', not 'big'"),
        ('Split = "production:3-1";', "production:FIRST-LAST"),
        ('Split = "file"; OutputDir = "#alienthing#";', "#alienthing# is not known"),
        ('Split = "production:1-1001";', "1001 subjobs, 1000 are allowed"),
    ],
)
def test_what_cannot_be_split_is_said_why(text: str, why: str) -> None:
    with pytest.raises(JdlError) as caught:
        subjobs(text)
    assert why in str(caught.value)


def test_subjobs_whose_jdls_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridproof.localgrid.jobs.plan.SUBJOBS_TEXT", 1 << 20)
    jdl = parse(f'Executable = "/x.sh"; Split = "production:1-20"; Tag = "{"x" * 100_000}";')
    with pytest.raises(JdlError, match=r"of the job's 20 subjobs are larger than 1 MB together"):
        make_plan(jdl, (), 1000, 77)
    monkeypatch.setattr("gridproof.localgrid.jobs.plan.SUBJOBS_TEXT", 1 << 22)
    assert len(make_plan(jdl, (), 1000, 77).subjobs) == 20


def test_without_input_data_only_a_production_can_be_split() -> None:
    assert len(subjobs('Split = "production:1-2";', [])) == 2
    with pytest.raises(JdlError, match="splits over input data, but there are none"):
        subjobs('Split = "file";', [])


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("#alien_counter#", "7"),
        ("#ALIEN_COUNTER_04i#", "0007"),
        ("#alien_counter_i#/x", "7/x"),
        ("#alienfilename#", "one.root"),
        ("#alienfirstfilename#", "one.root"),
        ("#alienlastfilename#", "two.root"),
        ("#alienallfilename#", "one.root,two.root"),
        ("#alienfilename/.root/_out.root/#", "one_out.root"),
        ("#alienfilename/.root//#", "one"),
        ("#aliendir#/#aliendirdir#", "run5/data"),
        ("#alienfulldir#", "/data/run5/one.root"),
        ("a#b #alien", "a#b #alien"),
    ],
)
def test_patterns_are_filled_in(text: str, filled: str) -> None:
    assert fill(text, 7, ["/data/run5/one.root", "/data/run6/two.root"]) == filled


def test_patterns_of_files_are_empty_where_there_are_none() -> None:
    assert fill("a#alienfilename#b#alienalldir#c", 1, []) == "abc"


located = st.builds(
    lambda lfn, size, ses: Located(f"LF:{lfn}", size, ses),
    st.from_regex(r"/[ab]/[ab]/[a-z]{1,6}", fullmatch=True),
    st.integers(0, 100),
    st.sampled_from([ONE, TWO, BOTH]),
)


@given(
    st.lists(located, min_size=1, max_size=20, unique_by=lambda file: file.entry),
    st.sampled_from(["se", "file", "directory", "parentdirectory"]),
    st.integers(1, 5),
    st.integers(1, 200),
)
def test_every_file_goes_to_one_subjob_that_is_within_the_limits(
    files: list[Located], how: str, number: int, size: int
) -> None:
    text = f'Split = "{how}"; SplitMaxInputFileNumber = {number}; SplitMaxInputFileSize = {size};'
    sizes = {file.entry: file.size for file in files}
    chunks = [sub.strings("InputData") for sub in subjobs(text, files)]
    assert sorted(entry for chunk in chunks for entry in chunk) == sorted(sizes)
    for chunk in chunks:
        assert len(chunk) <= number
        assert len(chunk) == 1 or sum(sizes[entry] for entry in chunk) <= size
    if how == "se":
        ses = {file.entry: file.ses for file in files}
        assert all(len(list(groupby(ses[entry] for entry in chunk))) == 1 for chunk in chunks)


@given(st.text(max_size=40), st.integers(0, 10**6), st.lists(st.text(max_size=20), max_size=3))
def test_a_text_is_filled_in_or_refused(text: str, counter: int, lfns: list[str]) -> None:
    try:
        fill(f"#alien{text}#", counter, lfns)
    except JdlError as error:
        assert "is not known" in str(error)  # noqa: PT017
