"""The demo's steps, in order: Grid, data, session, query, check, picture, table."""

from __future__ import annotations

import json as jsonlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gridproof import _root, processes
from gridproof.demo import compare, plot
from gridproof.errors import GridproofError

if TYPE_CHECKING:
    from rich.console import Console

    from gridproof.engine.result import Summary
    from gridproof.localgrid import LocalGrid
    from gridproof.records import Table, WorkerRecord

SITES = 3
SLOTS = 2
FILES = 12
EVENTS = 200_000  # in each file
DIRECTORY = "/local/demo"
TREE = "esd"
MAKERS = 4  # processes at most, writing the files
SELECTOR = "PtSpectrum.C"
PICTURE = "pt_spectrum.png"
_AGAIN = 0.05  # seconds after which a signal that came in the middle of a fork is looked at again


@dataclass(frozen=True)
class Report:
    """What ``gridproof demo --json`` prints; times in s, sizes in bytes."""

    workers: int
    sites: int
    files: int
    events: int
    expected_events: int
    events_per_s: float
    bytes_read: int
    local_bytes_fraction: float
    open_s: float
    query_s: float
    engine: str
    root: str
    identical: bool


def main(json: bool, output_dir: Path) -> int:
    """`run` for the command line: the exit code is 1 if the histograms were not identical."""
    return 0 if run(json=json, output_dir=output_dir)["identical"] else 1


def run(*, json: bool, output_dir: Path) -> dict[str, Any]:
    """Show an interactive analysis on an embedded Grid, and return what ``--json`` prints.

    Writes ``pt_spectrum.png`` into ``output_dir``. A person's words go to standard output, or with
    ``json`` to standard error, so that standard output holds one JSON object alone. SIGTERM and SIGHUP
    end it like Ctrl-C does: by ``SystemExit``, with everything that it started ended.

    Raises:
        GridproofError: the Grid, the data, the session or the query failed.
    """
    from rich.console import Console

    with _standard_output_kept(json), _ended_by_signals() as check:
        report = asdict(_run(Console(stderr=json, highlight=False), output_dir, check))
    if json:
        print(jsonlib.dumps(report), flush=True)
    return report


def _run(console: Console, output_dir: Path, check: Callable[[], None]) -> Report:
    import gridproof
    from gridproof.localgrid import LocalGrid

    output_dir.mkdir(parents=True, exist_ok=True)
    with LocalGrid(sites=SITES, slots=SLOTS) as grid:
        console.print(f"A Grid of {SITES} sites with {SLOTS} slots each is up on this machine.")
        # Within the Grid's directory, which the Grid's own service removes whatever becomes of this process.
        scratch = grid.root / "demo"
        scratch.mkdir(mode=0o700)
        local_files = _make_data(grid, scratch)
        check()
        size = sum(path.stat().st_size for path in local_files)
        console.print(f"{FILES} files with {FILES * EVENTS:,} events ({size / 1e6:.0f} MB) are on it.")

        start = time.monotonic()
        with gridproof.open(
            "local", workers=SITES * SLOTS, dataset=f"{DIRECTORY}/*.root", tree=TREE
        ) as session:
            open_s = time.monotonic() - start
            check()
            console.print(f"{len(session.workers)} workers are ready after {open_s:.1f} s:")
            console.print(str(session.workers), style="dim")
            dataset = session.dataset(f"{DIRECTORY}/*.root", tree=TREE)
            selector = f"{_source(SELECTOR)}+"
            start = time.monotonic()
            session.load(selector)
            console.print(f"{SELECTOR} is compiled and loaded everywhere, {time.monotonic() - start:.1f} s.")
            check()
            start = time.monotonic()
            result = session.process(dataset, selector)
            query_s = time.monotonic() - start
            workers = session.workers
            engine = session.engine
        expected, expected_events, plain_s = _reference(scratch, local_files)
        wrong = compare.differences(result, expected)
        for line in wrong:
            console.print(f"[red]differs from TChain::Process:[/] {line}")

        summary = result.summary
        report = Report(
            workers=len(workers),
            sites=len({worker.site for worker in workers}),
            files=len(dataset.files),
            events=summary.events,
            expected_events=expected_events,
            events_per_s=round(summary.events / query_s, 1),
            bytes_read=summary.bytes_read,
            local_bytes_fraction=round(summary.local_bytes / max(1, summary.bytes_read), 4),
            open_s=round(open_s, 3),
            query_s=round(query_s, 3),
            engine=engine,
            root=_root.version(),
            identical=not wrong,
        )
        picture = output_dir / PICTURE
        caption = (
            f"{report.events:,} events in {report.files} files, read at {report.sites} sites",
            f"{report.workers} workers, {report.events_per_s / 1e6:.2f} million events/s",
        )
        plot.spectrum(result["yield"], picture, reference=expected["yield"], caption=caption)
        _print_table(console, report, workers, summary)
        same = "the same as" if report.identical else "NOT the same as"
        console.print(
            f"The session opened in {open_s:.1f} s, the query took {query_s:.1f} s."
            f" The histograms are {same} those of TChain::Process in one process ({plain_s:.1f} s)."
            f"\nThe spectrum is in {picture}."
        )
        return report


