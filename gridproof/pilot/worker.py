"""A worker process: the engine's loop, with replicas found through the Grid by the job's own token."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import xrootd
from .resolver import GridResolver

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
    resolve = GridResolver(spec.get("environment", os.environ), site)
    runtime.load_threaded().gridproof.ReportCrashes()
    _enter_store(spec)
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
                ends=spec.get("ends", 0.0) or math.inf,
            )
        )


def _enter_store(spec: Mapping[str, Any]) -> None:
    """Let this process find the session's store, and the key to it."""
    if not spec.get("store"):
        return
    keytab = Path(spec["work_dir"]) / "store.keytab"
    xrootd.write_secret(keytab, spec["store_key"])
    os.environ.update(GRIDPROOF_STORE=spec["store"], XrdSecSSSKT=str(keytab))
