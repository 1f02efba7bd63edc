"""Type all cases at alienpy, as a library and as a command line, and make the page of what came of it.

``python -m tests.conformance.table`` writes ``docs/embedded-grid-commands.md``.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridproof.localgrid import LocalGrid
from tests.conformance.cases import SECTIONS, Case
from tests.conformance.client import CommandLine, Library, Returned

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedded-grid-commands.md"
RECORDED_HOME = "/alice/cern.ch/user/j/jalien/"
HOME = "/local/user/g/gproof/"


@dataclass(frozen=True)
class Outcome:
    """What one case came to: as a library, and as a command line (exit code, text)."""

    command: str
    case: Case
    line: str
    library: Returned
    typed: tuple[int, str]
    names: Mapping[str, str]

    def masked(self, text: str) -> str:
        """A text with the names of the run put back to what stands for them."""
        for name, value in self.names.items():
            text = text.replace(value, f"{{{name}}}")
        return text


def filled(text: str, names: Mapping[str, str]) -> str:
    """``{here}`` and the like replaced; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


def prepare(grid: LocalGrid, directory: str, scratch: Path) -> None:
    """The files that the recorded exchanges speak of, below a directory of the Grid."""
    files = {
        "t1/blob": b"\0" * 3_000_000,
        "t1/j.jdl": b"x" * 169,
        "t1/job.sh": b"#!/bin/bash\necho hello $ALIEN_PROC_ID $1 > out.txt\n",
        "t1/k.jdl": b"x" * 67,
        "t1/o/out.txt": b"hello",
        "t1/spin.sh": b"x" * 32,
        "data/001/d.root": b"x" * 10,
        ".hidden": b"x",
    }
    for name, content in files.items():
        path = scratch / Path(name).name
        path.write_bytes(content)
        grid.put(path, directory + name, grid.se_names[:2])


def run(scratch: Path) -> list[Outcome]:
    """All cases on a Grid of their own, once in each of alienpy's forms."""
    cases = [(command, case) for command, cases in SECTIONS.items() for case in cases]
    with LocalGrid() as grid:
        names = [{"here": f"{HOME}{form}/", "home": HOME} for form in ("library", "typed")]
        for one in names:
            prepare(grid, one["here"], scratch)
        lines = [[filled(case.line, one) for _, case in cases] for one in names]
        with Library(grid.environment, scratch / "library") as library:
            library.run(f"cd {names[0]['here']}")
            returned = [library.run(line) for line in lines[0]]
        command_line = CommandLine(grid.environment, scratch / "typed")
        typed = command_line.batch([f"cd {names[1]['here']}", *lines[1]])[1:]
    return [
        Outcome(
            command, case, line, answer, (code, text.replace(names[1]["here"], names[0]["here"])), names[0]
        )
        for (command, case), line, answer, (code, text) in zip(cases, lines[0], returned, typed, strict=True)
    ]


def recordings() -> dict[str, dict[str, Any]]:
    """The recorded answers by the line that they answer, with ``{here}`` for the home of the recordings."""
    text = (ROOT / "tests" / "alien" / "captures.jsonl").read_text()
    exchanges = [json.loads(line) for line in text.replace(RECORDED_HOME, "{here}").splitlines()]
    return {" ".join([e["command"], *e["options"]]): e["response"] for e in exchanges}


def page(outcomes: list[Outcome]) -> str:
    """The page, in Markdown."""
    recorded = recordings()
    return "\n".join([HEAD, *_sections(outcomes, recorded)]) + "\n"


def _sections(outcomes: list[Outcome], recorded: Mapping[str, Any]) -> Iterator[str]:
    shown = ""
    for outcome in outcomes:
        if outcome.command != shown:
            shown = outcome.command
            yield f"\n## {shown}\n\n| typed | exit code | answer | as JAliEn? |\n| --- | --- | --- | --- |"
        answer = outcome.masked(outcome.library.err).strip() or _keys(outcome.library)
        typed = f"`{outcome.case.line}`"
        yield (
            "| "
            + " | ".join(
                _cell(text)
                for text in (typed, str(outcome.library.exitcode), answer, agreement(outcome.case, recorded))
            )
            + " |"
        )


def _keys(returned: Returned) -> str:
    names = dict.fromkeys(key for row in returned.rows for key in row if key != "message")
    return " ".join(f"`{name}`" for name in names) or ("text" if returned.out else "nothing")


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def agreement(case: Case, recorded: Mapping[str, Any]) -> str:
    """How it is known what JAliEn answers."""
    if case.differs:
        return f"differs: {case.differs}"
    if case.local:
        return "alienpy alone"
    return "recorded" if case.line in recorded else "by its source"


HEAD = """\
# Commands of the embedded Grid, by alienpy

What alienpy 1.7.0, unmodified, gets from the embedded Grid. This page is written by the conformance suite
(`python -m tests.conformance.table`)."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(page(run(Path(scratch))))


if __name__ == "__main__":
    main()
