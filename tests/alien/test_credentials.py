"""Credentials are found where AliEn looks, and are refused with path, date and remedy."""

from __future__ import annotations

import gc
import os
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from gridproof.alien import credentials as module
from gridproof.alien.client import Alien, endpoint
from gridproof.alien.credentials import Credentials, find, ssl_context, token_files
from gridproof.alien.wire import Wire
from gridproof.errors import CredentialError, WireError
from gridproof.localgrid.certificates import Authority as GridAuthority
from gridproof.localgrid.certificates import job_subject, token_subject, user_subject

DAY = timedelta(days=1)


def environment(tmp_path: Path, **names: Path | str) -> dict[str, str]:
    """An environment with an empty home and temporary directory."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir(exist_ok=True)
    base = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    return base | {name: str(value) for name, value in names.items()}


def user(credentials: Credentials) -> dict[str, Path]:
    return {"X509_USER_CERT": credentials.cert, "X509_USER_KEY": credentials.key}


def test_the_users_certificate_is_found_by_its_variables(authority: Any, tmp_path: Path) -> None:
    own = authority.issue("me")
    found = find(environment(tmp_path, X509_CERT_FILE=authority.file, **user(own)))
    assert found == own
    assert found.subject == "/C=CH/O=JAliEn/CN=me"
    assert found.expires.tzinfo is not None


def test_the_users_certificate_is_found_in_globus(authority: Any, tmp_path: Path) -> None:
    own = authority.issue("me")
    environ = environment(tmp_path)
    globus = tmp_path / "home" / ".globus"
    globus.mkdir()
    own.cert.rename(globus / "usercert.pem")
    own.key.rename(globus / "userkey.pem")
    assert find(environ).cert == globus / "usercert.pem"


def test_a_valid_token_wins(authority: Any, tmp_path: Path) -> None:
    own, token = authority.issue("me"), authority.issue("token")
    variables = {"JALIEN_TOKEN_CERT": token.cert, "JALIEN_TOKEN_KEY": token.key}
    assert find(environment(tmp_path, **user(own), **variables)).cert == token.cert


def test_a_token_in_the_temporary_directory_wins(authority: Any, tmp_path: Path) -> None:
    own, token = authority.issue("me"), authority.issue("token")
    environ = environment(tmp_path, **user(own))
    cert = tmp_path / "tmp" / f"tokencert_{os.getuid()}.pem"
    token.cert.rename(cert)
    token.key.rename(tmp_path / "tmp" / f"tokenkey_{os.getuid()}.pem")
    assert find(environ).cert == cert


def test_an_expired_token_is_passed_over(authority: Any, tmp_path: Path) -> None:
    own, token = authority.issue("me"), authority.issue("token", ends=-DAY / 2)
    variables = {"JALIEN_TOKEN_CERT": token.cert, "JALIEN_TOKEN_KEY": token.key}
    assert find(environment(tmp_path, **user(own), **variables)).cert == own.cert


def test_a_token_whose_key_is_another_ones_is_passed_over(authority: Any, tmp_path: Path) -> None:
    own, token = authority.issue("me"), authority.issue("token")
    variables = {"JALIEN_TOKEN_CERT": token.cert, "JALIEN_TOKEN_KEY": own.key}
    assert find(environment(tmp_path, **user(own), **variables)).cert == own.cert


def test_a_token_given_as_text_lives_in_private_files_as_long_as_it_is_used(
    authority: Any, tmp_path: Path
) -> None:
    token = authority.issue("token")
    found = find(
        environment(
            tmp_path, JALIEN_TOKEN_CERT=token.cert.read_text(), JALIEN_TOKEN_KEY=token.key.read_text()
        )
    )
    cert = found.cert
    assert found.subject == token.subject
    assert cert.parent.stat().st_mode & 0o777 == 0o700
    assert found.key.stat().st_mode & 0o777 == 0o600
    del found
    gc.collect()
    assert not cert.parent.exists()


@pytest.mark.parametrize("part", ["CERT", "KEY"])
def test_either_half_of_a_token_may_be_text(authority: Any, tmp_path: Path, part: str) -> None:
    token = authority.issue("token")
    values = {"JALIEN_TOKEN_CERT": str(token.cert), "JALIEN_TOKEN_KEY": str(token.key)}
    name = f"JALIEN_TOKEN_{part}"
    values[name] = Path(values[name]).read_text()
    found = find(environment(tmp_path, **values))
    assert found.subject == token.subject
    assert {found.cert == token.cert, found.key == token.key} == {True, False}


def test_without_tmpdir_a_token_is_looked_for_in_tmp() -> None:
    assert token_files({}) == tuple(f"/tmp/token{part}_{os.getuid()}.pem" for part in ("cert", "key"))


def test_a_user_token_has_a_role_and_a_job_token_is_a_jobs(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    authority = GridAuthority(tmp_path, now)
    found = []
    for subject in (user_subject("ada"), token_subject("ada", "pwg"), job_subject("ada", 42)):
        (tmp_path / "cert.pem").write_text(authority.issue(subject, now, DAY).cert)
        own = Credentials(tmp_path / "cert.pem", tmp_path / "key.pem", None)
        found.append((own.subject, own.role, own.of_job))
    assert found == [
        ("/C=ch/O=AliEn2/CN=ada", "", False),
        ("/C=ch/O=AliEn2/CN=Users/CN=ada/OU=pwg", "pwg", False),
        ("/C=ch/O=AliEn2/CN=Jobs/CN=ada/OU=ada/OU=queueid=42/resubmission=0", "", True),
    ]


def test_nothing_found_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as caught:
        find(environment(tmp_path))
    assert str(tmp_path / "home" / ".globus" / "usercert.pem") in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize(
    ("validity", "message"),
    [
        ({"ends": -DAY / 2}, r"me-cert.pem expired on \d{4}-\d\d-\d\d"),
        ({"begins": DAY, "ends": 2 * DAY}, r"me-cert.pem is not valid before \d{4}-\d\d-\d\d"),
    ],
)
def test_a_certificate_out_of_its_time_is_named_with_the_date(
    authority: Any, tmp_path: Path, validity: dict[str, timedelta], message: str
) -> None:
    own = authority.issue("me", **validity)
    with pytest.raises(CredentialError, match=message):
        find(environment(tmp_path, **user(own)))
    with pytest.raises(CredentialError, match=message):
        ssl_context(own)


def test_an_expired_certificate_is_refused_before_any_connection(authority: Any, tmp_path: Path) -> None:
    own = authority.issue("me", ends=-DAY / 2)
    nowhere = {"ALIENPY_JCENTRAL": "no.such.host.invalid"}
    with pytest.raises(CredentialError, match="expired on"):
        Alien.connect(environment(tmp_path, **user(own), **nowhere))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_open_to_others_is_refused(authority: Any, mode: int) -> None:
    own = authority.issue("me")
    own.key.chmod(mode)
    with pytest.raises(CredentialError, match=rf"open to others \(mode {mode:03o}\): chmod 600"):
        ssl_context(own)


def test_certificate_and_key_may_be_in_one_file(authority: Any, tmp_path: Path) -> None:
    own, issuer = authority.issue("me"), authority.file
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(own.cert.read_bytes() + own.key.read_bytes() + issuer.read_bytes())
    found = find(environment(tmp_path, X509_USER_CERT=both, X509_USER_KEY=both))
    assert found.subject == own.subject
    ssl_context(found)


def test_a_missing_key_is_named(authority: Any) -> None:
    own = authority.issue("me")
    own.key.unlink()
    with pytest.raises(CredentialError, match=r"the key .*me-key.pem cannot be read: No such file"):
        ssl_context(own)


def test_a_file_that_is_no_certificate_is_named(authority: Any) -> None:
    own = authority.issue("me")
    own.cert.write_text("hello")
    with pytest.raises(CredentialError, match=r"me-cert.pem holds no PEM certificate"):
        ssl_context(own)


def test_a_key_of_another_certificate_is_named(authority: Any) -> None:
    own, other = authority.issue("me"), authority.issue("other")
    with pytest.raises(CredentialError, match=r"other-key.pem does not belong to the certificate .*me-cert"):
        ssl_context(Credentials(own.cert, other.key, own.ca))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A terminal at which somebody answers "geheim"; the questions, as they come."""
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "geheim"

    monkeypatch.setattr(module.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "getpass", answer)
    return asked


