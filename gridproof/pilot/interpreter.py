"""The running Python itself, for a bundle: program, standard library, and the shared libraries they load.

It is started by a small script that shows it these libraries. Its ``sitecustomize`` takes the variable for
that away at once, so that the programs it starts (compiler, xrootd) find the node's own, and puts the script
in the place of ``sys.executable``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from gridproof.errors import ConfigError

WHERE = "python"
_NOT_NEEDED = re.compile(
    r"(test|tests|idlelib|turtledemo|tkinter|ensurepip|lib2to3|(site|dist)-packages|config-.*|__pycache__)"
    r"|(_tkinter|nis|_curses.*|readline|_g?dbm|_test.*|_ctypes_test|xx.*)\..*\.so"
)
_GLIBC = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|anl|nss_\w+|BrokenLocale))\.so\.\d+")
_LOADED = re.compile(r"^\s*(\S+) => (/\S+) \(", re.MULTILINE)
_LAUNCHER = """#!/bin/sh
here=${{0%/*}}
unset PYTHONHOME
LD_LIBRARY_PATH=$here/../libraries${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
export LD_LIBRARY_PATH
exec "$here/{program}" "$@"
"""
_SITECUSTOMIZE = """import os
import sys

_, _, path = os.environ.pop("LD_LIBRARY_PATH", "").partition(":")
if path:
    os.environ["LD_LIBRARY_PATH"] = path
sys.executable = os.path.join(os.path.dirname(sys.executable), {launcher!r})
"""


def files() -> Iterator[tuple[str, Path | bytes]]:
    """Names in the bundle and contents.

    Raises:
        ConfigError: the libraries that this Python loads cannot be told.
    """
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    launcher = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = f"{WHERE}/{sys.platlibdir}/{launcher}"
    stdlib = Path(sysconfig.get_path("stdlib"))
    kept = [
        path
        for path in stdlib.rglob("*")
        if path.is_file() and not any(map(_NOT_NEEDED.fullmatch, path.relative_to(stdlib).parts))
    ]
    yield f"{WHERE}/bin/{launcher}", _LAUNCHER.format(program=f"{launcher}.bin").encode()
    yield f"{WHERE}/bin/{launcher}.bin", program
    yield f"{library}/site-packages/sitecustomize.py", _SITECUSTOMIZE.format(launcher=launcher).encode()
    yield from ((f"{library}/{path.relative_to(stdlib)}", path) for path in kept)
    for name, path in _libraries([program, *(path for path in kept if path.suffix == ".so")]):
        yield f"{WHERE}/libraries/{name}", path


def _libraries(binaries: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """The shared libraries that these load, but glibc's own, which belong to the node."""
    run = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise ConfigError(f"the libraries of this Python cannot be told: {run.stderr.strip()[-200:]}")
    for name, path in sorted(set(_LOADED.findall(run.stdout))):
        if not _GLIBC.fullmatch(name):
            yield name, Path(path)
