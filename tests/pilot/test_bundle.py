"""A pilot's bundle: what is in it, that it is itself anywhere, and how it comes to the catalogue."""

import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from gridproof.cli import cli
from gridproof.errors import CommandError, ConfigError
from gridproof.pilot import collect, interpreter
from gridproof.pilot.bundle import MANIFEST, REPLICAS, TOP, Bundle, Manifest, write
from gridproof.proxy.protocol import Versions

MINOR = "{}.{}".format(*sys.version_info)
SESSION = Versions("3.11.7", "6.40.00", "1.2", "2026.8.0")
FITTING = Manifest("3.11", "x86_64", "2.28", "1.2", "6.40.00", {"distributed": "2026.8.0"})


# ---- a real one


def test_a_bundle_holds_nothing_of_the_place_where_it_was_made(pilot_bundle):
    here = [sys.prefix.encode(), str(Path(collect.__file__).parents[2]).encode()]
    with tarfile.open(pilot_bundle.path) as archive:
        members = archive.getmembers()
        assert members[0].name == MANIFEST
        for member in members:
            path = Path(member.name)
            assert path.parts[0] == TOP
            assert ".." not in path.parts
            assert path.suffix not in (".pth", ".pyc")
            assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, "")
            if path.suffix in (".py", ".json", ".sh"):
                content = archive.extractfile(member).read()
                assert not any(place in content for place in here), path


def test_a_manifest_tells_what_is_inside(pilot_bundle):
    manifest = Bundle.open(pilot_bundle.path).manifest
    assert manifest == pilot_bundle.manifest
    assert manifest.python == MINOR
    assert manifest.root == ""
    assert {"numpy", "distributed", "asyncssh"} <= set(manifest.distributions)
    assert not {"root", "pytest", "pip"} & set(manifest.distributions)
    assert 2 <= int(manifest.glibc.removeprefix("2.")) <= 60


# ---- with Python in it

ALONE = """
import bz2, ctypes, hashlib, lzma, os, sqlite3, ssl, sys, uuid, zlib
print(sys.executable, os.environ.get("LD_LIBRARY_PATH"), *sys.argv[1:])
print(*{line.split()[-1] for line in open("/proc/self/maps") if ".so" in line})
"""


@pytest.fixture(scope="module")
def own_python(tmp_path_factory):
    """This Python as a bundle carries it."""
    directory = tmp_path_factory.mktemp("alone")
    for name, content in interpreter.files():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    program = directory / "python" / "bin" / f"python{MINOR}"
    for path in (program, program.with_name(f"{program.name}.bin")):
        path.chmod(0o700)
    return program


def test_a_python_that_was_brought_along_loads_nothing_but_glibc_from_its_node(own_python):
    environment = {"PYTHONHOME": "/no/such/python"}
    done = subprocess.run(
        [own_python, "-c", ALONE, "an argument"], env=environment, capture_output=True, text=True, check=True
    )
    said, loaded = done.stdout.splitlines()
    assert said == f"{own_python} None an argument"
    foreign = [path for path in loaded.split() if not Path(path).is_relative_to(own_python.parents[2])]
    assert all(
        re.fullmatch(r"(ld-linux|libc|libm|libdl|libpthread|libresolv).*", Path(f).name) for f in foreign
    )


def test_what_it_starts_is_given_the_nodes_own_libraries(own_python):
    ask = "import subprocess; print(subprocess.getoutput('echo $LD_LIBRARY_PATH'))"
    environment = {"LD_LIBRARY_PATH": "/of/the/node:/and/more", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [own_python, "-c", ask], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "/of/the/node:/and/more\n"


def test_only_the_running_python_can_be_brought_along(tmp_path):
    with pytest.raises(ConfigError, match=f"the Python that runs this, {MINOR}"):
        collect.make(tmp_path / "bundle", python="3.99", with_python=True)


# ---- the file


def test_the_same_files_give_the_same_bundle(tmp_path):
    (tmp_path / "module.py").write_text("x = 1")
    made = []
    for when in (1, 2):
        os.utime(tmp_path / "module.py", (when, when))
        files = {"b.py": tmp_path / "module.py", "a/c.txt": b"text"}
        made.append(write(tmp_path / f"bundle{when}", FITTING, files))
    assert made[0].name == made[1].name
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


def test_a_bundle_learns_the_glibc_that_its_libraries_need(tmp_path):
    files = {
        "one.so": b"\x7fELF\0GLIBC_2.4\0GLIBC_2.17\0",
        "two.so": b"\x7fELF\0GLIBC_2.3.4\0",
        "n": b"\0GLIBC_2.99\0",
    }
    assert write(tmp_path / "bundle", FITTING, files).manifest.glibc == "2.17"


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\0\0"])
def test_what_is_no_bundle_is_named(tmp_path, content):
    (tmp_path / "bundle").write_bytes(content)
    with pytest.raises(ConfigError, match=str(tmp_path / "bundle")):
        Bundle.open(tmp_path / "bundle")


def test_another_archive_is_no_bundle(tmp_path):
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    with pytest.raises(ConfigError, match="no bundle"):
        Bundle.open(tmp_path / "other.tar.gz")


def test_a_bundle_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="gridproof pilot bundle"):
        Bundle.open(tmp_path / "nowhere.tar.gz")


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "bundle", FITTING, {"gone.py": tmp_path / "gone.py"})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        write(tmp_path / "file" / "bundle", FITTING, {})


