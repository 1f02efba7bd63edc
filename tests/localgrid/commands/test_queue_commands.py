"""The queue's commands on a Grid without agents: kill, resubmit, masterjob, registerOutput, jobListMatch."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.catalogue.entries import Booking
from gridproof.localgrid.jobs import state
from tests.localgrid.offline import Offline

SCRIPT = "/local/job.sh"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Offline]:
    offline = Offline(tmp_path_factory.mktemp("grid"))
    booking = Booking("", SCRIPT, "guid-script", "Local::Site1::SE", "gridproof")
    offline.catalogue.commit(booking, size=1, md5="", perm="755", now_ms=0)
    yield offline
    offline.close()


def submit(grid: Offline, text: str = "") -> int:
    return int(grid.rows("submit", f'Executable = "{SCRIPT}"; {text}')[0]["jobId"])


def others(grid: Offline) -> int:
    """A job of another user."""
    return grid.core.queue.submit(grid.core.queue.jdl(submit(grid)), "guest", 0.0).id


def status(grid: Offline, job_id: int) -> str:
    job = grid.core.queue.get(job_id)
    assert job
    return job.status


def walk(grid: Offline, job_id: int, *states: str) -> None:
    queue = grid.core.queue
    queue.assign(job_id, grid.core.sites[0], "node", time.time())
    for one in states:
        queue.move(job_id, one, time.time())


def failure(answer: dict[str, Any]) -> tuple[str, str]:
    metadata = answer["metadata"]
    return metadata["exitcode"], metadata["error"].partition(" : ")[2]


def said(answer: dict[str, Any]) -> str:
    return "\n".join(row["message"] for row in answer["results"])


def test_a_job_is_stored_before_anybody_is_told_of_it(grid: Offline) -> None:
    request = json.dumps({"command": "submit", "options": [f'Executable = "{SCRIPT}";']})

    async def told_and_stored() -> tuple[int, set[int]]:
        answer = await grid.service.answer(grid.caller, request)
        return int(answer["results"][0]["jobId"]), {job.id for job in grid.store.load()}

    told, stored = grid.loop.run_until_complete(told_and_stored())
    assert told in stored


def test_kill_takes_lists_of_jobs_and_says_of_each_what_became_of_it(grid: Offline) -> None:
    one, two, done, foreign = submit(grid), submit(grid), submit(grid), others(grid)
    walk(grid, done, state.STARTED, state.RUNNING, state.SAVING, state.DONE)
    rows = grid.rows("kill", f"{one},{two}", str(done), "7", str(foreign))
    assert [(row["jobid"], row["status"]) for row in rows] == [
        (str(one), "killed"),
        (str(two), "killed"),
        (str(done), "killed"),
        (str(foreign), "not_allowed"),
    ]
    assert [status(grid, job) for job in (one, two, done, foreign)] == [*["KILLED"] * 3, "INSERTING"]


def test_a_running_job_is_killed_at_once_but_its_agent_hears_of_it_at_its_report(grid: Offline) -> None:
    job_id = submit(grid)
    walk(grid, job_id, state.STARTED, state.RUNNING)
    held = grid.core.queue.get(job_id)
    assert held
    assert grid.core.report(held)
    grid.rows("kill", str(job_id))
    assert status(grid, job_id) == "KILLED"
    assert not grid.core.report(held)
    grid.rows("resubmit", str(job_id))
    walk(grid, job_id, state.STARTED, state.RUNNING)
    again = grid.core.queue.get(job_id)
    assert again
    assert grid.core.report(again)
    assert not grid.core.report(held)  # the copy that is still running


def test_a_machine_that_was_suspended_takes_no_agent_for_dead(
    grid: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(grid)
    walk(grid, job_id, state.STARTED, state.RUNNING)
    later = time.time() + 8 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    grid.core.tick()
    assert status(grid, job_id) == "RUNNING"
    monkeypatch.setattr(time, "time", lambda: later + 59)
    grid.core.tick()
    assert status(grid, job_id) == "RUNNING"


def test_resubmit_takes_lists_and_the_failure_of_one_is_not_that_of_others(grid: Offline) -> None:
    one, two, foreign = submit(grid), submit(grid), others(grid)
    grid.rows("kill", str(one), str(two))
    answer = grid.ask("resubmit", str(one), str(foreign), str(two))
    assert failure(answer) == ("1", f"Resubmit: not authorized for : {foreign}")
    assert said(answer) == f"Resubmit: back to WAITING: {one}\nResubmit: back to WAITING: {two}"
    assert [status(grid, job) for job in (one, two)] == ["WAITING", "WAITING"]


def test_what_a_former_run_saved_goes_when_a_job_is_resubmitted(grid: Offline) -> None:
    job_id = submit(grid)
    saved, registered = f"/local/run{job_id}/out.txt", f"{grid.user.home}recycle/alien-job-{job_id}/log.txt"
    for lfn in (saved, registered):
        booking = Booking("", lfn, str(uuid.uuid1()), "Local::Site1::SE", "gridproof", job_id)
        grid.catalogue.commit(booking, size=1, md5="", perm="755", now_ms=0)
    grid.rows("resubmit", str(job_id))
    assert grid.catalogue.saved_by(job_id) == [registered]
    assert f"Resubmit: removing output file: {saved}" in grid.rows("ps", "-trace", str(job_id))[0]["trace"]


def test_a_master_is_resubmitted_only_if_it_could_not_be_split(grid: Offline) -> None:
    master, bad = submit(grid, 'Split = "production:1-2";'), submit(grid, 'Split = "lucky";')
    assert (status(grid, master), status(grid, bad)) == ("SPLIT", "ERROR_SPLT")
    assert failure(grid.ask("resubmit", str(master))) == (
        "77",
        f"Resubmit: masterjob is not in an error state itself, will not split it again: {master} / SPLIT",
    )
    assert said(grid.ask("resubmit", str(bad))) == f"Resubmit: back to INSERTING: {bad}"
    assert status(grid, bad) == "ERROR_SPLT"


def test_masterjob_counts_subjobs_by_state_site_and_id(grid: Offline) -> None:
    master = submit(grid, 'Split = "production:1-4";')
    first, second, third, fourth = (job.id for job in grid.core.queue.subjobs(master))
    walk(grid, first, state.STARTED, state.RUNNING)
    grid.core.queue.kill(second, 0.0)

    def lines(*options: str) -> list[str]:
        shown: str = grid.rows("masterjob", str(master), *options)[0]["message"]
        return [line.strip() for line in shown.splitlines()[1:] if line]

    title = "Subjobs aggregated by state:"
    counts = ["Subjobs in RUNNING: 1", "Subjobs in KILLED: 1", "Subjobs in WAITING: 2"]
    assert lines() == [title, *counts, "In total, there are 4 subjobs"]
    assert lines("-status", "WAITING", "-printid") == [
        *(title, f"Subjobs in WAITING: 2 (ids: {third},{fourth})", "In total, there are 2 subjobs")
    ]
    assert lines("-status", "RUNNING,KILLED")[-1] == "In total, there are 2 subjobs"
    assert lines("-site", grid.core.sites[0].ce)[-1] == "In total, there are 1 subjobs"
    assert lines("-id", f"{first},{fourth}")[-1] == "In total, there are 2 subjobs"
    assert f"Subjobs in RUNNING ({grid.core.sites[0].ce}): 1" in lines("-printsite")
    assert lines("-status", "DONE") == []
    both = grid.ask("masterjob", str(master), "7", str(master))
    assert both["metadata"]["error"] == "Could not load the details of 7\n"
    assert f"Job {master} is in status: SPLIT" in said(both)


def test_what_a_failed_job_has_kept_is_registered_once(grid: Offline) -> None:
    job_id, lfn = submit(grid), "/local/out/log.txt"
    walk(grid, job_id, state.STARTED, state.RUNNING, state.SAVING)
    assert failure(grid.ask("registerOutput", str(job_id))) == (
        "22",
        f"Job ID {job_id} is in state SAVING. You can only register ERROR_V jobs (or ERROR_E when"
        " OutputErrorE exists).",
    )
    grid.core.queue.move(job_id, state.ERROR_V, time.time())
    booking = Booking("ticket", lfn, str(uuid.uuid1()), "Local::Site1::SE", "gridproof")
    grid.catalogue.book([booking], 0)
    kept.keep(grid.catalogue, job_id, [booking], 5, "md5", [])
    assert said(grid.ask("registerOutput", str(job_id))) == f"  {lfn}"
    assert grid.rows("stat", lfn)[0]["size"] == "5"
    assert failure(grid.ask("registerOutput", str(job_id)))[0] == "61"


@pytest.mark.parametrize(("argument", "code"), [("7", "3"), ("x", "22"), ("²", "22")])
def test_only_jobs_have_outputs_to_register(grid: Offline, argument: str, code: str) -> None:
    assert failure(grid.ask("registerOutput", argument))[0] == code


def test_neither_masters_nor_the_jobs_of_others_are_registered(grid: Offline) -> None:
    master, foreign = submit(grid, 'Split = "production:1-1";'), others(grid)
    assert "is a masterjob" in failure(grid.ask("registerOutput", str(master)))[1]
    grid.core.queue.optimise(foreign, grid.core.queue.plan(foreign, ()), 0.0)
    walk(grid, foreign, state.STARTED, state.RUNNING, state.ERROR_V)
    assert failure(grid.ask("registerOutput", str(foreign)))[0] == "1"


@pytest.mark.parametrize(
    ("text", "ces"),
    [
        ("", ["LOCAL::SITE1::CE", "LOCAL::SITE2::CE", "UNASSIGNED::SITE"]),
        ('Requirements = other.CE == "Local::Site2::CE";', ["LOCAL::SITE2::CE"]),
        ('Requirements = member(other.CloseSE,"Local::Site1::SE");', ["LOCAL::SITE1::CE"]),
        ('CPUCores = "8";', ["UNASSIGNED::SITE"]),
        ("TTL = 100000;", []),
    ],
)
def test_a_job_lists_the_computing_elements_that_could_run_it(
    grid: Offline, text: str, ces: list[str]
) -> None:
    answer = grid.ask("jobListMatch", str(submit(grid, text)))
    assert [row["ceName"] for row in answer["results"] if "ceName" in row] == ces


def test_a_rejected_submission_says_what_was_submitted_and_why(grid: Offline) -> None:
    answer = grid.ask("submit", 'Executable = "no.sh"; TTL = 5;')
    assert said(answer) == "Submitting the content that you passed to the command"
    assert failure(answer)[0] == "121"
    assert failure(answer)[1].startswith("Task queue rejected your job due to:\n  The Executable name")
