"""The one place that imports ROOT, so that nothing pays for it before it is needed."""

from __future__ import annotations

import warnings
from typing import Any


def load() -> Any:
    """Import and return the ``ROOT`` module, without touching its batch mode or style.

    Raises:
        ImportError: ROOT is not installed for this Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the PyPI distribution announces its alpha state at import
        import ROOT

        ROOT.gROOT.GetVersion()  # finishes ROOT's own lazy initialisation
    return ROOT


def version() -> str:
    """ROOT's version, e.g. ``6.40.00``."""
    return str(load().gROOT.GetVersion())
