"""Storage elements serve who has an envelope for the very file, and nobody else: XRootD's own clients try."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from gridproof import accounts
from gridproof.cli import cli
from gridproof.errors import LocalGridError
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.settings import Settings
from gridproof.localgrid.sites import make_sites
from gridproof.localgrid.storage import element as module
from gridproof.localgrid.storage.envelopes import LIFETIME, Envelopes

CONTENT = "hits\n" * 100
HERE, THERE = "Local::Site1::SE", "Local::Site2::SE"
REFUSED = "[3010]"  # XRootD's number for who is not allowed to
QUICK = {**os.environ, "RES_OPTIONS": "use-vc timeout:1 attempts:1", "XRD_LOGLEVEL": "Error"}


def say(*argv: str) -> str:
    """What a client says when it fails, "" if it does not."""
    done = subprocess.run(argv, capture_output=True, errors="replace", env=QUICK, timeout=60, check=False)
    return (done.stderr + done.stdout) or "failed" if done.returncode else ""


class Replica:
    """A file at one SE, as XRootD's clients see it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.server, _, path = url.removeprefix("root://").partition("//")
        self.path = f"/{path}"

    def read(self, leave: str) -> str:
        return say("xrdcp", "--silent", f"{self.url}{leave}", "-")

    def write(self, leave: str) -> str:
        return say("xrdcp", "--silent", "--force", __file__, f"{self.url}{leave}")

    def ask(self, command: str, leave: str) -> str:
        return say("xrdfs", self.server, command, f"{self.path}{leave}")