# ---- and the session


def test_a_bundle_fits_a_session_of_the_same_versions():
    FITTING.check(SESSION)
    replace(FITTING, root="").check(replace(SESSION, root="6.36.04"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"python": "3.12.1"}, "Python 3.11 instead of 3.12"),
        ({"root": "6.36.04"}, "ROOT 6.40.00 instead of 6.36.04"),
        ({"gridproof": "1.3"}, "gridproof 1.2 instead of 1.3"),
        ({"distributed": "2027.1"}, "distributed 2026.8.0 instead of 2027.1"),
    ],
)
def test_a_bundle_of_other_versions_is_refused_before_any_job(change, words):
    with pytest.raises(ConfigError, match=words):
        FITTING.check(replace(SESSION, **change))


class Catalogue:
    """A stand-in for AliEn: names with sizes."""

    home = "/alice/cern.ch/user/j/jdoe/"

    def __init__(self, faster=False):
        self.sizes = {}
        self.uploads = []
        self._faster = faster

    def stat(self, lfn):
        if lfn not in self.sizes:
            raise CommandError("no such file", command="stat", exitcode=2)
        return type("Entry", (), {"size": self.sizes[lfn]})

    def upload(self, path, lfn, replicas):
        self.uploads.append((lfn, replicas))
        self.sizes[lfn] = path.stat().st_size
        if self._faster:
            raise CommandError("the name is taken", command="commit", exitcode=17)


def test_a_bundle_is_uploaded_once_for_all_sessions(tmp_path):
    bundle, alien = write(tmp_path / "bundle", FITTING, {}), Catalogue()
    lfn = bundle.upload(alien)
    assert lfn == f"{alien.home}.gridproof/bundles/{bundle.name}"
    assert bundle.upload(alien) == lfn
    assert alien.uploads == [(lfn, REPLICAS)]


def test_two_sessions_may_upload_it_at_once(tmp_path):
    bundle = write(tmp_path / "bundle", FITTING, {})
    assert bundle.upload(Catalogue(faster=True)).endswith(bundle.name)


# ---- for another Python


def wheel(directory, version, tag, name="tiny"):
    """A wheel with one module."""
    described = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": "",
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{described}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n",
    }
    files[f"{described}/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(directory / f"{name}-{version}-{tag}.whl", "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Wheels that pip finds, and no others."""
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path))):
        monkeypatch.setenv(name, value)
    return tmp_path


def test_wheels_for_another_python_and_an_old_glibc_are_fetched(shelf, monkeypatch):
    wheel(shelf, "1.0", "cp310-cp310-manylinux2014_x86_64")
    wheel(shelf, "1.1", "cp310-cp310-manylinux_2_28_x86_64")
    wheel(shelf, "1.2", "cp310-cp310-manylinux_2_34_x86_64")
    wheel(shelf, "1.3", "cp311-cp311-manylinux_2_28_x86_64")
    monkeypatch.setattr(collect, "_wanted", lambda with_root: [Requirement("tiny")])
    made = collect.make(shelf / "bundle", python="3.10", glibc="2.28")
    assert (made.manifest.python, made.manifest.distributions) == ("3.10", {"tiny": "1.1"})
    with tarfile.open(made.path) as archive:
        names = archive.getnames()
    assert f"{TOP}/tiny/__init__.py" in names
    assert f"{TOP}/gridproof/pilot/start.sh" in names


def test_wheels_that_do_not_exist_are_named(shelf):
    wheel(shelf, "1.2", "cp310-cp310-manylinux_2_34_x86_64")
    with pytest.raises(ConfigError, match=r"Python 3\.10 and glibc 2\.28: No matching distribution .* tiny"):
        collect._fetch(shelf / "target", [Requirement("tiny")], "3.10", "2.28", "x86_64")


@pytest.mark.parametrize(("option", "value"), [("--glibc", "2"), ("--glibc", "2.2"), ("--python", "three")])
def test_versions_that_are_none_are_refused(option, value, tmp_path):
    done = CliRunner().invoke(cli, ["pilot", "bundle", option, value, "-o", str(tmp_path / "bundle")])
    assert isinstance(done.exception, ConfigError)
    assert option in str(done.exception)
