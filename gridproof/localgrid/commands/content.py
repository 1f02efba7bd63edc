"""What is in small files of the Grid: ``cat``, and the text that other commands are given by LFN."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from errno import EREMOTEIO

from gridproof.localgrid.catalogue.entries import CatalogueError
from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.core import Core
from gridproof.localgrid.storage.transfer import CopyFailed


async def read_text(core: Core, caller: Caller, path: str, failure: CommandFailed) -> str:
    """A small file of the catalogue, read from its storage element; raises ``failure``, with the reason."""
    try:
        entry = await asyncio.to_thread(core.catalogue.look_up, caller.path(path), caller.user, READ)
    except CatalogueError:
        raise failure from None
    if entry is None or entry.is_dir:
        raise failure
    try:
        return (await core.read(entry, caller.site)).decode(errors="replace")
    except CopyFailed as reason:
        raise CommandFailed(failure.code, f"{failure}: {reason}", failure.rows) from reason


async def cat(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The text of the last of the files."""
    failure = CommandFailed(EREMOTEIO, f"Not able to get the file: {arguments[-1]}")
    lines = (await read_text(core, caller, arguments[-1], failure)).rstrip("\n")
    return Answer([{"value": lines.rpartition("\n")[2], "message": lines}])
