"""The Job Description Language: read, written and checked; nothing here talks to anybody.

A JDL is a list of ``Key = value;``. A value is a quoted string, a number, a set of strings in braces, or
anything else, which is an expression and kept as it stands (``Requirements``). Keys are case-insensitive,
comments are ``# …``, ``// …`` and ``/* … */`` where a word may begin, and ``$1`` stands for the first
argument given at submission. `validate` knows what JAliEn makes of a JDL beyond its syntax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gridproof.errors import JdlError


@dataclass(frozen=True)
class Expression:
    """An unquoted value, verbatim: ``( other.TTL > 600 ) && member(other.CloseSE,"A::B::C")``."""

    text: str

    def __str__(self) -> str:
        return self.text


Value: TypeAlias = str | int | float | tuple[str, ...] | Expression

_KEY = re.compile(r"[A-Za-z0-9_]+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ARGUMENT = re.compile(r"\$([1-9][0-9]{0,8})")
_ESCAPE_NEEDED = re.compile(r'\\(?=["\\]|\Z)|"')
_OPENING = {"(": ")", "[": "]", "{": "}"}
_WHOLE_NUMBERS = range(-(2**63), 2**63)  # a Java long


class Jdl(MutableMapping[str, Value]):
    """A job description: keys in order, case-insensitive, in the case first seen.

    A set keeps its order and holds each string once. Setting what a JDL cannot say raises JdlError.
    """

    def __init__(self, content: dict[str, Value] | None = None) -> None:
        self._content: dict[str, tuple[str, Value]] = {}
        self.update(content or {})

    def __getitem__(self, key: str) -> Value:
        return self._content[key.lower()][1]

    def __setitem__(self, key: str, value: Value) -> None:
        if not _KEY.fullmatch(key):
            raise JdlError(f"{key!r} is no JDL key: only letters, digits and underscores")
        name = self._content[key.lower()][0] if key.lower() in self._content else key
        self._content[key.lower()] = (name, _checked(key, value))

    def __delitem__(self, key: str) -> None:
        del self._content[key.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._content.values()])

    def __len__(self) -> int:
        return len(self._content)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._content

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Jdl):
            return NotImplemented
        return {k: v for k, (_, v) in self._content.items()} == {k: v for k, (_, v) in other._content.items()}

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Jdl({dict(self)!r})"

    def copy(self) -> Jdl:
        """A JDL of its own with the same keys and values."""
        return Jdl(dict(self))

    def text(self, key: str, default: str = "") -> str:
        """The value as one string: a set's first element, a number or an expression as written."""
        value = self.get(key, default)
        if isinstance(value, tuple):
            return value[0] if value else default
        return str(value)

    def strings(self, key: str) -> tuple[str, ...]:
        """The value as strings: a set's elements, a single value as the only one, () when missing."""
        value = self.get(key, ())
        return value if isinstance(value, tuple) else (str(value),)

    def number(self, key: str, default: float) -> float:
        """The value as a number, also when it is written in quotes; raises JdlError for anything else."""
        if key not in self:
            return default
        text = self.text(key).strip()
        if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
            raise JdlError(f"{key} must be a number, not {text!r}")
        return float(text)


def parse(text: str, arguments: Sequence[str] | None = None) -> Jdl:
    """Read a JDL; ``$n`` in values becomes ``arguments[n-1]``, or stays as it is without ``arguments``.

    Raises JdlError with line and column: broken syntax, a key given twice, an argument that is missing.
    """
    return _Parser(text, arguments).parse()


def render(jdl: Jdl) -> str:
    """Write a JDL as JAliEn does, one key or element a line, so that ``parse(render(jdl)) == jdl``."""
    return "".join(f"{key} = {_render_value(value)};\n" for key, value in jdl.items())


def _checked(key: str, value: object) -> Value:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise JdlError(f"{key} cannot be {value}: a JDL has only finite numbers")
        if isinstance(value, int) and value not in _WHOLE_NUMBERS:
            raise JdlError(f"{key}: a whole number in a JDL has 64 bits at most")
        return value
    if isinstance(value, tuple) and all(isinstance(v, str) for v in value):
        return tuple(dict.fromkeys(value))
    if isinstance(value, Expression):
        read = parse(f"{key} = {value.text}\n;")
        if len(read) != 1 or not isinstance(read[key], Expression):
            raise JdlError(f"{key}: {value.text!r} is not one expression")
        return read[key]
    raise JdlError(f"{key} cannot be {value!r}: give a string, a number, a tuple of strings or an Expression")


