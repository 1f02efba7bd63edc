"""The control channel: JSON lines that users, pilots and the ProxyServer exchange.

Every line is one JSON object of at most `MAX_LINE` bytes. A user sends requests
``{"id": n, "do": …}`` and gets ``{"id": n, "ok": …}`` or ``{"id": n, "error": "…"}``, and events
``{"event": …}`` unasked. A pilot and the server send each other one-way messages ``{"do": …}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from math import isfinite
from typing import Any, TypeVar, cast, get_type_hints

from gridproof.errors import ProxyError

CONTROL = "control"
USER = "user:"
JOIN = "join:"
PILOT = "pilot:"
MAX_LINE = 1 << 20
EXIT_REPLACE = 75  # a worker asks for a fresh process in its place
EXIT_LEFT = 76  # a worker has left when told to, or when its time was over
MAX_TEXT = 16 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+-]{0,127}")

Message = dict[str, Any]
T = TypeVar("T")


class LineBuffer:
    """Cuts a byte stream into lines (sans I/O).

    Raises:
        ProxyError: from `feed`, when a line grows beyond ``limit`` bytes.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take in ``data``; returns the lines completed by it, without their ends."""
        start = len(self._rest)
        self._rest += data
        end = self._rest.rfind(b"\n", start)
        lines: list[bytes] = []
        if end >= 0:
            lines = bytes(self._rest[:end]).split(b"\n")
            del self._rest[: end + 1]
        if len(self._rest) > self._limit or any(len(line) > self._limit for line in lines):
            self._rest.clear()
            raise ProxyError(f"the control channel carried a line of more than {self._limit} bytes")
        return lines


def encode(message: Mapping[str, Any]) -> bytes:
    """One line with its end.

    Raises:
        ProxyError: the message does not fit into a line.
    """
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE + 1:
        raise ProxyError(f"a control message of {len(line)} bytes does not fit into {MAX_LINE}")
    return line


def decode(line: bytes) -> Message:
    """The JSON object of one line, whose numbers and texts can be written down again, also elsewhere.

    Raises:
        ProxyError: it is not such an object.
    """
    try:
        message = json.loads(
            line.decode(), parse_constant=_no_constant, parse_int=_integer, parse_float=_finite
        )
        if b"\\ud" in line.lower():  # halves of pairs, maybe without the other one
            json.dumps(message, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ProxyError("the control channel carried something that is not JSON") from None
    if not isinstance(message, dict):
        raise ProxyError("the control channel carried JSON that is not an object")
    return message


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    return number


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is out of range")
    return number


@dataclass(frozen=True)
class Versions:
    """What pilot and session must share; Python is compared by its minor version.

    Raises:
        ProxyError: one is no version, but some other text.
    """

    python: str
    root: str
    gridproof: str
    distributed: str

    def __post_init__(self) -> None:
        for name, version in asdict(self).items():
            check_name(f"the version of {name}", version)

    def difference(self, other: Versions) -> tuple[str, ...]:
        """Names of what differs between the two."""
        mine, theirs = asdict(self.comparable()), asdict(other.comparable())
        return tuple(name for name in mine if mine[name] != theirs[name])

    def comparable(self) -> Versions:
        """The same for all that may work together."""
        return replace(self, python=".".join(self.python.split(".")[:2]))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class StoreAccess:
    """What it takes to use a session's store, an XRootD server on the VO-box's loopback.

    ``key`` is a line of an ``sss`` keytab; the server tells clients to look for it in ``keytab``. ``size``:
    how many bytes it holds at most. Where there is no store ``port`` is 0, and ``problem`` says why.
    """

    session: str
    port: int = 0
    key: str = field(default="", repr=False)
    keytab: str = ""
    size: int = 0
    problem: str = ""


def store_top(session: str) -> str:
    """The path below which a store has its files; not there outside, since ROOT prefers local files."""
    return f"/gridproof-{session}"


# ---- pilot to server


@dataclass(frozen=True)
class Enrol:
    """What a payload sends over a join key's connection: the public half of the key pair that it has made.

    ``began``: when (epoch s) it did. ``token`` is its job's certificate (PEM), ``signature`` by that
    certificate's key, of the challenge (see `gridproof.proxy.admission.jobtoken`); both "" outside of a job.
    """

    job_id: str
    key: str
    began: float
    token: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Register:
    """A pilot's first message of a connection; ``ttl_end`` is in epoch seconds, 0: the slot has no end."""

    job_id: str
    master_id: str
    site: str
    host: str
    pid: int
    cores: int
    ttl_end: float = 0.0


