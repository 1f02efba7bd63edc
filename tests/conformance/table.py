"""Type all cases at alienpy, as a library and as a command line, and make the page of what came of it.

``python -m tests.conformance.table`` writes ``docs/embedded-grid-commands.md``.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridproof.localgrid import LocalGrid
from gridproof.localgrid.access import GridAccess
from tests.conformance.cases import SECTIONS, Case
from tests.conformance.client import CommandLine, Library, Returned

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedded-grid-commands.md"
RECORDED_HOME = "/alice/cern.ch/user/j/jalien/"
HOME = "/local/user/g/gproof/"
LOCAL = b"a file on this machine\n"
LOCAL_MD5 = hashlib.md5(LOCAL).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What one case came to: as a library, and as a command line (exit code, text with masked names)."""

    command: str
    case: Case
    library: Returned
    typed: tuple[int, str]
    names: Mapping[str, str]


def masked(text: str, names: Mapping[str, str]) -> str:
    """A text with the names of the run put back to what stands for them."""
    for name, value in names.items():
        text = text.replace(value, f"{{{name}}}")
    return text


def filled(text: str, names: Mapping[str, str]) -> str:
    """``{here}`` and the like replaced; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


SCRIPTS = {"ok.sh": "echo hello $1 > out.txt", "fail.sh": "exit 3", "sleep.sh": "sleep 600"}
JDLS = {
    "ok.jdl": 'Executable = "{here}ok.sh";',
    "arg.jdl": 'Executable = "{here}ok.sh"; Arguments = "$1";',
    "bad.jdl": 'Executable = "nothing.sh";',
}


def prepare(grid: LocalGrid, scratch: Path) -> dict[str, str]:
    """Files and jobs that the lines speak of, here and on the Grid; what they are called."""
    here = f"{HOME}here/"
    scratch.mkdir()
    (scratch / "local.txt").write_bytes(LOCAL)
    files = {
        "t1/blob": b"\0" * 3_000_000,
        "t1/j.jdl": b"x" * 169,
        "t1/job.sh": b"#!/bin/bash\necho hello $ALIEN_PROC_ID $1 > out.txt\n",
        "t1/k.jdl": b"x" * 67,
        "t1/o/out.txt": b"hello",
        "t1/spin.sh": b"x" * 32,
        "data/001/d.root": b"x" * 10,
        ".hidden": b"x",
        **{name: f"#!/bin/sh\n{text}\n".encode() for name, text in SCRIPTS.items()},
        **{name: text.replace("{here}", here).encode() for name, text in JDLS.items()},
    }
    with zipfile.ZipFile(scratch / "archive.zip", "w") as archive:
        archive.writestr("a.txt", "in an archive")
    with GridAccess(grid.environment) as access:
        for name, content in files.items():
            path = scratch / Path(name).name
            path.write_bytes(content)
            access.put(path, here + name, grid.se_names[:2])
        access.put(scratch / "archive.zip", f"{here}members/archive.zip", grid.se_names[:2])
        access.command("gridUnzip", f"{here}members/archive.zip")
        guid = str(access.command("stat", f"{here}t1/blob")[0]["guid"])
        names = {"here": here, "home": HOME, "guid": guid, "md5": LOCAL_MD5}
        return {**names, **_prepare_jobs(access, here), "root": str(grid.root), "scratch": str(scratch)}


def _prepare_jobs(access: GridAccess, here: str) -> dict[str, str]:
    """One job in each state that matters."""
    jobs = {
        "done": (f'Executable = "{here}ok.sh"; OutputFile = {{"out.txt"}}; OutputDir = "{here}out";', "DONE"),
        "failed": (f'Executable = "{here}fail.sh";', "ERROR_E"),
        "running": (f'Executable = "{here}sleep.sh";', "RUNNING"),
        "waiting": (f'Executable = "{here}ok.sh"; Requirements = other.CE == "Local::None::CE";', "WAITING"),
        "master": (f'Executable = "{here}ok.sh"; Split = "production:1-2";', "DONE"),
    }
    ids = {name: str(access.command("submit", jdl)[0]["jobId"]) for name, (jdl, _) in jobs.items()}
    for name, (_, state) in jobs.items():
        deadline = time.monotonic() + 30
        while (now := access.command("ps", "-j", ids[name])[0]["status"]) != state:
            assert time.monotonic() < deadline, f"{name} is {now}, not {state}"
            time.sleep(0.05)
    return ids


def run(scratch: Path) -> list[Outcome]:
    """All cases in both of alienpy's forms, each with a Grid of its own."""
    cases = [(command, case) for command, cases in SECTIONS.items() for case in cases]
    with ThreadPoolExecutor() as both:
        library, typed = (both.submit(run, cases, scratch / run.__name__) for run in (_library, _typed))
    returned, names = library.result()
    printed, _ = typed.result()
    return [
        Outcome(command, case, one, other, names)
        for (command, case), one, other in zip(cases, returned, printed, strict=True)
    ]


def _library(cases: Sequence[tuple[str, Case]], scratch: Path) -> tuple[list[Returned], dict[str, str]]:
    with LocalGrid() as grid:
        names = prepare(grid, scratch)
        with Library(grid.environment, scratch) as library:
            library.run(f"cd {names['here']}")
            return [library.run(filled(case.line, names)) for _, case in cases], names


def _typed(cases: Sequence[tuple[str, Case]], scratch: Path) -> tuple[list[tuple[int, str]], dict[str, str]]:
    with LocalGrid() as grid:
        names = prepare(grid, scratch)
        lines = [f"cd {names['here']}", *(filled(case.line, names) for _, case in cases)]
        answers = CommandLine(grid.environment, scratch).batch(lines)[1:]
        return [(code, masked(text, names)) for code, text in answers], names


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
        answer = masked(outcome.library.err, outcome.names).strip() or _keys(outcome.library)
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
