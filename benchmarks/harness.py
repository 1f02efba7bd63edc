"""What the benchmarks share: data, a master with workers, interleaved pairs, CPU seconds, one JSON object.

Every benchmark is a script whose standard output is one JSON object (see `report`); what it says besides
goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import psutil

from gridproof import _root, processes
from gridproof.engine.client import Queries
from gridproof.engine.dask import MasterClient, Tls
from gridproof.engine.handle import Query
from gridproof.engine.result import Result
from gridproof.loopthread import LoopThread
from gridproof.proxy.masters.certificates import make_identities

HERE = Path(__file__).resolve().parent
SELECTOR = f"{HERE / 'Spectrum.C'}+"
TREE = "esd"

# ---------------------------------------------------------------- what was asked for


@dataclass(frozen=True)
class Scale:
    """How thoroughly to measure."""

    quick: bool
    pairs: int

    def __call__(self, full: int, quick: int) -> int:
        """``full`` or, for a smoke run, ``quick``."""
        return quick if self.quick else full


def scale(pairs: int = 7) -> Scale:
    """From the command line: ``--quick``, ``--pairs N``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a smoke run on little data")
    parser.add_argument("--pairs", type=int, help="how many pairs to measure")
    given = parser.parse_args()
    return Scale(given.quick, given.pairs or (2 if given.quick else pairs))


