"""The commands by which files are read and written: leave to do so, and the entry afterwards."""

from __future__ import annotations

import hashlib
import secrets
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EBADFD, EBADR, EINVAL, EIO

from gridproof.localgrid.catalogue.entries import Booking, CatalogueError
from gridproof.localgrid.catalogue.permissions import READ, WRITE
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, is_whole
from gridproof.localgrid.commands.caller import Caller, Verb, may_modify, missing
from gridproof.localgrid.commands.files import existing, required
from gridproof.localgrid.commands.options import Options, read_options
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.sites import by_distance
from gridproof.localgrid.storage.element import StorageElement
from gridproof.localgrid.storage.specs import Specs


def access(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Leave to read or write: URLs with envelopes, nearest storage first."""
    options = read_options("access", arguments)
    kind, name, where = (*required("access", options.rest), "", "")[:3]
    if kind != "read" and not kind.startswith("write"):
        raise CommandFailed(EINVAL, f"Invalid access type requested: {kind}")
    try:
        specs = Specs.read(where)
    except ValueError as error:
        raise CommandFailed(EINVAL, str(error)) from error
    if kind == "read":
        return _access_read(core, caller, name, specs, strictly="f" in options.flags)
    return _access_write(core, caller, name, specs, options)


def _access_read(core: Core, caller: Caller, name: str, specs: Specs, *, strictly: bool) -> Answer:
    with _no_pfns("read"):
        entry = core.catalogue.look_up(caller.path(name), caller.user, READ) if _is_lfn(name) else None
        entry = entry or core.catalogue.by_guid(name, caller.user, READ)
        if entry is None:
            raise missing(name)
        held, _ = core.catalogue.member(entry.guid) or (entry.guid, "")
        core.catalogue.by_guid(held, caller.user, READ)  # the envelope is for the whole archive
    replicas = [r for r in core.replica_urls(entry, caller.site) if r[0].name.upper() not in specs.refused]
    if specs.ses:
        replicas.sort(key=lambda replica: replica[0].name.upper() not in specs.ses)
    if specs.ses and strictly:
        replicas = [r for r in replicas if r[0].name.upper() in specs.ses]
    if not replicas:
        raise CommandFailed(EBADFD, f"No read PFNs: {name} has no replica that could be read")
    return Answer(
        [
            _permit(se, url, se.envelope(held, "read"), entry.guid, len(replicas), entry.size, entry.md5)
            for se, url in replicas
        ]
    )


def _access_write(core: Core, caller: Caller, name: str, specs: Specs, options: Options) -> Answer:
    """A new file, or more replicas of one that is there already."""
    size, job = options.number("s", -1), core.queue.get(options.number("j", 0))
    md5 = options.values.get("m", "")
    if not _is_lfn(name):
        raise missing(name)
    lfn = caller.path(name)
    with _no_pfns("write"):
        entry = core.catalogue.look_up(lfn, caller.user, WRITE)
        if entry is None:
            core.catalogue.check_new(lfn, caller.user, max(size, 0))
    if entry is None or not (entry.guid or entry.is_dir):
        guid, bytes_, has = str(uuid.uuid1()), max(size, 0), frozenset[str]()
    elif entry.is_dir:
        raise CommandFailed(EBADFD, f"No write PFNs: {name} is a directory")
    elif (size if size >= 0 else entry.size, md5 or entry.md5) != (entry.size, entry.md5):
        text = "You seem to want to write a different file from the existing one in the catalogue"
        raise CommandFailed(EINVAL, text)
    else:
        guid, bytes_, has = entry.guid, entry.size, frozenset(core.catalogue.replicas(entry.guid))
    free = [se for se in core.storage.values() if se.name.upper() not in specs.refused and se.name not in has]
    named = [se for name in specs.ses for se in free if se.name.upper() == name]
    others = [se.name for se in free if se not in named]
    if not caller.site:  # no site is nearer: spread what comes without a wish
        secrets.SystemRandom().shuffle(others)
    nearest = core.live_first(by_distance(caller.site, others))[: specs.more]
    permits = [(se, se.envelope(guid, "write")) for se in (*named, *(core.storage[name] for name in nearest))]
    if not permits:
        raise CommandFailed(
            EBADFD, f"No write PFNs: no such storage element is left; there are {', '.join(core.storage)}"
        )
    saved_by = job.id if job and may_modify(caller, job) else 0  # it goes with the job's outputs
    bookings = [Booking(leave, lfn, guid, se.name, caller.user, saved_by) for se, leave in permits]
    core.catalogue.book(bookings, now_ms())
    return Answer(
        [_permit(se, se.url(guid), leave, guid, len(permits), bytes_, md5 or None) for se, leave in permits]
    )


def _is_lfn(name: str) -> bool:
    """Whether a name is whole: JAliEn looks for no others here, not below the current directory either."""
    return name.startswith("/")


@contextmanager
def _no_pfns(kind: str) -> Iterator[None]:
    """What JAliEn says of any file that one may not read or write; we add the reason."""
    try:
        yield
    except CatalogueError as error:
        reason = f"Permission denied: {error}" if error.code == EACCES else str(error)
        raise CommandFailed(EBADFD, f"No {kind} PFNs: {reason}") from error


def _permit(
    se: StorageElement, url: str, envelope: str, guid: str, count: int, size: int, md5: str | None
) -> Row:
    pfn, name = url.partition("#")[0], se.name.upper()
    return {
        "message": f"{pfn}\nSE: {name} (needs encrypted envelopes)\nEncrypted envelope:\n{envelope}",
        "envelope": envelope,
        "url": url,
        "guid": guid,
        "se": name,
        "tags": "[disk]",
        "nSEs": str(count),
        "md5": md5,
        "size": str(size),
    }


def commit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Register what was written: envelope size lfn perm expire pfn se guid md5 (perm counts for nothing)."""
    envelope, size_text, lfn, _, _, pfn, _, _, md5 = (*arguments, *[""] * 9)[:9]
    if not envelope:
        raise CommandFailed(EINVAL, "Command requires an argument")
    if not is_whole(size_text):
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
    core.catalogue.commit(booking, size=size, md5=md5, perm="755", now_ms=now_ms())
    return Answer([{"path": lfn, "lfn": "1", "pfn": se.url(booking.guid), "message": f"{lfn} 1"}])


def grid_unzip(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: enter the members of an archive beside it, as a job's OutputArchive does."""
    if not arguments:
        raise CommandFailed(EINVAL, "gridUnzip takes an archive")
    lfn = arguments[0]
    entry = existing(core, caller, lfn, READ)
    stored = [core.storage[se].file(entry.guid) for se in core.catalogue.replicas(entry.guid)]
    try:
        with zipfile.ZipFile(next(path for path in stored if path.exists())) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            core.catalogue.check_quota(caller.user, len(files), sum(info.file_size for info in files))
            members = [(info.filename, info.file_size, _md5(archive, info)) for info in files]
    except (StopIteration, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise CommandFailed(EIO, f"{lfn} is no zip archive that can be read: {error}") from error
    core.catalogue.enter_members(entry, members, caller.user, now_ms())
    return Answer()


def _md5(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open(info) as member:
        while block := member.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


ACCESS_VERBS: dict[str, Verb] = {"access": access, "commit": commit, "gridUnzip": grid_unzip}
