"""The jobs that wait for a slot, grouped by what they ask for, as JAliEn's broker keeps them. Pure."""

from __future__ import annotations

import heapq

from gridproof.localgrid.jobs.requirements import Requirements
from gridproof.localgrid.sites import Slot


class Waiting:
    """Ids of jobs with what they ask for: those that ask for the same are looked at once, however many."""

    def __init__(self) -> None:
        self._ready: dict[int, Requirements] = {}
        self._resting: dict[int, tuple[float, Requirements]] = {}
        # Heaps: what is no longer true leaves them when it comes to the top.
        self._groups: dict[Requirements, list[int]] = {}
        self._dues: list[tuple[float, int]] = []

    def add(self, job_id: int, needs: Requirements, not_before: float = 0.0) -> None:
        """A job waits, from ``not_before`` on."""
        self.discard(job_id)
        if not_before:
            self._resting[job_id] = not_before, needs
            heapq.heappush(self._dues, (not_before, job_id))
        else:
            self._ready[job_id] = needs
            heapq.heappush(self._groups.setdefault(needs, []), job_id)

    def discard(self, job_id: int) -> None:
        """A job does not wait, or no longer."""
        self._ready.pop(job_id, None)
        self._resting.pop(job_id, None)

    def first(self, slot: Slot, now: float) -> int | None:
        """The job that this slot shall run: highest priority, then highest price, then oldest."""
        while (due := self.next_due()) is not None and due <= now:
            _, job_id = heapq.heappop(self._dues)
            self.add(job_id, self._resting[job_id][1])
        best: tuple[float, float, int] | None = None
        for needs in list(self._groups):
            oldest = self._oldest(needs)
            if oldest is None or not needs.allow(slot):
                continue
            rank = (-needs.priority, -needs.price, oldest)
            best = rank if best is None else min(best, rank)
        return best[2] if best else None

    def next_due(self) -> float | None:
        """When the next job that rests may be matched."""
        while self._dues:
            due, job_id = self._dues[0]
            if self._resting.get(job_id, (None,))[0] == due:
                return due
            heapq.heappop(self._dues)
        return None

    def _oldest(self, needs: Requirements) -> int | None:
        group = self._groups[needs]
        while group:
            if self._ready.get(group[0]) == needs:
                return group[0]
            heapq.heappop(group)
        del self._groups[needs]
        return None
