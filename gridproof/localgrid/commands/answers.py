"""Answers in the shape of JAliEn's."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EPERM, ENOENT, ESRCH, EIO, ENXIO, EACCES, EEXIST, ENOTDIR, EISDIR, EINVAL = 1, 2, 3, 5, 6, 13, 17, 20, 21, 22
ENAMETOOLONG, ENOSYS, EBADR, ENODATA, ENOLINK, EBADFD, EREMOTEIO, EDQUOT = 36, 38, 53, 61, 67, 77, 121, 122

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


def human_size(size: int) -> str:
    """Bytes as JAliEn prints them: ``51 B``, ``2.861 MB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 1024 or unit == "PB":
            break
        value /= 1024
    return f"{short_number(value)} {unit}"


def short_number(value: float) -> str:
    """At most three digits after the point, fewer for larger numbers, as JAliEn prints them."""
    if value >= 1000:
        return str(int(value))
    digits = 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def java_date(seconds: float) -> str:
    """A time as Java prints it: ``Sun Nov 22 13:32:36 UTC 2026``."""
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(seconds))
