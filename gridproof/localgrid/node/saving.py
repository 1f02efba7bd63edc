"""What a job leaves behind: archives are made, files uploaded and entered in the catalogue."""

from __future__ import annotations

import asyncio
import glob
import os
import posixpath
import re
import secrets
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridproof.alien.jdl import Jdl
from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.catalogue.entries import Booking, CatalogueError, normal
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.sites import by_distance
from gridproof.localgrid.storage.specs import Specs
from gridproof.localgrid.storage.transfer import md5_of, upload

_ERROR_DEFAULT = "log_archive.zip:std*@disk=1"
_SPEC = re.compile(r"!?[^!=,]+::[^!=,]+|\w+[=:][1-9]\d*")  # anything else is ignored, as "no_archive"


class OutputMissing(Exception):
    """A file that the JDL names does not exist; the text says which."""


class SavingFailed(Exception):
    """A file could not be saved; the text says which and why."""


@dataclass(frozen=True)
class Wanted:
    """One element of ``OutputFile``, ``OutputArchive``, …; ``archive``: the name of the zip file, if one.

    ``asked``: whether the JDL says where it shall be saved.
    """

    archive: str
    patterns: tuple[str, ...]
    specs: Specs
    asked: bool

    @classmethod
    def read(cls, element: str) -> Wanted:
        """``name,pattern@disk=2`` or ``archive.zip:name,pattern@disk=2,SE1,!SE2``."""
        files, _, where = element.partition("@")
        archive, colon, members = files.partition(":")
        known = ",".join(spec for spec in map(str.strip, where.split(",")) if _SPEC.fullmatch(spec))
        patterns = (members if colon else files).split(",")
        return cls(
            archive=archive.strip() if colon else "",
            patterns=tuple(p.strip() for p in patterns if p.strip()),
            specs=Specs.read(known),
            asked=bool(known),
        )


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    size: int
    md5: str


@dataclass(frozen=True)
class Output:
    """A file in a job's directory, ready to be uploaded under its ``name``."""

    name: str
    path: Path
    wanted: Wanted
    members: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """All files to be uploaded, and what is to be said about those that are not."""

    files: tuple[Output, ...]
    remarks: tuple[str, ...]


def prepare_outputs(jdl: Jdl, directory: Path, end: str) -> Outputs:
    """Find and pack what a job that comes to ``end`` wants to be saved.

    Raises OutputMissing, SavingFailed, OSError.

    A job that fails need not have all its files; they are the logs if its payload failed. Empty files are
    not saved, and files in archives not beside them.
    """
    remarks: list[str] = []
    elements = [e for key in ("OutputArchive", "OutputFile", "Output") for e in jdl.strings(key)]
    if end == state.ERROR_E:
        if "OutputErrorE" not in jdl:
            remarks.append("No output given for ERROR_E in JDL. Defaulting to std*")
        elements = list(jdl.strings("OutputErrorE")) or [_ERROR_DEFAULT]
    archives: list[Output] = []
    files: dict[str, Output] = {}
    for wanted in map(Wanted.read, elements):
        named = dict.fromkeys(_names(wanted, directory, strict=end == state.DONE))
        full = [(name, path) for name in named if (path := _inside(directory, name)) and path.stat().st_size]
        if not wanted.archive:
            empty = [name for name in named if name not in dict(full)]
            remarks += [f"The following file has size 0 and will be ignored: {name}" for name in empty]
            files |= {name: Output(name, path, wanted) for name, path in full}
        elif full:
            archives.append(_pack(wanted, directory, full))
        else:
            remarks.append(f"Ignoring empty archive: {wanted.archive}")
    packed = {member.name for archive in archives for member in archive.members}
    single = [file for name, file in files.items() if name not in packed]
    return Outputs((*archives, *single), tuple(remarks))


def _names(wanted: Wanted, directory: Path, strict: bool) -> Iterator[str]:
    for pattern in wanted.patterns:
        if "*" in pattern:
            yield from _matches(pattern, directory)
        elif _inside(directory, pattern):
            yield posixpath.normpath(pattern)
        elif strict:
            where = f" Required by the following archive: {wanted.archive}" if wanted.archive else ""
            raise OutputMissing(f"File {pattern} doesn't exist or cannot be read!{where}")


def _matches(pattern: str, directory: Path) -> Iterator[str]:
    for name in sorted(glob.glob(pattern, root_dir=directory)):  # noqa: PTH207
        raw = os.fsencode(name)
        try:
            yield posixpath.normpath(raw.decode())
        except UnicodeDecodeError:
            raise SavingFailed(f"Names in the catalogue are UTF-8, that of {raw!r} is not") from None


def _inside(directory: Path, name: str) -> Path | None:
    """The file of this name, if it is one and lies in ``directory``, also when links are followed."""
    path = directory / posixpath.normpath(name)
    real, top = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    return path if path.is_file() and top in real.parents else None


