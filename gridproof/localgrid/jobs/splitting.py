"""One JDL into the JDLs of its subjobs, as JAliEn's optimizer does it. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl, Value, production_range
from gridproof.errors import JdlError
from gridproof.localgrid.jobs.jdlorder import in_order
from gridproof.localgrid.jobs.patterns import fill
from gridproof.localgrid.jobs.requirements import close_to

_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS = ("", "K", "M", "G", "T")


@dataclass(frozen=True)
class Located:
    """An input file: the entry of the JDL (``LF:/…,nodownload``), its size in bytes, the SEs holding it."""

    entry: str
    size: int
    ses: tuple[str, ...]

    @property
    def lfn(self) -> str:
        return input_lfn(self.entry)


def input_lfn(entry: str) -> str:
    """The LFN of an ``LF:/…[,nodownload]`` entry."""
    return entry.removeprefix("LF:").split(",")[0].strip()


def is_split(jdl: Jdl) -> bool:
    """Whether this JDL is one of a master."""
    return bool(jdl.text("Split").strip())


def bind_to_data(jdl: Jdl, files: Sequence[Located]) -> Jdl:
    """A job goes where all of its input data are, or, if there is no such SE, where any of them is."""
    if not files:
        return jdl
    common = set(files[0].ses).intersection(*(f.ses for f in files[1:]))
    anywhere = {se for f in files for se in f.ses}
    return _require(jdl, sorted(common or anywhere))


def split(jdl: Jdl, files: Sequence[Located], limit: int, master: int) -> list[Jdl]:
    """The JDLs of at most ``limit`` subjobs of job ``master``.

    Raises JdlError when the JDL cannot be split, or into more.
    """
    counters = production_range(jdl)
    if counters is not None:
        _check_number(len(counters), limit)
        bound = bind_to_data(jdl, files)
        return [_subjob(bound, master, counter, files) for counter in counters]
    chunks = [chunk for group in _groups(jdl, files) for chunk in _chunks(jdl, group)]
    _check_number(len(chunks), limit)
    return [_of_chunk(jdl, master, counter, chunk) for counter, chunk in enumerate(chunks, 1)]


def _groups(jdl: Jdl, files: Sequence[Located]) -> list[list[Located]]:
    keys: dict[str, Callable[[Located], object]] = {
        "se": lambda f: f.ses,
        "file": lambda f: f.lfn,
        "directory": lambda f: posixpath.dirname(f.lfn),
        "parentdirectory": lambda f: posixpath.dirname(posixpath.dirname(f.lfn)),
    }
    how = jdl.text("Split").strip()
    key = keys.get(how.lower())
    if key is None:
        raise JdlError(f"Split = {how!r} is not known here: one of {', '.join(keys)}, production:FIRST-LAST")
    if how.lower() == "se" and not any(f"SplitMaxInputFile{what}" in jdl for what in ("Number", "Size")):
        raise JdlError("Split = 'se' needs a SplitMaxInputFileNumber or a SplitMaxInputFileSize")
    if not files:
        raise JdlError(f"Split = {how!r} splits over input data, but there are none")
    grouped: dict[object, list[Located]] = {}
    for file in files:
        grouped.setdefault(key(file), []).append(file)
    return list(grouped.values())


def _chunks(jdl: Jdl, files: Sequence[Located]) -> Iterator[list[Located]]:
    number = int(jdl.number("SplitMaxInputFileNumber", 0))
    size = _bytes(jdl.text("SplitMaxInputFileSize", "0"))
    chunk: list[Located] = []
    held = 0
    for file in files:
        if chunk and (0 < number <= len(chunk) or 0 < size < held + file.size):
            yield chunk
            chunk, held = [], 0
        chunk.append(file)
        held += file.size
    if chunk:
        yield chunk


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise JdlError(f"SplitMaxInputFileSize must be a number of bytes or like '7GB', not {text!r}")
    return int(found[1]) << 10 * _UNITS.index(found[2].upper())


def _check_number(subjobs: int, limit: int) -> None:
    if subjobs > limit:
        raise JdlError(f"The job would have {subjobs} subjobs, {limit} are allowed: split it into several")


def _require(jdl: Jdl, ses: Sequence[str]) -> Jdl:
    bound = jdl.copy()
    before = jdl.get("Requirements")
    close = f"( {close_to(ses)} )"
    bound["Requirements"] = Expression(f"{before} && {close}" if isinstance(before, Expression) else close)
    return bound


def _of_chunk(jdl: Jdl, master: int, counter: int, chunk: Sequence[Located]) -> Jdl:
    sub = jdl.copy()
    sub["InputData"] = tuple(file.entry for file in chunk)
    sub.pop("InputDataCollection", None)
    return _subjob(bind_to_data(sub, chunk), master, counter, chunk)


def _subjob(jdl: Jdl, master: int, counter: int, files: Sequence[Located]) -> Jdl:
    lfns, values = [file.lfn for file in files], {**jdl, "MasterJobID": str(master)}
    if extra := " ".join(jdl.strings("SplitArguments")):
        values["Arguments"] = f"{jdl.text('Arguments')} {extra}".strip()
    return Jdl(
        {
            key: value if key.lower() == "inputdata" else _filled(value, counter, lfns)
            for key, value in in_order(values).items()
            if not key.lower().startswith(("split", "email"))
        }
    )


def _filled(value: Value, counter: int, lfns: Sequence[str]) -> Value:
    if isinstance(value, tuple):
        return tuple(fill(text, counter, lfns) for text in value)
    return fill(value, counter, lfns) if isinstance(value, str) else value
