"""A query's dataset and friends, and what is known of their files before and while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..query import FileInfo
from .known import FileKey, Learnt


@dataclass
class Part:
    """The dataset, or one of its friends.

    ``files`` as in `ForClients.submit`; for each its ``entries`` (−1: unknown) and its ``clusters`` (first
    entries, ascending; may be empty).
    """

    tree: str
    alias: str
    files: Sequence[Mapping[str, Any]]
    entries: list[int] = field(default_factory=list)
    clusters: list[Sequence[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is known but what the files' descriptions say."""
        self.entries = [int(file.get("entries", -1)) for file in self.files]
        self.clusters = [() for _ in self.files]

    @property
    def name(self) -> str:
        """As the user calls it."""
        return self.alias or self.tree

    def infos(self) -> list[FileInfo]:
        """The files, as decisions need them."""
        return [self.info(index) for index in range(len(self.files))]

    def info(self, index: int) -> FileInfo:
        """One of them."""
        file = self.files[index]
        replicas = tuple((str(se), str(site)) for se, site in file["replicas"])
        known = self.entries[index], tuple(self.clusters[index])
        hosts = tuple(file.get("hosts", ())) or _host(str(file["name"]))
        return FileInfo(str(file["name"]), int(file["size"]), replicas, *known, hosts)

    def key(self, index: int) -> FileKey:
        """What identifies a file's content, if its size is known."""
        file = self.files[index]
        return FileKey(str(file["name"]), int(file["size"]), self.tree)

    def identities(self) -> list[FileKey]:
        """What identifies the files whose sizes are known."""
        return [self.key(index) for index, file in enumerate(self.files) if file["size"] >= 0]

    def recall(self, known: Mapping[FileKey, Learnt]) -> None:
        """Take in what earlier queries have learnt."""
        for index in range(len(self.files)):
            found = known.get(self.key(index))
            if found is not None:
                self.entries[index], self.clusters[index] = found

    def layout(self) -> dict[str, Any]:
        """Where its entries lie, as workers need it."""
        return {"tree": self.tree, "alias": self.alias, "files": self.files, "entries": self.entries}


class Census:
    """The files of several parts whose entries have to be counted before a query can begin."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._places = [
            (part, index) for part in parts for index, entries in enumerate(part.entries) if entries < 0
        ]

    def __len__(self) -> int:
        return len(self._places)

    def infos(self) -> list[FileInfo]:
        """The files, as decisions need them."""
        return [part.info(index) for part, index in self._places]

    def place(self, index: int) -> tuple[Part, int]:
        """The part of a file, and its index there."""
        return self._places[index]

    def problem(self) -> str:
        """Why friends cannot be aligned with the dataset though all is counted, or ""."""
        main, *friends = self._parts
        for part in friends:
            if sum(part.entries) < sum(main.entries):
                return (
                    f"friend tree {part.name!r} has {sum(part.entries)} entries, "
                    f"the dataset has {sum(main.entries)}: beyond its end there would be no values"
                )
        return ""


def _host(url: str) -> tuple[str, ...]:
    """Of a URL; none for what is none."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return ()
    return (host,) if host else ()
