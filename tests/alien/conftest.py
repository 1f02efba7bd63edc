"""Certificates of every kind, and a central service that plays recorded exchanges and faults."""

from __future__ import annotations

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
from websockets.http11 import Response
from websockets.sync.server import Server, ServerConnection, serve

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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


Play = Callable[[str, list[str]], Any]


@dataclass
class Central:
    """A central service on a port of its own; ``requests`` are what it was sent, oldest first.

    ``faults`` are played first, one a request: "drop" closes without an answer, "drop done" does what was
    asked, then closes, "hang" never answers, "pieces" answers in fragments, an integer closes with that code.
    """

    authority: Authority
    play: Play
    max_tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    known: bool = True
    requests: list[tuple[str, list[str]]] = field(default_factory=list)
    faults: list[str | int] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def start(self) -> None:
        own = self.authority.issue("localhost.localdomain")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = self.max_tls
        context.load_cert_chain(own.cert, own.key)
        context.load_verify_locations(self.authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
        self._release = threading.Event()
        self._server: Server = serve(
            self._serve, "127.0.0.1", 0, ssl=context, process_request=self._greet, close_timeout=0.2
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._release.set()
        self._server.shutdown()
        self._thread.join()

    def names(self) -> list[str]:
        return [command for command, _ in self.requests]

    def _greet(self, connection: ServerConnection, request: Any) -> Response | None:
        assert request.path == "/websocket/json"
        if self.known:
            return None
        return Response(HTTPStatus.UNAUTHORIZED, "Unauthorized", Headers(), b"")

    def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        for message in connection:
            request = json.loads(message)
            command, options = request["command"], [o for o in request["options"] if o != "-nomsg"]
            self.requests.append((command, options))
            fault = self.faults.pop(0) if self.faults else ""
            if fault == "hang":
                self._release.wait()
                return
            if fault == "drop":
                connection.socket.shutdown(socket.SHUT_RDWR)
                return
            if isinstance(fault, int):
                connection.close(fault)
                return
            answer = json.dumps(self.play(command, options))
            if fault == "drop done":
                connection.socket.shutdown(socket.SHUT_RDWR)
                return
            pieces = [answer[at : at + 7] for at in range(0, len(answer), 7)]
            connection.send(pieces if fault == "pieces" else answer)


def answer(*results: dict[str, Any], exitcode: int = 0, error: str = "") -> dict[str, Any]:
    """An answer in the service's form."""
    metadata = {"currentdir": HOME, "exitcode": str(exitcode), "error": error, "user": "jalien"}
    return {"metadata": metadata, "results": list(results)}


@pytest.fixture
def recorded() -> Play:
    """What a real central service answered to these very commands."""
    known: dict[tuple[str, tuple[str, ...]], Any] = {}
    for line in (Path(__file__).parent / "exchanges.jsonl").read_text().splitlines():
        exchange = json.loads(line)
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
