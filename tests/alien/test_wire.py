"""The wire: one command at a time, none that changes something sent twice, errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gridproof.alien import wire as wire_module
from gridproof.alien.websocket import WebSocket
from gridproof.alien.wire import Wire, decode
from gridproof.errors import AnswerLost, CommandError, CredentialError, WireError

HOME = "/alice/cern.ch/user/j/jalien/"


def test_an_answer_comes_with_stripped_keys_and_string_values(central: Any, wire: Wire) -> None:
    central.play = lambda command, options: {
        "metadata": {"exitcode": "0"},
        "results": [{"id ": "5", "TTL": 87000, "md5": None}],
    }
    assert wire.command("ps").results == ({"id": "5", "TTL": "87000", "md5": ""},)


def test_a_failure_is_an_error_with_its_code(wire: Wire) -> None:
    with pytest.raises(CommandError, match="No such file or directory : /nowhere") as caught:
        wire.command("stat", "-nomsg", "/nowhere")
    assert caught.value.exitcode == 2
    assert "stat" in caught.value.command


def test_an_envelope_is_in_no_error_message(central: Any, wire: Wire) -> None:
    central.play = lambda command, options: {"metadata": {"exitcode": "53", "error": "no"}, "results": []}
    with pytest.raises(CommandError) as caught:
        wire.command("commit", "SECRET", "5", "/a")
    assert "SECRET" not in str(caught.value) + caught.value.command


@pytest.mark.parametrize("command", ["submit", "rm", "commit", "resubmit", "mv", "touch", "made-up"])
def test_what_changes_something_is_never_sent_twice(central: Any, wire: Wire, command: str) -> None:
    central.faults = ["drop"]
    with pytest.raises(AnswerLost):
        wire.command(command, "x")
    assert central.names() == [command]


@pytest.mark.parametrize("options", [("-nomsg", "read", "/a"), ("-s", "5", "write", "/a", "disk:1")])
def test_leave_to_read_or_write_is_asked_for_again(
    central: Any, wire: Wire, options: tuple[str, ...]
) -> None:
    central.play = lambda command, options: {"results": []}
    central.faults = ["drop done"]
    wire.command("access", *options)
    assert central.names() == ["access", "access"]


def test_the_directory_is_restored_over_a_new_connection(central: Any, wire: Wire, recorded: Any) -> None:
    wire.command("cd", HOME + "t1")
    central.faults = ["", "drop"]
    central.play = lambda command, options: recorded(command, [HOME + "t1"] if command == "cd" else options)
    wire.command("whoami")
    wire.command("whoami")
    assert central.requests[-2:] == [("cd", [HOME + "t1/"]), ("whoami", [])]


def test_a_directory_that_cannot_be_restored_is_an_error(central: Any, wire: Wire, recorded: Any) -> None:
    wire.command("cd", HOME + "t1")
    central.faults = ["drop"]
    central.play = lambda command, options: recorded("cd", ["/nowhere"])
    with pytest.raises(CommandError, match=r"'cd .*t1/' failed: No such file or directory"):
        wire.command("ls")


def test_a_dead_connection_is_found_out_before_a_submission_is_sent(central: Any, wire: Wire) -> None:
    central.faults = ["", "drop"]
    wire.command("whoami")
    with pytest.raises(CommandError):
        wire.command("stat", "/nowhere")  # read over a new connection
    assert central.connections == 2
    wire._connection._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    assert wire.command("submit", "/alice/cern.ch/user/j/jalien/t1/j.jdl").results[0]["jobId"]
    assert central.names().count("submit") == 1


def test_a_late_answer_is_not_taken_for_the_next_ones(central: Any, authority: Any) -> None:
    wire = Wire("127.0.0.1", central.port, authority.issue("other"), timeout=0.3)
    central.faults = ["hang"]
    with pytest.raises(AnswerLost, match=r"no answer from 127.0.0.1:\d+ within 0.3 s"):
        wire.command("whoami")
    assert wire.command("listCEs").results[0]["ceName"]
    assert central.names() == ["whoami", "listCEs"]
    wire.close()


def test_threads_share_a_connection_with_one_command_in_flight(
    central: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    send, receive = WebSocket.send, WebSocket.receive
    monkeypatch.setattr(WebSocket, "send", lambda *args: (steps.append("send"), send(*args))[1])
    monkeypatch.setattr(WebSocket, "receive", lambda *args: (receive(*args), steps.append("receive"))[0])
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(wire.command("whoami").results[0]["username"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["jalien"] * 8
    assert steps == ["send", "receive"] * 8
    assert central.connections == 1


def test_an_answer_may_come_in_fragments_and_be_large(central: Any, wire: Wire) -> None:
    central.faults = ["pieces"]
    assert wire.command("whoami").results[0]["username"] == "jalien"
    rows = [{"lfn": f"/alice/{number}"} for number in range(100_000)]
    central.play = lambda command, options: {"metadata": {}, "results": rows}
    assert len(wire.command("find").results) == 100_000


def test_an_idle_connection_is_kept_alive_by_the_kernel(wire: Wire) -> None:
    before = threading.enumerate()
    wire.command("whoami")
    assert wire._connection is not None
    tcp = wire._connection._socket
    assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert [t for t in threading.enumerate() if t not in before and t.name.startswith("gridproof")] == []


def test_a_connection_that_the_kernel_gave_up_is_replaced(
    central: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(timeout: float) -> bytes:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))  # a TimeoutError, too

    wire.command("whoami")
    monkeypatch.setattr(wire._connection, "receive", gone)
    assert wire.command("whoami").results
    assert central.connections == 2


def test_a_half_open_connection_is_found_out_before_something_is_sent_once(
    central: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(timeout: float) -> None:
        raise TimeoutError("no sign of life")

    wire.command("whoami")
    monkeypatch.setattr(wire._connection, "ping", silent)
    central.play = lambda command, options: {"results": []}
    wire.command("mv", "a", "b")
    assert central.names() == ["whoami", "mv"]
    assert central.connections == 2


@pytest.mark.parametrize(("left", "warned"), [(timedelta(hours=11), True), (timedelta(hours=13), False)])
def test_a_certificate_that_expires_soon_is_warned_of(
    central: Any, authority: Any, left: timedelta, warned: bool
) -> None:
    wire = Wire("127.0.0.1", central.port, authority.issue("soon", ends=left))
    with contextlib.ExitStack() as stack:
        if warned:
            stack.enter_context(pytest.warns(UserWarning, match=r"soon-cert.pem expires on \d{4}-"))
        wire.command("whoami")
    wire.close()


def test_a_renewed_certificate_is_used_for_the_next_connection(
    central: Any, authority: Any, wire: Wire
) -> None:
    wire.command("whoami")
    authority.issue("jalien")  # in the same files
    central.faults = ["drop"]
    wire.command("whoami")
    first, second = central.serials
    assert first != second


def test_a_closed_wire_opens_again_when_it_is_used(central: Any, wire: Wire) -> None:
    wire.command("whoami")
    wire.close()
    wire.close()
    wire.command("whoami")
    assert central.connections == 2


def test_a_refused_connection_names_host_and_port(authority: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WireError, match=rf"127.0.0.1:{port}: Connection refused; check ALIENPY_JCENTRAL"):
        Wire("127.0.0.1", port, authority.issue("jalien")).command("whoami")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "no..host", "x" * 64])
def test_an_unknown_host_is_named(authority: Any, host: str) -> None:
    with pytest.raises(WireError, match=f"{re.escape(host)}:8097"):
        Wire(host, 8097, authority.issue("jalien")).command("whoami")


def test_an_unknown_subject_is_named(central: Any, wire: Wire) -> None:
    central.known = False
    with pytest.raises(CredentialError, match=r"does not know /C=CH/O=JAliEn/CN=jalien \(HTTP 401\)"):
        wire.command("whoami")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken_and_host_names_do_not_matter(
    authority: Any, recorded: Any, central: Any, version: ssl.TLSVersion
) -> None:
    service = type(central)(authority, recorded, max_tls=version)  # it calls itself localhost.localdomain
    service.start()
    wire = Wire("127.0.0.1", service.port, authority.issue("jalien"))
    wire.command("whoami")
    assert wire._connection is not None
    assert wire._connection._socket.version() == version.name.replace("v1_", "v1.")
    wire.close()
    service.stop()


def test_a_service_of_another_authority_is_not_trusted(central: Any, authority: Any, tmp_path: Path) -> None:
    other = type(authority)(tmp_path, "other-ca")
    with pytest.raises(CredentialError, match=r"signed by none of the CAs in .*other-ca.pem"):
        Wire("127.0.0.1", central.port, other.issue("jalien")).command("whoami")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_another_authority_is_refused(
    authority: Any, recorded: Any, central: Any, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    service = type(central)(authority, recorded, max_tls=version)
    service.start()
    foreign = type(authority)(tmp_path, "other-ca").issue("stranger")
    credentials = type(foreign)(foreign.cert, foreign.key, authority.file)
    try:
        with pytest.raises(
            CredentialError, match=r"refused the certificate .*stranger-cert.pem: .*unknown ca"
        ):
            Wire("127.0.0.1", service.port, credentials).command("whoami")
    finally:
        service.stop()


def test_what_is_no_websocket_is_named(authority: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            peer, _ = server.accept()
            peer.sendall(b"220 this is a mail server\r\n")
            peer.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WireError, match=f"127.0.0.1:{port} did not open a websocket"):
            Wire("127.0.0.1", port, authority.issue("jalien")).command("whoami")
        thread.join()


def test_a_request_beyond_the_limit_is_not_sent(central: Any, wire: Wire) -> None:
    with pytest.raises(WireError, match="of one command"):
        wire.command("submit", "x" * wire_module.REQUEST_LIMIT)
    assert central.requests == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            "null",
            "{}",
            '"results"',
            '{"results": [5]}',
            '{"results": 5}',
            '{"metadata": "x"}',
            "<html>",
        ),
        *("[" * 100_000, '{"results": ' + "9" * 10_000 + "}", "{\x00}"),
    ],
)
def test_what_is_no_answer_is_an_error(text: str) -> None:
    with pytest.raises(WireError, match="no answer"):
        decode(text)


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ('{"results": null, "metadata": null}', ()),
        ('{"metadata": {"exitcode": 0}}', ()),
        ('{"results": [{"id ": 5, "x": true, "y": [1]}]}', ({"id": "5", "x": "true", "y": "[1]"},)),
        ('{"results": [{"message": "half of a pair: \\ud800"}]}', ({"message": "half of a pair: ?"},)),
    ],
)
def test_answers_of_odd_shapes_are_read(text: str, results: tuple[dict[str, str], ...]) -> None:
    assert decode(text).results == results