def _pack(wanted: Wanted, directory: Path, files: Sequence[tuple[str, Path]]) -> Output:
    name = posixpath.basename(wanted.archive)
    target = directory / name
    if name in ("", ".", "..") or target in (path for _, path in files):
        raise SavingFailed(f"An archive cannot be named {wanted.archive!r}: name a file that is not in it")
    target.unlink(missing_ok=True)
    # ROOT files are compressed already, and are read in place.
    stored = any(name.endswith(".root") for name, _ in files)
    how = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target, "x", how, strict_timestamps=False) as archive:
        for member, path in files:
            archive.write(path, member)
    members = tuple(Member(member, path.stat().st_size, md5_of(path)) for member, path in files)
    return Output(target.name, target, wanted, members)


class Saver:
    """Uploads one job's outputs to ``directory`` of the catalogue; ``tell`` writes to its trace."""

    def __init__(
        self, core: Core, job: Job, directory: str, before: Sequence[str], tell: Callable[[str], None]
    ) -> None:
        self._core = core
        self._job = job
        self._directory = normal(directory)
        self._before = before
        self._tell = tell

    async def save(self, outputs: Sequence[Output], *, register: bool) -> bool:
        """Whether all replicas that were asked for could be made; raises SavingFailed if a file has none.

        Without ``register`` the files are only kept: they appear in the catalogue when ``registerOutput``
        asks for them.
        """
        complete = True
        await asyncio.to_thread(kept.drop, self._core.catalogue, self._job.id)
        for output in outputs:
            lfn = posixpath.join(self._directory, output.name)
            self._tell(f"Uploading: {output.name} to {self._directory}")
            try:
                complete &= await self._save(output, lfn, register)
            except CatalogueError as error:
                raise SavingFailed(f"Failed to upload to {lfn}: {error}") from error
        if register:
            for output in outputs:
                self._tell(f"Registering: {output.name}. Return status: true")
        return complete

    async def _save(self, output: Output, lfn: str, register: bool) -> bool:
        size, md5 = output.path.stat().st_size, await asyncio.to_thread(md5_of, output.path)
        guid, specs = str(uuid.uuid1()), output.wanted.specs
        if register:
            new = [lfn, *(posixpath.join(self._directory, member.name) for member in output.members)]
            await asyncio.to_thread(self._make_room, new)
        candidates = self._candidates(specs)
        copies = len(specs.ses) + specs.more
        if not output.wanted.asked:
            copies = min(copies, len(candidates))
        uploaded: list[Booking] = []
        problems: list[str] = []
        while len(uploaded) < copies and candidates:
            missing = copies - len(uploaded)
            batch, candidates = candidates[:missing], candidates[missing:]
            bookings = [Booking(_ticket(), lfn, guid, se, self._job.owner, self._job.id) for se in batch]
            await asyncio.to_thread(self._core.catalogue.book, bookings, now_ms())
            said = await asyncio.gather(*(self._upload(output.path, booking) for booking in bookings))
            uploaded += [booking for booking, problem in zip(bookings, said, strict=True) if not problem]
            problems += filter(None, said)
        if not uploaded:
            errors = "; ".join(problems) or "no storage element takes it"
            raise SavingFailed(f"Failed to upload to {lfn}: Upload failed, sorry! {errors}")
        await asyncio.to_thread(self._enter, output, uploaded, size, md5, register)
        if len(uploaded) == copies:
            self._tell(f"{lfn}: uploaded as requested")
            return True
        for problem in problems:
            self._tell(problem)
        self._tell(f"Only {len(uploaded)} out of {copies} requested replicas could be uploaded")
        return False

    def _candidates(self, specs: Specs) -> list[str]:
        """SEs that are named, then all others that are not refused, nearest first."""
        core = self._core
        ses = {se.upper(): se for se in core.storage if se.upper() not in specs.refused}
        named = [ses.pop(name) for name in specs.ses if name in ses]
        return [*named, *core.live_first(by_distance(self._job.site, ses.values()))]

    async def _upload(self, path: Path, booking: Booking) -> str:
        """What went wrong."""
        url = self._core.storage[booking.se].signed_url(booking.guid, "write")
        problem = await upload(path, url, self._before)
        return problem and f"{booking.se}: {problem}"

    def _make_room(self, lfns: Sequence[str]) -> None:
        """Remove what a former run has left there. Raises CatalogueError."""
        catalogue, user = self._core.catalogue, self._job.owner
        for lfn in lfns:
            if (entry := catalogue.get(lfn)) and not entry.is_dir:
                catalogue.remove(lfn, user)
            catalogue.check_new(lfn, user)
        self._core.sweep()

    def _enter(
        self, output: Output, bookings: Sequence[Booking], size: int, md5: str, register: bool
    ) -> None:
        catalogue, user, now = self._core.catalogue, self._job.owner, now_ms()
        members = [(member.name, member.size, member.md5) for member in output.members]
        if not register:
            kept.keep(catalogue, self._job.id, bookings, size, md5, members)
            return
        with catalogue.change():
            for booking in bookings:
                catalogue.commit(booking, size=size, md5=md5, perm="755", now_ms=now)
            if members and (archive := catalogue.get(bookings[0].lfn)):
                catalogue.enter_members(archive, members, user, now)


def _ticket() -> str:
    return f"localgrid-{secrets.token_urlsafe(24)}"
