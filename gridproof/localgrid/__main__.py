"""The embedded Grid's process."""

from __future__ import annotations

import sys

from setproctitle import setproctitle

from gridproof.localgrid.service import main

if __name__ == "__main__":
    setproctitle("gridproof localgrid")
    sys.exit(main())
