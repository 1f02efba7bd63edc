"""How a pilot proves that it is the job it says: its job's token, a certificate of the Grid's own authority.

The ProxyServer sends a challenge; the pilot signs it, together with what it enrols and with whom, by the
key of its token. So a signature is good for one enrolment of one key at one ProxyServer, and a join key
that was copied is worth nothing without the token of a job of the same user.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from gridproof.errors import ConfigError, ProxyError

_CLOCKS = timedelta(minutes=5)  # by which the authority's may be ahead
_QUEUE_ID = "queueid="


@dataclass(frozen=True)
class JobToken:
    """Whose job a verified token is, which one, and when (epoch s) this run's token was issued."""

    user: str
    job_id: str
    issued: float


def statement(challenge: str, host_key: str, submission: str, pilot_key: str) -> bytes:
    """What is signed; the keys are public ones, as OpenSSH texts."""
    keys = (" ".join(key.split()[:2]) for key in (host_key, pilot_key))
    return "\n".join(["gridproof enrolment", challenge, submission, *keys]).encode()


def sign(said: bytes, key: bytes) -> str:
    """The signature (base64) by a token's key (PEM).

    Raises:
        ProxyError: it is no key that tokens have.
    """
    try:
        private = load_pem_private_key(key, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ProxyError(f"the key of the job's token cannot be used: {error}") from None
    if isinstance(private, rsa.RSAPrivateKey):
        signature = private.sign(said, padding.PKCS1v15(), SHA256())
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        signature = private.sign(said, ec.ECDSA(SHA256()))
    else:
        raise ProxyError("the key of the job's token is neither RSA nor of an elliptic curve")
    return base64.b64encode(signature).decode()


class GridAuthorities:
    """The authorities that issue job tokens."""

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self._certificates = tuple(certificates)

    @classmethod
    def read(cls, path: Path) -> GridAuthorities:
        """From a PEM file, or all files of a directory such as ``X509_CERT_DIR``.

        Raises:
            ConfigError: there is no certificate of an authority.
        """
        try:
            files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
            texts = [file.read_bytes() for file in files]
        except OSError as error:
            raise ConfigError(f"grid_cas: {path} cannot be read: {error.strerror}") from None
        found = []
        for text in texts:
            try:
                found += x509.load_pem_x509_certificates(text)
            except ValueError:  # policies and revocation lists lie there too
                continue
        authorities = [certificate for certificate in found if _is_authority(certificate)]
        if not authorities:
            raise ConfigError(f"grid_cas: {path} holds no certificate of an authority")
        return cls(authorities)

    def verify(self, token: str, signature: str, said: bytes, now: datetime) -> JobToken:
        """Whose job this is: ``token`` is its certificate (PEM), ``signature`` its key's of ``said``.

        The certificate must have been issued by one of the authorities itself.

        Raises:
            ProxyError: it is no valid job token, or the signature is not by its key.
        """
        if not token:
            raise ProxyError("it has no job token")
        try:
            certificate = x509.load_pem_x509_certificate(token.encode())
            self._check_issuer(certificate, now)
            begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            if not begins - _CLOCKS <= now <= ends:
                raise ProxyError(f"its job token is valid from {begins:%F %R} to {ends:%F %R} UTC")
            _check_signature(certificate, signature, said)
            user, job_id = _job(certificate)
        except (ValueError, UnsupportedAlgorithm):
            raise ProxyError("its job token is not a certificate that can be read") from None
        return JobToken(user, job_id, certificate.not_valid_before_utc.timestamp())

    def _check_issuer(self, certificate: x509.Certificate, now: datetime) -> None:
        for authority in self._certificates:
            if authority.subject != certificate.issuer:
                continue
            if not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
                continue
            try:
                certificate.verify_directly_issued_by(authority)
            except (InvalidSignature, ValueError, TypeError):
                continue
            return
        raise ProxyError("its job token is not of the Grid's authority")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check_signature(certificate: x509.Certificate, signature: str, said: bytes) -> None:
    public = certificate.public_key()
    try:
        given = base64.b64decode(signature, validate=True)
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(given, said, padding.PKCS1v15(), SHA256())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(given, said, ec.ECDSA(SHA256()))
        else:
            raise ProxyError("its job token's key is neither RSA nor of an elliptic curve")
    except (InvalidSignature, binascii.Error):
        raise ProxyError("it does not hold the key of its job token") from None


def _job(certificate: x509.Certificate) -> tuple[str, str]:
    """User and job id of ``/C=ch/O=AliEn2/CN=Jobs/CN=<user>/OU=<user>/OU=queueid=<id>/resubmission=<n>…``."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    names = [
        (name.rfc4514_attribute_name, str(name.value)) for rdn in certificate.subject.rdns for name in rdn
    ]
    common = [value for kind, value in names if kind == "CN"]
    queue = [value for kind, value in names if kind == "OU" and value.startswith(_QUEUE_ID)]
    client = usage is None or ExtendedKeyUsageOID.CLIENT_AUTH in usage
    if not client or len(common) != 2 or common[0] != "Jobs" or len(queue) != 1 or _is_authority(certificate):
        raise ProxyError("its certificate is not a job's token")
    return common[1], queue[0].removeprefix(_QUEUE_ID).partition("/")[0]
