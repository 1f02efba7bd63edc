"""Every exception that gridproof raises on purpose.

GridproofError
├── ConfigError             the configuration cannot be used as it is
├── AlienError              the Grid, as an API
│   ├── CredentialError     a certificate or key is missing, expired, not yet valid or unprotected
│   ├── WireError           the central service cannot be reached, or went away
│   │   └── AnswerLost      it was not heard of again, so whether a command was done is not known
│   ├── CommandError        the central service answered a command with a failure
│   ├── TransferError       a file could not be copied to or from a storage element
│   └── JdlError            a JDL does not parse or lacks what it needs
├── LocalGridError          the embedded Grid could not be started or reached
├── DatasetError            a dataset's files, tree or friends are not what was asked for
├── ProxyError              the ProxyServer cannot be reached, or refused
├── SessionError            a session could not be opened, or is no longer there
│   ├── NotEnoughWorkers    too few workers registered in time
│   └── VersionMismatch     pilot and session run different versions of what they share
├── StoreError              the session's store is full, has no such file, or cannot be reached
└── QueryError              a query failed; the session stays usable
    ├── CompileError        the selector does not compile
    ├── SelectorError       the selector threw or aborted
    │   └── SelectorCrashed the selector took its worker down, time and again
    ├── MemoryLimit         the selector needs more memory than a worker may use
    ├── MissingFiles        files could not be read at any of their replicas
    ├── MergeError          outputs of the workers could not be merged
    └── QueryCancelled      the query was cancelled

A message says what was asked, what happened and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class GridproofError(Exception):
    """Root of everything that gridproof raises on purpose."""


class ConfigError(GridproofError):
    """The configuration cannot be used as it is."""


class AlienError(GridproofError):
    """Something went wrong between here and the Grid's central services."""


class CredentialError(AlienError):
    """A certificate or key is missing, expired, not yet valid or unprotected."""


class WireError(AlienError):
    """The central service cannot be reached, refused the connection, or went away."""


class AnswerLost(WireError):
    """A command was sent and not answered: whether it was done is not known.

    ``hopeless``: another try would fare no better; the service is too slow, or has too much to say.
    """

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class CommandError(AlienError):
    """The central service answered a command with a failure.

    ``exitcode`` is the errno it gave (``int``), ``command`` the command with its options, ``results`` what
    it answered in spite of the failure.
    """

    def __init__(
        self, message: str, *, command: str, exitcode: int, results: Sequence[Mapping[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.command = command
        self.exitcode = exitcode
        self.results = tuple(results)


class TransferError(AlienError):
    """A file could not be copied to or from a storage element."""


class JdlError(AlienError):
    """A JDL does not parse or lacks what it needs; ``line`` and ``column`` count from 1 (0: no place)."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {message}" if line else message)
        self.line = line
        self.column = column


class LocalGridError(GridproofError):
    """The embedded Grid could not be started or reached."""


class DatasetError(GridproofError):
    """A dataset's files, tree or friends are not what was asked for."""


class ProxyError(GridproofError):
    """The ProxyServer cannot be reached, or refused what was asked."""


class SessionError(GridproofError):
    """A session could not be opened, or is no longer there."""


class StoreError(GridproofError):
    """The session's store is full, has no such file, or cannot be reached."""


class NotEnoughWorkers(SessionError):
    """Too few workers registered; ``pilots`` has a line for those at each site in the same state, and why."""

    def __init__(self, message: str, pilots: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  {line}" for line in pilots)]))
        self.pilots = tuple(pilots)


class VersionMismatch(SessionError):
    """Pilot and session run different versions of Python, ROOT, gridproof or distributed."""


class QueryError(GridproofError):
    """A query failed; the session stays usable."""


class CompileError(QueryError):
    """The selector does not compile; the message holds the compiler's own."""


class SelectorError(QueryError):
    """The selector threw, aborted or crashed."""


class SelectorCrashed(SelectorError):
    """The selector took its worker down, time and again at the same place."""


class MemoryLimit(QueryError):
    """The selector needs more memory than a worker may use."""


class MissingFiles(QueryError):
    """Files could not be read at any replica; ``files`` maps each name to why."""

    def __init__(self, message: str, files: dict[str, str]) -> None:
        super().__init__(message)
        self.files = files


class MergeError(QueryError):
    """Outputs of the workers could not be merged."""


class QueryCancelled(QueryError):
    """The query was cancelled."""
