"""One websocket to a JAliEn central service: a command goes out as JSON, its answer comes back.

A request is ``{"command": …, "options": […]}``, an answer ``{"metadata": {…}, "results": [{…}, …]}``. The
service takes one command at a time, and closes a connection (code 1013) after 15 minutes without one, after
two days, and when the certificate expires. Who asks much is answered late: above a hundred commands each one
waits, the longer the more there have been.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from websockets.exceptions import InvalidStatus, PayloadTooBig, WebSocketException

from gridproof.alien.credentials import Credentials, date, ssl_context
from gridproof.alien.websocket import WebSocket
from gridproof.errors import AlienError, AnswerLost, CommandError, CredentialError, WireError

#: Bytes that a request may have; the service closes the connection on more.
REQUEST_LIMIT = 130_000
_ANSWER_LIMIT = 256 * 2**20
_OPEN_TIMEOUT = 15.0
_PING_TIMEOUT = 5.0
_RETRY_DELAYS = (0.0, 1.0, 4.0)  # s before a repeatable command goes over a new connection
_EXPIRES_SOON = timedelta(hours=12)

# Commands that change nothing, or that come to the same when they come twice (leave to write that is not used
# expires by itself).
_REPEATABLE = {
    *("access", "cat", "cd", "chmod", "commandlist", "find", "kill", "listCEs", "listFilesFromCollection"),
    *("listSEDistance", "listSEs", "ls", "masterjob", "mkdir", "packages", "ping", "ps", "pwd", "stat"),
    *("toXml", "token", "type", "version", "whereis", "whoami"),
}

# s, the last in ms. The kernel finds out within a minute that the other side is no longer there, and what it
# sends keeps firewalls from forgetting the connection. Pings would not do: a service at work answers none.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}


@dataclass(frozen=True)
class Answer:
    """What came back: one mapping per result, all values strings (nested ones JSON), and the metadata."""

    results: tuple[dict[str, str], ...]
    metadata: dict[str, str]

    @property
    def message(self) -> str:
        """The text meant for people, of all results."""
        return "\n".join(result["message"] for result in self.results if result.get("message"))


def decode(text: str | bytes) -> Answer:
    """Read an answer; keys come stripped, values as strings (null: "", nested: JSON). Raises WireError."""
    try:
        content = json.loads(text)
        if not content.keys() & {"metadata", "results"}:
            raise ValueError
        results = tuple(_strings(result) for result in content.get("results") or ())
        return Answer(results, _strings(content.get("metadata") or {}))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise WireError(f"the central service sent what is no answer: {text[:80]!r}") from None


def _strings(content: dict[str, Any]) -> dict[str, str]:
    return {key.strip(): _string(value) for key, value in content.items()}


def _string(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isascii() else text.encode(errors="replace").decode()  # halves of surrogate pairs


class Wire:
    """A connection to the central service, safe to use from several threads.

    It is made at the first command and made anew when it was lost; a command that changes something is
    never sent twice.
    """

    def __init__(self, host: str, port: int, credentials: Credentials, timeout: float = 300.0) -> None:
        """``timeout``: seconds to wait for an answer. Raises CredentialError, before any connection."""
        self.host = host
        self.port = port
        self._credentials = credentials
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: WebSocket | None = None
        self._directory = ""  # where a ``cd`` has led, "" without one
        ssl_context(credentials)

    def command(self, name: str, *options: str) -> Answer:
        """Run one command.

        Raises CommandError if the service answers with a failure, CredentialError if it does not accept the
        certificate, AnswerLost if it broke off while doing something that must not be done twice, and
        WireError if it cannot be reached.
        """
        request = _request(name, options)
        with self._lock:
            answer = self._ask(name, request) if name in _REPEATABLE else self._ask_once(name, request)
            _check(name, options, answer)
            if name == "cd":
                self._directory = answer.metadata.get("currentdir", "")
        return answer

    def close(self) -> None:
        """Close the connection; a later command opens a new one."""
        with self._lock:
            self._disconnect()

    def _ask(self, name: str, request: str) -> Answer:
        """Send a command; when the answer gets lost, again over new connections, for some seconds."""
        try:
            return self._exchange(self._connected(), name, request)
        except AnswerLost as lost:
            problem: WireError = lost
        for delay in _RETRY_DELAYS:
            if isinstance(problem, AnswerLost) and problem.hopeless:
                break
            time.sleep(delay)
            try:
                return self._exchange(self._connected(), name, request)
            except WireError as error:
                problem = error
        raise problem

    def _ask_once(self, name: str, request: str) -> Answer:
        """Send a command once, over a connection that is known to live."""
        if self._connection is not None:
            try:
                self._connection.ping(_PING_TIMEOUT)
            except (WebSocketException, OSError):
                self._disconnect()
        return self._exchange(self._connected(), name, request)

    def _exchange(self, connection: WebSocket, name: str, request: str) -> Answer:
        where = f"{self.host}:{self.port}"
        try:
            connection.send(request, self._timeout)
            return decode(connection.receive(self._timeout))
        except BaseException as error:
            self._disconnect()  # an answer that comes yet must not be taken for the next one's
            if isinstance(error, PayloadTooBig):
                raise AnswerLost(
                    f"{name}: the answer of {where} has more than {_ANSWER_LIMIT >> 20} MB; ask for less",
                    hopeless=True,
                ) from None
            if isinstance(error, TimeoutError) and error.errno is None:  # else: the kernel gave up
                raise AnswerLost(
                    f"{name}: no answer from {where} within {self._timeout:g} s; the central service is "
                    "overloaded or gone",
                    hopeless=True,
                ) from None
            if isinstance(error, (WebSocketException, OSError)):
                raise AnswerLost(f"{name}: {where} broke off before answering ({error})") from None
            if isinstance(error, WireError):
                raise AnswerLost(f"{name}: {error}") from None
            raise

    def _connected(self) -> WebSocket:
        if self._connection is None:
            self._connection = self._connect(ssl_context(self._credentials))
            self._warn_of_expiry()
            if self._directory:
                self._restore_directory(self._connection)
        return self._connection

    def _restore_directory(self, connection: WebSocket) -> None:
        options = (self._directory,)
        answer = self._exchange(connection, "cd", _request("cd", options))
        try:
            _check("cd", options, answer)
        except CommandError:
            self._disconnect()
            raise

    def _warn_of_expiry(self) -> None:
        own, left = self._credentials, self._credentials.expires - datetime.now(timezone.utc)
        if left < _EXPIRES_SOON and not own.of_job:
            warnings.warn(f"{own.cert} expires on {date(own.expires)}: {own.remedy}", stacklevel=2)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, context: ssl.SSLContext) -> WebSocket:
        where = f"{self.host}:{self.port}"
        try:
            tcp = socket.create_connection((self.host, self.port), _OPEN_TIMEOUT)
        except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
            reason = getattr(error, "strerror", None) or error
            raise WireError(
                f"cannot connect to the central service at {where}: {reason}; "
                "check ALIENPY_JCENTRAL and ALIENPY_JCENTRAL_PORT, that it runs, and the firewalls between"
            ) from None
        encrypted = ""
        with contextlib.ExitStack() as undo:
            undo.callback(tcp.close)
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                if hasattr(socket, option):
                    tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            try:
                tls = context.wrap_socket(tcp, server_hostname=self.host)
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


def _request(name: str, options: tuple[str, ...]) -> str:
    request = json.dumps({"command": name, "options": options})
    if len(request) > REQUEST_LIMIT:
        raise WireError(f"{name}: {len(request)} bytes are more than the {REQUEST_LIMIT} of one command")
    return request


def _check(name: str, options: tuple[str, ...], answer: Answer) -> None:
    """Raise CommandError for an answer that is a failure."""
    exitcode = answer.metadata.get("exitcode", "0")
    if exitcode in ("0", ""):
        return
    if name == "commit":  # an envelope is a secret
        options = ("<envelope>", *options[1:])
    command = " ".join([name, *(option for option in options if option != "-nomsg")])
    shown = command if len(command) <= 200 else command[:200] + " …"
    reason = answer.metadata.get("error", "").strip() or answer.message or "no reason given"
    code = int(exitcode) if exitcode.lstrip("-").isdecimal() else -1
    message = f"{shown!r} failed: {reason} (exit code {exitcode})"
    raise CommandError(message, command=command, exitcode=code, results=answer.results)
