"""What a user is shown of workers and of ways to them; records that print as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process; ``pid`` is its own on ``host``.

    ``state``: ``starting``, ``ready`` or ``ended``. ``way``: its own connection to the session's master is
    ``direct``, or a ``tunnel`` through its pilot's.
    """

    name: str
    site: str
    host: str
    pid: int
    state: str
    way: str


@dataclass(frozen=True)
class Forward:
    """A way to a worker's own port, or to its node's XRootD server: ``address`` is ``host:port``, from here.

    ``security`` is distributed's, for a worker; ``keytab`` the file in which XRootD's clients find the key.
    """

    address: str
    security: Any = field(default=None, repr=False)
    keytab: str = ""


class Table(list[T]):
    """Records of one kind (a dataclass); printed, a table."""

    def __init__(self, kind: type[T], records: Iterable[T] = ()) -> None:
        super().__init__(records)
        self._kind: Any = kind

    def _rows(self) -> list[tuple[str, ...]]:
        records: list[Any] = list(self)
        return [tuple(f.name for f in fields(self._kind)), *(tuple(map(str, astuple(r))) for r in records)]

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        names, *rows = self._rows()
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><tr>{head}</tr>{body}</table>"
