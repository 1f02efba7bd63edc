"""One query in flight at the master, or finished and waiting to be collected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import GridproofError, QueryError
from ..merge import Merger
from ..query import FileInfo, Query

MERGE_MEMORY = 0.3  # weight of the newest measurement


class Running:
    """A query's decisions (`state`), its merged outputs, and how it stands.

    With friends a first phase counts the entries of all files: entries are matched by their number.
    """

    def __init__(self, number: int, spec: Mapping[str, Any], merger: Merger) -> None:
        self.id = number
        self.spec = spec
        self.merger = merger
        parts = spec["parts"]
        self.state = Query(_infos(parts[0]["files"], hints=True), spec["on_missing"])
        self.counting: Query | None = None
        if len(parts) > 1:
            files = [file for part in parts for file in part["files"]]
            self.counting = Query(_infos(files, hints=False), "skip")
        self.merging = asyncio.Lock()
        self.version = 0
        self.merges = 0
        self.snapshot = (-1, b"")  # of the outputs after so many merges
        self.submitted = time.time()
        self.kept_until = 0.0  # epoch seconds, once it is over
        self.bad_commits = 0
        self.merge_seconds = 0.0
        self._merge_cost = 0.0  # seconds for a commit, smoothed
        self.received_bytes = 0
        self._began = time.monotonic()
        self._ended = 0.0

    @property
    def active(self) -> Query:
        """The phase that hands out packets."""
        return self.counting or self.state

    @property
    def over(self) -> bool:
        """It has finished, failed or was cancelled."""
        return bool(self._ended)

    def end(self) -> None:
        """Nothing of it happens any more."""
        self._ended = self._ended or time.monotonic()

    def join(self, worker: str, site: str) -> None:
        """A worker is there."""
        for query in filter(None, (self.state, self.counting)):
            query.join(worker, site)

    def lose(self, worker: str) -> None:
        """A worker is gone."""
        for query in filter(None, (self.state, self.counting)):
            query.lose(worker)

    def merged(self, seconds: float) -> None:
        """A commit has kept the merge busy for so long."""
        self.merge_seconds += seconds
        before = self._merge_cost
        self._merge_cost = MERGE_MEMORY * seconds + (1 - MERGE_MEMORY) * before if before else seconds

    def commit_interval(self, workers: int) -> float:
        """Seconds between a worker's commits that keep merging under half of the master's time."""
        return 2 * workers * self._merge_cost

    def settle(self) -> bool:
        """See whether a phase or the query has ended; whether there is another phase to work at."""
        advanced = False
        counting = self.counting
        if counting is not None:
            if counting.missing:
                counting.error = QueryError(
                    "with friends every file must be readable, since entries are matched by their number: "
                    + "; ".join(f"{name}: {why}" for name, why in counting.missing.items())
                )
            if counting.error or self.state.error:
                self.state.error = self.state.error or counting.error
            elif counting.finished:
                self._lay_out(counting.entries_by_file())
                self.counting = None
                advanced = True
        if self.state.error or (self.counting is None and self.state.finished):
            self.end()
        self.version += 1
        return advanced

    def file(self, index: int) -> dict[str, Any]:
        """A file of the active phase, as its worker needs it."""
        if self.counting is None:
            return {**self.spec["parts"][0]["files"][index], "entries": self.state.entries(index)}
        for part in self.spec["parts"]:
            if index < len(part["files"]):
                return {**part["files"][index], "tree": part["tree"]}
            index -= len(part["files"])
        raise GridproofError(f"query {self.id} has no file {index}")

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
            "over": self.over,
            "kept_until": self.kept_until,
            "error": [type(error).__name__, str(error)] if error else None,
            "missing": dict(state.missing),
            "warnings": self.merger.warnings() if self.over else [],
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
        }

    def _lay_out(self, entries: list[int]) -> None:
        for part in self.spec["parts"]:
            part["entries"] = entries[: len(part["files"])]
            del entries[: len(part["files"])]
        main, *friends = self.spec["parts"]
        for part in friends:
            if sum(part["entries"]) < sum(main["entries"]):
                self.state.error = QueryError(
                    f"friend tree {part['alias'] or part['tree']!r} has {sum(part['entries'])} entries, "
                    f"the dataset has {sum(main['entries'])}: beyond its end there would be no values"
                )


def _infos(files: Sequence[Mapping[str, Any]], hints: bool) -> list[FileInfo]:
    return [
        FileInfo(
            str(f["name"]),
            int(f["size"]),
            tuple((str(se), str(site)) for se, site in f["replicas"]),
            int(f.get("entries", -1)) if hints else -1,
            tuple(f.get("clusters", ())) if hints else (),
        )
        for f in files
    ]
