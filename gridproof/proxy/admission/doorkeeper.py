"""Who is let in at the ProxyServer's port, what is kept of that, and what the operator reads of refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import asyncssh

from gridproof.errors import ProxyError
from gridproof.proxy.admission.jobtoken import GridAuthorities, statement
from gridproof.proxy.admission.joining import Applicant, Identity, Joining
from gridproof.proxy.admission.ledger import Ledger, NotKept
from gridproof.proxy.admission.refusals import Refusals
from gridproof.proxy.admission.userkeys import UserKeys
from gridproof.proxy.config import ServerConfig
from gridproof.proxy.protocol import JOIN, PILOT, USER, Enrol


class Doorkeeper:
    """Knows users, submissions and pilots by their keys; with ``state_dir`` also those of a former server.

    Raises:
        ConfigError, ProxyError: a user's key, the Grid's authorities or what was kept cannot be read.
    """

    def __init__(self, config: ServerConfig, host_key: str, trace: Callable[[str], None]) -> None:
        self.closing = False  # who is sent away now is not refused
        self._host_key = host_key
        self._trace = trace
        self._refusals = {proved: Refusals() for proved in (True, False)}
        self._authorities = GridAuthorities.read(config.grid_cas) if config.grid_cas else None
        self._user_keys = UserKeys(config.users, config.authorized_keys_file, config.accounts)
        self._ledger = Ledger(config.state_dir / "joining.sqlite") if config.state_dir else None
        self.joining = self._ledger.read(time.time()) if self._ledger else Joining()
        self._writing = asyncio.Lock()
        self._unkept = False  # and the operator knows it
        self._disk = ThreadPoolExecutor(1)  # waits for nobody's key files, which may lie somewhere slow

    async def check(self, username: str, key: asyncssh.SSHKey, whence: str) -> None:
        """Raises:
        ProxyError: ``key`` is not one that ``username`` may prove itself with; the text is for the operator.
        """
        if username.startswith(JOIN):
            self.joining.admit(username.removeprefix(JOIN), key.public_data, time.time())
        elif username.startswith(PILOT):
            self.joining.recognise(username.removeprefix(PILOT), key.public_data)
        elif username.startswith(USER):
            await asyncio.to_thread(self._user_keys.check, username.removeprefix(USER), key, whence)
        else:
            raise ProxyError("neither a user, a pilot nor a join key")

    def refused(self, who: str, whence: str, why: str, *, proved: bool = False) -> None:
        """Tell the operator, within limits; those who ``proved`` to hold a key do not drown among others."""
        if self.closing:
            return
        name = repr(who[:80]) if who else "somebody who gave no name"
        line = f"refused {name} from {whence}: {why}"
        for written in self._refusals[proved].lines(line, time.monotonic()):
            self._trace(written)

    async def enrol(self, submission: str, enrol: Enrol, challenge: str) -> tuple[Identity, Identity | None]:
        """As `Joining.enrol`, with the payload's proof checked; what it returns is kept.

        Raises:
            ProxyError: it must not.
            NotKept: it may, but the disk does not take it now.
        """
        applicant = self._applicant(submission, enrol, challenge)
        enrolled = self.joining.enrol(submission, applicant, time.time())
        await self.keep()
        return enrolled

    def _applicant(self, submission: str, enrol: Enrol, challenge: str) -> Applicant:
        try:
            key = asyncssh.import_public_key(enrol.key)
        except asyncssh.KeyImportError:
            raise ProxyError("it enrols something that is no public key") from None
        if key.get_algorithm() != "ssh-ed25519":
            raise ProxyError("it enrols a key that is not ssh-ed25519")
        if self._authorities is None:
            return Applicant(enrol.job_id, key.public_data, enrol.began)
        said = statement(challenge, self._host_key, submission, enrol.key)
        token = self._authorities.verify(enrol.token, enrol.signature, said, datetime.now(timezone.utc))
        if token.job_id != enrol.job_id:
            raise ProxyError(
                f"it says that it is job {enrol.job_id[:40]!r}, its token is job {token.job_id}'s"
            )
        return Applicant(token.job_id, key.public_data, token.issued, token.user)

    async def keep(self) -> None:
        """Return when what was decided until now is on the disk; what many wait for is written at once.

        Raises:
            NotKept: it is not.
        """
        if self._ledger is None:
            self.joining.take_changes()
            return
        async with self._writing:
            changes = self.joining.take_changes()
            writing = asyncio.get_running_loop().run_in_executor(self._disk, self._ledger.write, changes)
            await asyncio.shield(writing)

    async def tick(self) -> None:
        """Time has passed."""
        self.joining.tick(time.time())
        for refusals in self._refusals.values():
            for line in refusals.left_out(time.monotonic()):
                self._trace(line)
        await self.keep_or_say()

    async def keep_or_say(self) -> None:
        """As `keep`; where the disk does not take it the operator is told, and it is tried every second."""
        try:
            await self.keep()
        except NotKept as error:
            if not self._unkept:
                self._trace(f"{error}; no pilot can join until it can")
            self._unkept = True
        else:
            if self._unkept:
                self._trace("what pilots join by is written again")
            self._unkept = False

    async def close(self) -> None:
        """Keep what is left to be kept, and nothing more."""
        await self.keep_or_say()
        self._disk.shutdown()
        if self._ledger is not None:
            self._ledger.close()
