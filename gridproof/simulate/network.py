"""Reads over links that they share: each is slowed by the fullest link on its way.

A read wants as much as its worker can process. Where more is wanted of a link than it carries, all reads
on it are slowed by the same factor. Factors are worked out anew only when they are off by more than
`TOLERANCE`, and never to the side of more than the link carries.
"""

from __future__ import annotations

from .clock import Clock, Signal

TOLERANCE = 0.02
NEVER = float("inf")


class Link:
    """Something that carries at most ``capacity`` bytes per second; ``up`` is False while it is cut."""

    __slots__ = ("capacity", "carried", "factor", "reads", "up", "wanted")

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.carried = 0.0  # bytes, by reads that have ended
        self.factor = 1.0
        self.wanted = 0.0  # bytes per second
        self.up = True
        self.reads: dict[Read, None] = {}  # in their order, so that a simulation can be repeated

    def refit(self) -> None:
        """Choose a factor for what is wanted now."""
        exact = 0.0
        if self.up:
            exact = 1.0 if self.wanted <= self.capacity else self.capacity / self.wanted
        if self.factor <= exact <= self.factor * (1 + 2 * TOLERANCE) and (exact < 1.0 or self.factor == 1.0):
            return
        self.factor = exact if exact in (0.0, 1.0) else exact * (1 - TOLERANCE)
        for read in self.reads:
            read.fit()

    def cut(self) -> None:
        """Nothing gets through until it is mended."""
        self.up = False
        self.refit()

    def mend(self) -> None:
        """It carries again."""
        self.up = True
        self.refit()


class Read:
    """Entries that a worker reads and processes: ``entries`` at ``rate`` per second when nothing slows it.

    ``news`` happens with ``"done"``, ``"late"`` (``patience`` seconds are over) or ``"stuck"`` (nothing
    has come for the time-out of reads). After the latter two it may be waited for again or `stop` ped.
    """

    __slots__ = (
        "_clock",
        "_links",
        "_plan",
        "_speed",
        "_timeout",
        "_watched",
        "_worked",
        "bytes_per_entry",
        "entries",
        "hung",
        "left",
        "news",
        "patience",
        "rate",
        "started",
    )

    def __init__(
        self,
        clock: Clock,
        links: tuple[Link, ...],
        entries: int,
        rate: float,
        bytes_per_entry: float,
        patience: float = NEVER,
        timeout: float = NEVER,
        hung: bool = False,
    ) -> None:
        self._clock = clock
        self._links = links
        self._timeout = timeout
        self._plan = 0  # grows with each change of speed, so that what was planned before is void
        self._watched = False
        self.entries = entries
        self.left = float(entries)
        self.rate = rate
        self.bytes_per_entry = bytes_per_entry
        self.patience = patience
        self.hung = hung
        self.news = Signal()
        self.started = self._worked = clock.now
        self._speed = -1.0
        wanted = rate * bytes_per_entry
        for link in links:
            link.wanted += wanted
            link.reads[self] = None
            link.refit()
        self.fit()

    def fit(self) -> None:
        """Take the speed that the links give now."""
        speed = 0.0 if self.hung else self.rate
        if speed:
            for link in self._links:
                speed = min(speed, self.rate * link.factor)
        if speed == self._speed:
            return
        now = self._clock.now
        if self._speed > 0:
            self.left = max(0.0, self.left - (now - self._worked) * self._speed)
        self._worked, self._speed = now, speed
        self._plan += 1
        if speed > 0:
            end = now + self.left / speed
            self._clock.at(end, self._done, self._plan)
        else:
            end = NEVER
            if self._timeout < NEVER:
                self._clock.at(now + self._timeout, self._stuck, self._plan)
        if end > self.started + self.patience and not self._watched:
            self._watched = True
            self._clock.at(max(now, self.started + self.patience), self._late)

    @property
    def stands(self) -> bool:
        """Nothing comes at present."""
        return self._speed == 0

    def wait_again(self, seconds: float) -> Signal:
        """Go on with a late one for so long; the news to wait for."""
        self.news = Signal()
        self._clock.at(self._clock.now + seconds, self._late)
        return self.news

    def stop(self) -> None:
        """Leave the links; what was read until now has been carried."""
        if self._plan < 0:
            return
        if self._speed > 0:
            self.left = max(0.0, self.left - (self._clock.now - self._worked) * self._speed)
        self._plan = -1
        wanted = self.rate * self.bytes_per_entry
        carried = (self.entries - self.left) * self.bytes_per_entry
        for link in self._links:
            link.carried += carried
            del link.reads[self]
            link.wanted = link.wanted - wanted if link.reads else 0.0
            link.refit()

    def _done(self, plan: int) -> None:
        if plan == self._plan:
            self.left = 0.0
            self._speed = 0.0
            self.stop()
            self.news.happen("done")

    def _late(self) -> None:
        if self._plan > 0:
            self.news.happen("late")

    def _stuck(self, plan: int) -> None:
        if plan == self._plan:
            self.news.happen("stuck")