@pytest.fixture(scope="module")
def lfn(grid: LocalGrid, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("content") / "hits"
    file.write_text(CONTENT)
    grid.put(file, "/local/envelopes/hits", ses=[HERE, THERE])
    return "/local/envelopes/hits"


@pytest.fixture
def rows(raw: Any, lfn: str) -> list[dict[str, str]]:
    """What the catalogue answers who wants to read: here, then there."""
    return sorted(raw.rows("access", "read", lfn), key=lambda row: str(row["se"]))


@pytest.fixture
def replica(rows: list[dict[str, str]]) -> Replica:
    return Replica(rows[0]["url"])


@pytest.fixture
def issue(grid: LocalGrid, replica: Replica) -> Callable[..., str]:
    """An envelope by the Grid's own key, as it would be used."""
    key = Envelopes.kept_in(grid.root / "private")

    def make(se: str = HERE, path: str = "", right: str = "read", now: float = 0.0) -> str:
        envelope = key.issue(se, path or replica.path, right, now or time.time())  # type: ignore[arg-type]
        return f"?authz={envelope}"

    return make


def test_who_has_the_catalogues_envelope_reads(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert Replica(row["url"]).read(f"?xrd.wantprot=unix&authz={row['envelope']}") == ""


def test_without_an_envelope_nothing_is_done_or_seen(replica: Replica) -> None:
    for said in (replica.read(""), replica.write("")):
        assert REFUSED in said
    for command in ("stat", "rm", "ls", "mkdir", "locate"):
        assert REFUSED in replica.ask(command, ""), command
    assert REFUSED in say("xrdfs", replica.server, "ls", "/")
    assert REFUSED in say("xrdfs", replica.server, "mv", replica.path, "/stolen")
    assert REFUSED in say("xrdfs", replica.server, "truncate", replica.path, "0")


def test_an_envelope_is_good_for_its_own_file_at_its_own_se(
    replica: Replica, rows: list[dict[str, str]], issue: Callable[..., str]
) -> None:
    assert REFUSED in replica.read(issue(path="/10/27446/2e5efc47-e679-11f1-acad-02fc00000001"))
    assert REFUSED in replica.read(f"?authz={rows[1]['envelope']}")
    assert Replica(rows[1]["url"]).read(f"?authz={rows[1]['envelope']}") == ""


def test_an_envelope_ends(replica: Replica, issue: Callable[..., str]) -> None:
    assert REFUSED in replica.read(issue(now=time.time() - LIFETIME - 1))
    assert replica.read(issue(now=time.time() - LIFETIME + 60)) == ""


def test_leave_to_read_is_none_to_change(replica: Replica, issue: Callable[..., str]) -> None:
    leave = issue()
    assert REFUSED in replica.write(leave)
    for command in ("rm", "mkdir"):
        assert REFUSED in replica.ask(command, leave)
    assert replica.read(leave) == ""


def test_leave_to_write_is_for_one_file_and_not_for_lists(
    replica: Replica, issue: Callable[..., str], tmp_path: Path
) -> None:
    new = Replica(replica.url + "-new")
    leave = issue(path=new.path, right="write")
    assert new.write(leave) == ""
    assert new.ask("rm", leave) == ""
    assert REFUSED in replica.write(leave)
    assert REFUSED in replica.ask("ls", leave)
    assert REFUSED in Replica(replica.url.rpartition("/")[0]).ask("ls", leave)


@pytest.mark.parametrize(
    "leave", ["?authz=", "?authz=Bearer%20", "?authz=Bearer%20a.b.c", "?authz=" + "x" * 4000]
)
def test_rubbish_is_no_envelope(replica: Replica, leave: str) -> None:
    assert REFUSED in replica.read(leave)


def test_a_forged_envelope_is_refused(replica: Replica, issue: Callable[..., str]) -> None:
    forger = Envelopes(ec.generate_private_key(ec.SECP256R1()))
    assert REFUSED in replica.read(f"?authz={forger.issue(HERE, replica.path, 'read', time.time())}")
    head, claims, _ = issue().split(".")
    _, other_claims, signature = issue(path="/00/00000/other").split(".")
    assert REFUSED in replica.read(f"{head}.{claims}.{signature}")
    assert REFUSED in replica.read(f"{head}.{other_claims}.{signature}")
    nothing = "?authz=Bearer%20eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    assert REFUSED in replica.read(f"{nothing}.{claims}.")


def test_paths_that_lead_out_of_the_storage_are_refused(replica: Replica, issue: Callable[..., str]) -> None:
    leave = issue()
    for path in (
        f"{replica.path}/../../../private/envelopes.key",
        "/../private/envelopes.key",
        "/../xrootd.cfg",
    ):
        assert say("xrdcp", "--silent", f"root://{replica.server}/{path}{leave}", "-")


def test_members_of_an_archive_are_read_with_its_envelope(grid: LocalGrid, raw: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("one", "two"):
            archive.writestr(name, f"member {name}")
    grid.put(tmp_path / "two.zip", "/local/two/two.zip")
    grid.enter_members("/local/two/two.zip")
    assert raw.rows("cat", "/local/two/one")[0]["message"] == "member one"
    grid.get("/local/two/two", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "member two"
    rows = [raw.rows("access", "read", f"/local/two/{name}")[0] for name in ("one", "two.zip")]
    assert Replica(rows[1]["url"]).read(f"?authz={rows[0]['envelope']}") == ""
    assert rows[0]["url"] == rows[1]["url"] + "#one"


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with everything that `setpriv` and `xrdcp` are called with."""
    log, programs = tmp_path / "arguments", tmp_path / "bin"
    programs.mkdir()
    for name in ("setpriv", "xrdcp"):
        script = programs / name
        script.write_text(f'#!/bin/sh\necho "$0 $*" >>{log}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return log


def test_no_envelope_stands_in_an_argument_list_a_trace_or_a_log(
    arguments: Path, dial: Callable[..., Any], tmp_path: Path
) -> None:
    job, got = tmp_path / "job.sh", tmp_path / "got"
    job.write_text("#!/bin/sh\ncat hits >out\n")
    (tmp_path / "hits").write_text(CONTENT)
    jdl = 'Executable = "/local/job.sh"; InputFile = {"LF:/local/hits"}; OutputFile = {"out@disk=2"};'
    with LocalGrid(sites=2, slots=1) as grid, dial(grid.environment) as raw:
        grid.put(job, "/local/job.sh")
        grid.put(tmp_path / "hits", "/local/hits", ses=grid.se_names)
        id = raw.submit(jdl + 'OutputDir = "/local/done";')
        raw.wait(id, "DONE", "ERROR_IB", "ERROR_E", "ERROR_SV")
        grid.get("/local/done/out", got)
        assert got.read_text() == CONTENT
        assert raw.rows("cat", "/local/hits")[0]["message"] + "\n" == CONTENT
        said = [raw.trace(id), arguments.read_text(), *(p.read_text() for p in grid.root.rglob("*.log"))]
    assert [name in said[1] for name in (".meta4", "xrdput.py", "xrootd.cfg")] == [True, True, True]
    for text in said:
        assert "eyJ" not in text  # with which a SciToken begins
        assert "authz" not in text


def test_a_grid_that_starts_again_knows_its_envelopes(roots: Path, tmp_path: Path) -> None:
    file = tmp_path / "hits"
    file.write_text(CONTENT)
    with LocalGrid(sites=1, root=roots / "kept") as grid:
        grid.put(file, "/local/hits")
        envelopes = Envelopes.kept_in(grid.root / "private")
        assert (grid.root / "private" / "envelopes.key").stat().st_mode & 0o777 == 0o600
    with LocalGrid(sites=1, root=roots / "kept") as grid:
        [stored] = (grid.root / "se" / "Site1" / "data").glob("*/*/*")
        path = "/" + "/".join(stored.parts[-3:])
        server = grid.status()[0]["url"]
        leave = f"?authz={envelopes.issue(HERE, path, 'read', time.time())}"
        assert Replica(f"{server.rstrip('/')}/{path}").read(leave) == ""


def test_open_storage_serves_everybody(tmp_path: Path, raw: Any) -> None:
    file = tmp_path / "hits"
    file.write_text(CONTENT)
    with LocalGrid(sites=1, open_storage=True) as grid:
        grid.put(file, "/local/hits")
        with type(raw)(grid.environment) as opened:
            [row] = opened.rows("access", "read", "/local/hits")
        assert Replica(row["url"]).read("") == ""
        assert Replica(row["url"]).read(f"?authz={row['envelope']}") == ""


def test_a_standing_grid_may_have_open_storage_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def start(settings: Settings) -> Any:
        asked.append(settings)
        raise LocalGridError("not now")

    monkeypatch.setattr("gridproof.localgrid.grid.start_standing", start)
    for words in (["--open-storage"], []):
        CliRunner().invoke(cli, ["grid", "start", *words])
    assert [settings.open_storage for settings in asked] == [True, False]


def test_without_the_plugin_it_says_what_to_install(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PLUGIN", "libXrdAccNobodyHasThis.so")
    key = Envelopes(ec.generate_private_key(ec.SECP256R1()))
    element = module.StorageElement(make_sites(1, 1, 1)[0], roots / "se", accounts.for_xrootd(), key)
    with pytest.raises(LocalGridError, match=r"apt-get install xrootd-scitokens-plugins.*open_storage=True"):
        asyncio.run(element.start())
    assert element.pid == 0
