"""Lines for the log of a master or a worker, which their user reads by `Session.logs`."""

from __future__ import annotations

import sys
import time


def note(line: str) -> None:
    """One line with the time (UTC) to standard error."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}", file=sys.stderr, flush=True)
