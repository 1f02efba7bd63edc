"""JDLs are read as JAliEn reads them, refuse what it would drop, and survive a round trip."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.alien.jdl import Expression, Jdl, parse, production_range, render, validate
from gridproof.errors import JdlError
from gridproof.localgrid.jobs.requirements import read_requirements

PILOT = """
# a pilot
Executable = "/alice/bin/pilot.sh"; // what runs
Arguments = "--join join.json $1";
JobTag = {"comment:abc"};
/* where
   it runs */
Requirements = ( member(other.CloseSE,"A::B::C") ) && ( other.TTL > 600 );
TTL = 7200; Price = 1.5;
InputFile = {
  "LF:/alice/cern.ch/user/j/join.json",
  "LF:/alice/cern.ch/user/j/second.json",   # and another
};
Split = "production:1-12"
"""

keys = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,12}\Z")
texts = st.text(max_size=30)
names = st.from_regex(r"\A[A-Z]+::[A-Z]+::[A-Z]+\Z")
expressions = st.recursive(
    st.one_of(
        names.map(lambda name: f'member(other.CloseSE,"{name}")'),
        st.integers(0, 10**6).map(lambda ttl: f"( other.TTL > {ttl} )"),
    ),
    lambda inner: st.tuples(inner, st.sampled_from([" && ", "||", "\n || "]), inner).map(
        lambda parts: f"( {parts[0]}{parts[1]}{parts[2]} )"
    ),
    max_leaves=5,
).map(Expression)
values = st.one_of(
    texts,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(texts, max_size=5).map(tuple),
    expressions,
)


@given(st.dictionaries(keys, values, max_size=8))
def test_what_is_rendered_reads_back_the_same(content: dict[str, object]) -> None:
    jdl = Jdl(content)  # type: ignore[arg-type]
    again = parse(render(jdl))
    assert again == jdl
    assert list(again) == list(jdl)


jdl_like = st.lists(
    st.sampled_from([*'(){}[]"\\,;=#$/*\n 7-.eE', "//", "/*", "*/", "$1", "TTL", "Split = ", "é", "\x00"]),
    max_size=40,
).map("".join)


@given(st.text(max_size=60) | jdl_like, st.none() | st.lists(st.text(max_size=5), max_size=2))
def test_any_text_is_read_or_refused_with_its_place(text: str, arguments: list[str] | None) -> None:
    jdl, error = read(text, arguments)
    if jdl is not None:
        rendered = render(jdl)
        assert parse(rendered) == jdl
        assert render(parse(rendered)) == rendered
    if error is not None:
        assert 1 <= error.line <= text.count("\n") + 1
        assert 1 <= error.column <= len(text) + 1


def read(text: str, arguments: list[str] | None = None) -> tuple[Jdl | None, JdlError | None]:
    try:
        return parse(text, arguments), None
    except JdlError as error:
        return None, error


@pytest.mark.parametrize(
    "text",
    [
        *("A = " + one * 100_000 for one in ("(", "[{", "( ", '"', "\\", "9", "-", "$1", "/* */ ", "# \n")),
        *("A = {" + one * 50_000 for one in ("a,", '"b",', "{", "# x\n")),
        "A = 1;" * 50_000,
    ],
)
def test_long_and_deep_texts_are_read_or_refused(text: str) -> None:
    jdl, error = read(text)
    assert jdl or error


def exchanges() -> list[dict[str, Any]]:
    """What was recorded with a real central service."""
    lines = (Path(__file__).parent / "captures.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_jdl_that_the_central_service_has_shown_survives_the_round_trip() -> None:
    shown = [row["jdl"] for one in exchanges() for row in one["response"]["results"] if "jdl" in row]
    assert shown
    for text in shown:
        jdl = parse(text)
        assert render(jdl) == text
        assert list(jdl)[:2] == ["User", "Executable"]
        validate(jdl)


def test_the_syntax_that_the_central_service_refused_is_refused_here() -> None:
    submitted = [one for one in exchanges() if one["command"] == "submit" and "=" in one["options"][0]]
    for exchange in submitted:
        text, *arguments = exchange["options"]
        accepted = exchange["response"]["metadata"]["exitcode"] != "22"
        assert (read(text, arguments)[0] is not None) == accepted


@given(st.lists(st.text(max_size=10), min_size=1, max_size=3))
def test_arguments_cannot_change_the_syntax(arguments: list[str]) -> None:
    jdl = parse('Executable = "x"; Arguments = "a $1 b";', arguments)
    assert jdl["Arguments"] == f"a {arguments[0]} b"
    assert list(jdl) == ["Executable", "Arguments"]


def test_a_pilot_is_read() -> None:
    jdl = parse(PILOT, ["one"])
    assert jdl["executable"] == "/alice/bin/pilot.sh"
    assert jdl["Arguments"] == "--join join.json one"
    assert jdl["JOBTAG"] == ("comment:abc",)
    assert jdl["Requirements"] == Expression('( member(other.CloseSE,"A::B::C") ) && ( other.TTL > 600 )')
    assert (jdl["TTL"], jdl["Price"]) == (7200, 1.5)
    assert jdl.strings("InputFile")[1] == "LF:/alice/cern.ch/user/j/second.json"
    assert production_range(jdl) == range(1, 13)
    validate(jdl)


def test_a_recorded_jdl_of_the_central_service_is_read() -> None:
    jdl = parse(
        'User = "jalien";\nOutputFile = {\n"out.txt@disk=1"\n};\n'
        "Requirements = ( other.TTL > 600 ) && ( other.Price <= 1 ) && ( other.LocalDiskSpace > 0 );\n"
        'TTL = 600;\nPrice = 1.0;\nMemorySize = "8GB";\nJDLVariables = {\n"CPUCores"\n};\nCPUCores = "1";\n'
    )
    assert jdl.number("CPUCores", 0) == 1
    assert jdl.text("OutputFile") == "out.txt@disk=1"


def test_keys_keep_the_case_first_seen() -> None:
    jdl = Jdl({"JobTag": "a"})
    jdl["JOBTAG"] = "b"
    assert list(jdl.items()) == [("JobTag", "b")]
    del jdl["jobtag"]
    assert "JobTag" not in jdl


def test_numbers_beyond_what_jalien_can_hold() -> None:
    jdl = parse(f"A = {2**63}; B = 1{'0' * 5000}; C = -{2**63}; D = 00012; E = 1e999;")
    assert jdl["A"] == float(2**63)
    assert jdl["B"] == Expression("1" + "0" * 5000)
    assert (jdl["C"], jdl["D"], jdl["E"]) == (-(2**63), 12, Expression("1e999"))
    with pytest.raises(JdlError, match="64 bits"):
        jdl["A"] = 2**63


KEYS = ("TTL", "Price", "Split", "CPUCores", "MemorySize", "InputData", "Requirements", "Priority")
VALUES = (
    *("1e999", "-5", "0.5", "9" * 5000, '"-1e400"', '"x"', '"8GB"', "{}", '{"LF:/a"}', "other.TTL > 5"),
    *('"se"', '"production:1-3"', '"production:1-' + "9" * 5000 + '"'),
)
keyed = st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES))


@given(st.lists(keyed, max_size=4, unique_by=lambda one: one[0]))
def test_whatever_is_in_a_jdl_it_is_valid_or_refused(content: list[tuple[str, str]]) -> None:
    jdl = parse('Executable = "x";' + "".join(f"{key} = {value};" for key, value in content))
    for check in (validate, production_range, read_requirements):
        with contextlib.suppress(JdlError):
            check(jdl)


def test_a_template_keeps_its_arguments() -> None:
    template = parse('Executable = "x"; Arguments = "$1 $2"; TTL = $3;')
    assert parse(render(template), ["a", "b", "60"])["TTL"] == 60
    assert template["TTL"] == Expression("$3")


def test_quotes_and_backslashes() -> None:
    jdl = parse(r'A = "say \"hi\""; B = "C:\temp\\"; C = "#alien_counter_03i# // no comment";')
    assert jdl["A"] == 'say "hi"'
    assert jdl["B"] == "C:\\temp\\"
    assert jdl["C"] == "#alien_counter_03i# // no comment"


def test_a_set_holds_each_string_once_in_order() -> None:
    assert parse('A = {"b", "a", "b", 5, word};')["A"] == ("b", "a", "5", "word")
    assert parse("A = {};")["A"] == ()


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('Executable = "x"\nTTL 5', (2, 1), "expected ';' after the value of Executable, found 'TTL'"),
        ('A = "x', (1, 5), "not closed"),
        ('A = {"x", "y"', (1, 5), "set of A is not closed"),
        ('A = {"x" "y"}', (1, 10), "expected ',' or '}'"),
        ("A = ( b;", (1, 5), "bracket is not closed"),
        ("A = b );", (1, 7), "closes nothing"),
        ("A = ;", (1, 5), "A has no value"),
        ("\n = 5;", (2, 2), "expected a key, found '='"),
        ("A 5", (1, 3), "expected '=' after A"),
        ("A = 1;\na = 2;", (2, 1), "a is given twice"),
        ('A = 1;\nB = "$2";', (2, 5), "argument $2 is missing: one was given"),
        ("/* for ever", (1, 1), "comment is not closed"),
        ("A = {, }", (1, 6), "expected an element"),
    ],
)
def test_an_error_names_its_place(text: str, place: tuple[int, int], message: str) -> None:
    with pytest.raises(JdlError) as caught:
        parse(text, ["one"])
    assert (caught.value.line, caught.value.column) == place
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TTL = 5;", "Executable is missing"),
        ('Executable = " ";', "Executable is missing"),
        ('Executable = "x"; TTL = 0;', "TTL must be a positive number"),
        ('Executable = "x"; TTL = "soon";', "TTL must be a number, not 'soon'"),
        ('Executable = "x"; Split = "often";', "'often' is not known"),
        ('Executable = "x"; Split = "production:5-1";', "FIRST not above LAST"),
        ('Executable = "x"; Split = "production:many";', "FIRST not above LAST"),
        ('Executable = "x"; Split = "se";', "give InputData"),
        ('Executable = "x"; InputData = {"/a/b"};', "must be 'LF:'"),
        ('Executable = "x"; InputData = "LF:,nodownload";', "must be 'LF:'"),
        ('Executable = "x"; Requirements = "other.TTL > 5";', "Requirements is quoted"),
        ('Executable = "x"; CPUCores = 1.5;', "whole number"),
        ('Executable = "x"; MemorySize = "much";', "like '8GB'"),
        ('Executable = "x"; JobTag = {"say \\"hi\\""};', "no element with a quote"),
        ('Executable = "x"; JobTag = {"it is\'"};', "apostrophe at its end"),
        ('Executable = "x"; Arguments = "one\n  # two";', "for a comment"),
        ('Executable = "x"; Arguments = "$2";', r"\$2 stands for an argument"),
    ],
)
def test_what_the_central_service_would_reject_or_drop_is_refused(text: str, message: str) -> None:
    with pytest.raises(JdlError, match=message):
        validate(parse(text))


def test_a_split_over_storage_elements_is_fine_with_input_data() -> None:
    validate(parse('Executable = "x"; Split = "se"; InputData = {"LF:/a/b,nodownload"};'))


@pytest.mark.parametrize("value", [float("nan"), True, None, [1], (1,), Expression("5"), Expression("( a")])
def test_what_a_jdl_cannot_say_cannot_be_set(value: object) -> None:
    with pytest.raises(JdlError):
        Jdl({"A": value})  # type: ignore[dict-item]


def test_a_key_must_be_a_word() -> None:
    with pytest.raises(JdlError, match="no JDL key"):
        Jdl({"a b": 1})
