"""Which files the ``InputData`` and the ``InputDataCollection`` of a JDL are, and where they lie."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Awaitable, Callable, Iterable

from gridproof.alien.jdl import Jdl
from gridproof.errors import JdlError
from gridproof.localgrid.catalogue.catalogue import Catalogue
from gridproof.localgrid.catalogue.entries import CatalogueError, Entry
from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.jobs.splitting import Located, input_lfn
from gridproof.localgrid.storage.transfer import CopyFailed

_XML_FILE = re.compile(r'<file\s[^<>]*?\blfn="([^"<>]*)"', re.IGNORECASE)


def names_inputs(jdl: Jdl) -> bool:
    """Whether a JDL has any input data."""
    return bool(jdl.strings("InputData") or jdl.strings("InputDataCollection"))


async def find_inputs(
    jdl: Jdl, owner: str, catalogue: Catalogue, read: Callable[[Entry], Awaitable[bytes]]
) -> list[Located]:
    """Every input file once, where it lies; collections written as XML are ``read``.

    Raises JdlError for what is not in the catalogue, on no storage element, or is no collection.
    """
    entries: dict[str, str] = {}
    for entry in jdl.strings("InputData"):
        entries.setdefault(input_lfn(entry), entry)
    for collection in jdl.strings("InputDataCollection"):
        _, comma, options = collection.partition(",")
        lfns = await _collected(input_lfn(collection), owner, catalogue, read)
        for lfn in lfns:
            entries.setdefault(lfn, f"LF:{lfn}{comma}{options}")
    return await asyncio.to_thread(lambda: [_located(entry, owner, catalogue) for entry in entries.values()])


async def _collected(
    lfn: str, owner: str, catalogue: Catalogue, read: Callable[[Entry], Awaitable[bytes]]
) -> Iterable[str]:
    collection = await asyncio.to_thread(_readable, "InputDataCollection", lfn, owner, catalogue)
    if collection.type == "c":
        return await asyncio.to_thread(catalogue.collected, collection.guid)
    try:
        lfns = files_in_xml((await read(collection)).decode(errors="replace"))
    except CopyFailed as failure:
        raise JdlError(f"InputDataCollection: {failure}") from failure
    if not lfns:
        raise JdlError(f"InputDataCollection: {lfn} names no file, or is neither a collection nor XML of one")
    return lfns


def files_in_xml(text: str) -> list[str]:
    """The LFNs in a collection as AliEn writes it in XML."""
    return [html.unescape(lfn) for lfn in _XML_FILE.findall(text)]


def _readable(tag: str, lfn: str, owner: str, catalogue: Catalogue) -> Entry:
    try:
        file = catalogue.look_up(lfn, owner, READ)
    except CatalogueError:
        raise JdlError(f"{tag}: {owner} is not allowed to read {lfn}") from None
    if file is None or file.is_dir:
        raise JdlError(f"{tag}: {lfn} is not in the catalogue")
    return file


def _located(entry: str, owner: str, catalogue: Catalogue) -> Located:
    lfn = input_lfn(entry)
    file = _readable("InputData", lfn, owner, catalogue)
    archive = catalogue.member(file.guid)
    ses = catalogue.replicas(archive[0] if archive else file.guid)
    if not ses:
        raise JdlError(f"InputData: {lfn} is on no storage element")
    return Located(entry, file.size, tuple(sorted(ses)))