@dataclass(frozen=True)
class Ready:
    """The forkserver has everything imported.

    ``xrootd_port`` is 0 when the node has no XRootD, ``xrootd_key`` the line of a keytab that it asks for,
    ``xrootd_keytab`` the file in which clients look for it.
    ``direct``: the node reaches the VO-box without the pilot's SSH connection.
    """

    versions: Versions
    xrootd_port: int = 0
    xrootd_key: str = field(default="", repr=False)
    xrootd_keytab: str = ""
    direct: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """Every few seconds; ``load`` is the node's one-minute load average."""

    load: float


@dataclass(frozen=True)
class Log:
    """What a worker of the pilot (``""``: the pilot itself) has written since the last one."""

    worker: str
    text: str


@dataclass(frozen=True)
class Draining:
    """The pilot takes no further workers and leaves when its present ones have ended."""

    reason: str


@dataclass(frozen=True)
class WorkerStarted:
    """A worker process runs; ``direct``: it dials its master itself, not through the pilot's connection."""

    name: str
    pid: int
    direct: bool = False


@dataclass(frozen=True)
class WorkerExited:
    """A worker process ended, or could not be started (``code`` -1); ``log`` is the tail of its log."""

    name: str
    code: int
    signal: int = 0
    log: str = ""


@dataclass(frozen=True)
class Bye:
    """The pilot leaves now."""

    reason: str


# ---- server to pilot


@dataclass(frozen=True)
class Challenge:
    """First on a join key's connection: what the pilot signs by its job's token."""

    challenge: str


@dataclass(frozen=True)
class Welcome:
    """The payload is a pilot now, and will be known by its own key: ``pilot`` is its ID."""

    pilot: str


@dataclass(frozen=True)
class Registered:
    """The pilot is known; its `Ready` may follow.

    It finds out whether it reaches ``probe_port`` of the VO-box directly (see `gridproof.proxy.reach`);
    0 where it need not.
    """

    probe_port: int = 0
    probe_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class StartWorker:
    """Start a worker of a session whose scheduler listens on ``scheduler_port`` of the VO-box.

    ``way``: "direct" dials it there, "tunnel" through the pilot's SSH connection, "auto" directly if that can
    be. ``contact`` is the worker's address for distributed, which no other worker of its session has.
    ``store_port``: of the session's store (see `StoreAccess`) on the VO-box's loopback; 0 if there is none.
    """

    name: str
    session: str
    scheduler_port: int
    way: str
    contact: str
    ca: str = field(repr=False)
    cert: str = field(repr=False)
    key: str = field(repr=False)
    store_port: int = 0
    store_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class StopWorker:
    """Let a worker finish and commit what it has begun, at most for ``grace`` s; then kill it."""

    name: str
    grace: float


@dataclass(frozen=True)
class Forward:
    """Ask for port ``number`` of the VO-box, to lead to a worker; "" to the node's XRootD server."""

    number: int
    worker: str = ""


@dataclass(frozen=True)
class Exit:
    """End the pilot with everything below it."""

    reason: str


