"""When a payload is killed for what it uses, without a payload."""

from __future__ import annotations

import pytest

from gridproof.alien.jdl import parse
from gridproof.localgrid import Limits
from gridproof.localgrid.jobs.requirements import megabytes
from gridproof.localgrid.node.monitor import RESOURCE_FIELDS, Allowance, Machine, Monitor, Usage

MB = 1 << 20


def monitor(text: str = "", **limits: float) -> Monitor:
    return Monitor(Limits(**limits), Allowance.of(parse(f'Executable = "/local/x"; {text}')))  # type: ignore[arg-type]


def test_a_payload_is_idle_after_180_checks_with_less_than_half_a_cpu_second_each():
    watch = monitor()
    verdicts = [watch.judge(Usage(5.0 * n, 0.49 * n)) for n in range(1, 182)]
    assert not any(verdicts[:180])
    assert verdicts[180] == (
        "CPU time consumed by the payload has been near zero for the last 15 minutes. Aborting"
    )


def test_one_check_with_work_in_it_makes_the_idle_ones_before_it_forgotten():
    watch = monitor()
    assert not any(watch.judge(Usage(5.0 * n, 0.0)) for n in range(1, 181))
    assert not watch.judge(Usage(905.0, 0.5))
    assert not any(watch.judge(Usage(905.0 + 5.0 * n, 0.5)) for n in range(1, 181))
    assert watch.judge(Usage(1810.0, 0.5))


def test_each_core_must_work():
    watch = monitor('CPUCores = "4";', idle_checks=2)
    assert not any(watch.judge(Usage(5.0 * n, 1.9 * n)) for n in (1, 2))
    assert watch.judge(Usage(15.0, 1.9 * 3))


def test_idle_payloads_live_where_that_is_switched_off():
    watch = monitor(idle_checks=0)
    assert not any(watch.judge(Usage(5.0 * n)) for n in range(1, 2000))


@pytest.mark.parametrize(
    ("text", "fine", "too_much", "words"),
    [
        ('MemorySize = "500MB";', 600, 601, "more than 500 MB memory (right now ~601MB)"),
        ('MemorySize = "2GB";', 2457, 2458, "more than 2048 MB memory"),
        ("", 9830, 9831, "more than 8192 MB memory"),
        ('CPUCores = "2";', 19660, 19661, "more than 16384 MB memory"),
    ],
)
def test_a_fifth_more_memory_than_asked_for_is_the_most(text, fine, too_much, words):
    assert not monitor(text).judge(Usage(5.0, 5.0, memory=fine * MB))
    assert words in monitor(text).judge(Usage(5.0, 5.0, memory=too_much * MB))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('Workdirectorysize = {"50MB"};', 50),
        ('Workdirectorysize = {"21GB"};', 10240),
        ("", 10240),
        ('CPUCores = "2";', 20480),
    ],
)
def test_the_work_directory_has_a_limit(text, limit):
    assert not monitor(text).judge(Usage(5.0, 5.0, disk=limit * MB))
    assert f"more than {limit}MB of diskspace" in monitor(text).judge(Usage(5.0, 5.0, disk=limit * MB + 1))


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8192), ("500MB", 500), ("500", 500), ("1GB", 1024), ("2048K", 2), ("much", 0), ("", 0)],
)
def test_sizes_in_a_jdl(text, size):
    assert megabytes(text) == size


def test_the_line_of_resources_has_its_fields_and_remembers_the_most_memory():
    watch = monitor()
    watch.note(Usage(3661.0, 30.0, memory=100 * MB))
    watch.note(Usage(3662.0, 36.62, memory=50 * MB))
    line = watch.resources(Machine(cpus=2, family="25", mhz=2000.0, memory=1000 * MB))
    assert line == "01:01:02 3662 1.00 5.00 36.62 50.00 50.00 2 25 2000 73.24 100.00 100.00 1000"
    assert len(line.split()) == len(RESOURCE_FIELDS.split(" | ")) + 1
