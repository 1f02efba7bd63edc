"""Lines, messages and names on the control channel."""

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.errors import ProxyError
from gridproof.proxy import protocol
from gridproof.proxy.protocol import LineBuffer, Versions

HERE = Versions("3.11.2", "6.40.00", "0.1.0", "2026.8.0")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b)),
    st.lists(st.integers(min_value=0, max_value=200)),
)
def test_lines_come_out_the_same_however_the_stream_is_cut(lines, cuts):
    stream = b"".join(line + b"\n" for line in lines)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    buffer = LineBuffer()
    out = [line for a, b in itertools.pairwise(edges) for line in buffer.feed(stream[a:b])]
    assert out == lines


@pytest.mark.parametrize("data", [b"x" * 11, b"x" * 11 + b"\n", b"ok\n" + b"x" * 11])
def test_a_line_beyond_the_limit_is_refused(data):
    with pytest.raises(ProxyError, match="more than 10 bytes"):
        LineBuffer(limit=10).feed(data)


@pytest.mark.parametrize("line", [b"", b"[]", b"1", b"{", b"\xff\xfe", b'{"x": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(line):
    with pytest.raises(ProxyError):
        protocol.decode(line)


@pytest.mark.parametrize(
    "value",
    [
        b"1e999",
        b"-1e999",
        b"9223372036854775808",
        b"1" * 5000,
        b'"\\ud83d"',
        b'"\\uDE00x"',
        b'"\xed\xa0\xbd"',
    ],
)
def test_numbers_and_texts_that_no_file_and_no_other_machine_takes_are_refused(value):
    for line in (b'{"x": %b}' % value, b'{"x": [{"y": %b}]}' % value):
        with pytest.raises(ProxyError):
            protocol.decode(line)


def test_all_other_numbers_and_texts_are_taken():
    line = rb'{"x": [-9223372036854775807, 1e300, "\ud83d\ude00", "\\ud83d"]}'
    assert protocol.decode(line) == {"x": [1 - 2**63, 1e300, "\U0001f600", "\\ud83d"]}


@pytest.mark.parametrize("version", ["", "6.40\x1b[2J", "x" * 200])
def test_versions_are_short_and_do_nothing_to_a_terminal(version):
    with pytest.raises(ProxyError, match="the version of root"):
        Versions("3.11.2", version, "1", "2026.8.0")


@pytest.mark.parametrize(
    "content",
    [
        protocol.Register("1", "1", "Site1", "host", 1, 2, 5.0),
        protocol.Ready(HERE, 1094),
        protocol.Heartbeat(1.5),
        protocol.WorkerStarted("w", 3),
        protocol.WorkerExited("w", 0, 11, "tail"),
        protocol.Draining("late"),
        protocol.Bye("end"),
    ],
)
def test_what_a_pilot_sends_arrives_as_it_was(content):
    assert protocol.pilot_message(protocol.decode(protocol.encode(protocol.message(content)))) == content


@pytest.mark.parametrize(
    "received",
    [
        {},
        {"do": 1},
        {"do": ["register"]},
        {"do": "exit", "reason": "not a pilot's to say"},
        {"do": "heartbeat"},
        {"do": "heartbeat", "load": "much"},
        {"do": "heartbeat", "load": True},
        {"do": "heartbeat", "load": 1, "more": 2},
        {"do": "bye", "reason": "x" * (protocol.MAX_TEXT + 1)},
        {"do": "ready", "versions": "3.11"},
        {"do": "ready", "versions": {"python": "3"}},
    ],
)
def test_what_is_no_message_of_a_pilot_is_refused(received):
    with pytest.raises(ProxyError):
        protocol.pilot_message(received)


@given(
    st.dictionaries(st.text(max_size=8), JSON)
    | st.fixed_dictionaries(
        {"do": st.sampled_from(["register", "ready", "heartbeat", "worker_exited"])},
        optional={"load": JSON, "versions": JSON},
    )
)
def test_nothing_but_a_proxy_error_comes_of_nonsense(received):
    with contextlib.suppress(ProxyError):
        protocol.pilot_message(json.loads(json.dumps(received)))


def test_a_message_too_long_for_a_line_is_not_sent():
    with pytest.raises(ProxyError, match="does not fit"):
        protocol.encode({"x": "y" * protocol.MAX_LINE})


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-x", "a\n", "é", "x" * 129])
def test_what_could_harm_a_path_or_a_log_is_no_name(name):
    with pytest.raises(ProxyError, match="is not a name"):
        protocol.check_name("site", name)


def test_python_is_compared_by_its_minor_version_and_all_else_exactly():
    assert HERE.difference(Versions("3.11.9", "6.40.00", "0.1.0", "2026.8.0")) == ()
    assert HERE.difference(Versions("3.12.2", "6.38.00", "0.1.0", "2026.8.1")) == (
        "python",
        "root",
        "distributed",
    )


def test_secrets_do_not_show_when_a_message_is_printed():
    order = protocol.StartWorker("w", "s", 1, "auto", "tls://127.0.0.1:20001", "CA", "CERT", "SECRET")
    assert "SECRET" not in repr(order)
