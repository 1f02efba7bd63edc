"""What a job asks of a site, read as JAliEn reads it: by regular expressions, never as an expression.

The boolean structure is ignored, CEs are ORed, SEs are ORed, and terms that are not known are dropped,
such as ``other.CE != "A::B::C"`` or a ``member`` with blanks in it. What is not wanted (``!member(…)``) only
takes away from the sites that are: without a wanted SE it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl
from gridproof.localgrid.sites import Site

_CLOSE_SE = re.compile(r'(!?)member\(other\.CloseSE,"(\w+::[\w-]+::[\w+-]+)"\)')
_CE = re.compile(r'(!?)other\.CE\s*==\s*"([^"]+)"')


@dataclass(frozen=True)
class Requirements:
    """What a site must have (names in upper case) and what orders the queue; times in s."""

    close_ses: frozenset[str] = frozenset()
    no_ses: frozenset[str] = frozenset()
    ces: frozenset[str] = frozenset()
    no_ces: frozenset[str] = frozenset()
    ttl: int = 21_600
    cores: int = 1
    price: float = 1.0
    priority: int = 0
    max_waiting: float = 0.0

    def allow(self, site: Site, ttl_limit: float) -> bool:
        """Whether a job may run in a slot of ``site`` that lasts ``ttl_limit`` s more."""
        close = {se.upper() for se in site.close_ses}
        ce = site.ce.upper()
        return (
            self.ttl < ttl_limit
            and self.cores <= site.cores
            and (not self.close_ses or bool(self.close_ses & close and not self.no_ses & close))
            and (not self.ces or ce in self.ces)
            and ce not in self.no_ces
        )


def read_requirements(jdl: Jdl) -> Requirements:
    """The requirements of a complete JDL; raises JdlError for what should be a number and is none."""
    value = jdl.get("Requirements")
    text = value.text if isinstance(value, Expression) else ""
    ses = _CLOSE_SE.findall(text)
    ces = _CE.findall(text)
    return Requirements(
        close_ses=frozenset(name.upper() for negated, name in ses if not negated),
        no_ses=frozenset(name.upper() for negated, name in ses if negated),
        ces=frozenset(name.upper() for negated, name in ces if not negated),
        no_ces=frozenset(name.upper() for negated, name in ces if negated),
        ttl=int(jdl.number("TTL", 21_600)),
        cores=int(jdl.number("CPUCores", 1)),
        price=jdl.number("Price", 1.0),
        priority=int(jdl.number("Priority", 0)),
        max_waiting=jdl.number("MaxWaitingTime", 0.0),
    )


def close_to(ses: Sequence[str]) -> str:
    """The expression that binds a job to the sites of these SEs."""
    return " || ".join(f'member(other.CloseSE,"{se}")' for se in ses)
