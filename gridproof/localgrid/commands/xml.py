"""The command that makes collections in XML of files that it is told; ``find -x`` makes them, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from errno import EINVAL, EIO, ENODATA, ENOENT

from gridproof.localgrid.catalogue import xmlcollection
from gridproof.localgrid.catalogue.entries import Entry
from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed, text
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.commands.content import read_text
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.jobs.inputs import files_in_xml


async def to_xml(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """A collection of files in XML; with ``-x`` it becomes a file, to which ``-a`` adds."""
    options = read_options("toXml", arguments)
    target = caller.path(options.values["x"]) if "x" in options.values else ""
    append = "a" in options.flags
    if append and not target:
        raise CommandFailed(EINVAL, "-a adds to the collection that -x names")
    names = list(options.rest)
    if list_of_names := options.values.get("l"):
        failure = CommandFailed(EIO, f"Could not get the contents of {list_of_names}")
        listed = await read_text(core, caller, list_of_names, failure)
        names += [line.strip() for line in listed.splitlines() if line.strip()]
    if not names:
        raise CommandFailed(ENODATA, "Empty content")
    added = await asyncio.to_thread(_entries, core, caller, (caller.path(name) for name in names))
    wanted = len({caller.path(name) for name in names})
    if len(added) < wanted and "i" not in options.flags:
        raise CommandFailed(ENOENT, f"Only {len(added)} out of {wanted} files could be resolved")
    if not added:
        raise CommandFailed(ENODATA, "Empty collection")
    entries = added
    if append:
        failure = CommandFailed(EIO, f"Could not load the content of {target} to append to")
        before = await read_text(core, caller, target, failure)
        old = await asyncio.to_thread(_entries, core, caller, files_in_xml(before))
        entries = list({entry.lfn: entry for entry in [*old, *added]}.values())
        if len(entries) == len(old):
            same = f"Collection was not modified, all {len(added)} entries were already included in it"
            return text(same)
    content = xmlcollection.render(entries, target, " ".join(arguments), caller.user, now_ms())
    if not target:
        return text(content)
    await asyncio.to_thread(core.store_file, target, content.encode(), caller.user)
    return Answer()


def _entries(core: Core, caller: Caller, lfns: Iterable[str]) -> list[Entry]:
    found = (core.catalogue.look_up(lfn, caller.user, READ) for lfn in dict.fromkeys(lfns))
    return [entry for entry in found if entry]
