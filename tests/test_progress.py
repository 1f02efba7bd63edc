"""How a query stands, as a value and as a line on a terminal."""

import math
from dataclasses import replace

import pytest

from gridproof.progress import Progress, query_bar

HALFWAY = Progress(
    "running", events=500, expected=1000, bytes_read=4_000_000, local_bytes=1_000_000, workers=3, seconds=2.0
)
STATUS = {
    "over": False,
    "error": None,
    "events": 20,
    "expected": 10,
    "bytes_read": 0,
    "local_bytes": 0,
    "workers": 1,
    "seconds": 0.0,
}


def test_rates_and_time_to_go_follow_from_what_is_done():
    assert (HALFWAY.fraction, HALFWAY.rate, HALFWAY.local_fraction, HALFWAY.remaining) == (0.5, 250, 0.25, 2)
    assert str(HALFWAY) == "running, 50% of 1,000 events in 2.0 s (250/s, 2.0 MB/s, 25% local, 3 workers)"


def test_while_nothing_is_known_nothing_is_promised():
    start = replace(HALFWAY, events=0, expected=0, bytes_read=0, local_bytes=0, seconds=0.0)
    assert (start.fraction, start.rate, start.local_fraction, start.remaining) == (0, 0, 0, math.inf)
    assert str(start).startswith("running, 0 events in 0.0 s")


@pytest.mark.parametrize(
    ("over", "error", "state"),
    [
        (False, None, "running"),
        (True, None, "done"),
        (True, ["MissingFiles", "x"], "failed"),
        (True, ["QueryCancelled", "x"], "cancelled"),
    ],
)
def test_the_state_is_what_the_master_says(over, error, state):
    assert Progress.of({**STATUS, "over": over, "error": error}).state == state


def test_no_more_is_done_than_was_expected():
    assert Progress.of(STATUS).fraction == 1
    assert Progress.of({**STATUS, "over": True, "expected": 0, "events": 0}).fraction == 1


def test_the_bar_shows_title_rates_and_time_within_a_terminals_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with query_bar(True, "[pT]") as draw:
        draw(HALFWAY)
    shown = capsys.readouterr().err
    assert "[pT]" in shown
    assert "50%  250/s, 2.0 MB/s, 25% local, 3 workers, 2 s left" in shown


def test_no_bar_no_word(capsys):
    with query_bar(False, "pT") as draw:
        draw(HALFWAY)
    assert capsys.readouterr().err == ""
