"""A worker process: the engine's loop, with replicas found through the Grid by the job's own token."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.replicas import Replica
from ..errors import AlienError

if TYPE_CHECKING:
    from ..alien import Alien

_XROOTD_TIMEOUTS = {
    "XRD_CONNECTIONWINDOW": "3",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_STREAMERRORWINDOW": "3",
    "XRD_STREAMTIMEOUT": "20",
    "XRD_REQUESTTIMEOUT": "20",
    "XRD_TIMEOUTRESOLUTION": "1",
}
"""XRootD's own time-outs hang for minutes where another replica would do."""


def preload() -> None:
    """Import what every worker needs, so that workers start by a mere fork."""
    os.environ.update(_XROOTD_TIMEOUTS)
    from ..engine import dask, warmup

    dask.configure()
    warmup.warm_up()


def main(spec: Mapping[str, Any]) -> int:
    """Be the worker that ``spec`` describes, until its session ends; returns the exit code."""
    from ..engine import dask, runtime
    from ..engine.memory import MemoryGuard
    from ..engine.outputs import OutputDirectory
    from ..engine.runner import Runner
    from ..engine.watch import Pace

    memory = MemoryGuard(spec.get("memory_limit", 0))
    memory.enforce()
    cache, site = Path(spec["cache_dir"]), spec["site"]
    resolve = GridResolver(spec.get("environment", os.environ))
    runtime.load_threaded().gridproof.ReportCrashes()
    with closing(OutputDirectory(Path(spec["work_dir"]))) as outputs:
        return asyncio.run(
            dask.run_worker(
                scheduler=spec["scheduler"],
                tls=dask.tls_of(spec),
                name=spec["name"],
                site=site,
                host=spec["host"],
                contact=spec.get("contact"),
                port=spec.get("listen_port", 0),
                directory=Path(spec["work_dir"]),
                make_runner=lambda: Runner(cache, resolve, site, outputs),
                memory=memory,
                pace=Pace(),
            )
        )


class GridResolver:
    """Finds a file's replicas: as given for URLs and paths, by the Grid's catalogue for LFNs."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._alien: Alien | None = None
        self._known: dict[str, Sequence[Replica]] = {}

    def __call__(self, file: Mapping[str, Any]) -> Sequence[Replica]:
        """Replicas, nearest first.

        Raises:
            AlienError: the catalogue does not answer or refuses.
        """
        name = str(file["name"])
        if file["kind"] != "lfn":
            return [Replica(name, *(file["replicas"][0] if file["replicas"] else ()))]
        if name not in self._known:
            self._known[name] = self._ask(name)
        return self._known[name]

    def _ask(self, lfn: str) -> Sequence[Replica]:
        from ..alien import Alien, site_of

        if self._alien is None:
            self._alien = Alien.connect(self._environ)
        accesses = self._alien.access_read(lfn)
        if not accesses:
            raise AlienError(f"{lfn} has no replica that can be read")
        return [Replica(access.signed_url, access.se.upper(), site_of(access.se)) for access in accesses]
