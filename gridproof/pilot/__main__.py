"""``python -m gridproof.pilot CONFIG.json``: what a pilot's JDL starts.

The configuration (see `gridproof.pilot.config`) is a file of mode 0600 from the job's input sandbox;
it is removed when the pilot has enrolled.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import setproctitle

from gridproof.errors import GridproofError
from gridproof.pilot.config import Job, PilotConfig, job_of, read_config
from gridproof.pilot.trace import trace
from gridproof.proxy.masters.children import Child


async def pilot(config: PilotConfig, job: Job, file: Path) -> int:
    """Be a pilot until its end; returns the exit code."""
    # Its imports take longest: it starts before this process does its own.
    forkserver = await _start_forkserver()
    from gridproof.pilot.agent import Agent

    agent = Agent(config, job, forkserver, _start_forkserver, file=file)
    await agent.run()
    return agent.exit_code


async def _start_forkserver() -> Child:
    return await Child.start([sys.executable, "-m", "gridproof.pilot.forkserver"])


def main() -> int:
    """Entry point; returns the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m gridproof.pilot CONFIG.json", file=sys.stderr)
        return 2
    file = Path(sys.argv[1])
    try:
        config = read_config(file)
    except GridproofError as error:
        trace(str(error))
        return 2
    job = job_of(os.environ)
    setproctitle.setproctitle(f"gridproof pilot {job.site}")
    os.environ.setdefault("LOGNAME", "gridproof")  # asyncssh asks for it, and a job may have no name
    # XRootD asks the name server for every address of the machine when it starts, which can take long.
    os.environ.setdefault("RES_OPTIONS", "use-vc timeout:1 attempts:1")
    return asyncio.run(pilot(config, job, file))


if __name__ == "__main__":
    sys.exit(main())
