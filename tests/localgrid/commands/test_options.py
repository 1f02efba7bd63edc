"""Options are read by the rules of joptsimple, with which JAliEn reads them."""

from __future__ import annotations

import pytest

from gridproof.localgrid.commands.answers import CommandFailed
from gridproof.localgrid.commands.options import read_options


@pytest.mark.parametrize(
    ("arguments", "flags", "values", "rest"),
    [
        ("-l -a t1", "l a", {}, "t1"),
        ("-la t1", "l a", {}, "t1"),
        ("t1 -l", "l", {}, "t1"),
        ("--l t1", "l", {}, "t1"),
        ("-l -- -a", "l", {}, "-a"),
        ("- t1", "", {}, "- t1"),
        ("-bulk t1", "bulk", {}, "t1"),
        ("-lb t1", "l b", {}, "t1"),
    ],
)
def test_letters_may_stand_together_and_options_anywhere(arguments, flags, values, rest):
    options = read_options("ls", arguments.split())
    assert (options.flags, options.values, options.rest) == (set(flags.split()), values, tuple(rest.split()))


@pytest.mark.parametrize("arguments", ["-o 5", "-o5", "-o=5", "--o 5", "--o=5", "-do5", "-d -o 5"])
def test_a_value_follows_or_is_joined(arguments):
    assert read_options("find", arguments.split()).number("o", 0) == 5


def test_what_follows_an_option_with_a_value_is_the_value_whatever_it_looks_like():
    assert read_options("ps", ["-f", "-rs"]).values == {"f": "-rs"}
    assert read_options("find", ["-o", "-1"]).number("o", 0) == -1


def test_a_value_that_may_be_missing_is_no_option():
    both = read_options("ps", ["-j", "1", "-trace", "-jdl"])
    assert (both.flags, both.values) == ({"trace", "jdl"}, {"j": "1"})
    assert read_options("ps", ["-trace", "1"]).values == {"trace": "1"}


@pytest.mark.parametrize(
    ("command", "arguments", "error"),
    [
        ("ls", "-ly", "y is not a recognized option"),
        ("ls", "--long", "long is not a recognized option"),
        ("find", "t1 -l", "Option l requires an argument"),
        ("ps", "-ayb", "y is not a recognized option"),
    ],
)
def test_what_cannot_be_read_is_named(command, arguments, error):
    with pytest.raises(CommandFailed, match=error) as caught:
        read_options(command, arguments.split())
    assert caught.value.code == 22


def test_a_number_that_is_none_is_named():
    with pytest.raises(CommandFailed, match="Cannot parse argument 'x' of option l"):
        read_options("find", ["-l", "x"]).number("l", 0)
