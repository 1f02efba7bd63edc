"""What a dataset is: files with a tree in each, where they lie, and friends."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gridproof.errors import DatasetError

_ALIAS = re.compile(r"[A-Za-z_]\w*")
_SHOWN_FILES = 3


@dataclass(frozen=True)
class File:
    """A file of a dataset: ``name`` is an LFN, a URL or a path as ``kind`` ("lfn", "url", "path") says.

    ``name`` may end in ``#MEMBER``, for a member of a zip archive. ``size`` in bytes, -1 when unknown;
    ``ses`` the storage elements that have it, ``hosts`` the machines in their URLs.
    """

    name: str
    size: int = -1
    ses: tuple[str, ...] = ()
    kind: str = "lfn"
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Friend:
    """A dataset read alongside another one; its tree goes by ``alias`` there."""

    dataset: Dataset
    alias: str


@dataclass(eq=False)
class Dataset:
    """Files with a tree of the same name in each, in the order in which they are chained, and its friends.

    ``tree`` may be a pattern such as ``DF_*/O2track``: then all trees of a file that match count as one, in
    the order of their names.
    """

    files: tuple[File, ...]
    tree: str
    friends: tuple[Friend, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes in all files of known size, without friends."""
        return sum(max(file.size, 0) for file in self.files)

    def bytes_by_se(self) -> dict[str, int]:
        """Bytes that each storage element has, most first; a file with replicas counts at each."""
        held: dict[str, int] = {}
        for file in self.files:
            for se in file.ses:
                held[se] = held.get(se, 0) + max(file.size, 0)
        return dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))

    def add_friend(self, other: Dataset, alias: str = "") -> None:
        """Read ``other`` alongside, entry by entry; its files may be cut differently.

        ``alias``: the name that its tree goes by here, by default its own. Raises DatasetError.
        """
        name = alias or other.tree.rpartition("/")[2]
        if other is self or self in other._all_friends():
            raise DatasetError(f"tree {self.tree!r} cannot be its own friend: give another dataset")
        if not _ALIAS.fullmatch(name):
            raise DatasetError(f"{name!r} cannot be a friend's alias: letters, digits and underscores only")
        if name in {friend.alias for friend in self.friends}:
            raise DatasetError(f"there is a friend {name!r} already: give this one another alias")
        self.friends = (*self.friends, Friend(other, name))

    def summary(self) -> str:
        """Files, sizes, storage elements and friends, some lines for people."""
        lines = [repr(self)[1:-1]]
        lines += [f"  {file.name}  {_bytes(file.size)}" for file in self.files[:_SHOWN_FILES]]
        if len(self.files) > _SHOWN_FILES:
            lines.append(f"  … and {len(self.files) - _SHOWN_FILES} more")
        lines += [f"  at {se}: {_bytes(held)}" for se, held in self.bytes_by_se().items()]
        lines += [f"  friend {friend.alias}: {friend.dataset!r}" for friend in self.friends]
        return "\n".join(lines)

    def __repr__(self) -> str:
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        at = len({se for file in self.files for se in file.ses})
        where = f" at {at} SE{'s' * (at != 1)}" if at else ""
        friends = f", friends {', '.join(friend.alias for friend in self.friends)}" if self.friends else ""
        size = _bytes(self.size if any(file.size >= 0 for file in self.files) else -1)
        return f"<Dataset {self.tree!r}: {count}, {size}{where}{friends}>"

    def _all_friends(self) -> list[Dataset]:
        direct = [friend.dataset for friend in self.friends]
        return direct + [further for friend in direct for further in friend._all_friends()]


def _bytes(count: int) -> str:
    if count < 0:
        return "size unknown"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
