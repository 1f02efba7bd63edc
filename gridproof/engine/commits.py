"""Which packets count, and which do not count twice (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What becomes of a commit: merged or discarded as a whole; ``orphans`` have to run again."""

    accepted: bool
    repeated: bool = False
    orphans: frozenset[int] = frozenset()


class CommitLog:
    """The packets whose outputs are part of the result.

    A commit names its worker's incarnation and a sequence number, so that a repeated message gets the
    first answer again; and its packets, so that no packet's output is merged twice whoever ran it.
    """

    def __init__(self) -> None:
        self._committed: set[int] = set()
        self._void: set[int] = set()
        self._answers: dict[tuple[str, int], Verdict] = {}

    def __contains__(self, packet: int) -> bool:
        return packet in self._committed

    def __len__(self) -> int:
        return len(self._committed)

    def void(self, packets: Iterable[int]) -> None:
        """These packets will never count, whoever runs them."""
        self._void |= set(packets) - self._committed

    def known(self, incarnation: str, sequence: int) -> Verdict | None:
        """The answer given before to the same message."""
        verdict = self._answers.get((incarnation, sequence))
        return Verdict(verdict.accepted, True, verdict.orphans) if verdict else None

    def claim(self, incarnation: str, sequence: int, packets: Iterable[int]) -> Verdict:
        """Claim all packets for this commit, or none.

        If one of them is committed already, or void, the whole delta is worthless, since it cannot be taken
        apart; its other packets are orphans then.
        """
        before = self.known(incarnation, sequence)
        if before is not None:
            return before
        claimed = frozenset(packets)
        if claimed & self._committed or claimed & self._void:
            verdict = Verdict(False, orphans=claimed - self._committed - self._void)
        else:
            self._committed |= claimed
            verdict = Verdict(True)
        self._answers[incarnation, sequence] = verdict
        return verdict
