"""The central service over its wire: who gets in, and answers that no recording has."""

from __future__ import annotations

import datetime
import json
import os
import re
import ssl

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from gridproof.localgrid.certificates import Authority, user_subject

HOME = "/local/user/g/gproof/"


@pytest.fixture(scope="module")
def tree(grid, tmp_path_factory):
    """Two files, each on two storage elements."""
    scratch = tmp_path_factory.mktemp("t1")
    for name, content in (("blob", os.urandom(3_000_000)), ("spin.sh", b"x" * 32)):
        (scratch / name).write_bytes(content)
        grid.put(scratch / name, f"{HOME}t1/{name}", grid.se_names[:2])


def test_nomsg_and_nokeys_leave_out_one_half(raw):
    assert raw.ask("pwd", "-nomsg")["results"] == [{"pwd": HOME}]
    assert raw.ask("pwd", "-nokeys")["results"] == [{"message": HOME}]


def test_stat_of_several_names_tells_of_those_that_exist_and_fails_for_the_others(raw, tree, grid):
    answer = raw.ask("stat", "-v", "-nomsg", "t1/blob", "/nowhere", "t1")
    assert (answer["metadata"]["exitcode"], answer["metadata"]["error"]) == (
        "2",
        "No such file or directory : /nowhere",
    )
    blob, directory = answer["results"]
    assert list(blob["replicas"]) == [se.upper() for se in grid.se_names[:2]]
    assert "replicas" not in directory
    by_guid = raw.rows("stat", blob["guid"])[0]
    assert (by_guid["replicas"], by_guid["size"]) == (blob["replicas"], "3000000")


def test_whereis_looks_at_one_file_and_not_at_directories(raw, tree):
    assert raw.rows("whereis", "t1/blob", "/nowhere") == raw.rows("whereis", "t1/blob")
    assert raw.ask("whereis", "t1")["metadata"]["error"].endswith("not a file: t1")


def test_sites_and_storage_are_listed(raw, grid):
    assert [row["seName"] for row in raw.rows("listSEs")] == list(grid.se_names)
    ces = [(row["ceName"], row["maxRunning"], row["TTL"]) for row in raw.rows("listCEs")]
    assert ces[:3] == [(f"LOCAL::SITE{n}::CE", "2", 87_000) for n in (1, 2, 3)]
    text = raw.rows("listSEDistance", "-site", "SITE2")[0]["message"]
    lines = [re.fullmatch(r" *(\S+)\t\(read:.*distance: +([\d.]+)\)", line) for line in text.splitlines()]
    assert [line.groups() for line in lines if line] == [
        ("LOCAL::SITE2::SE", "0.000"),
        ("LOCAL::SITE1::SE", "0.500"),
        ("LOCAL::SITE3::SE", "0.500"),
    ]


@pytest.mark.parametrize("case", ["expired", "stranger"])
def test_a_bad_certificate_gets_no_connection(grid, dial, issue, tmp_path, case):
    now = datetime.datetime.now(datetime.timezone.utc)
    stranger = Authority(tmp_path / "other", now) if case == "stranger" else None
    start = -3 if case == "expired" else 0
    pair = issue(user_subject("gridproof"), start=start, authority=stranger)
    with (
        pytest.raises((ssl.SSLError, ConnectionError, ConnectionClosed, InvalidHandshake)),
        dial(grid.environment, *pair) as raw,
    ):
        raw.ask("pwd")


def test_there_is_only_one_path(grid, dial):
    with pytest.raises(InvalidStatus, match="404"):
        dial(grid.environment, path="/elsewhere")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(grid, version):
    import socket

    environment = grid.environment
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.check_hostname = False
    context.load_verify_locations(capath=environment["X509_CERT_DIR"])
    context.load_cert_chain(environment["X509_USER_CERT"], environment["X509_USER_KEY"])
    with (
        socket.create_connection(("127.0.0.1", int(environment["ALIENPY_JCENTRAL_PORT"]))) as plain,
        context.wrap_socket(plain) as tls,
    ):
        assert tls.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"options": []}', '{"command": "ls", "options": 5}', '"ls"']
)
def test_a_request_that_cannot_be_read_gets_an_answer_and_the_next_one_too(raw, text):
    raw.connection.send(text)
    assert json.loads(raw.connection.recv())["metadata"]["exitcode"] != "0"
    assert raw.rows("pwd")


def test_a_message_above_the_limit_ends_the_connection(raw):
    raw.connection.send("x" * (131 * 1024))
    with pytest.raises(ConnectionClosed):
        raw.connection.recv()


def test_a_commit_needs_its_booking_and_the_file(raw, tmp_path):
    lfn = f"{HOME}{tmp_path.name}"
    assert raw.ask("commit", "made-up", "3", lfn, "644", "0", "", "", "", "")["metadata"]["exitcode"] == "53"
    permit = raw.rows("access", "write", lfn, "disk:1")[0]
    answer = raw.ask("commit", permit["envelope"], "3", lfn, "644", "0", permit["url"], permit["se"], "", "")
    assert "has nothing" in answer["metadata"]["error"]
    assert raw.ask("stat", lfn)["metadata"]["exitcode"] == "2"
