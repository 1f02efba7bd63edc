"""Commands and seconds that a dataset of 10 000 files costs at the central service, and where they all lie.

Against the embedded Grid, which counts commands by certificate. The files are entered into its catalogue
directly, two replicas each, since only their names are asked for.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness

from gridproof.alien import Alien
from gridproof.dataset import resolve
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.users import DEFAULT_USERS, Users

IN_A_DIRECTORY = 100
TOP = "/local/data/2024/LHC24ab"
LARGEST = 500  # names in a command
WHEREIS = 1_000  # single ones, to compare with


def fill(grid: LocalGrid, files: int) -> list[str]:
    """Enter so many files, each at two of the storage elements; their LFNs."""
    catalogue = Catalogue(grid.root / "private" / "catalogue.db", Users(DEFAULT_USERS))
    now, lfns = int(time.time() * 1000), []
    for number in range(files):
        run, place = divmod(number, IN_A_DIRECTORY)
        lfn = f"{TOP}/{run:09}/apass1/0{place:03}/o2_ctf_run{run:08}_tf{place:010}/AO2D.root"
        guid = f"{number:08x}-0000-11f1-8000-02fc00000001"
        for se in (grid.se_names[number % 3], grid.se_names[(number + 1) % 3]):
            catalogue.commit(
                Booking("", lfn, guid, se, "gridproof"), size=10**9, md5="", perm="644", now_ms=now
            )
        lfns.append(lfn)
    catalogue.close()
    return lfns


class Counted:
    """What commands a piece of work sends, and how long it takes."""

    def __init__(self, grid: LocalGrid) -> None:
        self._grid = grid
        self.figures: dict[str, dict[str, Any]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what happens inside, under a name."""
        before, began = self._grid.commands(), time.monotonic()
        yield
        seconds = time.monotonic() - began
        sent: dict[str, int] = {}
        for (who, command), count in self._grid.commands().items():
            if command != "gridCommands" and (more := count - before.get((who, command), 0)):
                sent[command] = sent.get(command, 0) + more
        self.figures[name] = {"calls": sum(sent.values()), "seconds": round(seconds, 3), "commands": sent}
        harness.say(name, self.figures[name])


def datasets(grid: LocalGrid, counted: Counted, files: int) -> None:
    """Ways to name the same files, each by a client that knows nothing yet."""
    lfns = fill(grid, files)
    with tempfile.TemporaryDirectory() as directory:
        listed = Path(directory) / "files.txt"
        listed.write_text("\n".join(lfns))
        xml = Path(directory) / "wn.xml"
        entries = "".join(f'<event name="1"><file name="AO2D.root" lfn="{lfn}"/></event>' for lfn in lfns)
        xml.write_text(f'<alien><collection name="wn">{entries}</collection></alien>')
        grid.put(xml, "/local/data/wn.xml")
        sources = {
            "pattern": f"{TOP}/**/AO2D.root",
            "list of LFNs": lfns,
            "text list": str(listed),
            "XML collection on the Grid": "/local/data/wn.xml",
        }
        for name, source in sources.items():
            with Alien.connect(grid.environment) as alien:
                with counted(f"dataset by {name}"):
                    dataset = resolve(source, "DF_*/O2track", alien)
                if len(dataset.files) != files or any(len(file.ses) != 2 for file in dataset.files):
                    raise SystemExit(f"{name} gave {dataset}")
                if name == "pattern":
                    with counted("the same dataset again"):
                        resolve(lfns, "DF_*/O2track", alien)
    with Alien.connect(grid.environment) as alien:
        with counted("where all files are"):
            located = alien.locate(lfns)
        some = lfns[:: max(1, files // WHEREIS)]
        with counted(f"whereis of {len(some)} of them"):
            one_by_one = [tuple(replica.se for replica in alien.whereis(lfn)) for lfn in some]
        if one_by_one != [located[lfn].ses for lfn in some]:
            raise SystemExit("whereis and stat do not agree")


def main() -> None:
    """Measure and report."""
    scale = harness.scale(1)
    files = scale(10_000, 600)
    bound = -(-files // LARGEST)
    with LocalGrid(sites=3, slots=1) as grid:
        counted = Counted(grid)
        datasets(grid, counted, files)
    figures = counted.figures
    limits = {
        "dataset by pattern": bound + 1,
        "dataset by list of LFNs": bound,
        "dataset by text list": bound + 1,  # its own name may be an LFN
        "dataset by XML collection on the Grid": bound + 2,
        "the same dataset again": 0,
        "where all files are": bound,
    }
    met = all(figures[name]["calls"] <= most for name, most in limits.items())
    claim = f"{files} files cost {bound} commands with their storage elements, one or two more to list them"
    value = {f"{name}, calls": figures[name]["calls"] for name in limits}
    value |= {
        f"{name}, s": figures[name]["seconds"] for name in ("dataset by pattern", "where all files are")
    }
    harness.report("calls", claim, value, met, scale.pairs, figures, scale.quick)


if __name__ == "__main__":
    main()
