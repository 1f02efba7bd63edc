"""A worker's loop: pull packets, run them, commit; always one lease ahead of the master."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .bundle import Bundle
from .code import StaleCode
from .committer import Committer
from .masterlink import Channel, MasterLink
from .memory import MemoryGuard
from .notes import note
from .packets import Packet
from .runner import Delta, Failure, PacketFailed, Runner
from .watch import Attempt, Pace, Watch

LEASE_WAIT = 10.0
COMMITS_LEFT = 3.0  # before a worker's end there must be time for so many
QUERIES_KNOWN = 4  # descriptions kept of queries that may come back

Opening = tuple[int, int, int, int, Sequence[int]]  # query, packet, last entry, entries, clusters


@dataclass
class _Lease:
    query: int
    count: bool
    work: list[tuple[Packet, Mapping[str, Any]]]  # what has not been begun, with its files
    ahead: bool  # asked for while another one was worked at


@dataclass(frozen=True)
class _Described:
    query: Mapping[str, Any]
    layout: list[Mapping[str, Any]] = field(default_factory=list)


class WorkerLoop:
    """Runs packets of whatever query the master gives, until cancelled or told to `leave`.

    ``address`` is what the master knows this worker by, ``name`` is its incarnation's own: no other process
    ever has it. ``ends``: when it has to have committed everything (epoch seconds).

    Raises (from `run`):
        StaleCode: a fresh process must take over; nothing is left uncommitted.
        Unfit: the same, and at once: a thread may still be busy.
        ConnectionError: the master is gone.
    """

    def __init__(
        self,
        channel: Channel,
        address: str,
        name: str,
        make_runner: Callable[[], Runner],
        memory: MemoryGuard,
        pace: Pace,
        ends: float = math.inf,
    ) -> None:
        self._master = MasterLink(channel, address)
        self._name = name
        self._make_runner = make_runner
        self._memory = memory
        self._pace = pace
        self._ends = ends
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="root")
        self._runner: Runner  # these three are made in `run`: a runner in its own thread
        self._watch: Watch
        self._committer: Committer
        self._query = 0
        self._known: dict[int, _Described] = {}
        self._code: set[str] = set()  # keys of bundles that are loaded
        self._file = -1
        self._ran: list[tuple[int, int, int, float, str]] = []
        self._openings: list[Opening] = []  # not told yet
        self._void: set[tuple[int, int]] = set()  # (query, packet) taken back after they were opened
        self._lease: _Lease | None = None
        self._next: asyncio.Task[_Lease | None] | None = None
        self._next_tells = False  # it has openings in it
        self._telling: asyncio.Task[None] | None = None  # of openings that could not wait for a lease
        self._introduced = False
        self._leaving = False
        self._goodbye: asyncio.Future[None] | None = None

    def leave(self) -> None:
        """Take no further packet, finish and commit what was begun, and return from `run`.

        In the loop's thread. The master is told at once: it answers a lease that waits, and should this
        process be killed before it is done that will not be taken for the selector's fault.
        """
        if not self._leaving:
            note("leaves: takes no further packet")
        self._leaving = True
        if self._introduced and self._goodbye is None:
            self._goodbye = asyncio.ensure_future(self._master.ask("leave"))

    async def run(self, site: str, host: str, pid: int) -> None:
        """Introduce this worker and work, until told to leave."""
        self._runner = await self._do(self._make_runner)
        self._watch = Watch(
            self._master, self._memory, self._pace, self._runner.stop, self._runner.entry, self._held
        )
        self._committer = Committer(self._master, self._name, self._runner)
        await self._master.ask("hello", name=self._name, site=site, host=host, pid=pid)
        self._introduced = True
        note(f"ready at {site} ({host}), pid {pid}")
        tasks = [
            asyncio.ensure_future(each) for each in (self._work(), self._watch.memory(), self._watch.time())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    # ------------------------------------------------------------ leases

    async def _work(self) -> None:
        while not self._leaving:
            self._lease = await self._next if self._next else None
            self._next = None
            if self._lease is None:  # by now there may be more, of a file that was opened meanwhile
                self._lease = await self._ask(0.0)
            if self._lease is None:
                await self._commit()
                self._lease = None if self._leaving else await self._ask(LEASE_WAIT)
                if self._lease is None:
                    continue
            if self._lease.count or self._lease.work[0][0].last >= 0:
                self._ask_ahead()
            try:
                await self._run(self._lease)
            except StaleCode:
                await self._release("a fresh process takes over")
                raise
        await self._commit()
        await self._release("its worker leaves")
        if self._goodbye is not None:
            await self._goodbye

    def _ask_ahead(self) -> None:
        """Ask for the next lease, once: when work begins, or when its file is open and can be told of, so
        that the next packets are of the same file."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask(0.0, ahead=True))

    async def _ask(self, wait: float, ahead: bool = False) -> _Lease | None:
        ran, self._ran = self._ran, []
        openings, self._openings = self._openings, []
        self._next_tells = bool(openings)
        left = self._ends - time.time() - COMMITS_LEFT * self._committer.seconds
        answer = await self._master.once("lease", ran=ran, opened=openings, wait=wait, left=left)
        self._void.update(map(tuple, answer.get("void", ())))
        if answer.get("leave") and not ahead:
            self.leave()
        if not answer.get("packets"):
            return None
        files = dict(answer["files"])
        packets = map(Packet.from_message, answer["packets"])
        work = [(packet, files[packet.file]) for packet in packets]
        return _Lease(answer["query"], answer["count"], work, ahead)

    async def _run(self, lease: _Lease) -> None:
        if lease.count:
            await self._count(lease)
            return
        if lease.query != self._query and not await self._take_up(lease):
            return
        if len(lease.work) > 1:
            await self._do(self._runner.locate, [file for _, file in lease.work])
        waited = lease.ahead
        while lease.work and not self._leaving:
            packet, file = lease.work.pop(0)
            if packet.solo and waited and not await self._may_begin(lease.query, packet):
                continue
            waited = True
            if not await self._handle(lease.query, packet, file):
                return

    def _held(self) -> list[int]:
        """The packets of the query at hand that this worker answers for."""
        leases = [self._lease, self._next.result() if self._next and self._next.done() else None]
        waiting = [
            packet.id
            for lease in leases
            if lease is not None and lease.query == self._query
            for packet, _ in lease.work
        ]
        return [*self._runner.uncommitted, *waiting]

    async def _release(self, why: str) -> None:
        """Give back what has not begun, before this process ends."""
        leases = [self._lease, await self._next if self._next else None]
        for lease in leases:
            if lease is not None and lease.work:
                released = [packet.id for packet, _ in lease.work]
                await self._fail(lease.query, released[0], released[1:], Failure("stopped", why))
        await self._committer.settle()

    # ------------------------------------------------------------ packets

    async def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _take_up(self, lease: _Lease) -> bool:
        """Change over to a lease's query; False if it is over or cannot be run."""
        await self._commit()
        self._query = 0
        if self._memory.crowded:  # by queries that are over, as a rule
            raise StaleCode("the memory that earlier queries have left behind")
        described = self._known.get(lease.query) or await self._describe(lease.query)
        if described is None:
            return False
        query = described.query
        keys = [*query["loads"], *([query["selector"]] if query["selector"] else [])]
        missing = [key for key in keys if key not in self._code]
        bundles = [await self._master.look_up("bundle", query=lease.query, key=key) for key in missing]
        if None in bundles:
            return False
        code = [Bundle.from_message(bundle) for bundle in bundles]
        try:
            await self._do(self._runner.begin, query, code)
        except PacketFailed as failed:
            await self._fail(lease.query, lease.work[0][0].id, (), failed.failure)
            return False
        note(f"query {lease.query}: {query['class_name']}")
        self._code.update(missing)
        self._query = lease.query
        self._committer.begin(lease.query, query)
        self._watch.ask = max(self._pace.ask, query["ask"])
        return True

    async def _describe(self, number: int) -> _Described | None:
        query = await self._master.look_up("query", query=number)
        if query is None:
            return None
        layout = await self._master.look_up("layout", query=number) if query["friends"] else []
        self._known[number] = _Described(query, layout)
        if len(self._known) > QUERIES_KNOWN:
            del self._known[next(iter(self._known))]
        return self._known[number]

    async def _handle(self, query: int, packet: Packet, file: Mapping[str, Any]) -> bool:
        """Run a packet; False if the query's others need not be tried."""
        layout = self._known[query].layout
        alone = packet.solo
        if alone or (layout and packet.file != self._file):
            # With friends an instance keeps to one file: ROOT's readers confuse friends of two trees.
            await self._commit()
        self._file = packet.file
        at_risk = self._runner.uncommitted
        try:
            await self._process(query, packet, file, layout)
        except PacketFailed as failed:
            await self._fail(query, packet.id, at_risk, failed.failure)
            return failed.failure.kind not in ("selector", "memory")
        if alone or self._committer.due(time.monotonic()):
            await self._commit()
        return True

    async def _process(
        self, query: int, packet: Packet, file: Mapping[str, Any], layout: Sequence[Mapping[str, Any]]
    ) -> None:
        loop = asyncio.get_running_loop()

        def opened(last: int, entries: int, clusters: list[int]) -> None:
            loop.call_soon_threadsafe(self._opened, (query, packet.id, last, entries, clusters))

        fresh = not self._runner.uncommitted
        self._runner.stop(False)
        attempt = self._watch.attempt = Attempt(query, packet.id)
        try:
            entries, seconds, source = await self._do(self._runner.run, packet, file, opened, layout)
        finally:
            self._watch.attempt = None
            self._ask_ahead()
        if fresh:
            self._committer.began = attempt.began
        if attempt.called_off or (query, packet.id) in self._void:
            raise PacketFailed(Failure("stopped", "the packet was taken back"))
        self._ran.append((query, packet.id, entries, seconds, source))

    async def _count(self, lease: _Lease) -> None:
        """Learn the entries of files, and commit that."""
        await self._commit()
        await self._do(self._runner.locate, [file for _, file in lease.work])
        counted = []
        while lease.work and not self._leaving:
            packet, file = lease.work.pop(0)
            try:
                self._watch.attempt = Attempt(lease.query, packet.id)
                entries, clusters = await self._do(self._runner.count, file, packet.avoid)
            except PacketFailed as failed:
                await self._fail(lease.query, packet.id, (), failed.failure)
                continue
            finally:
                self._watch.attempt = None
            self._openings.append((lease.query, packet.id, entries, entries, clusters))
            counted.append(packet.id)
        await self._acknowledge()
        good = [packet for packet in counted if (lease.query, packet) not in self._void]
        await self._committer.counted(lease.query, good)

    # ------------------------------------------------------------ what the master is told

    async def _may_begin(self, query: int, packet: Packet) -> bool:
        return bool(await self._master.ask("begin", query=query, packet=packet.id))

    def _opened(self, opening: Opening) -> None:
        self._openings.append(opening)
        _, _, last, entries, _ = opening
        if self._next is None:
            self._ask_ahead()
        elif last < entries:  # others can help with the rest of the file
            self._telling = asyncio.create_task(self._tell(self._telling))

    async def _tell(self, before: asyncio.Task[None] | None = None) -> None:
        if before is not None:
            await before
        if self._openings:
            openings, self._openings = self._openings, []
            self._void.update(map(tuple, await self._master.once("opened", opened=openings)))

    async def _acknowledge(self) -> None:
        """Know of every file that was opened whether the master took it that way."""
        if self._next is not None and self._next_tells:
            await asyncio.shield(self._next)
        telling, self._telling = self._telling, None
        await self._tell(telling)

    async def _commit(self) -> None:
        """Send what the open instance has."""
        packets = self._runner.uncommitted
        if not packets:
            return
        await self._acknowledge()
        try:
            if self._void.intersection((self._query, packet) for packet in packets):
                raise PacketFailed(Failure("stopped", "a packet was taken back"))
            delta = await self._finish(packets[-1])
        except PacketFailed as failed:
            await self._fail(self._query, packets[-1], packets, failed.failure)
        else:
            await self._committer.commit(delta)
        self._void.clear()

    async def _finish(self, last: int) -> Delta:
        """End the open instance, which has run the packet ``last``; its end may hang or starve too."""
        self._watch.attempt = Attempt(self._query, last)
        try:
            delta: Delta = await self._do(self._runner.finish)
        finally:
            self._watch.attempt = None
        return delta

    async def _fail(self, query: int, packet: int, at_risk: Sequence[int], failure: Failure) -> None:
        """Report a failed packet; those that its instance had run before did not happen either."""
        if failure.kind != "stopped":
            note(f"query {abs(query)}: {failure.kind}: {failure.reason}")
        await self._do(self._runner.discard)
        await self._master.once(
            "fail",
            query=query,
            packet=packet,
            released=list(at_risk),
            kind=failure.kind,
            reason=failure.reason,
            storage_elements=list(failure.storage_elements),
        )
