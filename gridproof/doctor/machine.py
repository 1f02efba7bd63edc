"""This machine: ROOT, the compiler, XRootD's programs, and the pilots' bundle."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gridproof.config import PilotConfig
from gridproof.doctor.verdict import Verdict, failed, ok, warning
from gridproof.pilot import probe
from gridproof.pilot.bundle import Bundle
from gridproof.proxy.protocol import Versions

PROGRAM_SECONDS = 60.0  # a cold CVMFS may take long
_ROOT = "from gridproof import _root; print(_root.version())"
_SOURCE = "#include <string>\nint main() { return std::string().size(); }\n"


def root(python: str = sys.executable) -> Verdict:
    """Whether this Python imports ROOT; in a process of its own, since a broken one may take it down."""
    code, said = _run([python, "-c", _ROOT])
    if code:
        return failed(
            f"Python {platform.python_version()} ({python}) cannot import ROOT: {said}",
            "pip install root, or enter an environment whose ROOT was built for this Python",
        )
    return ok(f"ROOT {said}, Python {platform.python_version()}")


def compiler(program: str = "c++") -> Verdict:
    """Whether the compiler that ROOT calls for selectors can compile."""
    path = shutil.which(program)
    if path is None:
        return failed(
            f"there is no {program}, with which ROOT compiles selectors",
            "install it: apt-get install g++, or dnf install gcc-c++",
        )
    code, said = _run([path, "-std=c++17", "-fsyntax-only", "-x", "c++", "-"], _SOURCE)
    if code:
        return failed(f"{path} does not compile: {said}", "install it with the C++ standard library")
    _, version = _run([path, "-dumpfullversion"])
    return ok(f"{path} {version}".rstrip())


def xrootd(server: bool) -> Verdict:
    """XRootD's client, and with ``server`` its server, which the embedded Grid runs."""
    if shutil.which("xrdcp") is None:
        return failed("there is no xrdcp, which copies files to and from the Grid", _install("xrootd-client"))
    if server and shutil.which("xrootd") is None:
        return failed("there is no xrootd, the embedded Grid's storage", _install("xrootd-server"))
    code, said = _run(["xrdcp", "--version"])
    if code:
        return failed(f"xrdcp does not run: {said}", _install("xrootd-client"))
    return ok(f"xrdcp {said}")


def bundle(pilots: PilotConfig) -> Verdict:
    """Whether pilots from the bundle that is configured can join a session of this process."""
    if not pilots.bundle:
        return warning(
            f"pilots bring nothing along: {pilots.python} on the worker nodes must have gridproof itself",
            "gridproof pilot bundle, and name the file in pilots.bundle",
        )
    found = Bundle.open(Path(pilots.bundle))
    found.manifest.check(_versions())
    manifest = found.manifest
    text = f"{found.path}: Python {manifest.python}, glibc {manifest.glibc} or newer"
    if manifest.root:
        return ok(f"{text}, ROOT {manifest.root}")
    if not pilots.packages:
        return warning(
            f"{text}, without ROOT, and pilots.packages names no package that has it",
            "name one, or make the bundle with --with-root, unless all nodes have that ROOT anyway",
        )
    return ok(f"{text}; ROOT from {', '.join(pilots.packages)}")


def _versions() -> Versions:
    """Those that `gridproof.proxy.versions` gives, told without importing ROOT, which may be broken."""
    installed = probe.distribution_version
    return Versions(
        platform.python_version(),
        probe.root_version() or "none",
        installed("gridproof") or "source",
        installed("distributed") or "none",
    )


def _install(package: str) -> str:
    return f"install it: apt-get install {package}, or dnf install {package}"


def _run(argv: Sequence[str], given: str = "") -> tuple[int, str]:
    """Exit code of a program and the last line that it says."""
    try:
        done = subprocess.run(
            argv,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PROGRAM_SECONDS,
        )
    except OSError as error:
        return 127, str(error.strerror)
    except subprocess.TimeoutExpired:
        return 124, f"no result within {PROGRAM_SECONDS:g} s"
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else f"exit code {done.returncode}" if done.returncode else ""
