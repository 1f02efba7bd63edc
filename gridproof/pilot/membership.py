"""How a payload becomes a pilot that the ProxyServer knows, and dials it as that from then on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import asyncssh

from gridproof.alien.credentials import is_pem, token_files
from gridproof.errors import ProxyError
from gridproof.pilot.config import Job, PilotConfig
from gridproof.proxy.admission.jobtoken import sign, statement
from gridproof.proxy.channel import ControlChannel
from gridproof.proxy.client import dial, open_control
from gridproof.proxy.protocol import (
    JOIN,
    PILOT,
    Challenge,
    Enrol,
    EnrolmentAnswer,
    Exit,
    Message,
    enrolment_answer,
    message,
)


class Refused(ProxyError):
    """The ProxyServer will not have this pilot, however often it dials."""


class Membership:
    """The pilot's own key pair, which never leaves this process, and the ID under which it is known.

    ``file`` is the configuration that the join key came in: both are forgotten when they have served.
    """

    def __init__(self, config: PilotConfig, job: Job, file: Path | None = None) -> None:
        self.pilot = ""
        self._config = config
        self._job = job
        self._file = file
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._began = time.time()

    async def dial(self, timeout: float) -> asyncssh.SSHClientConnection:
        """A connection to the ProxyServer as the pilot that this is; the first time it enrols.

        Raises:
            Refused: for good, with the reason as far as the ProxyServer tells it.
            ProxyError, OSError, asyncssh.Error, asyncio.TimeoutError: not now.
        """
        if not self.pilot:
            await self._enrol(timeout)
        try:
            return await self._dial(PILOT + self.pilot, self._key, timeout)
        except asyncssh.PermissionDenied:
            raise Refused(
                "the ProxyServer does not know this pilot any more: a newer payload of its job has taken its "
                "place, it was told to go, it was away for too long, or the ProxyServer's state was lost"
            ) from None

    async def _enrol(self, timeout: float) -> None:
        config = self._config
        try:
            conn = await self._dial(JOIN + config.submission, config.join_key, timeout)
        except asyncssh.PermissionDenied:
            raise Refused(
                "the ProxyServer refused its join key: expired, revoked, or the session is closed"
            ) from None
        try:
            control = await open_control(conn, _Enrolment)
            challenge = await control.answer()
            if not isinstance(challenge, Challenge):
                raise ProxyError("the ProxyServer sent no challenge")
            control.send(message(self._application(challenge.challenge)))
            answer = await control.answer()
        finally:
            conn.abort()
        if isinstance(answer, Exit):
            raise Refused(f"the ProxyServer refused it: {answer.reason}")
        if isinstance(answer, Challenge):
            raise ProxyError("the ProxyServer sent a second challenge")
        self.pilot = answer.pilot
        self._config = replace(config, join_key="")
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()

    def _application(self, challenge: str) -> Enrol:
        config = self._config
        key = self._key.export_public_key().decode().strip()
        enrol = Enrol(self._job.job_id, key, self._began)
        token = _token(self._job.grid_environment)
        if token is None:
            return enrol
        certificate, private = token
        said = statement(challenge, config.host_key, config.submission, key)
        return replace(enrol, token=certificate, signature=sign(said, private.encode()))

    async def _dial(
        self, username: str, key: str | asyncssh.SSHKey, timeout: float
    ) -> asyncssh.SSHClientConnection:
        config = self._config
        return await dial(config.host, config.port, config.host_key, username, key, timeout)


class _Enrolment(ControlChannel, asyncssh.SSHClientSession[bytes]):
    def __init__(self) -> None:
        super().__init__()
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()

    async def answer(self) -> EnrolmentAnswer:
        """What the server says next.

        Raises:
            ProxyError: it says nothing more, or nonsense.
        """
        received = await self._answers.get()
        if received is None:
            raise ProxyError("the ProxyServer went away while this pilot enrolled")
        return enrolment_answer(received)

    def received(self, message: Message) -> None:
        self._answers.put_nowait(message)

    def lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._answers.put_nowait(None)


def _token(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Certificate and key (PEM texts) of the job's token; None where there is none."""
    if "JALIEN_TOKEN_CERT" not in environ or "JALIEN_TOKEN_KEY" not in environ:
        return None
    cert, key = token_files(environ)
    try:
        return _text(cert), _text(key)
    except (OSError, UnicodeDecodeError) as error:
        raise ProxyError(f"the job's token cannot be read: {error}") from None


def _text(given: str) -> str:
    return given if is_pem(given) else Path(given).read_text()
