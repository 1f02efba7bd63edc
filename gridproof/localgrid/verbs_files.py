"""The catalogue's commands. Each takes the core, the caller and the arguments; they run in threads."""

from __future__ import annotations

import fnmatch
import posixpath
import secrets
import time
import uuid
from collections.abc import Callable, Sequence

from gridproof.localgrid.answers import (
    EACCES,
    EBADR,
    EINVAL,
    EIO,
    EPERM,
    Answer,
    CommandFailed,
    Row,
    human_size,
    read_options,
    text,
)
from gridproof.localgrid.caller import Caller, missing
from gridproof.localgrid.catalogue import (
    READ,
    Booking,
    CatalogueError,
    Entry,
    is_pattern,
)
from gridproof.localgrid.core import Core
from gridproof.localgrid.sandbox import read_storage_specs
from gridproof.localgrid.sites import by_distance, find_se

FileVerb = Callable[[Core, Caller, Sequence[str]], Answer]


def now_ms() -> int:
    """The catalogue's clock."""
    return int(time.time() * 1000)


def pwd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The current directory."""
    return Answer([{"pwd": caller.directory, "message": caller.directory}])


def cd(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change the current directory; home without an argument."""
    entry = core.catalogue.get(caller.path(arguments[0] if arguments else "~"))
    if entry is None or not entry.is_dir:
        raise CommandFailed(2)
    caller.directory = entry.path
    return Answer()


