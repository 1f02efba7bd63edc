"""What is kept of what pilots, workers and masters write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.proxy.logs import Logs, Room, Source, harmless

PILOT = Source("pilot", "p1")
WORKER = Source("worker", "p1", "w1")
MASTER = Source("master", "s1")
PLENTY = 1 << 20


def said(logs, source, user="alice", lines=100, most=PLENTY, since=0):
    found = logs.last(user, source, lines, most, since)
    return found and found[0]


def test_the_last_lines_of_each_source_are_kept_apart():
    logs = Logs()
    for n in range(5):
        logs.add("alice", WORKER, f"line {n}\n", 0.0)
        logs.add("alice", PILOT, f"pilot {n}\n", 0.0)
    assert said(logs, WORKER, lines=2) == "line 3\nline 4\n"
    assert said(logs, PILOT, lines=1) == "pilot 4\n"
    assert said(logs, MASTER) is None


def test_nobody_is_shown_what_belongs_to_another_user():
    logs = Logs()
    logs.add("alice", WORKER, "hers\n", 0.0)
    assert said(logs, WORKER, user="bob") is None


def test_only_what_is_new_can_be_asked_for():
    logs = Logs()
    logs.add("alice", WORKER, "old\n", 0.0)
    _, seen = logs.last("alice", WORKER, 100, PLENTY)
    assert said(logs, WORKER, since=seen) == ""
    logs.add("alice", WORKER, "new\n", 0.0)
    assert said(logs, WORKER, since=seen) == "new\n"


def test_a_source_that_writes_much_keeps_its_end():
    logs = Logs(Room(source=10))
    for n in range(100):
        logs.add("alice", WORKER, f"{n:03}\n", 0.0)
    assert said(logs, WORKER) == "7\n098\n099\n"
    assert said(logs, WORKER, most=4) == "099\n"


def test_what_ended_is_kept_until_enough_others_have_ended():
    logs = Logs(Room(ended=2))
    workers = [Source("worker", "p1", f"w{n}") for n in range(4)]
    for worker in workers:
        logs.add("alice", worker, "last words\n", 0.0)
    logs.end("alice", workers[0])
    logs.pilot_gone("alice", "p1")
    assert [said(logs, worker) is not None for worker in workers] == [False, False, True, True]


def test_the_room_of_a_user_is_taken_from_what_ended_first_and_then_from_who_has_most():
    logs = Logs(Room(source=400, user=1000))
    chatty = [Source("worker", "p1", f"w{n}") for n in range(3)]
    logs.add("alice", chatty[0], "x" * 400, 0.0)
    logs.end("alice", chatty[0])
    logs.add("alice", PILOT, "few words\n", 0.0)
    logs.add("alice", chatty[1], "x" * 400, 0.0)
    logs.add("alice", chatty[2], "x" * 400, 0.0)
    assert said(logs, chatty[0]) is None
    logs.add("alice", MASTER, "x" * 400, 0.0)
    assert said(logs, PILOT) == "few words\n"
    assert logs.size("alice") <= 1000


def test_a_pilot_that_writes_too_fast_is_cut_and_what_is_missing_is_said():
    logs = Logs(Room(rate=10.0, burst=100.0))
    logs.add("alice", WORKER, "a" * 80, 0.0)
    logs.add("alice", WORKER, "b" * 80, 0.0)
    logs.add("alice", PILOT, "c" * 80, 0.0)
    assert said(logs, WORKER).count("b") == 20
    assert said(logs, PILOT) is None
    logs.add("alice", PILOT, "d" * 80, 100.0)
    assert said(logs, PILOT) == f"… (80 characters came too fast)\n{'d' * 80}"
    logs.add("alice", Source("pilot", "p2"), "e" * 80, 0.0)  # has an allowance of its own
    assert said(logs, Source("pilot", "p2")) == "e" * 80


def test_a_pilot_that_tells_again_from_the_beginning_is_not_kept_twice():
    logs = Logs()
    for _ in range(2):
        logs.begin("alice", PILOT)
        logs.add("alice", PILOT, "hello\n", 0.0)
    assert said(logs, PILOT) == "hello\n"


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "begin", "end", "gone"]), st.integers(0, 12), st.integers(0, 200)),
        max_size=80,
    )
)
def test_no_user_ever_has_more_than_the_room_for_one(events):
    logs = Logs(Room(source=150, user=600, sources=8, ended=2, burst=1e9))
    for what, number, size in events:
        source = Source("worker" if number % 2 else "pilot", f"p{number % 3}", f"w{number}")
        if what == "add":
            logs.add("alice", source, "x" * size, 0.0)
        elif what == "begin":
            logs.begin("alice", source)
        elif what == "end":
            logs.end("alice", source)
        else:
            logs.pilot_gone("alice", source.owner)
        sizes = [len(said(logs, s) or "") for s in known(logs)]
        assert logs.size("alice") == sum(sizes) <= 600
        assert len(sizes) <= 8


def known(logs):
    all_sources = (Source(kind, f"p{n % 3}", f"w{n}") for n in range(13) for kind in ("worker", "pilot"))
    return [source for source in all_sources if said(logs, source) is not None]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain, täglich\ttabs\n", "plain, täglich\ttabs\n"),
        ("\x1b[1mError\x1b[0m in <TFile>\n", "Error in <TFile>\n"),
        ("\x1b]0;title\x07\x1b[2J\x9b31m", "\\x1b]0;title\\x07\\x1b[2J\\x9b31m"),
        ("10%\r20%\r\ndone\b\b", "10%\n20%\ndone\\x08\\x08"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
    ],
)
def test_nothing_that_is_shown_does_more_to_a_terminal_than_appear(written, shown):
    assert harmless(written) == shown
