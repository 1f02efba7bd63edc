"""A query as a thing that a user holds: how it fares, what it has given so far, its result."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from .. import errors, progress
from ..errors import ConfigError, GridproofError, QueryError
from ..feedback import Canvas, Show
from ..progress import Progress
from .result import Result, Summary

if TYPE_CHECKING:
    from .client import Queries

_UNTIL_OVER = 1 << 62  # no version of a query's state is newer: only its end is news
_LONGEST_PAUSE = 0.5  # seconds between two looks at a query's state
_FEEDBACK_SHARE = 0.1  # of this process's time that snapshots may take


class Query:
    """A query that was submitted, by this process or an earlier one (see `Session.queries`).

    ``id`` counts the session's queries from 1; ``title`` is the user's or the selector's name;
    ``submitted`` is in epoch seconds; ``feedback``: seconds between two snapshots in `result`.
    Every method may be called from any thread.

    Raises (every method):
        SessionError: the session's master is gone.
        QueryError: the query was forgotten, or is no longer kept.
    """

    def __init__(
        self, queries: Queries, id: int, title: str, submitted: float, feedback: float, instance: Any = None
    ) -> None:
        self.id = id
        self.title = title
        self.submitted = submitted
        self.feedback = feedback
        self._queries = queries
        self._instance = instance  # the selector after Begin; None where another process ran that
        self._over: Mapping[str, Any] | None = None  # its last state
        self._result: Result | None = None

    @property
    def progress(self) -> Progress:
        """How it stands now."""
        return Progress.of(self._follow(0))

    @property
    def kept_until(self) -> float:
        """When the VO-box forgets it, in epoch seconds; 0 while it runs."""
        return float(self._follow(0)["kept_until"])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, at most ``timeout`` s; whether it is."""
        if timeout is not None and not is_seconds(timeout):
            raise ConfigError(f"timeout is None or a number of seconds, not {timeout!r}")
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in self._states(deadline):
            pass
        return self._over is not None

    def partial(self) -> Result:
        """The outputs merged so far, without ``Terminate``; its summary tells how much that is."""
        queries = self._queries
        status = self._follow(0)
        snapshot = queries.send("partial", query=self.id, version=-1, wait=0)
        with queries.lock:
            self._know_code()
            outputs = queries.taken(queries.unpack(snapshot["data"]))
            return Result(queries.root, outputs, _summary(status), queries.upload)

    def cancel(self) -> None:
        """Stop it: its workers finish the packet they are at. `partial` still gives what was merged."""
        self._queries.send("cancel", query=self.id)

    def forget(self) -> None:
        """Cancel it if it still runs, and give up its outputs on the VO-box."""
        self._queries.forget(self.id)

    def result(self, progress: bool | None = None, on_feedback: Show | None = None) -> Result:
        """Wait for its end, run ``Terminate`` in this process, and return the outputs.

        Meanwhile partial histograms come every `feedback` seconds: to ``on_feedback`` as a mapping from
        name to ROOT object, or else onto the canvas of ``gPad`` if there is one. With neither, nothing is
        transferred. Called again, it returns the same result.

        Args:
            progress: draw a progress bar; None: if standard error is a terminal.
            on_feedback: called in this thread with what is merged so far; it may keep the objects.

        Raises:
            QueryError: its subclasses say what went wrong.
        """
        if on_feedback is not None and not callable(on_feedback):
            raise ConfigError(f"on_feedback is called with partial outputs; {on_feedback!r} cannot be called")
        if self._result is None:
            canvas = Canvas.current(self._queries.root) if on_feedback is None else None
            self._watch(progress, on_feedback, canvas)
            return self._collect(canvas)
        return self._result

    def __repr__(self) -> str:
        return f"<Query {self.id} {self.title!r}: {self._stands()}>"

    def _repr_html_(self) -> str:
        stands = self._stands()
        shown = stands._repr_html_() if isinstance(stands, Progress) else html.escape(str(stands))
        return f"<b>{html.escape(self.title)}</b> {shown}"

    def _stands(self) -> Progress | GridproofError:
        try:
            return self.progress
        except GridproofError as error:
            return error

    # ------------------------------------------------------------ inside

    def _follow(self, wait: float) -> Mapping[str, Any]:
        """Its state: once it is over, or after ``wait`` s."""
        if self._over is not None:
            return self._over
        status: Mapping[str, Any]
        status = self._queries.send("follow", query=self.id, version=_UNTIL_OVER, wait=wait)
        if status["over"]:
            self._over = status
        self._queries.watch(status)
        return status

    def _states(self, deadline: float | None = None) -> Iterator[Mapping[str, Any]]:
        """Its states until it is over or the deadline has passed; a young query is looked at more often."""
        began = time.monotonic()
        while True:
            now = time.monotonic()
            pause = min(_LONGEST_PAUSE, self.feedback, 0.05 + (now - began) / 10)
            status = self._follow(pause if deadline is None else max(0.0, min(pause, deadline - now)))
            yield status
            if status["over"] or (deadline is not None and time.monotonic() >= deadline):
                return

    def _watch(self, bar: bool | None, on_feedback: Show | None, canvas: Canvas | None) -> None:
        version, due = 0, 0.0
        with progress.query_bar(progress.wanted(bar), self.title) as draw:
            for status in self._states():
                draw(Progress.of(status))
                began = time.monotonic()
                if (on_feedback or canvas) is None or status["over"] or began < due:
                    continue
                snapshot = self._queries.send("partial", query=self.id, version=version, wait=0)
                version = snapshot["version"]
                if snapshot["data"] is None:
                    continue
                with self._queries.lock:
                    self._know_code()
                    outputs = self._queries.taken(self._queries.unpack(snapshot["data"]))
                    if canvas is not None:
                        canvas.show(outputs)
                if on_feedback is not None:
                    on_feedback(outputs)
                due = began + max(self.feedback, (time.monotonic() - began) / _FEEDBACK_SHARE)

    def _collect(self, canvas: Canvas | None) -> Result:
        queries, status = self._queries, self._follow(0)
        if status["error"]:
            kind, message = status["error"]
            words = queries.last_words() if kind == "SelectorCrashed" else ""
            raise _error(kind, message + words, status["missing"])
        answer = queries.send("result", query=self.id)
        data = answer["data"]
        while len(data) < answer["size"]:
            data += queries.send("fetch", query=self.id, name="", offset=len(data), size=answer["size"])
        with queries.lock:
            if self._result is not None:  # another thread was faster
                return self._result
            self._know_code()
            instance, self._instance = self._instance, None
            outputs = queries.unpack(data)
            if canvas is not None:
                canvas.show({str(item.GetName()): item for item in outputs})
            objects = queries.terminate(instance, outputs, queries.files(self.id, answer["files"]))
            summary = _summary({**status, "sent_bytes": status["sent_bytes"] + len(data)})
            self._result = Result(queries.root, objects, summary, queries.upload)
            return self._result

    def _know_code(self) -> None:
        """Outputs may be of the selector's own classes."""
        if self._instance is None and self._result is None:
            self._instance = self._queries.fresh_instance(self.id)


def is_seconds(value: object) -> bool:
    """Whether this is a finite number from 0 up."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return 0 <= float(value) < math.inf
    except OverflowError:
        return False


def _error(kind: str, message: str, missing: Mapping[str, str]) -> QueryError:
    """The master's error, made anew here."""
    if kind == "MissingFiles":
        return errors.MissingFiles(message, dict(missing))
    made = getattr(errors, kind, QueryError)
    return made(message) if issubclass(made, QueryError) else QueryError(message)


def _summary(status: Mapping[str, Any]) -> Summary:
    return Summary(
        events=status["events"],
        bytes_read=status["bytes_read"],
        local_bytes=status["local_bytes"],
        wall=status["seconds"],
        packets=status["packets"],
        per_worker=dict(status["events_by_worker"]),
        missing_files=dict(status["missing"]),
        warnings=tuple(status["warnings"]),
        merge_seconds=status["merge_seconds"],
        received_bytes=status["received_bytes"],
        sent_bytes=status["sent_bytes"],
        master_memory=status["master_memory"],
    )
