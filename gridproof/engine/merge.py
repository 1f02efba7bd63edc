"""Deltas of commits merged into a query's outputs, by one thread of the master."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import CompileError, MergeError
from . import runtime
from .bundle import Bundle
from .code import CodeStore, StaleCode


class MergeThread:
    """ROOT in a thread of its own, in C++ and without Python's lock, so that workers are served meanwhile."""

    def __init__(self, cache: Path) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="merge")
        self._cache = cache
        self._root: Any
        self._code: CodeStore

    async def start(self) -> None:
        """Load ROOT, in the thread."""
        await self.run(self._load)

    async def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """``call(*arguments)`` in the thread, after everything asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def close(self) -> None:
        """Let go of the thread without waiting for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def merger(self, code: Sequence[Bundle]) -> Merger:
        """The outputs of a query; ``code`` is loaded when an output's class is not known here."""
        return Merger(self._root, self._code, code)

    def _load(self) -> None:
        self._root = runtime.load_threaded()
        self._code = CodeStore(self._root, self._cache, renames=False)


class Merger:
    """The outputs of one query so far. All methods run in the merge thread."""

    def __init__(self, root: Any, code: CodeStore, bundles: Sequence[Bundle]) -> None:
        self._root = root
        self._code = code
        self._bundles = bundles
        self._merger = root.gridproof.Merger()

    def decode(self, data: bytes, classes: Iterable[str]) -> Any:
        """The delta's objects, whole and of known classes.

        Raises:
            MergeError: the bytes are no list of objects, or a class cannot be had here.
        """
        self._know(classes)
        try:
            return runtime.decode(self._root, data)
        except ValueError as error:
            raise MergeError(f"a worker's outputs cannot be read: {error}") from None

    def merge(self, delta: Any) -> None:
        """Add a decoded delta, of which nothing is left.

        Raises:
            MergeError: the result is worth nothing after this.
        """
        problem = str(self._merger.Merge(delta))
        if problem:
            raise MergeError(f"the workers' outputs cannot be merged: {problem}")

    def snapshot(self) -> bytes:
        """All outputs as they are now."""
        return runtime.to_bytes(self._merger.Output())

    def warnings(self) -> list[str]:
        """Outputs that could only be kept, not merged."""
        return [str(w) for w in self._merger.warnings]

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
