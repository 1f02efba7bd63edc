"""A session's TLS: an authority of its own, and one certificate for each role."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
_BACKDATE = timedelta(minutes=10)  # clocks of worker nodes may be behind


@dataclass(frozen=True)
class Identity:
    """PEM texts: the authority's certificate, the own certificate and its private key."""

    ca: str
    cert: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class SessionIdentities:
    """One identity per role; the authority's key is forgotten once they are made."""

    scheduler: Identity
    client: Identity
    worker: Identity


def make_identities(session: str, now: datetime) -> SessionIdentities:
    """A fresh authority for ``session`` and its three certificates, valid for `LIFETIME` from ``now``.

    distributed looks at the authority that has signed them, not at names (`Security` of distributed turns
    ``check_hostname`` off): a master is trusted at whatever address the VO-box is dialled by.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"gridproof {session} CA"[:64])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, SHA256())
    )
    ca_pem = ca.public_bytes(Encoding.PEM).decode()

    def issue(role: str) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"gridproof {role} {session}"[:64])
        both_ways = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        loopback = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        cert = (
            _builder(subject, ca_name, key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both_ways), critical=False)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
            )
            .sign(ca_key, SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(ca_pem, cert.public_bytes(Encoding.PEM).decode(), pem.decode())

    return SessionIdentities(issue("scheduler"), issue("client"), issue("worker"))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
