"""Which of the free slots get the jobs that there are."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gridproof.localgrid.sites import make_sites
from tests.localgrid.offline import Offline


def test_sites_with_fewer_jobs_come_first(tmp_path: Path) -> None:
    grid = Offline(tmp_path / "grid")
    core = grid.core
    core.sites = make_sites(3, 2, 1)
    core.store_file("/local/job.sh", b"#!/bin/sh\n", "gridproof")

    async def free_slots() -> list[asyncio.Task[None]]:
        slots = [asyncio.create_task(taken(number)) for number in (0, 0, 1, 1, 2, 2)]
        await asyncio.sleep(0)
        return slots

    async def taken(number: int) -> None:
        job = await core.next_job(core.sites[number], "node")
        assigned.append(job.site)

    assigned: list[str] = []
    slots = grid.loop.run_until_complete(free_slots())
    grid.rows("submit", 'Executable = "/local/job.sh"; Split = "production:1-3";')
    assert sorted(assigned) == ["Site1", "Site2", "Site3"]
    grid.rows("submit", 'Executable = "/local/job.sh"; Split = "production:1-3";')
    grid.loop.run_until_complete(asyncio.wait(slots))
    assert sorted(assigned) == ["Site1", "Site1", "Site2", "Site2", "Site3", "Site3"]
    grid.close()
