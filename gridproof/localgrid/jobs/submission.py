"""A JDL as somebody gave it into the complete one that the task queue takes, as JAliEn makes it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl, parse
from gridproof.errors import JdlError
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import CatalogueError, Entry
from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.jobs import jdlsyntax
from gridproof.localgrid.jobs.jdlorder import in_order
from gridproof.localgrid.jobs.requirements import DEFAULT_TTL, cpu_cores, read_number, read_requirements
from gridproof.localgrid.jobs.splitting import input_lfn

_ARGUMENT = re.compile(r"\$(\d{1,9})")
_COMMENT = re.compile(r"^[^\S\n]*(?:#|//).*$", re.MULTILINE)


@dataclass(frozen=True)
class Submitter:
    """Who submits: the account, its home directory, and the LFN of the JDL if it came from the catalogue."""

    user: str
    home: str
    jdl_path: str = ""


def read_jdl(text: str, arguments: Sequence[str]) -> Jdl:
    """A JDL with its arguments filled in. Raises JdlError, in the words of JAliEn where it refuses, too."""
    text = _COMMENT.sub("", text)
    for number in map(int, _ARGUMENT.findall(text)):
        if number > len(arguments):
            raise JdlError(f"The JDL indicates argument ${number} but you haven't provided it")
    jdlsyntax.check(text)
    jdl = parse(text, arguments)
    if arguments:
        jdl["JDLArguments"] = " ".join(arguments)
    return jdl


def complete(jdl: Jdl, by: Submitter, catalogue: Catalogue, packages: Collection[str]) -> Jdl:
    """The JDL with what JAliEn adds to it. Raises JdlError for what is missing on the Grid."""
    for package in jdl.strings("Packages"):
        if package not in packages:
            known = ", ".join(sorted(packages)) or "none"
            raise JdlError(f"Package not defined: {package} (there are: {known})")
    full = jdl.copy()
    if by.jdl_path:
        full["JDLPath"] = by.jdl_path
    _find_executables(full, by, catalogue)
    cores = cpu_cores(jdl)
    full["User"] = by.user
    full["Price"] = read_number(jdl, "Price", 1.0)
    ttl = int(read_number(jdl, "TTL", DEFAULT_TTL))
    full["TTL"] = ttl if ttl > 0 else DEFAULT_TTL
    full["CPUCores"] = str(cores)
    full["Type"] = "Job"
    full.setdefault("MemorySize", f"{8 * cores}GB")
    variables = (*jdl.strings("JDLVariables"), "CPUCores")
    full["JDLVariables"] = tuple(dict.fromkeys(name for name in variables if name in full))
    _set_requirements(full)
    _check_inputs(full, by, catalogue)
    return Jdl(in_order(full))


def _find_executables(jdl: Jdl, by: Submitter, catalogue: Catalogue) -> None:
    places = ["/bin", "/local/bin", posixpath.join(by.home, "bin"), posixpath.dirname(by.jdl_path)]
    for key in ("Executable", "ValidationCommand"):
        name = jdl.text(key).strip()
        if not name:
            if key == "Executable":
                raise JdlError("The JDL has to indicate an Executable")
            continue
        candidates = [name] if name.startswith("/") else [posixpath.join(p, name) for p in places if p]
        readable = (_readable(lfn, by.user, catalogue) for lfn in candidates)
        found = (entry for entry in readable if entry and entry.type == "f")
        entry = next(found, None)
        if entry is None:
            raise JdlError(f"The {key} name you indicated ({name}) cannot be located in any standard PATH")
        jdl[key] = entry.lfn


def _set_requirements(jdl: Jdl) -> None:
    """What was asked for, without quotes, with what follows from other keys."""
    asked = jdl.get("OrigRequirements", jdl.get("Requirements"))
    if isinstance(asked, Expression):
        jdl["OrigRequirements"] = asked
    terms = [f'member(other.Packages,"{package}")' for package in jdl.strings("Packages")]
    terms += [asked.text] if isinstance(asked, Expression) else []
    terms += [f"other.TTL > {jdl.text('TTL')}", f"other.Price <= {int(read_number(jdl, 'Price', 1.0))}"]
    terms += [f"other.LocalDiskSpace > {read_requirements(jdl).disk << 10}"]
    jdl["Requirements"] = Expression(" && ".join(f"( {term} )" for term in dict.fromkeys(terms)))


def _check_inputs(jdl: Jdl, by: Submitter, catalogue: Catalogue) -> None:
    for key, types in (("InputFile", "f"), ("InputData", "f"), ("InputDataCollection", "fc")):
        for given in jdl.strings(key):
            lfn = input_lfn(given)
            if types == "f" and not given.startswith("LF:"):
                raise JdlError(f"{key} doesn't start with 'LF:' : {given}")
            entry = _readable(lfn, by.user, catalogue)
            if not lfn.startswith("/") or entry is None or entry.type not in types:
                raise JdlError(f"{key} {lfn} doesn't exist in the catalogue")


def _readable(lfn: str, user: str, catalogue: Catalogue) -> Entry | None:
    try:
        return catalogue.look_up(lfn, user, READ)
    except CatalogueError:
        raise JdlError(f"{user} is not allowed to read {lfn}") from None