def ls(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """List directories and files."""
    options = read_options(arguments)
    rows: list[Row] = []
    for path in options.rest or (caller.directory,):
        lfn = caller.path(path)
        entries = core.catalogue.match(lfn) if is_pattern(lfn) else [_existing(core, lfn)]
        if not entries:
            raise missing(path)
        for entry in entries:
            inside = entry.is_dir and "d" not in options.flags
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
    """All about files and directories."""
    rows: list[Row] = []
    for path in _required("stat", "<filename1> ...", read_options(arguments).rest):
        entry = _existing(core, caller.path(path), path)
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
            lines += [
                f"Size: {entry.size} ({human_size(entry.size)})",
                f"MD5: {entry.md5}",
                f"GUID: {entry.guid}",
            ]
            row |= {"size": str(entry.size), "md5": entry.md5, "guid": entry.guid, "mtime": str(entry.ctime)}
        rows.append({"message": "\n".join(lines), **row})
    return Answer(rows)


def find(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Files below a directory whose path contains a pattern."""
    options = read_options(arguments, valued=("o", "l", "x", "j", "q"))
    if len(options.rest) < 2:
        raise CommandFailed(
            EINVAL, "Command requires an argument", [{"message": "usage: find <path> <pattern>"}]
        )
    path, pattern = options.rest[:2]
    top = core.catalogue.get(caller.path(path))
    if top is None or not top.is_dir:
        raise CommandFailed(20, path)
    found = core.catalogue.find(top.lfn, pattern, "fd" if "d" in options.flags else "f")
    first = int(options.values.get("o", 0))
    count = int(options.values.get("l", len(found)))
    found = found[first : first + count]
    rows = [_found(entry, options.flags) for entry in found]
    if "c" in options.flags and rows:
        rows[-1]["message"] += f"\nFound {len(rows)} maching entries"
    return Answer(rows)


def _found(entry: Entry, flags: frozenset[str]) -> Row:
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
        row |= {"name": posixpath.basename(entry.lfn), "md5": entry.md5, "type": entry.type}
    row["message"] = f"{_long_line(entry)}     {entry.path}" if "w" in flags else entry.path
    return row


def whereis(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The replicas of files."""
    rows: list[Row] = []
    for path in _required("whereis", "<lfn>", read_options(arguments, words=("lfn",)).rest):
        entry = _existing(core, caller.path(path), path)
        if entry.is_dir:
            raise CommandFailed(21, path)
        for number, (se, url) in enumerate(core.replica_urls(entry, "")):
            head = f"the file {posixpath.basename(entry.lfn)} is in\n\n" if number == 0 else ""
            arrow = "  pfn" if number == 0 else "pfn"
            name = se.name.upper()
            rows.append(
                {
                    "message": f"{head}\t SE => {name} {arrow} => {url}",
                    "seNumber": str(se.site.number),
                    "seName": name,
                    "pfn": url,
                }
            )
    return Answer(rows)


def access(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Leave to read or write: URLs with envelopes, nearest storage first."""
    options = read_options(arguments, valued=("s", "m", "j", "u", "g"))
    mode, *rest = _required("access", "<operation type> <lfn> [-u] [SE[,!SE[,qos:count]]]", options.rest)
    if mode not in ("read", "write") or not rest:
        raise CommandFailed(EINVAL, f"access {mode}: expected read or write and an LFN")
    lfn = caller.path(rest[0])
    specs = [spec for part in rest[1:] for spec in part.split(",")]
    return (
        _access_read(core, caller, lfn, rest[0], specs)
        if mode == "read"
        else _access_write(core, caller, lfn, specs)
    )


def _access_read(core: Core, caller: Caller, lfn: str, given: str, specs: Sequence[str]) -> Answer:
    entry = _existing(core, lfn, given)
    if entry.is_dir:
        raise CommandFailed(21, given)
    if not entry.allows(caller.user, READ):
        raise CommandFailed(EACCES, f"{caller.user} is not allowed to read {given}")
    replicas = core.replica_urls(entry, caller.site)
    wanted = {s.casefold() for s in specs if "::" in s and not s.startswith("!")}
    refused = {s[1:].casefold() for s in specs if s.startswith("!")}
    replicas = [r for r in replicas if r[0].name.casefold() not in refused]
    replicas.sort(key=lambda r: bool(wanted) and r[0].name.casefold() not in wanted)
    rows = [
        _permit(se.name, url, entry.guid, len(replicas), _ticket(), md5=entry.md5, size=entry.size)
        for se, url in replicas
    ]
    if not rows:
        raise CommandFailed(EIO, f"{given} has no replica that could be read")
    return Answer(rows)


def _access_write(core: Core, caller: Caller, lfn: str, specs: Sequence[str]) -> Answer:
    core.catalogue.check_new(lfn, caller.user)
    refused = {s[1:].casefold() for s in specs if s.startswith("!")}
    copies, names = read_storage_specs([s for s in specs if not s.startswith("!")], 1)
    unknown = [name for name in names if find_se(core.sites, name) is None]
    if unknown:
        raise CommandFailed(
            EINVAL, f"There is no SE {', '.join(unknown)}; there are {', '.join(core.storage)}"
        )
    named = [site.se for name in names if (site := find_se(core.sites, name))]
    others = [se for se in core.storage if se not in named and se.casefold() not in refused]
    if not caller.site:  # no site is nearer: spread what comes without a wish
        secrets.SystemRandom().shuffle(others)
    ses = [*named, *core.live_first(by_distance(caller.site, others))][:copies]
    if not ses:
        raise CommandFailed(EIO, "No storage element is left to write to")
    guid = str(uuid.uuid1())
    booked = [Booking(_ticket(), lfn, guid, se, caller.user) for se in ses]
    core.catalogue.book(booked, now_ms())
    return Answer(
        [
            _permit(b.se, core.storage[b.se].url(guid), guid, len(ses), b.ticket, md5=None, size=0)
            for b in booked
        ]
    )


def _ticket() -> str:
    return f"localgrid-{secrets.token_urlsafe(24)}"


def _permit(se: str, url: str, guid: str, count: int, envelope: str, *, md5: str | None, size: int) -> Row:
    return {
        "message": f"{url}\nSE: {se.upper()} (needs encrypted envelopes)\nEncrypted envelope:\n{envelope}",
        "envelope": envelope,
        "url": url,
        "guid": guid,
        "se": se.upper(),
        "tags": "[disk]",
        "nSEs": str(count),
        "md5": md5,
        "size": str(size),
    }


def commit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Register what was written: envelope size lfn perm expire pfn se guid md5."""
    envelope, size_text, lfn, perm, _, pfn, _, _, md5 = (*arguments, *[""] * 9)[:9]
    if not envelope:
        raise CommandFailed(EINVAL, "Command requires an argument")
    if not size_text.isdigit():
        raise CommandFailed(EINVAL, "Size should be known at commit time")
    row: Row = {"path": lfn, "lfn": "0", "pfn": pfn, "message": f"{lfn} 0"}
    booking = core.catalogue.booking(envelope)
    if booking is None or booking.user != caller.user:
        raise CommandFailed(EBADR, "Nothing was registered", [row])
    se, size = core.storage[booking.se], int(size_text)
    file = se.file(booking.guid)
    stored = file.stat().st_size if file.exists() else 0 if size == 0 else -1
    if stored != size:
        found = f"{stored} bytes" if stored >= 0 else "nothing"
        raise CommandFailed(EIO, f"{se.name} has {found} for {booking.lfn}, not {size} bytes", [row])
    mode = perm if len(perm) == 3 and all(c in "01234567" for c in perm) else "755"
    core.catalogue.commit(booking, size=size, md5=md5, perm=mode, now_ms=now_ms())
    return Answer([{"path": lfn, "lfn": "1", "pfn": se.url(booking.guid), "message": f"{lfn} 1"}])


def mkdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make directories."""
    options = read_options(arguments)
    for path in _required("mkdir", "[-options] <directory> [<directory>[,<directory>]]", options.rest):
        core.catalogue.mkdir(caller.path(path), caller.user, now_ms(), parents="p" in options.flags)
    return Answer()


def rm(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove files, with ``-r`` directories."""
    options = read_options(arguments)
    for path in _required("rm", "<LFN> [<LFN>[,<LFN>]]", options.rest):
        lfn = caller.path(path)
        paths = [e.lfn for e in core.catalogue.match(lfn)] if is_pattern(lfn) else [lfn]
        for one in paths:
            entry = core.catalogue.get(one)
            if entry is None and "f" in options.flags:
                continue
            recursive = bool(options.flags & {"r", "R"})
            if entry is None or (entry.is_dir and not recursive):
                raise CommandFailed(EIO, f"Failed to remove [{one}]")
            try:
                gone = core.catalogue.remove(one, caller.user, recursive=recursive)
            except CatalogueError as error:
                raise CommandFailed(EIO, f"Failed to remove [{one}]") from error
            for se, guid in gone:
                core.storage[se].file(guid).unlink(missing_ok=True)
    return Answer()


def rmdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove empty directories."""
    for path in _required("rmdir", "<directory>", read_options(arguments).rest):
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
    source, target = (*_required("mv", "<LFN> <newLFN>", read_options(arguments).rest), "")[:2]
    if not target:
        raise CommandFailed(EINVAL, "Command requires an argument")
    core.catalogue.move(caller.path(source), caller.path(target), caller.user)
    return Answer()


def touch(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make empty files."""
    for path in _required("touch", "<LFN> [<LFN>[,<LFN>]]", read_options(arguments).rest):
        if core.catalogue.get(caller.path(path)) is None:
            core.catalogue.touch(caller.path(path), caller.user, now_ms())
    return Answer()


def chmod(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change permissions, given in octal."""
    mode, *paths = _required("chmod", "-R <octal mode> <lfn> [<lfn>...]", read_options(arguments).rest)
    if not fnmatch.fnmatchcase(mode, "[0-7][0-7][0-7]"):
        raise CommandFailed(EINVAL, f"{mode} is no octal mode of three digits")
    for path in paths:
        try:
            core.catalogue.chmod(caller.path(path), mode, caller.user)
        except CatalogueError as error:
            raise CommandFailed(EPERM if error.code == EACCES else error.code, str(error)) from error
    return Answer()


def md5sum(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The MD5 of files as the catalogue knows it."""
    paths = _required("md5sum", "<filename1> [or guid]", read_options(arguments).rest)
    return text("\n".join(f"{_existing(core, caller.path(p), p).md5}\t{p}" for p in paths))


def type_(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """File or directory."""
    path = _required("type", "<lfn>", read_options(arguments).rest)[0]
    entry = _existing(core, caller.path(path), path)
    kind = "directory" if entry.is_dir else "file"
    return Answer([{"lfn": entry.path, "type": kind, "message": kind}])


def _existing(core: Core, lfn: str, given: str = "") -> Entry:
    entry = core.catalogue.get(lfn)
    if entry is None:
        raise missing(given or lfn)
    return entry


def _required(name: str, usage: str, rest: Sequence[str]) -> Sequence[str]:
    if not rest:
        raise CommandFailed(
            EINVAL, "Command requires an argument", [{"message": f"\nusage: {name}   {usage}"}]
        )
    return rest


FILE_VERBS: dict[str, FileVerb] = {
    "pwd": pwd,
    "cd": cd,
    "ls": ls,
    "stat": stat,
    "find": find,
    "whereis": whereis,
    "access": access,
    "commit": commit,
    "mkdir": mkdir,
    "rm": rm,
    "rmdir": rmdir,
    "mv": mv,
    "touch": touch,
    "chmod": chmod,
    "md5sum": md5sum,
    "type": type_,
}
