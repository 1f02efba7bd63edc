"""The script that a job begins with: what it starts, and what it says where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gridproof.pilot.bundle import Manifest, write
from gridproof.pilot.start import NO_BUNDLE, NO_GRIDPROOF, NO_PYTHON, NO_ROOT, script
from gridproof.proxy.protocol import Versions

MINOR = "{}.{}".format(*sys.version_info)
MACHINE = os.uname().machine
WANTED = Versions(f"{MINOR}.0", "6.40.00", "1.2", "2026.8.0")
TOOLS = ("sh", "tar", "gzip", "wc", "uname", "sha256sum", "getconf", "df", "tail", "rm", "mkdir")
PILOT = "import sys, ROOT; print('a pilot with', sys.argv[1:], ROOT.__file__)"
FILES = {
    "gridproof/__init__.py": b"",
    "gridproof/pilot/__main__.py": PILOT.encode(),
    "gridproof-1.2.dist-info/METADATA": b"",
    "distributed/__init__.py": b"",
    "distributed-2026.8.0.dist-info/METADATA": b"",
}
ROOT = {"ROOT/__init__.py": b"", "ROOT/include/RVersion.h": b'#define ROOT_RELEASE "6.40/00"\n'}


class Node:
    """A bare worker node: a job's directory, and a PATH with a Python and what the script needs."""

    def __init__(self, directory):
        self.job, self.bin = directory / "job", directory / "bin"
        self.job.mkdir()
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.python = self.bin / "python3"
        self.python.symlink_to(Path(sys.executable).resolve())
        self.environment = {"PATH": str(self.bin), "HOME": str(self.job), "ALIEN_SITE": "CERN"}

    def bring(self, files=FILES, manifest=None):
        made = write(self.job / "made", manifest or Manifest(MINOR, MACHINE, "", "1.2", "", {}), files)
        shutil.copy(made.path, self.job / made.name)
        return made

    def package(self, files):
        for name, content in files.items():
            path = self.job / "package" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.environment["PYTHONPATH"] = str(self.job / "package")

    def start(self, bundle=None, wanted=WANTED, python="python3"):
        """Exit code, standard output, and the trace."""
        path = self.job / "pilot.sh"
        path.write_text(script(python, wanted, bundle))
        path.chmod(0o700)
        done = subprocess.run(
            [path], cwd=self.job, env=self.environment, capture_output=True, text=True, timeout=30
        )
        trace = (self.job / ".alienValidation.trace").read_text()
        assert trace in done.stderr
        return done.returncode, done.stdout, trace


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_a_pilot_runs_from_its_bundle_with_the_nodes_root(node):
    node.package(ROOT)
    code, out, trace = node.start(node.bring())
    assert (code, out.split()[:4]) == (0, ["a", "pilot", "with", "['pilot.json']"])
    assert "package/ROOT" in out
    assert f"runs at CERN ({os.uname().nodename}): Python {MINOR}." in trace
    assert "ROOT 6.40.00" in trace


def test_a_pilot_runs_with_what_its_environment_has(node):
    node.package({**FILES, **ROOT})
    assert node.start()[0] == 0


def test_a_bundles_own_root_comes_before_the_nodes(node):
    node.package({**ROOT, "ROOT/include/RVersion.h": b'#define ROOT_RELEASE "6.36/04"\n'})
    node.environment |= {"ROOTSYS": "/old/root", "LD_LIBRARY_PATH": "/old/root/lib:/usr/lib/keep"}
    manifest = Manifest(MINOR, MACHINE, "", "1.2", "6.40.00", {})
    asking = {
        "gridproof/pilot/__main__.py": b"import os, ROOT; print(ROOT.__file__, os.environ['LD_LIBRARY_PATH'])"
    }
    code, out, _ = node.start(node.bring({**FILES, **ROOT, **asking}, manifest))
    assert code == 0
    assert "gridproof-bundle/ROOT" in out
    assert out.split()[-1] == "/usr/lib/keep"


def test_a_python_of_another_version_is_named(node):
    code, _, trace = node.start(wanted=Versions("3.99.1", "6.40.00", "1.2", "2026.8.0"))
    assert code == NO_PYTHON
    assert "Python 3.99 is wanted, found Python" in trace
    assert str(node.python) in trace
    assert "pilots.packages" in trace


def test_where_the_node_has_no_such_python_the_bundles_own_runs(node):
    node.package(ROOT)
    real = node.python.resolve()
    node.python.unlink()
    launcher = f'#!/bin/sh\necho "its own"\nexec "{real}" "$@"\n'.encode()
    code, out, trace = node.start(node.bring({**FILES, f"python/bin/python{MINOR}": launcher}))
    assert code == 0
    assert out.startswith("its own\na pilot")
    assert f"runs at CERN ({os.uname().nodename}): Python {MINOR}." in trace


def test_no_python_at_all_is_told(node):
    node.python.unlink()
    code, _, trace = node.start()
    assert code == NO_PYTHON
    assert f"found neither python3 nor python{MINOR}" in trace


