"""A pT spectrum of the ESD-like files on the embedded Grid, as a script.

gridproof grid start
python examples/pt_spectrum.py --make 6        # puts six small files there first
python examples/pt_spectrum.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gridproof

HERE = Path(__file__).resolve().parent
DIRECTORY = "/local/examples"


def make(files: int, events: int = 100_000) -> None:
    """Write files with the macro beside this script and put each on the Grid."""
    import ROOT

    ROOT.gROOT.LoadMacro(str(HERE / "MakeEsd.C"))
    with tempfile.TemporaryDirectory() as directory:
        for number in range(files):
            path = Path(directory) / f"esd_{number:02d}.root"
            ROOT.MakeEsd(str(path), events, number + 1)
            put = [sys.executable, "-m", "gridproof.cli", "grid", "put", path, f"{DIRECTORY}/{path.name}"]
            subprocess.run(put, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--make", type=int, metavar="N", help="write N files and put them on the Grid")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--min-pt", type=float, default=0.15, help="GeV/c")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make)
        return

    pattern = f"{DIRECTORY}/*.root"
    with gridproof.open("local", workers=arguments.workers, dataset=pattern, tree="esd") as session:
        print(session.workers)
        dataset = session.dataset(pattern, tree="esd")
        result = session.process(dataset, str(HERE / "PtSpectrum.C+"), inputs={"minPt": arguments.min_pt})
    print(result.summary)
    print(f"mean pT {result['pt'].GetMean():.4f} GeV/c of {result['pt'].GetEntries():,.0f} tracks")
    result.save("pt_spectrum.root")


if __name__ == "__main__":
    main()
