"""What becomes of a job that was inserted: the slow part of optimising it. Pure; a thread can do it."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Jdl, render
from gridproof.errors import JdlError
from gridproof.localgrid.jobs.requirements import Requirements, read_requirements
from gridproof.localgrid.jobs.splitting import Located, bind_to_data, is_split, split

SUBJOBS_TEXT = 256 << 20  # characters of the JDLs of one master's subjobs, all of which are in memory


@dataclass(frozen=True)
class Prepared:
    """A complete JDL as text, and what the queue wants to know of it."""

    jdl: str
    name: str
    needs: Requirements

    @classmethod
    def of(cls, jdl: Jdl) -> Prepared:
        return cls(render(jdl), posixpath.basename(jdl.text("Executable")), read_requirements(jdl))


@dataclass(frozen=True)
class Plan:
    """Either the job ``itself``, bound to its input data, is to wait, or, of a master, its ``subjobs``."""

    itself: Prepared | None
    subjobs: tuple[Prepared, ...] = ()


def make_plan(jdl: Jdl, files: Sequence[Located], limit: int, job: int) -> Plan:
    """For the job of this id with these input files; at most ``limit`` subjobs. Raises JdlError."""
    if is_split(jdl):
        return Plan(None, _prepared(split(jdl, files, limit, job)))
    return Plan(Prepared.of(bind_to_data(jdl, files)))


def _prepared(subjobs: Sequence[Jdl]) -> tuple[Prepared, ...]:
    made: list[Prepared] = []
    room = SUBJOBS_TEXT
    for jdl in subjobs:
        made.append(Prepared.of(jdl))
        room -= len(made[-1].jdl)
        if room < 0:
            most = f"{SUBJOBS_TEXT >> 20} MB"
            raise JdlError(
                f"The JDLs of the job's {len(subjobs)} subjobs are larger than {most} together:"
                " make several jobs of it"
            )
    return tuple(made)
