"""How an agent's payload comes to its end before it wants to: kills and limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gridproof.localgrid import Limits, LocalGrid


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    """One slot, whose agent never reports."""
    with LocalGrid(sites=1, slots=1, limits=Limits(report_interval=3600)) as grid:
        yield grid


def test_a_killed_payload_lives_and_holds_its_slot_until_its_agent_reports(raw, script, tmp_path, until):
    end, ended = tmp_path / "end", tmp_path / "ended"
    killed = raw.submit(
        f'Executable = "{script(f"until [ -e {end} ]; do sleep 0.02; done; touch {ended}", "long.sh")}";'
    )
    raw.wait(killed, "RUNNING")
    assert raw.rows("kill", killed)[0]["status"] == "killed"
    assert raw.status(killed) == "KILLED"
    waiting = raw.submit(f'Executable = "{script("true")}";')
    raw.wait(waiting, "WAITING")
    assert not ended.exists()
    end.touch()
    raw.wait(waiting, "DONE")
    assert ended.exists()
    assert raw.status(killed) == "KILLED"
