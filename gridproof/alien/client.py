"""The Grid in one object: catalogue, files and jobs over one connection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from gridproof.alien.credentials import find
from gridproof.alien.jobs import Jobs
from gridproof.alien.transfer import Transfers
from gridproof.alien.wire import Wire
from gridproof.errors import WireError

_DEFAULT_HOST = "alice-jcentral.cern.ch"
_DEFAULT_PORT = 8097


def endpoint(environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of the central service. Raises WireError.

    From ALIENPY_JCENTRAL and ALIENPY_JCENTRAL_PORT, else JALIEN_HOST and JALIEN_WSPORT, else ALICE's own.
    """
    given = (environ.get("ALIENPY_JCENTRAL"), environ.get("ALIENPY_JCENTRAL_PORT"))
    local = (environ.get("JALIEN_HOST"), environ.get("JALIEN_WSPORT"))
    host, port = local if local[0] and not given[0] else given
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise WireError(f"the port of the central service must be a number up to 65535, not {port!r}")
    return host or _DEFAULT_HOST, int(port or _DEFAULT_PORT)


class Alien(Transfers, Jobs):
    """A user of AliEn, the real one or the embedded one; safe to use from several threads.

    ``user`` is the name there, ``home`` the home directory (ending in ``/``).
    """

    def __init__(self, wire: Wire) -> None:
        Transfers.__init__(self, wire)
        Jobs.__init__(self, wire)

    @classmethod
    def connect(cls, environ: Mapping[str, str] | None = None) -> Alien:
        """Connect as a shell with this environment would (None: this process's).

        Raises CredentialError and WireError.
        """
        environ = os.environ if environ is None else environ
        wire = Wire(*endpoint(environ), find(environ))
        try:
            return cls(wire)
        except BaseException:
            wire.close()
            raise

    def close(self) -> None:
        """Close the connection; a later command opens a new one."""
        self._wire.close()

    def __enter__(self) -> Alien:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
