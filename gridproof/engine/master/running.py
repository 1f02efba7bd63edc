"""One query in flight at the master, or finished and waiting to be collected."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgpack

from ...errors import QueryError
from ..merge import Merger
from ..packets import Packet
from ..query import Query
from .known import FileKey, Learnt
from .parts import Census, Part

MERGE_MEMORY = 0.3  # weight of the newest measurement

_Answer = TypeVar("_Answer")


class Running:
    """A query's decisions (`state`), its merged outputs, and how it stands.

    With friends a first phase counts the entries of all files: entries are matched by their number.
    """

    def __init__(self, number: int, spec: Mapping[str, Any], parts: Sequence[Part], merger: Merger) -> None:
        self.id = number
        self.spec = spec
        self.merger = merger
        self.parts = parts
        self.state = Query(parts[0].infos(), spec["on_missing"], spec["commit"] == "end")
        self.counting: Query | None = None
        self.learnt: dict[FileKey, Learnt] = {}  # in this query
        self._census = Census(parts)
        self._workers: dict[str, tuple[str, str]] = {}  # their sites and hosts
        self._opening: dict[int, int] = {}  # packets whose file nobody has opened → the file
        if len(parts) > 1:
            self.counting = Query(self._census.infos(), "skip")
            self._advance()
        self.merging = asyncio.Lock()
        self.version = 0
        self.merges = 0
        self.snapshot = (-1, b"")  # of the outputs after so many merges
        self.submitted = time.time()
        self.completing: asyncio.Task[None] | None = None  # its end, held so that it is not lost
        self.kept_until = 0.0  # epoch seconds, once it is complete
        self.bad_commits = 0
        self.merge_seconds = 0.0
        self._merge_cost = 0.0  # seconds for a commit, smoothed
        self.received_bytes = 0
        self.sent_bytes = 0
        self._began = time.monotonic()
        self._ended = 0.0

    @property
    def active(self) -> Query:
        """The phase that hands out packets."""
        return self.counting or self.state

    @property
    def phase(self) -> int:
        """What workers know it by: its number, negative while they count entries."""
        return self.id if self.counting is None else -self.id

    @property
    def over(self) -> bool:
        """It has finished, failed or was cancelled."""
        return bool(self._ended)

    @property
    def is_complete(self) -> bool:
        """It is over, and what is kept of it is in its place."""
        return bool(self.kept_until)

    def complete(self, kept_until: float) -> None:
        """See `is_complete`; it is kept until then (epoch seconds)."""
        self.kept_until = kept_until
        self.version += 1

    def end(self) -> None:
        """Nothing of it happens any more."""
        self._ended = self._ended or time.monotonic()

    def join(self, worker: str, site: str, host: str) -> None:
        """A worker is there."""
        self._workers[worker] = site, host
        self.active.join(worker, site, host)

    def excuse(self, worker: str) -> None:
        """A worker leaves; see `Query.excuse`."""
        self.active.excuse(worker)

    def lose(self, worker: str) -> None:
        """A worker is gone."""
        self._workers.pop(worker, None)
        self.active.lose(worker)

    def merged(self, seconds: float) -> None:
        """A commit has kept the merge busy for so long."""
        self.merge_seconds += seconds
        before = self._merge_cost
        self._merge_cost = MERGE_MEMORY * seconds + (1 - MERGE_MEMORY) * before if before else seconds

    def sending(self, answer: _Answer) -> _Answer:
        """Account for an answer that goes to a worker."""
        self.sent_bytes += len(msgpack.packb(answer))
        return answer

    def commit_interval(self, workers: int) -> float:
        """Seconds between a worker's commits that keep merging under half of the master's time."""
        return 2 * workers * self._merge_cost

    def settle(self) -> bool:
        """See whether a phase or the query has ended; whether there is another phase to work at."""
        advanced = self._advance()
        if self.state.error or (self.counting is None and self.state.finished):
            self.end()
        self.version += 1
        return advanced

    def file(self, index: int) -> dict[str, Any]:
        """A file of the active phase, as its worker needs it."""
        part, place = self._place(index)
        if self.counting is None:
            return {**part.files[place], "entries": self.state.entries(index)}
        return {**part.files[place], "tree": part.tree}

    def lease(self, worker: str, now: float, patient: bool, ends: float) -> list[Packet]:
        """The worker's next packets; see `Query.lease`."""
        packets = self.active.lease(worker, now, patient, ends)
        for packet in packets:
            if packet.last < 0:
                self._opening[packet.id] = packet.file
        return packets

    def opened(self, worker: str, packet: int, last: int, entries: int, clusters: Sequence[int]) -> bool:
        """A file was opened for a packet; see `Query.opened`."""
        if not self.active.opened(worker, packet, last, entries, clusters):
            return False
        index = self._opening.pop(packet, None)
        if index is not None:
            part, place = self._place(index)
            part.clusters[place] = clusters
            key = part.key(place)
            if key.size >= 0:
                self.learnt[key] = Learnt(entries, clusters)
        return True

    def identities(self) -> list[FileKey]:
        """What identifies its files."""
        return [key for part in self.parts for key in part.identities()]

    def fail(
        self,
        worker: str,
        packet: int,
        released: Sequence[int],
        kind: str,
        reason: str,
        storage_elements: Sequence[str],
    ) -> None:
        """A packet failed; see `Query.fail`."""
        if kind == "changed" and len(self.parts) > 1:  # and the friends are aligned by what was not true
            self.state.error = QueryError(f"{reason}; what was known of these files is forgotten: try again")
            return
        self.active.fail(worker, packet, released, kind, reason, storage_elements)

    def about(self) -> dict[str, Any]:
        """Who it is."""
        about = {key: self.spec[key] for key in ("title", "class_name", "feedback")}
        return {"id": self.id, "submitted": self.submitted, **about}

    def status(self, names: Mapping[str, str], workers: int) -> dict[str, Any]:
        """How it stands; ``names`` by address, ``workers``: how many there are now."""
        state, tally = self.state, self.state.tally
        error = state.error
        return {
            "version": self.version,
            "over": self.is_complete,
            "kept_until": self.kept_until,
            "error": [type(error).__name__, str(error)] if error else None,
            "missing": dict(state.missing),
            "warnings": self.merger.warnings() if self.is_complete else [],
            "events": tally.entries,
            "expected": state.expected_entries,
            "bytes_read": tally.bytes_read,
            "local_bytes": tally.local_bytes,
            "packets": tally.packets,
            "events_by_worker": {names[w]: n for w, n in tally.entries_by_worker.items()},
            "workers": workers,
            "seconds": (self._ended or time.monotonic()) - self._began,
            "merge_seconds": self.merge_seconds,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
            "master_memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }

    def _place(self, index: int) -> tuple[Part, int]:
        return (self.parts[0], index) if self.counting is None else self._census.place(index)

    def _advance(self) -> bool:
        """From counting to the query itself, if all is counted."""
        counting = self.counting
        if counting is None:
            return False
        if counting.missing:
            counting.error = QueryError(
                "with friends every file must be readable, since entries are matched by their number: "
                + "; ".join(f"{name}: {why}" for name, why in counting.missing.items())
            )
        if counting.error or self.state.error:
            self.state.error = self.state.error or counting.error
            return False
        if not counting.finished:
            return False
        for index, entries in enumerate(counting.entries_by_file()):
            part, place = self._census.place(index)
            part.entries[place] = entries
        self.counting = None
        self.state = Query(self.parts[0].infos(), self.spec["on_missing"], self.spec["commit"] == "end")
        if problem := self._census.problem():
            self.state.error = QueryError(problem)
        for worker, (site, host) in self._workers.items():
            self.state.join(worker, site, host)
        return True
