"""The Grid's services: who one is there, the central service, its clock, the catalogue, storage."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from gridproof.alien import Alien
from gridproof.alien.client import endpoint
from gridproof.alien.credentials import date, find, ssl_context
from gridproof.doctor.verdict import Verdict, failed, ok, skipped, warning
from gridproof.errors import AlienError, CredentialError

_CONNECT_SECONDS = 10.0
_SOON = timedelta(days=1)
_TOLERABLE = timedelta(seconds=60)
_TOO_MUCH = timedelta(seconds=300)
_SLOW = 3.0  # s
_BUSY = "it is busy, far away, or delays this certificate for many commands of late: wait some minutes"


def certificate(environ: Mapping[str, str], now: datetime) -> Verdict:
    """Whether there is a token or certificate that can be used, for how long, and whose CAs are trusted."""
    try:
        credentials = find(environ)
    except CredentialError as error:
        return failed(str(error), "put your Grid certificate into ~/.globus: see docs/alien.md")
    text = f"{credentials.cert}: {credentials.subject}, until {date(credentials.expires)}"
    if credentials.expires - now < _SOON:
        return warning(text, f"it ends soon: {credentials.remedy}")
    if credentials.ca is None:
        return warning(
            f"{text}; no directory with the Grid's CAs was found",
            "set X509_CERT_DIR to one, or install the CAs into /etc/grid-security/certificates",
        )
    return ok(f"{text}; CAs in {credentials.ca}")


def central(environ: Mapping[str, str]) -> tuple[Verdict, Alien]:
    """Connect to the central service: TLS both ways, and who it takes us for.

    Raises:
        AlienError: it cannot be reached, or refuses; the text says what to do.
    """
    begun = time.monotonic()
    alien = Alien.connect(environ)
    seconds = time.monotonic() - begun
    host, port = endpoint(environ)
    text = f"{host}:{port} knows {alien.user}, {1000 * seconds:.0f} ms to connect and ask"
    if seconds > _SLOW:
        return warning(text, _BUSY), alien
    return ok(text), alien


def clock(environ: Mapping[str, str], now: datetime) -> Verdict:
    """This machine's clock beside the central service's, as its HTTP answers are dated."""
    host, port = endpoint(environ)
    connection = http.client.HTTPSConnection(
        host, port, timeout=_CONNECT_SECONDS, context=ssl_context(find(environ))
    )
    with contextlib.closing(connection):
        connection.request("GET", "/")
        said = connection.getresponse().headers.get("Date", "")
    try:
        theirs = parsedate_to_datetime(said).astimezone(timezone.utc)
    except ValueError:
        return skipped(f"{host}:{port} does not tell its time")
    return judge_clock(now, theirs)


def judge_clock(ours: datetime, theirs: datetime) -> Verdict:
    """Two clocks; certificates and envelopes are refused where they differ by minutes."""
    difference = ours - theirs
    seconds = abs(difference.total_seconds())
    if abs(difference) <= _TOLERABLE:
        return ok(f"within {max(1, round(seconds))} s of the central service's")
    text = f"{seconds:.0f} s {'ahead of' if difference > timedelta(0) else 'behind'} the central service's"
    remedy = "set it by NTP: timedatectl set-ntp true"
    return failed(text, remedy) if abs(difference) > _TOO_MUCH else warning(text, remedy)


def catalogue(alien: Alien) -> Verdict:
    """Whether the home directory can be listed, and how fast."""
    begun = time.monotonic()
    try:
        entries = alien.ls(alien.home)
    except AlienError as error:
        return failed(f"the home directory cannot be read: {error}", "is this account registered in AliEn?")
    seconds = time.monotonic() - begun
    text = f"{alien.home} has {len(entries)} entries, listed in {1000 * seconds:.0f} ms"
    return warning(text, _BUSY) if seconds > _SLOW else ok(text)


def storage(alien: Alien) -> Verdict:
    """Write a small file to the Grid, read it back by an access envelope, and remove it."""
    content = secrets.token_hex(32)
    lfn = f"{alien.home}gridproof-doctor-{secrets.token_hex(8)}"
    begun = time.monotonic()
    with TemporaryDirectory(prefix="gridproof-doctor-") as directory:
        written = Path(directory) / "written"
        written.write_text(content)
        try:
            alien.upload(written, lfn)
        except AlienError as error:
            return failed(
                f"a file could not be written: {error}",
                "check your quota ('quota' in alien.py), and that SEs are reachable from here (port 1094)",
            )
        try:
            read, where = alien.cat(lfn), alien.whereis(lfn)
        except AlienError as error:
            return failed(f"a file could not be read: {error}", "are SEs reachable from here (port 1094)?")
        finally:
            with contextlib.suppress(AlienError):
                alien.rm(lfn)
    ses = ", ".join(replica.se for replica in where)
    if read != content.encode():
        return failed(f"{ses} gave back other bytes than were written", "tell the site's administrators")
    return ok(f"wrote and read a file at {ses} in {time.monotonic() - begun:.1f} s")
