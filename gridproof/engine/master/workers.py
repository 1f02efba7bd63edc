"""The master's answers to its workers: leases, commits, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...errors import MergeError, QueryError
from ..commits import Verdict
from ..notes import note
from ..packetizer import HELP_SECONDS
from ..spool import Uploaded
from .running import Running
from .sharing import Sharing
from .state import LONGEST_WAIT, State, WorkerInfo

LOOK_AROUND = 0.2  # seconds after which an idle worker looks again for what has become overdue,
LOOKS_PER_SECOND = 500.0  # but all of them together no oftener than this
BACKOFF_COMMITS = 3  # undecodable commits in a row that a query survives
LARGE_DELTAS = 3  # outputs that may be on their way to the merge at a time, of those that need admission
ANSWERS_KEPT = 8  # per worker, for messages that come again

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Commit:
    """The outputs of one selector instance, as its worker sends them."""

    worker: str
    incarnation: str
    sequence: int
    packets: Sequence[int]
    delta: bytes
    classes: Sequence[str]
    files: Uploaded


class ForWorkers:
    """Each public coroutine is a message of a worker's, but for `lost`.

    Messages with a ``number``, which counts a worker's messages, may come again: a repeated one gets the
    first one's answer.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._answers: dict[str, dict[int, asyncio.Future[Any]]] = {}
        self._sharing = Sharing()
        self._room = asyncio.Semaphore(LARGE_DELTAS)
        self._admitted: set[str] = set()
        self._leaving: set[str] = set()

    async def hello(self, worker: str, name: str, site: str, host: str, pid: int) -> None:
        """A worker is ready."""
        state = self._state
        state.workers[worker] = WorkerInfo(worker, name, site, host, pid)
        state.names[worker] = name
        note(f"worker {name} at {site} ({host}) is ready")
        self._answers[worker] = {}
        for running in state.queries.values():
            running.join(worker, site, host)
        state.status.tell()

    async def leave(self, worker: str) -> None:
        """A worker takes no further packet, and ends when it has committed what it has run."""
        if worker in self._state.workers:
            self._leaving.add(worker)
            note(f"worker {self._state.names[worker]} leaves")
            for running in self._state.queries.values():
                running.excuse(worker)
            self._state.work.tell()

    def lost(self, worker: str) -> None:
        """A worker is gone."""
        state = self._state
        if state.workers.pop(worker, None) is None:
            return
        note(f"worker {state.names[worker]} is gone")
        self._answers.pop(worker, None)
        self._leaving.discard(worker)
        self._leave_room(worker)
        self._sharing.rests(worker)
        for running in state.queries.values():
            if not running.over:
                state.merge.soon(running.merger.spool.lost, worker)
                running.lose(worker)
                state.settle(running)
        state.work.tell()
        state.status.tell()

    # ------------------------------------------------------------ packets

    async def lease(
        self,
        worker: str,
        number: int,
        ran: Sequence[tuple[int, int, int, float, str]],
        opened: Sequence[tuple[int, int, int, int, Sequence[int]]],
        wait: float,
        left: float,
    ) -> dict[str, Any]:
        """The worker's next packets: ``{query, count, packets, files}``, or nothing of that.

        ``ran``: packets run since the last message, as (query, packet, entries, seconds, source site).
        ``opened``: as in the message of that name; ``void`` in the answer is that message's answer. Waits up
        to ``wait`` s for something to do. ``files`` are those of the packets, as (index, description).
        ``left``: seconds that the worker has; ``{leave: True}`` if that is too little for anything there is.
        """
        return await self._once(worker, number, self._lease(worker, ran, opened, wait, left))

    async def begin(self, worker: str, query: int, packet: int) -> bool:
        """Whether to run a ``solo`` packet that waited behind another one; False: it was taken back."""
        running = self._state.in_phase(query)
        return running is not None and running.active.begin(worker, packet, time.monotonic())

    async def late(self, worker: str, query: int, packet: int, stuck: float) -> bool:
        """Whether to go on with a packet that takes long, and has been at one entry for ``stuck`` s."""
        running = self._state.in_phase(query)
        if running is None:
            return False
        wanted = running.active.late(worker, packet, time.monotonic(), stuck)
        if running.active.error:
            self._state.settle(running)
        return wanted

    async def opened(
        self, worker: str, number: int, opened: Sequence[tuple[int, int, int, int, Sequence[int]]]
    ) -> list[tuple[int, int]]:
        """What was learnt of files, as (query, packet, its last entry, entries, clusters).

        Answers the packets (query, packet) that are to be thrown away: somebody else has them.
        """
        return await self._once(worker, number, self._opened(worker, opened))

    async def fail(
        self,
        worker: str,
        number: int,
        query: int,
        packet: int,
        released: Sequence[int],
        kind: str,
        reason: str,
        storage_elements: Sequence[str],
    ) -> None:
        """A packet could not be run; see `Query.fail`."""
        await self._once(
            worker, number, self._fail(worker, query, packet, released, kind, reason, storage_elements)
        )

    # ------------------------------------------------------------ commits

    async def admit(self, worker: str) -> bool:
        """Whether a worker may send large outputs now; it waits here for its turn, and asks again."""
        if worker not in self._admitted:
            try:
                await asyncio.wait_for(self._room.acquire(), LONGEST_WAIT)
            except (TimeoutError, asyncio.TimeoutError):
                return False
            self._admitted.add(worker)
            if worker not in self._state.workers:
                self._leave_room(worker)
        return True

    async def upload(self, worker: str, query: int, upload: str, offset: int, data: bytes) -> None:
        """A chunk of an output file, under a name of its own; the commit it belongs to follows."""
        running = self._state.in_phase(query)
        if running is None:
            return
        running.received_bytes += len(data)
        try:
            await self._state.merge.run(running.merger.spool.write, worker, upload, offset, data)
        except MergeError as error:
            running.state.error = error
            self._state.settle(running)

    async def commit(
        self,
        worker: str,
        incarnation: str,
        query: int,
        sequence: int,
        packets: Sequence[int],
        delta: bytes,
        classes: Sequence[str],
        files: Uploaded,
        bytes_read: int,
        local_bytes: int,
    ) -> dict[str, Any]:
        """Outputs of some packets; answers whether they became part of the result (``accepted``), and how
        many seconds apart this worker's commits are to be at least (``interval``)."""
        commit = Commit(worker, incarnation, sequence, packets, delta, classes, files)
        try:
            running = self._state.in_phase(query)
            if running is None:
                return {"accepted": self._was_accepted(query, incarnation, sequence), "interval": 0.0}
            running.received_bytes += len(delta)
            if running.counting is not None:
                verdict = running.counting.claim(worker, incarnation, sequence, packets)
            else:
                verdict = await self._commit(running, commit)
                if verdict.accepted and not verdict.repeated:
                    running.state.tally.bytes_read += bytes_read
                    running.state.tally.local_bytes += local_bytes
            self._state.settle(running)
            if not verdict.accepted:
                self._state.merge.soon(running.merger.spool.drop, [upload for _, upload, _ in files])
            if verdict.orphans:
                self._state.work.tell()
            return {
                "accepted": verdict.accepted,
                "interval": running.commit_interval(len(self._state.workers)),
            }
        finally:
            self._leave_room(worker)

    # ------------------------------------------------------------ code

    async def query(self, query: int) -> dict[str, Any] | None:
        """What a worker needs to run a query's packets, once; None if it is over.

        ``interval``: as in `commit`'s answer; ``ask``: seconds between its messages `late`, at least.
        """
        running = self._state.in_phase(query)
        if running is None:
            return None
        keys = ("selector", "loads", "class_name", "option", "input", "feedback", "commit")
        described = {
            **{key: running.spec[key] for key in keys},
            "tree": running.parts[0].tree,
            "friends": len(running.parts) > 1,
            "interval": running.commit_interval(len(self._state.workers)),
            "ask": self._pause(),
        }
        return running.sending(described)

    async def layout(self, query: int) -> list[dict[str, Any]]:
        """Where entries lie in a query with friends: per dataset, the main one first, files and entries."""
        running = self._state.in_phase(query)
        return running.sending([part.layout() for part in running.parts]) if running else []

    async def bundle(self, query: int, key: str) -> dict[str, Any] | None:
        """Code of a query by its key; None if the query is over."""
        running = self._state.in_phase(query)
        return running.sending(self._state.bundles[key].to_message()) if running else None

    # ------------------------------------------------------------ inside

    async def _once(self, worker: str, number: int, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Do a worker's message, unless it is done or being done already."""
        answers = self._answers.setdefault(worker, {})
        if number in answers:
            work.close()
            known: _Answer = await asyncio.shield(answers[number])
            return known
        kept = answers[number] = asyncio.get_running_loop().create_future()
        if len(answers) > ANSWERS_KEPT:
            del answers[next(iter(answers))]
        try:
            answer = await work
        except BaseException:
            answers.pop(number, None)
            kept.cancel()
            raise
        kept.set_result(answer)
        return answer

    async def _lease(
        self,
        worker: str,
        ran: Sequence[tuple[int, int, int, float, str]],
        opened: Sequence[tuple[int, int, int, int, Sequence[int]]],
        wait: float,
        left: float,
    ) -> dict[str, Any]:
        state = self._state
        for query, packet, entries, seconds, source in ran:
            running = state.in_phase(query)
            if running is not None:
                running.active.ran(worker, packet, entries, seconds, source)
        void = await self._opened(worker, opened)
        asked = time.monotonic()
        patience, deadline, ends = asked + HELP_SECONDS, asked + min(wait, LONGEST_WAIT), asked + left
        answer: dict[str, Any] = {}
        while worker in state.workers and worker not in self._leaving:
            now = time.monotonic()
            answer = self._next_packets(worker, now, now < patience, ends)
            if answer or now >= deadline:
                break
            await state.work.wait(min(deadline, now + self._pause()))
        return {**answer, "void": void} if void else answer

    def _next_packets(self, worker: str, now: float, patient: bool, ends: float) -> dict[str, Any]:
        """From the query whose turn it is."""
        in_flight = {number: running for number, running in self._state.queries.items() if not running.over}
        for number in self._sharing.order(worker, in_flight, now):
            running = in_flight[number]
            try:
                packets = running.lease(worker, now, patient, ends)
            except Exception as error:  # a fault of the master's own must end its query, not the workers
                running.state.error = QueryError(f"the master failed: {type(error).__name__}: {error}")
                self._state.settle(running)
                continue
            if packets:
                self._sharing.works(worker, number, now)
                answer = {
                    "query": running.phase,
                    "count": running.phase < 0,
                    "packets": [packet.to_message() for packet in packets],
                    "files": [(i, running.file(i)) for i in {packet.file for packet in packets}],
                }
                return running.sending(answer)
        self._sharing.rests(worker)
        late = any(running.active.short_of_time(worker) for running in in_flight.values())
        return {"leave": True} if late else {}

    def _pause(self) -> float:
        """Seconds between what each worker asks again and again."""
        return max(LOOK_AROUND, len(self._state.workers) / LOOKS_PER_SECOND)

    async def _opened(
        self, worker: str, opened: Sequence[tuple[int, int, int, int, Sequence[int]]]
    ) -> list[tuple[int, int]]:
        void = []
        for query, packet, last, entries, clusters in opened:
            running = self._state.in_phase(query)
            if running is None or not running.opened(worker, packet, last, entries, clusters):
                void.append((query, packet))
            elif last < entries:
                self._state.work.tell()
        return void

    async def _fail(
        self,
        worker: str,
        query: int,
        packet: int,
        released: Sequence[int],
        kind: str,
        reason: str,
        storage_elements: Sequence[str],
    ) -> None:
        running = self._state.in_phase(query)
        if running is not None:
            running.fail(worker, packet, released, kind, reason, storage_elements)
            if kind == "changed":
                self._state.known.forget(running.identities())
            self._state.settle(running)
            self._state.work.tell()

    async def _commit(self, running: Running, commit: Commit) -> Verdict:
        async with running.merging:
            try:
                known = running.state.known(commit.incarnation, commit.sequence)
                return known or await self._merge_commit(running, commit)
            except MergeError as error:
                running.state.error = error.with_traceback(None)  # which holds the outputs
                return Verdict(False)

    def _was_accepted(self, query: int, incarnation: str, sequence: int) -> bool:
        """The answer that was given to the same commit before the query was over."""
        running = self._state.queries.get(query)
        verdict = running.state.known(incarnation, sequence) if running else None
        return verdict is not None and verdict.accepted

    async def _merge_commit(self, running: Running, commit: Commit) -> Verdict:
        merge, worker, packets = self._state.merge, commit.worker, commit.packets
        began = time.monotonic()
        try:
            objects = await merge.run(running.merger.decode, commit.delta, commit.classes, commit.files)
        except MergeError:
            running.bad_commits += 1
            if running.bad_commits > BACKOFF_COMMITS:
                raise
            running.state.fail(worker, packets[0], packets, "stopped", "the outputs were unreadable", ())
            self._state.work.tell()
            return Verdict(False)
        if running.over or worker not in self._state.workers:
            return Verdict(False)
        verdict = running.state.claim(worker, commit.incarnation, commit.sequence, packets)
        if verdict.accepted:
            await merge.run(running.merger.merge, objects, commit.files)
            running.merges += 1
        running.merged(time.monotonic() - began)
        return verdict

    def _leave_room(self, worker: str) -> None:
        if worker in self._admitted:
            self._admitted.discard(worker)
            self._room.release()
