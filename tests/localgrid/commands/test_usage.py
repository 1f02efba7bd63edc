"""Every command of the central service says what it is given, and is what ``commandlist`` tells of."""

from __future__ import annotations

import pytest

from gridproof.localgrid import LocalGrid
from gridproof.localgrid.commands.usage import USAGES, help_text
from tests.localgrid.conftest import Raw

NEEDY = sorted(name for name, usage in USAGES.items() if not usage.alone)


@pytest.fixture(scope="module")
def raw(grid: LocalGrid):
    with Raw(grid.environment) as raw:
        yield raw


@pytest.mark.parametrize("name", USAGES)
def test_a_command_that_is_listed_exists_and_tells_how_it_is_used(raw: Raw, name: str) -> None:
    assert raw.rows(name, "-h") == [{"message": help_text(name)}]
    assert "Command [" not in raw.ask(name, "--none", "/nowhere")["metadata"]["error"]


def test_commandlist_tells_of_every_command_but_the_grids_own(raw: Raw) -> None:
    rows = raw.rows("commandlist")
    assert [row["commandlist"] for row in rows] == list(USAGES)
    assert rows[0]["message"].split("\n") == list(USAGES)


@pytest.mark.parametrize("name", NEEDY)
def test_a_command_without_the_argument_that_it_needs_answers_with_its_usage(raw: Raw, name: str) -> None:
    answer = raw.ask(name)
    assert answer["metadata"]["exitcode"] == "22"
    assert answer["metadata"]["error"] == "Invalid argument : Command requires an argument"
    assert answer["results"] == [{"message": help_text(name)}]


def test_help_is_laid_out_as_jaliens(raw: Raw) -> None:
    assert help_text("du").split("\n")[:4] == [
        "",
        "usage: du   [-ncs] <path>",
        "",
        "options:",
    ]
    assert help_text("du").split("\n")[4].startswith(f"{'':20}-n{'':19}  :  ")


@pytest.mark.parametrize("arguments", [("3", "pwd"), ("1", "ls", "/nowhere")])
def test_time_answers_what_the_command_answers_and_how_long_it_took(raw: Raw, arguments) -> None:
    once = raw.ask(*arguments[1:])
    answer = raw.ask("time", *arguments)
    assert answer["results"][:-1] == once["results"] * int(arguments[0])
    assert answer["metadata"] == once["metadata"]
    assert f'"{" ".join(arguments[1:])}" with #{arguments[0]} tries' in answer["results"][-1]["message"]
