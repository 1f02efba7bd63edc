"""How a process comes by a session: on pilots that are there or go out, or one that lives on is attached."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from . import _root, config, grids, progress
from .dataset import resolve
from .errors import (
    ConfigError,
    GridproofError,
    NotEnoughWorkers,
    ProxyError,
    SessionError,
    VersionMismatch,
)
from .link import Link
from .loopthread import LoopThread
from .records import Table
from .session import Session

if TYPE_CHECKING:
    from .localgrid import LocalGrid
    from .pilotjobs import PilotJobs
    from .planning import Planner
    from .proxy.pool.records import SessionRecord, Status

ENGINES = ("auto", "dask", "proof")


def open(
    grid: str | LocalGrid = "local",
    *,
    workers: int,
    min_workers: int | None = None,
    timeout: float | None = None,
    dataset: Any = None,
    tree: str | None = None,
    engine: str = "auto",
) -> Session:
    """Open a session on your pilots that are registered already, and on further ones that go out.

    Those that are missing go to the sites that hold ``dataset``; registered ones far from it count half.

    Args:
        grid: ``"local"``, ``"alien"``, ``"proxy://user@host"``, or a `LocalGrid`. ``"local"`` is the embedded
            Grid that runs already (this process's own first, then that of ``gridproof grid start``), else one
            for this session. ``"alien"`` is the real one with the ProxyServer of the configuration, a URL
            the real one with that ProxyServer.
        workers: as many worker processes; the session is ready when all of them have registered.
        min_workers: at ``timeout`` so many are enough (None: all).
        timeout: seconds; None means 60 on an embedded Grid and 600 on a real one.
        dataset: what will be processed, to send pilots where its bytes are (see `Session.dataset`).
        tree: the tree's name in the files of ``dataset``; None: as its ``TChain`` says.
        engine: ``"dask"``, ``"proof"`` (where ROOT has TProof) or ``"auto"``.

    Raises:
        NotEnoughWorkers: too few workers in time, no pilot is left that could bring them, or the Grid has
            not so many slots at all.
        VersionMismatch: pilots run other versions than this process.
        ConfigError, DatasetError, AlienError, LocalGridError, ProxyError: what their names say.
    """
    from .alien import site_of
    from .planning import Planner, pilots_for
    from .proxy.client import new_session_name
    from .proxy.versions import here

    if workers < 1 or (min_workers is not None and not 1 <= min_workers <= workers):
        raise ConfigError(f"workers={workers}, min_workers={min_workers}: 1 ≤ min_workers ≤ workers")
    if engine not in ENGINES:
        raise ConfigError(f"engine is one of {', '.join(ENGINES)}, not {engine!r}")
    if tree is None and isinstance(dataset, (str, Sequence)):
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
        link = Link(place, loop, stack)
        link.name = new_session_name()
        known = resolve(dataset, tree, link.alien) if dataset is not None else None
        sites = {site_of(se) for file in known.files for se in file.ses} if known else set()
        ending = stack.enter_context(ExitStack())
        versions = here()
        pilots = _pilots(link)
        starting = loop.start(link.proxy.open_session(versions, workers, session=link.name, sites=sites))
        ending.push(_telling_what_came_first(lambda: _end(link, pilots)))
        try:
            missing = workers - loop.run(link.proxy.at_hand(link.name))
        except ProxyError as error:
            reason = starting.exception()  # why there is no such session
            raise reason or error from None
        planner = None
        if missing > 0:
            planner = Planner.ask(link.alien, known, place.config.pilots)
            if planner.capacity < enough:
                raise NotEnoughWorkers(
                    f"{enough} workers were asked for, but the Grid's sites run {planner.capacity} at most"
                )
            requests = planner.requests(pilots_for(missing, place.config.pilots))
            pilots.submit(requests, _join(link, sum(request.count for request in requests)), versions)
        link.meet_master(starting.result())
        session = Session(link, pilots)
        deadline = began + (place.timeout if timeout is None else timeout)
        _wait(link, pilots, planner, workers, enough, deadline)
        session._hold(stack, ending)
    return session


def attach(name: str | None = None, grid: str = "local") -> Session:
    """Use a session again that an earlier process has opened, with its queries and their results.

    Sessions outlive their processes where a ProxyServer outlives them: on the Grid, and on the embedded
    Grid of ``gridproof grid start``. A process that ends without `Session.close` leaves its session there.

    Args:
        name: the session's; None: the only one there is.
        grid: ``"local"``, ``"alien"`` or ``"proxy://user@host"``.

    Raises:
        SessionError: there is no such session, or several and none is named.
        ConfigError, AlienError, ProxyError: what their names say.
    """
    from .proxy.versions import here

    with ExitStack() as stack:
        loop = LoopThread("gridproof session")
        stack.callback(loop.close)
        link = Link(grids.standing(grid, config.load()), loop, stack)
        record = choose(loop.run(link.proxy.sessions()), name)
        link.name = record.name
        link.meet_master(loop.run(link.proxy.attach_session(link.name, here())))
        pilots = _pilots(link)
        own = [p for p in link.status().pilots.values() if p.session == link.name]
        pilots.adopt([int(p.master_id or 0) or int(p.job_id) for p in own])
        session = Session(link, pilots, retired=record.state == "retired")
        ending = stack.enter_context(ExitStack())
        ending.push(_telling_what_came_first(lambda: _end(link, pilots)))
        session._hold(stack, ending)
    return session


def sessions(grid: str = "local") -> Table[SessionRecord]:
    """One's sessions that live on the Grid's ProxyServer, as records; printed, a table.

    Raises:
        SessionError: there is no ProxyServer that keeps sessions.
        ConfigError, ProxyError: what their names say.
    """
    from .proxy.pool.records import SessionRecord

    async def ask(where: grids.Endpoint) -> list[SessionRecord]:
        proxy = await where.connect()
        try:
            return await proxy.sessions()
        finally:
            await proxy.close()

    place = grids.standing(grid, config.load())
    with closing(LoopThread("gridproof sessions")) as loop:
        return Table(SessionRecord, loop.run(ask(place.proxy)))


def choose(records: Sequence[SessionRecord], name: str | None) -> SessionRecord:
    """The session of that name, or the only one there is. Raises SessionError if there is none."""
    chosen = [record for record in records if name in (None, record.name)]
    if len(chosen) == 1:
        return chosen[0]
    named = f"there is no session {name}" if name else f"there are {len(chosen) or 'no'} sessions"
    known = ", ".join(record.name for record in records)
    raise SessionError(
        f"{named}; attach to one of {known}" if known else f"{named} to attach to; gridproof.open() opens one"
    )


def _pilots(link: Link) -> PilotJobs:
    from .pilotjobs import PilotJobs

    return PilotJobs(link.alien, link.place.config.pilots, f"gridproof-{link.name}")


def _end(link: Link, pilots: PilotJobs) -> None:
    """End the session and its pilots that have not registered; the others stay if the ProxyServer does."""
    records = link.last_status().pilots.values() if link.place.standing else None
    try:
        link.end_session()
    finally:
        pilots.end(records)


def _telling_what_came_first(end: Callable[[], None]) -> Callable[..., None]:
    """What ends something, as an `ExitStack` takes it: an error of its own hides none that came before."""

    def leave(kind: object, error: BaseException | None, trace: object) -> None:  # noqa: ARG001
        try:
            end()
        except GridproofError as further:
            if error is None:
                raise
            warnings.warn(str(further), stacklevel=2)

    return leave


def _join(link: Link, count: int) -> dict[str, Any]:
    """What ``count`` pilots need to join the session; each may be replaced once (see `PilotWatch`)."""
    place, pilots = link.place, link.place.config.pilots
    submission = link.loop.run(link.proxy.new_submission(link.name, 2 * count, link.alien.user))
    return {
        "host": place.proxy.host,
        "port": place.proxy.port,
        "host_key": link.proxy.host_key,
        "submission": submission.submission,
        "join_key": submission.join_key,
        "orphan_limit": pilots.orphan_limit,
        "cores": pilots.cores,
        "ttl": float(pilots.ttl),
        "cache_dir": str(place.config.cache) if place.embedded else "",
        "worker_memory": pilots.worker_bytes,
    }


def _wait(
    link: Link, pilots: PilotJobs, planner: Planner | None, workers: int, enough: int, deadline: float
) -> None:
    """Until the workers have registered; fewer are enough at the deadline, or when no more can come."""
    with progress.opening(progress.wanted(None), workers) as show:
        while True:
            ready = len(link.send("workers", at_least=workers, wait=0.5))
            status = link.status()
            pilots.poll(status.pilots.values())
            show(ready, pilots.summary())
            if ready >= workers:
                return
            if not ready:
                _check_versions(status)
            late = time.monotonic() >= deadline
            if late or pilots.over:
                break
            if planner is not None:
                pilots.replace_failed(planner)
    if ready < enough:
        when = " in time" if late else ", and no pilot is left that could bring more"
        raise NotEnoughWorkers(
            f"{ready} of {workers} workers have registered{when}; {enough} are needed{_others(link)}",
            pilots.describe(status.pilots.values()),
        )


def _others(link: Link) -> str:
    """The user's other sessions, which may hold the slots that are wanted."""
    others = [f"{record.name} has {record.workers}" for record in link.other_sessions()]
    return f"; of your other sessions {', '.join(others)} (gridproof.attach(name).close())" if others else ""


def _check_versions(status: Status) -> None:
    refused = [p for p in status.pilots.values() if p.state == "refused"]
    if refused:
        raise VersionMismatch(f"pilot {refused[0].job_id} at {refused[0].site}: {refused[0].reason}")
