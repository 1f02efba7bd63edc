"""How JAliEn makes those wait who ask too much."""

from __future__ import annotations

LOGIN = 10  # as many commands does a login count for
_FREE = 100
_HALVED_EVERY = 300.0  # s


class Throttle:
    """Counts the commands of each certificate; the counts are halved every five minutes."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}

    def delay(self, subject: str, commands: int, now: float) -> float:
        """Count these commands too; the seconds that the last one has to wait, 1 ms for each above 100."""
        count, since = self._counts.get(subject, (0, now))
        halvings = int((now - since) // _HALVED_EVERY)
        count = (count >> halvings) + commands
        self._counts[subject] = count, since + halvings * _HALVED_EVERY
        return max(0, count - _FREE) / 1000
