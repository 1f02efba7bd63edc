"""A pilot's words for the trace of its job."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def trace(line: str) -> None:
    """One line to standard error, and to the file that the Grid adds to the job's trace.

    The start script names that file; where a pilot is run by hand there is none.
    """
    print(f"gridproof pilot: {line}", file=sys.stderr, flush=True)
    if name := os.environ.get("GRIDPROOF_TRACE"):
        with Path(name).open("a") as file:
            file.write(f"gridproof pilot: {line}\n")
