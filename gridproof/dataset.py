"""Datasets: which files, how large, and on which storage elements. Who knows LFNs is handed in."""

from __future__ import annotations

import difflib
import glob
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from gridproof.errors import CommandError, DatasetError

_ENOENT, _ENOTDIR = 2, 20
_WILD = re.compile(r"[*?[]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ALIAS = re.compile(r"[A-Za-z_]\w*")
_T = TypeVar("_T")
_SHOWN_FILES = 3
_NEAREST = 3


@dataclass(frozen=True)
class File:
    """A file of a dataset: ``name`` is an LFN, a URL or a path as ``kind`` ("lfn", "url", "path") says.

    ``size`` in bytes, -1 when unknown; ``ses`` the storage elements that have it.
    """

    name: str
    size: int = -1
    ses: tuple[str, ...] = ()
    kind: str = "lfn"


@dataclass(frozen=True)
class Friend:
    """A dataset read alongside another one; its tree goes by ``alias`` there."""

    dataset: Dataset
    alias: str


class Found(Protocol):
    """What a catalogue says of a name; ``type`` is f, d or c."""

    @property
    def lfn(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...


class Stored(Protocol):
    """What a catalogue says of a replica."""

    @property
    def se(self) -> str: ...


class Catalogue(Protocol):
    """Who knows LFNs; failures are `CommandError` with an errno."""

    def ls(self, lfn: str) -> Sequence[Found]: ...
    def stat(self, lfn: str) -> Found: ...
    def find(self, directory: str, pattern: str) -> Sequence[Found]: ...
    def whereis(self, lfn: str) -> Sequence[Stored]: ...


@dataclass(eq=False)
class Dataset:
    """Files with a tree of the same name in each, in the order in which they are chained, and its friends."""

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


def resolve(source: str | Sequence[str], tree: str, catalogue: Catalogue | None) -> Dataset:
    """The dataset that ``source`` names: LFNs, URLs, local paths and patterns of them, one or several.

    An absolute path that the catalogue knows is an LFN, else a local path; ``file:`` says local, ``alien://``
    says LFN. A pattern (``*``, ``?``, ``[…]``, and ``**`` for any number of directories) gives its files
    sorted by name; the order of a list is kept, and what it names twice comes twice. Raises DatasetError.
    """
    if not tree or tree != tree.strip("/ "):
        raise DatasetError(f"{tree!r} is no tree's name: give it as in the files, like 'esd' or 'dir/tree'")
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise DatasetError("an empty list names no files")
    for name in sources:
        if not isinstance(name, str) or not name.strip():
            raise DatasetError(f"{name!r} names no file: give LFNs, URLs, local paths or patterns")
    resolver = _Resolver(catalogue, sources)
    return Dataset(tuple(file for name in sources for file in resolver.files(name.strip())), tree)


class _Resolver:
    def __init__(self, catalogue: Catalogue | None, sources: Sequence[str]) -> None:
        self._catalogue = catalogue
        self._listed: dict[str, dict[str, Found]] = {}
        self._ses: dict[str, tuple[str, ...]] = {}
        parents = Counter(posixpath.dirname(name.strip()) for name in sources)
        self._shared = {parent for parent, count in parents.items() if count > 1}

    def files(self, name: str) -> list[File]:
        """The files that one source names; DatasetError if it names none."""
        if name.startswith("file:"):
            return _local(name.removeprefix("file://").removeprefix("file:"))
        if name.startswith("alien://"):
            return self._grid("/" + name.removeprefix("alien://").lstrip("/"), required=True)
        if _URL.match(name):
            if _WILD.search(name.partition("?")[0]):
                raise DatasetError(f"{name}: a URL cannot be a pattern; name its files one by one")
            return [File(name, kind="url")]
        path = Path(name).expanduser()
        if not name.startswith("/"):
            return _local(str(path))
        found = self._grid(name, required=False)
        if not found and (path.exists() or _WILD.search(name)):
            found = _local(name, required=False)
        if not found:
            raise DatasetError(self._missing(name))
        return found

    def _grid(self, lfn: str, *, required: bool) -> list[File]:
        if self._catalogue is None:
            found: list[Found] = []
        elif _WILD.search(lfn):
            found = self._matching(self._catalogue, lfn)
        else:
            found = self._single(self._catalogue, posixpath.normpath(lfn))
        if not found and required:
            raise DatasetError(self._missing(lfn))
        return [File(entry.lfn, entry.size, self._where(entry.lfn), "lfn") for entry in found]

    def _matching(self, catalogue: Catalogue, pattern: str) -> list[Found]:
        parts = pattern.split("/")
        fixed = next(place for place, part in enumerate(parts) if _WILD.search(part))
        directory = "/".join(parts[:fixed]) or "/"
        last = re.sub(r"\[[^]]*\]", "?", parts[-1]) or "*"
        try:
            found = catalogue.find(directory, re.sub(r"\*+", "*", last))
        except CommandError as error:
            if error.exitcode in (_ENOENT, _ENOTDIR):
                return []
            raise
        matches = _matcher(pattern)
        return sorted((entry for entry in found if matches(entry.lfn)), key=lambda entry: entry.lfn)

    def _single(self, catalogue: Catalogue, lfn: str) -> list[Found]:
        directory = posixpath.dirname(lfn)
        if directory in self._shared:
            entry = self._listing(catalogue, directory).get(lfn)
        else:
            entry = _known(lambda: catalogue.stat(lfn))
        if entry is None:
            return []
        if entry.type == "d":
            raise DatasetError(f"{lfn} is a directory: for the files in it say {lfn}/*.root")
        return [entry]

    def _listing(self, catalogue: Catalogue, directory: str) -> dict[str, Found]:
        if directory not in self._listed:
            entries = _known(lambda: catalogue.ls(directory)) or []
            self._listed[directory] = {entry.lfn: entry for entry in entries}
        return self._listed[directory]

    def _where(self, lfn: str) -> tuple[str, ...]:
        if lfn not in self._ses and self._catalogue is not None:
            self._ses[lfn] = tuple(dict.fromkeys(stored.se for stored in self._catalogue.whereis(lfn)))
        return self._ses[lfn]

    def _missing(self, name: str) -> str:
        """What to say of a name that is nowhere: how far it exists, and what is there instead."""
        what = "nothing matches" if _WILD.search(name) else "there is no file"
        grid = "in the catalogue or here" if self._catalogue else "here, and no Grid was asked"
        nearest = self._nearest(name)
        return f"{what} {name} {grid}" + (f"; there is {', '.join(nearest)}" if nearest else "")

    def _nearest(self, name: str) -> list[str]:
        parts = name.rstrip("/").split("/")
        fixed = next((place for place, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
        while fixed > 0:
            directory = "/".join(parts[:fixed]) or "/"
            there = list(self._listing(self._catalogue, directory)) if self._catalogue else []
            if Path(directory).is_dir():
                there += [str(path) for path in Path(directory).iterdir()]
            if there:
                wanted = "/".join(parts[: fixed + 1])
                close = difflib.get_close_matches(wanted, there, _NEAREST, 0.6)
                return close or sorted(there)[:_NEAREST]
            fixed -= 1
        return []


def _known(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except CommandError as error:
        if error.exitcode in (_ENOENT, _ENOTDIR):
            return None
        raise


def _local(name: str, *, required: bool = True) -> list[File]:
    path = Path(name).expanduser()
    if path.is_dir():
        raise DatasetError(f"{name} is a directory: for the files in it say {name.rstrip('/')}/*.root")
    if path.is_file():
        found: Iterable[Path] = [path]
    else:
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 (patterns may be absolute)
        found = [Path(name) for name in sorted(names) if Path(name).is_file()]
    files = [File(str(p.absolute()), p.stat().st_size, (), "path") for p in found]
    if not files and required:
        raise DatasetError(_Resolver(None, [])._missing(str(path.absolute())))
    return files


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Whether an LFN matches a pattern wholly; ``**`` alone stands for any number of directories."""
    parts = []
    for part in pattern.split("/"):
        if part == "**":
            parts.append("(?:[^/]+/)*")
        else:
            pieces = re.split(r"(\*+|\?|\[[^]/]+\])", part)
            parts.append("".join(_piece(piece) for piece in pieces) + "/")
    regex = re.compile("".join(parts).removesuffix("/") + ("[^/]+" if pattern.endswith("**") else ""))
    return lambda lfn: regex.fullmatch(lfn) is not None


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if piece.startswith("[") and len(piece) > 2:
        characters = re.sub(r"([\\^\]])", r"\\\1", piece[1:-1].lstrip("!^"))
        return f"[{'^' if piece[1] in '!^' else ''}{characters}]"
    return re.escape(piece)


def _bytes(count: int) -> str:
    if count < 0:
        return "size unknown"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
