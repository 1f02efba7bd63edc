"""The Grid certificate: where it is found, whether it can be used, and the TLS context made of it."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import stat
import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from getpass import getpass
from pathlib import Path

from cryptography import x509

from gridproof.errors import CredentialError

_CA_DIRECTORIES = (
    "/cvmfs/alice.cern.ch/etc/grid-security/certificates",
    "/etc/grid-security/certificates",
)
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")


@dataclass(frozen=True)
class Credentials:
    """A certificate, its private key (PEM files) and who vouches for the central service.

    ``ca`` is a file or a directory of CA certificates; None: those of the system.
    """

    cert: Path
    key: Path
    ca: Path | None

    @property
    def subject(self) -> str:
        """The certificate's subject as AliEn writes it: ``/C=ch/O=AliEn2/CN=Users/CN=name/OU=role``."""
        names = (attribute for rdn in self._certificate().subject.rdns for attribute in rdn)
        return "".join(f"/{name.rfc4514_attribute_name}={name.value!s}" for name in names)

    @property
    def expires(self) -> datetime:
        """When the certificate ends (UTC)."""
        return self._certificate().not_valid_after_utc

    def check(self, now: datetime) -> None:
        """Raise CredentialError, naming path and date, if the pair cannot be used at ``now``."""
        certificate = self._certificate()
        if now >= certificate.not_valid_after_utc:
            raise CredentialError(
                f"the certificate {self.cert} expired on {_date(certificate.not_valid_after_utc)}: "
                "get a new one, or a new token"
            )
        if now < certificate.not_valid_before_utc:
            raise CredentialError(
                f"the certificate {self.cert} is not valid before {_date(certificate.not_valid_before_utc)}: "
                "check this machine's clock"
            )
        try:
            mode = self.key.stat().st_mode
        except OSError as error:
            raise CredentialError(f"the key {self.key} cannot be read: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CredentialError(
                f"the key {self.key} is open to others (mode {stat.S_IMODE(mode):03o}): chmod 600 {self.key}"
            )

    def _certificate(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificates(self.cert.read_bytes())[0]
        except OSError as error:
            raise CredentialError(f"the certificate {self.cert} cannot be read: {error.strerror}") from None
        except ValueError:
            raise CredentialError(f"{self.cert} holds no PEM certificate") from None


def _date(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


def find(environ: Mapping[str, str]) -> Credentials:
    """The credentials that a shell with this environment would use: a valid token, else the user's own.

    Raises CredentialError that says for each place looked at why it is of no use.
    """
    ca = _find_ca(environ)
    problems: list[str] = []
    for what, credentials in _candidates(environ, ca):
        try:
            credentials.check(datetime.now(timezone.utc))
        except CredentialError as error:
            problems.append(f"{what}: {error}")
        else:
            return credentials
    raise CredentialError("\n  ".join(["no usable Grid certificate was found", *problems]))


def _candidates(environ: Mapping[str, str], ca: Path | None) -> list[tuple[str, Credentials]]:
    candidates: list[tuple[str, Credentials]] = []
    token = environ.get("JALIEN_TOKEN_CERT", ""), environ.get("JALIEN_TOKEN_KEY", "")
    if all(text.lstrip().startswith("-----BEGIN") for text in token):
        candidates.append(("token in JALIEN_TOKEN_CERT", _from_text(*token, ca)))
    elif all(token):
        candidates.append(("token in JALIEN_TOKEN_CERT", Credentials(Path(token[0]), Path(token[1]), ca)))
    temporary = Path(environ.get("TMPDIR") or tempfile.gettempdir())
    cert, key = (temporary / f"token{part}_{os.getuid()}.pem" for part in ("cert", "key"))
    candidates.append(("token", Credentials(cert, key, ca)))
    globus = Path(environ.get("HOME") or Path.home()) / ".globus"
    cert = Path(environ.get("X509_USER_CERT") or globus / "usercert.pem")
    key = Path(environ.get("X509_USER_KEY") or globus / "userkey.pem")
    candidates.append(("user certificate", Credentials(cert, key, ca)))
    return candidates


def _from_text(cert: str, key: str, ca: Path | None) -> Credentials:
    """Credentials given as PEM text, in private files that vanish with the object."""
    directory = Path(tempfile.mkdtemp(prefix="gridproof-token-"))  # 0700
    for name, text in (("cert.pem", cert), ("key.pem", key)):
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(text)
    credentials = Credentials(directory / "cert.pem", directory / "key.pem", ca)
    weakref.finalize(credentials, shutil.rmtree, directory, ignore_errors=True)
    return credentials


def _find_ca(environ: Mapping[str, str]) -> Path | None:
    for name in ("X509_CERT_DIR", "X509_CERT_FILE"):
        if environ.get(name):
            path = Path(environ[name])
            if not path.exists():
                raise CredentialError(f"{name} is {path}, which does not exist: let it name the CAs")
            return path
    return next((Path(d) for d in _CA_DIRECTORIES if Path(d).is_dir()), None)


def ssl_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 with this certificate; the peer's CA is checked, its host name is not (no SANs there).

    Asks for the key's password, once, if there is a terminal to ask on. Raises CredentialError.
    """
    credentials.check(datetime.now(timezone.utc))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _load_ca(context, credentials.ca)
    _load_pair(context, credentials)
    return context


def _load_ca(context: ssl.SSLContext, ca: Path | None) -> None:
    try:
        if ca is None:
            context.load_default_certs()
        elif not ca.is_dir():
            context.load_verify_locations(cafile=ca)
        elif any(_HASHED_NAME.fullmatch(entry.name) for entry in ca.iterdir()):
            context.load_verify_locations(capath=ca)
        else:
            for path in sorted(ca.glob("*.pem")):
                context.load_verify_locations(cafile=path)
    except OSError as error:
        raise CredentialError(f"the CA certificates in {ca} cannot be used: {error}") from None


def _load_pair(context: ssl.SSLContext, credentials: Credentials) -> None:
    def password() -> str:
        if not sys.stdin.isatty():
            raise CredentialError(
                f"the key {credentials.key} has a password and there is no terminal to ask for it: "
                "make a token, or a key without password"
            )
        return getpass(f"Password of {credentials.key}: ")

    try:
        context.load_cert_chain(credentials.cert, credentials.key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CredentialError(
                f"the key {credentials.key} does not belong to the certificate {credentials.cert}"
            ) from None
        raise CredentialError(
            f"{credentials.cert} and {credentials.key} cannot be used: {error.reason or error} "
            "(a wrong password, or no PEM file?)"
        ) from None
    except OSError as error:
        raise CredentialError(f"the key {credentials.key} cannot be read: {error.strerror}") from None
