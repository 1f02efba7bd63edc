"""What a job asks of a slot, read as JAliEn reads it: by regular expressions, never as an expression.

The boolean structure is ignored, CEs are ORed, SEs are ORed, and terms that are not known are dropped,
such as ``other.CE != "A::B::C"`` or a ``member`` with blanks in it. What is not wanted (``!member(…)``) only
takes away from the sites that are: without a wanted SE it says nothing. A number that cannot be read is as
good as none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl
from gridproof.errors import JdlError
from gridproof.localgrid.sites import Slot

DEFAULT_TTL = 21_600
WORKDIR_PER_CORE = 10_240  # MB that a job may fill; it may ask for twice as much
PRIORITIES = 1_000_000  # the highest, and with a minus the lowest
MAX_WAITING = 14 * 86_400  # s; who wants to wait longer waits for ever

_CLOSE_SE = re.compile(r'(!?)member\(other\.CloseSE,"(\w+::[\w-]+::[\w+-]+)"\)')
_CE = re.compile(r'(!?)other\.CE\s*==\s*"([^"]+)"')
_PACKAGE = re.compile(r'other\.Packages,"([^"]+)"')
_TTL = re.compile(r"other\.TTL\s*>\s*(\d{1,9})")
_PRICE = re.compile(r"other\.Price\s*<=\s*(\d{1,9})")
_WAITING = re.compile(r"(\d{1,9})\s*([smh]?)", re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,9})\s*([KMG]?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Requirements:
    """What a slot must have (names of SEs and CEs in upper case) and what orders the queue; times in s."""

    close_ses: frozenset[str] = frozenset()
    no_ses: frozenset[str] = frozenset()
    ces: frozenset[str] = frozenset()
    no_ces: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    ttl: int = DEFAULT_TTL
    cores: int = 1
    disk: int = 0  # MB
    price: float = 1.0
    priority: int = 0
    max_waiting: int = 0

    def allow(self, slot: Slot) -> bool:
        """Whether a job may run there."""
        close = {se.upper() for se in slot.site.close_ses}
        ce = slot.site.ce.upper()
        return (
            self.ttl < slot.ttl
            and self.cores <= slot.site.cores
            and self.disk < slot.disk
            and self.packages <= slot.packages
            and (not self.close_ses or bool(self.close_ses & close and not self.no_ses & close))
            and (not self.ces or ce in self.ces)
            and ce not in self.no_ces
        )


def read_requirements(jdl: Jdl) -> Requirements:
    """The requirements of a complete JDL."""
    value = jdl.get("Requirements")
    text = value.text if isinstance(value, Expression) else ""
    ses = _CLOSE_SE.findall(text)
    ces = _CE.findall(text)
    ttl, price = _TTL.search(text), _PRICE.search(text)
    cores = cpu_cores(jdl)
    return Requirements(
        close_ses=frozenset(name.upper() for negated, name in ses if not negated),
        no_ses=frozenset(name.upper() for negated, name in ses if negated),
        ces=frozenset(name.upper() for negated, name in ces if not negated),
        no_ces=frozenset(name.upper() for negated, name in ces if negated),
        packages=frozenset(_PACKAGE.findall(text)),
        ttl=int(ttl[1]) if ttl else int(read_number(jdl, "TTL", DEFAULT_TTL)),
        cores=cores,
        disk=work_directory_size(jdl),
        price=float(price[1]) if price else read_number(jdl, "Price", 1.0),
        priority=int(max(-PRIORITIES, min(PRIORITIES, read_number(jdl, "Priority", 0)))),
        max_waiting=_seconds(jdl.text("MaxWaitingTime")),
    )


def cpu_cores(jdl: Jdl) -> int:
    """How many cores a job wants: 1 to 100."""
    cores = int(read_number(jdl, "CPUCores", 1))
    return cores if 0 < cores <= 100 else 1


def close_to(ses: Sequence[str]) -> str:
    """The expression that binds a job to the sites of these SEs."""
    return " || ".join(f'member(other.CloseSE,"{se}")' for se in ses)


def read_number(jdl: Jdl, key: str, default: float) -> float:
    """The number that a JDL gives; ``default`` without one, or when it cannot be read."""
    try:
        return jdl.number(key, default)
    except JdlError:
        return default


def work_directory_size(jdl: Jdl) -> int:
    """MB that a job asks for; 0 when it does not, or for more than twice what it may have."""
    size = megabytes(jdl.text("Workdirectorysize"))
    return size if size <= 2 * WORKDIR_PER_CORE * cpu_cores(jdl) else 0


def megabytes(text: str) -> int:
    """A size in a JDL: ``8GB``, ``500MB``, or a number of MB; 0 for what cannot be read."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return 0
    size = int(found[1])
    return {"K": size // 1024, "G": size * 1024}.get(found[2].upper(), size)


def _seconds(text: str) -> int:
    found = _WAITING.fullmatch(text.strip())
    seconds = int(found[1]) * {"m": 60, "h": 3600}.get(found[2].lower(), 1) if found else 0
    return seconds if seconds < MAX_WAITING else 0
