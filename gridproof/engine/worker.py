"""A worker's loop: pull a packet, run it, commit; always one packet ahead of the master."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from .bundle import Bundle
from .code import StaleCode
from .packets import Packet
from .runner import Delta, Failure, PacketFailed, Runner

FEEDBACK_SECONDS = 1.0
COMMIT_COSTS = 20.0  # a commit comes no oftener than so many times what it costs the worker
LEASE_WAIT = 10.0


class Channel(Protocol):
    """The master's messages (see `Master`) by some transport; each call gives the answer."""

    def __getattr__(self, message: str) -> Callable[..., Awaitable[Any]]: ...


class WorkerLoop:
    """Runs packets of whatever query the master gives, until cancelled.

    ``address`` is what the master knows this worker by, ``name`` is its incarnation's own: no other process
    ever has it.

    Raises (from `run`):
        StaleCode: a fresh process must take over; nothing is left uncommitted.
        ConnectionError: the master is gone.
    """

    def __init__(self, channel: Channel, address: str, name: str, make_runner: Callable[[], Runner]) -> None:
        self._channel = channel
        self._address = address
        self._name = name
        self._make_runner = make_runner
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="root")
        self._runner: Runner  # made in its own thread, by run()
        self._query = 0
        self._layout: list[Mapping[str, Any]] = []
        self._file = -1
        self._sequence = 0
        self._leases = 0
        self._ran: list[tuple[int, int, int, float, str]] = []
        self._began = 0.0  # when the open instance began
        self._sending: asyncio.Task[None] | None = None

    async def run(self, site: str, host: str, pid: int) -> None:
        """Introduce this worker and work."""
        self._runner = await self._do(self._make_runner)
        await self._channel.hello(worker=self._address, name=self._name, site=site, host=host, pid=pid)
        work: Mapping[str, Any] = {}
        while True:
            if not work:
                await self._commit()
                work = await self._lease(LEASE_WAIT)
                continue
            ahead = asyncio.create_task(self._lease(0))
            try:
                packets = [Packet.from_message(packet) for packet in work["packets"]]
                for packet, file in zip(packets, work["files"], strict=True):
                    await self._handle(int(work["query"]), packet, file, work["count"])
            except BaseException:
                ahead.cancel()
                raise
            work = await ahead

    # ------------------------------------------------------------ inside

    async def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _lease(self, wait: float) -> Mapping[str, Any]:
        ran, self._ran = self._ran, []
        self._leases += 1
        answer: Mapping[str, Any] = await self._channel.lease(
            worker=self._address, number=self._leases, ran=ran, wait=wait
        )
        return answer

    async def _handle(self, query: int, packet: Packet, file: Mapping[str, Any], count: bool) -> None:
        at_risk: tuple[int, ...] = ()
        try:
            if count:
                await self._count(query, packet, file)
                return
            if query != self._query:
                await self._commit()
                if not await self._take_up(query):
                    return
            if packet.solo or (self._layout and packet.file != self._file):
                # With friends an instance keeps to one file: ROOT's readers confuse friends of two trees.
                await self._commit()
            self._file = packet.file
            at_risk = self._runner.uncommitted
            await self._process(packet, file)
            if packet.solo or time.monotonic() - self._began > self._commit_interval():
                await self._commit()
        except PacketFailed as failed:
            await self._fail(query, packet, at_risk, failed.failure)
        except StaleCode:
            await self._fail(query, packet, (), Failure("stopped", "a fresh process takes over"))
            await self._settle_sending()
            raise

    async def _take_up(self, query: int) -> bool:
        described = await self._channel.query(query=query)
        if described is None:
            return False
        keys = [*described["loads"], *([described["selector"]] if described["selector"] else [])]
        code = [Bundle.from_message(await self._channel.bundle(key=key)) for key in keys]
        await self._do(self._runner.begin, described, code)
        self._layout = await self._channel.layout(query=query) if described["friends"] else []
        self._query = query
        return True

    async def _count(self, query: int, packet: Packet, file: Mapping[str, Any]) -> None:
        entries = await self._do(self._runner.count, file, packet.avoid)
        good = await self._channel.opened(
            worker=self._address, query=query, packet=packet.id, last=entries, entries=entries, clusters=[]
        )
        if good:
            await self._send(query, Delta((packet.id,), b"", (), 0, 0))

    async def _process(self, packet: Packet, file: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        told: list[asyncio.Task[bool]] = []

        def opened(last: int, entries: int, clusters: list[int]) -> None:
            def tell() -> None:
                told.append(
                    asyncio.ensure_future(
                        self._channel.opened(
                            worker=self._address,
                            query=self._query,
                            packet=packet.id,
                            last=last,
                            entries=entries,
                            clusters=clusters,
                        )
                    )
                )

            loop.call_soon_threadsafe(tell)

        fresh = not self._runner.uncommitted
        began = time.monotonic()
        entries, seconds, source = await self._do(self._runner.run, packet, file, opened, self._layout)
        if fresh:
            self._began = began
        for task in told:
            if not await task:  # the master has given the packet to somebody else
                raise PacketFailed(Failure("stopped", "the packet was taken back"))
        self._ran.append((self._query, packet.id, entries, seconds, source))

    def _commit_interval(self) -> float:
        return max(FEEDBACK_SECONDS, COMMIT_COSTS * self._runner.instance_cost)

    async def _commit(self) -> None:
        """Send what the open instance has; at most one commit is under way."""
        packets = self._runner.uncommitted
        if not packets:
            return
        try:
            delta = await self._do(self._runner.finish)
        except PacketFailed as failed:
            await self._channel.fail(
                worker=self._address,
                query=self._query,
                packet=packets[-1],
                released=list(packets),
                kind=failed.failure.kind,
                reason=failed.failure.reason,
                storage_elements=[],
            )
            return
        if delta is not None:
            await self._settle_sending()
            self._sending = asyncio.create_task(self._send(self._query, delta))

    async def _settle_sending(self) -> None:
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await sending

    async def _send(self, query: int, delta: Delta) -> None:
        self._sequence += 1
        await self._channel.commit(
            worker=self._address,
            incarnation=self._name,
            query=query,
            sequence=self._sequence,
            packets=list(delta.packets),
            delta=delta.data,
            classes=list(delta.classes),
            bytes_read=delta.bytes_read,
            local_bytes=delta.local_bytes,
        )

    async def _fail(self, query: int, packet: Packet, at_risk: tuple[int, ...], failure: Failure) -> None:
        """Report a failed packet; those that its instance had run before did not happen either."""
        await self._do(self._runner.discard)
        await self._channel.fail(
            worker=self._address,
            query=query,
            packet=packet.id,
            released=list(at_risk),
            kind=failure.kind,
            reason=failure.reason,
            storage_elements=list(failure.storage_elements),
        )
