"""What the jobs of each user take up, and when that is too much to submit more."""

from __future__ import annotations

import pytest

from gridproof.alien.jdl import parse
from gridproof.errors import JdlError
from gridproof.localgrid import Quota
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.ledger import DAY, JobUsage, Ledger, jobs_refused
from gridproof.localgrid.jobs.requirements import Requirements
from gridproof.localgrid.jobs.taskqueue import TaskQueue
from gridproof.localgrid.quotas import Quotas
from gridproof.localgrid.sites import make_sites

SMALL = Quota(max_unfinished_jobs=5, max_running_time=100, max_cpu_cost=200)
TOO_MANY = "Denied: You're trying to submit {} jobs. That exceeds your limit (at the moment,  {}/5)."


@pytest.mark.parametrize(
    ("usage", "jobs", "why"),
    [
        (JobUsage(), 5, ""),
        (JobUsage(), 6, TOO_MANY.format(6, 0)),
        (JobUsage(running=2, waiting=3), 1, TOO_MANY.format(1, 5)),
        (JobUsage(running_time=99.9, cpu_cost=199), 1, ""),
        (JobUsage(running_time=100), 1, "Denied: You have passed your allowed job running time"),
        (JobUsage(cpu_cost=200), 1, "Denied: You have passed your allowed CPU running time"),
    ],
)
def test_jobs_are_refused_in_the_words_of_jalien(usage, jobs, why):
    assert jobs_refused(SMALL, usage, jobs) == why


def job(number, status, started=0.0, finished=0.0, owner="ada"):
    jdl = 'Executable = "/x"; CPUCores = "2"; Price = 3.0;'
    return Job(number, owner, jdl, status, "x", started=started, finished=finished)


NEEDS = Requirements(cores=2, price=3.0)


def test_the_ledger_counts_what_is_there_and_what_has_ended_in_a_day():
    ledger = Ledger()
    steps = [job(1, "WAITING"), job(1, "RUNNING", 10), job(1, "DONE", 10, 30), job(2, "INSERTING")]
    usages = []
    old = None
    for new in steps:
        ledger.note(old if old and old.id == new.id else None, new, lambda _: NEEDS)
        usages.append(ledger.usage("ada", 40.0))
        old = new
    assert usages == [
        JobUsage(waiting=1),
        JobUsage(running=1),
        JobUsage(running_time=40.0, cpu_cost=120.0),
        JobUsage(waiting=1, running_time=40.0, cpu_cost=120.0),
    ]
    assert ledger.usage("ada", 30.0 + DAY) == JobUsage(waiting=1)
    assert ledger.usage("bob", 40.0) == JobUsage()


def test_a_run_counts_once_also_if_its_job_is_killed_or_run_again():
    ledger = Ledger()
    running, done = job(1, "RUNNING", 10), job(1, "DONE", 10, 30)
    ledger.note(running, done, lambda _: NEEDS)
    ledger.note(done, job(1, "KILLED", 10, 50), lambda _: NEEDS)
    ledger.note(job(1, "KILLED", 10, 50), job(1, "WAITING"), lambda _: NEEDS)
    assert ledger.usage("ada", 60.0) == JobUsage(waiting=1, running_time=40.0, cpu_cost=120.0)


def test_what_a_former_service_has_run_counts():
    ledger = Ledger()
    for former in (job(1, "DONE", 10, 30), job(2, "ERROR_E", 10, 20), job(3, "DONE"), job(4, "SPLIT")):
        ledger.remember(former)
    assert ledger.usage("ada", 25.0 + DAY) == JobUsage(running_time=40.0, cpu_cost=120.0)


def queue_of(quota):
    return TaskQueue(quotas=Quotas({"ada": quota}))


def test_a_job_beyond_the_quota_is_not_inserted():
    queue = queue_of(SMALL)
    for _ in range(5):
        queue.submit(parse('Executable = "/x";'), "ada", 0.0)
    with pytest.raises(JdlError, match=r"exceeds your limit \(at the moment,  5/5\)"):
        queue.submit(parse('Executable = "/x";'), "ada", 0.0)
    queue.submit(parse('Executable = "/x";'), "bob", 0.0)
    queue.kill(queue.jobs()[0].id, 1.0)
    queue.submit(parse('Executable = "/x";'), "ada", 2.0)


def test_a_master_counts_as_its_subjobs():
    queue = queue_of(SMALL)
    production = 'Executable = "/x"; Split = "production:1-{}";'
    with pytest.raises(JdlError, match="submit 6 jobs"):
        queue.submit(parse(production.format(6)), "ada", 0.0)
    master = queue.submit(parse(production.format(5)), "ada", 0.0)
    queue.optimise(master.id, queue.plan(master.id, ()), 0.0)
    assert queue.get(master.id).status == "SPLIT"
    assert queue.usage("ada", 0.0) == JobUsage(waiting=5)


def test_a_master_whose_subjobs_are_too_many_when_it_is_split_is_rejected():
    queue = queue_of(SMALL)
    master = queue.submit(parse('Executable = "/x"; Split = "production:1-4";'), "ada", 0.0)
    for _ in range(2):
        queue.submit(parse('Executable = "/x";'), "ada", 0.0)
    queue.optimise(master.id, queue.plan(master.id, ()), 0.0)
    assert queue.get(master.id).status == "ERROR_SPLT"
    assert TOO_MANY.format(4, 2) in "\n".join(line.text for line in queue.take_changes().trace)


def test_cpu_time_beyond_the_quota_stops_submission_for_a_day():
    queue, site = queue_of(SMALL), make_sites(1, 1, 1)[0]
    submitted = queue.submit(parse('Executable = "/x";'), "ada", 0.0)
    queue.optimise(submitted.id, queue.plan(submitted.id, ()), 0.0)
    queue.assign(submitted.id, site, "node", 0.0)
    for at, status in (1.0, "STARTED"), (1.0, "RUNNING"), (101.0, "SAVING"), (101.0, "DONE"):
        queue.move(submitted.id, status, at)
    assert queue.refusal("ada", 1, 102.0) == "Denied: You have passed your allowed job running time"
    assert queue.refusal("ada", 1, 101.0 + DAY) == ""
