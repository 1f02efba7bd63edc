"""Examples and macros as a user runs them, on a Grid that belongs to no process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
EVENTS = 20_000
GRID = (sys.executable, "-m", "gridproof.cli", "grid")


@pytest.fixture(scope="module")
def grid() -> Iterator[dict[str, str]]:
    """The environment in which ``gridproof grid start`` was said, with two files on that Grid."""
    run_dir = Path(tempfile.mkdtemp(prefix="gridproof-test-"))
    tools = Path(sys.executable).parent
    environ = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(run_dir),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run([*GRID, "start", "--sites", "2", "--slots", "1"], env=environ, check=True)
    try:
        make = "import ROOT, sys; ROOT.gROOT.LoadMacro(sys.argv[1]); ROOT.MakeEsd(*sys.argv[2:3], {}, {})"
        for number in (1, 2):
            path = run_dir / f"esd_{number}.root"
            code = make.format(EVENTS, number)
            subprocess.run([sys.executable, "-c", code, HERE / "examples/MakeEsd.C", path], check=True)
            put = [*GRID, "put", path, f"/local/examples/{path.name}", "--se", f"Local::Site{number}::SE"]
            subprocess.run(put, env=environ, check=True)
        yield environ
    finally:
        subprocess.run([*GRID, "stop"], env=environ, check=True)
        shutil.rmtree(run_dir)


def test_the_script_prints_workers_and_saves_the_spectrum(grid, tmp_path):
    script = [sys.executable, HERE / "examples/pt_spectrum.py", "--workers", "2"]
    run = subprocess.run(script, env=grid, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"{2 * EVENTS:,} events" in run.stdout
    assert "Site1" in run.stdout
    assert "Site2" in run.stdout
    assert (tmp_path / "pt_spectrum.root").stat().st_size > 1000


def test_the_macro_brings_the_outputs_to_the_cpp_prompt(grid, tmp_path):
    arguments = ('"/local/examples/*.root"', '"esd"', f'"{HERE}/examples/PtSpectrum.C+"', "2", '"out.root"')
    macro = f"{HERE}/macros/process.C({', '.join(arguments)})"
    root = Path(sys.executable).parent / "root"
    run = subprocess.run(
        [root, "-l", "-b", "-q", macro], env=grid, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"{2 * EVENTS:,} events" in run.stderr
    assert "Name  = vertexZ" in run.stdout
    assert (tmp_path / "out.root").stat().st_size > 1000


def test_the_macro_says_when_the_query_fails(grid, tmp_path):
    arguments = ('"/local/nowhere/*.root"', '"esd"', f'"{HERE}/examples/PtSpectrum.C+"', "2", '"out.root"')
    macro = f"{HERE}/macros/process.C({', '.join(arguments)})"
    root = Path(sys.executable).parent / "root"
    run = subprocess.run(
        [root, "-l", "-b", "-q", macro], env=grid, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "nothing matches /local/nowhere/*.root" in run.stderr
    assert "(int) 1" in run.stdout
    assert not (tmp_path / "out.root").exists()


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = json.loads((HERE / "examples/first_steps.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for name in ("MakeEsd.C", "PtSpectrum.C", "PtSpectrum.h"):
        shutil.copy(HERE / "examples" / name, tmp_path)
    code = "import ROOT\nROOT.gROOT.SetBatch(True)\n" + "\n".join(cells)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "400,000 events" in run.stdout
