"""Says whether this Python can run a pilot, importing none of what a pilot needs.

`gridproof.pilot.start` puts this text into the script that a job begins with, which runs it as ``python -c
TEXT PYTHON GRIDPROOF DISTRIBUTED ROOT``: the versions that are wanted. It prints one line: what was found
(exit code 0), or what is missing, where it was looked for, and what to do (an exit code of
`gridproof.pilot.start`). So it needs nothing of gridproof, and an old Python understands it.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: No Python of the session's minor version.
NO_PYTHON = 81
#: gridproof or distributed is missing, or has another version.
NO_GRIDPROOF = 83
#: ROOT is missing, or has another version.
NO_ROOT = 84

_SOME = "name packages of the Grid with it in pilots.packages"


def root_version() -> "str | None":
    """The version of ROOT that this Python would import: "6.40.00"; "" if it does not say, None: no ROOT."""
    spec = importlib.util.find_spec("ROOT")
    if spec is None or not spec.origin:
        return None
    package = Path(spec.origin).parent
    named = [Path(os.environ["ROOTSYS"])] if os.environ.get("ROOTSYS") else []
    for base in (package, *package.parents[:4], *named):
        for header in ("include/ROOT/RVersion.hxx", "include/RVersion.h", "include/root/RVersion.h"):
            numbers = _numbers(base / header)
            if numbers:
                return "%d.%02d.%02d" % numbers  # noqa: UP031
    return ""


def _numbers(header: Path) -> "tuple[int, ...] | None":
    try:
        text = header.read_text(errors="replace")
    except OSError:
        return None
    found = re.findall(r"#define ROOT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text)
    if len(found) != 3:
        found = re.findall(r'#define ROOT_RELEASE "(\d+)\.(\d+)[./](\d+)', text)[0:1]
        found = list(found[0]) if found else []
    return tuple(int(number) for number in found) or None


def distribution_version(name: str) -> "str | None":
    """The version of an installed distribution, by the name of its metadata directory alone."""
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208
        except OSError:
            continue
        for found in names:
            if found.startswith(name + "-") and found.endswith(".dist-info"):
                return found[len(name) + 1 : -len(".dist-info")]
    return None


def judge(wanted: "Sequence[str]") -> "tuple[int, str]":
    """Compare with the versions wanted of Python, gridproof, distributed and ROOT; exit code and line."""
    python, gridproof, distributed, root = wanted
    here = "Python {}.{}.{} ({})".format(*sys.version_info[:3], sys.executable)
    if python.split(".")[:2] != [str(number) for number in sys.version_info[:2]]:
        return NO_PYTHON, here
    for name, version in (("gridproof", gridproof), ("distributed", distributed)):
        if importlib.util.find_spec(name) is None:
            return NO_GRIDPROOF, (
                f"{name} {version} is wanted, {here} has none: let pilots.bundle name a bundle "
                "('gridproof pilot bundle' makes it)"
            )
        found = distribution_version(name) or "source"
        if found != version:
            return NO_GRIDPROOF, (
                f"{name} {version} is wanted, {here} has {found}: make the bundle anew with "
                "'gridproof pilot bundle', or install the same version on both sides"
            )
    found_root = root_version()
    if found_root is None:
        return NO_ROOT, (
            f"ROOT {root} is wanted, {here} finds none: {_SOME}, "
            "or bring it along with 'gridproof pilot bundle --with-root'"
        )
    if found_root and _plain(found_root) != _plain(root):
        return NO_ROOT, (
            f"ROOT {root} is wanted, {here} finds {found_root}: {_SOME}, use ROOT {found_root} in the "
            "session too, or bring one along with 'gridproof pilot bundle --with-root'"
        )
    return (
        0,
        f"{here}, gridproof {gridproof}, distributed {distributed}, ROOT {found_root or '(not yet known)'}",
    )


def _plain(version: str) -> "list[int]":
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


if __name__ == "__main__":
    code, line = judge(sys.argv[1:])
    print(line)
    sys.exit(code)
