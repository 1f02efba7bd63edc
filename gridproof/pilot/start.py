"""The script that a pilot's JDL names as its executable.

It finds a Python of the right version in the job's environment, unpacks the bundle if one came with the
job, and becomes the pilot. Where something is missing it ends with one of the codes below, after a line in
the job's trace that says what was wanted, what was found, where, and what to do.
"""

from __future__ import annotations

import shlex
from importlib import resources

from gridproof.pilot.bundle import Bundle
from gridproof.pilot.probe import NO_GRIDPROOF, NO_PYTHON, NO_ROOT
from gridproof.proxy.protocol import Versions

__all__ = ["NO_BUNDLE", "NO_GRIDPROOF", "NO_PYTHON", "NO_ROOT", "script"]

#: The bundle is missing, cut off, damaged, for other machines or a newer glibc, or cannot be unpacked.
NO_BUNDLE = 82


def script(python: str, wanted: Versions, bundle: Bundle | None = None) -> str:
    """The text of the script; ``python`` is tried first, ``wanted`` is what the session runs."""
    here = resources.files(__package__)
    settings = {
        "python": python,
        "wanted_python": wanted.python,
        "wanted_gridproof": wanted.gridproof,
        "wanted_distributed": wanted.distributed,
        "wanted_root": wanted.root,
        "bundle": bundle.name if bundle else "",
        "bundle_size": str(bundle.size) if bundle else "",
        "bundle_sha256": bundle.sha256 if bundle else "",
        "bundle_machine": bundle.manifest.machine if bundle else "",
        "bundle_glibc": bundle.manifest.glibc.partition(".")[2] if bundle else "",
        "bundle_root": bundle.manifest.root if bundle else "",
        "probe": (here / "probe.py").read_text(),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join(["#!/bin/sh", *lines, (here / "start.sh").read_text()])
