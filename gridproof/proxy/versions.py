"""The versions that this process runs."""

from __future__ import annotations

import platform
from importlib import metadata

from gridproof.proxy.protocol import Versions


def here() -> Versions:
    """What pilot and session compare; imports ROOT and distributed.

    Raises:
        ImportError: one of them is not installed.
    """
    import distributed

    from gridproof import _root

    try:
        own = metadata.version("gridproof")
    except metadata.PackageNotFoundError:  # run from a source tree
        own = "source"
    return Versions(platform.python_version(), _root.version(), own, str(distributed.__version__))
