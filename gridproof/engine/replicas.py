"""Where a file can be read, and in which order a worker tries (pure)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

SHUN_SECONDS = 60.0  # for which an SE that did not answer comes last: each try takes seconds
_REFUSED = re.compile(r"\[3010\]|permission denied|not authorized", re.IGNORECASE)  # XRootD's words
_NO_ANSWER = re.compile(r"\[FATAL\]|operation expired|time-?out", re.IGNORECASE)  # XRootD's words


@dataclass(frozen=True)
class Replica:
    """Where a file can be read: its URL, the SE and that SE's site (empty for a file on no SE)."""

    url: str
    storage_element: str = ""
    site: str = ""


@dataclass(frozen=True)
class Located:
    """A file's replicas, nearest first, or why there is none that can be read."""

    replicas: tuple[Replica, ...] = ()
    problem: str = "it has no replica"


class Resolver(Protocol):
    """Tells where files can be read, described as the query does: ``name``, ``kind``, ``replicas``."""

    def __call__(self, files: Sequence[Mapping[str, Any]], anew: bool = False) -> Sequence[Located]:
        """Answer for each file, in order; ``anew``: leave to read it was refused, so ask for it again."""
        ...


def as_given(file: Mapping[str, Any]) -> Located:
    """Of a file whose name is its URL or path, and that can be read without leave."""
    place = file["replicas"][0] if file["replicas"] else ()
    return Located((Replica(str(file["name"]), *place),))


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


class Attempts:
    """The replicas of one file, as they are to be tried: asked for anew when the first leave is refused.

    ``reason``: why none was good, ``failed``: the SEs to blame then. These are also the ones that have the
    file ("" for a file on none) but that nobody may read it from.
    """

    def __init__(
        self, file: Mapping[str, Any], resolve: Resolver, preference: Preference, avoid: Collection[str]
    ) -> None:
        self._file = file
        self._resolve = resolve
        self._preference = preference
        self._avoid = avoid
        self._renewed = False
        self._untried: list[Replica] = []
        self.reason = ""
        self.failed: list[str] = []

    def start(self, now: float) -> Iterator[Replica]:
        """The replicas one after the other; tell by `fail` of one that is not good."""
        self._look(now)
        while self._untried:
            yield self._untried.pop(0)

    def fail(self, replica: Replica, problem: str, now: float) -> None:
        """A replica could not be opened; ``problem``: ROOT's words. ``now``: seconds of any clock."""
        self._preference.failed(replica, problem, now)
        if _REFUSED.search(problem) and not self._renewed:
            self._renewed = True
            self._look(now)
        else:
            self.failed.append(replica.storage_element)
            self.reason = f"{problem} ({shown(replica)})"

    def _look(self, now: float) -> None:
        located = self._resolve([self._file], self._renewed)[0]
        self._untried = self._preference.order(located.replicas, self._avoid, now)
        places = {str(se) for se, _ in self._file["replicas"]} or {""}
        self.failed = sorted(places - {replica.storage_element for replica in located.replicas})
        self.reason = located.problem


def shown(replica: Replica) -> str:
    """Its URL without the envelope, which is a secret."""
    return replica.url.partition("?")[0]
