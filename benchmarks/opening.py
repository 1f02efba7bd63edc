"""Seconds from the call of `gridproof.open` to a session that is ready, on registered pilots and without.

An embedded Grid with a ProxyServer of its own stands beside, as `gridproof grid start` makes it. The first
session finds no pilot (cold: pilots are submitted, matched, import ROOT and register); each later one finds
those of the one before. Every session is closed before the next one opens; in the end two are open, which
share the workers, and what one frees when it closes is the other one's.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import harness

import gridproof
from gridproof.config import load
from gridproof.localgrid.grid import start_standing, stop_standing
from gridproof.localgrid.settings import Settings

SITES = 2
WARM = 5  # openings on registered pilots for one without
PATIENCE = 300.0  # s
SHARING = 10.0  # s that a session waits for its share of workers that another one has


@contextmanager
def standing(slots: int) -> Iterator[None]:
    """A Grid with so many slots and no pilot, that this process finds."""
    with tempfile.TemporaryDirectory(prefix="gridproof-bench-") as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        per_site = -(-slots // SITES)
        cache = str(load().cache)
        start_standing(Settings(sites=SITES, slots=per_site, cache=cache))
        try:
            yield
        finally:
            stop_standing()


def opening(workers: int) -> float:
    """Seconds until a session is ready; it is closed again."""
    seconds, session = harness.timed(lambda: gridproof.open("local", workers=workers, timeout=PATIENCE))
    if len(session.workers) != workers:
        raise SystemExit(f"{len(session.workers)} workers instead of {workers}")
    session.close()
    return float(seconds)


def handover(workers: int) -> float:
    """Seconds from the call of one session's `close` until another one has all workers, ready."""
    first = gridproof.open("local", workers=workers, timeout=PATIENCE)
    with gridproof.open("local", workers=workers, min_workers=1, timeout=SHARING) as second:
        closing = threading.Thread(target=first.close)
        began = time.perf_counter()
        closing.start()
        ready = second._link.send("workers", at_least=workers, wait=PATIENCE)
        seconds = time.perf_counter() - began
        closing.join()
        if len(ready) != workers:
            raise SystemExit(f"{len(ready)} workers instead of {workers}")
    return seconds


def main() -> None:
    """Measure and report."""
    scale = harness.scale(3)
    workers = scale(16, 2)
    cold, warm, gain, freed = [], [], [], []
    for _ in range(scale.pairs):
        with standing(workers):
            first = opening(workers)
            later = [opening(workers) for _ in range(scale(WARM, 2))]
            freed.append(handover(workers))
        cold.append(first)
        warm += later
        gain += [first / seconds for seconds in later]
        harness.say(
            f"  cold {first:.2f} s  warm {'  '.join(f'{seconds:.2f} s' for seconds in later)}"
            f"  handed over in {freed[-1]:.2f} s"
        )
    seconds = {"warm, s": warm, "cold, s": cold, "cold over warm": gain, "handed over, s": freed}
    figures = {name: harness.spread(values) for name, values in seconds.items()}
    value = {name: figure["median"] for name, figure in figures.items()}
    met = value["warm, s"] <= 5.0 and value["cold over warm"] >= 2.0
    claim = (
        f"{workers} workers on registered pilots are ready within 5 s, and in half of a cold opening's time"
    )
    harness.report("opening", claim, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
