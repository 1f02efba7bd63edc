"""Patterns of names (pure): ``*``, ``?``, ``[…]``, and ``**`` for any number of directories."""

from __future__ import annotations

import re
from collections.abc import Callable

_WILD = re.compile(r"[*?[]")


def is_pattern(name: str) -> bool:
    """Whether a name has wildcards."""
    return _WILD.search(name) is not None


def first_wild(parts: list[str]) -> int:
    """The place of the first part with wildcards; the last one's if there is none."""
    return next((place for place, part in enumerate(parts) if is_pattern(part)), len(parts) - 1)


def search(pattern: str) -> tuple[str, str]:
    """The directory to search and the looser pattern for AliEn's ``find``, which knows ``*`` and ``?``."""
    parts = pattern.split("/")
    last = re.sub(r"\[[^]]*\]", "?", parts[-1]) or "*"
    return "/".join(parts[: first_wild(parts)]) or "/", re.sub(r"\*+", "*", last)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether an LFN matches a pattern wholly; ``**`` alone stands for any number of directories."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
        else:
            pieces = re.split(r"(\*+|\?|\[[^]/]+\])", part)
            parts.append("".join(_piece(piece) for piece in pieces) + "/")
    regex = re.compile("".join(parts).removesuffix("/") + ("[^/]+" if pattern.endswith("**") else ""))
    return lambda lfn: regex.fullmatch(lfn) is not None


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece.startswith("[") and len(piece) > 2:
        characters = re.sub(r"([\\^\]])", r"\\\1", piece[1:-1].lstrip("!^"))
        return _checked(f"[{'^' if piece[1] in '!^' else ''}{characters}]")
    return re.escape(piece)


def _checked(characters: str) -> str:
    """A class of characters; one with a range that runs backwards matches nothing, as in the shell."""
    try:
        re.compile(characters)
    except re.error:
        return r"[^\s\S]"
    return characters