def _quote(text: str) -> str:
    return '"' + _ESCAPE_NEEDED.sub(lambda found: "\\" + found.group(), text) + '"'


def _render_value(value: Value) -> str:
    if isinstance(value, tuple):
        return "{\n" + ",\n".join(_quote(v) for v in value) + "\n}"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Expression):
        return value.text
    return repr(value)


class _Parser:
    def __init__(self, text: str, arguments: Sequence[str] | None) -> None:
        self._text = text
        self._at = 0
        self._arguments = arguments  # None: values are templates, left alone

    def parse(self) -> Jdl:
        jdl = Jdl()
        while True:
            self._skip()
            if self._at >= len(self._text):
                return jdl
            start = self._at
            key = self._key()
            if key in jdl:
                raise self._error(f"{key} is given twice", start)
            self._skip()
            if self._peek() != "=":
                raise self._error(f"expected '=' after {key}, found {self._found()}")
            self._at += 1
            self._skip()
            value = self._value(key)
            self._skip()
            if self._peek() == ";":
                self._at += 1
            elif self._at < len(self._text):
                raise self._error(f"expected ';' after the value of {key}, found {self._found()}")
            # Not through __setitem__: what was read here is well formed.
            jdl._content[key.lower()] = (key, value)

    def _error(self, message: str, at: int | None = None) -> JdlError:
        at = self._at if at is None else at
        line = self._text.count("\n", 0, at) + 1
        return JdlError(message, line, at - self._text.rfind("\n", 0, at))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _found(self) -> str:
        if self._at >= len(self._text):
            return "the end"
        word = _KEY.match(self._text, self._at)
        return repr(word.group() if word else self._peek())

    def _comment_end(self, at: int) -> int:
        """Where the comment that begins at ``at`` ends; ``at`` itself when none begins there."""
        text = self._text
        if text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise self._error("comment is not closed: '*/' is missing", at)
            return end + 2
        if text.startswith(("#", "//"), at):
            end = text.find("\n", at)
            return len(text) if end < 0 else end
        return at

    def _skip(self) -> None:
        while self._at < len(self._text):
            if self._text[self._at].isspace():
                self._at += 1
                continue
            end = self._comment_end(self._at)
            if end == self._at:
                return
            self._at = end

    def _key(self) -> str:
        found = _KEY.match(self._text, self._at)
        if not found:
            raise self._error(f"expected a key, found {self._found()}")
        self._at = found.end()
        return found.group()

    def _value(self, key: str) -> Value:
        start = self._at
        if self._peek() == '"':
            return self._substitute(self._string(), start)
        if self._peek() == "{":
            return self._set(key)
        text = self._substitute(self._raw(";"), start)
        if not text:
            raise self._error(f"{key} has no value", start)
        number = float(text) if _FLOAT.fullmatch(text) else math.nan
        if _INTEGER.fullmatch(text) and int(text) in _WHOLE_NUMBERS:
            return int(text)
        return number if math.isfinite(number) else Expression(text)

    def _string(self) -> str:
        start = self._at
        parts: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(parts)
            if char == "\\" and self._text[self._at + 1 : self._at + 2] in ('"', "\\"):
                self._at += 1
                char = self._text[self._at]
            parts.append(char)
            self._at += 1
        raise self._error("string is not closed: '\"' is missing", start)

    def _set(self, key: str) -> tuple[str, ...]:
        start = self._at
        elements: list[str] = []
        self._at += 1
        while True:
            self._skip()
            if self._at >= len(self._text):
                raise self._error(f"set of {key} is not closed: '}}' is missing", start)
            if self._peek() == "}":
                self._at += 1
                return tuple(dict.fromkeys(elements))
            at = self._at
            element = self._string() if self._peek() == '"' else self._raw(",};")
            if self._at == at:
                raise self._error(f"expected an element of {key}, found {self._found()}")
            elements.append(self._substitute(element, at))
            self._skip()
            if self._peek() == ",":
                self._at += 1
            elif self._peek() != "}" and self._at < len(self._text):
                raise self._error(f"expected ',' or '}}' in the set of {key}, found {self._found()}")

    def _raw(self, stops: str) -> str:
        """Text as it stands up to one of ``stops`` outside quotes and brackets, without comments."""
        parts: list[str] = []
        open_brackets: list[tuple[str, int]] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in stops and (not open_brackets or char == ";"):
                break
            start = self._at
            if char == '"':
                self._string()
            elif (not parts or parts[-1][-1].isspace()) and self._comment_end(start) != start:
                self._at = self._comment_end(start)
                parts.append(" ")
                continue
            else:
                self._at += 1
                if char in _OPENING:
                    open_brackets.append((_OPENING[char], start))
                elif char in _OPENING.values() and (not open_brackets or open_brackets.pop()[0] != char):
                    raise self._error(f"{char!r} closes nothing", start)
            parts.append(self._text[start : self._at])
        if open_brackets:
            closing, start = open_brackets[-1]
            raise self._error(f"bracket is not closed: {closing!r} is missing", start)
        return "".join(parts).strip()

    def _substitute(self, text: str, at: int) -> str:
        arguments = self._arguments
        if arguments is None:
            return text

        def argument(found: re.Match[str]) -> str:
            number = int(found.group(1))
            if number > len(arguments):
                given = f"{len(arguments)} were given" if len(arguments) != 1 else "one was given"
                raise self._error(f"argument ${number} is missing: {given}", at)
            return arguments[number - 1]

        return _ARGUMENT.sub(argument, text)


