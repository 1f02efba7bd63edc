"""How fast workers are, each and together, at home and far away (pure)."""

from __future__ import annotations

import math

from .places import Meter, Site, Worker

REMOTE = 0.5  # rate far away over rate at home, as long as no worker has measured both
LINK_MEMORY = 0.3  # weight of the newest measurement of such a ratio
TIME_MARGIN = 3.0  # a worker must have so many times as long left as a packet should take,
UNKNOWN_SECONDS = 10.0  # or so long where nobody knows


class Rates:
    """Sums of the workers' rates, kept up to date with every measurement.

    Workers that have not run anything yet count as average ones.
    """

    def __init__(self) -> None:
        self.workers = 0
        self._rated = 0
        self._sum = 0.0
        self._remote = REMOTE

    @property
    def mean(self) -> float:
        """Of a worker, in entries per second; 0 while no rate is known."""
        return self._sum / self._rated if self._rated else 0.0

    @property
    def total(self) -> float:
        """Of all workers, in entries per second."""
        return self._sum * self.workers / self._rated if self._rated else 0.0

    def join(self, worker: Worker) -> None:
        """Count a worker."""
        self.workers += 1
        worker.site.workers += 1

    def leave(self, worker: Worker) -> None:
        """Count it no more."""
        self.workers -= 1
        worker.site.workers -= 1
        if worker.pace:
            self._rated -= 1
            self._sum = self._sum - worker.pace if self._rated else 0.0
            worker.site.rated -= 1
            worker.site.rate = worker.site.rate - worker.local if worker.site.rated else 0.0

    def measured(self, worker: Worker, entries: int, seconds: float, source: str) -> None:
        """A worker has run ``entries`` in ``seconds``, read at the site ``source`` ("": at none)."""
        if entries <= 0 or seconds <= 0:
            return
        meter = worker.meters.get(source)
        if meter is None:
            meter = worker.meters[source] = Meter()
        meter.add(entries, seconds)
        site, rate, local = worker.site, meter.rate, meter.rate
        if source and source != site.name:
            local = worker.local
            if site.name in worker.meters or "" in worker.meters:
                self._link(site, source, rate / local)
            else:
                local = rate / site.links.get(source, self._remote)
        if not worker.pace:
            self._rated += 1
            site.rated += 1
        self._sum += rate - worker.pace
        site.rate += local - worker.local
        worker.pace = rate
        worker.local = local

    def of(self, worker: Worker, source: Site) -> float:
        """What a worker will do reading from a site, in entries per second; 0: nobody knows anything."""
        meter = worker.meters.get(source.name)
        if meter is not None:
            return meter.rate
        local = worker.local or self.mean
        if source is worker.site or not source.name:
            return local
        return local * worker.site.links.get(source.name, self._remote)

    def fits(self, worker: Worker, source: Site, entries: int) -> bool:
        """Whether a worker can be expected to run so many entries before its end."""
        if worker.left == math.inf:
            return True
        rate = self.of(worker, source)
        return TIME_MARGIN * entries <= rate * worker.left if rate else worker.left >= UNKNOWN_SECONDS

    def of_site(self, site: Site) -> float:
        """What a site's own workers do together."""
        return site.rate + (site.workers - site.rated) * self.mean

    def _link(self, site: Site, source: str, ratio: float) -> None:
        before = site.links.get(source, self._remote)
        site.links[source] = before + LINK_MEMORY * (ratio - before)
        self._remote += LINK_MEMORY * (ratio - self._remote)
