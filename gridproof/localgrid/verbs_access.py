"""The commands by which files are read and written: leave to do so, and the entry afterwards."""

from __future__ import annotations

import hashlib
import secrets
import uuid
import zipfile
from collections.abc import Sequence

from gridproof.localgrid.answers import EBADR, EINVAL, EIO, Answer, CommandFailed, Row, read_options
from gridproof.localgrid.caller import Caller, Verb
from gridproof.localgrid.catalogue import Booking
from gridproof.localgrid.core import Core
from gridproof.localgrid.permissions import READ
from gridproof.localgrid.saving import read_storage_specs
from gridproof.localgrid.sites import by_distance, find_se
from gridproof.localgrid.verbs_files import existing, now_ms, required


def access(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Leave to read or write: URLs with envelopes, nearest storage first."""
    options = read_options(arguments, valued=("s", "m", "j", "u", "g"))
    mode, *rest = required("access", options.rest)
    if mode not in ("read", "write") or not rest:
        raise CommandFailed(EINVAL, f"access {mode}: expected read or write and an LFN")
    lfn = caller.path(rest[0])
    specs = [spec for part in rest[1:] for spec in part.split(",")]
    return (
        _access_read(core, caller, rest[0], specs)
        if mode == "read"
        else _access_write(core, caller, lfn, specs)
    )


def _access_read(core: Core, caller: Caller, given: str, specs: Sequence[str]) -> Answer:
    entry = existing(core, caller, given, READ)
    if entry.is_dir:
        raise CommandFailed(21, given)
    held, _ = core.catalogue.member(entry.guid) or (entry.guid, "")
    core.catalogue.by_guid(held, caller.user, READ)  # the envelope is for the whole archive
    replicas = core.replica_urls(entry, caller.site)
    wanted = {s.casefold() for s in specs if "::" in s and not s.startswith("!")}
    refused = {s[1:].casefold() for s in specs if s.startswith("!")}
    replicas = [r for r in replicas if r[0].name.casefold() not in refused]
    replicas.sort(key=lambda r: bool(wanted) and r[0].name.casefold() not in wanted)
    rows = [
        _permit(
            se.name,
            url,
            entry.guid,
            len(replicas),
            se.envelope(held, "read"),
            md5=entry.md5,
            size=entry.size,
        )
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
    booked = [Booking(core.storage[se].envelope(guid, "write"), lfn, guid, se, caller.user) for se in ses]
    core.catalogue.book(booked, now_ms())
    return Answer(
        [
            _permit(b.se, core.storage[b.se].url(guid), guid, len(ses), b.ticket, md5=None, size=0)
            for b in booked
        ]
    )


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


def grid_unzip(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: enter the members of an archive beside it, as a job's OutputArchive does."""
    lfn = required("gridUnzip", arguments)[0]
    entry = existing(core, caller, lfn, READ)
    stored = [core.storage[se].file(entry.guid) for se in core.catalogue.replicas(entry.guid)]
    try:
        with zipfile.ZipFile(next(path for path in stored if path.exists())) as archive:
            members = [
                (info.filename, info.file_size, hashlib.md5(archive.read(info)).hexdigest())  # noqa: S324
                for info in archive.infolist()
            ]
    except (StopIteration, zipfile.BadZipFile) as error:
        raise CommandFailed(EIO, f"{lfn} is no zip archive: {error}") from error
    core.catalogue.enter_members(entry, members, caller.user, now_ms())
    return Answer()


ACCESS_VERBS: dict[str, Verb] = {"access": access, "commit": commit, "gridUnzip": grid_unzip}
