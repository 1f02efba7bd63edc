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
    ``flags``: ACLiC's letters (``g`` debug, ``O`` optimise).
    """

    main: str
    mode: str
    flags: str
    files: tuple[tuple[str, bytes], ...]

    @property
    def key(self) -> str:
        """A hash of everything in it."""
        digest = hashlib.sha256(f"{self.main}\0{self.mode}\0{self.flags}\0".encode())
        for name, content in self.files:
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:32]

    @property
    def class_name(self) -> str:
        """The class that a selector's file must define: the file's name without its ending."""
        return Path(self.main).stem

    @property
    def is_selector(self) -> bool:
        """Whether it can hold a class named after its file."""
        return self.mode in ("compile", "interpret")

    def own_include_guards(self) -> list[str]:
        """The include guards of the main file and of the headers of the same name."""
        own = [content for name, content in self.files if Path(name).stem == Path(self.main).stem]
        return [guard.decode() for content in own for guard in _GUARD.findall(content)]

    def to_message(self) -> dict[str, Any]:
        """As it travels between processes."""
        return {"main": self.main, "mode": self.mode, "flags": self.flags, "files": list(self.files)}

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
        return cls(str(message["main"]), str(message["mode"]), str(message["flags"]), files)

    def write(self, directory: Path) -> Path:
        """Lay the files out below ``directory``; returns the main one's path."""
        for name, content in self.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return directory / self.main


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
