"""``gridproof token``: shown with all that matters, renewed whole or not at all, its key never seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gridproof.alien.token import describe, renew
from gridproof.cli import cli
from gridproof.errors import CommandError, CredentialError, WireError
from gridproof.localgrid.certificates import Authority, Issued, token_subject

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)


@pytest.fixture
def issue(tmp_path: Path) -> Callable[..., Issued]:
    """Tokens as the central service makes them."""
    authority = Authority(tmp_path / "service", NOW)
    return lambda days=31: authority.issue(token_subject("jalien", "pwg"), NOW, days * DAY)


@pytest.fixture
def environ(authority: Any, central: Any, tmp_path: Path, issue: Callable[..., Issued]) -> dict[str, str]:
    """A user with a certificate, and a service that gives tokens."""

    def play(command: str, options: list[str]) -> Any:
        assert command == "token"
        given = issue(*(int(days) for days in options[1:]))
        return {"results": [{"tokencert": given.cert, "tokenkey": given.key}]}

    central.play = play
    own = authority.issue("jalien")
    (tmp_path / "tmp").mkdir()
    return {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "X509_USER_CERT": str(own.cert),
        "X509_USER_KEY": str(own.key),
        "X509_CERT_FILE": str(authority.file),
        "ALIENPY_JCENTRAL": "127.0.0.1",
        "ALIENPY_JCENTRAL_PORT": str(central.port),
    }


def lines(environ: dict[str, str], now: datetime = NOW) -> str:
    return "\n".join(describe(environ, now))


def test_a_new_token_is_where_the_tools_look_for_its_owner_alone(
    environ: dict[str, str], central: Any
) -> None:
    renewed = renew(environ)
    uid = os.getuid()
    assert renewed.cert == Path(environ["TMPDIR"]) / f"tokencert_{uid}.pem"
    assert renewed.key == Path(environ["TMPDIR"]) / f"tokenkey_{uid}.pem"
    assert {path.stat().st_mode & 0o777 for path in (renewed.cert, renewed.key)} == {0o600}
    assert len(list(Path(environ["TMPDIR"]).iterdir())) == 2
    assert renewed.subject == "/C=ch/O=AliEn2/CN=Users/CN=jalien/OU=pwg"
    assert central.requests == [("token", [])]


def test_a_new_token_takes_the_place_of_the_old_one(environ: dict[str, str], tmp_path: Path) -> None:
    environ |= {"JALIEN_TOKEN_CERT": str(tmp_path / "c.pem"), "JALIEN_TOKEN_KEY": str(tmp_path / "k.pem")}
    first = renew(environ).cert.read_text()
    Path(environ["JALIEN_TOKEN_KEY"]).chmod(0o400)  # as other tools leave it
    second = renew(environ)
    assert second.cert == tmp_path / "c.pem"
    assert second.cert.read_text() != first


def test_its_validity_may_be_asked_for(environ: dict[str, str], central: Any) -> None:
    assert renew(environ, 3).expires - NOW < 4 * DAY
    assert central.requests == [("token", ["-v", "3"])]


@pytest.mark.parametrize("given", [{}, {"tokencert": "x", "tokenkey": "y"}, "mixed"])
def test_what_is_no_token_leaves_the_old_one(
    environ: dict[str, str], central: Any, issue: Callable[..., Issued], given: Any
) -> None:
    before = renew(environ).cert.read_text()
    if given == "mixed":
        given = {"tokencert": issue().cert, "tokenkey": issue().key}
    central.play = lambda command, options: {"results": [given] if given else []}
    with pytest.raises(WireError, match="accepted the command 'token', but gave none"):
        renew(environ)
    assert (Path(environ["TMPDIR"]) / f"tokencert_{os.getuid()}.pem").read_text() == before


def test_a_refusal_is_told(environ: dict[str, str], central: Any) -> None:
    refusal = {"metadata": {"exitcode": "1", "error": "Operation not permitted"}, "results": []}
    central.play = lambda command, options: refusal
    with pytest.raises(CommandError, match="Operation not permitted"):
        renew(environ)


def test_a_token_given_as_text_cannot_be_replaced(
    environ: dict[str, str], issue: Callable[..., Issued]
) -> None:
    with pytest.raises(CredentialError, match="holds a token itself, not its path: unset both first"):
        renew(environ | {"JALIEN_TOKEN_CERT": issue().cert})


def test_without_a_usable_certificate_there_is_no_new_token(
    environ: dict[str, str], authority: Any, central: Any
) -> None:
    authority.issue("jalien", ends=-DAY / 2)
    with pytest.raises(CredentialError, match=r"jalien-cert.pem expired on \d{4}-"):
        renew(environ)
    assert central.connections == 0


def test_a_place_that_cannot_be_written_to_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(CredentialError, match="cannot be written to /no/where: No such file"):
        renew(environ | {"TMPDIR": "/no/where"})


def test_subject_role_validity_and_path_are_shown(environ: dict[str, str]) -> None:
    renewed = renew(environ)
    shown = lines(environ)
    assert shown.startswith(f"token: {renewed.cert}\n  subject   /C=ch/O=AliEn2/CN=Users/CN=jalien/OU=pwg\n")
    assert "  role      pwg\n" in shown
    assert f"{NOW + 31 * DAY:%Y-%m-%d %H:%M} UTC\n  usable    for 3" in shown
    assert f"user certificate: {environ['X509_USER_CERT']}\n" in shown
    assert shown.endswith("usable    for 24 h, but the token goes first")


def test_what_cannot_be_used_is_shown_with_the_reason(environ: dict[str, str]) -> None:
    shown = lines(environ)
    assert "  unusable  the certificate" in shown
    assert "tokencert" in shown
    assert shown.endswith("usable    for 24 h")
    Path(environ["X509_USER_KEY"]).chmod(0o644)
    shown_lines = []
    with pytest.raises(CredentialError, match="neither can be used"):
        shown_lines.extend(describe(environ, NOW))
    assert any("open to others (mode 644): chmod 600" in line for line in shown_lines)


def test_the_command_renews_and_shows_but_never_the_key(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JALIEN_TOKEN_CERT", "JALIEN_TOKEN_KEY", "X509_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    outcome = CliRunner(env=environ).invoke(cli, ["token", "--renew", "--days", "2"])
    assert outcome.exit_code == 0, outcome.output
    assert "  role      pwg\n" in outcome.output
    assert "BEGIN" not in outcome.output
