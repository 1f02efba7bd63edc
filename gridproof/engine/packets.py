"""What the master's decisions are made of and what travels between master and workers."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple


class Packet(NamedTuple):
    """Entries ``[first, last)`` of one file, in that file's own numbering.

    ``last`` is −1 as long as nobody has opened the file: whoever does cuts off at most ``limit`` entries.
    ``solo``: run it in a selector instance of its own and commit at once.
    ``avoid``: storage elements that have failed for this file.
    ``deadline``: seconds after which its worker should ask whether to go on (`Query.late`).
    """

    id: int
    file: int
    first: int
    last: int
    limit: int = 0
    solo: bool = False
    avoid: tuple[str, ...] = ()
    deadline: float = 60.0

    def to_message(self) -> list[Any]:
        """As it travels between processes."""
        return list(self)

    @classmethod
    def from_message(cls, message: Sequence[Any]) -> Packet:
        """Take in what `to_message` gave."""
        return cls(*message)._replace(avoid=tuple(message[6]))


def cut(first: int, wanted: int, entries: int, clusters: Sequence[int]) -> int:
    """Where a packet that starts at ``first`` and should have ``wanted`` entries ends (exclusive).

    On a cluster boundary (``clusters``: first entries, ascending) if one lies between half and twice of
    what is wanted; a crumb left at the end of the file is taken along.
    """
    wanted = max(1, wanted)
    end = first + wanted
    if end + wanted // 2 >= entries:
        return entries
    place = bisect.bisect_left(clusters, end)
    near = [clusters[i] for i in (place - 1, place) if 0 <= i < len(clusters)]
    near = [b for b in near if first + wanted // 2 <= b <= first + 2 * wanted and b > first]
    if near:
        return min(near, key=lambda b: abs(b - end))
    return end
