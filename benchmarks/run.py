"""Runs the benchmarks, or those named, and gathers their JSON objects in ``benchmarks.json``.

``python benchmarks/run.py [NAME ...] [--quick]``: NAME is a script of this directory without its ending.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = {"run", "harness", "peer", "lightpilots"}
OUTPUT = Path("benchmarks.json")


def run(name: str, options: list[str]) -> dict[str, Any]:
    """One benchmark's object; one that failed says so."""
    print(f"── {name}", file=sys.stderr, flush=True)
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options], stdout=subprocess.PIPE, text=True, check=False
    )
    lines = ended.stdout.strip().splitlines()
    try:
        found = dict(json.loads(lines[-1])) if not ended.returncode else {}
    except (ValueError, IndexError):
        found = {}
    found = found or {"name": name, "met": False, "error": f"ended with {ended.returncode}: {lines[-1:]}"}
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def table(found: list[dict[str, Any]]) -> str:
    """For people: a line for each value."""
    lines = []
    for one in found:
        value = one.get("value", one.get("error", ""))
        values = value if isinstance(value, dict) else {"": value}
        mark = "met" if one.get("met") else "NOT MET"
        for row, (what, number) in enumerate(values.items()):
            head = (one["name"], mark) if not row else ("", "")
            lines.append(f"{head[0]:<12} {head[1]:<8} {what:<24} {number}")
        lines.append(f"{'':<12} {'':<8} {one.get('claim', '')}")
    return "\n".join(lines)


def main() -> int:
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in SHARED)
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="a smoke run on little data")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(known))
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    options = ["--quick"] if given.quick else []
    found = []
    for name in given.names or known:
        found.append(run(name, options))
        OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 1 if any("error" in one for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
