"""JAliEn's websocket service: JSON commands over TLS, callers known by their client certificate."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import http
import json
import logging
import re
import sqlite3
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from errno import EINVAL, EIO, ENOENT, EREMOTEIO
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gridproof.localgrid.catalogue.entries import CatalogueError
from gridproof.localgrid.certificates import Identity, host_subject, identify, write_private
from gridproof.localgrid.commands.access import ACCESS_VERBS
from gridproof.localgrid.commands.answers import Answer, CommandFailed, is_whole
from gridproof.localgrid.commands.caller import AwaitedVerb, Caller
from gridproof.localgrid.commands.changes import CHANGE_VERBS
from gridproof.localgrid.commands.content import cat
from gridproof.localgrid.commands.files import FILE_VERBS
from gridproof.localgrid.commands.info import INFO_VERBS, ping
from gridproof.localgrid.commands.jobs import JOB_VERBS, resubmit
from gridproof.localgrid.commands.lookup import LOOKUP_VERBS
from gridproof.localgrid.commands.outputs import register_output
from gridproof.localgrid.commands.quotas import QUOTA_VERBS
from gridproof.localgrid.commands.sites import SITE_VERBS, SLOT_VERBS, grid_restart_se
from gridproof.localgrid.commands.submit import submit
from gridproof.localgrid.commands.usage import HELP_OPTIONS, USAGES, argument_missing, help_of
from gridproof.localgrid.commands.users import USER_VERBS
from gridproof.localgrid.commands.xml import to_xml
from gridproof.localgrid.core import Core, utc_now
from gridproof.localgrid.throttle import LOGIN, Throttle

PATH = "/websocket/json"
MESSAGE_LIMIT = 130 * 1024
IDLE_LIMIT = 900.0
SESSION_LIMIT = 2 * 86_400.0
TIMES = 100  # that one command is timed
PIECE = 500  # rows of an answer that are written at once
GOODBYE = 1.0  # s that a client has to say it, too
TRY_AGAIN_LATER = 1013
_NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")
_IN_THREADS = {**FILE_VERBS, **CHANGE_VERBS, **LOOKUP_VERBS, **ACCESS_VERBS, **SITE_VERBS}
_IN_LOOP = {**JOB_VERBS, **SLOT_VERBS, **INFO_VERBS, **USER_VERBS, **QUOTA_VERBS}
_AWAITED: dict[str, AwaitedVerb] = {
    "cat": cat,
    "submit": submit,
    "resubmit": resubmit,
    "registerOutput": register_output,
    "toXml": to_xml,
    "ping": ping,
    "gridRestartSE": grid_restart_se,
}


class CentralService:
    """Serves one :class:`Core` at its address.

    A connection is closed after ``idle_limit`` seconds without a command. With a ``throttle`` those who ask
    much have to wait.
    """

    def __init__(
        self,
        core: Core,
        private: Path,
        idle_limit: float = IDLE_LIMIT,
        throttle: Throttle | None = None,
    ) -> None:
        self._core = core
        self._private = private
        self._idle_limit = idle_limit
        self._throttle = throttle
        self._server: Server | None = None

    async def start(self) -> int:
        """Listen on a free port and return it."""
        self._server = await serve(
            self._connection,
            self._core.address,
            self._core.port,
            ssl=self._tls(),
            process_request=self._admit,
            max_size=MESSAGE_LIMIT,
            ping_interval=None,
            close_timeout=GOODBYE,
            server_header=None,
        )
        self._core.port = int(next(iter(self._server.sockets)).getsockname()[1])
        return self._core.port

    async def stop(self) -> None:
        """Close all connections."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    def _tls(self) -> ssl.SSLContext:
        core = self._core
        lifetime = datetime.timedelta(days=365)
        host = core.authority.issue(host_subject("localhost"), utc_now(), lifetime, server=True)
        write_private(self._private / "hostcert.pem", host.cert)
        write_private(self._private / "hostkey.pem", host.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._private / "hostcert.pem", self._private / "hostkey.pem")
        context.load_verify_locations(core.authority.cert_path)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path != PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"There is only {PATH} here\n")
        identity, _ = _peer(connection)
        if identity is None or not self._known(identity):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "This certificate's subject is not known\n"
            )
        return None

    def _known(self, identity: Identity) -> bool:
        users = self._core.users
        known = identity.user in users and users[identity.user].may_become(identity.role)
        return known and self._still_runs(identity)

    def _still_runs(self, identity: Identity) -> bool:
        """Whether this is no job's token, or that of the job's latest run: a killed one's is still good."""
        job = self._core.queue.get(identity.job)
        return not identity.job or (job is not None and job.run == identity.resubmission + 1)

    async def _connection(self, connection: ServerConnection) -> None:
        identity, expires = _peer(connection)
        assert identity
        job = self._core.queue.get(identity.job)
        caller = Caller(identity, self._core.users[identity.role], job.site if job else "", expires)
        closes = min(expires, time.time() + SESSION_LIMIT)
        self._count(identity, LOGIN)
        with contextlib.suppress(ConnectionClosed):
            while True:
                patience = min(self._idle_limit, closes - time.time())
                try:
                    message = await asyncio.wait_for(connection.recv(), max(0.0, patience))
                except asyncio.TimeoutError:
                    await connection.close(TRY_AGAIN_LATER, "Session timed out")
                    return
                await asyncio.sleep(self._count(identity, 1))
                answer = await self.answer(caller, message)
                await connection.send(
                    json.dumps(answer) if len(answer["results"]) <= PIECE else _pieces(answer)
                )

    def _count(self, identity: Identity, commands: int) -> float:
        return self._throttle.delay(identity.subject, commands, time.monotonic()) if self._throttle else 0.0

    async def answer(self, caller: Caller, message: str | bytes) -> dict[str, Any]:
        """One request's answer, whatever the request is."""
        keys = messages = True
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return {"metadata": {"exitcode": "-1", "error": "Incoming JSON not ok"}, "results": []}
        try:
            name, options = _read_request(request)
            keys = "-nokeys" not in options
            messages = "-nomsg" not in options or bool(HELP_OPTIONS & set(options))
            answer = await self._run(caller, name, [o for o in options if o not in ("-nokeys", "-nomsg")])
        except CommandFailed as failure:
            answer = failure.answer()
        except CatalogueError as error:
            answer = CommandFailed(error.code, str(error)).answer()
        except OSError as error:
            answer = CommandFailed(error.errno or EIO, error.strerror or str(error)).answer()
        except sqlite3.Error as error:
            answer = CommandFailed(EIO, f"The Grid's database does not work: {error}").answer()
        except Exception:  # a connection outlives what goes wrong in one command
            logging.getLogger(__name__).exception("A command failed")  # which a full disk does not hinder
            answer = CommandFailed(EIO, "Internal error, see the end of the Grid's service.log").answer()
        render = functools.partial(answer.render, caller.directory, caller.user, keys=keys, messages=messages)
        return render() if len(answer.rows) <= PIECE else await asyncio.to_thread(render)

    async def _run(self, caller: Caller, name: str, arguments: Sequence[str]) -> Answer:
        if not self._still_runs(caller.identity):
            raise CommandFailed(EREMOTEIO, "This job is not supposed to still be running")
        if usage := USAGES.get(name):
            if HELP_OPTIONS & set(arguments):
                return help_of(name)
            if not arguments and not usage.alone:
                raise argument_missing(name)
        elif not (name.startswith("grid") and name in {*_IN_THREADS, *_IN_LOOP, *_AWAITED}):  # our own
            raise CommandFailed(ENOENT, f"Command [{name}] not found!")
        self._core.served[caller.identity.subject, name] += 1
        if verb := _IN_THREADS.get(name):
            return await asyncio.to_thread(verb, self._core, caller, arguments)
        if verb := _IN_LOOP.get(name):
            return verb(self._core, caller, arguments)
        if name == "time":
            return await self._time(caller, arguments)
        return await _AWAITED[name](self._core, caller, arguments)

    async def _time(self, caller: Caller, arguments: Sequence[str]) -> Answer:
        """Run a command several times."""
        if len(arguments) < 2 or not is_whole(arguments[0]):
            return help_of("time")
        times, name, rest = min(int(arguments[0]), TIMES), arguments[1], arguments[2:]
        if name == "time" or times == 0:
            raise CommandFailed(EINVAL, f"time takes a number from 1 to {TIMES} and another command")
        answer, began = Answer(), time.perf_counter()
        for _ in range(times):
            try:
                one = await self._run(caller, name, rest)
            except CommandFailed as failure:
                one = failure.answer()
            answer.rows += one.rows
            answer.exitcode, answer.error = one.exitcode, one.error
        total = int((time.perf_counter() - began) * 1000)
        command = " ".join([name, *rest])
        taken = f'"{command}" with #{times} tries,\tavr/total msec:\t\t{total // times}/{total}'
        answer.rows.append({"message": taken})
        return answer


