"""A command's options, read as JAliEn reads them: with the rules of joptsimple."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from errno import EINVAL

from gridproof.localgrid.commands.answers import CommandFailed, is_whole
from gridproof.localgrid.commands.usage import USAGES, Usage


@dataclass(frozen=True)
class Options:
    """Those given without a value, those with one, by name without dashes; and what is no option."""

    flags: frozenset[str]
    values: dict[str, str]
    rest: tuple[str, ...]

    def number(self, name: str, default: int) -> int:
        """The value of an option that takes a number; raises CommandFailed when it is none."""
        value = self.values.get(name, str(default))
        if not is_whole(value.removeprefix("-")):
            raise CommandFailed(EINVAL, f"Cannot parse argument '{value}' of option {name}")
        return int(value)


def read_options(name: str, arguments: Sequence[str]) -> Options:
    """Sort a command's arguments by its :class:`Usage`.

    ``-la`` is ``-l -a`` unless there is an option ``la``; ``-l 3``, ``-l3`` and ``-l=3`` are the same;
    after ``--`` there are no options. Raises CommandFailed for unknown options and missing values.
    """
    kinds = _kinds(USAGES[name])
    flags: set[str] = set()
    values: dict[str, str] = {}
    rest: list[str] = []
    left = list(arguments)

    def take(option: str, value: str | None) -> None:
        kind = kinds[option]
        if value is None and kind == "<" and not left:
            raise CommandFailed(EINVAL, f"Option {option} requires an argument")
        if value is None and (kind == "<" or (kind == "[" and left and not left[0].startswith("-"))):
            value = left.pop(0)
        if value is None:
            flags.add(option)
        else:
            values[option] = value

    while left:
        argument = left.pop(0)
        if argument == "--":
            return Options(frozenset(flags), values, (*rest, *left))
        given = argument.removeprefix("-").removeprefix("-")
        if not argument.startswith("-") or not given:
            rest.append(argument)
            continue
        option, equals, value = given.partition("=")
        if option in kinds:
            take(option, value if equals else None)
        elif argument.startswith("--"):
            raise _unknown(option)
        else:
            _take_letters(given, kinds, take)
    return Options(frozenset(flags), values, tuple(rest))


def _take_letters(letters: str, kinds: Mapping[str, str], take: Callable[[str, str | None], None]) -> None:
    """``-la``, or ``-l3`` where what follows a letter is its value; nothing is taken if one is unknown."""
    ends = next((n for n, letter in enumerate(letters) if kinds.get(letter)), len(letters))
    if unknown := [letter for letter in letters[:ends] if letter not in kinds]:
        raise _unknown(unknown[0])
    for letter in letters[:ends]:
        take(letter, None)
    if ends < len(letters):
        take(letters[ends], letters[ends + 1 :] or None)


def _kinds(usage: Usage) -> dict[str, str]:
    """For each option whether it takes a value: "" no, "<" it does, "[" it may."""
    pairs = (option.lstrip("-").partition(" ") for option in (*usage.options, *usage.hidden))
    return {name: value[:1] for name, _, value in pairs}


def _unknown(option: str) -> CommandFailed:
    return CommandFailed(EINVAL, f"{option} is not a recognized option")
