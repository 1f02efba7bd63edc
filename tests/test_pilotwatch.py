"""What became of pilots is told from what the queue shows, and what is done about it has bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gridproof.alien import Job, Phase
from gridproof.alien.phases import phase_of
from gridproof.pilotwatch import (
    LEFT_OUT,
    REPLACE_EVERY,
    RETRY_PATIENCE,
    YOUNG,
    YOUNG_DEATHS,
    PilotWatch,
    last_words,
)
from gridproof.proxy.pool.records import PilotRecord

MASTER = 100
STATES = ("WAITING", "RUNNING", "ERROR_E", "ERROR_IB", "KILLED", "DONE", "ZOMBIE", "EXPIRED", "QUANTUM")


def job(id: int, status: str, site: str = "CERN", node: str = "wn1") -> Job:
    waits = status in ("WAITING", "INSERTING")
    return Job(id, MASTER, status, f"ALICE::{site}::CE", "" if waits else node, "pilot.sh")


def payload(
    id: int, nonce: str = "a", state: str = "ready", site: str = "CERN", reason: str = ""
) -> PilotRecord:
    return PilotRecord(
        f"{id}-{nonce}", "s", str(id), str(MASTER), state, site, "wn1", 1, 1, 0.0, 0.0, 0, reason
    )


def split_in(count: int) -> PilotWatch:
    """A watch on pilots 1, 2, … that all wait."""
    watch = PilotWatch()
    watch.sent(MASTER, count, 0.0)
    watch.saw([job(id, "WAITING") for id in range(1, count + 1)], 0.0)
    return watch


def lines(watch: PilotWatch) -> list[str]:
    return [str(group) for group in watch.groups()]


# ---------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("phase", "states"),
    [
        (Phase.WAITING, "INSERTING SPLITTING WAITING OVER_WAITING TO_STAGE"),
        (Phase.RUNNING, "ASSIGNED STARTED RUNNING SAVING SAVED SAVED_WARN"),
        (Phase.SPLIT, "SPLIT MERGING"),
        (Phase.RETRIED, "ERROR_A ERROR_IB"),
        (Phase.SILENT, "ZOMBIE"),
        (Phase.DONE, "DONE DONE_WARN"),
        (
            Phase.FAILED,
            "ERROR_I ERROR_E ERROR_S ERROR_SPLT ERROR_SV ERROR_V ERROR_VN ERROR_VT ERROR_EW ERROR_W",
        ),
        (Phase.FAILED, "EXPIRED FAILED"),
        (Phase.KILLED, "KILLED"),
        (Phase.UNKNOWN, "QUANTUM ERROR_QUANTUM"),
    ],
)
def test_every_state_of_jalien_is_understood(phase: Phase, states: str) -> None:
    assert {phase_of(state) for state in states.split()} == {phase}
    assert phase.final == (phase in (Phase.DONE, Phase.FAILED, Phase.KILLED))


def test_a_waiting_job_is_nowhere_whatever_the_queue_shows() -> None:
    assert job(1, "WAITING").site == ""
    assert job(1, "KILLED", node="").site == ""
    assert Job(1, 0, "ASSIGNED", "ALICE::CERN::CE").site == "CERN"
    assert job(1, "ERROR_E").site == "CERN"


def test_a_state_of_a_later_alien_is_kept_and_neither_runs_nor_ends() -> None:
    watch = split_in(1)
    watch.saw([job(1, "QUANTUM")], 1.0)
    assert lines(watch) == ["1 pilot at CERN QUANTUM (job 1)"]
    assert not watch.over()
    assert watch.coming()


# ---------------------------------------------------------------- what to ask


def test_masters_are_asked_for_until_they_are_split_and_then_their_subjobs() -> None:
    watch = PilotWatch()
    watch.sent(MASTER, 2, 0.0)
    assert watch.next_question() == ("masters", [MASTER])
    assert watch.saw([Job(MASTER, 0, "INSERTING")], 1.0) is False
    assert watch.saw([Job(MASTER, 0, "SPLIT")], 2.0)
    assert watch.next_question() == ("subjobs", [MASTER])
    assert watch.saw([job(1, "WAITING"), job(2, "WAITING")], 3.0)
    assert watch.next_question() == ("subjobs", [MASTER])
    assert watch.saw([job(1, "WAITING"), job(2, "WAITING")], 4.0) is False


def test_masters_and_subjobs_take_turns_where_both_are_to_be_asked_for() -> None:
    watch = split_in(1)
    watch.sent(200, 1, 1.0)
    asked = [watch.next_question() for _ in range(4)]
    assert asked == [("masters", [200]), ("subjobs", [MASTER])] * 2


def test_a_master_that_could_not_be_split_stands_for_its_pilots() -> None:
    watch = PilotWatch()
    watch.sent(MASTER, 12, 0.0)
    watch.saw([Job(MASTER, 0, "ERROR_SPLT")], 1.0)
    assert watch.samples() == [MASTER]
    watch.told(MASTER, ["20261122 13:00:00 [error     ]: InputData: /a/b is not in the catalogue"])
    assert lines(watch) == [
        "12 pilots ended in ERROR_SPLT (job 100): InputData: /a/b is not in the catalogue"
    ]
    assert watch.next_question() == ("subjobs", [])
    assert watch.over()


def test_a_master_that_is_done_before_it_is_asked_for_says_nothing_of_its_pilots() -> None:
    watch = PilotWatch()
    watch.sent(MASTER, 2, 0.0)
    watch.saw([Job(MASTER, 0, "DONE")], 1.0)
    assert not watch.over()
    assert watch.samples() == []
    assert watch.next_question() == ("subjobs", [MASTER])
    watch.saw([job(1, "ERROR_E"), job(2, "ERROR_E")], 2.0)
    assert watch.over()
    assert lines(watch) == ["2 pilots at CERN ended in ERROR_E (jobs 1, 2)"]


def test_a_master_that_was_killed_before_it_was_split_is_over() -> None:
    watch = PilotWatch()
    watch.sent(MASTER, 2, 0.0)
    watch.saw([Job(MASTER, 0, "KILLED")], 1.0)
    assert watch.over()
    assert lines(watch) == ["2 pilots ended in KILLED (job 100)"]


def test_jobs_of_another_process_are_taken_over() -> None:
    watch = PilotWatch()
    watch.adopted([MASTER, MASTER])
    assert watch.next_question() == ("subjobs", [MASTER])
    assert not watch.over()
    watch.saw([job(1, "RUNNING")], 0.0)
    assert watch.coming()


# ---------------------------------------------------------------- what is told


def test_failures_are_grouped_by_site_and_state_with_one_trace_each() -> None:
    watch = split_in(6)
    watch.saw([job(id, "ERROR_E") for id in (1, 2, 3)], 1.0)
    watch.saw([job(4, "ERROR_E", "FZK"), job(5, "ERROR_SV", "FZK")], 2.0)
    asked = watch.samples()
    assert len(asked) == 3
    for id in asked:
        watch.told(id, [f"20261122 13:00:00 [error     ]: no disk at {'CERN' if id < 4 else 'FZK'}"])
    assert watch.samples() == []
    assert lines(watch) == [
        "3 pilots at CERN ended in ERROR_E (jobs 1, 2, 3): no disk at CERN",
        "1 pilot at FZK ended in ERROR_E (job 4): no disk at FZK",
        "1 pilot at FZK ended in ERROR_SV (job 5): no disk at FZK",
        "1 pilot WAITING (job 6)",
    ]


def test_a_summary_says_what_waits_runs_has_registered_and_failed_where() -> None:
    watch = split_in(7)
    watch.saw([job(1, "RUNNING"), job(2, "STARTED"), job(3, "ASSIGNED", "FZK", ""), job(4, "ERROR_E")], 1.0)
    watch.registered([payload(1)])
    watch.told(4, ["[error     ]: no ROOT"])
    assert watch.summary() == (
        "3 waiting; CERN: 1 registered, 1 running, 1 failed (ERROR_E no ROOT); FZK: 1 running"
    )


def test_a_pilot_that_is_done_without_having_registered_has_failed() -> None:
    watch = split_in(2)
    watch.registered([payload(2, state="left", reason="its time is over")])
    watch.saw([job(1, "DONE"), job(2, "DONE")], 1.0)
    assert watch.samples() == [1]
    assert lines(watch)[0] == "1 pilot at CERN ended in DONE (job 1)"
    assert "left, its time is over at the ProxyServer" in lines(watch)[1]


def test_few_traces_are_asked_for_however_many_ways_there_are_to_fail() -> None:
    watch = split_in(100)
    watch.saw([job(id, "ERROR_E", f"SITE{id}") for id in range(1, 101)], 1.0)
    asked = watch.samples()
    for id in asked:
        watch.told(id, [])
    assert len(asked) == 12
    assert watch.samples() == []


def test_the_last_words_are_the_pilots_own_else_errors_else_what_came_last() -> None:
    state = "20261122 13:35:26 [state     ]: Job state transition from RUNNING to ERROR_E"
    ours = "20261122 13:35:26 [trace     ]: gridproof pilot: no ROOT 6.40 here"
    error = "20261122 13:35:26 [error     ]: disk full"
    exit_code = "20261122 13:35:26 [trace     ]: Warning: executable exit code was 83"
    other = "20261122 13:35:26 [trace     ]: Cleaning up after execution..."
    assert last_words([error, ours, other, state]) == "no ROOT 6.40 here"
    assert last_words([error, other, state]) == "disk full"
    assert last_words([exit_code, other, state]) == "Warning: executable exit code was 83"
    started = "20261122 13:35:26 [trace     ]: Starting execution"
    saved = "20261122 13:35:26 [trace     ]: /local/x/recycle/log_archive.zip: uploaded as requested"
    default = "20261122 13:35:26 [trace     ]: No output given for ERROR_E in JDL. Defaulting to std*"
    assert last_words([other, started, exit_code, default, saved]) == "Warning: executable exit code was 83"
    assert last_words([other, "[trace     ]: ERROR: /local/a: gone", saved]) == "ERROR: /local/a: gone"
    assert last_words(["no stamp", ""]) == "no stamp"
    assert last_words([other, "[trace     ]: Starting execution, pid 5", state]) == ""
    assert last_words([]) == ""


def test_a_recorded_trace_of_a_real_agent_is_read() -> None:
    exchanges = (Path(__file__).parent / "alien" / "captures.jsonl").read_text().splitlines()
    rows = [row for line in exchanges for row in json.loads(line)["response"]["results"] if "trace" in row]
    words = last_words(rows[0]["trace"].splitlines())
    assert words.endswith("t1/o/out.txt: uploaded as requested")
    assert "[" not in words


def test_a_lost_pilot_may_come_back_while_its_job_runs() -> None:
    watch = split_in(1)
    watch.saw([job(1, "RUNNING")], 1.0)
    watch.registered([payload(1, "it", "lost", reason="no heartbeat")])
    assert watch.coming()
    watch.saw([job(1, "DONE")], 2.0)
    assert not watch.coming()


# ---------------------------------------------------------------- runs


def test_a_killed_and_resubmitted_pilot_is_told_from_its_former_payload() -> None:
    watch = split_in(1)
    watch.saw([job(1, "RUNNING")], 1.0)
    watch.registered([payload(1, "old")])
    assert not watch.coming()
    watch.saw([job(1, "KILLED")], 2.0)
    assert not watch.over()  # its payload lives on until the agent's next report
    watch.saw([job(1, "WAITING")], 3.0)
    assert watch.coming()  # though the old payload still is connected
    watch.saw([job(1, "RUNNING")], 4.0)
    assert lines(watch) == ["1 pilot at CERN RUNNING (run 2; job 1)"]
    watch.registered([payload(1, "old", "left", reason="a newer payload"), payload(1, "new")])
    assert lines(watch) == ["1 pilot at CERN RUNNING (run 2; ready at the ProxyServer; job 1)"]
    assert not watch.coming()


@pytest.mark.parametrize(
    "between", [["KILLED"], ["ERROR_IB"], ["ERROR_IB", "WAITING"], ["WAITING"], ["EXPIRED", "WAITING"]]
)
def test_whatever_was_missed_between_two_polls_a_second_run_is_seen(between: list[str]) -> None:
    watch = split_in(1)
    for now, status in enumerate(["RUNNING", *between, "RUNNING"]):
        watch.saw([job(1, status)], float(now))
    assert watch.groups()[0].run == 2


def test_a_job_that_runs_on_another_node_all_at_once_runs_anew() -> None:
    watch = split_in(1)
    watch.saw([job(1, "RUNNING", node="wn1")], 1.0)
    watch.saw([job(1, "RUNNING", node="wn2")], 2.0)
    assert watch.groups()[0].run == 2


def test_what_alien_tries_again_is_waited_for_but_not_for_ever() -> None:
    watch = split_in(1)
    watch.saw([job(1, "ERROR_IB")], 10.0)
    assert watch.samples() == [1]
    watch.told(1, ["[error     ]: no such package"])
    assert lines(watch) == ["1 pilot at CERN ERROR_IB (job 1): no such package"]
    watch.saw([job(1, "ERROR_IB")], 10.0 + RETRY_PATIENCE - 1)
    assert not watch.over()
    watch.saw([job(1, "ERROR_IB")], 10.0 + RETRY_PATIENCE)
    assert watch.over()
    watch.saw([job(1, "WAITING")], 1000.0)
    assert not watch.over()


def test_a_zombie_may_come_back_until_it_expires() -> None:
    watch = split_in(1)
    watch.saw([job(1, "ZOMBIE")], 1.0)
    assert not watch.over()
    watch.saw([job(1, "RUNNING")], 2.0)
    assert watch.groups()[0].run == 1
    watch.saw([job(1, "ZOMBIE")], 3.0)
    watch.saw([job(1, "EXPIRED")], 4.0)
    assert watch.over()


# ---------------------------------------------------------------- sites left out, replacements


def failing(ids: Iterable[int], site: str = "CERN") -> list[Job]:
    return [job(id, "ERROR_E", site) for id in ids]


def test_a_site_where_pilots_die_young_is_left_out_for_a_while() -> None:
    watch = split_in(10)
    watch.saw([job(id, "RUNNING") for id in range(1, 11)], 0.0)
    watch.saw(failing(range(1, YOUNG_DEATHS)), 10.0)
    assert watch.left_out(10.0) == frozenset()
    watch.saw(failing([YOUNG_DEATHS]), 20.0)
    assert watch.left_out(20.0) == {"CERN"}
    assert watch.left_out(20.0 + LEFT_OUT) == frozenset()


def test_a_site_is_left_out_when_all_its_pilots_died_however_few() -> None:
    watch = split_in(2)
    watch.saw([job(1, "ERROR_E"), job(2, "RUNNING", "FZK")], 1.0)
    assert watch.left_out(1.0) == {"CERN"}


def test_a_site_where_a_pilot_registers_is_not_left_out() -> None:
    watch = split_in(10)
    watch.saw([job(10, "RUNNING"), *failing([1, 2])], 1.0)
    watch.registered([payload(10)])
    watch.saw(failing([3, 4]), 2.0)
    assert watch.left_out(2.0) == frozenset()


def test_pilots_that_die_old_are_not_held_against_their_site() -> None:
    watch = split_in(4)
    watch.saw([job(id, "RUNNING") for id in range(1, 5)], 0.0)
    watch.registered([payload(id) for id in range(1, 5)])
    watch.registered([payload(id, state="lost") for id in range(1, 5)])
    watch.saw(failing([1, 2, 3]), YOUNG)
    assert watch.left_out(YOUNG) == frozenset()


def test_failed_pilots_are_replaced_once_the_pilot_has_proved_sound_somewhere() -> None:
    watch = split_in(4)
    watch.saw([*failing([1, 2]), job(3, "RUNNING", "FZK")], 1.0)
    assert watch.take_replacements(1.0) == 0
    watch.registered([payload(3, site="FZK")])
    assert watch.take_replacements(2.0) == 2
    watch.sent(200, 2, 2.0, instead=True)
    watch.saw([Job(11, 200, "ERROR_E", "ALICE::FZK::CE", "wn")], 3.0)
    assert watch.take_replacements(3.0) == 0  # not so fast
    assert watch.take_replacements(2.0 + REPLACE_EVERY) == 1


def test_when_all_pilots_fail_it_is_over_at_once() -> None:
    watch = split_in(3)
    watch.saw(failing([1, 2]), 1.0)
    assert not watch.over()
    watch.saw(failing([3], "FZK"), 1.0)
    assert watch.over()
    assert watch.take_replacements(1.0) == 0


def test_it_is_not_over_while_failed_pilots_may_be_replaced() -> None:
    watch = split_in(2)
    watch.registered([payload(1)])
    watch.registered([payload(1, state="lost")])
    watch.saw(failing([1, 2]), 1.0)
    assert not watch.over()
    watch.sent(200, 2, 1.0, instead=True)
    watch.saw([Job(id, 200, "ERROR_E", "ALICE::CERN::CE", "wn") for id in (11, 12)], 2.0)
    assert watch.over()


class Storm(RuleBasedStateMachine):
    """Whatever pilots do, what is submitted, asked and told stays within bounds."""

    WANTED = 8

    def __init__(self) -> None:
        super().__init__()
        self.watch = PilotWatch()
        self.watch.sent(MASTER, self.WANTED, 0.0)
        self.now = 0.0
        self.submitted = 0
        self.traces = 0
        self.jobs = dict.fromkeys(range(1, self.WANTED + 1), MASTER)

    @rule(
        data=st.data(),
        status=st.sampled_from(STATES),
        site=st.sampled_from(["CERN", "FZK", "SARA"]),
    )
    def changes(self, data: st.DataObject, status: str, site: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        self.watch.saw([Job(id, self.jobs[id], status, f"A::{site}::CE", "wn")], self.now)

    @rule(data=st.data(), state=st.sampled_from(["ready", "lost", "left"]))
    def registers(self, data: st.DataObject, state: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        self.watch.registered([payload(id, data.draw(st.sampled_from("ab")), state)])

    @rule(seconds=st.sampled_from([1.0, 40.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def replaces(self) -> None:
        if count := self.watch.take_replacements(self.now):
            self.submitted += count
            self.watch.sent(1000 + self.submitted, count, self.now, instead=True)
            self.jobs |= {2000 + self.submitted * 10 + n: 1000 + self.submitted for n in range(count)}
            assert self.watch.take_replacements(self.now) == 0

    @rule()
    def asks(self) -> None:
        self.traces += len(asked := self.watch.samples())
        for id in asked:
            self.watch.told(id, ["gone"])
        what, ids = self.watch.next_question()
        assert what in ("masters", "subjobs")
        assert set(ids) <= set(self.watch.masters)

    @invariant()
    def all_stays_within_bounds(self) -> None:
        assert self.submitted <= self.WANTED
        assert self.traces <= 12
        assert sum(group.count for group in self.watch.groups()) <= 3 * self.WANTED
        assert not (self.watch.over() and self.watch.coming())
        assert self.watch.summary().count("\n") == 0


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
