"""From what users say to files: LFNs, URLs, paths, patterns, lists, collections and ROOT's own lists."""

from __future__ import annotations

import difflib
import glob
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gridproof.dataset import fromroot, lists
from gridproof.dataset.files import Dataset, File
from gridproof.dataset.patterns import first_wild, is_pattern, matcher, search
from gridproof.errors import CommandError, DatasetError

_ENOENT, _ENOTDIR = 2, 20
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_T = TypeVar("_T")
_NEAREST = 3
_DEEPEST = 20


class Found(Protocol):
    """What a catalogue says of a name; ``type`` is f, d or c, ``ses`` and ``hosts`` where it was located."""

    @property
    def lfn(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def ses(self) -> tuple[str, ...]: ...
    @property
    def hosts(self) -> tuple[str, ...]: ...


class Catalogue(Protocol):
    """Who knows LFNs, and takes many at a time; failures are `CommandError` with an errno."""

    def ls(self, lfn: str) -> Sequence[Found]: ...
    def find(self, directory: str, pattern: str) -> Sequence[Found]: ...
    def locate(self, lfns: Iterable[str]) -> Mapping[str, Found]: ...
    def collection(self, lfn: str) -> Sequence[Found]: ...
    def cat(self, lfn: str) -> bytes: ...


def resolve(source: Any, tree: str | None, catalogue: Catalogue | None) -> Dataset:
    """The dataset that ``source`` names.

    One or several LFNs, URLs, local paths and patterns of them; text lists, XML collections and AliEn's own
    collections, on the Grid or here; a ``TChain`` with its friends, a ``TFileCollection``. An absolute path
    that the catalogue knows is an LFN, else a local path; ``file:`` says local, ``alien://`` says LFN. A
    pattern (``*``, ``?``, ``[…]``, and ``**`` for any number of directories) gives its files sorted by name;
    the order of a list is kept, and what it names twice comes twice. ``archive.zip#member.root`` is a member
    of an archive. ``tree`` None: what ROOT's object says. Raises DatasetError.
    """
    if isinstance(source, (str, os.PathLike)):
        source = [source]
    if isinstance(source, Sequence):
        described = fromroot.Described([_checked(name) for name in source], "")
    else:
        described = fromroot.describe(source)
    tree = described.tree if tree is None else tree
    if not tree or tree != tree.strip("/ "):
        raise DatasetError(
            f"{tree!r} is no tree's name: say tree=… as in the files, like 'esd', 'dir/tree', 'DF_*/O2track'"
        )
    if not described.names:
        raise DatasetError("an empty list names no files")
    dataset = Dataset(tuple(_Resolver(catalogue).files(described.names)), tree)
    for alias, friend in described.friends:
        dataset.add_friend(resolve(friend, None, catalogue), alias)
    return dataset


def _checked(name: object) -> str:
    if not isinstance(name, (str, os.PathLike)) or not str(name).strip():
        raise DatasetError(f"{name!r} names no file: give LFNs, URLs, local paths or patterns")
    return str(name).strip()


class _Resolver:
    def __init__(self, catalogue: Catalogue | None) -> None:
        self._catalogue = catalogue
        self._entries: dict[str, Found] = {}  # by LFN
        self._found: dict[tuple[str, str], Sequence[Found]] = {}  # by what was searched
        self._reading: list[str] = []  # lists, each named in the one before

    def files(self, names: Sequence[str]) -> list[File]:
        """The files that these names mean; the catalogue is asked for all at once. DatasetError if one is
        nowhere."""
        plain = [lfn for name in names if (lfn := _as_lfn(name)) and not is_pattern(lfn)]
        self._locate(_archive(lfn) for lfn in plain)
        found, absent = [], []
        for name in names:
            of_name = self._expand(name, alone=len(names) == 1)
            found += of_name
            if not of_name:
                absent.append(name)
        if absent:
            others = f" (and {len(absent) - 1} more of {len(names)} names)" if len(absent) > 1 else ""
            raise DatasetError(self._missing(absent[0]) + others)
        self._locate(_archive(file.name) for file in found if file.kind == "lfn")
        return [self._placed(file) for file in found]

    def _locate(self, lfns: Iterable[str]) -> None:
        unknown = [lfn for lfn in dict.fromkeys(lfns) if lfn not in self._entries]
        if self._catalogue is not None and unknown:
            self._entries.update(self._catalogue.locate(unknown))

    def _placed(self, file: File) -> File:
        """With size and storage elements, as far as the catalogue knows it."""
        entry = self._entries.get(_archive(file.name)) if file.kind == "lfn" else None
        if entry is None:
            return file
        return replace(file, size=-1 if "#" in file.name else entry.size, ses=entry.ses, hosts=entry.hosts)

    def _expand(self, name: str, *, alone: bool) -> list[File]:
        """The files that one name means, none if it is nowhere; ``alone``: it is the only one."""
        if name.startswith("file:"):
            return self._local(name.removeprefix("file://").removeprefix("file:"), alone)
        lfn = _as_lfn(name)
        if not lfn:
            if not _URL.match(name):
                return self._local(name, alone)
            if is_pattern(name.partition("?")[0]):
                raise DatasetError(f"{name}: a URL cannot be a pattern; name its files one by one")
            return [File(name, kind="url")]
        found = self._grid(lfn, alone)
        return found or (self._local(name, alone) if name.startswith("/") else [])

    def _grid(self, lfn: str, alone: bool) -> list[File]:
        if self._catalogue is None:
            return []
        if is_pattern(lfn):
            return self._matching(self._catalogue, lfn)
        entry = self._entries.get(_archive(lfn))
        if entry is None:
            return []
        if entry.type == "d":
            raise DatasetError(f"{lfn} is a directory: for the files in it say {lfn}/*.root")
        if "#" in lfn:
            return [File(lfn)]
        if entry.type == "c":
            return self._listed(lfn, self._collection(self._catalogue, lfn))
        cat = self._catalogue.cat
        listed = lists.read(lfn, cat(lfn)) if lists.may_be_list(lfn, entry.size, alone) else None
        return [File(lfn)] if listed is None else self._listed(lfn, listed)

    def _collection(self, catalogue: Catalogue, lfn: str) -> list[str]:
        try:
            members = catalogue.collection(lfn)
        except CommandError as error:
            raise DatasetError(
                f"the collection {lfn} cannot be listed; were files in it removed? {error}"
            ) from error
        if not members:
            raise DatasetError(f"the collection {lfn} names no files")
        return [f"alien://{member.lfn}" for member in members]

    def _listed(self, name: str, names: Sequence[str]) -> list[File]:
        if name in self._reading:
            raise DatasetError(f"{name} lists itself")
        if len(self._reading) == _DEEPEST:
            raise DatasetError(f"lists in lists are read {_DEEPEST} deep, not more")
        self._reading.append(name)
        try:
            return self.files(names)
        except DatasetError as error:
            raise DatasetError(f"in {name}: {error}") from None
        finally:
            self._reading.pop()

    def _matching(self, catalogue: Catalogue, name: str) -> list[File]:
        pattern, _, member = name.partition("#")
        where = search(pattern)
        if where not in self._found:
            self._found[where] = _known(lambda: catalogue.find(*where)) or ()
        matches = matcher(pattern)
        names = sorted(entry.lfn for entry in self._found[where] if matches(entry.lfn))
        return [File(f"{lfn}#{member}" if member else lfn) for lfn in names]

    def _local(self, name: str, alone: bool) -> list[File]:
        try:
            return self._there(name, alone)
        except OSError as error:
            raise DatasetError(f"{name} cannot be looked at here: {error.strerror}") from None
        except RuntimeError:  # of expanduser
            raise DatasetError(f"{name}: there is no such user here") from None

    def _there(self, name: str, alone: bool) -> list[File]:
        path = Path(name).expanduser()
        if path.is_dir():
            raise DatasetError(f"{name} is a directory: for the files in it say {name.rstrip('/')}/*.root")
        if path.is_file():
            return self._here(path, alone)
        pattern, _, member = str(path).partition("#")
        found = [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207
        return [_local_file(Path(path), member) for path in found]

    def _here(self, path: Path, alone: bool) -> list[File]:
        """A local file, or what it lists."""
        name, size = str(path.absolute()), path.stat().st_size
        listed = lists.read(name, path.read_bytes()) if lists.may_be_list(name, size, alone) else None
        return [_local_file(path)] if listed is None else self._listed(name, listed)

    # ------------------------------------------------------------ what to say of a name that is nowhere

    def _missing(self, name: str) -> str:
        """How far it exists, and what is there instead."""
        lfn = _as_lfn(name) or str(Path(name.removeprefix("file:")).expanduser().absolute())
        what = "nothing matches" if is_pattern(lfn) else "there is no file"
        where = "in the catalogue" if name.startswith("alien:") else "in the catalogue or here"
        nearest = self._nearest(lfn)
        there = f"; there is {', '.join(nearest)}" if nearest else ""
        return f"{what} {lfn} {where if self._catalogue else 'here, and no Grid was asked'}{there}"

    def _nearest(self, name: str) -> list[str]:
        parts = name.rstrip("/").split("/")
        fixed = first_wild(parts)
        while fixed > 0:
            directory = "/".join(parts[:fixed]) or "/"
            there = self._names_in(directory)
            if there:
                close = difflib.get_close_matches("/".join(parts[: fixed + 1]), there, _NEAREST, 0.6)
                return close or sorted(there)[:_NEAREST]
            fixed -= 1
        return []

    def _names_in(self, directory: str) -> list[str]:
        catalogue = self._catalogue
        there = [entry.lfn for entry in (_known(lambda: catalogue.ls(directory)) or ())] if catalogue else []
        if Path(directory).is_dir():
            there += [str(path) for path in Path(directory).iterdir()]
        return there


def _local_file(path: Path, member: str = "") -> File:
    name = str(path.absolute())
    return File(f"{name}#{member}" if member else name, -1 if member else path.stat().st_size, kind="path")


def _as_lfn(name: str) -> str:
    """The LFN that a name is or may be, "" if it is none."""
    if name.startswith("alien://"):
        name = "/" + name.removeprefix("alien://").lstrip("/")
    if not name.startswith("/"):
        return ""
    return "/" + posixpath.normpath(name).lstrip("/")


def _archive(lfn: str) -> str:
    """The LFN without the member of an archive."""
    return lfn.partition("#")[0]


def _known(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except CommandError as error:
        if error.exitcode in (_ENOENT, _ENOTDIR):
            return None
        raise
