"""Making bundles known to this process's ROOT: compiled once per node, cached by content."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CompileError
from .bundle import Bundle
from .runtime import INCLUDE


class StaleCode(Exception):
    """This process has another version of the code; only a fresh process can take the new one."""


class CodeStore:
    """What this process has loaded, and the node's cache of compiled code below ``directory``.

    ROOT cannot unload a library whose classes were used. A process that lasts (``renames=True``) takes a
    new version of a selector under another class name; one that is cheap to replace raises `StaleCode`.
    """

    def __init__(self, root: Any, directory: Path, *, renames: bool) -> None:
        self._root = root
        self._directory = directory
        self._renames = renames
        self._loaded: dict[str, Bundle] = {}  # key as it came → as it was loaded
        self._names: set[str] = set()  # main files of the bundles
        self._include_dirs: list[Path] = []
        # Libraries are compiled with gridproof's headers, and linked with ROOT's libraries where these lie.
        built_with = [path.read_bytes() for path in sorted(INCLUDE.rglob("*.h"))]
        built_with.append(str(root.gROOT.GetSharedLibDir()).encode())
        self._built_with = hashlib.sha256(b"".join(built_with)).hexdigest()[:8]

    def load(self, bundle: Bundle) -> Bundle:
        """Make the bundle known to ROOT; returns it, with an alias for its class if it needed one.

        Raises:
            CompileError: with the compiler's own words.
            StaleCode: another version was loaded before and this process does not rename.
        """
        if bundle.key in self._loaded:
            return self._loaded[bundle.key]
        if bundle.main in self._names and not self._renames:
            raise StaleCode(bundle.main)
        known = bundle
        if bundle.is_selector and self._renames and self._is_taken(bundle):
            # Cling cannot forget the helpers of the first version; a library keeps to its own.
            known = replace(bundle, mode="compile", alias=f"{bundle.stem}_{bundle.key[:8]}")
        elif bundle.main in self._names:
            raise CompileError(f"another version of {bundle.main} is loaded; start Python anew to replace it")
        self._load(known)
        self._loaded[bundle.key] = known
        self._names.add(bundle.main)
        return known

    def _is_taken(self, bundle: Bundle) -> bool:
        """Whether this process has another class of the selector's name; an earlier session may be why."""
        same = f"/{_library_name(bundle)} " in f"{self._root.gSystem.GetLibraries()} "
        return not same and bool(self._root.TClass.GetClass(bundle.stem, True, True))

    def build(self, bundle: Bundle) -> Path:
        """The compiled library of a bundle, from the cache or by compiling now, in a process of its own.

        Raises:
            CompileError: with the compiler's own words.
        """
        place = self._place(bundle)
        library = place / "lib" / _library_name(bundle)
        if (place / "built").exists():
            return library
        with self._locked(place):
            if (place / "built").exists():  # while this process waited for the lock
                return library
            source = bundle.write(place / "src")
            (place / "lib").mkdir(exist_ok=True)
            options = [f'-I"{directory}"' for directory in (source.parent, INCLUDE, *self._include_dirs)]
            if bundle.alias:
                options.append(f"-D{bundle.stem}={bundle.alias}")
            _run(source, "compile", str(library), bundle.flags, *options)
            (place / "built").touch()
        return library

    def _place(self, bundle: Bundle) -> Path:
        root = self._root.gROOT.GetVersion().replace("/", ".")
        return self._directory / f"{bundle.key}-{self._built_with}-{root}-{platform.machine()}"

    @contextmanager
    def _locked(self, place: Path) -> Iterator[None]:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / "built").exists():
                for leftover in ("src", "lib"):
                    shutil.rmtree(place / leftover, ignore_errors=True)
            yield

    def _load(self, bundle: Bundle) -> None:
        root = self._root
        if bundle.mode == "compile":
            library = self.build(bundle)
            if bundle.alias:
                self._forget(*bundle.own_include_guards())
            if root.gSystem.Load(str(library)) < 0:
                raise CompileError(f"the library of {bundle.main} cannot be loaded; does it miss a symbol?")
            if bundle.alias:
                root.gInterpreter.AutoParse(bundle.alias)
                self._forget(bundle.stem)  # the renaming macro comes with the library
            return
        place = self._place(bundle)
        with self._locked(place):
            path = place / "src" / bundle.main
            if not (place / "built").exists():
                bundle.write(place / "src")
                (place / "built").touch()
        if bundle.mode == "library":
            if root.gSystem.Load(str(path)) < 0:
                raise CompileError(f"{bundle.main} cannot be loaded; was it built for this ROOT and system?")
            return
        if self._renames:  # a failed try would leave the interpreter of a process that lasts in disorder
            _run(path, "interpret", *(f'-I"{directory}"' for directory in (INCLUDE, *self._include_dirs)))
        self._include_dirs.append(path.parent)
        root.gInterpreter.AddIncludePath(str(path.parent))
        if not root.gInterpreter.Declare(f'#include "{path}"'):
            raise CompileError(f"{bundle.main} does not compile; the messages are above")

    def _forget(self, *macros: str) -> None:
        for macro in macros:
            self._root.gInterpreter.Declare(f"#undef {macro}\n")


def _library_name(bundle: Bundle) -> str:
    """Its own: ROOT takes libraries of one name for one library, wherever they lie."""
    return f"{bundle.class_name}_{bundle.key[:8]}.so"


def _run(source: Path, how: str, *arguments: str) -> None:
    """Compile or interpret in a process of its own, for its words and for its crashes."""
    run = subprocess.run(
        [sys.executable, "-m", __name__, how, source, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if run.returncode:
        noise = ("Info in <TUnixSystem::ACLiC>", "Error in <ACLiC>: Executing", "Error: ")
        lines = [line for line in (run.stdout + run.stderr).splitlines() if not line.startswith(noise)]
        words = "\n".join(lines).replace(f"{source.parent}/", "").strip()
        raise CompileError(f"{source.name} does not compile:\n{words}")


def _compile(root: Any, source: str, library: str, flags: str) -> bool:
    # Two versions of a class may live in one process: each library keeps to its own functions.
    root.gSystem.AddLinkedLibs("-Wl,-Bsymbolic")
    directory = Path(library).parent
    root.gSystem.SetBuildDir(str(directory), True)
    if not root.gSystem.CompileMacro(source, "kc" + flags, "", str(directory)):
        return False
    next(directory.glob("*.so")).rename(library)
    return True


def _main(how: str, source: str, *arguments: str) -> int:
    from .. import _root

    root = _root.load()
    if how == "compile":
        library, flags, *options = arguments
        root.gSystem.AddIncludePath(" ".join(options))
        return 0 if _compile(root, source, library, flags) else 1
    root.gSystem.AddIncludePath(" ".join(arguments))
    root.gInterpreter.AddIncludePath(str(Path(source).parent))
    for option in arguments:
        root.gInterpreter.AddIncludePath(option.removeprefix("-I").strip('"'))
    return 0 if root.gInterpreter.Declare(f'#include "{source}"') else 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
