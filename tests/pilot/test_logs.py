"""What a pilot reads of its workers' logs, and when."""

import pytest

from gridproof.pilot.logs import ALL_PIECES, LOG, OWN_LINES, PIECE, NewLines, OwnLines


@pytest.fixture
def log(tmp_path):
    """Appends to the log of a worker that is followed."""
    path = tmp_path / LOG

    def write(text):
        with path.open("a") as file:
            file.write(text)

    write.path = path
    return write


@pytest.fixture
def lines(log):
    new = NewLines()
    new.follow("w", log.path)
    return new


def test_what_is_new_is_read_once_and_line_by_line(lines, log):
    assert dict(lines.new()) == {}
    log("one\ntwo\nthr")
    assert dict(lines.new()) == {"w": "one\ntwo\n"}
    assert dict(lines.new()) == {}
    log("ee\n")
    assert dict(lines.new()) == {"w": "three\n"}


def test_the_end_of_a_log_comes_whole_also_without_the_end_of_a_line_and_after_the_log_is_gone(lines, log):
    log("one\nlast wor")
    lines.ended("w")
    log.path.unlink()
    assert dict(lines.new()) == {"w": "one\nlast wor"}
    assert dict(lines.new()) == {}
    lines.ended("w")
    assert dict(lines.new()) == {}


def test_of_a_worker_that_writes_much_the_end_is_read_and_what_is_missing_is_said(lines, log):
    log("".join(f"line {n:05}\n" for n in range(2000)))
    (text,) = dict(lines.new()).values()
    note, first, *_, last = text.splitlines()
    assert last == "line 01999"
    left_out = int(first.split()[1]) * len("line 00000\n")
    assert note == f"… ({left_out} bytes are left out)"
    assert left_out > 2000 * 11 - PIECE


def test_many_workers_together_are_read_no_faster_than_one_heartbeat_may_carry(tmp_path):
    new = NewLines()
    for n in range(100):
        path = tmp_path / f"{n}.log"
        path.write_text("x" * 10_000)
        new.follow(str(n), path)
    assert sum(len(text) for _, text in new.new()) < 1.1 * ALL_PIECES


def test_a_line_that_never_ends_is_read_in_pieces(lines, log):
    log("x" * PIECE)
    assert dict(lines.new()) == {"w": "x" * PIECE}


@pytest.mark.parametrize(
    "secret",
    [
        "root://se//f?authz=AAAA.BBBB-CCC&xrd.wantprot=unix",
        "root://se//f?authz=-----BEGIN SEALED CIPHER-----\nAAAA\n-----END SEALED CIPHER-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n",
        f"key:\n{'A' * 64}\n-----END PRIVATE KEY-----",
    ],
)
def test_leave_to_read_files_and_keys_stay_on_the_node(lines, log, secret):
    log(f"cannot open {secret}\n")
    lines.ended("w")
    ((_, text),) = lines.new()
    assert "AAAA" not in text
    assert "(secret)" in text


def test_a_log_that_is_gone_or_unreadable_is_silent(lines):
    assert dict(lines.new()) == {}
    lines.ended("w")
    assert dict(lines.new()) == {}


def test_a_pilots_own_lines_are_told_once_and_all_again_to_a_server_that_has_forgotten_them():
    own = OwnLines()
    for n in range(OWN_LINES + 1):
        own.add(str(n))
    assert own.new().splitlines() == [str(n) for n in range(1, OWN_LINES + 1)]
    own.add("more")
    assert own.new() == "more\n"
    assert own.new() == ""
    own.again()
    assert len(own.new().splitlines()) == OWN_LINES
