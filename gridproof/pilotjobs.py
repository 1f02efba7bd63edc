"""A session's pilots as jobs of the Grid: submit them, follow them by few calls, end them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .alien import Alien, Job, PilotRequest, pilot_jdl, pilot_requests
from .config import PilotConfig
from .errors import AlienError

POLL_SECONDS = (1.0, 30.0)  # from, up to
TRACES = 12  # failed pilots whose traces are fetched for a message


class PilotJobs:
    """The pilots of one submission; their sandbox is ``<home>/.gridproof/<tag>/`` in the catalogue."""

    def __init__(self, alien: Alien, config: PilotConfig, tag: str) -> None:
        self._alien = alien
        self._config = config
        self._tag = tag
        self._directory = f"{alien.home}.gridproof/{tag}"
        self._masters: list[int] = []
        self._jobs: Sequence[Job] = ()
        self._next_poll = 0.0
        self._interval = POLL_SECONDS[0]

    def submit(self, requests: Sequence[PilotRequest], join: Mapping[str, Any], lfns: Sequence[str]) -> None:
        """Upload the pilots' sandbox and submit one JDL per request.

        ``join`` is the pilot's configuration with its join key; it is stored readable by the owner alone.
        ``lfns``: the dataset, for the strategy that splits over it.
        """
        self._alien.mkdir(self._directory)
        with TemporaryDirectory(prefix="gridproof-") as directory:
            script, settings = Path(directory) / "pilot.sh", Path(directory) / "pilot.json"
            script.write_text(f'#!/bin/sh\nexec "{self._config.python}" -m gridproof.pilot pilot.json\n')
            settings.touch(0o600)
            settings.write_text(json.dumps(dict(join)))
            self._alien.upload(script, f"{self._directory}/pilot.sh", mode="755")
            self._alien.upload(settings, f"{self._directory}/pilot.json", mode="600")
        for request, some_lfns in pilot_requests(requests, self._config.strategy, lfns):
            jdl = pilot_jdl(
                request,
                executable=f"{self._directory}/pilot.sh",
                input_files=(f"{self._directory}/pilot.json",),
                tag=self._tag,
                strategy=self._config.strategy,
                lfns=some_lfns,
                cores=self._config.cores,
                ttl=self._config.ttl,
                memory=self._config.memory,
                price=self._config.price,
                packages=self._config.packages,
            )
            self._masters.append(self._alien.submit(jdl, self._tag))

    def adopt(self, masters: Iterable[int]) -> None:
        """Take over jobs that another process has submitted, by the ids of their masters."""
        self._masters = sorted(set(masters))

    def poll(self) -> Sequence[Job]:
        """The pilots' states, by at most one call; less and less often while nothing changes."""
        now = time.monotonic()
        if self._masters and now >= self._next_poll:
            jobs = self._alien.ps(self._masters, masters=True)
            changed = [(j.id, j.status) for j in jobs] != [(j.id, j.status) for j in self._jobs]
            self._jobs = jobs
            self._interval = POLL_SECONDS[0] if changed else min(2 * self._interval, POLL_SECONDS[1])
            self._next_poll = now + self._interval
        return self._jobs

    @property
    def pilots(self) -> list[Job]:
        """The jobs that are pilots, not split masters."""
        masters = {job.master for job in self._jobs if job.master}
        return [job for job in self._jobs if job.id not in masters and job.status != "SPLIT"]

    def alive(self) -> bool:
        """Whether a pilot runs or may yet run, by what the Grid says now."""
        self._next_poll = 0.0
        self.poll()
        return any(not job.is_final for job in self.pilots)

    def describe(self, progress: Callable[[Job], str] = lambda _: "") -> list[str]:
        """One line per pilot: job, state, site and the last line of its trace."""
        self._next_poll = 0.0
        try:
            self.poll()
        except AlienError as error:
            return [f"the pilots' states could not be asked: {error}"]
        lines = []
        for place, job in enumerate(self.pilots):
            trace = self._last_words(job) if place < TRACES else ""
            lines.append(f"pilot {job.id}: {job.status} at {job.site or 'no site yet'}{progress(job)}{trace}")
        return lines or ["no pilot is known to the Grid"]

    def end(self) -> None:
        """Kill what is left of the pilots and remove their sandbox from the catalogue."""
        try:
            if self._masters:
                self._alien.kill(self._masters)
        finally:
            self._alien.rm(self._directory, recursive=True)

    def _last_words(self, job: Job) -> str:
        try:
            trace = self._alien.trace(job.id)
        except AlienError:
            return ""
        telling = [line for line in trace if "[state" not in line] or trace
        return f": {telling[-1]}" if telling else ""
