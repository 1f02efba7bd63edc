"""Which query a worker should work at when there are several (pure: times come in as arguments)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

TURN_SECONDS = 5.0  # how long a worker stays where another query is as badly off


class Sharing:
    """Spreads workers evenly over queries, and moves them seldom: a move costs a commit."""

    def __init__(self) -> None:
        self._place: dict[str, tuple[int, float]] = {}  # worker → its query, and since when
        self._workers: Counter[int] = Counter()  # by query

    def order(self, worker: str, queries: Iterable[int], now: float) -> list[int]:
        """The queries in the order in which the worker should be given packets of theirs.

        First those with the fewest other workers; among equals its own, until its turn there is over, and
        then the older ones.
        """
        own, since = self._place.get(worker, (0, now))
        stays = now - since < TURN_SECONDS

        def rank(query: int) -> tuple[int, int, int]:
            if query == own:
                return self._workers[query] - 1, 0 if stays else 2, query
            return self._workers[query], 1, query

        return sorted(queries, key=rank)

    def works(self, worker: str, query: int, now: float) -> None:
        """A worker has got packets of a query."""
        if self._place.get(worker, (0, now))[0] != query:
            self.rests(worker)
            self._place[worker] = query, now
            self._workers[query] += 1

    def rests(self, worker: str) -> None:
        """A worker has nothing to do, or is gone."""
        query, _ = self._place.pop(worker, (0, 0.0))
        if query:
            self._workers[query] -= 1
            if not self._workers[query]:
                del self._workers[query]
