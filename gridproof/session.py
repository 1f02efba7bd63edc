"""What a user holds: workers near the data, datasets, and selectors run on them."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _root, config, grids, progress
from .dataset import Dataset, resolve
from .errors import (
    ConfigError,
    NotEnoughWorkers,
    ProxyError,
    SelectorCrashed,
    SessionError,
    VersionMismatch,
)
from .loopthread import LoopThread
from .workers import WorkerRecord, Workers

if TYPE_CHECKING:
    from .alien import Alien
    from .engine.result import Result
    from .localgrid import LocalGrid

WORKERLESS_SECONDS = 30.0  # a query without a worker so long asks whether any can still come
LONGEST_WORKERLESS = 180.0  # and waits no longer than this
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
    with ExitStack() as stack:
        session = Session(grid, config.load(), stack)
        session._open(workers, min_workers or workers, timeout, dataset, tree)
        session._stack = stack.pop_all()
    return session


class Session:
    """An open session (see `open`); a context manager that ends everything it started."""

    def __init__(self, grid: str | LocalGrid, settings: config.Config, stack: ExitStack) -> None:
        self._stack = stack
        self._grid = grid
        self._settings = settings
        self.engine = "dask"
        self.name = ""
        self._lost = ""
        self._one_at_a_time = threading.Lock()  # ROOT and the selector's code live in this process once

    # ------------------------------------------------------------ life

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session: workers, pilots, and the Grid if it was started for this session."""
        self._lost = self._lost or "the session is closed"
        self._stack.close()

    def __repr__(self) -> str:
        if self._lost:
            return f"<Session {self.name}: {self._lost}>"
        return f"<Session {self.name} with {len(self.workers)} workers, engine {self.engine}>"

    @property
    def workers(self) -> Workers:
        """The workers there are, as records; printed, a table."""
        self._check()
        return self._workers()

    # ------------------------------------------------------------ work

    def load(self, what: str) -> None:
        """Make ``"macro.C"``, ``"macro.C+"``, ``"lib.so"`` or ``"header.h"`` known here and on all workers.

        Raises:
            CompileError: with the compiler's message.
            ConfigError: there is no such file.
        """
        self._check()
        self._queries.load(what)

    def dataset(self, source: str | Sequence[str], tree: str) -> Dataset:
        """A dataset from an LFN pattern, LFNs, ``root://`` URLs or local paths.

        Raises:
            DatasetError: a file is missing, or a pattern matches nothing.
        """
        self._check()
        return resolve(source, tree, self._alien)

    def process(
        self,
        dataset: Dataset,
        selector: str,
        option: str = "",
        *,
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        on_missing: str = "fail",
        progress: bool | None = None,
    ) -> Result:
        """Run a C++ TSelector (``"Selector.C+"``) over a dataset; its outputs come back merged.

        Args:
            dataset: from `dataset`; its friends come along.
            selector: source file as in ``TChain::Process`` (``+``, ``++``, ``+g``, ``+O``), or the name of a
                class that `load` has made known. ``Begin`` and ``Terminate`` run in this process.
            option: the selector's ``GetOption()``.
            inputs: objects for ``fInput``: TObjects, or names with numbers, strings or TObjects.
            on_missing: ``"fail"``, or ``"skip"`` to go on without files that no replica gives.
            progress: draw a progress bar; None: if standard error is a terminal.

        Raises:
            CompileError, SelectorError: the selector does not compile, threw, aborted or crashed.
            MissingFiles: a file cannot be read anywhere, or has no such tree.
            QueryError: anything else that ends a query; the session stays usable.
            SessionError: the session's master is gone.
        """
        self._check()
        if not isinstance(dataset, Dataset):
            raise ConfigError(f"process takes a dataset: session.dataset({dataset!r}, tree=…)")
        parts = [self._part(dataset, ""), *self._friends(dataset)]
        with _bar(progress) as draw:
            workerless_since = 0.0

            def watch(status: Mapping[str, Any]) -> None:
                nonlocal workerless_since
                draw(status)
                self._check()
                if status["workers"]:
                    workerless_since = 0.0
                elif not workerless_since:
                    workerless_since = time.monotonic()
                elif time.monotonic() - workerless_since > WORKERLESS_SECONDS:
                    self._look_for_workers(time.monotonic() - workerless_since)

            try:
                with self._one_at_a_time:
                    return self._queries.process(parts, selector, option, inputs, on_missing, watch)
            except SelectorCrashed as error:
                raise SelectorCrashed(f"{error}{self._last_words()}") from None

    # ------------------------------------------------------------ opening

    def _open(
        self,
        workers: int,
        min_workers: int,
        timeout: float | None,
        dataset: str | Sequence[str] | None,
        tree: str | None,
    ) -> None:
        from .alien import Alien
        from .engine.client import Queries
        from .proxy.versions import here

        began = time.monotonic()
        self._loop = LoopThread("gridproof session")
        self._stack.callback(self._loop.close)
        place = grids.enter(self._grid, workers, self._settings, self._stack, self._loop)
        self._settings = place.config
        self._alien = Alien.connect(place.environ)
        self._stack.callback(self._alien.close)
        known = resolve(dataset, tree, self._alien) if dataset is not None and tree is not None else None
        requests, capacity = _plan(self._alien, workers, known, place.config.pilots.cores)
        if capacity < min_workers:
            raise NotEnoughWorkers(
                f"{min_workers} workers were asked for, but the Grid's sites run {capacity} at most"
            )
        self._connect(place)
        opening = self._loop.start(self._proxy.open_session(here(), workers, session=self.name))
        self._stack.callback(self._end_session)
        self._start_pilots(place, requests, known)
        self._meet_master(opening.result(), place)
        self._queries = Queries(
            self._send, place.config.cache, lambda path, lfn: self._alien.upload(path, lfn)
        )
        self._wait(workers, min_workers, began + (place.timeout if timeout is None else timeout))

    def _connect(self, place: grids.Place) -> None:
        from .proxy.client import ProxyClient, SessionLost, new_session_name

        async def on_event(event: Any) -> None:
            if isinstance(event, SessionLost):
                self._lost = f"the session's master is gone ({event.reason}); open a new session"
                self._master_gone.set()

        async def make_event() -> asyncio.Event:
            return asyncio.Event()

        self._master_gone = self._loop.run(make_event())
        where = place.proxy
        self._proxy = self._loop.run(
            ProxyClient.connect(
                where.host, where.port, where.host_key, where.user, where.key, on_event=on_event
            )
        )
        self._stack.callback(lambda: self._loop.run(self._proxy.close()))
        self.name = new_session_name()

    def _meet_master(self, opened: Any, place: grids.Place) -> None:
        from .engine.dask import MasterClient, Tls

        async def connect() -> MasterClient:
            address = opened.address
            if place.proxy.host != "127.0.0.1":  # the master listens on the VO-box's own loopback
                port = int(address.rpartition(":")[2])
                tunnel = await self._proxy.conn.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
                address = f"tls://127.0.0.1:{tunnel.get_port()}"
            return MasterClient(address, Tls(opened.ca, opened.cert, opened.key))

        self._master = self._loop.run(connect())
        self._stack.callback(lambda: self._loop.run(self._master.close()))

    def _start_pilots(self, place: grids.Place, requests: Sequence[Any], known: Dataset | None) -> None:
        from .pilotjobs import PilotJobs

        pilots = place.config.pilots
        submission = self._loop.run(self._proxy.new_submission(self.name))
        join = {
            "host": place.proxy.host,
            "port": place.proxy.port,
            "host_key": place.proxy.host_key,
            "submission": submission.submission,
            "join_key": submission.join_key,
            "orphan_limit": pilots.orphan_limit,
            "cores": pilots.cores,
            "ttl": float(pilots.ttl),
            "cache_dir": str(place.config.cache) if self._grid != "alien" else "",
            "worker_memory": pilots.worker_bytes,
        }
        self._pilots = PilotJobs(self._alien, pilots, f"gridproof-{self.name}")
        self._stack.callback(self._pilots.end)
        self._pilots.submit(requests, join, [f.name for f in known.files if f.kind == "lfn"] if known else [])

    def _wait(self, workers: int, min_workers: int, deadline: float) -> None:
        with progress.opening(progress.wanted(None), workers) as show:
            while True:
                ready = len(self._send("workers", at_least=workers, wait=0.5))
                show(ready)
                if ready >= workers:
                    return
                self._check()
                self._refused(ready)
                if time.monotonic() >= deadline:
                    break
                self._pilots.poll()
        if ready < min_workers:
            raise NotEnoughWorkers(
                f"{ready} of {workers} workers have registered in time, at least {min_workers} are needed",
                self._pilots.describe(self._registered),
            )

    def _refused(self, ready: int) -> None:
        refused = [p for p in self._status().pilots.values() if p.state == "refused"]
        if refused and not ready:
            raise VersionMismatch(f"pilot {refused[0].job_id} at {refused[0].site}: {refused[0].reason}")

    def _registered(self, job: Any) -> str:
        states = [p for p in self._status().pilots.values() if p.job_id == str(job.id)]
        return f", {states[-1].state} at the ProxyServer {states[-1].reason}".rstrip() if states else ""

    # ------------------------------------------------------------ inside

    def _send(self, message: str, **arguments: Any) -> Any:
        """Ask the master; the end of the master or of the ProxyServer ends the waiting."""

        async def ask() -> Any:
            answer = asyncio.ensure_future(self._master.send(message, **arguments))
            gone = asyncio.ensure_future(self._master_gone.wait())
            waiting: set[asyncio.Future[Any]] = {answer, gone, self._proxy.closed}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    self._check()
                return await answer
            finally:
                gone.cancel()
                answer.cancel()

        return self._loop.run(ask())

    def _status(self) -> Any:
        return self._loop.run(self._proxy.status(self.name))

    def _workers(self) -> Workers:
        ready = {w["name"] for w in self._send("workers", at_least=0, wait=0)}
        records = Workers()
        for worker in self._status().workers.values():
            if worker.state != "ended":
                state = "ready" if worker.name in ready else "starting"
                records.append(WorkerRecord(worker.name, worker.site, worker.host, worker.pid, state))
        return records

    def _look_for_workers(self, seconds: float) -> None:
        """There has been no worker for so long: give up unless one can be on its way."""
        status = self._status()
        coming = any(w.state != "ended" for w in status.workers.values())
        registered = {p.job_id for p in status.pilots.values()}
        if self._pilots.alive():
            coming = coming or any(str(j.id) not in registered for j in self._pilots.pilots if not j.is_final)
        if coming and seconds < LONGEST_WORKERLESS:
            return
        self._lost = "no worker is left and no pilot brings one"
        raise SessionError("\n  ".join([f"{self._lost}{self._last_words()}", *self._pilots.describe()]))

    def _last_words(self) -> str:
        """Of the worker that died last: how, and the end of its log."""
        from .engine.crash import readable

        ended = [w for w in self._status().workers.values() if w.state == "ended"]
        return f"\nworker {ended[-1].name} ended by {readable(ended[-1].reason)}" if ended else ""

    def _end_session(self) -> None:
        with suppress(ProxyError):  # it is gone already, or the ProxyServer is
            self._loop.run(self._proxy.close_session(self.name), 30)

    def _check(self) -> None:
        if not self._lost and self._proxy.closed.done():
            self._lost = f"{self._proxy.closed.result()}; open a new session"
        if self._lost:
            raise SessionError(self._lost)

    def _friends(self, dataset: Dataset) -> list[dict[str, Any]]:
        """The friends and theirs."""
        parts = []
        for friend in dataset.friends:
            parts += [self._part(friend.dataset, friend.alias), *self._friends(friend.dataset)]
        return parts

    def _part(self, dataset: Dataset, alias: str) -> dict[str, Any]:
        from .alien import site_of

        files = [
            {
                "name": file.name,
                "kind": file.kind,
                "size": file.size,
                "replicas": [(se.upper(), site_of(se)) for se in file.ses],
            }
            for file in dataset.files
        ]
        return {"tree": dataset.tree, "alias": alias, "files": files}


def _bar(show: bool | None) -> Any:
    return progress.query_bar(progress.wanted(show))


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
