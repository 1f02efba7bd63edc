"""Entries of the file catalogue and their names: LFNs, GUIDs, PFNs. Pure."""

from __future__ import annotations

import itertools
import posixpath
import re
import uuid
import zlib
from dataclasses import dataclass
from errno import EINVAL
from typing import NamedTuple

from gridproof.localgrid.catalogue.permissions import READ, allowed
from gridproof.localgrid.users import User


class Entry(NamedTuple):
    """A file (``type`` f), directory (d) or collection (c); ``perm`` like "644", ``ctime`` in ms.

    Directories and touched files have no ``guid``. ``job`` is the one that has saved it, or 0.
    """

    lfn: str
    type: str
    owner: str
    gowner: str
    perm: str
    size: int
    md5: str
    guid: str
    ctime: int
    job: int = 0

    @property
    def is_dir(self) -> bool:
        return self.type == "d"

    @property
    def path(self) -> str:
        """The LFN as answers show it: directories end in a slash."""
        return self.lfn.rstrip("/") + "/" if self.is_dir else self.lfn

    def allows(self, user: User, right: int) -> bool:
        """Whether a user has all of READ, WRITE, PASS that ``right`` consists of."""
        return allowed(user, self.owner, self.gowner, self.perm, right)

    def as_seen_by(self, user: User) -> Entry:
        """Without its MD5 where a user may not read it."""
        return self if self.allows(user, READ) else self._replace(md5="")


class CatalogueError(Exception):
    """A change or a look-up that cannot be: ``code`` is the errno that AliEn answers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


_GREGORIAN = 0x01B21DD213814000  # from 1582-10-15, where times of GUIDs begin, to the epoch, in 100 ns
_CONTROL = re.compile("[\\0-\\x1f\\x7f-\\x9f]")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Booking:
    """Leave to write one replica of a file that is not in the catalogue yet; for a ``job``, or 0."""

    ticket: str
    lfn: str
    guid: str
    se: str
    user: str
    job: int = 0


def normal(lfn: str) -> str:
    """An absolute LFN without ``.``, ``..``, doubled or trailing slashes."""
    return "/" + posixpath.normpath("/" + lfn).strip("/")


def check_name(lfn: str) -> None:
    """Raises CatalogueError for a name that does something to the terminals of those who list it."""
    if _CONTROL.search(lfn):
        raise CatalogueError(EINVAL, f"{lfn!r} has a control character")


def is_pattern(lfn: str) -> bool:
    """Whether an LFN has wildcards."""
    return "*" in lfn or "?" in lfn


def pfn_path(guid: str) -> str:
    """Where a GUID lies on an SE: ``/NN/NNNNN/guid``, numbers from the GUID's digits as AliEn makes them."""
    digits = [int(digit, 16) for digit in guid.replace("-", "")]
    total, weighted = sum(digits), sum(itertools.accumulate(digits))
    high, low = ((weighted & 255) - (total & 255)) % 255, (weighted & 255) % 255
    return f"/{total % 16:02d}/{high << 8 | low:05d}/{guid}"


def entry_number(lfn: str) -> int:
    """A number for an LFN where JAliEn shows its database's (``entryId``, ``dir``)."""
    return zlib.crc32(lfn.encode())


def guid_origin(guid: str) -> tuple[int, str]:
    """When (ms since the epoch) and where (hardware address) a GUID was made; 0 if it does not tell."""
    made = uuid.UUID(guid)
    at = (made.time - _GREGORIAN) // 10_000 if made.version == 1 else 0
    return at, made.node.to_bytes(6, "big").hex(":")


def is_guid(name: str) -> bool:
    """Whether this is written as a GUID."""
    return bool(_GUID.fullmatch(name))
