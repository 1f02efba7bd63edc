"""The task queue as a pure machine: whatever happens in whatever order, its jobs stay legal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gridproof.alien.jdl import Jdl, parse
from gridproof.errors import JdlError
from gridproof.localgrid.jobs import state
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.requirements import Requirements, read_requirements
from gridproof.localgrid.jobs.splitting import Located, input_lfn
from gridproof.localgrid.jobs.store import JobStore
from gridproof.localgrid.jobs.taskqueue import IllegalTransition, TaskQueue
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.sites import Site, Slot, make_sites

SITES = make_sites(3, 2, 1)
ROOT = "VO_LOCAL@ROOT::v6-40-00"
SLOTS = [Slot(site, disk=20_000, packages=frozenset({ROOT})) for site in SITES]
LIMITS = Limits()
FILES = {
    "/local/a": ("Local::Site1::SE",),
    "/local/b": ("Local::Site2::SE",),
    "/local/c": ("Local::Site1::SE", "Local::Site2::SE"),
}


def jdl(text: str = "") -> Jdl:
    return parse(f'Executable = "/local/job.sh"; {text}')


def optimise(queue: TaskQueue, job_id: int, files: dict[str, tuple[str, ...]], now: float) -> None:
    entries = queue.jdl(job_id).strings("InputData")
    try:
        located = [Located(entry, 1, files[input_lfn(entry)]) for entry in entries]
        queue.optimise(job_id, queue.plan(job_id, located), now)
    except KeyError as missing:
        queue.reject(job_id, f"{missing} is not there", now)
    except JdlError as error:
        queue.reject(job_id, str(error), now)


def submitted(queue: TaskQueue, text: str = "", now: float = 0.0) -> Job:
    job = queue.submit(jdl(text), "gridproof", now)
    optimise(queue, job.id, FILES, now)
    found = queue.get(job.id)
    assert found
    return found


def run_to(queue: TaskQueue, job: Job, last: str, site: Site = SITES[0], now: float = 1.0) -> None:
    queue.assign(job.id, site, "node", now)
    for step in (state.STARTED, state.RUNNING, state.SAVING, state.DONE):
        queue.move(job.id, step, now)
        if step == last:
            return


def texts(queue: TaskQueue, job_id: int) -> list[str]:
    return [line.text for line in queue.take_changes().trace if line.job == job_id]


def test_a_job_walks_the_states_of_jalien_and_its_trace_tells() -> None:
    queue = TaskQueue()
    job = submitted(queue)
    run_to(queue, job, state.DONE)
    assert texts(queue, job.id) == [
        "Job inserted by localhost, request came from localhost",
        "Job state transition to INSERTING",
        "Job state transition from INSERTING to WAITING",
        "Job ASSIGNED to: Local::Site1::CE",
        "Job state transition from ASSIGNED to STARTED",
        "Job state transition from STARTED to RUNNING",
        "Job state transition from RUNNING to SAVING",
        "Job state transition from SAVING to DONE",
    ]


@pytest.mark.parametrize(
    "text", ['TTL = "soon";', 'Priority = "high";', 'MaxWaitingTime = "a day";', 'CPUCores = "-1";']
)
def test_a_number_that_cannot_be_read_is_as_good_as_none(text: str) -> None:
    assert read_requirements(jdl(text)) == Requirements()


def test_a_jdl_that_could_not_be_read_again_is_refused_at_submission() -> None:
    queue = TaskQueue()
    with pytest.raises(JdlError, match="a character that is none"):
        queue.submit(jdl('Arguments = "\ud800";'), "gridproof", 0.0)
    assert queue.jobs() == []


def test_production_makes_subjobs_with_counters_and_their_master_is_done_when_all_are_final() -> None:
    queue = TaskQueue()
    master = submitted(queue, 'Split = "production:1-3"; OutputDir = "/o/#alien_counter_03i#";')
    assert master.status == state.SPLIT
    subjobs = queue.subjobs(master.id)
    assert [queue.jdl(sub.id)["OutputDir"] for sub in subjobs] == ["/o/001", "/o/002", "/o/003"]
    assert {sub.status for sub in subjobs} == {state.WAITING}
    run_to(queue, subjobs[0], state.DONE)
    run_to(queue, subjobs[1], state.RUNNING)
    queue.move(subjobs[1].id, state.ERROR_E, 2.0)
    assert queue.get(master.id).status == state.SPLIT  # type: ignore[union-attr]
    queue.kill(subjobs[2].id, 3.0)
    assert queue.get(master.id).status == state.DONE  # type: ignore[union-attr]


def test_killing_a_master_kills_its_subjobs() -> None:
    queue = TaskQueue()
    master = submitted(queue, 'Split = "production:1-3";')
    first, *_ = queue.subjobs(master.id)
    run_to(queue, first, state.RUNNING)
    queue.kill(master.id, 2.0)
    assert {job.status for job in queue.jobs()} == {state.KILLED}


def test_a_resubmitted_subjob_takes_its_master_back_to_split() -> None:
    queue = TaskQueue()
    master = submitted(queue, 'Split = "production:1-1";')
    (sub,) = queue.subjobs(master.id)
    queue.kill(sub.id, 1.0)
    assert queue.get(master.id).status == state.DONE  # type: ignore[union-attr]
    with pytest.raises(IllegalTransition):
        queue.resubmit(master.id, 1.5)
    queue.resubmit(sub.id, 2.0)
    assert queue.get(master.id).status == state.SPLIT  # type: ignore[union-attr]
    queue.kill(master.id, 3.0)
    assert {job.status for job in queue.jobs()} == {state.KILLED}
    queue.resubmit(sub.id, 4.0)
    assert queue.get(master.id).status == state.SPLIT  # type: ignore[union-attr]


def test_a_running_job_that_is_resubmitted_loses_its_slot_and_may_run_twice() -> None:
    queue = TaskQueue()
    job = submitted(queue)
    run_to(queue, job, state.RUNNING)
    first = queue.get(job.id)
    assert first
    waits = queue.resubmit(job.id, 2.0)
    assert (waits.status, waits.site, waits.started) == (state.WAITING, "", 0.0)
    second = queue.assign(job.id, SITES[1], "node", 3.0)
    assert (first.id, first.run + 1) == (second.id, second.run)


def test_a_job_that_has_ended_may_be_killed_and_a_killed_one_is_left_alone() -> None:
    queue = TaskQueue()
    job = submitted(queue)
    run_to(queue, job, state.DONE)
    texts(queue, job.id)
    queue.kill(job.id, 2.0)
    queue.kill(job.id, 3.0)
    assert texts(queue, job.id) == ["Job state transition from DONE to KILLED"]


def test_what_could_not_be_split_is_split_when_it_is_resubmitted() -> None:
    queue, files = TaskQueue(), dict(FILES)
    text = 'Split = "file"; InputData = {"LF:/local/late,nodownload"};'
    master = submitted(queue, text)
    assert master.status == state.ERROR_SPLT
    files["/local/late"] = ("Local::Site1::SE",)
    assert queue.resubmit(master.id, 1.0).status == state.INSERTING
    optimise(queue, master.id, files, 2.0)
    assert queue.get(master.id).status == state.SPLIT  # type: ignore[union-attr]
    assert len(queue.subjobs(master.id)) == 1


@pytest.mark.parametrize("failure", [state.ERROR_IB, state.ERROR_A])
def test_a_failure_before_the_payload_is_tried_again_ten_times_and_then_no_more(failure: str) -> None:
    queue = TaskQueue()
    job = submitted(queue)
    now = 1.0
    for _ in range(LIMITS.retries):
        run_to(queue, job, state.STARTED, now=now)
        queue.move(job.id, failure, now)
        assert queue.get(job.id).status == state.WAITING  # type: ignore[union-attr]
        assert queue.match(SLOTS[0], now) is None
        now = queue.next_due() or 0.0
        assert queue.match(SLOTS[0], now)
    run_to(queue, job, state.STARTED, now=now)
    queue.move(job.id, failure, now)
    assert queue.get(job.id).status == failure  # type: ignore[union-attr]
    assert now == pytest.approx(1.0 + LIMITS.retries * LIMITS.retry_delay)
    queue.resubmit(job.id, now)
    run_to(queue, job, state.STARTED, now=now)
    queue.move(job.id, state.ERROR_IB, now)
    assert queue.get(job.id).status == state.WAITING  # type: ignore[union-attr]


def test_the_broker_takes_priority_first_then_price_then_age() -> None:
    queue = TaskQueue()
    texts = ("", "Price = 2.0;", "", "Priority = 5;")
    jobs = [submitted(queue, text) for text in texts]
    order = []
    while job := queue.match(SLOTS[0], 1.0):
        order.append(jobs.index(queue.get(job.id)))  # type: ignore[arg-type]
        queue.assign(job.id, SITES[0], "node", 1.0)
    assert order == [3, 1, 0, 2]


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("", [1, 2, 3]),
        ('Requirements = member(other.CloseSE,"LOCAL::SITE2::SE");', [2]),
        ('Requirements = member(other.CloseSE,"Local::Site2::SE") || other.Nonsense > 5;', [2]),
        ('Requirements = other.CE == "Local::Site3::CE" && other.CE == "Local::Site1::CE";', [1, 3]),
        ('Requirements = !other.CE == "Local::Site3::CE";', [1, 2]),
        ('Requirements = member(other.CloseSE,"Local::Site2::SE") && other.CE == "Local::Site3::CE";', []),
        ("TTL = 86999;", [1, 2, 3]),
        ("TTL = 87000;", []),  # a slot must last longer
        ("TTL = 100000; Requirements = other.TTL > 600;", [1, 2, 3]),
        ('Workdirectorysize = {"30GB"};', [1, 2, 3]),  # more than may be asked for
        ('Workdirectorysize = {"20GB"};', []),
        ('Workdirectorysize = {"20000MB"};', []),  # there must be more
        ('Workdirectorysize = {"19999MB"};', [1, 2, 3]),
        (f'Requirements = member(other.Packages,"{ROOT}");', [1, 2, 3]),
        ('Requirements = member(other.Packages,"VO_LOCAL@ROOT::v5");', []),
        ('CPUCores = "2";', []),
        ('InputData = {"LF:/local/b,nodownload"};', [2]),
        ('InputData = {"LF:/local/b", "LF:/local/c"};', [2]),
        ('InputData = {"LF:/local/a", "LF:/local/b"};', [1, 2]),
    ],
)
def test_a_job_goes_only_where_its_requirements_allow(text: str, sites: list[int]) -> None:
    queue = TaskQueue()
    submitted(queue, text)
    assert [slot.site.number for slot in SLOTS if queue.match(slot, 1.0)] == sites


@pytest.mark.parametrize(
    "text",
    [
        'Requirements = !member(other.CloseSE,"Local::Site2::SE");',  # there is nothing to take it away from
        'Requirements = member( other.CloseSE, "Local::Site2::SE" );',
        'Requirements = member(other.closese,"Local::Site2::SE");',
        'Requirements = other.CE != "Local::Site3::CE";',
        'Requirements = {member(other.CloseSE,"Local::Site2::SE")};',
    ],
)
def test_requirements_that_jalien_does_not_read_bind_a_job_to_nothing(text: str) -> None:
    queue = TaskQueue()
    submitted(queue, text)
    assert all(queue.match(slot, 1.0) for slot in SLOTS)


@pytest.mark.parametrize(
    ("text", "end", "why"),
    [
        ('Split = "file"; InputData = {"LF:/local/none"};', state.ERROR_SPLT, "'/local/none' is not there"),
        ('Split = "userdefined";', state.ERROR_SPLT, "'userdefined' is not known here"),
        ('Split = "production:1-99999";', state.ERROR_SPLT, "99999 subjobs, 10000 are allowed"),
        ('InputData = {"LF:/local/none"};', state.ERROR_I, "'/local/none' is not there"),
    ],
)
def test_what_cannot_be_optimised_ends_in_an_error_state_with_the_reason(
    text: str, end: str, why: str
) -> None:
    queue = TaskQueue()
    job = submitted(queue, text)
    assert job.status == end
    assert why in "\n".join(texts(queue, job.id))
    assert not queue.subjobs(job.id)


def test_without_heartbeat_a_job_becomes_a_zombie_and_then_expires() -> None:
    queue = TaskQueue(limits=Limits(zombie_after=100.0, expired_after=50.0))
    silent, lively = submitted(queue), submitted(queue)
    for job in (silent, lively):
        run_to(queue, job, state.RUNNING, now=0.0)
    queue.heartbeat(lively.id, 100.0)
    found = []
    for now in (100.0, 101.0, 151.0, 152.0):
        queue.tick(now)
        found.append(queue.get(silent.id).status)  # type: ignore[union-attr]
    assert found == [state.RUNNING, state.ZOMBIE, state.ZOMBIE, state.EXPIRED]
    assert queue.get(lively.id).status == state.RUNNING  # type: ignore[union-attr]


@pytest.mark.parametrize("last", [state.STARTED, state.RUNNING, state.SAVING])
def test_a_zombie_that_reports_goes_on_where_it_was(last: str) -> None:
    queue = TaskQueue()
    job = submitted(queue)
    run_to(queue, job, last, now=0.0)
    queue.tick(LIMITS.zombie_after + 1)
    assert queue.get(job.id).status == state.ZOMBIE  # type: ignore[union-attr]
    queue.heartbeat(job.id, LIMITS.zombie_after + 2)
    assert queue.get(job.id).status == last  # type: ignore[union-attr]
    assert texts(queue, job.id)[-1] == f"Job state transition from ZOMBIE to {last}"


@pytest.mark.parametrize("text", ["MaxWaitingTime = 60;", 'MaxWaitingTime = "1m";'])
def test_a_job_that_waits_too_long_ends_in_error_ew(text: str) -> None:
    queue = TaskQueue()
    job = submitted(queue, text)
    queue.tick(59.0)
    assert queue.get(job.id).status == state.WAITING  # type: ignore[union-attr]
    queue.tick(61.0)
    assert queue.get(job.id).status == state.ERROR_EW  # type: ignore[union-attr]
    assert "to ERROR_EW, stayed in the queue longer than MaxWaitingTime" in texts(queue, job.id)[-1]


def test_a_restart_forgets_nothing_and_says_what_it_did(tmp_path: Path) -> None:
    queue = TaskQueue()
    jobs = [submitted(queue) for _ in range(4)]
    run_to(queue, jobs[1], state.STARTED)
    run_to(queue, jobs[2], state.RUNNING)
    run_to(queue, jobs[3], state.DONE)
    store = JobStore(tmp_path / "jobs.db")
    store.save(queue.take_changes())
    store.close()

    store = JobStore(tmp_path / "jobs.db")
    anew = TaskQueue(store.load())
    assert anew.jobs() == queue.jobs()
    anew.recover(5.0)
    store.save(anew.take_changes())
    assert [job.status for job in anew.jobs()] == ["WAITING", "WAITING", "ERROR_E", "DONE"]
    assert any("started anew" in line.text for line in store.trace(jobs[2].id))
    assert submitted(anew).id == jobs[-1].id + 1
    store.close()


def test_whatever_a_trace_is_told_can_be_stored_and_shown(tmp_path: Path) -> None:
    queue, store = TaskQueue(), JobStore(tmp_path / "jobs.db")
    job = submitted(queue)
    queue.trace(job.id, 1.0, "trace", "caf\udce9\tcaf\u00e9 \x1b[31m")  # the first is a name that is no UTF-8
    store.save(queue.take_changes())
    assert store.trace(job.id)[-1].text == "caf\\udce9\tcaf\u00e9 \\x1b[31m"
    store.close()


def test_what_could_not_be_stored_is_stored_the_next_time() -> None:
    queue = TaskQueue()
    job = submitted(queue)
    lost = queue.take_changes()
    run_to(queue, job, state.STARTED)
    queue.put_back(lost)
    changes = queue.take_changes()
    assert [j.status for j in changes.jobs] == [state.STARTED]
    assert [line.text for line in changes.trace][:2] == [line.text for line in lost.trace][:2]


class QueueMachine(RuleBasedStateMachine):
    """Random lives of jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TaskQueue()
        self.now = 0.0
        self.stored: dict[int, Job] = {}

    def pick(self, number: int) -> Job:
        jobs = self.queue.jobs()
        return jobs[number % len(jobs)]

    @rule(count=st.integers(1, 4), split=st.booleans(), priority=st.integers(0, 2))
    def submit(self, count: int, split: bool, priority: int) -> None:
        how = f'Split = "production:1-{count}";' if split else ""
        submitted(self.queue, f"{how} Priority = {priority};", self.now)

    @rule(split=st.booleans())
    def insert(self, split: bool) -> None:
        how = 'Split = "production:1-2";' if split else ""
        self.queue.submit(jdl(how), "gridproof", self.now)

    @precondition(lambda self: self.queue.jobs())
    @rule(number=st.integers(0, 1000), good=st.booleans())
    def optimise(self, number: int, good: bool) -> None:
        job = self.pick(number)
        if good:
            self.queue.optimise(job.id, self.queue.plan(job.id, ()), self.now)
        else:
            self.queue.reject(job.id, "no", self.now)
        after = self.queue.get(job.id)
        assert after
        assert (after == job) == (job.status != state.INSERTING)

    @rule(site=st.sampled_from(SITES))
    def assign(self, site: Site) -> None:
        job = self.queue.match(Slot(site), self.now)
        if job:
            assert job.status == state.WAITING
            self.queue.assign(job.id, site, "node", self.now)

    @precondition(lambda self: self.queue.jobs())
    @rule(number=st.integers(0, 1000), new=st.sampled_from(sorted(state.TRANSITIONS)))
    def move(self, number: int, new: str) -> None:
        job = self.pick(number)
        if self.queue.subjobs(job.id) or new in (state.SPLIT, state.SPLITTING, state.ASSIGNED):
            return
        try:
            self.queue.move(job.id, new, self.now)
        except IllegalTransition:
            assert not state.may_follow(job.status, new)
            assert self.queue.get(job.id) == job
        else:
            assert state.may_follow(job.status, new)

    @precondition(lambda self: self.queue.jobs())
    @rule(number=st.integers(0, 1000))
    def kill(self, number: int) -> None:
        job = self.pick(number)
        self.queue.kill(job.id, self.now)
        killed = [self.queue.get(job.id), *self.queue.subjobs(job.id)]
        assert {j.status for j in killed if j} == {state.KILLED}

    @precondition(lambda self: self.queue.jobs())
    @rule(number=st.integers(0, 1000))
    def resubmit(self, number: int) -> None:
        job = self.pick(number)
        if self.queue.is_master(job.id) and job.status != state.ERROR_SPLT:
            with pytest.raises(IllegalTransition):
                self.queue.resubmit(job.id, self.now)
            return
        anew = (
            state.INSERTING
            if job.status in (state.INSERTING, state.ERROR_I, state.ERROR_SPLT)
            else state.WAITING
        )
        assert self.queue.resubmit(job.id, self.now).status == anew
        master = self.queue.get(job.master)
        assert master is None or master.status == state.SPLIT

    @precondition(lambda self: self.queue.active())
    @rule(number=st.integers(0, 1000))
    def hear(self, number: int) -> None:
        active = self.queue.active()
        job = active[number % len(active)]
        self.queue.heartbeat(job.id, self.now)
        heard = self.queue.get(job.id)
        assert heard
        assert heard.heartbeat == self.now
        assert heard.status != state.ZOMBIE
        assert heard.status == job.status or job.status == state.ZOMBIE

    @rule(seconds=st.floats(0.1, 5000))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.queue.tick(self.now)

    @rule()
    def restart(self) -> None:
        self.store()
        self.queue = TaskQueue(self.stored.values())
        self.queue.recover(self.now)
        assert not self.queue.active()

    @rule()
    def store(self) -> None:
        self.stored |= {job.id: job for job in self.queue.take_changes().jobs}
        assert list(self.stored.values()) == self.queue.jobs() or self.stored == {
            job.id: job for job in self.queue.jobs()
        }

    @invariant()
    def masters_are_final_exactly_when_their_subjobs_are(self) -> None:
        for job in self.queue.jobs():
            subjobs = self.queue.subjobs(job.id)
            if subjobs and job.status == state.DONE:
                assert all(sub.final for sub in subjobs)
            if subjobs and job.status == state.SPLIT:
                assert not all(sub.final for sub in subjobs)

    @invariant()
    def what_is_indexed_is_what_a_new_queue_would_index(self) -> None:
        anew = TaskQueue(self.queue.jobs())
        assert [job.id for job in anew.active()] == sorted(job.id for job in self.queue.active())
        for site in SITES:
            assert anew.match(Slot(site), self.now) == self.queue.match(Slot(site), self.now)

    @invariant()
    def only_jobs_on_a_node_have_a_site(self) -> None:
        for job in self.queue.jobs():
            if job.status in state.ON_NODE:
                assert job.site
            if job.status == state.WAITING:
                assert not job.site


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase
