"""XML collections: lists of files as AliEn's tools and jobs read them. Pure."""

from __future__ import annotations

import html
import posixpath
import time
from collections.abc import Mapping, Sequence

from gridproof.localgrid.catalogue.entries import Entry, entry_number
from gridproof.localgrid.formats import java_date


def render(
    entries: Sequence[Entry],
    name: str,
    command: str,
    creator: str,
    now_ms: int,
    urls: Mapping[str, str] | None = None,
) -> str:
    """The collection of these files; without a ``name`` it has the one that JAliEn gives to those.

    ``urls``: where files are read from, by LFN; the others are read from the Grid.
    """
    lines = [
        '<?xml version="1.0"?>',
        "<alien>",
        f'  <collection name="{html.escape(name or "tempCollection")}">',
    ]
    for number, entry in enumerate(entries, 1):
        lines += [
            f'    <event name="{number}">',
            f"      <file {_attributes(attributes(entry, urls or {}))} />",
            "    </event>",
        ]
    info = {
        "command": command,
        "creator": creator,
        "date": java_date(now_ms / 1000),
        "timestamp": str(now_ms),
    }
    return "\n".join([*lines, f"    <info {_attributes(info)} />", "  </collection>", "</alien>"])


def attributes(entry: Entry, urls: Mapping[str, str]) -> dict[str, str]:
    """What a collection says about a file."""
    return {
        "name": posixpath.basename(entry.lfn),
        "aclId": "",
        "broken": "0",
        "ctime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.ctime / 1000)),
        "dir": str(entry_number(posixpath.dirname(entry.lfn))),
        "entryId": str(entry_number(entry.lfn)),
        "expiretime": "",
        "gowner": entry.gowner,
        "guid": entry.guid,
        "guidtime": "",
        "jobid": str(entry.job or ""),
        "lfn": entry.path,
        "md5": entry.md5,
        "owner": entry.owner,
        "perm": entry.perm,
        "replicated": "0",
        "size": str(entry.size),
        "turl": urls.get(entry.lfn, f"alien://{entry.path}"),
        "type": entry.type,
    }


def _attributes(values: dict[str, str]) -> str:
    return " ".join(f'{name}="{html.escape(value)}"' for name, value in values.items())
