"""Where a file can be read, and in which order a worker tries (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHUN_SECONDS = 60.0  # for which an SE that did not answer comes last: each try takes seconds
_NO_ANSWER = re.compile(r"\[FATAL\]|operation expired|time-?out", re.IGNORECASE)  # XRootD's words


@dataclass(frozen=True)
class Replica:
    """Where a file can be read: its URL, the SE and that SE's site (empty for a file on no SE)."""

    url: str
    storage_element: str = ""
    site: str = ""


Resolver = Callable[[Mapping[str, Any]], Sequence[Replica]]
"""Replicas of a file as the query describes it (``name``, ``kind``, ``replicas``), nearest first."""


class Preference:
    """Which replicas a worker at ``site`` reads first: what has failed it comes last."""

    def __init__(self, site: str) -> None:
        self.site = site.upper()
        self._bad: set[str] = set()  # URLs
        self._shunned: dict[str, float] = {}  # SE → until when

    def is_local(self, replica: Replica) -> bool:
        """Whether it lies at the worker's own site."""
        return bool(self.site) and replica.site.upper() == self.site

    def failed(self, replica: Replica, problem: str, now: float) -> None:
        """It could not be read; ``problem``: ROOT's words. ``now``: seconds of any clock."""
        self._bad.add(replica.url)
        if _NO_ANSWER.search(problem):
            self._shunned[replica.storage_element] = now + SHUN_SECONDS

    def forgive(self) -> None:
        """Give files that have failed another chance."""
        self._bad.clear()

    def order(self, replicas: Iterable[Replica], avoid: Collection[str], now: float) -> list[Replica]:
        """Replicas as they are to be tried; ``avoid``: SEs that have failed others with this file."""
        return sorted(
            replicas,
            key=lambda r: (
                r.url in self._bad,
                self._shunned.get(r.storage_element, now) > now,
                r.storage_element in avoid,
                r.site.upper() != self.site,
            ),
        )
