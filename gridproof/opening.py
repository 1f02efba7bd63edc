"""How a session comes to be: pilots go out to the data, workers register."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from . import _root, config, grids, progress
from .dataset import Dataset, resolve
from .errors import ConfigError, NotEnoughWorkers, SessionError, VersionMismatch
from .link import Link
from .loopthread import LoopThread
from .session import Session

if TYPE_CHECKING:
    from .alien import Alien
    from .localgrid import LocalGrid
    from .pilotjobs import PilotJobs

ENGINES = ("auto", "dask", "proof")


def open(
    grid: str | LocalGrid = "local",
    *,
    workers: int,
    min_workers: int | None = None,
    timeout: float | None = None,
    dataset: str | Sequence[str] | None = None,
    tree: str | None = None,
    engine: str = "auto",
) -> Session:
    """Open a session: pilots go out to the sites that hold ``dataset``, and workers register.

    Args:
        grid: ``"local"``, ``"alien"``, or a `LocalGrid`. ``"local"`` is the embedded Grid that runs already
            (this process's own first, then that of ``gridproof grid start``), else one for this session.
        workers: as many worker processes; the session is ready when all of them have registered.
        min_workers: at ``timeout`` so many are enough (None: all).
        timeout: seconds; None means 60 on an embedded Grid and 600 on a real one.
        dataset: what will be processed, to send pilots where its bytes are (see `Session.dataset`).
        tree: the tree's name in the files of ``dataset``.
        engine: ``"dask"``, ``"proof"`` (where ROOT has TProof) or ``"auto"``.

    Raises:
        NotEnoughWorkers: too few workers in time, or the Grid has not so many slots at all.
        VersionMismatch: pilots run other versions than this process.
        ConfigError, DatasetError, AlienError, LocalGridError, ProxyError: what their names say.
    """
    from .proxy.client import new_session_name
    from .proxy.versions import here

    if workers < 1 or (min_workers is not None and not 1 <= min_workers <= workers):
        raise ConfigError(f"workers={workers}, min_workers={min_workers}: 1 ≤ min_workers ≤ workers")
    if engine not in ENGINES:
        raise ConfigError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
    if dataset is not None and tree is None:
        raise ConfigError("with a dataset, say which tree: open(…, dataset=…, tree=…)")
    if engine == "proof":
        raise SessionError(
            f"ROOT {_root.version()} has no TProof to open a session with; "
            'use engine="dask", which does the same work'
        )
    enough = min_workers or workers
    with ExitStack() as stack:
        began = time.monotonic()
        loop = LoopThread("gridproof session")
        stack.callback(loop.close)
        place = grids.enter(grid, workers, config.load(), stack, loop)
        link = Link(new_session_name(), place, loop, stack)
        known = resolve(dataset, tree, link.alien) if dataset is not None and tree is not None else None
        requests, capacity = _plan(link.alien, workers, known, place.config.pilots.cores)
        if capacity < enough:
            raise NotEnoughWorkers(
                f"{enough} workers were asked for, but the Grid's sites run {capacity} at most"
            )
        starting = loop.start(link.proxy.open_session(here(), workers, session=link.name))
        stack.callback(link.end_session)
        pilots = _pilots(link, stack)
        pilots.submit(
            requests, _join(link), [f.name for f in known.files if f.kind == "lfn"] if known else []
        )
        link.meet_master(starting.result())
        session = Session(link, pilots)
        deadline = began + (place.timeout if timeout is None else timeout)
        _wait(link, pilots, workers, enough, deadline)
        session._stack = stack.pop_all()
    return session


def _pilots(link: Link, stack: ExitStack) -> PilotJobs:
    from .pilotjobs import PilotJobs

    pilots = PilotJobs(link.alien, link.place.config.pilots, f"gridproof-{link.name}")
    stack.callback(pilots.end)
    return pilots


def _join(link: Link) -> dict[str, Any]:
    """What a pilot needs to join the session."""
    place, pilots = link.place, link.place.config.pilots
    submission = link.loop.run(link.proxy.new_submission(link.name))
    return {
        "host": place.proxy.host,
        "port": place.proxy.port,
        "host_key": place.proxy.host_key,
        "submission": submission.submission,
        "join_key": submission.join_key,
        "orphan_limit": pilots.orphan_limit,
        "cores": pilots.cores,
        "ttl": float(pilots.ttl),
        "cache_dir": str(place.config.cache) if place.embedded else "",
        "worker_memory": pilots.worker_bytes,
    }


def _wait(link: Link, pilots: PilotJobs, workers: int, enough: int, deadline: float) -> None:
    with progress.opening(progress.wanted(None), workers) as show:
        while True:
            ready = len(link.send("workers", at_least=workers, wait=0.5))
            show(ready)
            if ready >= workers:
                return
            if not ready:
                _check_versions(link)
            if time.monotonic() >= deadline:
                break
            pilots.poll()
    if ready < enough:
        raise NotEnoughWorkers(
            f"{ready} of {workers} workers have registered in time, at least {enough} are needed",
            pilots.describe(_at_the_proxy(link)),
        )


def _check_versions(link: Link) -> None:
    refused = [p for p in link.status().pilots.values() if p.state == "refused"]
    if refused:
        raise VersionMismatch(f"pilot {refused[0].job_id} at {refused[0].site}: {refused[0].reason}")


def _at_the_proxy(link: Link) -> Callable[[Any], str]:
    pilots = list(link.status().pilots.values())

    def describe(job: Any) -> str:
        states = [p for p in pilots if p.job_id == str(job.id)]
        return f", {states[-1].state} at the ProxyServer {states[-1].reason}".rstrip() if states else ""

    return describe


def _plan(alien: Alien, workers: int, dataset: Dataset | None, cores: int) -> tuple[Sequence[Any], int]:
    """Pilots for each set of SEs, and how many workers the Grid's sites can run at all."""
    from .alien import PilotRequest, plan_pilots, site_of

    capacity: dict[str, int] = {}
    for ce in alien.list_ces():
        if ce.status == "open":
            capacity[ce.site] = capacity.get(ce.site, 0) + ce.max_running
    files = [(file.size, file.ses) for file in dataset.files] if dataset else []
    sites = {se.name: site_of(se.name) for se in alien.list_ses()}
    if not files:  # to any site: the broker knows where slots are free
        return [PilotRequest((), math.ceil(workers / cores))], sum(capacity.values()) * cores
    return plan_pilots(workers, files, sites, capacity, cores), sum(capacity.values()) * cores
