"""What a user holds: workers near the data, datasets, and selectors run on them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .dataset import Dataset, resolve
from .engine.client import Queries
from .errors import ConfigError, SessionError
from .link import Link
from .records import Forward, Table, WorkerRecord

if TYPE_CHECKING:
    from .engine.handle import Query
    from .engine.result import Result
    from .feedback import Show
    from .logs import Logs
    from .pilotjobs import PilotJobs
    from .store import Store

WORKERLESS_SECONDS = 30.0  # a query without a worker so long asks whether any can still come
LONGEST_WORKERLESS = 180.0  # and waits no longer than this, or than lost pilots may take to come back


class Session:
    """An open session (see `open` and `attach`); a context manager that ends it with all its workers.

    Its methods may be called from several threads. ``retired``: its workers were given back.
    """

    engine = "dask"

    def __init__(self, link: Link, pilots: PilotJobs, *, retired: bool = False) -> None:
        self.name = link.name
        self._retired = retired
        self._here = ExitStack()  # this process's part of it
        self._everywhere = ExitStack()  # the session itself
        self._link = link
        self._pilots = pilots
        self._workerless_since = 0.0
        alien = link.alien
        self._queries = Queries(
            link.send,
            link.place.config.cache,
            lambda path, lfn: alien.upload(path, lfn),
            self._watch,
            self._last_words,
            link.store.result_url,
        )

    # ------------------------------------------------------------ life

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session: workers, kept results, pilots that have not registered.

        Pilots that have registered stay a while for your next session, where their ProxyServer stays. The
        Grid ends too if it was started for this session.
        """
        self._link.lost = self._link.lost or "the session is closed"
        self._here.close()

    def detach(self) -> None:
        """Leave the session without ending it: its queries go on, `attach` finds it again.

        Raises:
            SessionError: its ProxyServer belongs to this process, and would end with it.
        """
        self._link.check()
        if not self._link.place.standing:
            raise SessionError(
                "this session ends with the process that opened it; to leave one behind, open it on the Grid "
                "of 'gridproof grid start' or on \"alien\""
            )
        self._link.lost = f"the session was left; gridproof.attach({self.name!r}) uses it again"
        self._everywhere.pop_all()
        self._here.close()

    def __repr__(self) -> str:
        try:
            return f"<Session {self.name} with {len(self.workers)} workers, engine {self.engine}>"
        except SessionError as error:
            return f"<Session {self.name}: {error}>"

    @property
    def workers(self) -> Table[WorkerRecord]:
        """The workers there are, as records; printed, a table."""
        ready = {w["name"] for w in self._link.send("workers", at_least=0, wait=0)}
        return Table(
            WorkerRecord,
            (
                WorkerRecord(w.name, w.site, w.host, w.pid, "ready" if w.name in ready else "starting", w.way)
                for w in self._link.status().workers.values()
                if w.state != "ended"
            ),
        )

    def forward(self, worker: str, what: str = "worker") -> Forward:
        """A way to a worker's own port (``what="worker"``), or to its node's XRootD server (``"xrootd"``).

        It leads through the VO-box and the pilot's connection, and lasts as long as the worker (see
        docs/network.md for what can be done with it).

        Raises:
            ProxyError: there is no such worker or server, or the VO-box has no port free.
        """
        self._link.check()
        return self._link.forward(worker, what)

    def logs(self, worker: str | None = None, pilot: str | int | None = None, *, lines: int = 20) -> Logs:
        """The last lines that workers, pilots and the master have written, also after their death.

        Args:
            worker: its name, or ``"master"`` for the session's master.
            pilot: its job id. Of one that never registered, the trace of its job is shown.
            lines: of each at most. Without ``worker`` and ``pilot``: of all that there are.

        Raises:
            ConfigError: the session has no such worker or pilot.
            SessionError: it was closed or left here.
            AlienError: the Grid knows no such job, or does not answer.
            ProxyError: the ProxyServer is gone.
        """
        from .logs import gather

        return gather(
            self.name, self._link.last_status(), self._link.logs, self._link.alien.trace, worker, pilot, lines
        )

    # ------------------------------------------------------------ work

    @property
    def store(self) -> Store:
        """Files on the VO-box that this process and the workers share (see docs/store.md)."""
        self._link.check()
        return self._link.store

    def load(self, what: str) -> None:
        """Make ``"macro.C"``, ``"macro.C+"``, ``"lib.so"`` or ``"header.h"`` known here and on all workers.

        Raises:
            CompileError: with the compiler's message.
            ConfigError: there is no such file.
        """
        self._link.check()
        self._queries.load(what)

    def dataset(self, source: Any, tree: str | None = None) -> Dataset:
        """The files that ``source`` names (see docs/datasets.md, also for what it costs).

        Args:
            source: LFNs, ``root://`` URLs, local paths and patterns, one or a list; a text list, an XML
                collection or a collection of AliEn; a ``TChain`` with its friends; a ``TFileCollection``.
            tree: the tree's name in the files, or a pattern such as ``DF_*/O2track``; None: as ROOT's
                object says.

        Raises:
            DatasetError: a file is missing, a pattern matches nothing, a list cannot be read.
            AlienError: the catalogue does not answer.
        """
        self._link.check()
        return resolve(source, tree, self._link.alien)

    def submit(
        self,
        dataset: Dataset,
        selector: str,
        option: str = "",
        *,
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        on_missing: str = "fail",
        feedback: float = 1.0,
        commit: str = "interval",
        title: str = "",
    ) -> Query:
        """Start a C++ TSelector over a dataset; its ``Begin`` has run here when this returns.

        Several queries in flight share the workers.

        Args:
            dataset: from `dataset`; its friends come along.
            selector: source file as in ``TChain::Process`` (``+``, ``++``, ``+g``, ``+O``), or the name of a
                class that `load` has made known. ``Begin`` and ``Terminate`` run in this process.
            option: the selector's ``GetOption()``.
            inputs: objects for ``fInput``: TObjects, or names with numbers, strings or TObjects.
            on_missing: ``"fail"``, or ``"skip"`` to go on without files that no replica gives.
            feedback: seconds between two partial results.
            commit: ``"interval"``: workers hand in their outputs every now and then; ``"end"``: once, for
                selectors whose ``SlaveBegin`` is dear. A lost worker then costs all it did.
            title: for `queries` and progress bars; the selector's name where there is none.

        Raises:
            CompileError, SelectorError: the selector does not compile, or its ``Begin`` failed.
            ConfigError: an argument that cannot be.
            SessionError: the session's master is gone.
        """
        parts = self._parts(dataset)
        return self._queries.submit(parts, selector, option, inputs, on_missing, feedback, commit, title)

    def process(
        self,
        dataset: Dataset,
        selector: str,
        option: str = "",
        *,
        inputs: Mapping[str, Any] | Sequence[Any] = (),
        on_missing: str = "fail",
        feedback: float = 1.0,
        commit: str = "interval",
        title: str = "",
        progress: bool | None = None,
        on_feedback: Show | None = None,
    ) -> Result:
        """Run a C++ TSelector over a dataset (see `submit`); its outputs come back merged.

        Meanwhile partial histograms are drawn on the canvas of ``gPad`` if there is one, or given to
        ``on_feedback`` (see `Query.result`). Ctrl-C cancels the query.

        Raises:
            CompileError, SelectorError: the selector does not compile, threw, aborted or crashed.
            MissingFiles: a file cannot be read anywhere, or has no such tree.
            QueryError: anything else that ends a query; the session stays usable.
            ConfigError, SessionError: as `submit`.
        """
        return self._queries.process(
            self._parts(dataset),
            selector,
            option,
            inputs,
            on_missing,
            feedback,
            commit,
            title,
            progress=progress,
            on_feedback=on_feedback,
        )

    def queries(self) -> list[Query]:
        """The session's queries that are not forgotten, also those of earlier processes."""
        return self._queries.handles()

    # ------------------------------------------------------------ inside

    def _hold(self, here: ExitStack, everywhere: ExitStack) -> None:
        """Take over what is to be ended: ``everywhere`` the session itself, within what this process has."""
        self._here, self._everywhere = here.pop_all(), everywhere

    def _parts(self, dataset: Dataset) -> list[dict[str, Any]]:
        """The dataset and its friends as the master takes them."""
        self._link.check()
        if self._retired:
            raise SessionError(
                f"session {self.name} was idle for long and has given its workers back; its results can be "
                "had, but to process more open a new session"
            )
        if not isinstance(dataset, Dataset):
            raise ConfigError(f"a selector runs over a dataset: session.dataset({dataset!r}, tree=…)")
        return [_part(dataset, ""), *_friends(dataset)]

    def _watch(self, status: Mapping[str, Any]) -> None:
        """A query that runs must have workers, or pilots that may bring some."""
        if status["over"] or status["workers"]:
            self._workerless_since = 0.0
            return
        now = time.monotonic()
        self._workerless_since = self._workerless_since or now
        if now - self._workerless_since > WORKERLESS_SECONDS:
            self._look_for_workers(now - self._workerless_since)

    def _look_for_workers(self, seconds: float) -> None:
        """There has been no worker for so long: give up unless one can be on its way."""
        status = self._link.status()
        pilots = status.pilots.values()
        coming = any(w.state != "ended" for w in status.workers.values()) or self._pilots.coming(pilots)
        patience = max(LONGEST_WORKERLESS, self._link.place.config.pilots.orphan_limit)
        if (coming and seconds < patience) or self._link.other_sessions():  # that give some back
            return
        raise SessionError(
            "\n  ".join(
                [
                    f"no worker is left and no pilot brings one; open a new session{self._last_words()}",
                    *self._pilots.describe(pilots),
                ]
            )
        )

    def _last_words(self) -> str:
        """Of the worker that died last: how, and the end of its log."""
        from .engine.crash import readable

        ended = [w for w in self._link.status().workers.values() if w.state == "ended"]
        if not ended:
            return ""
        last = ended[-1]
        return (
            f"\nworker {last.name} ended by {readable(last.reason)}\n(session.logs({last.name!r}) shows more)"
        )


def _friends(dataset: Dataset) -> list[dict[str, Any]]:
    """The friends and theirs."""
    parts = []
    for friend in dataset.friends:
        parts += [_part(friend.dataset, friend.alias), *_friends(friend.dataset)]
    return parts


def _part(dataset: Dataset, alias: str) -> dict[str, Any]:
    from .alien import site_of

    files = [
        {
            "name": file.name,
            "kind": file.kind,
            "size": file.size,
            "replicas": [(se.upper(), site_of(se)) for se in file.ses],
            "hosts": list(file.hosts),
        }
        for file in dataset.files
    ]
    return {"tree": dataset.tree, "alias": alias, "files": files}
