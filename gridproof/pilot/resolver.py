"""Where a worker can read a file: leave is asked for with the job's own token."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..alien import Alien, site_of
from ..alien.catalogue import member_url
from ..engine.replicas import Located, Replica, as_given
from ..errors import AlienError, CommandError, WireError

KEPT = 2_000  # files whose envelopes are kept
PATIENCE = 120.0  # s for which a service that cannot be reached is tried: it may be starting anew,
PAUSE = 5.0  # and s between


class GridResolver:
    """Finds replicas: as given for URLs and paths; for LFNs by the Grid's leave to read them (``access``).

    The job's token, and the service as the agent has it, are in ``environ``: JALIEN_TOKEN_CERT,
    JALIEN_TOKEN_KEY, JALIEN_HOST, JALIEN_WSPORT; a certificate of the user's is not used. The service takes
    one file per command; answers are kept until leave is refused. The SEs nearest to ``site`` come first, by
    what the service says of distances.
    """

    def __init__(self, environ: Mapping[str, str], site: str) -> None:
        self._environ = {name: environ[name] for name in environ if not name.startswith("X509_USER_")}
        self._site = site
        self._known: dict[str, Located] = {}  # by LFN, of the archive for its members
        self._alien: Alien | None = None
        self._distances: Mapping[str, float] = {}

    def __call__(self, files: Sequence[Mapping[str, Any]], anew: bool = False) -> list[Located]:
        """Where these files can be read, in order."""
        return [self._locate(str(f["name"]), anew) if f["kind"] == "lfn" else as_given(f) for f in files]

    def _locate(self, name: str, anew: bool) -> Located:
        lfn, _, member = name.partition("#")
        if anew or lfn not in self._known:
            try:
                located = self._ask_patiently(lfn)
            except AlienError as error:
                return Located(problem=f"no leave to read it: {error}")
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[lfn] = located
        located = self._known[lfn]
        if not member:
            return located
        replicas = (replace(r, url=member_url(r.url, member)) for r in located.replicas)
        return Located(tuple(replicas), located.problem)

    def _ask_patiently(self, lfn: str) -> Located:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self._ask(lfn)
            except WireError:
                if time.monotonic() >= end:
                    raise
                time.sleep(PAUSE)

    def _ask(self, lfn: str) -> Located:
        accesses = self._connected().access_read(lfn)
        accesses.sort(key=lambda access: self._distances.get(access.se.upper(), math.inf))
        return Located(tuple(Replica(a.root_url, a.se.upper(), site_of(a.se)) for a in accesses))

    def _connected(self) -> Alien:
        if self._alien is None:
            self._alien = Alien.connect(self._environ)
            try:
                self._distances = {se.upper(): far for se, far in self._alien.se_distance(self._site)}
            except CommandError:  # the service does not know the site: its own order must do
                self._distances = {}
        return self._alien