def _read_request(request: Any) -> tuple[str, list[str]]:
    """A request's command and options. Raises CommandFailed."""
    fields = request if isinstance(request, dict) else {}
    name, options = fields.get("command"), fields.get("options", [])
    if not isinstance(name, str) or not isinstance(options, list):
        raise CommandFailed(EINVAL, 'A request is like {"command": "ls", "options": ["-l"]}')
    texts = [option if isinstance(option, str) else json.dumps(option) for option in options]
    if any(_NO_TEXT.search(text) for text in (name, *texts)):
        raise CommandFailed(EINVAL, "A request holds no NUL and no half of a surrogate pair")
    return name, texts


async def _pieces(answer: dict[str, Any]) -> AsyncIterator[str]:
    """A long answer as fragments of one message, between which the loop serves others."""
    rows = answer["results"]
    yield f'{{"metadata": {json.dumps(answer["metadata"])}, "results": ['
    for first in range(0, len(rows), PIECE):
        yield (", " if first else "") + json.dumps(rows[first : first + PIECE])[1:-1]
        await asyncio.sleep(0)
    yield "]}"


def _peer(connection: ServerConnection) -> tuple[Identity | None, float]:
    """Who the client's certificate says it is, and until when."""
    tls = connection.transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls else None
    if not certificate:
        return None, 0.0
    return identify(certificate["subject"]), float(ssl.cert_time_to_seconds(certificate["notAfter"]))
