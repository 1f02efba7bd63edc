"""The ``#alien…#`` patterns that a master's JDL may hold and each subjob gets filled in. Pure.

``#alien_counter#`` is which subjob this is, ``#alien_counter_03i#`` with at least three digits. Of the first
input file ``#alienfilename#`` is the name (``#alienfilename/.root/_new.root/#``: with one text in it
replaced), ``#aliendir#`` the name of its directory (``#aliendirdir#``: of the one above, and so on), and
``#alienfulldir#``, as AliEn calls it, the LFN. ``#alienlastdir#`` is the same of the last input file,
``#alienalldir#`` of all of them with commas between, ``#alienfirstdir#`` of the first.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from gridproof.errors import JdlError

_PATTERN = re.compile(r"#alien([^#\s]+)#", re.IGNORECASE)
_COUNTER = re.compile(r"_counter(?:_?%?(0?)([0-9]{0,2})[id]?)?", re.IGNORECASE)
_FILE = re.compile(r"(first|last|all)?(fulldir|(?:dir)+|filename(?:/([^/]*)/([^/]*)/)?)", re.IGNORECASE)


def fill(text: str, counter: int, lfns: Sequence[str]) -> str:
    """``text`` for the subjob of this number with these input files; without any their patterns are empty.

    Raises JdlError for a pattern that AliEn does not know.
    """
    return _PATTERN.sub(lambda found: _filled(found[1], counter, lfns), text)


def _filled(pattern: str, counter: int, lfns: Sequence[str]) -> str:
    if number := _COUNTER.fullmatch(pattern):
        return f"{counter:{number[1]}{number[2] or 1}d}" if number[2] else str(counter)
    found = _FILE.fullmatch(pattern)
    if not found:
        raise JdlError(
            f"#alien{pattern}# is not known: there are #alien_counter#, #alien_counter_03i#, #alienfilename#,"
            " #aliendir#, #alienfulldir#, and first, last or all before those of files"
        )
    which, what, old, new = found.groups(default="")
    chosen = {"last": lfns[-1:], "all": lfns}.get(which.lower(), lfns[:1])
    return ",".join(_of_file(what.lower(), lfn, old, new) for lfn in chosen)


def _of_file(what: str, lfn: str, old: str, new: str) -> str:
    if what == "fulldir":
        return lfn
    if what.startswith("filename"):
        name = posixpath.basename(lfn)
        return name.replace(old, new) if old else name
    for _ in range(len(what) // len("dir")):
        lfn = posixpath.dirname(lfn)
    return posixpath.basename(lfn)
