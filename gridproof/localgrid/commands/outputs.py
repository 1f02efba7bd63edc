"""``registerOutput``: what a failed job has saved is entered in the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from errno import EINVAL, ENODATA, EPERM, ESRCH

from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.commands.answers import Answer, CommandFailed, is_whole, text
from gridproof.localgrid.commands.caller import Caller, may_modify
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.jobs import state


async def register_output(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Enter in the catalogue what a failed job has saved; the LFNs in words."""
    for argument in arguments:
        if not is_whole(argument):
            raise CommandFailed(EINVAL, f"Invalid job ID: {argument}")
    number = int(arguments[-1])
    job = core.queue.get(number)
    if job is None:
        raise CommandFailed(ESRCH, f"Job ID {number} was not found in the task queue")
    if core.queue.is_master(number):
        raise CommandFailed(
            EINVAL, f"Job ID {number} is a masterjob, you can only register the output of a failed (sub)job"
        )
    if job.status not in (state.ERROR_V, state.ERROR_E):
        raise CommandFailed(
            EINVAL,
            f"Job ID {number} is in state {job.status}. You can only register ERROR_V jobs (or ERROR_E when"
            " OutputErrorE exists).",
        )
    if not may_modify(caller, job):
        raise CommandFailed(EPERM, f"You ({caller.user}) are not allowed to work on {job.owner}'s jobs")
    lfns = await asyncio.to_thread(kept.register, core.catalogue, number, now_ms())
    if not lfns:
        raise CommandFailed(ENODATA, f"No files have been commited to the catalogue for job ID {number}")
    return text("\n".join(f"  {lfn}" for lfn in lfns))
