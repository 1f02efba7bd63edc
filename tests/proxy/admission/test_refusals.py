"""However many are refused, the operator's log grows slowly, and says how many."""

from gridproof.proxy.admission.refusals import BURST, PER_SECOND, Refusals


def test_a_few_refusals_are_told_one_by_one():
    refusals = Refusals()
    for number in range(BURST):
        assert refusals.lines(f"line {number}", 100.0) == [f"line {number}"]


def test_a_flood_costs_a_line_every_ten_seconds_and_the_others_are_counted():
    refusals = Refusals()
    written = [line for tick in range(100_000) for line in refusals.lines("refused", tick * 0.01)]
    assert len(written) <= 2 * (BURST + 1000 * PER_SECOND)
    shown = written.count("refused")
    left_out = sum(int(line.split()[1]) for line in written if line != "refused")
    assert shown + left_out > 99_000


def test_those_left_out_are_told_also_when_nobody_comes_any_more():
    refusals = Refusals()
    for _ in range(BURST + 5):
        refusals.lines("refused", 0.0)
    assert refusals.left_out(1.0) == []
    assert refusals.left_out(1 / PER_SECOND) == ["refused 5 more, not shown"]
    assert refusals.left_out(1e6) == []
