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
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridproof.localgrid import LocalGrid
from gridproof.localgrid.client import GridAccess
from tests.conformance.cases import ALIENPY_S_OWN, SECTIONS, Case
from tests.conformance.client import CommandLine, Library, Returned

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedded-grid-commands.md"
HOME = "/local/user/g/gproof/"
LOCAL = b"a file on this machine\n"
LOCAL_MD5 = hashlib.md5(LOCAL).hexdigest()


Recorded = tuple[int, str, frozenset[str]]  # exit code, error, keys
Asked = dict[tuple[str, str], Returned]
NAMES = (
    ("/alice/cern.ch/user/j/jalien/", "{here}"),
    ("/alice/cern.ch/user/j", "/local/user/g"),
    ("1888757082", "{done}"),
    ("ALICE::JTESTSITE::FIRSTSE", "Local::Site1::SE"),
    ("JTestSite", "Site1"),
    ("jalien", "gridproof"),
)
NOTHING_THERE = {"ps -f r", "ps -f RUNNING", "packages"}
READING = re.compile(
    "(access read|du|find|groups|lfn2guid|list[CS]Es|listpartitions|listSEDistance|ls|masterjob|md5sum|pwd|ps"
    "|stat|type|uptime|version|w|whereis|whoami)( (?!-x).*|$)"
)


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


@dataclass(frozen=True)
class Run:
    """What came of all cases, and of recorded lines that change nothing by ``AliEn.run`` and ``SendMsg``."""

    outcomes: list[Outcome]
    asked: Asked
    names: Mapping[str, str]
    scratch: Path


def run(scratch: Path) -> Run:
    """All cases in both of alienpy's forms, each with a Grid of its own."""
    cases = [(command, case) for command, cases in SECTIONS.items() for case in cases]
    with ThreadPoolExecutor() as both:
        library, typed = (both.submit(run, cases, scratch / run.__name__) for run in (_library, _typed))
    returned, asked, names = library.result()
    printed, _ = typed.result()
    outcomes = [
        Outcome(command, case, one, other, names)
        for (command, case), one, other in zip(cases, returned, printed, strict=True)
    ]
    return Run(outcomes, asked, names, scratch)


def _library(
    cases: Sequence[tuple[str, Case]], scratch: Path
) -> tuple[list[Returned], Asked, dict[str, str]]:
    with LocalGrid() as grid:
        names = prepare(grid, scratch)
        with Library(grid.environment, scratch) as library:
            library.run(f"cd {names['here']}")
            asked = {
                (way, line): library.run(filled(line, names), way)
                for line in recordings()
                if READING.match(line)
                for way in ("run", "send")
            }
            return [library.run(filled(case.line, names)) for _, case in cases], asked, names


def _typed(cases: Sequence[tuple[str, Case]], scratch: Path) -> tuple[list[tuple[int, str]], dict[str, str]]:
    with LocalGrid() as grid:
        names = prepare(grid, scratch)
        lines = [f"cd {names['here']}", *(filled(case.line, names) for _, case in cases)]
        answers = CommandLine(grid.environment, scratch).batch(lines)[1:]
        return [(code, masked(text, names)) for code, text in answers], names


def recordings() -> dict[str, list[Recorded]]:
    """What was answered to the owner of the files, by line, with our names for theirs."""
    text = (ROOT / "tests" / "alien" / "captures.jsonl").read_text()
    for theirs, ours in NAMES:
        text = text.replace(theirs, ours)
    found: dict[str, list[Recorded]] = {}
    for exchange in map(json.loads, text.splitlines()):
        line = " ".join([exchange["command"], *exchange["options"]])
        if "as" not in exchange and "\n" not in line and line not in NOTHING_THERE:
            metadata = exchange["response"]["metadata"]
            keys = keys_of(exchange["response"]["results"])
            found.setdefault(line, []).append((int(metadata["exitcode"]), metadata["error"].strip(), keys))
    return found


def summary(returned: Returned, names: Mapping[str, str]) -> Recorded:
    """Of an answer what is compared with the recorded one."""
    return returned.exitcode, masked(returned.err, names).strip(), keys_of(returned.rows)


def keys_of(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The keys of all rows but that of the text for people."""
    return frozenset(key for row in rows for key in row) - {"message"}


def page(outcomes: list[Outcome]) -> str:
    """The page, in Markdown."""
    recorded = recordings().keys()
    known = Counter(agreement(outcome.case, recorded).partition(":")[0] for outcome in outcomes)
    commands = {outcome.case.line.split()[0] for outcome in outcomes}
    counts = ", ".join(f"{known[how]} {how}" for how in (RECORDED, SOURCE, CLIENT, DIFFERS))
    head = HEAD.format(lines=len(outcomes), commands=len(commands), counts=counts)
    return "\n".join([head, *_sections(outcomes, recorded)]) + "\n"


def _sections(outcomes: list[Outcome], recorded: Container[str]) -> Iterator[str]:
    shown = ""
    for outcome in outcomes:
        if outcome.command != shown:
            shown = outcome.command
            yield f"\n## {shown}\n\n| typed | exit code | answer | as JAliEn |\n| --- | --- | --- | --- |"
        code, error, keys = summary(outcome.library, outcome.names)
        answer = error or " ".join(f"`{key}`" for key in _in_order(outcome.library, keys))
        answer = answer or ("text" if outcome.library.out or outcome.library.printed else "nothing")
        row = (f"`{outcome.case.line}`", str(code), answer, agreement(outcome.case, recorded))
        yield f"| {' | '.join(cell.replace(chr(10), ' ').replace('|', chr(92) + '|') for cell in row)} |"


def _in_order(returned: Returned, keys: Container[str]) -> list[str]:
    return list(dict.fromkeys(key for row in returned.rows for key in row if key in keys))


RECORDED, SOURCE, CLIENT, DIFFERS = "recorded", "source", "alienpy", "differs"


def agreement(case: Case, recorded: Container[str]) -> str:
    """How it is known what JAliEn answers."""
    if case.differs:
        return f"{DIFFERS}: JAliEn's is {case.differs}"
    if ALIENPY_S_OWN.match(case.line):
        return CLIENT
    return RECORDED if case.line in recorded else SOURCE


HEAD = """\
# Commands of the embedded Grid, by alienpy

What the genuine alienpy 1.7.0 gets from the [embedded Grid](embedded-grid.md): {commands} commands in
{lines} lines, each typed at `alien.py` and given to the library, in this order. This page is written by the
conformance suite, `python -m tests.conformance.table`; `tests/conformance/test_commands.py` compares it with
what happens.

How it is known what JAliEn does ({counts}):

- `recorded`: exit code, error and keys are those of an exchange recorded from a real central service;
- `source`: they are what JAliEn's source says;
- `alienpy`: the client answers alone, or makes its own of what several commands say;
- `differs`: and how.

The answer is the error, or the keys of the rows. `{{here}}` is the current directory, `{{home}}` the home
directory; in `t1` lie the files of the recordings, `{{guid}}` is the GUID of `t1/blob`; `{{done}}`,
`{{failed}}`, `{{running}}`, `{{waiting}}` and `{{master}}` are jobs."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(page(run(Path(scratch)).outcomes))


if __name__ == "__main__":
    main()
