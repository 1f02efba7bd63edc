"""The packages that a JDL may name: here one, the ROOT of the Grid's own Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from gridproof.pilot import probe

_VO = "VO_LOCAL"


class PackageMissing(Exception):
    """A package that was asked for is not there."""


def available() -> dict[str, Path]:
    """The packages by name, and where each has its files."""
    version = probe.root_version()
    spec = importlib.util.find_spec("ROOT")
    if version is None or spec is None or not spec.origin:
        return {}
    return {f"{_VO}@ROOT::v{version.replace('.', '-')}": Path(spec.origin).parent.parent}


def environment(names: Iterable[str], directory: Path) -> Mapping[str, str]:
    """The variables that make these packages usable; what they need is laid out below ``directory``.

    Raises:
        PackageMissing: there is no package of such a name.
    """
    known = available()
    paths = []
    for name in names:
        if name not in known:
            raise PackageMissing(f"{name} (there are: {', '.join(known) or 'none'})")
        paths.append(str(_lay_out(known[name], directory / name.replace(":", "-"))))
    return {"PYTHONPATH": ":".join(paths)} if paths else {}


def _lay_out(site: Path, directory: Path) -> Path:
    """A directory with ROOT and nothing else of a Python's packages."""
    try:
        files = metadata.distribution("root").files or []
    except metadata.PackageNotFoundError:  # ROOT has a directory of its own
        return site
    directory.mkdir(parents=True, exist_ok=True)
    for name in {file.parts[0] for file in files} - {"..", "__pycache__"}:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(site / name)
    return directory
