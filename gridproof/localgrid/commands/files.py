"""The catalogue's commands. Each takes the core, the caller and the arguments; they run in threads."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Sequence
from errno import EINVAL, ENODATA, ENOENT, ENOLINK, ENOTDIR, EREMOTEIO

from gridproof.localgrid.catalogue.entries import Entry, guid_origin, is_guid, is_pattern
from gridproof.localgrid.catalogue.permissions import PASS, READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row
from gridproof.localgrid.commands.caller import Caller, Verb, missing
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.commands.usage import argument_missing
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.formats import human_size, java_date


def pwd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The current directory."""
    return Answer([{"pwd": caller.directory, "message": caller.directory}])


def cd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change the current directory; home without an argument."""
    entry = core.catalogue.look_up(caller.path(arguments[0] if arguments else "~"), caller.user)
    if entry is None:
        raise CommandFailed(ENOENT)
    if not entry.is_dir:
        raise CommandFailed(ENOTDIR, arguments[0])
    existing(core, caller, entry.lfn, PASS)
    caller.directory = entry.path
    return Answer()


def ls(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """List directories and files."""
    options = read_options("ls", arguments)
    answer, missing = Answer(), []
    for path in options.rest or (caller.directory,):
        lfns = expanded(core, caller, path)
        if not lfns:
            answer.fail(ENOENT, path)
        for lfn in lfns:
            entry = core.catalogue.look_up(lfn, caller.user)
            if entry is None:
                missing.append(lfn)
                continue
            if entry.is_dir:
                existing(core, caller, lfn, READ | PASS)
            for shown in core.catalogue.children(lfn) if entry.is_dir else [entry]:
                hidden = posixpath.basename(shown.lfn).startswith(".") and "a" not in options.flags
                if not hidden and not (shown.is_dir and "b" in options.flags):
                    answer.rows.append(_listed(shown, options.flags))
    if missing:
        answer.fail(ENOENT, ", ".join(missing))
    return answer


def _listed(entry: Entry, flags: frozenset[str]) -> Row:
    slash = "/" if "F" in flags and entry.is_dir else ""
    name = posixpath.basename(entry.lfn) + slash
    names = {"name": name, "path": entry.path + slash}
    if "b" in flags:
        guid = entry.guid.upper()
        return {"guid": guid, "message": f"{guid}   {entry.path}"}
    if "c" in flags:
        return {"message": entry.path}
    if not flags & {"l", "H"}:
        return {**names, "message": name}
    columns = {
        "permissions": letters(entry),
        "user": entry.owner,
        "group": entry.gowner,
        "size": str(entry.size),
        "ctime": whole_seconds(entry),
    }
    return {**columns, **names, "message": long_line(entry, human="H" in flags) + f"    {name}"}


def letters(entry: Entry) -> str:
    """Type and permissions as ``drwxr-xr-x``."""
    bits = "".join(
        "".join(c if int(d) & b else "-" for c, b in zip("rwx", (4, 2, 1), strict=True)) for d in entry.perm
    )
    return ("-" if entry.type == "f" else entry.type) + bits


def long_line(entry: Entry, *, human: bool) -> str:
    """A line of ``ls -l`` without the name; ``human``: sizes in KB, MB, GB."""
    when = time.strftime("%b %d %H:%M", time.gmtime(entry.ctime / 1000))
    size = human_size(entry.size) if human else str(entry.size)
    return f"{letters(entry)} {entry.owner:>10} {entry.gowner:>8} {size:>12} {when}"


def whole_seconds(entry: Entry) -> str:
    """The time of an entry in ms, as JAliEn's database keeps it."""
    return str(entry.ctime // 1000 * 1000)


def stat(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """All about files and directories, by LFN or GUID; with ``-v`` where replicas are."""
    options = read_options("stat", arguments)
    answer = Answer()
    for path in options.rest:
        if entry := core.catalogue.look_up(caller.path(path), caller.user):
            existing(core, caller, entry.lfn, 0 if entry.is_dir else READ)
            row = _stat(entry)
            if "v" in options.flags and not entry.is_dir:
                row = _with_replicas(core, entry, row)
        elif entry := core.catalogue.by_guid(path, caller.user, READ):
            own = {"guid": entry.guid, "owner": entry.owner, "gowner": entry.gowner, "perm": entry.perm}
            row = _with_replicas(core, entry, {"message": f"GUID: {path}", **own, "size": str(entry.size)})
        else:
            answer.fail(ENOENT, path)
            continue
        answer.rows.append(row)
    return answer


def _stat(entry: Entry) -> Row:
    changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.ctime / 1000))
    lines = [
        f"File: {entry.path}",
        f"Type: {entry.type}",
        f"Owner: {entry.owner}:{entry.gowner}",
        f"Permissions: {entry.perm}",
        f"Last change: {changed}.0 ({whole_seconds(entry)})",
    ]
    row: Row = {
        "lfn": entry.path,
        "type": entry.type,
        "owner": entry.owner,
        "gowner": entry.gowner,
        "perm": entry.perm,
        "ctime": whole_seconds(entry),
    }
    if entry.job:
        lines.append(f"Job ID: {entry.job}")
        row["jobid"] = str(entry.job)
    if not entry.is_dir:
        lines += [f"Size: {entry.size} ({human_size(entry.size)})", f"MD5: {entry.md5}"]
        row |= {"size": str(entry.size), "md5": entry.md5}
    if entry.guid:
        made, host = guid_origin(entry.guid)
        created = f"\tGUID created on {java_date(made / 1000)} ({made}) by {host}"
        lines += [f"GUID: {entry.guid}", created]
        row |= {"guid": entry.guid, "mtime": str(made)}
    return {"message": "\n".join(lines), **row}


