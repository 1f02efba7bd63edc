"""The workers of a session, as records that print as a table."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process; ``state``: ``starting``, ``ready`` or ``ended``. ``pid`` is its own on ``host``."""

    name: str
    site: str
    host: str
    pid: int
    state: str


class Workers(list[WorkerRecord]):
    """Records of workers; printed, a table."""

    def __repr__(self) -> str:
        rows = [tuple(f.name for f in fields(WorkerRecord)), *(tuple(map(str, astuple(w))) for w in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{f.name}</th>" for f in fields(WorkerRecord))
        body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in astuple(w)) + "</tr>" for w in self)
        return f"<table><tr>{head}</tr>{body}</table>"
