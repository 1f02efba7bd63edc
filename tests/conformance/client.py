"""The genuine alienpy in its two forms: the library in a process of its own, and ``alien.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

DRIVER = Path(__file__).with_name("driver.py")
ALIEN = Path(sys.executable).with_name("alien.py")
MARK = "-- end of a command"


@dataclass(frozen=True)
class Returned:
    """What a command came to: alienpy's RET, and what the library printed meanwhile."""

    exitcode: int
    out: str = ""
    err: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    printed: str = ""

    @property
    def rows(self) -> list[dict[str, Any]]:
        found = self.answer.get("results", []) if isinstance(self.answer, dict) else self.answer
        return list(found)


def environment(grid: Mapping[str, str], directory: Path) -> dict[str, str]:
    """What alienpy needs, with everything that it writes below ``directory``."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    own = {"HOME": str(directory), "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
    own |= {f"JALIEN_TOKEN_{part}": str(directory / f"token{part.lower()}.pem") for part in ("CERT", "KEY")}
    return {**kept, **grid, **own}


class Library:
    """``alienpy.alien`` in a process of its own, with one connection."""

    def __init__(self, grid: Mapping[str, str], directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            env=environment(grid, directory),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()

    def run(self, line: str, way: str = "prompt") -> Returned:
        """What ``ProcessInput`` does with a line as the prompt does, or ``AliEn.run``, or ``SendMsg``."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([way, line]) + "\n")
        self._process.stdin.flush()
        got = json.loads(self._process.stdout.readline())
        if "exception" in got:
            return Returned(-1, err=got["exception"], printed=got["printed"])
        return Returned(got["exitcode"], got["out"], got["err"], got["ansdict"], got["printed"])


class CommandLine:
    """``alien.py``: one process for each call."""

    def __init__(self, grid: Mapping[str, str], directory: Path) -> None:
        self.environment = environment(grid, directory)
        self.directory = directory

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One call, as a shell makes it."""
        return subprocess.run(
            [str(ALIEN), *arguments],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def batch(self, lines: Sequence[str]) -> list[tuple[int, str]]:
        """Several lines in one call; the exit code of each and what it printed on either stream."""
        script = self.directory / "batch"
        script.write_text("".join(f"{line}\n$?\n!echo '{MARK}'\n" for line in lines))
        done = subprocess.run(
            [str(ALIEN), str(script)],
            env=self.environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        *texts, rest = done.stdout.split(f"{MARK}\n")
        assert len(texts) == len(lines), f"alien.py ended in {lines[len(texts)]!r}: {rest[-2000:]}"
        return [_with_code(text) for text in texts]


def _with_code(text: str) -> tuple[int, str]:
    """A command's exit code, which ``$?`` has printed on a line of its own behind its text."""
    before, _, code = text.removesuffix("\n").rpartition("\n")
    return int(code), before
