"""``submit``: a JDL becomes a job."""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL, EREMOTEIO

from gridproof.errors import JdlError
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobs.submission import Submitter, complete, read_jdl


def submit_text(core: Core, caller: Caller, content: str, arguments: Sequence[str], lfn: str = "") -> Answer:
    """Submit the text of a JDL; ``lfn`` is where it came from, if from the catalogue."""
    said = f"Submitting {lfn}" if lfn else "Submitting the content that you passed to the command"
    rows: list[Row] = [{"message": said}]
    what = lfn or "your job"
    try:
        jdl = read_jdl(content, arguments)
    except JdlError as error:
        raise CommandFailed(EINVAL, f"Passing arguments to {what} failed:\n  {error}", rows) from error
    by = Submitter(caller.user, core.users[caller.user].home, lfn)
    try:
        job = core.submit(complete(jdl, by, core.catalogue, core.packages), caller.user)
    except JdlError as error:
        raise CommandFailed(EREMOTEIO, f"Task queue rejected {what} due to:\n  {error}", rows) from error
    return Answer([{"message": f"{said}\nYour new job ID is {job.id}", "jobId": str(job.id)}])