def _source(name: str) -> Path:
    """Where a file of ``examples/`` lies, in a checkout or in an installed package.

    Raises:
        FileNotFoundError: this installation came without the examples.
    """
    package = Path(__file__).resolve().parents[1]
    for directory in (package.parent / "examples", package / "examples"):
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"examples/{name} is not part of this installation: use a clone of gridproof")


def _make_data(grid: LocalGrid, scratch: Path) -> list[Path]:
    """Write the files, in several processes, and put each on the Grid as soon as it is there."""
    paths = [scratch / f"esd_{number:02d}.root" for number in range(FILES)]
    makers = min(os.cpu_count() or 1, MAKERS)
    with ExitStack() as stack:
        uploads = stack.enter_context(ThreadPoolExecutor(makers))
        children = []
        for first in range(makers):
            mine = [[str(path), EVENTS, 1 + number] for number, path in enumerate(paths)][first::makers]
            child = _plain({"do": "make", "macro": str(_source("MakeEsd.C")), "files": mine})
            stack.callback(_end, child)  # before the executor waits for its threads
            children.append(child)
        done = [uploads.submit(_put_all, grid, child) for child in children]
        for upload in done:
            upload.result()
    return paths


def _put_all(grid: LocalGrid, child: subprocess.Popen[bytes]) -> None:
    for answer in _answers(child):
        path = Path(answer["path"])
        number = int(path.stem.rpartition("_")[2])
        names = grid.se_names
        replicas = 1 + number % 2
        grid.put(
            path, f"{DIRECTORY}/{path.name}", ses=[names[(number + k) % len(names)] for k in range(replicas)]
        )


def _reference(scratch: Path, files: list[Path]) -> tuple[dict[str, Any], int, float]:
    """The same selector by ``TChain::Process`` in one process: objects by name, events, wall time in s."""
    output = scratch / "reference.root"
    order = {"selector": str(_source(SELECTOR)), "tree": TREE, "option": "", "output": str(output)}
    child = _plain({"do": "process", "files": [str(path) for path in files], **order})
    try:
        (answer,) = _answers(child)
    finally:
        _end(child)
    root = _root.load()
    file = root.TFile(str(output))
    objects = {}
    for key in file.GetListOfKeys():
        thing = key.ReadObj()
        if thing.InheritsFrom("TH1"):
            thing.SetDirectory(root.nullptr)
        objects[str(key.GetName())] = thing
    file.Close()
    return objects, answer["events"], answer["wall"]


def _plain(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    child = processes.spawn(
        [sys.executable, "-m", "gridproof.demo.plain"],
        stdout=subprocess.PIPE,
        death_signal=signal.SIGKILL,  # in the middle of C++ nothing gentler is heard
    )
    assert child.stdin
    child.stdin.write(jsonlib.dumps(order).encode() + b"\n")
    child.stdin.flush()
    return child


def _answers(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert child.stdout
    for line in child.stdout:
        yield jsonlib.loads(line)
    if child.wait() != 0:
        raise GridproofError(
            f"the demo's helper process ended with code {child.returncode}; what it said stands above"
        )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe
        pipe.close()


def _print_table(console: Console, report: Report, workers: Table[WorkerRecord], summary: Summary) -> None:
    from rich.table import Table

    table = Table()
    for title in ("site", "workers", "events", "events/s", "MB/s", "read at own site"):
        table.add_column(title, justify="left" if title == "site" else "right")
    site_of = {worker.name: worker.site for worker in workers}
    for site in sorted(set(site_of.values())):
        events = sum(count for name, count in summary.per_worker.items() if site_of.get(name) == site)
        count = sum(1 for there in site_of.values() if there == site)
        table.add_row(site, str(count), f"{events:,}", f"{events / report.query_s:,.0f}", "", "")
    table.add_section()
    table.add_row(
        "all",
        str(report.workers),
        f"{report.events:,}",
        f"{report.events_per_s:,.0f}",
        f"{report.bytes_read / report.query_s / 1e6:.1f}",
        f"{report.local_bytes_fraction:.1%}",
    )
    console.print(table)


@contextmanager
def _standard_output_kept(wanted: bool) -> Iterator[None]:
    """Whatever is written to standard output meanwhile, also by ROOT in C++, goes to standard error."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _in_fork(frame: FrameType | None) -> bool:
    """Whether an exception would leave a lock taken for ever: around a fork `logging` holds its own."""
    while frame is not None:
        if frame.f_code.co_name == "_execute_child" or frame.f_globals.get("__name__") == "logging":
            return True
        frame = frame.f_back
    return False


@contextmanager
def _ended_by_signals() -> Iterator[Callable[[], None]]:
    """SIGTERM and SIGHUP leave by `SystemExit`, the first of them once: what follows cleans up in peace.

    Gives what raises it again if it was raised where Python swallows exceptions, as in a destructor.
    """
    signals = (signal.SIGTERM, signal.SIGHUP)
    came: list[int] = []

    def check() -> None:
        if came:
            raise SystemExit(128 + came[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def leave(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        if number != signal.SIGALRM:
            came.append(number)
        if _in_fork(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        else:
            check()

    before = {each: signal.signal(each, leave) for each in (*signals, signal.SIGALRM)}
    try:
        yield check
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler)
