"""How a payload comes to its end before it wants to: kills and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from gridproof.errors import LocalGridError
from gridproof.localgrid import Limits, LocalGrid

# Something that works is not idle, however busy this machine is: it gets a tick in 20 checks.
LIMITS = Limits(
    check_interval=0.05,
    idle_share=0.001,
    idle_checks=20,
    ttl_grace=0.2,
    kill_grace=0.5,
    report_interval=0.1,
    retry_delay=0.02,
)
HOME = "/local/user/g/gproof"
SPIN = "while :; do :; done"


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(sites=1, slots=4, limits=LIMITS) as grid:
        yield grid


def killed_in_error_e(raw, job):
    assert raw.wait(job, "DONE", "ERROR_E") == "ERROR_E"
    trace = raw.trace(job)
    assert "JobWrapper: SIGTERM received. Killing payload and proceeding to upload." in trace
    assert "Payload killed. Executable exit code was" in trace
    return trace


def test_a_killed_payload_lives_and_holds_its_slot_until_its_agent_reports(raw, dial, tmp_path, until):
    end = tmp_path / "end"
    body = tmp_path / "long.sh"
    body.write_text(f"#!/bin/sh\nuntil [ -e {end} ]; do sleep 0.02; done; touch {end}.$ALIEN_PROC_ID\n")
    with (
        LocalGrid(sites=1, slots=1, limits=Limits(report_interval=3600)) as never_reports,
        dial(never_reports.environment) as raw,
    ):
        never_reports.put(body, "/local/long.sh")
        killed = raw.submit('Executable = "/local/long.sh";')
        raw.wait(killed, "RUNNING")
        assert raw.rows("kill", killed)[0]["status"] == "killed"
        assert raw.status(killed) == "KILLED"
        waiting = raw.submit('Executable = "/local/long.sh";')
        raw.wait(waiting, "WAITING")
        end.touch()
        raw.wait(waiting, "DONE")
        assert Path(f"{end}.{killed}").exists()
        assert raw.status(killed) == "KILLED"
        assert "exit" not in raw.trace(killed)


def test_the_agent_of_a_job_that_runs_anew_says_and_saves_nothing_more(raw, script, tmp_path, until):
    once = tmp_path / "once"
    body = f'[ -e {once} ] || {{ touch {once}; trap "exit 0" TERM; {SPIN}; }}; echo second >which'
    out = f"{HOME}/{tmp_path.name}/out"
    job = raw.submit(f'Executable = "{script(body)}"; OutputFile = {{"which@disk=1"}}; OutputDir = "{out}";')
    raw.wait(job, "RUNNING")
    until(once.exists)
    raw.rows("resubmit", job)
    assert raw.wait(job, "DONE", "ERROR_E") == "DONE", raw.trace(job)
    assert raw.rows("cat", f"{out}/which")[0]["message"] == "second"
    assert raw.trace(job).count("Execution completed") == 1


def test_an_idle_payload_is_killed_and_its_logs_are_kept(raw, script):
    job = raw.submit(f'Executable = "{script("echo here; exec sleep 1000")}";')
    trace = killed_in_error_e(raw, job)
    assert "[FATAL]: Monitor has detected an error: CPU time consumed by the payload has been near" in trace
    assert "log_archive.zip: uploaded as requested" in trace


def test_a_payload_that_works_is_not_idle_and_is_killed_when_its_ttl_is_over(raw, script):
    job = raw.submit(f'Executable = "{script(SPIN)}"; TTL = 1;')
    trace = killed_in_error_e(raw, job)
    assert "Killing the job (it was running for longer than its TTL)" in trace
    assert "near zero" not in trace
    ran = re.search(r"real ([\d.]+)", trace)
    assert ran
    assert float(ran[1]) >= 1 + LIMITS.ttl_grace


def test_the_work_of_children_that_have_ended_counts(raw, script):
    children = "for i in $(seq 40); do (n=0; while [ $n -lt 6000 ]; do n=$((n+1)); done); sleep 0.02; done"
    job = raw.submit(f'Executable = "{script(children)}";')
    assert raw.wait(job, "DONE", "ERROR_E") == "DONE", raw.trace(job)


def test_a_payload_that_takes_too_much_memory_is_killed(raw, script):
    body = f"head -c 60000000 /dev/zero | tail | sleep 1000 & {SPIN}"
    job = raw.submit(f'Executable = "{script(body)}"; MemorySize = "30MB";')
    assert "Killing the job (using more than 30 MB memory (right now ~" in killed_in_error_e(raw, job)


def test_a_payload_that_fills_its_directory_is_killed(raw, script):
    body = f"mkdir deep; head -c 3000000 /dev/urandom >deep/file; {SPIN}"
    job = raw.submit(f'Executable = "{script(body)}"; Workdirectorysize = {{"2MB"}};')
    assert "Killing the job (using more than 2MB of diskspace" in killed_in_error_e(raw, job)


def test_a_validation_has_the_same_limits(raw, script):
    payload = script("true", "payload.sh")
    fills = script(f"head -c 3000000 /dev/urandom >file; {SPIN}", "validation.sh")
    job = raw.submit(
        f'Executable = "{payload}"; ValidationCommand = "{fills}"; Workdirectorysize = {{"2MB"}};'
    )
    assert raw.wait(job, "DONE", "ERROR_V", "ERROR_VT") == "ERROR_VT"
    assert "Killing the job (using more than 2MB of diskspace" in raw.trace(job)


def test_a_job_whose_input_does_not_come_runs_eleven_times(grid, raw, script, tmp_path):
    (tmp_path / "data").write_text("x")
    lfn = f"{HOME}/{tmp_path.name}/data"
    grid.put(tmp_path / "data", lfn)
    (stored,) = (grid.root / "se").rglob(raw.rows("stat", lfn)[0]["guid"])
    stored.unlink()
    job = raw.submit(f'Executable = "{script("true")}"; InputFile = {{"LF:{lfn}"}};')
    raw.wait(job, "ERROR_IB")
    assert runs_of(raw, job) == 11


def test_a_job_whose_agents_fail_runs_eleven_times_and_anew_when_it_is_resubmitted(grid, raw, script):
    directory = grid.root / "wn"
    directory.rename(grid.root / "away")
    directory.touch()  # no agent can make a directory in it
    try:
        job = raw.submit(f'Executable = "{script("true")}";')
        raw.wait(job, "ERROR_A")
        assert runs_of(raw, job) == raw.trace(job).count("ERROR: the agent failed") == 11
    finally:
        directory.unlink()
        (grid.root / "away").rename(directory)
    raw.rows("resubmit", job)
    raw.wait(job, "DONE")


def runs_of(raw, job):
    return raw.trace(job).count("Job ASSIGNED to: ")


def test_the_documentation_names_every_limit_and_its_default():
    page = (Path(__file__).parents[2] / "docs" / "embedded-grid-jobs.md").read_text()
    told = re.findall(r"^\| `([a-z_]+)` \| ([\d.]+)", page, re.MULTILINE)
    numbers = {name: value for name, value in asdict(Limits()).items() if isinstance(value, int | float)}
    assert {name: float(value) for name, value in told} == numbers


@pytest.mark.parametrize("wrong", [{"check_interval": 0}, {"report_interval": -1}])
def test_limits_that_cannot_be_are_refused(wrong):
    with pytest.raises(LocalGridError, match=f"The limit {next(iter(wrong))}"):
        Limits(**wrong)
