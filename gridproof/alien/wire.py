"""One websocket to a JAliEn central service: a command goes out as JSON, its answer comes back.

A request is ``{"command": …, "options": […]}``, an answer ``{"metadata": {…}, "results": [{…}, …]}``. The
service takes one command at a time and forgets a connection that has been idle for some minutes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from websockets.exceptions import InvalidStatus, WebSocketException

from gridproof.alien.credentials import Credentials, ssl_context
from gridproof.alien.websocket import WebSocket
from gridproof.errors import AlienError, CommandError, CredentialError, WireError

#: Bytes that a request may have; the service closes the connection on more.
REQUEST_LIMIT = 130_000
_ANSWER_LIMIT = 256 * 2**20
_OPEN_TIMEOUT = 15.0
_PING_INTERVAL = 20.0
_PING_TIMEOUT = 5.0

# Commands that change nothing, or that change the same thing when they come twice.
_REPEATABLE = {
    *("cat", "commandlist", "find", "kill", "listCEs", "listFilesFromCollection", "listSEDistance"),
    *("listSEs", "ls", "masterjob", "ping", "ps", "pwd", "stat", "token", "type", "version", "whereis"),
    "whoami",
}


@dataclass(frozen=True)
class Answer:
    """What came back: one mapping per result, all values strings (nested ones JSON), and the metadata."""

    results: tuple[dict[str, str], ...]
    metadata: dict[str, str]

    @property
    def message(self) -> str:
        """The text meant for people, of all results."""
        return "\n".join(result["message"] for result in self.results if result.get("message"))


class AnswerLost(WireError):
    """The connection broke after the command was sent: whether it was done is not known."""


class AnswerLate(AnswerLost):
    """No answer came in time: whether the command was done is not known, and to ask again is no help."""


def decode(text: str | bytes) -> Answer:
    """Read an answer; keys come stripped, values as strings (null: "", nested: JSON). Raises WireError."""
    try:
        content = json.loads(text)
        results = tuple(_strings(result) for result in content.get("results") or ())
        return Answer(results, _strings(content.get("metadata") or {}))
    except (ValueError, AttributeError, TypeError):
        raise WireError(f"the central service sent what is no answer: {text[:200]!r}") from None


def _strings(content: dict[str, Any]) -> dict[str, str]:
    return {key.strip(): _string(value) for key, value in content.items()}


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


class Wire:
    """A connection to the central service, safe to use from several threads.

    It is made at the first command and made anew when it was lost; a command that changes something is
    never sent twice.
    """

    def __init__(self, host: str, port: int, credentials: Credentials, timeout: float = 60.0) -> None:
        """``timeout``: seconds to wait for an answer."""
        self.host = host
        self.port = port
        self._credentials = credentials
        self._timeout = timeout
        self._context = ssl_context(credentials)
        self._lock = threading.Lock()
        self._connection: WebSocket | None = None
        self._unused = threading.Event()  # set: the thread that keeps the connection alive ends

    def command(self, name: str, *options: str) -> Answer:
        """Run one command.

        Raises CommandError if the service answers with a failure, CredentialError if it does not accept the
        certificate, AnswerLost if it broke off while doing something that must not be done twice, and
        WireError if it cannot be reached.
        """
        request = json.dumps({"command": name, "options": list(options)})
        if len(request) > REQUEST_LIMIT:
            raise WireError(f"{name}: {len(request)} bytes are more than the {REQUEST_LIMIT} of one command")
        repeatable = name in _REPEATABLE or (name == "access" and "read" in options[:2])
        with self._lock:
            try:
                if not repeatable:
                    self._drop_if_dead()
                answer = self._exchange(name, request)
            except AnswerLost as error:
                if not repeatable or isinstance(error, AnswerLate):
                    raise
                answer = self._exchange(name, request)
        exitcode = answer.metadata.get("exitcode", "0")
        if exitcode not in ("0", ""):
            raise _failure(name, options, exitcode, answer)
        return answer

    def close(self) -> None:
        """Close the connection; a later command opens a new one."""
        with self._lock:
            self._disconnect()

    def _exchange(self, name: str, request: str) -> Answer:
        connection = self._connected()
        try:
            connection.send(request, self._timeout)
            return decode(connection.receive(self._timeout))
        except TimeoutError:
            self._disconnect()  # the answer, should it come, must not be taken for the next one's
            raise AnswerLate(
                f"{name}: no answer from {self.host}:{self.port} within {self._timeout:g} s; "
                "the central service is overloaded or gone"
            ) from None
        except (WebSocketException, OSError) as error:
            self._disconnect()
            raise AnswerLost(
                f"{name}: {self.host}:{self.port} broke off before answering ({error})"
            ) from None
        except BaseException:
            self._disconnect()
            raise

    def _drop_if_dead(self) -> None:
        """Find out beforehand that a connection is gone: what must not be sent twice is not sent in vain."""
        if self._connection is not None:
            try:
                self._connection.ping(_PING_TIMEOUT)
            except (WebSocketException, OSError):
                self._disconnect()

    def _keep_alive(self, unused: threading.Event) -> None:
        """Ping while nothing else is going on, so that no one on the way forgets the connection."""
        while not unused.wait(_PING_INTERVAL):
            if self._lock.acquire(blocking=False):
                try:
                    self._drop_if_dead()
                finally:
                    self._lock.release()

    def _connected(self) -> WebSocket:
        if self._connection is None:
            self._credentials.check(datetime.now(timezone.utc))
            self._connection = self._connect()
            self._unused = threading.Event()
            threading.Thread(
                target=self._keep_alive, args=(self._unused,), name="gridproof alien", daemon=True
            ).start()
        return self._connection

    def _disconnect(self) -> None:
        self._unused.set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> WebSocket:
        where = f"{self.host}:{self.port}"
        try:
            tcp = socket.create_connection((self.host, self.port), _OPEN_TIMEOUT)
        except OSError as error:
            raise WireError(
                f"cannot connect to the central service at {where}: {error.strerror or error}; "
                "check ALIENPY_JCENTRAL and ALIENPY_JCENTRAL_PORT, that it runs, and the firewalls between"
            ) from None
        encrypted = ""
        with contextlib.ExitStack() as undo:
            undo.callback(tcp.close)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                tls = self._context.wrap_socket(tcp, server_hostname=self.host)
                undo.callback(tls.close)
                encrypted = tls.version() or ""
                opened = WebSocket(tls, f"wss://{where}/websocket/json", _OPEN_TIMEOUT, _ANSWER_LIMIT)
            except (WebSocketException, OSError) as error:
                raise self._refusal(error, where, encrypted) from None
            undo.pop_all()
            return opened

    def _refusal(self, error: Exception, where: str, encrypted: str) -> AlienError:
        if isinstance(error, InvalidStatus) and error.response.status_code == 401:
            return CredentialError(
                f"the central service at {where} does not know {self._credentials.subject} (HTTP 401): "
                "register this certificate with the virtual organisation, or use another one"
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return CredentialError(
                f"the certificate of {where} is signed by none of the CAs in "
                f"{self._credentials.ca or 'the system'} ({error.verify_message}): set X509_CERT_DIR"
            )
        reason = _alert(error)
        hung_up = isinstance(error.__cause__ or error, (EOFError, ConnectionError, ssl.SSLEOFError))
        if encrypted == "TLSv1.3" and hung_up and not reason:
            reason = "it hung up at once; is it signed by a CA of that Grid?"  # TLS 1.3 refuses so late
        if reason:
            return CredentialError(f"{where} refused the certificate {self._credentials.cert}: {reason}")
        return WireError(f"the service at {where} did not open a websocket: {str(error) or repr(error)}")


def _alert(error: BaseException) -> str:
    """The TLS alert with which the other side refused our certificate, if that is what happened."""
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return reason.lower().replace("_", " ") if "ALERT" in reason else ""


def _failure(name: str, options: tuple[str, ...], exitcode: str, answer: Answer) -> CommandError:
    if name == "commit":  # an envelope is a secret
        options = ("<envelope>", *options[1:])
    command = " ".join([name, *(option for option in options if option != "-nomsg")])
    shown = command if len(command) <= 200 else command[:200] + " …"
    reason = answer.metadata.get("error", "").strip() or answer.message or "no reason given"
    code = int(exitcode) if exitcode.lstrip("-").isdigit() else -1
    message = f"{shown!r} failed: {reason} (exit code {exitcode})"
    return CommandError(message, command=command, exitcode=code, results=answer.results)
