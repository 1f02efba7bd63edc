"""One JDL into the JDLs of its subjobs, as JAliEn's optimizer does it. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl, Value, production_range
from gridproof.errors import JdlError
from gridproof.localgrid.requirements import close_to

_COUNTER = re.compile(r"#alien_counter(?:_(\d+)i)?#", re.IGNORECASE)
_DROPPED = ("Split", "SplitArguments", "SplitMaxInputFileNumber", "SplitMaxInputFileSize")


@dataclass(frozen=True)
class Located:
    """An input file: the entry of the JDL (``LF:/…,nodownload``), its size in bytes, the SEs holding it."""

    entry: str
    size: int
    ses: tuple[str, ...]

    @property
    def lfn(self) -> str:
        return input_lfn(self.entry)


Locate = Callable[[str], "tuple[int, tuple[str, ...]] | None"]


def input_lfn(entry: str) -> str:
    """The LFN of an ``LF:/…[,nodownload]`` entry."""
    return entry.removeprefix("LF:").split(",")[0].strip()


def is_split(jdl: Jdl) -> bool:
    """Whether this JDL is one of a master."""
    return bool(jdl.text("Split").strip())


def locate_inputs(jdl: Jdl, locate: Locate) -> list[Located]:
    """Where the ``InputData`` are; raises JdlError for a file that the catalogue does not have."""
    found = []
    for entry in jdl.strings("InputData"):
        at = locate(input_lfn(entry))
        if at is None:
            raise JdlError(f"InputData: {input_lfn(entry)} is not in the catalogue")
        found.append(Located(entry, at[0], tuple(sorted(at[1]))))
    return found


def bind_to_data(jdl: Jdl, files: Sequence[Located]) -> Jdl:
    """A job that is not split goes where all of its input data are, or, if there is no such SE, any."""
    if not files:
        return jdl
    common = set(files[0].ses).intersection(*(f.ses for f in files[1:]))
    anywhere = {se for f in files for se in f.ses}
    return _require(jdl, sorted(common or anywhere))


def split(jdl: Jdl, locate: Locate) -> list[Jdl]:
    """The subjobs' JDLs; raises JdlError when the JDL cannot be split."""
    counters = production_range(jdl)
    if counters is not None:
        inputs = locate_inputs(jdl, locate)
        master = bind_to_data(jdl, inputs)
        return [_subjob(master, counter, inputs) for counter in counters]
    files = locate_inputs(jdl, locate)
    if not files:
        raise JdlError("Split over input data, but there are no InputData")
    groups = _groups(jdl.text("Split").strip().lower(), files)
    number = int(jdl.number("SplitMaxInputFileNumber", 0))
    size = int(jdl.number("SplitMaxInputFileSize", 0))
    subjobs: list[Jdl] = []
    for group in groups:
        for chunk in _chunks(group, number, size):
            sub = jdl.copy()
            sub["InputData"] = tuple(f.entry for f in chunk)
            sub = bind_to_data(sub, chunk)
            subjobs.append(_subjob(sub, len(subjobs) + 1, chunk))
    return subjobs


def _groups(how: str, files: Sequence[Located]) -> list[list[Located]]:
    keys: dict[str, Callable[[Located], object]] = {
        "se": lambda f: f.ses,
        "file": lambda f: f.lfn,
        "directory": lambda f: posixpath.dirname(f.lfn),
        "parentdirectory": lambda f: posixpath.dirname(posixpath.dirname(f.lfn)),
    }
    if how not in keys:
        raise JdlError(f"Split = {how!r} is not known here: one of {', '.join(keys)}, production:FIRST-LAST")
    grouped: dict[object, list[Located]] = {}
    for file in files:
        grouped.setdefault(keys[how](file), []).append(file)
    return list(grouped.values())


def _chunks(files: Sequence[Located], number: int, size: int) -> Iterator[list[Located]]:
    chunk: list[Located] = []
    for file in files:
        full = number and len(chunk) >= number
        heavy = size and sum(f.size for f in chunk) + file.size > size
        if chunk and (full or heavy):
            yield chunk
            chunk = []
        chunk.append(file)
    if chunk:
        yield chunk


def _require(jdl: Jdl, ses: Sequence[str]) -> Jdl:
    if not ses:
        return jdl
    bound = jdl.copy()
    before = jdl.get("Requirements")
    close = f"( {close_to(ses)} )"
    bound["Requirements"] = Expression(f"{before} && {close}" if isinstance(before, Expression) else close)
    return bound


def _subjob(jdl: Jdl, counter: int, files: Sequence[Located]) -> Jdl:
    sub = jdl.copy()
    extra = " ".join(jdl.strings("SplitArguments"))
    if extra:
        sub["Arguments"] = f"{jdl.text('Arguments')} {extra}".strip()
    for key in _DROPPED:
        sub.pop(key, None)
    for key, value in list(sub.items()):
        sub[key] = _fill(value, counter, files)
    return sub


def _fill(value: Value, counter: int, files: Sequence[Located]) -> Value:
    if isinstance(value, tuple):
        return tuple(_fill_text(v, counter, files) for v in value)
    return _fill_text(value, counter, files) if isinstance(value, str) else value


def _fill_text(text: str, counter: int, files: Sequence[Located]) -> str:
    text = _COUNTER.sub(lambda found: f"{counter:0{int(found[1] or 0)}d}", text)
    if files and "#alien" in text.lower():
        lfn = files[0].lfn
        names = {"filename": posixpath.basename(lfn), "fulldir": lfn, "dir": posixpath.dirname(lfn)}
        for what, name in names.items():
            text = re.sub(f"#alien{what}#", name.replace("\\", r"\\"), text, flags=re.IGNORECASE)
    return text
