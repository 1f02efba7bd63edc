"""What the doctor finds on this machine, and what it says where something is missing."""

import threading

import pytest

from gridproof.config import PilotConfig
from gridproof.doctor import machine
from gridproof.doctor.verdict import Verdict, bounded, ok
from gridproof.errors import ConfigError, WireError
from gridproof.pilot.bundle import Manifest, write
from gridproof.proxy import versions
from gridproof.proxy.protocol import Versions

SESSION = Versions("3.11.7", "6.40.00", "1.2", "2026.8.0")
FITTING = Manifest("3.11", "x86_64", "2.28", "1.2", "", {"distributed": "2026.8.0"})


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program the only one on the PATH."""

    def make(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path / name

    return make


def test_this_machine_is_well():
    assert machine.compiler().state == "ok"
    assert machine.xrootd(server=True).state == "ok"


def test_root_is_named_with_its_version(program):
    found = machine.root(str(program("python", "echo a warning >&2; echo 6.40.00")))
    assert found.state == "ok"
    assert "ROOT 6.40.00" in found.found


def test_a_root_that_does_not_import_is_told_with_the_reason(program):
    found = machine.root(str(program("python", "echo ModuleNotFoundError: No module named ROOT >&2; exit 1")))
    assert found.state == "failed"
    assert "No module named ROOT" in found.found
    assert "pip install root" in found.remedy


def test_a_program_that_hangs_is_given_up(program, monkeypatch):
    monkeypatch.setattr(machine, "PROGRAM_SECONDS", 0.2)
    found = machine.root(str(program("python", "exec /bin/sleep 60")))
    assert found.state == "failed"
    assert "no result within 0.2 s" in found.found


def test_without_a_compiler_it_says_what_to_install(program):
    program("true", "")
    found = machine.compiler()
    assert (found.state, "apt-get install g++" in found.remedy) == ("failed", True)


def test_a_compiler_that_does_not_compile_is_told_with_its_words(program):
    program("c++", "echo fatal error: string: No such file; exit 1")
    found = machine.compiler()
    assert found.state == "failed"
    assert "fatal error: string" in found.found


@pytest.mark.parametrize("there", [[], ["xrdcp"]])
def test_what_is_missing_of_xrootd_is_named_with_its_package(program, there):
    program("true", "")
    for name in there:
        program(name, "echo v5.7.0")
    found = machine.xrootd(server=True)
    assert found.state == "failed"
    assert ("xrootd-server" if there else "xrootd-client") in found.remedy


def test_only_the_embedded_grid_needs_an_xrootd_server(program):
    program("xrdcp", "echo v5.7.0")
    assert machine.xrootd(server=False) == ok("xrdcp v5.7.0")


# ---- the pilots' bundle


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_versions", lambda: SESSION)

    def make(manifest=FITTING):
        return str(write(tmp_path / "bundle", manifest, {}).path)

    return make


def test_a_bundle_that_fits_is_well(bundle):
    pilots = PilotConfig(bundle=bundle(), packages=("VO_ALICE@ROOT::v6-40-00",))
    assert machine.bundle(pilots).state == "ok"


def test_a_bundle_without_root_and_packages_is_a_warning(bundle):
    found = machine.bundle(PilotConfig(bundle=bundle()))
    assert (found.state, "--with-root" in found.remedy) == ("warning", True)


def test_pilots_without_a_bundle_are_a_warning(bundle):
    found = machine.bundle(PilotConfig())
    assert (found.state, "gridproof pilot bundle" in found.remedy) == ("warning", True)


def test_a_bundle_of_another_python_fails(bundle):
    pilots = PilotConfig(bundle=bundle(Manifest("3.10", "x86_64", "", "1.2", "", {})))
    found = bounded(lambda: machine.bundle(pilots), 10)
    assert (found.state, "Python 3.10 instead of 3.11" in found.found) == ("failed", True)


# ---- how checks are run


def test_a_check_that_hangs_is_given_up():
    never = threading.Event()

    def check():
        never.wait()
        return ok("")

    found = bounded(check, 0.1)
    never.set()
    assert (found.state, found.found) == ("failed", "no result within 0.1 s")


@pytest.mark.parametrize("error", [WireError("it went away"), ValueError("it went away")])
def test_a_check_that_fails_is_a_verdict(error):
    def check():
        raise error

    assert "it went away" in bounded(check, 10).found


def test_a_check_keeps_what_it_found():
    assert bounded(lambda: Verdict("warning", "this", "that"), 10) == Verdict("warning", "this", "that")


def test_what_a_bundle_lacks_is_an_error_of_the_configuration(bundle, tmp_path):
    with pytest.raises(ConfigError, match="bundle names it"):
        machine.bundle(PilotConfig(bundle=str(tmp_path / "nowhere")))


def test_versions_are_told_without_importing_root():
    assert machine._versions() == versions.here()
