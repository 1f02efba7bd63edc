"""How many lines refusals may cost (pure: no I/O, no clock)."""

from __future__ import annotations

BURST = 20
PER_SECOND = 0.1


class Refusals:
    """Lets `BURST` lines through, then one every ten seconds, and counts those it left out."""

    def __init__(self) -> None:
        self._credit = float(BURST)
        self._then: float | None = None
        self._left_out = 0

    def lines(self, line: str, now: float) -> list[str]:
        """What may be written instead of ``line`` at ``now`` (s of any steady clock)."""
        self._earn(now)
        if self._credit < 1:
            self._left_out += 1
            return []
        self._credit -= 1
        return [*self._summary(), line]

    def left_out(self, now: float) -> list[str]:
        """A line that says how many were left out, when there is room for it."""
        self._earn(now)
        if not self._left_out or self._credit < 1:
            return []
        self._credit -= 1
        return self._summary()

    def _summary(self) -> list[str]:
        count, self._left_out = self._left_out, 0
        return [f"refused {count} more, not shown"] if count else []

    def _earn(self, now: float) -> None:
        if self._then is not None:
            self._credit = min(BURST, self._credit + PER_SECOND * (now - self._then))
        self._then = now
