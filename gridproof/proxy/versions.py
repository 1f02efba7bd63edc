"""The versions that this process runs."""

from __future__ import annotations

import platform
from importlib import metadata

from gridproof.proxy.protocol import Versions


def here() -> Versions:
    """What pilot and session compare; imports ROOT.

    Raises:
        ImportError: ROOT or distributed is not installed.
    """
    from gridproof import _root

    try:
        own = metadata.version("gridproof")
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "source"
    return Versions(platform.python_version(), _root.version(), own, metadata.version("distributed"))
