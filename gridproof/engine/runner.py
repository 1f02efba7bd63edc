"""Packets run in this process: open trees, one selector instance, their failures. Blocking, one thread."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import GridproofError
from . import runtime
from .bundle import Bundle
from .code import CodeStore
from .outputs import OutputDirectory, WrittenFile
from .packets import Packet, cut
from .replicas import Attempts, Preference, Replica, Resolver, shown

MOST_CLUSTERS = 2_000  # boundaries told to the master for one file
TREES_KEPT_OPEN = 2


@dataclass(frozen=True)
class Failure:
    """Why a packet was not run; as in `Query.fail`."""

    kind: str
    reason: str
    storage_elements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delta:
    """Outputs of one selector instance."""

    packets: tuple[int, ...]
    data: bytes
    classes: tuple[str, ...]
    bytes_read: int
    local_bytes: int
    files: tuple[WrittenFile, ...] = ()


class PacketFailed(Exception):
    """Carries a `Failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class _Tree:
    source: Any  # gridproof::Source
    replica: Replica
    local: bool
    to_blame: tuple[str, ...]  # storage elements, should it not be readable after all


@dataclass
class _Running:
    """The open selector instance and what it has run."""

    instance: Any
    packets: list[int] = field(default_factory=list)
    bytes_read: int = 0
    local_bytes: int = 0


class Runner:
    """Runs packets of one query at a time.

    ``site``: where this worker is; ``outputs``: where selectors write their files.
    """

    def __init__(self, cache: Path, resolve: Resolver, site: str, outputs: OutputDirectory) -> None:
        self._root = runtime.load_threaded()
        self._code = CodeStore(self._root, cache, renames=False)
        self._resolve = resolve
        self._preference = Preference(site)
        self._outputs = outputs
        self._query: Mapping[str, Any] = {}
        self._input: Any = None
        self._running: _Running | None = None
        self._trees: dict[tuple[str, str], _Tree] = {}  # by file and tree, the latest last
        self._stop = ctypes.c_bool.from_address(int(self._root.gridproof.StopAddress()))
        self._entry = ctypes.c_longlong.from_address(int(self._root.gridproof.CurrentEntryAddress()))
        self.instance_cost = 0.0  # seconds that the last instance cost apart from its packets

    # ------------------------------------------------------------ queries

    def begin(self, query: Mapping[str, Any], code: Sequence[Bundle]) -> None:
        """Take up a query; what an earlier one left open is closed.

        Raises:
            PacketFailed: the code cannot be made known here.
            StaleCode: only a fresh process can run it.
        """
        self.discard()
        self._close_trees()
        self._preference.forgive()
        try:
            for bundle in code:
                self._code.load(bundle)
        except GridproofError as error:
            raise PacketFailed(Failure("selector", str(error))) from None
        self._query = query
        self._input = runtime.unpack(self._root, query["input"]) if query["input"] else self._root.TList()

    # ------------------------------------------------------------ packets

    def stop(self, stop: bool = True) -> None:
        """End the packet that runs at its next entry, and further ones too until told otherwise.

        From any thread.
        """
        self._stop.value = stop

    def entry(self) -> int:
        """The entry that was begun last, in its file's numbering. From any thread."""
        return self._entry.value

    def locate(self, files: Sequence[Mapping[str, Any]]) -> None:
        """Find out in one go where files can be read, before they are opened one by one."""
        self._resolve(files)

    def count(self, file: Mapping[str, Any], avoid: Sequence[str]) -> tuple[int, list[int]]:
        """Entries of a file's tree, and the first ones of its clusters.

        Raises:
            PacketFailed: no replica can be read.
        """
        tree = self._open(file, file["tree"], avoid)
        return int(tree.source.Entries()), _clusters(tree)

    def run(
        self,
        packet: Packet,
        file: Mapping[str, Any],
        opened: Callable[[int, int, list[int]], None],
        layout: Sequence[Mapping[str, Any]],
    ) -> tuple[int, float, str]:
        """Run a packet in the open instance; returns entries, seconds and the site it was read at.

        ``opened(last, entries, clusters)`` is called when it was on this worker to find out; ``layout``
        has where entries lie if there are friends.

        Raises:
            PacketFailed: and the instance with all its uncommitted packets is gone.
        """
        try:
            tree = self._open(file, self._query["tree"], packet.avoid, layout, packet.file)
            expected, found = file.get("entries", -1), int(tree.source.Entries())
            if expected not in (-1, found):
                reason = f"its tree has {found} entries, not {expected} as was learnt before"
                raise PacketFailed(Failure("changed", reason, tree.to_blame))
            first, last = packet.first, packet.last
            if last < 0:
                clusters = _clusters(tree)
                last = cut(0, packet.limit, found, clusters)
                opened(last, found, clusters)
            running = self._instance()
            began = time.monotonic()
            outcome = running.instance.Process(tree.source, first, last)
            seconds = time.monotonic() - began
            if str(outcome.kind):
                self._close_trees()  # what is buffered of a bad read is not to be used again
                if str(outcome.kind) == "read":
                    self._preference.failed(tree.replica, str(outcome.message), time.monotonic())
                raise PacketFailed(Failure(str(outcome.kind), str(outcome.message), tree.to_blame))
        except PacketFailed:
            self.discard()
            raise
        running.packets.append(packet.id)
        running.bytes_read += int(outcome.bytes)
        running.local_bytes += int(outcome.bytes) if tree.local else 0
        return last - first, seconds, tree.replica.site

    @property
    def uncommitted(self) -> tuple[int, ...]:
        """Packets of the open instance."""
        return tuple(self._running.packets) if self._running else ()

    def finish(self) -> Delta:
        """End the open instance's life and take its outputs; it has run something.

        Raises:
            PacketFailed: SlaveTerminate failed.
        """
        running, self._running = self._running, None
        assert running is not None
        began = time.monotonic()
        problem = str(running.instance.SlaveTerminate())
        if problem:
            raise PacketFailed(_blame(running.instance, problem))
        files = tuple(self._outputs.take(str(f.name), str(f.path)) for f in running.instance.files)
        for name in self._outputs.clear():
            reason = f"the selector has not added its gridproof::OutputFile {name} to fOutput, at the end"
            raise PacketFailed(Failure("selector", reason))
        try:
            data = runtime.to_bytes(running.instance.Output())
        except ValueError as error:
            raise PacketFailed(Failure("selector", f"{error}; at the end")) from None
        delta = Delta(
            tuple(running.packets),
            data,
            tuple(str(name) for name in running.instance.OutputClasses()),
            running.bytes_read,
            running.local_bytes,
            files,
        )
        del running
        self._release_trees()
        self.instance_cost += time.monotonic() - began
        return delta

    def discard(self) -> None:
        """Throw the open instance away."""
        if self._running is not None:
            self._running = None
            self._release_trees()
        self._outputs.clear()

    def close(self) -> None:
        """Close what is open."""
        self._close_trees()

    # ------------------------------------------------------------ inside

    def _instance(self) -> _Running:
        if self._running is None:
            began = time.monotonic()
            instance = self._root.gridproof.Make(
                self._query["class_name"], self._query["option"], self._input
            )
            problem = str(instance.problem) or str(instance.SlaveBegin())
            if problem:
                raise PacketFailed(_blame(instance, problem))
            self._running = _Running(instance)
            self.instance_cost = time.monotonic() - began
        return self._running

    def _open(
        self,
        file: Mapping[str, Any],
        tree_name: str,
        avoid: Sequence[str],
        layout: Sequence[Mapping[str, Any]] = (),
        index: int = 0,
    ) -> _Tree:
        key = (str(file["name"]), tree_name)
        known = self._trees.get(key)
        if known is not None and known.replica.storage_element not in avoid:
            known.source.StartBytes()
            return known
        attempts = Attempts(file, self._resolve, self._preference, avoid)
        for replica in attempts.start(time.monotonic()):
            source = self._root.gridproof.Open(replica.url, tree_name, int(file["size"]))
            problem = str(source.problem).replace(replica.url, shown(replica))
            if str(source.kind) == "tree":
                raise PacketFailed(Failure("tree", problem))
            if str(source.kind):
                attempts.fail(replica, problem, time.monotonic())
                continue
            to_blame = (replica.storage_element, *attempts.failed)
            tree = _Tree(source, replica, self._preference.is_local(replica), to_blame)
            if layout:
                self._befriend(tree, layout, index)
            self._trees.pop(key, None)
            while len(self._trees) >= TREES_KEPT_OPEN:
                del self._trees[next(iter(self._trees))]
            self._trees[key] = tree
            return tree
        raise PacketFailed(Failure("read", attempts.reason, tuple(attempts.failed)))

    def _befriend(self, tree: _Tree, layout: Sequence[Mapping[str, Any]], index: int) -> None:
        """Attach the friends' files that lie beside this file's entries."""
        offset = sum(layout[0]["entries"][:index])
        end = offset + int(tree.source.Entries())
        friends = self._root.std.vector["gridproof::FriendFiles"]()
        for part in layout[1:]:
            described = self._root.gridproof.FriendFiles()
            described.tree, described.alias = part["tree"], part["alias"]
            beside: list[Mapping[str, Any]] = []
            start = 0
            for file, entries in zip(part["files"], part["entries"], strict=True):
                if entries and start < end and start + entries > offset:
                    if not beside:
                        described.lead = offset - start
                    beside.append(file)
                    described.entries.push_back(entries)
                start += entries
            for file, located in zip(beside, self._resolve(beside), strict=True):
                if not located.replicas:
                    raise PacketFailed(Failure("read", f"{file['name']}: {located.problem}", tree.to_blame))
                replica = self._preference.order(located.replicas, (), time.monotonic())[0]
                tree.local = tree.local and self._preference.is_local(replica)
                described.urls.push_back(replica.url)
            friends.push_back(described)
        problem = str(tree.source.Befriend(tree.replica.url, friends))
        if problem:
            raise PacketFailed(Failure("read", problem, tree.to_blame))

    def _release_trees(self) -> None:
        if self._query.get("friends"):
            self._trees.clear()
        for tree in self._trees.values():
            tree.source.Release()

    def _close_trees(self) -> None:
        # A selector's readers are bound to the tree, so the instance goes first.
        self.discard()
        self._trees.clear()


def _clusters(tree: _Tree) -> list[int]:
    return [int(start) for start in tree.source.Clusters(MOST_CLUSTERS)]


def _blame(instance: Any, problem: str) -> Failure:
    return Failure("memory" if instance.starved else "selector", problem)
