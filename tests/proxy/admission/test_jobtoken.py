"""Which certificates and signatures prove that a pilot is the job it says."""

import datetime
import types

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gridproof.errors import ConfigError, ProxyError
from gridproof.localgrid.certificates import Authority, _x509_name, job_subject, token_subject, user_subject
from gridproof.proxy.admission.jobtoken import GridAuthorities, sign, statement

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
SAID = statement("challenge", "ssh-ed25519 HOST", "sub", "ssh-ed25519 PILOT comment")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("grid"), NOW)


@pytest.fixture(scope="module")
def authorities(grid):
    return GridAuthorities.read(grid.cert_path)


def signed(issued, said=SAID):
    return issued.cert, sign(said, issued.key.encode())


def test_a_jobs_token_tells_whose_job_it_is_and_since_when(grid, authorities):
    token = authorities.verify(*signed(grid.issue(job_subject("alice", 7), NOW, HOUR)), SAID, NOW)
    assert (token.user, token.job_id) == ("alice", "7")
    assert token.issued == (NOW - datetime.timedelta(minutes=5)).timestamp()


def test_rsa_tokens_without_purposes_and_with_more_in_their_subject_serve(tmp_path):
    keys = {who: rsa.generate_private_key(65537, 2048) for who in ("authority", "job")}
    names = {"authority": [("CN", "JAliEn CA")], "job": [*job_subject("alice", 7), ("OU", "resubmission=2")]}
    made = {}
    for who in ("authority", "job"):
        builder = (
            x509.CertificateBuilder()
            .subject_name(_x509_name(names[who]))
            .issuer_name(_x509_name(names["authority"]))
            .public_key(keys[who].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW)
            .not_valid_after(NOW + HOUR)
            .add_extension(x509.BasicConstraints(ca=who == "authority", path_length=None), critical=True)
        )
        made[who] = builder.sign(keys["authority"], SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(made["authority"])
    key = keys["job"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    token = GridAuthorities.read(tmp_path / "ca.pem").verify(made["job"].decode(), sign(SAID, key), SAID, NOW)
    assert (token.user, token.job_id) == ("alice", "7")


@pytest.mark.parametrize(
    "said",
    [
        statement("another challenge", "ssh-ed25519 HOST", "sub", "ssh-ed25519 PILOT"),
        statement("challenge", "ssh-ed25519 OTHER", "sub", "ssh-ed25519 PILOT"),
        statement("challenge", "ssh-ed25519 HOST", "other", "ssh-ed25519 PILOT"),
        statement("challenge", "ssh-ed25519 HOST", "sub", "ssh-ed25519 THIEF"),
    ],
)
def test_a_signature_is_good_for_one_challenge_server_submission_and_key(grid, authorities, said):
    cert, signature = signed(grid.issue(job_subject("alice", 7), NOW, HOUR), said)
    with pytest.raises(ProxyError, match="does not hold the key"):
        authorities.verify(cert, signature, SAID, NOW)


@pytest.mark.parametrize("signature", ["", "?", "AAAA"])
def test_something_else_than_a_signature_is_refused(grid, authorities, signature):
    issued = grid.issue(job_subject("alice", 7), NOW, HOUR)
    with pytest.raises(ProxyError, match="does not hold the key"):
        authorities.verify(issued.cert, signature, SAID, NOW)


@pytest.mark.parametrize(
    "subject", [user_subject("alice"), token_subject("alice", "alice"), token_subject("alice", "queueid=7")]
)
def test_a_users_certificate_is_no_jobs_token(grid, authorities, subject):
    with pytest.raises(ProxyError, match="not a job's token"):
        authorities.verify(*signed(grid.issue(subject, NOW, HOUR)), SAID, NOW)


def test_a_servers_certificate_is_no_jobs_token(grid, authorities):
    issued = grid.issue(job_subject("alice", 7), NOW, HOUR, server=True)
    with pytest.raises(ProxyError, match="not a job's token"):
        authorities.verify(*signed(issued), SAID, NOW)


def test_a_token_of_another_authority_of_the_same_name_is_refused(authorities, tmp_path):
    other = Authority(tmp_path, NOW)
    with pytest.raises(ProxyError, match="not of the Grid's authority"):
        authorities.verify(*signed(other.issue(job_subject("alice", 7), NOW, HOUR)), SAID, NOW)


def test_a_token_does_not_issue_further_tokens(grid, authorities, tmp_path):
    token = grid.issue(job_subject("alice", 7), NOW, HOUR)
    forger = Authority(tmp_path, NOW)
    forger._key = load_pem_private_key(token.key.encode(), None)
    forger._cert = types.SimpleNamespace(subject=x509.load_pem_x509_certificate(token.cert.encode()).subject)
    forged = forger.issue(job_subject("alice", 8), NOW, HOUR)
    with pytest.raises(ProxyError, match="not of the Grid's authority"):
        authorities.verify(*signed(forged), SAID, NOW)


@pytest.mark.parametrize("begins", [NOW - 2 * HOUR, NOW + HOUR])
def test_a_token_is_good_in_its_time_only(grid, authorities, begins):
    with pytest.raises(ProxyError, match="valid from"):
        authorities.verify(*signed(grid.issue(job_subject("alice", 7), begins, HOUR)), SAID, NOW)


@pytest.mark.parametrize("token", ["rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_rubbish_for_a_token_is_refused(authorities, token):
    with pytest.raises(ProxyError, match="not a certificate"):
        authorities.verify(token, "", SAID, NOW)


def test_no_token_at_all_is_refused(authorities):
    with pytest.raises(ProxyError, match="no job token"):
        authorities.verify("", "", SAID, NOW)


def test_authorities_are_found_in_a_file_or_among_other_files_of_a_directory(grid, tmp_path):
    grid.publish(tmp_path)
    (tmp_path / "policy.info").write_text("alias = something")
    assert GridAuthorities.read(tmp_path)
    with pytest.raises(ConfigError, match="holds no certificate"):
        GridAuthorities.read(tmp_path / "policy.info")
    with pytest.raises(ConfigError, match="cannot be read"):
        GridAuthorities.read(tmp_path / "missing")


def test_keys_that_tokens_never_have_are_an_error():
    odd = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for key in (odd, b"rubbish"):
        with pytest.raises(ProxyError, match="key of the job's token"):
            sign(SAID, key)