def say(*words: object) -> None:
    """Tell how it goes."""
    print(*words, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- data


def data(files: int, events: int) -> list[Path]:
    """``files`` files of ``events`` entries each, made once and read once, so that they are in memory."""
    home = Path(os.environ.get("GRIDPROOF_BENCH_DATA") or Path(tempfile.gettempdir()) / "gridproof-bench")
    home.mkdir(parents=True, exist_ok=True)
    paths = [home / f"esd-{events}-{seed}.root" for seed in range(1, files + 1)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        say(f"making {len(missing)} files of {events} events in {home}")
        makers = [
            subprocess.Popen(
                [sys.executable, HERE / "peer.py", "make"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            for _ in range(min(os.cpu_count() or 1, len(missing)))
        ]
        for number, maker in enumerate(makers):
            mine = [
                [str(path), events, int(path.stem.split("-")[-1])] for path in missing[number :: len(makers)]
            ]
            maker.communicate(json.dumps({"macro": str(HERE / "MakeData.C"), "files": mine}).encode())
        if any(maker.returncode for maker in makers):
            raise SystemExit(f"the data could not be made in {home}; is there room?")
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
    return paths


def cluster_entries(path: Path) -> int:
    """Entries of a file's first cluster."""
    file = _root.load().TFile.Open(str(path))
    clusters = file[TREE].GetClusterIterator(0)
    clusters.Next()
    found = int(clusters.GetNextEntry())
    file.Close()
    return found


def dataset(paths: Sequence[Path], servers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The files as `Queries.process` takes them; with ``servers`` (URLs) each file is at all of them."""
    replicas = [(server, "") for server in servers]
    files = [
        {
            "name": path.name if servers else str(path),
            "kind": "url" if servers else "path",
            "size": path.stat().st_size,
            "replicas": replicas,
        }
        for path in paths
    ]
    return [{"tree": TREE, "alias": "", "files": files}]


# ---------------------------------------------------------------- a session without a Grid

_FORKER = """
import json, os, sys
from gridproof import processes
from gridproof.engine.dask import EXIT_STALE
from gridproof.engine.replicas import Located, Replica, as_given
from gridproof.pilot import worker

class AsDescribed(worker.GridResolver):
    def __call__(self, files, anew=False):
        return [as_given(file) if file["kind"] == "path" else self._everywhere(file) for file in files]

    def _everywhere(self, file):
        return Located(tuple(Replica(url + file["name"], url, site) for url, site in file["replicas"]))

worker.GridResolver = AsDescribed
worker.preload()

def fork(call, *arguments):
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent(parent)
        os._exit(call(*arguments))
    return pid

def keep(spec):  # as a pilot does
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = EXIT_STALE
    while code:
        _, status = os.waitpid(fork(worker.main, spec), 0)
        code = os.waitstatus_to_exitcode(status)
        spec["name"] += "'"
    return 0

for line in sys.stdin:
    fork(keep, json.loads(line))
"""


class Master:
    """A session's master as a process of its own, with TLS; this process is its client."""

    def __init__(self, directory: Path, cache: Path, log: IO[bytes] | None = None) -> None:
        identities = make_identities("bench", datetime.now(timezone.utc))
        self.for_workers = identities.worker
        self._process = processes.spawn(
            [sys.executable, "-m", "gridproof.proxy.masters"], stdout=subprocess.PIPE, stderr=log
        )
        server, client = identities.scheduler, identities.client
        where = {
            "host": "127.0.0.1",
            "cache_dir": str(cache),
            "scratch_dir": str(directory),
            "keep_results": 3600.0,
            "store_size": 100 << 30,
        }
        tell(self._process, session="bench", ca=server.ca, cert=server.cert, key=server.key, **where)
        assert self._process.stdout is not None
        self.address = f"tls://127.0.0.1:{json.loads(self._process.stdout.readline())['port']}"
        self._loop = LoopThread("bench")

        async def connect() -> MasterClient:
            return MasterClient(self.address, Tls(client.ca, client.cert, client.key))

        self._client = self._loop.run(connect())

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def send(self, message: str, **arguments: Any) -> Any:
        """A client's message."""
        return self._loop.run(self._client.send(message, **arguments))

    def close(self) -> None:
        """End it, and with it the workers."""
        self._loop.run(self._client.close())
        self._loop.close()
        processes.stop(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()


def tell(process: subprocess.Popen[bytes], **message: Any) -> None:
    """Write a JSON line to a process."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


class Cluster:
    """A master and workers as processes of their own, with TLS; this process is the client.

    ``prelude``: code that the workers' processes run first; ``WHERE`` is this cluster's directory to them.
    Files of kind ``url`` have as replicas ``(URL of a server, site)``.
    """

    def __init__(self, workers: int, cache: Path | None = None, prelude: str = "") -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="gridproof-bench-")
        where = self.directory = Path(self._directory.name)
        self.cache = cache or where / "cache"
        self.cache.mkdir(exist_ok=True)
        self._log = (where / "log").open("wb")
        self.master = Master(where, self.cache, self._log)
        self.send = self.master.send
        self._forker = processes.spawn(
            [sys.executable, "-c", f"import os\nWHERE = {str(where)!r}\n{prelude}{_FORKER}"],
            stderr=self._log,
            stdout=self._log,
        )
        self.queries = Queries(self.send, self.cache, None)
        tls = self.master.for_workers
        for number in range(workers):
            tell(
                self._forker,
                name=f"w{number + 1}",
                scheduler=self.master.address,
                site="",
                host="here",
                ca=tls.ca,
                cert=tls.cert,
                key=tls.key,
                cache_dir=str(self.cache),
                work_dir=str(where),
                memory_limit=0,
            )
        self.wait(workers)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        """End master and workers."""
        self.master.close()
        processes.stop(self._forker)
        self._log.close()
        self._directory.cleanup()

    def wait(self, workers: int) -> list[dict[str, Any]]:
        """The workers, once there are so many."""
        found: list[dict[str, Any]] = []
        for _ in range(4):
            found = self.send("workers", at_least=workers, wait=15)
            if len(found) >= workers:
                return found
        raise SystemExit(f"only {len(found)} of {workers} workers came:\n{Path(self._log.name).read_text()}")

    def worker_pids(self) -> list[int]:
        """The workers' processes."""
        return [int(worker["pid"]) for worker in self.send("workers", at_least=0, wait=0)]

    def submit(self, parts: Sequence[Mapping[str, Any]], **inputs: int) -> Query:
        """Start a query."""
        return self.queries.submit(parts, SELECTOR, inputs=inputs)

    def process(self, parts: Sequence[Mapping[str, Any]], **inputs: int) -> Result:
        """One query from beginning to end."""
        return self.queries.process(parts, SELECTOR, inputs=inputs, progress=False)


# ---------------------------------------------------------------- independent processes


class Peer:
    """One way to run the query, by `peer.py` in a process of its own; a context manager.

    ``settings`` prepare it: libraries are loaded, or a cluster's workers are there.
    """

    def __init__(self, way: str, **settings: Any) -> None:
        self._process = processes.spawn([sys.executable, HERE / "peer.py", way], stdout=subprocess.PIPE)
        self.ask(**settings)
        self.pids: list[int] = self.answer()["pids"]  # of the workers that it has

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        processes.stop(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def run(self, files: Sequence[Path], **inputs: int) -> dict[str, Any]:
        """A query's ``seconds`` from the call to the histograms, and their ``bins``."""
        self.ask(files=[str(path) for path in files], inputs=inputs)
        return self.answer()

    def ask(self, **order: Any) -> None:
        """Give an order."""
        tell(self._process, **order)

    def answer(self) -> dict[str, Any]:
        """Wait for its answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process to compare with ended; its words are above")
        return dict(json.loads(line))


class Independent:
    """``TChain::Process`` in processes that share nothing, each over its part of the files.

    A context manager.
    """

    def __init__(self, number: int) -> None:
        self._peers = [Peer("process") for _ in range(number)]

    def __enter__(self) -> Independent:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.__exit__()

    def run(self, files: Sequence[Path], **inputs: int) -> dict[str, Any]:
        """``seconds`` of the slowest, ``cpu`` seconds of all, and the summed ``bins``."""
        for number, peer in enumerate(self._peers):
            peer.ask(files=[str(path) for path in files[number :: len(self._peers)]], inputs=inputs)
        answers = [peer.answer() for peer in self._peers]
        bins = {
            name: [sum(column) for column in zip(*(a["bins"][name] for a in answers), strict=True)]
            for name in answers[0]["bins"]
        }
        seconds = max(answer["seconds"] for answer in answers)
        return {"seconds": seconds, "cpu": sum(a["cpu"] for a in answers), "bins": bins}

    def rounds(self, files: Sequence[Path], entries: int, seconds: float) -> int:
        """Rounds of the selector's arithmetic (input ``burn``) that add so much CPU to each entry."""
        trial = 5000
        plain: float = self.run(files)["cpu"]
        burnt: float = self.run(files, burn=trial)["cpu"]
        each = (burnt - plain) / trial / entries
        return max(1, round(seconds / each))


# ---------------------------------------------------------------- measuring


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes, with the children that they have waited for."""
    return sum(sum(psutil.Process(pid).cpu_times()[:4]) for pid in pids)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def interleaved(pairs: int, *ways: Callable[[], float]) -> list[list[float]]:
    """Each way's seconds, ``pairs`` times in turn, each round beginning with another one."""
    seconds: list[list[float]] = [[] for _ in ways]
    for turn in range(pairs):
        for step in range(len(ways)):
            which = (turn + step) % len(ways)
            seconds[which].append(ways[which]())
        say("  " + "  ".join(f"{taken[-1]:.3f} s" for taken in seconds))
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and quartiles."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {k: round(v, 4) for k, v in {**found, "q1": quartiles[0], "q3": quartiles[2]}.items()}


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The spread of the quotients, pair by pair."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def counts(histogram: Any) -> list[float]:
    """Every bin's content, with under- and overflow."""
    return [float(histogram.GetBinContent(i)) for i in range(histogram.GetNcells())]


def contents(result: Mapping[str, Any]) -> dict[str, list[float]]:
    """The bins of each histogram."""
    return {name: counts(result[name]) for name in ("pt", "etaPhi")}


def same(one: Mapping[str, Sequence[float]], *others: Mapping[str, Sequence[float]]) -> None:
    """All results are equal, bin by bin, or the benchmark ends."""
    for other in others:
        for name, bins in one.items():
            if list(bins) != list(other[name]):
                raise SystemExit(f"the results differ in {name}: {sum(bins)} and {sum(other[name])} entries")


# ---------------------------------------------------------------- the report


def machine() -> dict[str, Any]:
    """Where this was measured."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "root": _root.version(),
        "python": sys.version.split()[0],
    }


def report(
    name: str,
    claim: str,
    value: Any,
    met: bool,
    pairs: int,
    figures: Mapping[str, Any],
    quick: bool,
    **more: Any,
) -> None:
    """Print the benchmark's JSON object. ``met``: the claim holds for what was measured.

    ``simulate`` among ``more``: what `gridproof simulate` needs to do the same (see docs/benchmarks.md).
    """
    found = {
        "name": name,
        "claim": claim,
        "value": value,
        "met": bool(met),
        "pairs": pairs,
        "quick": quick,
        "figures": figures,
        "machine": machine(),
        **more,
    }
    print(json.dumps(found), flush=True)