def _with_replicas(core: Core, entry: Entry, row: Row) -> Row:
    member = core.catalogue.member(entry.guid)
    if member:
        replicas = {"ZIP": _zip_pfn(*member)}
    else:
        replicas = {se.name.upper(): url for se, url in core.replica_urls(entry, "")}
    lines = ["Replicas:", *(f"\t SE => {se} pfn => {url}" for se, url in replicas.items())]
    row["message"] += "\n" + ("\n".join(lines) if replicas else "No physical replicas")
    return row | ({"replicas": replicas} if replicas else {})


def _zip_pfn(archive: str, name: str) -> str:
    """The physical name of a member of an archive."""
    return f"guid:///{archive}?ZIP={name}"


def whereis(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The replicas of a file, by LFN or GUID; with ``-r`` those of the archive that it is a member of."""
    options = read_options("whereis", arguments)
    given = required("whereis", options.rest)[0]
    entry = None if "g" in options.flags else core.catalogue.look_up(caller.path(given), caller.user, READ)
    what = f"the file {posixpath.basename(given)}"
    if entry is None or not entry.guid:
        if not is_guid(given):
            if "g" in options.flags:
                raise CommandFailed(EINVAL, f"This is not a valid GUID: {given}")
            raise _no_file(entry, given)
        what, entry = f"the GUID {given}", core.catalogue.by_guid(given, caller.user, READ)
    if entry is None:
        raise CommandFailed(ENOENT, f"GUID {given} does not exist in the catalogue")
    if entry.type != "f":
        raise _no_file(entry, given)
    member = core.catalogue.member(entry.guid)
    if member and "r" not in options.flags:
        pfn = _zip_pfn(*member)
        message = f"{what} is in\n\n\t {'ZIP archive member':<30} pfn => {pfn}"
        return Answer([{"message": message, "seName": "ArchiveMember", "pfn": pfn}])
    head, zip_name = f"{what} is in", ""
    if member:
        archive = core.catalogue.by_guid(member[0], caller.user)
        hint = "pass `-l` to whereis to see the archive's LFN"
        shown = f"archive LFN: {archive.lfn if archive else '?'}" if "l" in options.flags else hint
        head, zip_name = f"{head}side a ZIP archive\n    {shown}", f"?ZIP={member[1]}"
    rows: list[Row] = []
    for se, url in core.replica_urls(entry, ""):
        name, pfn = se.name.upper(), url.partition("#")[0] + zip_name
        line = {"message": f"\t {f'SE => {name}':<30} pfn => {pfn}"}
        names = {"seNumber": str(se.site.number), "seName": name}
        rows.append({**names, **line, "pfn": pfn})
    if not rows:
        raise CommandFailed(ENOLINK, f"GUID {entry.guid} has no replicas, this is a lost file")
    rows[0] = {"message": f"{head}\n\n{rows[0].pop('message')}", **rows[0]}
    return Answer(rows)


def _no_file(entry: Entry | None, given: str) -> CommandFailed:
    if entry is None or entry.type == "f":
        return missing(given)
    return CommandFailed(EINVAL, f"The path you indicated is not a file: {given}")


def list_files_from_collection(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The files in a collection; with ``-z`` their sizes and MD5s, each after a blank."""
    options = read_options("listFilesFromCollection", arguments)
    path = required("listFilesFromCollection", options.rest)[0]
    entry = core.catalogue.look_up(caller.path(path), caller.user, READ)
    if entry is None:
        raise CommandFailed(EREMOTEIO, f'No such LFN "{path}"')
    if entry.type != "c":
        raise CommandFailed(EREMOTEIO, f'This entry is not an AliEn collection: "{path}"')
    rows: list[Row] = []
    for file in (
        core.catalogue.look_up(lfn, caller.user, READ) for lfn in core.catalogue.collected(entry.guid)
    ):
        if file is None:
            raise CommandFailed(EREMOTEIO, f"A file of {path} was removed")
        details = {"size": f" {file.size}", "md5": f" {file.md5}"} if "z" in options.flags else {}
        rows.append(
            {"guid": file.guid, "lfn": file.lfn, **details, "message": f"{file.guid} (from {file.lfn})"}
        )
    return Answer(rows)


def grid_collect(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: make a collection, the first name, of the files that follow."""
    if not arguments:
        raise CommandFailed(EINVAL, "gridCollect takes a collection and its files")
    lfn, *names = arguments
    files = [existing(core, caller, name, READ) for name in names]
    core.catalogue.collect(caller.path(lfn), files, caller.user, now_ms())
    return Answer()


def md5sum(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The MD5 of files, by LFN or GUID, as the catalogue knows it."""
    answer, lines = Answer(), []
    for path in read_options("md5sum", arguments).rest:
        entry = core.catalogue.look_up(caller.path(path), caller.user, READ)
        entry = entry or core.catalogue.by_guid(path, caller.user, READ)
        if entry is None:
            answer.fail(ENOENT, path)
        elif entry.is_dir:
            answer.fail(EINVAL, f"This entry is not a file: {path}")
        elif not entry.md5:
            answer.fail(ENODATA, f"This file doesn't have a valid associated MD5 checksum: {path}")
        else:
            lines.append(f"{entry.md5}\t{path}")
    if lines:
        answer.rows.append({"message": "\n".join(lines)})
    return answer


def type_(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """File, directory or collection."""
    names = read_options("type", arguments).rest
    if len(names) != 1:
        raise argument_missing("type")
    entry = existing(core, caller, names[0])
    kind = {"f": "file", "d": "directory", "c": "collection"}[entry.type]
    return Answer([{"lfn": entry.path, "type": kind, "message": kind}])


def expanded(core: Core, caller: Caller, path: str) -> list[str]:
    """The LFNs that one with ``*`` or ``?`` means; without, the one, whether it exists or not."""
    lfn = caller.path(path)
    return [entry.lfn for entry in core.catalogue.match(lfn, caller.user)] if is_pattern(lfn) else [lfn]


def existing(core: Core, caller: Caller, path: str, right: int = 0) -> Entry:
    """The entry of an LFN where the caller has ``right``. Raises CommandFailed, CatalogueError."""
    entry = core.catalogue.look_up(caller.path(path), caller.user, right)
    if entry is None:
        raise missing(path)
    return entry


def required(name: str, rest: Sequence[str]) -> Sequence[str]:
    """The arguments, if there are any; raises CommandFailed."""
    if not rest:
        raise argument_missing(name)
    return rest


FILE_VERBS: dict[str, Verb] = {
    "pwd": pwd,
    "cd": cd,
    "ls": ls,
    "stat": stat,
    "whereis": whereis,
    "listFilesFromCollection": list_files_from_collection,
    "gridCollect": grid_collect,
    "md5sum": md5sum,
    "type": type_,
}
