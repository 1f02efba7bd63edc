"""Certificates of every kind, and a central service that plays recorded exchanges and faults."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.sync.server import Server, ServerConnection, serve

from gridproof.alien import jobs as jobs_module
from gridproof.alien import wire as wire_module
from gridproof.alien.credentials import Credentials
from gridproof.alien.wire import Wire

HOME = "/alice/cern.ch/user/j/jalien/"
DAY = timedelta(days=1)


class Authority:
    """A certificate authority that signs what a test needs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        cert = self._sign(self.name, self.key.public_key(), -DAY, 365 * DAY, ca=True)
        self.file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, begins: timedelta = -DAY, ends: timedelta = DAY, password: bytes | None = None
    ) -> Credentials:
        """A certificate and its key, valid from ``begins`` to ``ends`` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "JAliEn"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        cert = self._sign(subject, key.public_key(), begins, ends, ca=False)
        paths = self.directory / f"{name}-cert.pem", self.directory / f"{name}-key.pem"
        paths[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
            )
        )
        return Credentials(*paths, self.file)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        begins: timedelta,
        ends: timedelta,
        *,
        ca: bool,
    ) -> x509.Certificate:
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture(scope="session")
def make_authority() -> type[Authority]:
    """Further authorities."""
    return Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before asking again."""
    monkeypatch.setattr(wire_module, "_RETRY_DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(jobs_module, "_SETTLE_DELAYS", (0.0, 0.01, 0.01))


Play = Callable[[str, list[str]], Any]


@dataclass
class Central:
    """A central service on a port of its own; ``requests`` are what it was sent, oldest first.

    ``faults`` (see `_FAULTS`) come first, one a request; with " done" behind, after the command was done.
    """

    authority: Authority
    play: Play
    max_tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    known: bool = True
    requests: list[tuple[str, list[str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    serials: list[str] = field(default_factory=list)
    port: int = 0

    def start(self) -> None:
        own = self.authority.issue("localhost.localdomain")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = self.max_tls
        context.load_cert_chain(own.cert, own.key)
        context.load_verify_locations(self.authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
        self._release = threading.Event()
        self._live: list[ServerConnection] = []
        self._handlers: list[threading.Thread] = []
        self._server: Server = serve(
            self._serve, "127.0.0.1", 0, ssl=context, process_request=self._greet, close_timeout=0.2
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._release.set()
        for handler in self._handlers:
            handler.join(0.05)  # the server itself would look for their end every 0.1 s
        self._server.shutdown()
        self._thread.join()

    def names(self) -> list[str]:
        return [command for command, _ in self.requests]

    def close_idle(self) -> None:
        """Close all connections, as the service does that has not heard a command for 15 minutes."""
        while self._live:
            self._live.pop().close(1013, "Session timed out")

    def _greet(self, connection: ServerConnection, request: Any) -> Response | None:
        assert request.path == "/websocket/json"
        if self.known:
            return None
        return Response(HTTPStatus.UNAUTHORIZED, "Unauthorized", Headers(), b"")

    def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        self._live.append(connection)
        self._handlers.append(threading.current_thread())
        self.serials.append(connection.socket.getpeercert()["serialNumber"])
        for message in connection:
            request = json.loads(message)
            command, options = request["command"], [o for o in request["options"] if o != "-nomsg"]
            self.requests.append((command, options))
            fault = self.faults.pop(0) if self.faults else ""
            if not fault:
                connection.send(json.dumps(self.play(command, options)))
                continue
            kind, _, done = fault.partition(" ")
            reply = json.dumps(self.play(command, options)) if done else "{}"
            if not _FAULTS[kind](self, connection, reply):
                return

    def _drop(self, connection: ServerConnection, reply: str) -> bool:
        connection.socket.shutdown(socket.SHUT_RDWR)
        return False

    def _close(self, connection: ServerConnection, reply: str) -> bool:
        connection.close(1013, "Session timed out")
        return False

    def _tear(self, connection: ServerConnection, reply: str) -> bool:
        """Break off in the middle of the frame."""
        frame = Frame(Opcode.TEXT, reply.encode() + b" " * 200).serialize(mask=False)
        connection.socket.sendall(frame[: len(frame) - 100])
        return self._drop(connection, reply)

    def _overdo(self, connection: ServerConnection, reply: str) -> bool:
        """Announce a frame of a terabyte."""
        connection.socket.sendall(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
        return self._hang(connection, reply)

    def _hang(self, connection: ServerConnection, reply: str) -> bool:
        self._release.wait()
        return False

    def _be_late(self, connection: ServerConnection, reply: str) -> bool:
        """Answer when nobody waits any more."""
        with contextlib.suppress(ConnectionClosed):
            connection.recv()
        with contextlib.suppress(ConnectionClosed):
            connection.send(reply)
        return False

    def _throttle(self, connection: ServerConnection, reply: str) -> bool:
        self._release.wait(0.05)
        connection.send(reply)
        return True

    def _talk_nonsense(self, connection: ServerConnection, reply: str) -> bool:
        connection.send("<html>502 Bad Gateway</html>")
        return True

    def _break_protocol(self, connection: ServerConnection, reply: str) -> bool:
        connection.socket.sendall(b"\xff\xff no frame at all")
        return self._hang(connection, reply)

    def _die(self, connection: ServerConnection, reply: str) -> bool:
        self._server.socket.close()
        return self._drop(connection, reply)

    def _answer_in_pieces(self, connection: ServerConnection, reply: str) -> bool:
        connection.send([reply[at : at + 7] for at in range(0, len(reply), 7)])
        return True


# What a fault does with the connection and the answer; whether the connection goes on.
_FAULTS: dict[str, Callable[[Central, ServerConnection, str], bool]] = {
    "drop": Central._drop,
    "1013": Central._close,
    "torn": Central._tear,
    "huge": Central._overdo,
    "hang": Central._hang,
    "late": Central._be_late,
    "throttled": Central._throttle,
    "nonsense": Central._talk_nonsense,
    "no-frame": Central._break_protocol,
    "dies": Central._die,
    "pieces": Central._answer_in_pieces,
}


def answer(*results: dict[str, Any], exitcode: int = 0, error: str = "") -> dict[str, Any]:
    """An answer in the service's form."""
    metadata = {"currentdir": HOME, "exitcode": str(exitcode), "error": error, "user": "jalien"}
    return {"metadata": metadata, "results": list(results)}


@pytest.fixture
def recorded() -> Play:
    """What a real central service answered to these very commands."""
    known: dict[tuple[str, tuple[str, ...]], Any] = {}
    lines = Path(__file__).with_name("captures.jsonl").read_text().splitlines()
    for exchange in map(json.loads, lines):
        options = (HOME + o if o.startswith("t1") else o for o in exchange["options"])
        known.setdefault((exchange["command"], tuple(options)), exchange["response"])

    def play(command: str, options: list[str]) -> Any:
        if (command, tuple(options)) not in known and command == "ls":
            options = options[:-1]
        return known[command, tuple(options)]

    return play


@pytest.fixture
def central(authority: Authority, recorded: Play) -> Iterator[Central]:
    service = Central(authority, recorded)
    service.start()
    yield service
    service.stop()


@pytest.fixture
def wire(central: Central, authority: Authority) -> Iterator[Wire]:
    wire = Wire("127.0.0.1", central.port, authority.issue("jalien"), timeout=5.0)
    yield wire
    wire.close()
