"""The demo as a user runs it: what it shows, and that it leaves nothing behind however it ends."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

KEYS = {
    "workers", "sites", "files", "events", "expected_events", "events_per_s", "bytes_read",
    "local_bytes_fraction", "open_s", "query_s", "engine", "root", "identical",
}  # fmt: skip
GONE_WITHIN = 30.0
MOMENTS = ("is up on this machine", "are on it", "workers are ready", "is compiled and loaded")


@pytest.fixture
def place() -> Iterator[Path]:
    """Home and temporary directory of a demo; passable, because storage elements run as another user."""
    path = Path(tempfile.mkdtemp(prefix="gridproof-test-"))
    path.chmod(0o711)
    for name in ("tmp", "home", "run", "out"):
        (path / name).mkdir(mode=0o711)
    (path / "run").chmod(0o700)
    yield path
    shutil.rmtree(path)


@contextmanager
def demo(place: Path, *options: str, **how: object) -> Iterator[subprocess.Popen[str]]:
    environ = {
        **os.environ,
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "XDG_RUNTIME_DIR": str(place / "run"),
    }
    argv = [sys.executable, "-u", "-m", "gridproof.cli", "demo", "--output", str(place / "out"), *options]
    with subprocess.Popen(argv, env=environ, text=True, **how) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    me = psutil.Process(process.pid)
    return [me, *me.children(recursive=True)]


def left_of(processes: list[psutil.Process]) -> list[str]:
    _, alive = psutil.wait_procs(processes, timeout=GONE_WITHIN)
    return [f"{p.pid} {p.name()}" for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def files_left(place: Path) -> list[str]:
    """Temporary files; what ends by itself after a kill -9 gets the time that it may take."""
    deadline = time.monotonic() + GONE_WITHIN
    while (left := [str(p) for d in ("tmp", "run") for p in (place / d).rglob("*") if p.is_file()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.2)
    return left


def wait_for(words: str, lines: Iterator[str]) -> None:
    seen = []
    for line in lines:
        seen.append(line)
        if words in line:
            return
    pytest.fail(f"the demo never said {words!r}:\n{''.join(seen)}")


def notes_of_xrootd() -> dict[str, float]:
    """XRootD writes these wherever the temporary directory is."""
    return {path.name: path.stat().st_mtime for path in Path("/tmp").glob("xrootd.*.env")}


@pytest.mark.timeout(240)
def test_the_demo_gives_the_same_histograms_as_one_process_and_says_so_in_json(place):
    notes = notes_of_xrootd()
    with demo(place, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert set(report) == KEYS
    assert report["identical"] is True
    assert report["events"] == report["expected_events"] == 2_400_000
    assert (report["workers"], report["sites"], report["files"]) == (6, 3, 12)
    assert report["local_bytes_fraction"] >= 0.9
    assert report["bytes_read"] > 100e6
    assert report["engine"] == "dask"
    picture = (place / "out" / "pt_spectrum.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5_000
    for words in (*MOMENTS, "Site1", "Site2", "Site3", "MB/s", "read at own site"):
        assert words in err
    assert "Traceback" not in err
    assert files_left(place) == []
    assert notes_of_xrootd() == notes


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, MOMENTS[0]),
        (signal.SIGINT, MOMENTS[1]),
        (signal.SIGKILL, MOMENTS[2]),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.replace(" ", "-"),
)
@pytest.mark.timeout(240)
def test_nothing_is_left_after_a_signal(place, number, moment):
    with demo(place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_for(moment, iter(process.stdout))
        everyone = family(process)
        process.send_signal(number)
        assert process.wait(GONE_WITHIN) != 0
        assert left_of(everyone) == []
        assert files_left(place) == []
        assert not (place / "out" / "pt_spectrum.png").exists()


@pytest.mark.timeout(240)
def test_nothing_is_left_when_its_terminal_is_closed(place):
    master, slave = os.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    with demo(place, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal) as process:
        os.close(slave)
        with os.fdopen(master, errors="replace") as terminal:
            wait_for(MOMENTS[2], iter(terminal))
            everyone = family(process)
        assert process.wait(GONE_WITHIN) != 0
        assert left_of(everyone) == []
        assert files_left(place) == []
