"""Copies: secrets stay out of argument lists, failures say which replica and why, nothing half-made stays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridproof import xrdclient
from gridproof.alien.catalogue import Access
from gridproof.alien.client import Alien
from gridproof.alien.transfer import fetch, file_md5
from gridproof.alien.wire import Wire
from gridproof.errors import CommandError, TransferError

CONTENT = b"hits" * 1000
SECRET = "-----BEGIN SEALED CIPHER-----\nabc+/=\n-----END SEALED CIPHER-----"


@pytest.fixture
def copier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a shell script in the place of ``xrdcp``; what it was called with lies in the file returned."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "calls"))

    def install(body: str) -> Path:
        script = bin_dir / "xrdcp"
        script.write_text(
            '#!/bin/bash\necho "$@" >> $LOG; cat /proc/$$/environ | tr "\\0" "\\n" > $LOG.env\n'
            'source="${@: -2:1}"; target="${@: -1}"\n' + body
        )
        script.chmod(0o755)
        return tmp_path / "calls"

    return install


def access(se: str = "A::B::C", envelope: str = SECRET, size: int = len(CONTENT), md5: str = "") -> Access:
    return Access(se, f"root://{se.replace('::', '-')}//data/1", envelope, "guid", size, md5)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


def test_an_envelope_reaches_xrdcp_in_a_private_file_only(copier: Any, content: Path, tmp_path: Path) -> None:
    calls = copier(f'stat -c %a "$source" >> $LOG; cat "$source" >> $LOG.link; cp {content} "$target"')
    fetch(access(md5=file_md5(content)), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT
    lines = calls.read_text().splitlines()
    assert "authz" not in lines[0]
    assert "SEALED" not in lines[0]
    assert lines[1] == "600"
    assert f"root://A-B-C//data/1?xrd.wantprot=unix&authz={SECRET}" in Path(f"{calls}.link").read_text()
    assert not Path(lines[0].split()[-2]).exists()


def test_a_dead_server_is_given_up_soon(copier: Any, content: Path, tmp_path: Path) -> None:
    calls = copier(f'cp {content} "$target"')
    fetch(access(envelope=""), tmp_path / "got")
    environ = Path(f"{calls}.env").read_text()
    assert "XRD_CONNECTIONRETRY=1" in environ
    assert "XRD_REQUESTTIMEOUT=20" in environ


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (access(size=5), "A::B::C has 4000 bytes where the catalogue has 5"),
        (access(md5="0" * 32), "other content than the catalogue says"),
    ],
)
def test_what_came_is_compared_with_the_catalogue(
    copier: Any, content: Path, tmp_path: Path, wanted: Access, message: str
) -> None:
    copier(f'cp {content} "$target"')
    with pytest.raises(TransferError, match=message):
        fetch(wanted, tmp_path / "got")


def test_xrdcps_own_words_are_shown(copier: Any, tmp_path: Path) -> None:
    copier('echo "Run: [ERROR] Server responded with an error: [3011] no such file" >&2; exit 54')
    with pytest.raises(TransferError, match=r"^\[ERROR\] .* no such file \(exit code 54\)$"):
        fetch(access(), tmp_path / "got")


def test_a_missing_xrdcp_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransferError, match="install the package xrootd-client"):
        fetch(access(), tmp_path / "got")


class Storage:
    """A central service for files: ``ses`` are offered in turn, what is committed is remembered."""

    guid = "g"

    def __init__(self, ses: list[str], refuse: str = "") -> None:
        self.ses = ses
        self.refuse = refuse
        self.committed: list[list[str]] = []

    def __call__(self, command: str, options: list[str]) -> Any:
        results: list[dict[str, Any]] = []
        if command == "whoami":
            results = [{"username": "u", "homedir": "/h"}]
        elif command == "access" and "write" in options:
            specs = options[-1].split(",")
            free = [se for se in self.ses if f"!{se}" not in specs]
            named = [spec for spec in specs if "::" in spec and spec[0] != "!"]
            extra = sum(int(spec[5:]) for spec in specs if spec.startswith("disk:"))
            chosen = named + [se for se in free if se not in named][:extra]
            results = [{"se": se, "url": f"root://{se}//1", "envelope": "E", "guid": "G"} for se in chosen]
        elif command == "commit":
            if options[6] == self.refuse:
                return {"metadata": {"exitcode": "53", "error": "Nothing was registered"}, "results": []}
            self.committed.append(options)
        elif command == "stat" and not self.committed:
            results = [{"lfn": lfn, "type": "d"} for lfn in ("/h", "/h/there")]
            results += [{"lfn": lfn, "type": "f"} for lfn in options if "taken" in lfn]
        elif command == "stat":
            replicas = {options[6].upper(): "" for options in self.committed}
            results = [{"lfn": "/h/f", "type": "f", "guid": self.guid, "replicas": replicas}]
        elif command == "rm":
            self.committed.clear()
        return {"metadata": {"exitcode": "0"}, "results": results}


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of the one that writes; what it was called with and was told lies in the file
    returned. SEs whose name holds DEAD do not answer."""
    script = tmp_path / "put.sh"
    script.write_text(
        'echo "$@" >> $0.argv; order=$(cat); echo "$order" >> $0.orders\n'
        'case "$order" in *DEAD*) echo "[FATAL] Connection error" >&2; exit 1;; esac\n'
    )
    monkeypatch.setattr(xrdclient, "PUT", ("bash", str(script)))
    return script


