"""What has not been touched for how long (pure: no clock)."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")


class Aging(Generic[K]):
    """Keys in the order in which they were touched last, so that the old ones are found without a search."""

    def __init__(self) -> None:
        self._touched: dict[K, float] = {}

    def touch(self, key: K, now: float) -> None:
        """It is as young as can be; ``now`` never goes back."""
        self._touched.pop(key, None)
        self._touched[key] = now

    def drop(self, key: K) -> None:
        """It is of no interest any more."""
        self._touched.pop(key, None)

    def older(self, than: float, now: float) -> list[tuple[K, float]]:
        """Those that were touched more than so many seconds ago, the oldest first, with their ages."""
        found = []
        for key, touched in self._touched.items():
            if now - touched <= than:
                break
            found.append((key, now - touched))
        return found
