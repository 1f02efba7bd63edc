"""The Grid certificate: where it is found, whether it can be used, and the TLS context made of it.

It is looked for as ALICE's own tools do, in variables and default places:

- a token: ``JALIEN_TOKEN_CERT`` and ``JALIEN_TOKEN_KEY`` (paths, or the PEM text itself), else
  ``tokencert_<uid>.pem`` and ``tokenkey_<uid>.pem`` in ``$TMPDIR`` or ``/tmp``;
- the user's own: ``X509_USER_CERT`` and ``X509_USER_KEY``, else ``usercert.pem`` and ``userkey.pem`` in
  ``~/.globus``;
- the CAs: ``X509_CERT_DIR``, ``X509_CERT_FILE``, else ``certificates`` of ALICE's CVMFS,
  ``/etc/grid-security`` or ``~/.globus``, else those of the system.
"""

from __future__ import annotations

import contextlib
import functools
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
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gridproof.errors import CredentialError

_CA_DIRECTORIES = (
    "/cvmfs/alice.cern.ch/etc/grid-security/certificates",
    "/Users/Shared/cvmfs/alice.cern.ch/etc/grid-security/certificates",
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
        return "".join(f"/{kind}={value}" for kind, value in self._names())

    @property
    def role(self) -> str:
        """The role that a user's token stands for ("": it is none)."""
        names = self._names()
        return dict(names).get("OU", "") if ("CN", "Users") in names else ""

    @property
    def of_job(self) -> bool:
        """Whether it is a job's token."""
        return ("CN", "Jobs") in self._names()

    @property
    def begins(self) -> datetime:
        """When the certificate begins (UTC)."""
        return self._certificate().not_valid_before_utc

    @property
    def expires(self) -> datetime:
        """When the certificate ends (UTC)."""
        return self._certificate().not_valid_after_utc

    @property
    def remedy(self) -> str:
        """How to get a new one."""
        return "gridproof token --renew" if self.role else "get a new one from your certification authority"

    def check(self, now: datetime) -> None:
        """Raise CredentialError, naming path and date, if the pair cannot be used at ``now``."""
        if now >= self.expires:
            raise CredentialError(
                f"the certificate {self.cert} expired on {date(self.expires)}: {self.remedy}"
            )
        if now < self.begins:
            raise CredentialError(
                f"the certificate {self.cert} is not valid before {date(self.begins)}: "
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
        if not os.access(self.key, os.R_OK):
            raise CredentialError(f"the key {self.key} cannot be read: it is another user's")
        self._check_key()

    def _check_key(self) -> None:
        try:
            key = load_pem_private_key(self.key.read_bytes(), None)
        except TypeError:  # it has a password; that is asked for when there is something to connect to
            return
        except OSError as error:
            raise CredentialError(f"the key {self.key} cannot be read: {error.strerror}") from None
        except (ValueError, UnsupportedAlgorithm):
            raise CredentialError(f"{self.key} holds no PEM key") from None
        if key.public_key() != self._certificate().public_key():
            raise CredentialError(f"the key {self.key} does not belong to the certificate {self.cert}")

    def _names(self) -> list[tuple[str, str]]:
        rdns = self._certificate().subject.rdns
        return [(name.rfc4514_attribute_name, str(name.value)) for rdn in rdns for name in rdn]

    def _certificate(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificates(self.cert.read_bytes())[0]
        except OSError as error:
            raise CredentialError(f"the certificate {self.cert} cannot be read: {error.strerror}") from None
        except ValueError:
            raise CredentialError(f"{self.cert} holds no PEM certificate") from None


def date(when: datetime) -> str:
    """A time as people read it."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def find(environ: Mapping[str, str]) -> Credentials:
    """The credentials that a shell with this environment would use: a valid token, else the user's own.

    Raises CredentialError that says for each place looked at why it is of no use.
    """
    problems: list[str] = []
    for what, credentials in (("token", token(environ)), ("user certificate", user_certificate(environ))):
        try:
            credentials.check(datetime.now(timezone.utc))
        except CredentialError as error:
            problems.append(f"{what}: {error}")
        else:
            return credentials
    remedy = "put your certificate and key there (docs/alien.md says how), then: gridproof token --renew"
    raise CredentialError("\n  ".join(["no usable Grid certificate was found", *problems, remedy]))


def token(environ: Mapping[str, str]) -> Credentials:
    """The token, whether or not there is one; PEM text is put in private files that vanish with the object.

    Raises CredentialError if a variable names CAs that are not there.
    """
    cert, key = token_files(environ)
    ca = _find_ca(environ)
    if not is_pem(cert) and not is_pem(key):
        return Credentials(Path(cert), Path(key), ca)
    directory = Path(tempfile.mkdtemp(prefix="gridproof-token-"))  # 0700
    credentials = Credentials(_as_file(cert, directory / "cert"), _as_file(key, directory / "key"), ca)
    weakref.finalize(credentials, shutil.rmtree, directory, ignore_errors=True)
    return credentials


def token_files(environ: Mapping[str, str]) -> tuple[str, str]:
    """The paths of the token's certificate and key, or their PEM text where variables hold that."""
    temporary, uid = environ.get("TMPDIR") or "/tmp", os.getuid()  # noqa: S108
    cert = environ.get("JALIEN_TOKEN_CERT") or f"{temporary}/tokencert_{uid}.pem"
    key = environ.get("JALIEN_TOKEN_KEY") or f"{temporary}/tokenkey_{uid}.pem"
    return cert, key


def user_certificate(environ: Mapping[str, str]) -> Credentials:
    """The user's own certificate, whether or not there is one. Raises CredentialError as `token` does."""
    globus = Path(environ.get("HOME") or Path.home()) / ".globus"
    cert = Path(environ.get("X509_USER_CERT") or globus / "usercert.pem")
    key = Path(environ.get("X509_USER_KEY") or globus / "userkey.pem")
    return Credentials(cert, key, _find_ca(environ))


def is_pem(value: str) -> bool:
    """Whether a variable holds PEM text, not a path."""
    return value.lstrip().startswith("-----BEGIN")


def _as_file(value: str, path: Path) -> Path:
    if not is_pem(value):
        return Path(value)
    path.touch(mode=0o600)
    path.write_text(value)
    return path


def _find_ca(environ: Mapping[str, str]) -> Path | None:
    for name in ("X509_CERT_DIR", "X509_CERT_FILE"):
        if environ.get(name):
            path = Path(environ[name])
            if not path.exists():
                raise CredentialError(
                    f"{name} is {path}, which does not exist: let it name the CAs "
                    '(of an embedded Grid that was started anew: eval "$(gridproof grid env)")'
                )
            return path
    own = f"{environ.get('HOME') or Path.home()}/.globus/certificates"
    return next((Path(d) for d in (*_CA_DIRECTORIES, own) if Path(d).is_dir()), None)


def ssl_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 with this certificate; the peer's CA is checked, its host name is not (no SANs there).

    Asks for the key's password if there is a terminal, once in a process while the files stay as they are.
    Raises CredentialError.
    """
    credentials.check(datetime.now(timezone.utc))
    cert, key = credentials.cert, credentials.key
    return _context(cert, key, credentials.ca, (cert.stat().st_mtime_ns, key.stat().st_mtime_ns))


@functools.lru_cache(maxsize=4)  # it keeps the key, decrypted, so that the password need not be kept
def _context(cert: Path, key: Path, ca: Path | None, changed: tuple[int, int]) -> ssl.SSLContext:  # noqa: ARG001
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _load_ca(context, ca)
    _load_pair(context, cert, key)
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
                with contextlib.suppress(ssl.SSLError):  # it holds something else
                    context.load_verify_locations(cafile=path)
            if not context.cert_store_stats()["x509"]:
                raise CredentialError(f"no CA certificate is in the directory {ca}: set X509_CERT_DIR")
    except OSError as error:
        raise CredentialError(f"the CA certificates in {ca} cannot be used: {error}") from None


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    def password() -> str:
        if not sys.stdin.isatty():
            raise CredentialError(
                f"the key {key} has a password and there is no terminal to ask for it: "
                "get a token in a terminal (gridproof token --renew)"
            )
        return getpass(f"Password of {key}: ")

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CredentialError(f"the key {key} does not belong to the certificate {cert}") from None
        raise CredentialError(
            f"{cert} and {key} cannot be used: {error.reason or error} (a wrong password, or no PEM file?)"
        ) from None
    except OSError as error:
        raise CredentialError(f"the key {key} cannot be read: {error.strerror}") from None
