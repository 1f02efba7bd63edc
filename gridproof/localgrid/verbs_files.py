"""The catalogue's commands. Each takes the core, the caller and the arguments; they run in threads."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
import time
from collections.abc import Callable, Sequence

from gridproof.localgrid import xmlcollection
from gridproof.localgrid.answers import (
    EINVAL,
    EIO,
    ENOENT,
    EREMOTEIO,
    Answer,
    CommandFailed,
    Row,
    human_size,
    java_date,
    read_options,
    text,
)
from gridproof.localgrid.caller import Caller, Verb, missing
from gridproof.localgrid.catalogue import (
    CatalogueError,
    Entry,
    entry_number,
    guid_origin,
    is_pattern,
)
from gridproof.localgrid.core import Core
from gridproof.localgrid.permissions import PASS, READ
from gridproof.localgrid.usage import argument_missing


def now_ms() -> int:
    """The catalogue's clock."""
    return int(time.time() * 1000)


def pwd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The current directory."""
    return Answer([{"pwd": caller.directory, "message": caller.directory}])


def cd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change the current directory; home without an argument."""
    entry = core.catalogue.look_up(caller.path(arguments[0] if arguments else "~"), caller.user)
    if entry is None or not entry.is_dir:
        raise CommandFailed(2)
    existing(core, caller, entry.lfn, PASS)
    caller.directory = entry.path
    return Answer()


