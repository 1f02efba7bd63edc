"""The file catalogue: names, replicas and leave to read or write them."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from gridproof.alien.wire import REQUEST_LIMIT, Wire
from gridproof.errors import AnswerLost, CommandError

LOCATED_AT_ONCE = 500  # names in one command: the service looks up each by itself, and must answer in time
_ENOENT = 2
_MEMBER = re.compile(r"guid:/+([0-9a-fA-F-]{36})")  # the physical name of a file in an archive
_HOST = re.compile(r"\w+://([\w.-]+)")
_DISTANCE = re.compile(r"(\S+::\S+)\s+\(.*?distance:\s*([-+0-9.eE]+)\s*\)")


@dataclass(frozen=True)
class Entry:
    """A name in the catalogue. ``type`` is f (file), d (directory) or c (collection); ``ctime`` in s.

    ``ses``: the storage elements that have it, ``hosts``: of their URLs, where these were asked for (see
    `Catalogue.locate`).
    """

    lfn: str
    type: str
    size: int = 0
    md5: str = ""
    guid: str = ""
    owner: str = ""
    perm: str = ""
    ctime: float = 0.0
    ses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replica:
    """Where a copy of a file is: SE (in the case the catalogue answers with) and physical name."""

    se: str
    pfn: str


@dataclass(frozen=True)
class Access:
    """Leave to read or write one replica; the envelope, a secret, is what the SE asks for."""

    se: str
    url: str
    envelope: str = field(repr=False)
    guid: str
    size: int
    md5: str

    @property
    def root_url(self) -> str:
        """The URL with the envelope, as ROOT opens it, which reads a member of an archive in place."""
        return member_url(self.signed_url, self.member) if self.member else self.signed_url

    @property
    def signed_url(self) -> str:
        """The URL with the envelope; of a member of an archive, the archive's."""
        url = self.url.partition("#")[0]
        if not self.envelope:
            return url
        signed = "&signature=" in self.envelope  # for SEs that read it as it is: options of its own
        leave = self.envelope if signed else f"authz={self.envelope}"
        return f"{url}{'&' if '?' in url else '?'}xrd.wantprot=unix&{leave}"

    @property
    def member(self) -> str:
        """The file's name in the zip archive that it is a member of, "" if it is none."""
        return self.url.partition("#")[2]


@dataclass(frozen=True)
class StorageElement:
    """A storage element; sizes in bytes as far as the Grid knows them."""

    name: str
    site: str
    url: str = ""
    total: int = 0
    used: int = 0
    free: int = 0


def member_url(url: str, member: str) -> str:
    """The URL by which ROOT opens a member of the zip archive at ``url``, whatever its name ends in.

    (``…#member`` it takes for one only behind ``.zip``, and physical names on the Grid have no ending.)
    """
    place, _, options = url.partition("?")
    return f"{place}?zip={member}" + (f"&{options}" if options else "")


def site_of(name: str) -> str:
    """The site of an SE or CE, in upper case: the middle of ``VO::SITE::NAME``."""
    parts = name.split("::")
    return parts[1 if len(parts) > 1 else 0].upper()


def chunks(
    options: Sequence[str], limit: int = REQUEST_LIMIT - 1000, most: int = sys.maxsize
) -> Iterator[Sequence[str]]:
    """Cut options into runs of at most ``most`` that each fit into one command of ``limit`` bytes."""
    start = size = 0
    for place, option in enumerate(options):
        length = 2 + len(json.dumps(option))
        if place > start and (size + length > limit or place - start == most):
            yield options[start:place]
            start, size = place, 0
        size += length
    if start < len(options):
        yield options[start:]