@pytest.fixture
def storage(central: Any, wire: Wire) -> Callable[..., tuple[Storage, Alien]]:
    def make(ses: list[str], refuse: str = "") -> tuple[Storage, Alien]:
        central.play = storage = Storage(ses, refuse)
        return storage, Alien(wire)

    return make


def test_where_to_write_and_the_envelope_come_to_the_writer_on_its_input_only(
    storage: Any, writer: Path, content: Path
) -> None:
    storage([])[1].upload(content, "f", ses=["A::A::A"])
    assert Path(f"{writer}.argv").read_text().strip() == ""
    assert json.loads(Path(f"{writer}.orders").read_text()) == {
        "source": str(content),
        "url": "root://A::A::A//1?xrd.wantprot=unix&authz=E",
    }


def test_an_upload_is_copied_then_committed_at_each_se(storage: Any, writer: Path, content: Path) -> None:
    service, alien = storage(["A::A::A", "B::B::B", "C::C::C"])
    alien.upload(content, "x/f", ses=["C::C::C"], replicas=2)
    assert service.committed == [
        ["E", "4000", "/h/x/f", "755", "0", f"root://{se}//1", se, "G", file_md5(content)]
        for se in ("C::C::C", "A::A::A")
    ]


def test_an_se_of_the_services_choice_that_is_dead_is_replaced(
    storage: Any, writer: Path, content: Path
) -> None:
    service, alien = storage(["A::A::DEAD", "B::B::B"])
    alien.upload(content, "f")
    assert [options[6] for options in service.committed] == ["B::B::B"]


def test_a_named_se_that_is_dead_fails_the_upload_and_nothing_is_registered(
    storage: Any, writer: Path, content: Path, central: Any
) -> None:
    service, alien = storage([])
    with pytest.raises(TransferError, match=r"could not be uploaded to /h/f\n  B::B::DEAD: \[FATAL\]"):
        alien.upload(content, "f", ses=["A::A::A", "B::B::DEAD"])
    assert not service.committed


def test_a_name_that_is_taken_is_left_alone(storage: Any, content: Path, central: Any) -> None:
    with pytest.raises(CommandError, match="/h/taken exists already: choose another name") as caught:
        storage(["A::A::A"])[1].upload(content, "taken")
    assert caught.value.exitcode == 17
    assert set(central.names()) == {"whoami", "stat"}


def test_directories_made_for_an_upload_that_fails_go_again(
    storage: Any, writer: Path, content: Path, central: Any
) -> None:
    _, alien = storage([])
    with pytest.raises(TransferError):
        alien.upload(content, "there/new/newer/f", ses=["B::B::DEAD"])
    assert [(command, options[-1]) for command, options in central.requests if "dir" in command] == [
        ("mkdir", "/h/there/new/newer"),
        ("rmdir", "/h/there/new/newer"),
        ("rmdir", "/h/there/new"),
    ]


def test_a_refused_commit_leaves_no_half_made_entry(storage: Any, writer: Path, content: Path) -> None:
    service, alien = storage([], refuse="B::B::B")
    with pytest.raises(CommandError, match="Nothing was registered"):
        alien.upload(content, "f", ses=["A::A::A", "B::B::B"])
    assert not service.committed


def test_a_file_that_somebody_else_has_put_there_meanwhile_is_left_alone(
    storage: Any, writer: Path, content: Path
) -> None:
    service, alien = storage([], refuse="B::B::B")
    service.guid = "another file's"
    with pytest.raises(CommandError, match="Nothing was registered"):
        alien.upload(content, "f", ses=["A::A::A", "B::B::B"])
    assert service.committed


@pytest.mark.parametrize(("fault", "commits"), [("drop done", 1), ("drop", 2)])
def test_a_lost_answer_to_a_commit_is_settled(
    storage: Any, writer: Path, content: Path, central: Any, fault: str, commits: int
) -> None:
    service, alien = storage([])
    central.faults = ["", "", fault]  # stat, access, commit
    alien.upload(content, "f", ses=["A::A::A"])
    assert len(service.committed) == 1
    assert central.names().count("commit") == commits


def test_a_missing_local_file_is_named(storage: Any, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="nothing is no file that could be uploaded"):
        storage([])[1].upload(tmp_path / "nothing", "f")