_PRODUCTION = re.compile(r"production:([0-9]{1,9})-([0-9]{1,9})", re.IGNORECASE)
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?\s*([KMGT]i?)?B?", re.IGNORECASE)
_SPLITS = ("se", "file", "directory", "parentdirectory", "production:1-N")


def production_range(jdl: Jdl) -> range | None:
    """The counters of ``Split = "production:first-last"``; None for other JDLs. Raises JdlError."""
    split = jdl.text("Split")
    if not split.lower().startswith("production"):
        return None
    found = _PRODUCTION.fullmatch(split.strip())
    if not found or int(found[1]) > int(found[2]):
        raise JdlError(f"Split = {split!r}: expected production:FIRST-LAST with FIRST not above LAST")
    return range(int(found[1]), int(found[2]) + 1)


def validate(jdl: Jdl) -> None:
    """Check what the central service would reject or silently drop; raises JdlError naming the key."""
    executable = jdl.get("Executable", "")
    if not isinstance(executable, str) or not executable.strip():
        raise JdlError("Executable is missing: give the LFN of what the job shall run, in quotes")
    _validate_split(jdl)
    for key in ("TTL", "Price"):
        if key in jdl and jdl.number(key, 1) <= 0:
            raise JdlError(f"{key} must be a positive number, not {jdl.text(key)}")
    for key in ("CPUCores", "SplitMaxInputFileNumber", "SplitMaxInputFileSize"):
        if key in jdl and (jdl.number(key, 1) < 1 or jdl.number(key, 1) % 1):
            raise JdlError(f"{key} must be a whole number of at least 1, not {jdl.text(key)}")
    if "MemorySize" in jdl and not _MEMORY.fullmatch(jdl.text("MemorySize").strip()):
        raise JdlError(f"MemorySize must be like '8GB', not {jdl.text('MemorySize')!r}")
    for key in ("InputData", "InputFile", "InputDataCollection"):
        for entry in jdl.strings(key):
            if not entry.startswith("LF:") or not entry[3:].split(",")[0].strip():
                raise JdlError(f"{key}: {entry!r} must be 'LF:' and the LFN of a file in the catalogue")
    if isinstance(jdl.get("Requirements", Expression("")), (str, tuple)):
        raise JdlError("Requirements is quoted, which AliEn drops without a word: write it without quotes")
    for key in jdl:
        _validate_text(key, jdl)


def _validate_text(key: str, jdl: Jdl) -> None:
    """Texts that the service's own reader would take for something else."""
    value = jdl[key]
    if isinstance(value, tuple) and any('"' in v or v.endswith("'") for v in value):
        raise JdlError(f"{key}: AliEn reads no element with a quote in it, or with an apostrophe at its end")
    texts = value if isinstance(value, tuple) else (str(value),)
    if any(line.lstrip().startswith(("#", "//")) for v in texts for line in v.split("\n")[1:]):
        raise JdlError(f"{key}: AliEn takes a line that begins with '#' or '//' for a comment")
    if argument := next((found for v in texts if (found := _ARGUMENT.search(v))), None):
        raise JdlError(f"{key}: {argument.group()} stands for an argument; put the argument in its place")


def _validate_split(jdl: Jdl) -> None:
    if "Split" not in jdl:
        return
    split = jdl.text("Split").strip().lower()
    if production_range(jdl) is not None:
        return
    if split not in _SPLITS:
        raise JdlError(f"Split = {jdl.text('Split')!r} is not known: one of {', '.join(_SPLITS)}")
    if not jdl.strings("InputData") and not jdl.strings("InputDataCollection"):
        raise JdlError(f"Split = {split!r} splits over input files: give InputData or InputDataCollection")
