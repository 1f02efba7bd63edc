"""The last lines of a session's workers, pilots and master, as its user sees them."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from .errors import ConfigError, ProxyError
from .proxy.logs import Source, harmless

if TYPE_CHECKING:
    from .proxy.pool.records import PilotRecord, Status, WorkerRecord

MASTER = "master"

Ask = Callable[[Sequence[Source], int, Mapping[Source, int]], Mapping[Source, tuple[str, int]]]


@dataclass(frozen=True)
class Log:
    """What one of them has written last; ``about`` says who and where it is and how it ended.

    ``written``: so many characters it has written in all. Printed, control characters are shown as such.
    """

    source: Source
    about: str
    text: str
    written: int = 0

    def __str__(self) -> str:
        shown = harmless(self.text).rstrip("\n")
        return f"── {harmless(self.about)}\n{shown or '(nothing)'}"


class Logs(list[Log]):
    """Several; printed, one below the other."""

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return "".join(f"<pre>{html.escape(str(log))}</pre>" for log in self)


def gather(
    session: str,
    status: Status,
    ask: Ask,
    trace: Callable[[int], Iterable[str]],
    worker: str | None,
    pilot: str | int | None,
    lines: int,
    since: Mapping[Source, int] | None = None,
) -> Logs:
    """The logs that are meant: see `Session.logs`.

    ``ask`` gets them from the ProxyServer, ``trace`` the lines of a job's trace from the Grid.

    Raises:
        ConfigError: there is no such worker or pilot.
        AlienError: the Grid does not know the job, or does not answer.
    """
    if lines < 1:
        raise ConfigError(f"lines={lines}: at least one line of a log can be shown")
    if pilot is not None and not (worker or _pilots(status, str(pilot))):
        return Logs([_trace_of(str(pilot), status, trace, lines)])
    meant = _meant(session, status, worker, None if pilot is None else str(pilot))
    found = ask(list(meant), lines, since or {})
    return Logs(
        Log(source, about, *found.get(source, (last_words, 0)))
        for source, (about, last_words) in meant.items()
    )


@contextmanager
def reader(name: str | None, grid: str = "local") -> Iterator[Callable[..., Logs]]:
    """Within it, a call reads the logs of one's session: ``read(worker, pilot, lines, since)``.

    ``name`` may be that of a session that is gone: what its master wrote last can still be read.

    Raises:
        SessionError: there is no ProxyServer that keeps sessions, or none is named and there is not just one.
        ConfigError, ProxyError: what their names say.
    """
    from . import config, grids
    from .alien import Alien
    from .loopthread import LoopThread
    from .opening import choose

    place = grids.standing(grid, config.load())
    with closing(LoopThread("gridproof logs")) as loop, ExitStack() as stack:
        proxy = loop.run(place.proxy.connect())
        stack.callback(lambda: loop.run(proxy.close()))
        session = name or choose(loop.run(proxy.sessions()), None).name

        def ask(
            sources: Sequence[Source], lines: int, since: Mapping[Source, int]
        ) -> Mapping[Source, tuple[str, int]]:
            return loop.run(proxy.logs(sources, lines, since))

        def trace(job: int) -> list[str]:
            with closing(Alien.connect(place.environ)) as alien:
                return alien.trace(job)

        def read(
            worker: str | None, pilot: str | None, lines: int, since: Mapping[Source, int] | None = None
        ) -> Logs:
            with suppress(ProxyError):  # the session is gone
                loop.run(proxy.status(session))
            return gather(session, proxy.last_status(session), ask, trace, worker, pilot, lines, since)

        yield read


def _meant(
    session: str, status: Status, worker: str | None, pilot: str | None
) -> dict[Source, tuple[str, str]]:
    """Sources, each with a line about it, and what to show where nothing is known of its log."""
    master = {Source("master", session): (f"master of session {session}", "")}
    if worker == MASTER:
        return master
    if worker is not None:
        record = status.workers.get(worker)
        if record is None:
            _unknown("worker", worker, [*status.workers, MASTER])
        return dict([_of_worker(record)])
    if pilot is not None:
        return dict(map(_of_pilot, _pilots(status, pilot)))
    return {
        **master,
        **dict(map(_of_pilot, status.pilots.values())),
        **dict(map(_of_worker, status.workers.values())),
    }


def _pilots(status: Status, name: str) -> list[PilotRecord]:
    return [record for record in status.pilots.values() if name in (record.id, record.job_id)]


def _trace_of(name: str, status: Status, trace: Callable[[int], Iterable[str]], lines: int) -> Log:
    """Of a pilot that the ProxyServer has not seen the Grid tells what its job's trace says."""
    if not name.isdecimal():
        _unknown("pilot", name, [p.job_id for p in status.pilots.values()])
    text = "".join(f"{line}\n" for line in list(trace(int(name)))[-lines:])
    return Log(Source("pilot", name), f"pilot {name}: never registered; the trace of its job", text)


def _of_worker(record: WorkerRecord) -> tuple[Source, tuple[str, str]]:
    how, _, last_words = record.reason.partition("\n")
    about = f"worker {record.name} at {record.site} ({record.host}): {_state(record.state, how)}"
    return Source("worker", record.pilot, record.name), (about, last_words)


def _of_pilot(record: PilotRecord) -> tuple[Source, tuple[str, str]]:
    about = f"pilot {record.job_id} at {record.site} ({record.host}): {_state(record.state, record.reason)}"
    return Source("pilot", record.id), (about, "")


def _state(state: str, why: str) -> str:
    return f"{state} ({why[:200].rstrip(':')})" if why else state


def _unknown(what: str, name: str, known: Sequence[str]) -> NoReturn:
    near = get_close_matches(name, known, 5, 0.3) or list(known)[:5]
    raise ConfigError(f"the session has no {what} {name!r}; the nearest are {', '.join(near) or 'none'}")
