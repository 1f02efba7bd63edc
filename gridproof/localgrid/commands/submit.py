"""``submit``: a JDL becomes a job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from errno import EINVAL, EREMOTEIO

from gridproof.errors import JdlError
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.commands.content import read_text
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.submission import Submitter, complete, read_jdl


async def submit(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Submit a JDL: a file of the catalogue or, with an ``=`` in it, a text; ``$1`` … are what follows it."""
    first, *rest = arguments
    if "=" in first:
        return await _submit(core, caller, first, rest)
    failure = CommandFailed(
        EREMOTEIO, f"Not able to get the file {first}", [{"message": f"Submitting {first}"}]
    )
    content = (await read_text(core, caller, first, failure)).replace("\0", "\ufffd")
    return await _submit(core, caller, content, rest, caller.path(first))


async def _submit(
    core: Core, caller: Caller, content: str, arguments: Sequence[str], lfn: str = ""
) -> Answer:
    said = f"Submitting {lfn}" if lfn else "Submitting the content that you passed to the command"
    rows: list[Row] = [{"message": said}]
    what = lfn or "your job"
    try:
        jdl = read_jdl(content, arguments)
    except JdlError as error:
        raise CommandFailed(EINVAL, f"Passing arguments to {what} failed:\n  {error}", rows) from error
    by = Submitter(caller.user, core.users[caller.user].home, lfn)
    try:
        full = await asyncio.to_thread(complete, jdl, by, core.catalogue, core.packages)
        job = core.submit(full, caller.user)
    except JdlError as error:
        raise CommandFailed(EREMOTEIO, f"Task queue rejected {what} due to:\n  {error}", rows) from error
    return Answer([{"message": f"{said}\nYour new job ID is {job.id}", "jobId": str(job.id)}])
