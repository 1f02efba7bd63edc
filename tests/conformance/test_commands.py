"""The genuine alienpy is content with the embedded Grid: every command, with good and bad arguments."""

from __future__ import annotations

import re

import pytest

from tests.conformance import table
from tests.conformance.cases import SECTIONS

CASES = [
    pytest.param(number, id=f"{command}: {case.line}")
    for number, (command, case) in enumerate((c, case) for c, cases in SECTIONS.items() for case in cases)
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return table.run(tmp_path_factory.mktemp("alienpy"))


@pytest.mark.parametrize("number", CASES)
def test_a_line_comes_to_what_jalien_makes_of_it(outcomes, number):
    outcome = outcomes[number]
    case, got = outcome.case, outcome.library
    assert got.exitcode == case.code, got
    if case.error:
        assert got.err.strip() == table.filled(case.error, outcome.names)
    if case.keys is not None:
        assert {key for row in got.rows for key in row} - {"message"} == set(case.keys.split())
    if case.says:
        assert re.search(table.filled(case.says, outcome.names), got.out), got.out


@pytest.mark.parametrize("number", CASES)
def test_the_command_line_prints_what_the_library_returns(outcomes, number):
    outcome = outcomes[number]
    code, text = outcome.typed
    assert code == outcome.library.exitcode
    library = outcome.library
    expected = library.printed + (library.err if code else library.out)
    assert variable(text) == variable(table.masked(expected, outcome.names))


def variable(text: str) -> str:
    """A text without what is never the same twice."""
    text = re.sub(r"(?m)^(script location|Interpreter):.*", "", text)
    text = re.sub(r"-----BEGIN (?s:.*?)-----END", "PEM", text)
    text = re.sub(r"(?m)^localgrid-\S+|Bearer\S+|authz=\S+", "ENVELOPE", text)
    text = re.sub(r"[\d.]+ [KMG]?i?B/s", "SPEED", text)
    text = re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}", "GUID", text)
    words = re.sub(r"\d+", "N", text).replace("jobID", " jobID").split()
    return " ".join(sorted(words) if "jobID:" in words else words)  # copies go on side by side


def test_the_page_of_commands_is_what_comes_of_running_them(outcomes):
    assert table.PAGE.read_text() == table.page(outcomes), "write it: python -m tests.conformance.table"