def test_a_password_is_asked_once_for_all_connections_of_a_process(
    authority: Any, central: Any, terminal: list[str]
) -> None:
    own = authority.issue("jalien", password=b"geheim")
    for _ in range(2):
        wire = Wire("127.0.0.1", central.port, Credentials(own.cert, own.key, own.ca))
        assert terminal == [f"Password of {own.key}: "]  # before there is any connection
        wire.command("whoami")
        central.faults = ["drop"]
        wire.command("whoami")
        wire.close()
    assert len(terminal) == 1
    assert central.connections == 4


def test_a_password_is_asked_again_for_another_key_in_the_same_file(
    authority: Any, terminal: list[str]
) -> None:
    ssl_context(authority.issue("me", password=b"geheim"))
    ssl_context(authority.issue("me", password=b"geheim"))
    assert len(terminal) == 2


def test_a_wrong_password_is_said_to_be_so_and_not_remembered(
    authority: Any, terminal: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue("me", password=b"geheim")
    with monkeypatch.context() as mistyped:
        mistyped.setattr(module, "getpass", lambda question: "wrong")
        with pytest.raises(CredentialError, match="a wrong password"):
            ssl_context(own)
    ssl_context(own)
    assert len(terminal) == 1


def test_no_password_is_asked_where_none_is_needed(
    authority: Any, central: Any, tmp_path: Path, terminal: list[str]
) -> None:
    own, token = authority.issue("me", password=b"geheim"), authority.issue("jalien")
    variables = {"JALIEN_TOKEN_CERT": token.cert, "JALIEN_TOKEN_KEY": token.key}
    where = {"ALIENPY_JCENTRAL": "127.0.0.1", "ALIENPY_JCENTRAL_PORT": str(central.port)}
    environ = environment(tmp_path, X509_CERT_FILE=authority.file, **user(own), **variables, **where)
    Alien.connect(environ).close()
    assert terminal == []


def test_a_password_is_never_asked_without_a_terminal(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue("me", password=b"geheim")
    monkeypatch.setattr(module.sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(CredentialError, match="has a password and there is no terminal"):
        ssl_context(own)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_directory_of_authorities_is_used(
    authority: Any, central: Any, tmp_path: Path, hashed: bool
) -> None:
    directory = tmp_path / "authorities"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(authority.file.read_bytes())
    if hashed:
        subprocess.run(["openssl", "rehash", str(directory)], check=True)
    own = authority.issue("jalien")
    where = {"ALIENPY_JCENTRAL": "127.0.0.1", "ALIENPY_JCENTRAL_PORT": str(central.port)}
    with Alien.connect(environment(tmp_path, X509_CERT_DIR=directory, **user(own), **where)) as alien:
        assert alien.user == "jalien"
        assert alien.home == "/alice/cern.ch/user/j/jalien/"


def test_authorities_are_looked_for_in_default_places(
    authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = environment(tmp_path, **user(authority.issue("me")))
    first, second = tmp_path / "cvmfs", tmp_path / "grid-security"
    own = tmp_path / "home" / ".globus" / "certificates"
    monkeypatch.setattr(module, "_CA_DIRECTORIES", (str(first), str(second)))
    found = [find(environ).ca]
    for directory in (own, second, first):
        directory.mkdir(parents=True)
        found.append(find(environ).ca)
    assert found == [None, own, second, first]
    found_file = find(environ | {"X509_CERT_FILE": str(authority.file)}).ca
    assert found_file == authority.file
    assert find(environ | {"X509_CERT_FILE": "/no", "X509_CERT_DIR": str(own)}).ca == own


def test_a_directory_without_authorities_is_named(authority: Any, tmp_path: Path) -> None:
    own = authority.issue("me")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "key.pem").write_text(own.key.read_text())
    with pytest.raises(CredentialError, match=r"no CA certificate is in the directory .*empty"):
        ssl_context(Credentials(own.cert, own.key, tmp_path / "empty"))


def test_authorities_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"X509_CERT_DIR is /no/where, which does not exist"):
        find(environment(tmp_path, X509_CERT_DIR="/no/where"))


@pytest.mark.parametrize("port", ["https", "0", "65536", "²"])
def test_a_port_must_be_a_number(port: str) -> None:
    with pytest.raises(WireError, match=f"must be a number up to 65535, not '{port}'"):
        endpoint({"JALIEN_HOST": "node", "JALIEN_WSPORT": port})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("alice-jcentral.cern.ch", 8097)),
        ({"JALIEN_HOST": "node", "JALIEN_WSPORT": "9"}, ("node", 9)),
        ({"ALIENPY_JCENTRAL": "own", "JALIEN_HOST": "node", "JALIEN_WSPORT": "9"}, ("own", 8097)),
        ({"ALIENPY_JCENTRAL": "own", "ALIENPY_JCENTRAL_PORT": "7"}, ("own", 7)),
    ],
)
def test_host_and_port_come_from_the_same_place(environ: dict[str, str], expected: tuple[str, int]) -> None:
    assert endpoint(environ) == expected