class Catalogue:
    """Commands on names; an LFN may be absolute, relative to the home directory, or begin with ``~/``."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        answer = wire.command("whoami", "-nomsg")
        known = answer.results[0] if answer.results else {}
        self.user = known.get("username") or answer.metadata.get("user", "")
        home = known.get("homedir") or answer.metadata.get("currentdir", "/")
        self.home = home.rstrip("/") + "/"
        self._located: dict[str, Entry] = {}  # what `locate` has learnt

    def absolute(self, lfn: str) -> str:
        """The LFN from the root, without ``.``, ``..``, ``//``, ``~``, ``alien://`` or a ``/`` behind."""
        path = lfn.removeprefix("alien://").removeprefix("LF:")
        path = posixpath.join(self.home, path.removeprefix("~/") if path != "~" else "")
        return "/" + posixpath.normpath(path).lstrip("/")

    def ls(self, lfn: str) -> list[Entry]:
        """What a directory holds, by name (or the one entry of a file). Raises CommandError."""
        answer = self._wire.command("ls", "-nomsg", "-la", self.absolute(lfn))
        return [
            Entry(
                lfn=row["path"].rstrip("/"),
                type=_type(row.get("permissions", "")),
                size=number(row.get("size")),
                owner=row.get("user", ""),
                perm=_octal(row.get("permissions", "")),
                ctime=number(row.get("ctime")) / 1000,
            )
            for row in answer.results
            if row.get("path") and row.get("name") not in (".", "..")
        ]

    def stat(self, lfn: str) -> Entry:
        """One entry. Raises CommandError (exit code 2) if there is none."""
        path = self.absolute(lfn)
        answer = self._wire.command("stat", "-nomsg", path)
        if not answer.results:
            raise CommandError(f"{path} is not in the catalogue", command=f"stat {path}", exitcode=2)
        return _entry(answer.results[0])

    def find(self, directory: str, pattern: str) -> list[Entry]:
        """Files anywhere below a directory whose path holds ``pattern`` (``*`` and ``?``), by name.

        The service matches loosely (``*.root`` finds ``a.root.txt`` too). Raises CommandError if there is
        no such directory.
        """
        answer = self._wire.command("find", "-nomsg", "-w", self.absolute(directory), pattern)
        found = sorted((_entry(row) for row in answer.results if row.get("lfn")), key=lambda e: e.lfn)
        for entry in found:
            known = self._located.get(entry.lfn)
            if known is not None and known.guid != entry.guid:  # another file by now
                del self._located[entry.lfn]
        return found

    def locate(self, lfns: Iterable[str]) -> dict[str, Entry]:
        """The entries of these names with their storage elements; names that do not exist are left out.

        One command for every 500 names, and for every 500 archives that they are members of. An answer is
        kept until this object writes or removes the file, or its own `find` shows another one. Raises
        CommandError.
        """
        paths = {lfn: self.absolute(lfn) for lfn in lfns}
        unknown = [path for path in dict.fromkeys(paths.values()) if path not in self._located]
        rows = [row for row in self._stat(unknown) if row.get("lfn")]
        pfns = {row["lfn"]: _replicas(row) for row in rows}
        archives = {
            lfn: found[1] for lfn in pfns for pfn in pfns[lfn].values() if (found := _MEMBER.match(pfn))
        }
        held = {
            row.get("guid", "").lower(): _replicas(row)
            for row in self._stat(list(dict.fromkeys(archives.values())))
        }
        for row in rows:
            replicas = {**pfns[row["lfn"]], **held.get(archives.get(row["lfn"], "").lower(), {})}
            ses = {se: _HOST.match(pfn) for se, pfn in replicas.items() if "::" in se}
            hosts = tuple(dict.fromkeys(found[1].lower() for found in ses.values() if found))
            entry = replace(_entry(row), ses=tuple(ses), hosts=hosts)
            self._located[entry.lfn] = entry
        return {lfn: self._located[path] for lfn, path in paths.items() if path in self._located}

    def collection(self, lfn: str) -> list[Entry]:
        """The files in a collection, in its own order. Raises CommandError."""
        answer = self._wire.command("listFilesFromCollection", "-nomsg", "-z", self.absolute(lfn))
        return [_entry(row) for row in answer.results if row.get("lfn")]

    def whereis(self, lfn: str) -> list[Replica]:
        """The replicas of a file, for a member of an archive those of the archive. Raises CommandError."""
        answer = self._wire.command("whereis", "-nomsg", "-r", self.absolute(lfn))
        return [Replica(row["seName"], row.get("pfn", "")) for row in answer.results if row.get("seName")]

    def access_read(self, lfn: str) -> list[Access]:
        """Leave to read a file: one entry per replica, nearest first. Raises CommandError."""
        return self._access("read", self.absolute(lfn))

    def access_write(self, lfn: str, specs: str, size: int, md5: str) -> list[Access]:
        """Leave to write a file; ``specs`` is like ``VO::SITE::SE,disk:1,!VO::OTHER::SE``."""
        return self._access("-s", str(size), "-m", md5, "write", self.absolute(lfn), specs)

    def commit(self, lfn: str, access: Access, size: int, md5: str) -> None:
        """Register a replica that was written; if the answer gets lost, the catalogue tells whether it is.

        A new file has mode 755 then, whatever is asked for.
        """
        path = self.absolute(lfn)
        options = (access.envelope, str(size), path, "755", "0", access.url, access.se, access.guid, md5)
        self._located.pop(path, None)
        try:
            self._wire.command("commit", *options)
        except AnswerLost:
            held = {se.upper() for row in self._stat([path]) for se in _replicas(row)}
            if access.se.upper() not in held:
                self._wire.command("commit", *options)

    def mkdir(self, lfn: str, parents: bool = True) -> None:
        """Make a directory; one that is there already is fine."""
        self._wire.command("mkdir", *(["-p"] if parents else []), self.absolute(lfn))

    def chmod(self, lfn: str, mode: str) -> None:
        """Change permissions, given in octal. Raises CommandError."""
        self._wire.command("chmod", mode, self.absolute(lfn))

    def rmdir(self, lfn: str) -> None:
        """Remove an empty directory. Raises CommandError."""
        self._located.pop(self.absolute(lfn), None)
        self._wire.command("rmdir", self.absolute(lfn))

    def rm(self, *lfns: str, recursive: bool = False) -> None:
        """Remove files, or directories with all that is in them."""
        paths = [self.absolute(lfn) for lfn in lfns]
        gone = tuple(f"{path}/" for path in paths)
        for known in [k for k in self._located if k in paths or k.startswith(gone)]:
            del self._located[known]
        options = ["-r"] if recursive else []
        for some in chunks(paths):
            try:
                self._wire.command("rm", *options, *some)
            except AnswerLost:
                left = {row.get("lfn", "").rstrip("/") for row in self._stat(some)}
                if left:
                    self._wire.command("rm", *options, *(path for path in some if path in left))

    def list_ses(self) -> list[StorageElement]:
        """All storage elements."""
        return [
            StorageElement(
                name=row["seName"],
                site=site_of(row["seName"]),
                url=row.get("endpointUrl", ""),
                total=number(row.get("totalSpace")),
                used=number(row.get("usedSpace")),
                free=number(row.get("freeSpace")),
            )
            for row in self._wire.command("listSEs", "-nomsg").results
            if row.get("seName")
        ]

    def se_distance(self, site: str) -> list[tuple[str, float]]:
        """The SEs with their distance from a site, nearest first."""
        text = self._wire.command("listSEDistance", "-site", site).message
        return [(se, float(distance)) for se, distance in _DISTANCE.findall(text)]

    def _stat(self, names: Sequence[str]) -> list[dict[str, str]]:
        """All about those of these LFNs and GUIDs that exist."""
        rows: list[dict[str, str]] = []
        for some in chunks(names, most=LOCATED_AT_ONCE):
            try:
                rows += self._wire.command("stat", "-nomsg", "-v", *some).results
            except CommandError as error:
                if error.exitcode != _ENOENT:
                    raise
                rows += [dict(row) for row in error.results]
        return rows

    def _access(self, *options: str) -> list[Access]:
        answer = self._wire.command("access", "-nomsg", *options)
        return [
            Access(
                se=row.get("se", ""),
                url=row["url"],
                envelope=row.get("envelope", ""),
                guid=row.get("guid", ""),
                size=number(row.get("size")),
                md5=row.get("md5", ""),
            )
            for row in answer.results
            if row.get("url")
        ]


