"""The client against a whole embedded Grid: real storage elements, real jobs."""

from __future__ import annotations

import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gridproof.alien import Alien, Jdl, PilotRequest, pilot_jdl
from gridproof.alien.token import renew
from gridproof.alien.websocket import WebSocket
from gridproof.dataset import resolve
from gridproof.errors import CommandError, CredentialError, DatasetError, TransferError
from gridproof.localgrid import LocalGrid


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(sites=3, slots=2) as grid:
        yield grid


@pytest.fixture
def alien(grid: LocalGrid) -> Iterator[Alien]:
    with Alien.connect(grid.environment) as alien:
        yield alien


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content.root"
    path.write_bytes(os.urandom(100_000))
    return path


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether a condition of another process comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_a_file_goes_out_to_named_storage_elements_and_comes_back(
    grid: LocalGrid, alien: Alien, content: Path, tmp_path: Path
) -> None:
    lfn = "/local/there/and/back.root"
    alien.upload(content, lfn, ses=grid.se_names[:2])
    assert {replica.se for replica in alien.whereis(lfn)} == {se.upper() for se in grid.se_names[:2]}
    assert (alien.stat(lfn).size, alien.stat(lfn).perm) == (100_000, "755")
    alien.download(lfn, tmp_path / "back.root")
    assert (tmp_path / "back.root").read_bytes() == content.read_bytes() == alien.cat(lfn)
    assert [entry.lfn for entry in alien.ls("/local/there/and")] == [lfn]
    assert [entry.lfn for entry in alien.find("/local/there", "*.root")] == [lfn]
    with pytest.raises(CommandError):
        alien.upload(content, lfn)  # the name is taken
    alien.rm(lfn)
    with pytest.raises(CommandError, match="No such file"):
        alien.download(lfn, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_the_grid_chooses_where_replicas_go(alien: Alien, content: Path) -> None:
    alien.upload(content, "chosen.root", replicas=2)
    assert len({replica.se for replica in alien.whereis("chosen.root")}) == 2


def test_where_xrdcp_may_not_write_without_the_envelope_root_writes_with_it(
    alien: Alien, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, denying = shutil.which("xrdcp"), tmp_path / "bin" / "xrdcp"
    denying.parent.mkdir()
    denying.write_text(
        '#!/bin/sh\nfor target; do :; done\ncase "$target" in root:*)\n'
        '  echo "[ERROR] Server responded with an error: [3010] permission denied" >&2; exit 54\n'
        f'esac\nexec {real} "$@"\n'
    )
    denying.chmod(0o755)
    monkeypatch.setenv("PATH", f"{denying.parent}:{os.environ['PATH']}")
    alien.upload(content, "by_root.root", replicas=2)
    assert len(alien.whereis("by_root.root")) == 2
    assert alien.cat("by_root.root") == content.read_bytes()


def test_an_empty_file_keeps_its_name(alien: Alien, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    alien.upload(tmp_path / "empty", "empty")
    assert alien.cat("empty") == b""


def test_an_unknown_storage_element_is_named(alien: Alien, content: Path) -> None:
    with pytest.raises(CommandError, match="Local::Nowhere::SE"):
        alien.upload(content, "nowhere.root", ses=["Local::Nowhere::SE"])


def test_a_dataset_is_found_with_sizes_and_places(grid: LocalGrid, alien: Alien, content: Path) -> None:
    for number, se in enumerate(grid.se_names):
        alien.upload(content, f"/local/set/run{number}/x.root", ses=[se])
    dataset = resolve("/local/set/**/x.root", "esd", alien)
    assert [file.ses for file in dataset.files] == [(se.upper(),) for se in grid.se_names]
    assert dataset.size == 300_000
    gone = f"/local/set/run{len(grid.se_names)}/x.root"
    located = alien.locate(["/local/set", gone, *(file.name for file in dataset.files)])
    assert [entry.type for entry in located.values()] == ["d", "f", "f", "f"]
    guid = alien.stat(dataset.files[0].name).guid
    assert guid in str(alien._wire.command("stat", guid).results[0]["replicas"])


def test_members_of_archives_and_collections_are_files_like_others(
    grid: LocalGrid, alien: Alien, content: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "root_archive.zip", "w") as archive:
        archive.write(content, "AliESDs.root")
        archive.writestr("log.txt", "done")
    for number in (1, 2):
        lfn = f"/local/sim/00{number}/root_archive.zip"
        grid.put(tmp_path / "root_archive.zip", lfn, grid.se_names[:number])
        grid.enter_members(lfn)
    members = resolve("/local/sim/*/AliESDs.root", "esd", alien)
    assert [(file.size, len(file.ses)) for file in members.files] == [(100_000, 1), (100_000, 2)]
    assert {replica.se for replica in alien.whereis(members.files[1].name)} == set(members.files[1].ses)
    alien.download(members.files[1].name, tmp_path / "member.root")
    assert (tmp_path / "member.root").read_bytes() == content.read_bytes()
    names = [file.name for file in reversed(members.files)]
    grid.collect("/local/sim/coll", names)
    assert [file.name for file in resolve("/local/sim/coll", "esd", alien).files] == names
    alien.rm(names[0])
    with pytest.raises(DatasetError, match="/local/sim/coll cannot be listed; were files in it removed"):
        resolve("/local/sim/coll", "esd", alien)


@pytest.fixture
def script(alien: Alien, tmp_path: Path) -> str:
    """The LFN of a script that sleeps."""
    path = tmp_path / "sleep.sh"
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    alien.upload(path, f"bin/{tmp_path.name}.sh")
    return f"{alien.home}bin/{tmp_path.name}.sh"


def test_a_split_job_is_submitted_followed_and_killed(grid: LocalGrid, alien: Alien, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\necho started at $ALIEN_SITE\nexec sleep 600\n")
    alien.upload(script, "bin/job.sh")
    request = PilotRequest((grid.se_names[1],), 2)
    master = alien.submit(pilot_jdl(request, executable=f"{alien.home}bin/job.sh", tag="t"), "t")
    assert eventually(lambda: [job.status for job in alien.subjobs([master])] == ["RUNNING"] * 2)
    jobs = alien.subjobs([master])
    assert {job.site for job in jobs} == {"SITE2"}
    assert {job.master for job in jobs} == {master}
    assert [job.status for job in alien.ps([master])] == ["SPLIT"]
    assert any("RUNNING" in line for line in alien.trace(jobs[0].id))
    assert "RUNNING" in alien.masterjob(master)
    assert alien.jdl(jobs[0].id).text("JobTag").startswith("comment:t ")
    alien.kill([master])
    assert eventually(lambda: all(job.is_final for job in alien.subjobs([master])))
    alien.kill([master])  # dead already: fine


def test_a_submission_whose_answer_got_lost_is_found_in_the_queue(
    alien: Alien, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = WebSocket.receive

    def lose(self: WebSocket, timeout: float) -> bytes:
        receive(self, timeout)
        monkeypatch.setattr(WebSocket, "receive", receive)
        raise ConnectionResetError("the answer got lost")

    job = Jdl({"Executable": script, "Arguments": "lost"})
    first = alien.submit(job, "x")
    monkeypatch.setattr(WebSocket, "receive", lose)
    second = alien.submit(job, "x")
    assert second == first + 1
    assert alien.jdl(second).text("Arguments") == "lost"
    assert alien.ps([second + 1]) == []
    alien.kill([first, second])


def test_a_token_is_renewed_and_used(grid: LocalGrid, tmp_path: Path) -> None:
    environ = grid.environment | {
        "JALIEN_TOKEN_CERT": str(tmp_path / "cert"),
        "JALIEN_TOKEN_KEY": str(tmp_path / "key"),
    }
    renewed = renew(environ, 2)
    assert (renewed.role, renewed.cert.parent) == ("gridproof", tmp_path)
    for name in ("X509_USER_CERT", "X509_USER_KEY"):
        del environ[name]
    with Alien.connect(environ) as alien:
        assert alien.user == "gridproof"


def test_jobs_that_are_not_there(alien: Alien) -> None:
    assert alien.ps([987654321]) == []
    for ask in (alien.trace, alien.jdl, alien.masterjob, lambda id: alien.kill([id])):
        with pytest.raises(CommandError, match=r"no such job|there is no job"):
            ask(987654321)


def test_a_certificate_of_another_grid_is_refused(grid: LocalGrid) -> None:
    with LocalGrid(sites=1, slots=1) as other:
        mixed = grid.environment | {
            name: other.environment[name] for name in ("X509_USER_CERT", "X509_USER_KEY")
        }
        with pytest.raises(CredentialError, match="refused the certificate"):
            Alien.connect(mixed)
        with pytest.raises(CredentialError, match="signed by none of the CAs"):
            Alien.connect(other.environment | {"X509_CERT_DIR": grid.environment["X509_CERT_DIR"]})


def test_a_dead_storage_element_costs_seconds_when_there_is_another_replica(
    content: Path, tmp_path: Path
) -> None:
    with LocalGrid(sites=2, slots=1) as grid, Alien.connect(grid.environment) as alien:
        alien.upload(content, "both.root", ses=grid.se_names)
        alien.upload(content, "one.root", ses=grid.se_names[:1])
        port = alien.list_ses()[0].url.removeprefix("root://").partition("/")[0].rpartition(":")[2]
        server = next(
            process
            for process in psutil.process_iter(["name"])
            if process.info["name"] == "xrootd"
            and any(c.laddr and c.laddr.port == int(port) for c in process.net_connections())
        )
        server.send_signal(signal.SIGSTOP)  # frozen: answers nothing, and is not started anew
        began = time.monotonic()
        alien.download("both.root", tmp_path / "both.root")
        assert time.monotonic() - began < 30
        assert (tmp_path / "both.root").read_bytes() == content.read_bytes()
        with pytest.raises(TransferError, match=rf"(?i)one.root could not be read .*\n  {grid.se_names[0]}"):
            alien.download("one.root", tmp_path / "one.root")
        assert not list(tmp_path.glob(".one.root*"))
