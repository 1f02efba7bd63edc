"""Copies: secrets stay out of argument lists, failures say which replica and why, nothing half-made stays."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridproof.alien.catalogue import Access
from gridproof.alien.client import Alien
from gridproof.alien.transfer import fetch, file_md5, store
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


def root_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Puts a module in the place of ROOT for other processes; what it was called with lies in the file."""
    (tmp_path / "site" / "ROOT").mkdir(parents=True)
    (tmp_path / "site" / "ROOT" / "__init__.py").write_text(
        "import sys, types\n"
        "gEnv = types.SimpleNamespace(SetValue=lambda name, value: None)\n"
        "class TFile:\n"
        "    def Cp(source, target, bar):\n"
        "        content = open(source[7:].partition('?')[0], 'rb').read()\n"
        f"        open({str(tmp_path / 'seen')!r}, 'w').write(repr((content, target, sys.argv)))\n"
        f"        {body}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path / "seen"


DENIED = 'echo "[ERROR] Server responded with an error: [3010] Permission denied" >&2; exit 54'


def test_where_an_se_asks_for_an_envelope_root_writes_and_gets_it_through_a_pipe(
    copier: Any, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = root_package(tmp_path, monkeypatch, "return True")
    calls = copier(DENIED)
    store(content, access())
    assert "SEALED" not in calls.read_text()
    written, target, argv = ast.literal_eval(seen.read_text())
    assert written == CONTENT
    assert target.endswith(f"//data/1?xrd.wantprot=unix&authz={SECRET}")
    assert "SEALED" not in str(argv)


def test_what_root_says_of_a_failure_is_shown_without_the_envelope(
    copier: Any, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root_package(tmp_path, monkeypatch, "print('Error: no room for ' + target.replace(chr(10), ' '))")
    copier(DENIED)
    with pytest.raises(TransferError, match="no room for root") as caught:
        store(content, access(envelope="SEALED abc+/= SEALED"))
    assert "SEALED" not in str(caught.value)


def test_an_se_that_is_dead_is_not_tried_twice(copier: Any, content: Path) -> None:
    calls = copier('echo "[FATAL] Connection error" >&2; exit 51')
    with pytest.raises(TransferError, match="Connection error"):
        store(content, access())
    assert len(calls.read_text().splitlines()) == 1


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
def storage(central: Any, wire: Wire) -> Callable[..., tuple[Storage, Alien]]:
    def make(ses: list[str], refuse: str = "") -> tuple[Storage, Alien]:
        central.play = storage = Storage(ses, refuse)
        return storage, Alien(wire)

    return make


NO_DEAD = 'case "$target" in *DEAD*) echo "[FATAL] Connection error" >&2; exit 51;; esac'


def test_an_upload_is_copied_then_committed_at_each_se(storage: Any, copier: Any, content: Path) -> None:
    copier(NO_DEAD)
    service, alien = storage(["A::A::A", "B::B::B", "C::C::C"])
    alien.upload(content, "x/f", ses=["C::C::C"], replicas=2, mode="600")
    assert service.committed == [
        ["E", "4000", "/h/x/f", "600", "0", f"root://{se}//1", se, "G", file_md5(content)]
        for se in ("C::C::C", "A::A::A")
    ]


def test_an_se_of_the_services_choice_that_is_dead_is_replaced(
    storage: Any, copier: Any, content: Path
) -> None:
    copier(NO_DEAD)
    service, alien = storage(["A::A::DEAD", "B::B::B"])
    alien.upload(content, "f")
    assert [options[6] for options in service.committed] == ["B::B::B"]


def test_a_named_se_that_is_dead_fails_the_upload_and_nothing_is_registered(
    storage: Any, copier: Any, content: Path, central: Any
) -> None:
    copier(NO_DEAD)
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
    storage: Any, copier: Any, content: Path, central: Any
) -> None:
    copier(NO_DEAD)
    _, alien = storage([])
    with pytest.raises(TransferError):
        alien.upload(content, "there/new/newer/f", ses=["B::B::DEAD"])
    assert [(command, options[-1]) for command, options in central.requests if "dir" in command] == [
        ("mkdir", "/h/there/new/newer"),
        ("rmdir", "/h/there/new/newer"),
        ("rmdir", "/h/there/new"),
    ]


def test_a_refused_commit_leaves_no_half_made_entry(storage: Any, copier: Any, content: Path) -> None:
    copier(NO_DEAD)
    service, alien = storage([], refuse="B::B::B")
    with pytest.raises(CommandError, match="Nothing was registered"):
        alien.upload(content, "f", ses=["A::A::A", "B::B::B"])
    assert not service.committed


def test_a_file_that_somebody_else_has_put_there_meanwhile_is_left_alone(
    storage: Any, copier: Any, content: Path
) -> None:
    copier(NO_DEAD)
    service, alien = storage([], refuse="B::B::B")
    service.guid = "another file's"
    with pytest.raises(CommandError, match="Nothing was registered"):
        alien.upload(content, "f", ses=["A::A::A", "B::B::B"])
    assert service.committed


@pytest.mark.parametrize(("fault", "commits"), [("drop done", 1), ("drop", 2)])
def test_a_lost_answer_to_a_commit_is_settled(
    storage: Any, copier: Any, content: Path, central: Any, fault: str, commits: int
) -> None:
    copier(NO_DEAD)
    service, alien = storage([])
    central.faults = ["", "", fault]  # stat, access, commit
    alien.upload(content, "f", ses=["A::A::A"])
    assert len(service.committed) == 1
    assert central.names().count("commit") == commits


def test_a_missing_local_file_is_named(storage: Any, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="nothing is no file that could be uploaded"):
        storage([])[1].upload(tmp_path / "nothing", "f")