_FROM_PILOT: dict[str, type] = {
    "register": Register,
    "ready": Ready,
    "heartbeat": Heartbeat,
    "log": Log,
    "draining": Draining,
    "worker_started": WorkerStarted,
    "worker_exited": WorkerExited,
    "bye": Bye,
}
_TO_PILOT: dict[str, type] = {
    "registered": Registered,
    "start_worker": StartWorker,
    "stop_worker": StopWorker,
    "forward": Forward,
    "exit": Exit,
}
_FROM_APPLICANT: dict[str, type] = {"enrol": Enrol}
_TO_APPLICANT: dict[str, type] = {"challenge": Challenge, "welcome": Welcome, "exit": Exit}
_VERBS = {
    kind: verb
    for kinds in (_FROM_PILOT, _TO_PILOT, _FROM_APPLICANT, _TO_APPLICANT)
    for verb, kind in kinds.items()
}

PilotMessage = Register | Ready | Heartbeat | Log | Draining | WorkerStarted | WorkerExited | Bye
PilotOrder = Registered | StartWorker | StopWorker | Forward | Exit
EnrolmentAnswer = Challenge | Welcome | Exit


def message(content: PilotMessage | PilotOrder | Enrol | EnrolmentAnswer) -> Message:
    """The wire form of what a pilot and the server tell each other."""
    return {"do": _VERBS[type(content)], **asdict(content)}


def pilot_message(received: Message) -> PilotMessage:
    """Check and build what a pilot sent.

    Raises:
        ProxyError: unknown verb, or fields that are missing, unknown or of a wrong type.
    """
    return cast(PilotMessage, _content(received, _FROM_PILOT))


def pilot_order(received: Message) -> PilotOrder:
    """Check and build what the server told a pilot.

    Raises:
        ProxyError: as `pilot_message`.
    """
    return cast(PilotOrder, _content(received, _TO_PILOT))


def applicant_message(received: Message) -> Enrol:
    """Check and build what a payload sent that would be a pilot.

    Raises:
        ProxyError: as `pilot_message`.
    """
    return cast(Enrol, _content(received, _FROM_APPLICANT))


def enrolment_answer(received: Message) -> EnrolmentAnswer:
    """Check and build what the server answers to it.

    Raises:
        ProxyError: as `pilot_message`.
    """
    return cast(EnrolmentAnswer, _content(received, _TO_APPLICANT))


def _content(received: Message, kinds: Mapping[str, type]) -> object:
    verb = received.get("do")
    kind = kinds.get(verb) if isinstance(verb, str) else None
    if kind is None:
        raise ProxyError(f"unknown control message {str(verb)[:40]!r}; known are {', '.join(kinds)}")
    return build(kind, {k: v for k, v in received.items() if k != "do"})


def build(kind: type[T], values: object) -> T:
    """A frozen dataclass from JSON values, types and text lengths checked.

    Raises:
        ProxyError: fields are missing, unknown or of a wrong type.
    """
    if not isinstance(values, dict):
        raise ProxyError(f"{kind.__name__} must be a JSON object")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(cast(Any, kind))}
    if unknown := [str(k)[:40] for k in values if k not in known]:
        raise ProxyError(f"{kind.__name__} has no field {', '.join(unknown)}")
    checked: dict[str, Any] = {}
    for name, f in known.items():
        if name in values:
            checked[name] = _checked(f"{kind.__name__}.{name}", hints[name], values[name])
        elif f.default is MISSING:
            raise ProxyError(f"{kind.__name__} lacks its field {name}")
    return kind(**checked)


def _checked(where: str, hint: Any, value: object) -> object:
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        raise ProxyError(f"{where} has the wrong type {type(value).__name__}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ProxyError(f"{where} is longer than {MAX_TEXT} characters")
    return value


def check_name(what: str, name: str) -> str:
    """``name`` itself if it may serve in logs, process titles and file names.

    Raises:
        ProxyError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise ProxyError(f"{what} {name[:40]!r} is not a name: letters, digits and _.@:+- only, at most 128")
    return name
