"""Code that travels: a selector, macro, header or library with the files it includes."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_SPEC = re.compile(r"^(?P<path>.*?)(?P<plus>\+{0,2})(?P<flags>(?<=\+)[gOdvfk]*)?$")
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
_GUARD = re.compile(rb"^[ \t]*#[ \t]*ifndef[ \t]+(\w+)\s*\n[ \t]*#[ \t]*define[ \t]+\1\b", re.MULTILINE)
_SOURCES = {".c", ".cc", ".cpp", ".cxx", ".C"}
_HEADERS = {".h", ".hh", ".hpp", ".hxx", ".H"}
_LIBRARIES = {".so", ".dylib"}


@dataclass(frozen=True)
class Bundle:
    """Files by their path inside the bundle, and how to make them known to ROOT.

    ``mode``: ``compile`` (ACLiC), ``interpret`` (Cling), ``header`` or ``library``.
    ``flags``: ACLiC's letters (``g`` debug, ``O`` optimise). ``alias``: another name for the class, where
    the process that sends it knows an earlier version by the class's own name.
    """

    main: str
    mode: str
    flags: str
    files: tuple[tuple[str, bytes], ...]
    alias: str = ""

    @property
    def key(self) -> str:
        """A hash of everything in it."""
        digest = hashlib.sha256("\0".join((self.main, self.mode, self.flags, self.alias)).encode())
        for name, content in self.files:
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    @property
    def class_name(self) -> str:
        """The class of a selector's file: the file's name without its ending, or its alias."""
        return self.alias or self.stem

    @property
    def stem(self) -> str:
        """The main file's name without its ending."""
        return Path(self.main).stem

    @property
    def is_selector(self) -> bool:
        """Whether it can hold a class named after its file."""
        return self.mode in ("compile", "interpret")

    def own_include_guards(self) -> list[str]:
        """The include guards of the main file and of the headers of the same name."""
        own = [content for name, content in self.files if self._is_own(name)]
        return [guard.decode() for content in own for guard in _GUARD.findall(content)]

    def to_message(self) -> dict[str, Any]:
        """As it travels between processes."""
        return {**vars(self), "files": list(self.files)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Bundle:
        """Take in what `to_message` gave.

        Raises:
            ValueError: a path in it leads out of the bundle.
        """
        files = tuple((str(name), bytes(content)) for name, content in message["files"])
        for name, _ in files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} leads out of its bundle")
        rest = {name: str(message[name]) for name in ("main", "mode", "flags", "alias")}
        return cls(files=files, **rest)

    def write(self, directory: Path) -> Path:
        """Lay the files out below ``directory``; returns the main one's path."""
        for name, content in self.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if self._is_own(name) else _guarded(name, content))
        return directory / self.main

    def _is_own(self, name: str) -> bool:
        return self.is_selector and Path(name).stem == self.stem


def collect(spec: str | os.PathLike[str]) -> Bundle:
    """The bundle for ``"Selector.C+"``, ``"macro.C"``, ``"lib.so"`` or ``"header.h"``.

    Everything that the sources include by ``#include "…"`` and that lies beside them comes along.

    Raises:
        ConfigError: there is no such file, or its ending says nothing.
    """
    match = _SPEC.match(os.fspath(spec))
    assert match is not None  # the pattern matches every string
    path = Path(match["path"]).expanduser()
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:8] if path.parent.is_dir() else []
        hint = f"; in {path.parent} there are: {', '.join(near)}" if near else ""
        raise ConfigError(f"there is no file {path}{hint}")
    path = path.resolve()
    if path.suffix in _LIBRARIES:
        return Bundle(path.name, "library", "", ((path.name, path.read_bytes()),))
    if path.suffix not in _SOURCES | _HEADERS:
        raise ConfigError(
            f"{path.name}: a file to load ends in {', '.join(sorted(_SOURCES | _HEADERS | _LIBRARIES))}"
        )
    sources = _with_includes(path)
    base = Path(os.path.commonpath([p.parent for p in sources]))
    mode = "header" if path.suffix in _HEADERS else "compile" if match["plus"] else "interpret"
    flags = "".join(letter for letter in match["flags"] or "" if letter in "gO")
    files = tuple(sorted((p.relative_to(base).as_posix(), content) for p, content in sources.items()))
    return Bundle(path.relative_to(base).as_posix(), mode, flags, files)


def _guarded(name: str, content: bytes) -> bytes:
    """A helper file that Cling can meet again, with the next version of the selector that includes it."""
    if Path(name).suffix not in _SOURCES | _HEADERS:
        return content
    guard = f"GRIDPROOF_{hashlib.sha256(content).hexdigest()[:16]}"
    head = f'#ifndef {guard}\n#define {guard}\n#line 1 "{Path(name).name}"\n'
    return head.encode() + content + b"\n#endif\n"


def _with_includes(path: Path) -> dict[Path, bytes]:
    found: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found[current] = current.read_bytes()
        for name in _INCLUDE.findall(found[current]):
            for directory in (current.parent, path.parent):
                included = (directory / os.fsdecode(name)).resolve()
                if included.is_file():
                    waiting.append(included)
                    break
    return found