def number(text: str | None) -> int:
    """A whole number as the service writes it, now and then after a blank; 0 for what is none."""
    digits = (text or "").strip()
    return int(digits) if re.fullmatch(r"-?[0-9]+", digits) else 0


def _replicas(row: dict[str, str]) -> dict[str, str]:
    """Physical names by storage element, as ``stat -v`` gives them; a member of an archive is at ZIP."""
    try:
        replicas = json.loads(row.get("replicas") or "{}")
    except ValueError:
        return {}
    return {str(se): str(pfn) for se, pfn in replicas.items()} if isinstance(replicas, dict) else {}


def _type(permissions: str) -> str:
    return permissions[0] if permissions[:1] in ("d", "c") else "f"


def _octal(permissions: str) -> str:
    groups = (permissions[at : at + 3] for at in (1, 4, 7))
    return "".join(str(sum(4 >> at for at, bit in enumerate(bits) if bit != "-")) for bits in groups)


def _entry(row: dict[str, str]) -> Entry:
    kind = row.get("type") or ("d" if row["lfn"].endswith("/") else "f")
    return Entry(
        lfn=row["lfn"].rstrip("/") or "/",
        type=kind[0],
        size=number(row.get("size")),
        md5=row.get("md5", "").strip(),
        guid=row.get("guid", ""),
        owner=row.get("owner", ""),
        perm=row.get("perm", ""),
        ctime=number(row.get("ctime")) / 1000,
    )