def ls(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """List directories and files."""
    options = read_options(arguments)
    rows: list[Row] = []
    for path in options.rest or (caller.directory,):
        lfn = caller.path(path)
        entries = (
            core.catalogue.match(lfn, caller.user) if is_pattern(lfn) else [existing(core, caller, path)]
        )
        if not entries:
            raise missing(path)
        for entry in entries:
            inside = entry.is_dir and "d" not in options.flags
            if inside:
                existing(core, caller, entry.lfn, READ | PASS)
            shown = core.catalogue.children(entry.lfn) if inside else [entry]
            rows += [
                _listed(e, options.flags)
                for e in shown
                if "a" in options.flags or e is entry or not posixpath.basename(e.lfn).startswith(".")
            ]
    return Answer(rows)


def _listed(entry: Entry, flags: frozenset[str]) -> Row:
    slash = "/" if "F" in flags and entry.is_dir else ""
    name = posixpath.basename(entry.lfn) + slash
    names = {"name": name, "path": entry.path + slash}
    if "l" not in flags:
        return {**names, "message": name}
    columns = {
        "permissions": _letters(entry),
        "user": entry.owner,
        "group": entry.gowner,
        "size": str(entry.size),
        "ctime": _whole_seconds(entry),
    }
    return {**columns, **names, "message": _long_line(entry) + f"    {name}"}


def _letters(entry: Entry) -> str:
    bits = "".join(
        "".join(c if int(d) & b else "-" for c, b in zip("rwx", (4, 2, 1), strict=True)) for d in entry.perm
    )
    return ("d" if entry.is_dir else "-") + bits


def _long_line(entry: Entry) -> str:
    when = time.strftime("%b %d %H:%M", time.gmtime(entry.ctime / 1000))
    return f"{_letters(entry)} {entry.owner:>10} {entry.gowner:>8} {entry.size:>12} {when}"


def _whole_seconds(entry: Entry) -> str:
    return str(entry.ctime // 1000 * 1000)


def stat(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """All about files and directories, by LFN or GUID; with ``-v`` where replicas are."""
    options = read_options(arguments)
    answer = Answer()
    for path in required("stat", options.rest):
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
        f"Last change: {changed}.0 ({_whole_seconds(entry)})",
    ]
    row: Row = {
        "lfn": entry.path,
        "type": entry.type,
        "owner": entry.owner,
        "gowner": entry.gowner,
        "perm": entry.perm,
        "ctime": _whole_seconds(entry),
    }
    if not entry.is_dir:
        made, host = guid_origin(entry.guid)
        lines += [
            f"Size: {entry.size} ({human_size(entry.size)})",
            f"MD5: {entry.md5}",
            f"GUID: {entry.guid}",
            f"\tGUID created on {java_date(made / 1000)} ({made}) by {host}",
        ]
        row |= {"size": str(entry.size), "md5": entry.md5, "guid": entry.guid, "mtime": str(made)}
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


def find(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Files below a directory whose path contains a pattern."""
    options = read_options(arguments, valued=("o", "l", "x", "j", "q"))
    if len(options.rest) < 2:
        raise argument_missing("find")
    path, pattern = options.rest[:2]
    top = core.catalogue.look_up(caller.path(path), caller.user)
    if top is None or not top.is_dir:
        raise CommandFailed(20, path)
    existing(core, caller, top.lfn, READ | PASS)
    found = core.catalogue.find(top.lfn, pattern, caller.user, "fd" if "d" in options.flags else "f")
    first = int(options.values.get("o", 0))
    count = int(options.values.get("l", len(found)))
    found = found[first : first + count]
    if target := options.values.get("x"):
        lfn = caller.path(target)
        found = [entry.as_seen_by(caller.account) for entry in found]
        content = xmlcollection.render(found, lfn, f"find {' '.join(arguments)}", caller.user, now_ms())
        core.store_file(lfn, content.encode(), caller.user)
        return Answer()
    rows = [_found(entry, options.flags, caller) for entry in found]
    if "c" in options.flags and rows:
        rows[-1]["message"] += f"\nFound {len(rows)} maching entries"
    return Answer(rows)


def _found(entry: Entry, flags: frozenset[str], caller: Caller) -> Row:
    row: Row = {"lfn": entry.path}
    if flags & {"w", "f"}:
        row |= {
            "perm": entry.perm,
            "owner": entry.owner,
            "gowner": entry.gowner,
            "size": str(entry.size),
            "ctime": _whole_seconds(entry),
            "guid": entry.guid,
        }
    if "f" in flags:
        row |= {
            "name": posixpath.basename(entry.lfn),
            "aclId": "",
            "broken": "0",
            "dir": str(entry_number(posixpath.dirname(entry.lfn))),
            "entryId": str(entry_number(entry.lfn)),
            "expiretime": "",
            "guidtime": (entry.guid[14:18] + entry.guid[9:13]).upper(),
            "md5": entry.as_seen_by(caller.account).md5,
            "jobid": "-1",
            "replicated": "0",
            "type": entry.type,
        }
    row["message"] = f"{_long_line(entry)}     {entry.path}" if "w" in flags else entry.path
    return row


def _zip_pfn(archive: str, name: str) -> str:
    """The physical name of a member of an archive."""
    return f"guid:///{archive}?ZIP={name}"


def whereis(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The replicas of a file; with ``-r`` those of the archive that it is a member of."""
    options = read_options(arguments, words=("lfn",))
    path = required("whereis", options.rest)[0]
    entry = existing(core, caller, path, READ)
    if entry.type != "f":
        raise CommandFailed(EINVAL, f"The path you indicated is not a file: {path}")
    member = core.catalogue.member(entry.guid)
    if member and "r" not in options.flags:
        return Answer([{"seName": "ArchiveMember", "pfn": _zip_pfn(*member), "message": _zip_pfn(*member)}])
    inside, zip_name = ("side a ZIP archive", f"?ZIP={member[1]}") if member else ("", "")
    rows: list[Row] = []
    for number, (se, url) in enumerate(core.replica_urls(entry, "")):
        head = f"the file {posixpath.basename(entry.lfn)} is in{inside}\n\n" if number == 0 else ""
        arrow = "  pfn" if number == 0 else "pfn"
        name, pfn = se.name.upper(), url.partition("#")[0] + zip_name
        message = {"message": f"{head}\t SE => {name} {arrow} => {pfn}"}
        names = {"seNumber": str(se.site.number), "seName": name}
        rows.append({**message, **names, "pfn": pfn} if head else {**names, **message, "pfn": pfn})
    return Answer(rows)


def list_files_from_collection(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The files in a collection; with ``-z`` their sizes and MD5s, each after a blank."""
    options = read_options(arguments)
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
    lfn, *names = arguments
    files = [existing(core, caller, name, READ) for name in names]
    core.catalogue.collect(caller.path(lfn), files, caller.user, now_ms())
    return Answer()


def mkdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make directories."""
    options = read_options(arguments)
    for path in required("mkdir", options.rest):
        core.catalogue.mkdir(caller.path(path), caller.user, now_ms(), parents="p" in options.flags)
    return Answer()


def rm(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove files, with ``-r`` directories."""
    options = read_options(arguments)
    for path in required("rm", options.rest):
        lfn = caller.path(path)
        paths = [e.lfn for e in core.catalogue.match(lfn, caller.user)] if is_pattern(lfn) else [lfn]
        for one in paths:
            entry = core.catalogue.get(one)
            if entry is None and "f" in options.flags:
                continue
            recursive = bool(options.flags & {"r", "R"})
            if entry is None or (entry.is_dir and not recursive):
                raise CommandFailed(EIO, f"Failed to remove [{one}]")
            try:
                core.catalogue.remove(one, caller.user, recursive=recursive)
            except CatalogueError as error:
                raise CommandFailed(EIO, f"Failed to remove [{one}]") from error
    core.sweep()
    return Answer()


def rmdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove empty directories."""
    for path in required("rmdir", read_options(arguments).rest):
        entry = core.catalogue.get(caller.path(path))
        try:
            if entry is None or not entry.is_dir:
                raise missing(path)
            core.catalogue.remove(entry.lfn, caller.user)
        except CatalogueError as error:
            raise CommandFailed(EIO, f"Could not remove directory: {path}") from error
    return Answer()


def mv(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Rename."""
    source, target = (*required("mv", read_options(arguments).rest), "")[:2]
    if not target:
        raise argument_missing("mv")
    core.catalogue.move(caller.path(source), caller.path(target), caller.user)
    return Answer()


def touch(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make empty files."""
    for path in required("touch", read_options(arguments).rest):
        core.catalogue.touch(caller.path(path), caller.user, now_ms())
    return Answer()


def chmod(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change permissions, given in octal, with ``-R`` of all that is below, too."""
    options = read_options(arguments)
    mode, *paths = required("chmod", options.rest)
    if not paths:
        raise CommandFailed(EINVAL, "No user or file entered")
    if not fnmatch.fnmatchcase(mode, "[0-7][0-7][0-7]"):
        raise CommandFailed(EINVAL, f"{mode} is no octal mode of three digits")
    change = functools.partial(
        core.catalogue.chmod, perm=mode, user=caller.user, now_ms=now_ms(), recursive="R" in options.flags
    )
    return _altered(core, caller, "chmod", paths, change)


def chown(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change owner and group, with ``-R`` of all that is below, too."""
    options = read_options(arguments)
    roles, *paths = required("chown", options.rest)
    owner, _, gowner = roles.partition(".")
    if not paths or not owner:
        raise CommandFailed(EINVAL, "No user or file entered")
    change = functools.partial(
        core.catalogue.chown, owner=owner, gowner=gowner, user=caller.user, recursive="R" in options.flags
    )
    return _altered(core, caller, "chown", paths, change)


def _altered(
    core: Core, caller: Caller, name: str, paths: Sequence[str], change: Callable[[str], list[str]]
) -> Answer:
    answer = Answer()
    for path in paths:
        lfn = caller.path(path)
        lfns = [e.lfn for e in core.catalogue.match(lfn, caller.user)] if is_pattern(lfn) else [lfn]
        if not lfns or (lfns == [lfn] and core.catalogue.get(lfn) is None):
            raise missing(path)
        for left in (left for one in lfns for left in change(one)):
            answer.fail(EIO, f"{left}: unable to {name}")
    return answer


def md5sum(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The MD5 of files as the catalogue knows it."""
    paths = required("md5sum", read_options(arguments).rest)
    return text("\n".join(f"{existing(core, caller, p, READ).md5}\t{p}" for p in paths))


def type_(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """File or directory."""
    path = required("type", read_options(arguments).rest)[0]
    entry = existing(core, caller, path)
    kind = "directory" if entry.is_dir else "file"
    return Answer([{"lfn": entry.path, "type": kind, "message": kind}])


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
    "find": find,
    "whereis": whereis,
    "listFilesFromCollection": list_files_from_collection,
    "gridCollect": grid_collect,
    "mkdir": mkdir,
    "rm": rm,
    "rmdir": rmdir,
    "mv": mv,
    "touch": touch,
    "chmod": chmod,
    "chown": chown,
    "md5sum": md5sum,
    "type": type_,
}
