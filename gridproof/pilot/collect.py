"""What goes into a bundle: gridproof itself, the distributions it requires, and Python if that is wanted."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gridproof
from gridproof.errors import ConfigError
from gridproof.pilot import interpreter, probe
from gridproof.pilot.bundle import Bundle, Manifest, write

OWN = "gridproof"
ROOT = "root"
_COMPARED = (ROOT, "dask", "distributed")  # at a pilot's registration, with the session's
#: The oldest glibc that fetched wheels shall load with, where nothing else is asked for: that of EL 8.
USUAL_GLIBC = "2.28"
_OLDEST_GLIBC = 17
_LEGACY_TAGS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_LEFT_OUT = {"__pycache__", "RECORD", "REQUESTED", "INSTALLER", "direct_url.json"}


def make(
    path: Path, *, python: str = "", glibc: str = "", with_root: bool = False, with_python: bool = False
) -> Bundle:
    """Make a bundle for this or another Python (``"3.12"``) on Linux.

    Without ``glibc`` and for this Python on Linux the distributions that are installed here are copied. Else
    wheels are fetched by pip: those that load with that glibc (``"2.28"``).

    Raises:
        ConfigError: something is not installed, not to be had as a wheel, or not to be written.
    """
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = python or here
    if with_python and (python != here or sys.platform != "linux"):
        raise ConfigError(f"--with-python brings the Python that runs this, {here} on {sys.platform}")
    machine = platform.machine() if sys.platform == "linux" else "x86_64"
    wanted = _wanted(with_root)
    with TemporaryDirectory(prefix="gridproof-bundle-") as directory:
        if python == here and not glibc and sys.platform == "linux":
            distributions = list(_closure(wanted))
        else:
            _fetch(Path(directory), wanted, python, glibc or USUAL_GLIBC, machine)
            distributions = list(metadata.distributions(path=[directory]))
        files: dict[str, Path | bytes] = dict(_own_files())
        for distribution in distributions:
            files.update(_files(distribution))
        if with_python:
            files.update(interpreter.files())
        root = (probe.root_version() or "") if with_root else ""
        names = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions}
        manifest = Manifest(
            python=python,
            machine=machine,
            glibc="",
            gridproof=_own_version(),
            root=root,
            interpreter=platform.python_version() if with_python else "",
            distributions=dict(sorted(names.items())),
        )
        return write(path, manifest, files)


def _own_version() -> str:
    return probe.distribution_version(OWN) or "source"


def _wanted(with_root: bool) -> list[Requirement]:
    """What gridproof requires; the versions that pilots and sessions compare are this environment's."""
    try:
        requires = metadata.requires(OWN) or []
    except metadata.PackageNotFoundError:
        raise ConfigError("gridproof runs from a source tree: install it (pip install -e .)") from None
    wanted = []
    for requirement in map(Requirement, requires):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name == ROOT and not with_root:
            continue
        wanted.append(_as_here(requirement.name) if requirement.name in _COMPARED else requirement)
    return wanted


def _as_here(name: str) -> Requirement:
    """A requirement of the very version that is installed. Raises ConfigError."""
    try:
        return Requirement(f"{name}=={metadata.version(name)}")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            f"{name} is not installed here as a Python distribution, so it cannot be brought along: "
            "leave it to the node, or install it with pip"
        ) from None


def _closure(wanted: Iterable[Requirement]) -> Iterator[metadata.Distribution]:
    """The installed distributions that fulfil these requirements, and theirs in turn."""
    seen: set[tuple[str, str]] = set()
    left = list(wanted)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise ConfigError(f"{name} is required and not installed here") from None
        if (name, "") not in seen:
            yield distribution
        for extra in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            for further in map(Requirement, distribution.requires or ()):
                if not further.marker or further.marker.evaluate({"extra": extra}):
                    left.append(further)


def _files(distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """A distribution's files by where they lie in it; scripts and what tells of this machine stay out."""
    if distribution.files is None:
        name = distribution.metadata["Name"]
        raise ConfigError(f"{name} was installed without a list of its files: give --glibc, to fetch it anew")
    for file in distribution.files:
        if ".." in file.parts or file.suffix in (".pth", ".pyc") or _LEFT_OUT & set(file.parts):
            continue
        path = Path(str(distribution.locate_file(file)))
        if path.is_file():
            yield str(file), path


def _own_files() -> Iterator[tuple[str, Path | bytes]]:
    package = Path(gridproof.__file__).parent
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{OWN}/{path.relative_to(package)}", path
    described = metadata.distribution(OWN).read_text("METADATA") or ""
    yield f"{OWN}-{_own_version()}.dist-info/METADATA", described.encode()


def _fetch(target: Path, wanted: Sequence[Requirement], python: str, glibc: str, machine: str) -> None:
    """Have pip install wheels for another Python or an older glibc into a directory."""
    minor = glibc.removeprefix("2.")
    if not minor.isdigit() or not int(minor) >= _OLDEST_GLIBC:
        raise ConfigError(f"--glibc is a version from 2.{_OLDEST_GLIBC} on, such as 2.28, not {glibc!r}")
    if not re.fullmatch(r"3\.\d+", python):
        raise ConfigError(f"--python is a version such as 3.12, not {python!r}")
    platforms: list[str] = []
    for number in range(int(minor), 4, -1):
        platforms += [f"manylinux_2_{number}_{machine}"]
        platforms += [f"{_LEGACY_TAGS[number]}_{machine}"] if number in _LEGACY_TAGS else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-compile", "--only-binary=:all:", "--target", str(target)]
    command += ["--implementation", "cp", "--python-version", python]
    command += [argument for name in platforms for argument in ("--platform", name)]
    run = subprocess.run([*command, *map(str, wanted)], capture_output=True, text=True, check=False)
    if run.returncode:
        words = [line for line in run.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ConfigError(
            f"pip has no wheels for Python {python} and glibc {glibc}: {words[-1].removeprefix('ERROR: ')}\n"
            "  there may be some for another --python or a newer --glibc"
        )
