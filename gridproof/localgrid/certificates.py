"""The Grid's own certificate authority: host, user and token certificates, all in one private directory."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ORGANISATION = (("C", "ch"), ("O", "AliEn2"))
_OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
_LETTERS = {
    "countryName": "C",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "commonName": "CN",
}

_RUN = re.compile(r"queueid=([0-9]{1,18})/resubmission=([0-9]{1,9})")

Subject = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Issued:
    """A certificate and its key as PEM texts."""

    cert: str
    key: str
    subject: str
    expires: datetime.datetime


@dataclass(frozen=True)
class Identity:
    """Who a certificate's subject is: a user in a role, mostly the user's own.

    For a job token also the job's id and how often the job had been run before (else 0).
    """

    user: str
    role: str
    subject: str
    job: int = 0
    resubmission: int = 0


def user_subject(user: str) -> Subject:
    """The subject of a user's own certificate."""
    return (*_ORGANISATION, ("CN", user))


def token_subject(user: str, role: str) -> Subject:
    """The subject of a user token."""
    return (*_ORGANISATION, ("CN", "Users"), ("CN", user), ("OU", role))


def job_subject(user: str, job: int, resubmission: int = 0) -> Subject:
    """The subject of the token of one run of a job."""
    run = f"queueid={job}/resubmission={resubmission}"
    return (*_ORGANISATION, ("CN", "Jobs"), ("CN", user), ("OU", user), ("OU", run))


def host_subject(host: str) -> Subject:
    """The subject of a host certificate, which is nobody's to log in with."""
    return (*_ORGANISATION, ("OU", "ALICE"), ("CN", host))


def identify(peer: Sequence[Sequence[tuple[str, str]]]) -> Identity | None:
    """Read the subject of ``SSLObject.getpeercert()``; None when it is none of ours."""
    names = [(_LETTERS.get(kind, kind), value) for rdn in peer for kind, value in rdn]
    subject = slashed(names)
    if tuple(names[:2]) != _ORGANISATION:
        return None
    match names[2:]:
        case [("CN", "Users"), ("CN", user), ("OU", role)]:
            return Identity(user, role, subject)
        case [("CN", "Jobs"), ("CN", user), ("OU", role), ("OU", text)] if run := _RUN.fullmatch(text):
            return Identity(user, role, subject, int(run[1]), int(run[2]))
        case [("CN", user)]:
            return Identity(user, user, subject)
    return None


def slashed(subject: Subject) -> str:
    """``/C=ch/O=AliEn2/CN=…``"""
    return "".join(f"/{kind}={value}" for kind, value in subject)


class Authority:
    """A certificate authority that keeps its key in ``directory`` (made 0700, reused when there)."""

    def __init__(self, directory: Path, now: datetime.datetime) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self.cert_path, key_path = directory / "ca.pem", directory / "ca.key"
        if not key_path.exists() or not self.cert_path.exists():
            self._make(key_path, now)
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._cert = x509.load_pem_x509_certificate(self.cert_path.read_bytes())

    def _make(self, key_path: Path, now: datetime.datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _x509_name((*_ORGANISATION, ("CN", "Embedded Grid CA")))
        builder = _builder(name, name, key.public_key(), now, datetime.timedelta(days=365))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(ca=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        cert = builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())
        write_private(key_path, _pem_key(key))
        write_private(self.cert_path, cert.public_bytes(serialization.Encoding.PEM))

    def publish(self, directory: Path) -> None:
        """Write the CA certificate as a hashed directory (``X509_CERT_DIR``) holds it.

        OpenSSL looks for ``HASH.0``; ``alienpy`` believes in a directory only if it holds a ``.pem``.
        """
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in ("gridproof-ca.pem", f"{subject_hash(self._cert.subject)}.0"):
            (directory / name).write_bytes(self.cert_path.read_bytes())

    def issue(
        self, subject: Subject, now: datetime.datetime, lifetime: datetime.timedelta, *, server: bool = False
    ) -> Issued:
        """A new key with a certificate for ``subject``."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_x509_name(subject), self._cert.subject, key.public_key(), now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        cert = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        return Issued(
            cert.public_bytes(serialization.Encoding.PEM).decode(),
            _pem_key(key).decode(),
            slashed(subject),
            now + lifetime,
        )


def write_private(path: Path, content: bytes | str) -> None:
    """Write a file that only its owner may read, from its first byte on; it is there wholly or not at all."""
    data = content.encode() if isinstance(content, str) else content
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


def subject_hash(name: x509.Name) -> str:
    """The hash by which OpenSSL looks for a CA in a directory: SHA-1 of the canonical subject."""
    canonical = b""
    for attribute in name:
        oid = _der_oid(attribute.oid.dotted_string)
        text = " ".join(str(attribute.value).lower().split()).encode()
        pair = oid + _der(0x0C, text)
        canonical += _der(0x31, _der(0x30, pair))
    return f"{int.from_bytes(hashlib.sha1(canonical).digest()[:4], 'little'):08x}"  # noqa: S324


def _der(tag: int, content: bytes) -> bytes:
    if len(content) > 127:
        raise ValueError("names here are short")
    return bytes([tag, len(content)]) + content


def _der_oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    return _der(0x06, bytes([first * 40 + second, *rest]))


def _x509_name(subject: Subject) -> x509.Name:
    return x509.Name([x509.NameAttribute(_OIDS[kind], value) for kind, value in subject])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + lifetime)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
