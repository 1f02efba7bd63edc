"""How much memory a worker uses, and how much it may use."""

from __future__ import annotations

import resource

import psutil

_ABOVE = 1.25  # the kernel refuses memory so many times above the limit,
_ABOVE_BYTES = 256_000_000  # and so much more


class MemoryGuard:
    """Compares this process's resident memory, with what it shares, to ``limit`` (bytes, 0: no limit)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._process = psutil.Process()
        self._at_start = self._process.memory_info().rss

    def enforce(self) -> None:
        """Have the kernel refuse what would go far above the limit.

        The selector gets an exception then, where an allocation faster than all watching would have the
        node's own guard kill whom it likes.
        """
        if self._limit and hasattr(resource, "RLIMIT_DATA"):
            now = self._process.memory_info()
            reserved = max(0, now.data - now.rss)
            most = int(_ABOVE * self._limit) + _ABOVE_BYTES + reserved
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))

    def excess(self) -> str:
        """In words, how much more is used than may be; "" if it is not."""
        used = self._process.memory_info().rss
        if not self._limit or used <= self._limit:
            return ""
        return (
            f"the selector's worker uses {_size(used)} of memory and may use {_size(self._limit)}; "
            "make fewer or smaller objects, or raise pilots.worker_memory"
        )

    @property
    def crowded(self) -> bool:
        """More than half of what there was at the start is used up."""
        return self._limit > 0 and self._process.memory_info().rss > (self._at_start + self._limit) / 2


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
