"""``InputDataList``: a file in a job's directory that names its input data. Pure."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from gridproof.alien.jdl import Jdl
from gridproof.localgrid.catalogue import xmlcollection
from gridproof.localgrid.catalogue.entries import Entry

_BY_SUFFIX = {".xml": "xml-single", ".txt": "txt-list", ".json": "json"}


def list_name(jdl: Jdl) -> str:
    """The file's name in the job's directory; "" if the JDL wants none, or one in an unknown format."""
    name = posixpath.basename(jdl.text("InputDataList").strip())
    return name if name and _format(jdl) in _BY_SUFFIX.values() else ""


def data_list(jdl: Jdl, files: Sequence[Entry], local: Mapping[str, Path], creator: str, now_ms: int) -> str:
    """What it says; files are ``alien://LFN``, those downloaded to ``local`` paths ``file:///PATH``."""
    urls = {lfn: f"file:///{path}" for lfn, path in local.items()}
    how = _format(jdl)
    if how == "txt-list":
        return "".join(f"{urls.get(file.lfn, f'alien://{file.lfn}')}\n" for file in files)
    if how == "json":
        return json.dumps([xmlcollection.attributes(file, urls) for file in files], indent=1)
    command = "JobWrapper.createInputDataList"
    return xmlcollection.render(files, "jobinputdata", command, creator, now_ms, urls)


def _format(jdl: Jdl) -> str:
    suffix = posixpath.splitext(jdl.text("InputDataList").strip().lower())[1]
    return jdl.text("InputDataListFormat").strip() or _BY_SUFFIX.get(suffix, "")
