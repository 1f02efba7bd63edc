"""The genuine alienpy is content with the embedded Grid: every command, with good and bad arguments."""

from __future__ import annotations

import re

import pytest

from tests.conformance import table
from tests.conformance.cases import FILES, GRID, JOBS, SECTIONS, SESSION

LINES = [(command, case) for command, cases in SECTIONS.items() for case in cases]
CASES = [pytest.param(n, id=f"{command}: {case.line}") for n, (command, case) in enumerate(LINES)]
RECORDED = table.recordings()
AS_RECORDED = [
    case
    for case, (_, line) in zip(CASES, LINES, strict=True)
    if table.agreement(line, RECORDED) == "recorded"
]
TEXT_ONLY = {"token"}  # alienpy asks for no keys
SHAPES = {
    "aclId|expiretime": "",
    "broken|replicated": "[01]",
    "ctime|mtime": r"\d{13}",
    "endpointUrl|url|pfn": r"root://\S+|guid:///\S+",
    "entryId|dir|size|seNumber|nSEs|split|priority|maxRunning|maxQueued": r"\d+",
    "usedSpace|totalSpace|freeSpace|fileCount": r"\d+",
    "guid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "id|jobId|jobid": r"-1|\d{10}",
    "lfn|path": r"/.*",
    "md5": "[0-9a-f]{32}|n/a",
    "perm": "[0-7]{3}",
    "permissions": "[-dc]([-r][-w][-x]){3}",
    "se|seName|ceName": r"\w+(::\w+)+|ArchiveMember",
    "status": "[A-Z_]+|open|killed|not_allowed|ok",
    "type": "f|d|c|file|directory|collection|FORK|",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return table.run(tmp_path_factory.mktemp("alienpy"))


def test_no_section_hides_another():
    assert len(SECTIONS) == len(SESSION) + len(FILES) + len(JOBS) + len(GRID)


@pytest.mark.parametrize("number", CASES)
def test_a_line_comes_to_what_jalien_makes_of_it(run, number):
    outcome = run.outcomes[number]
    case, got = outcome.case, outcome.library
    assert got.exitcode == case.code, got
    if case.error:
        assert got.err.strip() == table.filled(case.error, outcome.names)
    if case.keys is not None:
        assert table.keys_of(got.rows) == set(case.keys.split())
    if case.says:
        assert re.search(table.filled(case.says, outcome.names), got.out), got.out


@pytest.mark.parametrize("number", AS_RECORDED)
def test_a_recorded_line_is_answered_as_recorded(run, number):
    outcome = run.outcomes[number]
    code, error, keys = table.summary(outcome.library, outcome.names)
    expected = RECORDED[outcome.case.line]
    if outcome.case.line.split()[0] in TEXT_ONLY:
        assert (code, error) in [recorded[:2] for recorded in expected]
    else:
        assert (code, error, keys) in expected


@pytest.mark.parametrize("way", ["run", "send"])
def test_the_library_s_own_ways_to_ask_are_answered_as_recorded(run, way):
    asked = {line: returned for (how, line), returned in run.asked.items() if how == way}
    assert len(asked) > 40
    wrong = {
        line: table.summary(returned, run.names)
        for line, returned in asked.items()
        if table.summary(returned, run.names) not in RECORDED[line]
    }
    assert not wrong


@pytest.mark.parametrize("number", CASES)
def test_values_are_texts_of_the_shape_that_jalien_gives_them(run, number):
    outcome = run.outcomes[number]
    made_by_alienpy = outcome.case.line.startswith(("jobInfo", "pfn-status", "xrd_config"))
    rows = [] if made_by_alienpy else outcome.library.rows
    for key, value in ((key, value) for row in rows for key, value in row.items()):
        if key == "TTL":
            assert isinstance(value, int)
        elif key == "replicas":
            assert all(re.fullmatch(r"root://\S+|guid:///\S+", url) for url in value.values())
        elif key == "md5" and value is None:
            assert outcome.command == "access"  # a file that does not exist yet
        else:
            assert isinstance(value, str), key
            shape = next((shape for keys, shape in SHAPES.items() if key in keys.split("|")), "(?s:.*)")
            assert re.fullmatch(shape, value), key


@pytest.mark.parametrize("number", CASES)
def test_the_command_line_prints_what_the_library_returns(run, number):
    outcome = run.outcomes[number]
    code, text = outcome.typed
    assert code == outcome.library.exitcode
    library = outcome.library
    expected = library.printed + (library.err if code else library.out)
    assert variable(text) == variable(table.masked(expected, outcome.names))


def variable(text: str) -> str:
    """A text without what is never the same twice."""
    text = re.sub(r"(?m)^(script location|Interpreter):.*", "", text)
    text = re.sub(r"-----BEGIN (?s:.*?)-----END", "PEM", text)
    text = re.sub(r"(?m)^Bearer\S+|authz=\S+", "ENVELOPE", text)
    text = re.sub(r"[\d.]+ [KMG]?i?B/s", "SPEED", text)
    text = re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}", "GUID", text)
    words = re.sub(r"\d+(\.\d+)*(E-\d+)?", "N", text).replace("jobID", " jobID").split()
    return " ".join(sorted(words) if "jobID:" in words else words)  # copies go on side by side


@pytest.mark.parametrize("form", ["_library", "_typed"])
def test_what_was_copied_to_the_grid_and_back_is_the_same(run, form):
    directory = run.scratch / form
    assert (directory / "down").read_bytes() == table.LOCAL
    assert (directory / "member").read_text() == "in an archive"
    assert sorted(path.name for path in (directory / "many").rglob("*.sh")) == ["job.sh", "spin.sh"]


def test_the_page_of_commands_is_what_comes_of_running_them(run):
    assert table.PAGE.read_text() == table.page(run.outcomes), "write it: python -m tests.conformance.table"
