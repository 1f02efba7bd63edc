"""``gridproof token``: what there is to log in with, and a new token from the central service."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gridproof.alien.client import endpoint
from gridproof.alien.credentials import Credentials, date, is_pem, token, token_files, user_certificate
from gridproof.alien.wire import Wire
from gridproof.errors import CredentialError, WireError


def describe(environ: Mapping[str, str], now: datetime) -> Iterator[str]:
    """Lines on the token and on the user's certificate: subject, validity, place, whether they can be used.

    Raises CredentialError, after these lines, if neither can be used.
    """
    usable = False
    for what, credentials in (("token", token(environ)), ("user certificate", user_certificate(environ))):
        yield f"{what} {credentials.cert}"
        try:
            yield f"  subject  {credentials.subject}"
            if credentials.role:
                yield f"  role     {credentials.role}"
            yield f"  valid    {date(credentials.begins)} to {date(credentials.expires)}"
            credentials.check(now)
        except CredentialError as error:
            yield f"  unusable {error}"
        else:
            yield f"  usable   {'yes' if not usable else 'yes, when the token is not'}"
            usable = True
    if not usable:
        raise CredentialError("neither can be used")


def renew(environ: Mapping[str, str], days: int | None = None) -> Credentials:
    """Get a new token with the user's own certificate and put it where it is looked for.

    ``days``: how long it shall be valid; the service allows 31 at most, which is also what None asks for.

    Raises CredentialError if the certificate cannot be used or the token not be written, WireError and
    CommandError if the service gives none.
    """
    files = token_files(environ)
    if any(map(is_pem, files)):
        raise CredentialError("JALIEN_TOKEN_CERT or JALIEN_TOKEN_KEY holds a token's text: unset it first")
    wire = Wire(*endpoint(environ), user_certificate(environ))
    try:
        answer = wire.command("token", "-nomsg", *(["-v", str(days)] if days else []))
    finally:
        wire.close()
    given = answer.results[0] if answer.results else {}
    cert, key = given.get("tokencert", ""), given.get("tokenkey", "")
    try:
        if x509.load_pem_x509_certificate(cert.encode()).public_key() != _public(key):
            raise ValueError
    except (ValueError, TypeError):
        raise WireError(f"{wire.host}:{wire.port} gave no token, though it did not refuse one") from None
    _write((Path(files[0]), cert), (Path(files[1]), key))
    renewed = token(environ)
    renewed.check(datetime.now(timezone.utc))
    return renewed


def _public(key: str) -> object:
    return load_pem_private_key(key.encode(), None).public_key()


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
        place = error.filename2 or error.filename
        raise CredentialError(f"the token cannot be written to {place}: {error.strerror}") from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
