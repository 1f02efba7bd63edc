"""Which packets count, and which do not count twice (pure)."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What becomes of a commit: merged or discarded as a whole; ``orphans`` have to run again."""

    accepted: bool
    repeated: bool = False
    orphans: frozenset[int] = frozenset()


class CommitLog:
    """Says of each commit whether its outputs become part of the result.

    A commit names its worker's incarnation and a sequence number, so that a repeated message gets the
    first answer again; and its packets, so that no packet's output is merged twice whoever ran it.

    ``live``: by number the packets that may yet count, kept by who gives them out. An accepted commit's are
    taken out of it.
    """

    def __init__(self, live: MutableMapping[int, Any]) -> None:
        self._live = live
        self._last: dict[str, tuple[int, Verdict]] = {}  # by incarnation: it has one commit under way

    def known(self, incarnation: str, sequence: int) -> Verdict | None:
        """The answer given before to the same message; to one before the last: that it does not count."""
        last, verdict = self._last.get(incarnation, (0, None))
        if verdict is None or sequence > last:
            return None
        return Verdict(sequence == last and verdict.accepted, True)

    def claim(self, incarnation: str, sequence: int, packets: Iterable[int]) -> Verdict:
        """Claim all packets for this commit, or none.

        If one of them counts already, or never will, the whole delta is worthless, since it cannot be taken
        apart; its other packets are orphans then.
        """
        before = self.known(incarnation, sequence)
        if before is not None:
            return before
        claimed = frozenset(packets)
        live = claimed & self._live.keys()
        if live == claimed:
            verdict = Verdict(True)
            for packet in claimed:
                del self._live[packet]
        else:
            verdict = Verdict(False, orphans=live)
        self._last[incarnation] = sequence, verdict
        return verdict
