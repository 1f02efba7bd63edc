"""The Grid's own certificates."""

from __future__ import annotations

import datetime
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from gridproof.localgrid.certificates import (
    Authority,
    Identity,
    host_subject,
    identify,
    job_subject,
    token_subject,
    user_subject,
    write_private,
)

NOW = datetime.datetime.now(datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)


def peer(subject: tuple[tuple[str, str], ...]) -> tuple[tuple[tuple[str, str], ...], ...]:
    names = {"C": "countryName", "O": "organizationName", "OU": "organizationalUnitName", "CN": "commonName"}
    return tuple(((names[kind], value),) for kind, value in subject)


@pytest.mark.parametrize(
    ("subject", "user", "role", "run"),
    [
        (user_subject("ada"), "ada", "ada", (0, 0)),
        (token_subject("ada", "pwg"), "ada", "pwg", (0, 0)),
        (job_subject("ada", 42, 3), "ada", "ada", (42, 3)),
    ],
)
def test_a_subject_says_who_it_is(
    subject: tuple[tuple[str, str], ...], user: str, role: str, run: tuple[int, int]
) -> None:
    text = "".join(f"/{kind}={value}" for kind, value in subject)
    assert identify(peer(subject)) == Identity(user, role, text, *run)


@pytest.mark.parametrize(
    "subject",
    [
        (),
        (("C", "ch"), ("O", "AliEn2")),
        (("C", "ch"), ("O", "Else"), ("CN", "ada")),
        (("C", "ch"), ("O", "AliEn2"), ("CN", "Users"), ("CN", "ada")),
        (("C", "ch"), ("O", "AliEn2"), ("CN", "Jobs"), ("CN", "ada"), ("OU", "ada"), ("OU", "queueid=x")),
        host_subject("localhost"),
    ],
)
def test_other_subjects_are_nobody(subject: tuple[tuple[str, str], ...]) -> None:
    assert identify(peer(subject)) is None


def test_openssl_finds_the_authority_in_the_hashed_directory(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "private", NOW)
    authority.publish(tmp_path / "certificates")
    issued = authority.issue(user_subject("ada"), NOW, HOUR)
    (tmp_path / "cert.pem").write_text(issued.cert)
    argv = ["openssl", "verify", "-CApath", str(tmp_path / "certificates"), str(tmp_path / "cert.pem")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_directory_of_authorities_is_one_that_alienpy_believes_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "private", NOW)
    authority.publish(tmp_path / "certificates")
    [pem] = (tmp_path / "certificates").glob("*.pem")  # what its is_x509dir_valid() asks for
    assert pem.read_bytes() == authority.cert_path.read_bytes()


def test_a_certificate_works_for_tls_and_its_authority_is_kept(tmp_path: Path) -> None:
    first = Authority(tmp_path, NOW)
    issued = Authority(tmp_path, NOW).issue(job_subject("ada", 1), NOW, HOUR)
    write_private(tmp_path / "cert.pem", issued.cert)
    write_private(tmp_path / "key.pem", issued.key)
    context = ssl.create_default_context(cafile=first.cert_path)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "private"
    Authority(directory, NOW)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
