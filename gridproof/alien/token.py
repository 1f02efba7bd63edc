"""What there is to log in with, and a new token from the central service."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gridproof.alien.client import endpoint
from gridproof.alien.credentials import Credentials, date, is_pem, token, token_files, user_certificate
from gridproof.alien.wire import Wire
from gridproof.errors import CredentialError, WireError


def describe(environ: Mapping[str, str], now: datetime) -> Iterator[str]:
    """Lines on the token and on the user's certificate: place, subject, validity, what is wrong with them.

    Raises CredentialError, after these lines, if neither can be used.
    """
    usable = False
    for what, own in (("token", token(environ)), ("user certificate", user_certificate(environ))):
        yield f"{what}: {own.cert}"
        try:
            yield f"  subject   {own.subject}"
            if own.role:
                yield f"  role      {own.role}"
            yield f"  valid     {date(own.begins)} to {date(own.expires)}"
            own.check(now)
        except CredentialError as error:
            yield f"  unusable  {error}"
        else:
            order = ", but the token goes first" if usable else ""
            yield f"  usable    for {_span(own.expires - now)}{order}"
            usable = True
    if not usable:
        raise CredentialError(
            "neither can be used; with a certificate in its place 'gridproof token --renew' gets a token"
        )


def renew(environ: Mapping[str, str], days: int | None = None) -> Credentials:
    """Get a new token with the user's own certificate, and put it where it is looked for.

    ``days``: how long it shall be valid; the service allows 31 at most, which None asks for, too.

    Raises CredentialError if the certificate cannot be used or the token not be written, WireError and
    CommandError if the service gives none.
    """
    files = token_files(environ)
    if any(map(is_pem, files)):
        raise CredentialError(
            "JALIEN_TOKEN_CERT or JALIEN_TOKEN_KEY holds a token itself, not its path: unset both first"
        )
    wire = Wire(*endpoint(environ), user_certificate(environ))
    try:
        answer = wire.command("token", "-nomsg", *(["-v", str(days)] if days else []))
    finally:
        wire.close()
    given = answer.results[0] if answer.results else {}
    cert, key = given.get("tokencert", ""), given.get("tokenkey", "")
    if not _belong_together(cert, key):
        raise WireError(f"{wire.host}:{wire.port} accepted the command 'token', but gave none")
    _write((Path(files[0]), cert), (Path(files[1]), key))
    renewed = token(environ)
    renewed.check(datetime.now(timezone.utc))
    return renewed


def _span(left: timedelta) -> str:
    return f"{left.days} days" if left.days > 1 else f"{left.total_seconds() / 3600:.0f} h"


def _belong_together(cert: str, key: str) -> bool:
    try:
        public = load_pem_private_key(key.encode(), None).public_key()
        return x509.load_pem_x509_certificate(cert.encode()).public_key() == public
    except (ValueError, TypeError):
        return False


def _write(*contents: tuple[Path, str]) -> None:
    """Put files in their places, readable by the owner alone; none of them is ever seen half written."""
    parts = [path.with_name(f".{path.name}.{secrets.token_hex(4)}") for path, _ in contents]
    try:
        for part, (_, text) in zip(parts, contents, strict=True):
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text.rstrip("\n") + "\n")
        for part, (path, _) in zip(parts, contents, strict=True):
            part.replace(path)
    except OSError as error:
        directory = contents[0][0].parent
        raise CredentialError(f"the token cannot be written to {directory}: {error.strerror}") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
