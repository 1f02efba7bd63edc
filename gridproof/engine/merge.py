"""Deltas of commits merged into a query's outputs, by one thread of the master."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import CompileError, MergeError
from . import runtime
from .bundle import Bundle
from .code import CodeStore, StaleCode
from .spool import Spool, Uploaded, unlimited

RESULT = ""  # the name of the file that has the outputs in memory


class MergeThread:
    """ROOT in a thread of its own, in C++ and without Python's lock, so that workers are served meanwhile."""

    def __init__(self, cache: Path, scratch: Path, room: Callable[[], float] = unlimited) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="merge")
        self._cache = cache
        self._scratch = scratch
        self._room = room
        self._root: Any
        self._code: CodeStore

    async def start(self) -> None:
        """Load ROOT, in the thread; what it compiles for a first query it does soon after."""
        await self.run(self._load)
        self.soon(self._warm_up)

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """``call(*arguments)`` in the thread, after everything asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        """``call(*arguments)`` in the thread, after everything asked for before; nobody waits for it."""
        self._executor.submit(call, *arguments)

    def close(self) -> None:
        """Let go of the thread without waiting for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def merger(self, query: int, code: Sequence[Bundle]) -> Merger:
        """The outputs of a query; ``code`` is loaded when an output's class is not known here."""
        spool = Spool(self._root, self._scratch / f"query-{query}", self._room)
        return Merger(self._root, self._code, code, spool)

    def _load(self) -> None:
        runtime.return_memory()
        self._root = runtime.load_merging()
        self._code = CodeStore(self._root, self._cache, renames=False)

    def _warm_up(self) -> None:
        merger = self.merger(0, ())
        outputs = runtime.sample(self._root)
        for _ in range(2):
            merger.merge(merger.decode(outputs, ["TH1D"]))
        merger.snapshot()


class Merger:
    """The outputs of one query so far, its files in ``spool``.

    All methods but `warnings` run in the merge thread.
    """

    def __init__(self, root: Any, code: CodeStore, bundles: Sequence[Bundle], spool: Spool) -> None:
        self._root = root
        self._code = code
        self._bundles = bundles
        self._merger = root.gridproof.Merger()
        self._warnings: list[str] = []
        self._failed = ""  # why nothing can be had any more
        self.spool = spool

    def decode(self, data: bytes, classes: Iterable[str], files: Uploaded = ()) -> Any:
        """The delta's objects, whole and of known classes; its files are seen to be here.

        Raises:
            MergeError: the bytes are no list of objects, or a class cannot be had here.
        """
        self.spool.check(files)
        self._know(classes)
        try:
            return runtime.decode(self._root, data)
        except ValueError as error:
            raise MergeError(f"a worker's outputs cannot be read: {error}") from None

    def merge(self, delta: Any, files: Uploaded = ()) -> None:
        """Add a decoded delta, of which nothing is left, and the files that belong to it.

        Raises:
            MergeError: the result is worth nothing after this.
        """
        try:
            problem = str(self._merger.Merge(delta))
            self._warnings = [str(w) for w in self._merger.warnings]
            if problem:
                raise MergeError(f"the workers' outputs cannot be merged: {problem}")
            self.spool.merge(files)
        except MergeError as error:
            self._failed = str(error)
            raise

    def snapshot(self) -> bytes:
        """All outputs in memory as they are now.

        Raises:
            MergeError: a merge has failed.
        """
        self._check()
        if self._merger is None:
            return self.spool.read(RESULT, 0, self.spool.sizes()[RESULT])
        try:
            return runtime.to_bytes(self._merger.Output())
        except ValueError as error:
            raise MergeError(f"the merged outputs cannot be sent: {error}") from None

    def finish(self, good: bool) -> None:
        """Nothing comes any more: outputs go from memory into a file, and output files are completed.

        If the query did not end well (``good``) output files are removed.

        Raises:
            MergeError: the result is worth nothing, and its files are removed.
        """
        try:
            self._check()
            if good:
                self.spool.finish()
            else:
                self.spool.remove()
        except MergeError as error:
            self._failed = str(error)
            self.spool.remove()
            raise
        with suppress(MergeError):  # the disk is full: they stay in memory
            self.spool.keep(RESULT, self.snapshot())
            self._merger = None

    def sizes(self) -> dict[str, int]:
        """Names and bytes of the finished files; `RESULT` has the outputs in memory.

        Raises:
            MergeError: a merge has failed.
        """
        self._check()
        return (
            self.spool.sizes()
            if self._merger is None
            else {**self.spool.sizes(), RESULT: len(self.snapshot())}
        )

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Some bytes of a finished file; fewer at its end.

        Raises:
            MergeError: a merge has failed, or there is no such file.
        """
        self._check()
        if name == RESULT and self._merger is not None:
            return self.snapshot()[offset : offset + size]
        return self.spool.read(name, offset, size)

    def _check(self) -> None:
        if self._failed:
            raise MergeError(self._failed)

    def warnings(self) -> list[str]:
        """Outputs that could only be kept, not merged."""
        return self._warnings

    def _know(self, classes: Iterable[str]) -> None:
        missing = [name for name in classes if not self._known(name)]
        if not missing:
            return
        try:
            for bundle in self._bundles:
                self._code.load(bundle)
        except (CompileError, StaleCode) as error:
            raise MergeError(f"class {missing[0]} is needed to merge outputs: {error}") from None
        still = [name for name in missing if not self._known(name)]
        if still:
            raise MergeError(
                f"class {still[0]} of an output is not known to the master; "
                "session.load() the library or header that defines it"
            )

    def _known(self, name: str) -> bool:
        found = self._root.TClass.GetClass(name, True, True)
        return bool(found) and (found.IsLoaded() or found.HasInterpreterInfo())
