"""The master's answers to the client: queries are submitted, followed and cancelled, results fetched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...errors import QueryCancelled, QueryError
from ..merge import RESULT
from ..notes import note
from .parts import Part
from .running import Running
from .state import LONGEST_WAIT, State

CHUNK = 16 << 20  # bytes of a result in one answer


class ForClients:
    """Each public coroutine is a message of the client's."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._ids = 0

    async def workers(self, at_least: int, wait: float) -> list[dict[str, Any]]:
        """The workers that are ready, once there are ``at_least`` so many or after ``wait`` s."""
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        while len(self._state.workers) < at_least and await self._state.status.wait(deadline):
            pass
        return [vars(worker) for worker in self._state.workers.values()]

    async def load(self, bundle: Mapping[str, Any]) -> None:
        """Code for every worker, now and later."""
        key = self._state.keep(bundle)
        if key not in self._state.loads:
            self._state.loads.append(key)

    async def submit(self, spec: Mapping[str, Any]) -> int:
        """Start a query; answers its number.

        ``spec``: ``selector`` (a bundle or None), ``class_name``, ``option``, ``input`` (bytes of a TList),
        ``on_missing``, ``feedback`` (s), ``commit`` (``"interval"`` or ``"end"``), ``title``, and
        ``parts``: the dataset and its friends, each with ``tree``, ``alias`` and ``files`` (``name``,
        ``kind``, ``size``, ``replicas``, and where known ``hosts`` that hold it).
        """
        state = self._state
        self._ids += 1
        number = self._ids  # others may be submitted while this one waits for the merge thread
        selector = state.keep(spec["selector"]) if spec["selector"] else ""
        parts = [Part(part["tree"], part["alias"], part["files"]) for part in spec["parts"]]
        known = await state.known.find([key for part in parts for key in part.identities()])
        for part in parts:
            part.recall(known)
        kept = {**spec, "selector": selector, "loads": list(state.loads)}
        code = [state.bundles[key] for key in [*state.loads, *([selector] if selector else [])]]
        merger = await state.merge.run(state.merge.merger, number, code)
        running = Running(number, kept, parts, merger)
        for worker in state.workers.values():
            running.join(worker.address, worker.site, worker.host)
        state.queries[number] = running
        count = len(parts[0].files)
        plural = "s" if count != 1 else ""
        note(f"query {number}, {spec['title'] or spec['class_name']}: {count} file{plural}")
        state.settle(running)
        state.work.tell()
        return number

    async def queries(self) -> list[dict[str, Any]]:
        """All queries that are not forgotten: who they are, and their states as `follow` gives them."""
        names, workers = self._state.names, len(self._state.workers)
        return [{**r.about(), **r.status(names, workers)} for r in self._state.queries.values()]

    async def origin(self, query: int) -> dict[str, Any]:
        """What makes an instance of a query's selector: bundles, class, option, input."""
        spec = self._known(query).spec
        keys = [*spec["loads"], *([spec["selector"]] if spec["selector"] else [])]
        bundles = [self._state.bundles[key].to_message() for key in keys]
        return {"bundles": bundles, **{key: spec[key] for key in ("class_name", "option", "input")}}

    async def follow(self, query: int, version: int, wait: float) -> dict[str, Any]:
        """How a query fares, once it is newer than ``version`` or after ``wait`` s."""
        running = self._known(query)
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        while running.version <= version and not running.is_complete:
            if not await self._state.status.wait(deadline):
                break
        return running.status(self._state.names, len(self._state.workers))

    async def partial(self, query: int, version: int, wait: float) -> dict[str, Any]:
        """The outputs merged so far, once there is more than at ``version`` or after ``wait`` s.

        Answers ``{version, data}``; ``version`` counts merged commits, ``data`` is None if there is no more.
        """
        running = self._known(query)
        deadline = time.monotonic() + min(wait, LONGEST_WAIT)
        while running.merges <= version and not running.over:
            if not await self._state.status.wait(deadline):
                break
        if running.merges <= version:
            return {"version": running.merges, "data": None}
        async with running.merging:
            if running.snapshot[0] != running.merges:
                data = await self._state.merge.run(running.merger.snapshot)
                running.snapshot = (running.merges, data)
            version, data = running.snapshot
        running.sent_bytes += len(data)
        return {"version": version, "data": data}

    async def result(self, query: int) -> dict[str, Any]:
        """The merged outputs of a query that is over: ``data`` is the beginning of a TList's ``size`` bytes.

        `fetch` gives the rest, under the name "", and what is in ``files``: names and sizes.
        """
        running = self._known(query)
        async with running.merging:
            sizes = await self._state.merge.run(running.merger.sizes)
            data = await self._state.merge.run(running.merger.read, RESULT, 0, CHUNK)
        running.sent_bytes += len(data)
        return {"size": sizes.pop(RESULT), "data": data, "files": list(sizes.items())}

    async def fetch(self, query: int, name: str, offset: int, size: int) -> bytes:
        """Bytes of an output file of a query that is over; at most `CHUNK`, fewer at its end."""
        running = self._known(query)
        data = bytes(await self._state.merge.run(running.merger.read, name, offset, min(size, CHUNK)))
        running.sent_bytes += len(data)
        return data

    async def cancel(self, query: int) -> None:
        """Stop a query; its workers learn it within a second or two, in the middle of a packet too."""
        running = self._state.in_flight(query)
        if running is not None:
            running.state.error = QueryCancelled("the query was cancelled")
            self._state.settle(running)

    async def forget(self, query: int) -> None:
        """The client has what it wants."""
        self._state.forget(query)

    def _known(self, query: int) -> Running:
        try:
            return self._state.queries[query]
        except KeyError:
            raise QueryError(f"query {query} is not known to the master: it was forgotten") from None
