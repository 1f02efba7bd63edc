"""The session's master: gives packets to workers, takes their commits, tells the client.

Transport is none of its business: every public coroutine is one message of the narrow protocol, whose
arguments and answers are plain data. It runs in the VO-box's event loop; only merging has a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MergeError, QueryCancelled, QueryError
from .bundle import Bundle
from .commits import Verdict
from .merge import MergeThread
from .packetizer import HELP_SECONDS
from .running import Running

LONGEST_WAIT = 20.0  # seconds that a message may wait for news
LOOK_AROUND = 2.0  # seconds after which an idle worker asks again for what has become overdue
BACKOFF_COMMITS = 3  # undecodable commits in a row that a query survives


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as it introduced itself; ``address`` is what it is known by here."""

    address: str
    name: str
    site: str
    host: str
    pid: int


class Master:
    """See the module."""

    def __init__(self, cache: Path) -> None:
        self._merge = MergeThread(cache)
        self._workers: dict[str, WorkerInfo] = {}
        self._names: dict[str, str] = {}  # of the gone ones too
        self._running: dict[int, Running] = {}
        self._bundles: dict[str, Bundle] = {}
        self._loads: list[str] = []
        self._answered: dict[str, tuple[int, dict[str, Any]]] = {}
        self._ids = 0
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Load ROOT."""
        await self._merge.start()

    def close(self) -> None:
        """Stop merging."""
        self._merge.close()

    # ------------------------------------------------------------ workers' messages

    async def hello(self, worker: str, name: str, site: str, host: str, pid: int) -> None:
        """A worker is ready."""
        self._workers[worker] = WorkerInfo(worker, name, site, host, pid)
        self._names[worker] = name
        for running in self._running.values():
            running.join(worker, site)
        self._tell()

    async def lease(
        self, worker: str, number: int, ran: Sequence[tuple[int, int, int, float, str]], wait: float
    ) -> dict[str, Any]:
        """The worker's next packets: ``{}`` or ``{query, count, packets, files}``.

        ``ran``: packets run since the last message, as (query, packet, entries, seconds, source site).
        Waits up to ``wait`` s for something to do. ``number`` counts the worker's requests: a repeated one
        gets the same answer again.
        """
        if self._answered.get(worker, (0, {}))[0] == number:
            return self._answered[worker][1]
        for query, packet_id, entries, seconds, source in ran:
            if query in self._running:
                self._running[query].active.ran(worker, packet_id, entries, seconds, source)
        asked = time.monotonic()
        patience, deadline = asked + HELP_SECONDS, asked + min(wait, LONGEST_WAIT)
        answer: dict[str, Any] = {}
        while worker in self._workers:
            patient = time.monotonic() < patience
            answer = self._next_packets(worker, patient)
            if answer or (time.monotonic() >= deadline):
                break
            await self._wait(min(deadline, patience if patient else time.monotonic() + LOOK_AROUND))
        self._answered[worker] = (number, answer)
        return answer

    async def opened(
        self, worker: str, query: int, packet: int, last: int, entries: int, clusters: Sequence[int]
    ) -> bool:
        """A file's entries and clusters; False if the packet is to be thrown away."""
        running = self._running.get(query)
        if running is None or running.over:
            return False
        good = running.active.opened(worker, packet, last, entries, clusters)
        self._tell()
        return good

    async def commit(
        self,
        worker: str,
        incarnation: str,
        query: int,
        sequence: int,
        packets: Sequence[int],
        delta: bytes,
        classes: Sequence[str],
        bytes_read: int,
        local_bytes: int,
    ) -> bool:
        """Outputs of some packets; whether they became part of the result."""
        running = self._running.get(query)
        if running is None or running.over:
            return False
        if running.counting is not None:
            accepted = running.counting.claim(worker, incarnation, sequence, packets).accepted
            self._settle(running)
            return accepted
        async with running.merging:
            try:
                verdict = running.state.known(incarnation, sequence) or await self._merge_commit(
                    running, worker, incarnation, sequence, packets, delta, classes
                )
            except MergeError as error:
                running.state.error = error
                verdict = Verdict(False)
            if verdict.accepted and not verdict.repeated:
                running.state.tally.bytes_read += bytes_read
                running.state.tally.local_bytes += local_bytes
            self._settle(running)
        return verdict.accepted

    async def fail(
        self,
        worker: str,
        query: int,
        packet: int,
        released: Sequence[int],
        kind: str,
        reason: str,
        storage_elements: Sequence[str],
    ) -> None:
        """A packet could not be run."""
        running = self._running.get(query)
        if running is not None and not running.over:
            running.active.fail(worker, packet, released, kind, reason, storage_elements)
            self._settle(running)

    async def query(self, query: int) -> dict[str, Any] | None:
        """What a worker needs to run a query's packets, once; None if it is over."""
        running = self._running.get(query)
        if running is None or running.over:
            return None
        keys = ("selector", "loads", "class_name", "option", "input", "tree")
        return {**{key: running.spec[key] for key in keys}, "friends": len(running.spec["parts"]) > 1}

    async def layout(self, query: int) -> list[dict[str, Any]]:
        """Where entries lie in a query with friends: per dataset, the main one first, files and entries."""
        running = self._running[query]
        return [dict(part) for part in running.spec["parts"]]

    async def bundle(self, key: str) -> dict[str, Any]:
        """Code by its key."""
        return self._bundles[key].to_message()

    def lost(self, worker: str) -> None:
        """A worker is gone."""
        if self._workers.pop(worker, None) is None:
            return
        self._answered.pop(worker, None)
        for running in self._running.values():
            if not running.over:
                running.lose(worker)
                self._settle(running)
        self._tell()

    # ------------------------------------------------------------ the client's messages

    async def workers(self, at_least: int, wait: float) -> list[dict[str, Any]]:
        """The workers that are ready, once there are ``at_least`` so many or after ``wait`` s."""
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        while len(self._workers) < at_least and await self._wait(deadline):
            pass
        return [vars(w) for w in self._workers.values()]

    async def load(self, bundle: Mapping[str, Any]) -> None:
        """Code for every worker, now and later."""
        key = self._keep(bundle)
        if key not in self._loads:
            self._loads.append(key)
        self._tell()

    async def submit(self, spec: Mapping[str, Any]) -> int:
        """Start a query; answers its number.

        ``spec``: ``selector`` (a bundle or None), ``class_name``, ``option``, ``input`` (bytes of a TList),
        ``on_missing``, and ``parts``: the dataset and its friends, each with ``tree``, ``alias`` and
        ``files`` (``name``, ``kind``, ``size``, ``replicas``).
        """
        self._ids += 1
        number = self._ids  # others may be submitted while this one waits for the merge thread
        selector = self._keep(spec["selector"]) if spec["selector"] else ""
        parts = [dict(part) for part in spec["parts"]]
        kept = {
            **spec,
            "selector": selector,
            "loads": list(self._loads),
            "parts": parts,
            "tree": parts[0]["tree"],
        }
        code = [self._bundles[key] for key in [*self._loads, *([selector] if selector else [])]]
        merger = await self._merge.run(self._merge.merger, code)
        running = Running(number, kept, merger)
        for worker in self._workers.values():
            running.join(worker.address, worker.site)
        self._running[running.id] = running
        self._settle(running)
        return running.id

    async def follow(self, query: int, version: int, wait: float) -> dict[str, Any]:
        """How a query fares, once it is newer than ``version`` or after ``wait`` s."""
        running = self._running[query]
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        while running.version <= version and not running.over:
            if not await self._wait(deadline):
                break
        return running.status(self._names, len(self._workers))

    async def result(self, query: int) -> bytes:
        """The merged outputs so far, as bytes of a TList."""
        running = self._running[query]
        async with running.merging:
            return bytes(await self._merge.run(running.merger.snapshot))

    async def cancel(self, query: int) -> None:
        """Stop a query; its workers finish the packet they are at."""
        running = self._running.get(query)
        if running is not None and not running.over:
            running.state.error = QueryCancelled("the query was cancelled")
            self._settle(running)

    async def forget(self, query: int) -> None:
        """The client has what it wants."""
        running = self._running.pop(query, None)
        if running is not None:
            running.end()
        self._tell()

    # ------------------------------------------------------------ inside

    def _next_packets(self, worker: str, patient: bool) -> dict[str, Any]:
        """From the query that has fewest packets out."""
        for running in sorted(self._running.values(), key=lambda r: (r.active.outstanding(), r.id)):
            try:
                packets = [] if running.over else running.active.lease(worker, time.monotonic(), patient)
            except Exception as error:  # a fault of the master's own must end its query, not the workers
                running.state.error = QueryError(f"the master failed: {type(error).__name__}: {error}")
                self._settle(running)
                continue
            if packets:
                return {
                    "query": running.id,
                    "count": running.counting is not None,
                    "packets": [packet.to_message() for packet in packets],
                    "files": [running.file(packet.file) for packet in packets],
                }
        return {}

    async def _merge_commit(
        self,
        running: Running,
        worker: str,
        incarnation: str,
        sequence: int,
        packets: Sequence[int],
        delta: bytes,
        classes: Sequence[str],
    ) -> Verdict:
        began = time.monotonic()
        try:
            objects = await self._merge.run(running.merger.decode, delta, classes)
        except MergeError:
            running.bad_commits += 1
            if running.bad_commits > BACKOFF_COMMITS:
                raise
            running.state.fail(worker, packets[0], packets, "stopped", "the outputs were unreadable", ())
            return Verdict(False)
        if running.over or worker not in self._workers:
            return Verdict(False)
        verdict = running.state.claim(worker, incarnation, sequence, packets)
        if verdict.accepted:
            await self._merge.run(running.merger.merge, objects)
            running.received_bytes += len(delta)
        running.merge_seconds += time.monotonic() - began
        return verdict

    def _settle(self, running: Running) -> None:
        """Something has changed in a query."""
        running.settle()
        self._tell()

    def _keep(self, message: Mapping[str, Any]) -> str:
        bundle = Bundle.from_message(dict(message))
        self._bundles[bundle.key] = bundle
        return bundle.key

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self, deadline: float) -> bool:
        """Wait for news; False once the deadline has passed."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            await asyncio.wait_for(self._news.wait(), left)
        except (TimeoutError, asyncio.TimeoutError):
            return False
        return True
