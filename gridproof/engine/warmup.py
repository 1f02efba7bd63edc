"""What a first query costs, paid beforehand: by the process that workers are forked from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import runtime
from .outputs import OutputDirectory
from .packets import Packet
from .replicas import Located, as_given
from .runner import Runner

_HEADER = Path(__file__).with_name("warmup.h")


def warm_up() -> None:
    """Run a small selector over a small tree: loads ROOT's libraries and compiles the calls into it.

    Starts no threads: the caller is about to fork.
    """
    root = runtime.load_threaded()
    root.gSystem.Load("libNetxNG")
    root.gInterpreter.Declare(f'#include "{_HEADER}"')
    with TemporaryDirectory(prefix="gridproof-") as directory:
        path = Path(directory) / "sample.root"
        root.gridproof.WriteSample(str(path))
        runner = Runner(Path(directory), _resolve, "", OutputDirectory(Path(directory)))
        empty = runtime.pack(root, root.TList())
        query = {"class_name": "gridproof::WarmUp", "option": "", "input": empty, "tree": "sample"}
        runner.begin(query, [])
        file = {"name": str(path), "kind": "path", "size": path.stat().st_size, "replicas": []}
        runner.run(Packet(1, 0, 0, -1, 5), file, lambda *_: None, [])
        runner.run(Packet(2, 0, 5, 10), file, lambda *_: None, [])
        runner.finish()
        runner.close()


def _resolve(files: Sequence[Mapping[str, Any]], anew: bool = False) -> list[Located]:  # noqa: ARG001
    return [as_given(file) for file in files]