def test_a_python_that_fails_is_told_with_its_words(node):
    node.python.unlink()
    node.python.write_text("#!/bin/sh\necho libpython is missing >&2; exit 127\n")
    node.python.chmod(0o700)
    code, _, trace = node.start()
    assert code == NO_PYTHON
    assert "python3 that fails (libpython is missing)" in trace


def test_a_python_called_by_its_version_is_found_beside_another_one(node):
    (node.bin / f"python{MINOR}").symlink_to(Path(sys.executable).resolve())
    node.python.unlink()
    node.python.write_text("#!/bin/sh\necho Python 2.7.18; exit 81\n")
    node.python.chmod(0o700)
    node.package({**FILES, **ROOT})
    assert node.start()[0] == 0


def test_without_gridproof_a_bundle_is_recommended(node):
    code, _, trace = node.start()
    assert code == NO_GRIDPROOF
    assert "gridproof 1.2 is wanted" in trace
    assert "gridproof pilot bundle" in trace


def test_another_gridproof_is_named_with_both_versions(node):
    node.package({**FILES, **ROOT})
    code, _, trace = node.start(wanted=Versions(MINOR, "6.40.00", "1.3", "2026.8.0"))
    assert code == NO_GRIDPROOF
    assert "gridproof 1.3 is wanted" in trace
    assert "has 1.2" in trace


def test_without_root_it_says_how_to_have_one(node):
    code, _, trace = node.start(node.bring())
    assert code == NO_ROOT
    assert "ROOT 6.40.00 is wanted" in trace
    assert "--with-root" in trace


@pytest.mark.parametrize(
    "header",
    [
        b'#define ROOT_RELEASE "6.26/10"\n',
        b"#define ROOT_VERSION_MAJOR 6\n#define ROOT_VERSION_MINOR 26\n#define ROOT_VERSION_PATCH 10 //\n",
    ],
)
def test_another_root_is_named_with_both_versions(node, header):
    node.package({"lib/ROOT/__init__.py": b"", "include/RVersion.h": header})
    node.environment["PYTHONPATH"] += "/lib"
    code, _, trace = node.start(node.bring())
    assert code == NO_ROOT
    assert "ROOT 6.40.00 is wanted" in trace
    assert "finds 6.26.10" in trace


def test_a_root_that_does_not_tell_its_version_is_left_to_the_pilot(node):
    node.package({"ROOT/__init__.py": b""})
    code, _, trace = node.start(node.bring())
    assert code == 0
    assert "not yet known" in trace


def test_a_bundle_that_did_not_come_is_missed(node):
    bundle = node.bring()
    (node.job / bundle.name).unlink()
    code, _, trace = node.start(bundle)
    assert code == NO_BUNDLE
    assert "not among the job's input files" in trace


def test_a_bundle_that_was_cut_off_is_told(node):
    bundle = node.bring()
    with (node.job / bundle.name).open("r+b") as file:
        file.truncate(100)
    code, _, trace = node.start(bundle)
    assert code == NO_BUNDLE
    assert f"has 100 bytes instead of {bundle.size}" in trace


def test_a_bundle_that_was_damaged_is_told(node):
    bundle = node.bring()
    with (node.job / bundle.name).open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0")
    code, _, trace = node.start(bundle)
    assert code == NO_BUNDLE
    assert "SHA-256" in trace


def test_a_bundle_that_cannot_be_unpacked_says_why(node):
    (node.bin / "tar").unlink()
    (node.bin / "tar").write_text("#!/bin/sh\necho tar: no space left on device >&2; exit 2\n")
    (node.bin / "tar").chmod(0o700)
    code, _, trace = node.start(node.bring())
    assert code == NO_BUNDLE
    assert "no space left on device" in trace


def test_a_node_that_is_too_old_for_a_bundle_is_told(node):
    library = b"\x7fELF\0GLIBC_2.99\0"
    code, _, trace = node.start(node.bring({**FILES, "new.so": library}))
    assert code == NO_BUNDLE
    assert "needs glibc 2.99" in trace
    assert "--glibc 2." in trace


def test_a_bundle_for_another_processor_is_told(node):
    manifest = Manifest(MINOR, "vax", "", "1.2", "", {})
    code, _, trace = node.start(node.bring(manifest=manifest))
    assert code == NO_BUNDLE
    assert f"for vax, but this node is {MACHINE}" in trace


def test_the_directory_for_temporary_files_is_made(node):
    node.environment["TMPDIR"] = str(node.job / "tmp")
    node.start()
    assert (node.job / "tmp").is_dir()


def test_settings_with_blanks_and_quotes_do_no_harm(node):
    node.package({**FILES, **ROOT})
    strange = node.bin / "py 'thon\" $HOME"
    strange.symlink_to(Path(sys.executable).resolve())
    code, _, trace = node.start(python=str(strange))
    assert code == 0
    assert f"Python {MINOR}" in trace
