"""Interactive ROOT analysis on the Grid, next to the data.

>>> import gridproof
>>> with gridproof.open("local", workers=6) as session:
...     data = session.dataset("/local/demo/*.root", tree="esd")
...     result = session.process(data, "PtSpectrum.C+")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import GridproofError

if TYPE_CHECKING:
    from .dataset import Dataset
    from .engine.handle import Query
    from .engine.result import Result, Summary
    from .opening import attach, open, sessions
    from .progress import Progress
    from .session import Session

__all__ = [
    "Dataset",
    "GridproofError",
    "Progress",
    "Query",
    "Result",
    "Session",
    "Summary",
    "attach",
    "errors",
    "open",
    "sessions",
]

_HOMES = {
    "Dataset": ".dataset",
    "Progress": ".progress",
    "Query": ".engine.handle",
    "Result": ".engine.result",
    "Session": ".session",
    "Summary": ".engine.result",
    "attach": ".opening",
    "open": ".opening",
    "sessions": ".opening",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
