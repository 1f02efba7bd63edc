"""Answers in the shape of JAliEn's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Answer:
    """Rows of results (``message`` among the keys is for people), an errno and its text."""

    rows: list[Row] = field(default_factory=list)
    exitcode: int = 0
    error: str = ""

    def fail(self, code: int, text: str) -> None:
        """The command has failed in part: what it answers stays, and the last failure is named."""
        self.exitcode, self.error = code, _worded(code, text)

    def render(self, directory: str, user: str, *, keys: bool = True, messages: bool = True) -> Row:
        """The object that goes over the wire."""
        rows = [{k: v for k, v in row.items() if (messages if k == "message" else keys)} for row in self.rows]
        metadata = {
            "currentdir": directory,
            "exitcode": str(self.exitcode),
            "error": self.error,
            "user": user,
        }
        return {"metadata": metadata, "results": [row for row in rows if row]}


class CommandFailed(Exception):
    """A command ends with this errno; ``rows`` are shown all the same."""

    def __init__(self, code: int, text: str = "", rows: Sequence[Row] = ()) -> None:
        super().__init__(text)
        self.code = code
        self.rows = list(rows)

    def answer(self) -> Answer:
        """The failure as JAliEn words it."""
        return Answer(self.rows, self.code, _worded(self.code, str(self)))


def _worded(code: int, text: str) -> str:
    what = os.strerror(code)
    return f"{what} : {text}" if text else what


def is_whole(text: str) -> bool:
    """Whether this is a number: digits, and not more than any command has a use for."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def text(message: str) -> Answer:
    """An answer for people only."""
    return Answer([{"message": message}])
