"""Commands that look files up: their GUIDs, the space they take, their replicas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENXIO

from gridproof.localgrid.catalogue.entries import Entry, is_guid
from gridproof.localgrid.catalogue.permissions import PASS, READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row
from gridproof.localgrid.commands.caller import Caller, Verb, missing
from gridproof.localgrid.commands.files import existing
from gridproof.localgrid.commands.find import find
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.core import Core
from gridproof.localgrid.formats import human_size, short_number
from gridproof.localgrid.sites import find_se
from gridproof.localgrid.storage.element import StorageElement
from gridproof.localgrid.storage.transfer import md5_of
from gridproof.localgrid.users import ADMIN


def lfn2guid(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The GUID of a file."""
    entry = existing(core, caller, arguments[0])
    row: Row = {"lfn": entry.path, "type": entry.type}
    if entry.is_dir:
        raise CommandFailed(EISDIR, entry.path, [row])
    return Answer([{**row, "message": f"{entry.lfn:<80}{entry.guid}", "guid": entry.guid}])


def guid2lfn(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The files of GUIDs."""
    answer = Answer()
    for argument in arguments:
        guids = [word for word in re.split(r"[ \r\n\t;#/\\?]+", argument) if is_guid(word)]
        if not guids:
            raise CommandFailed(EINVAL, f"No GUID in this string: {argument}")
        for guid in guids:
            if entry := core.catalogue.by_guid(guid, caller.user):
                line = f"{entry.guid:<40}{entry.lfn}"
                answer.rows.append({"guid": entry.guid, "message": line, "lfn": entry.lfn})
            else:
                answer.rows.append({"guid": guid, "error": "No GUID"})
                answer.fail(ENOENT, f"GUID cannot be found in the database: {guid}")
    return answer


@dataclass
class _Usage:
    """What some directories hold; members of archives and collections take no space of their own."""

    folders: int = 0
    files: int = 0
    size: int = 0
    replicas: int = 0
    total: int = 0
    logical_files: int = 0
    logical_size: int = 0

    def add(self, contents: Iterable[tuple[str, int, int, bool]], *, collections: bool) -> None:
        """Count what ``Catalogue.contents`` tells."""
        for kind, size, replicas, member in contents:
            if kind == "d":
                self.folders += 1
            elif member or (kind == "c" and collections):
                self.logical_files += 1
                self.logical_size += size
            elif replicas:
                self.files += 1
                self.size += size
                self.replicas += replicas
                self.total += size * replicas


def du(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The space that directories take."""
    options = read_options("du", arguments)
    summary = f"Summary of {len(options.rest)} paths" if "s" in options.flags else ""
    usages: dict[str, _Usage] = {}
    for path in options.rest:
        entries = core.catalogue.match(caller.path(path), caller.user)
        if not entries:
            raise missing(path)
        for entry in entries:
            usage = usages.setdefault(summary or entry.lfn, _Usage())
            if entry.is_dir:
                existing(core, caller, entry.lfn, READ | PASS)
                usage.folders += 1
                contents = core.catalogue.contents(entry.lfn, caller.user)
                usage.add(contents, collections="c" in options.flags)
            else:
                own = len(core.catalogue.replicas(entry.guid)), core.catalogue.member(entry.guid) is not None
                usage.add([(entry.type, entry.size, *own)], collections="c" in options.flags)
    return Answer([row for name, usage in usages.items() for row in _usage_rows(name, usage, options.flags)])


def _usage_rows(name: str, usage: _Usage, flags: frozenset[str]) -> list[Row]:
    def shown(size: int) -> str:
        return f"{size} bytes" if "n" in flags else human_size(size)

    lines = [name, f"  Folders: {usage.folders}"] if usage.folders else [name]
    files, size = usage.files + usage.logical_files, usage.size + usage.logical_size
    lines.append(f"  Files: {files} of an apparent size of {shown(size)}, of which:")
    if usage.files:
        lines.append(
            f"  - physical files: {usage.files} files of {shown(usage.total)} with {usage.replicas} replicas"
            f" (avg {short_number(usage.replicas / usage.files)} replicas/file),"
            f" size of one replica: {shown(usage.size)}"
        )
    if usage.logical_files:
        lines.append(f"  - archive members : {usage.logical_files} files of {shown(usage.logical_size)}")
    keys = {
        "entry": name,
        "folders": usage.folders,
        "physical_files_count": usage.files,
        "physical_files_size": usage.total,
        "physical_files_replicas": usage.replicas,
        "physical_files_one_replica_size": usage.size,
        "logical_files_count": usage.logical_files,
        "logical_files_size": usage.logical_size,
    }
    return [{"message": "\n".join(lines)}, {key: str(value) for key, value in keys.items()}]


def xrdstat(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Whether storage elements have the replicas that the catalogue tells of."""
    options = read_options("xrdstat", arguments)
    answer = Answer()
    wanted = [name for name in re.split("[,;]", options.values.get("s", "")) if name]
    for name in wanted:
        if find_se(core.sites, name) is None:
            answer.fail(ENXIO, f"The SE you have indicated doesn't exist: {name}")
    shown = {name.casefold() for name in wanted}
    for name in options.rest:
        catalogue, user = core.catalogue, caller.user
        entry = catalogue.look_up(caller.path(name), user, READ) or catalogue.by_guid(name, user, READ)
        if entry is None:
            kind = "GUID" if is_guid(name) else "LFN"
            answer.fail(ENOENT, f"This {kind} does not exist in the catalogue: {name}")
        elif not entry.guid:
            answer.fail(ENODATA, f"Could not get the GUID of {entry.path}")
        else:
            _check(core, entry, shown, options.flags, answer)
    return answer


def _check(core: Core, entry: Entry, shown: set[str], flags: frozenset[str], answer: Answer) -> None:
    member = core.catalogue.member(entry.guid)
    stored = (core.catalogue.by_guid(member[0], ADMIN) if member else None) or entry
    head = f"Checking the replicas of {entry.lfn}\n"
    for se, url in core.replica_urls(entry, ""):
        if shown and se.name.casefold() not in shown:
            continue
        problem = _problem(se, stored, download="d" in flags)
        row: Row = {
            "message": f"{head}\t{se.name:<20}\t{url}\t{'ERR' if problem else 'OK'}",
            "seName": se.name.upper(),
            "seNumber": str(se.site.number),
            "pfn": url,
            "status": "error" if problem else "ok",
        }
        if problem and "v" in flags:
            row = row | {"message": f"{row['message']}\n{problem}", "errorMessage": problem}
        if problem and "d" in flags:
            answer.fail(EIO, problem)
        answer.rows.append(row)
        head = ""


def _problem(se: StorageElement, stored: Entry, *, download: bool) -> str:
    """What is wrong with a replica, by its size or, with ``download``, by its content."""
    if not se.pid:
        return f"{se.name} does not answer"
    file = se.file(stored.guid)
    try:
        size = file.stat().st_size
        md5 = md5_of(file) if download else stored.md5
    except OSError as error:
        return f"{se.name} cannot read {stored.guid}: {error.strerror}"
    if size != stored.size:
        return f"Its size is different from the catalogue ({size} vs {stored.size})"
    if stored.md5 and md5 != stored.md5:
        return f"Its MD5 is not the expected one ({md5} vs {stored.md5})"
    return ""


LOOKUP_VERBS: dict[str, Verb] = {
    "find": find,
    "lfn2guid": lfn2guid,
    "guid2lfn": guid2lfn,
    "du": du,
    "xrdstat": xrdstat,
}
