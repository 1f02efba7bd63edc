"""Copies between sandboxes and storage elements, by XRootD's client."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gridproof.xrdclient import PUT, put_order, write_metalink

# A dead server is given up quickly: there are other replicas. XRootD's libraries look up the names of this
# machine's addresses when they are loaded: a name server that loses packets must not cost 5 s each time.
RESOLVER_LIMITS = {"RES_OPTIONS": "use-vc timeout:1 attempts:1"}
_LIMITS = {
    **RESOLVER_LIMITS,
    "XRD_CONNECTIONWINDOW": "2",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_STREAMERRORWINDOW": "2",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_LOGLEVEL": "Error",
}


@dataclass(frozen=True)
class Source:
    """A file to fetch: one signed URL for each replica, what it must be, and where it goes.

    ``member``: its name in the zip archive that is at these URLs.
    """

    lfn: str
    urls: tuple[str, ...] = field(repr=False)
    size: int
    md5: str
    target: Path
    member: str = ""


class CopyFailed(Exception):
    """A file could not be copied; the text says which and why."""


def _mortal(where: Sequence[str]) -> tuple[str, ...]:
    """What makes a command run in a place (see `SiteNetwork`) and die with us."""
    return (*where, "setpriv", "--pdeathsig", "KILL", "--")


async def fetch(sources: Sequence[Source], staging: Path, where: Sequence[str] = ()) -> None:
    """Bring files in with as few processes as possible; ``staging`` is on the targets' file system.

    All come in one go, each from its first replica that can be read; what that did not bring, or brought
    wrong, is tried replica by replica. ``where``: the commands before ours (see `SiteNetwork`). Raises
    CopyFailed.
    """
    wanted = _prepare(sources, staging)
    try:
        links = [
            _link(source.urls, source.size, staging / str(number))
            for number, source in enumerate(wanted)
            if not source.member
        ]
        if links:
            await _copy(*links, f"{staging}/", where=where)
        for number, source in enumerate(wanted):
            await _settle(source, staging / str(number), where)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


async def _settle(source: Source, here: Path, where: Sequence[str]) -> None:
    if not await asyncio.to_thread(_accept, source, here):
        return
    why = "has no replica on any storage element"
    for url in source.urls:
        link = _link([url], source.size, here) + (f"?xrdcl.unzip={source.member}" if source.member else "")
        _, said = await _copy("--force", link, str(here), where=where)
        problem = await asyncio.to_thread(_accept, source, here)
        if not problem:
            return
        why = f"{url.partition('?')[0]}: {said or problem}"
    raise CopyFailed(f"{source.lfn}: {why}")


def _link(urls: Sequence[str], size: int, here: Path) -> str:
    """A metalink for a copy that will be ``here``."""
    link = here.with_suffix(".meta4")
    write_metalink(link, here.name, size, urls)
    return str(link)


async def _copy(*arguments: str, where: Sequence[str]) -> tuple[int, str]:
    return await _run(*_mortal(where), "xrdcp", "--silent", "--nopbar", *arguments)


async def upload(source: Path, url: str, where: Sequence[str] = ()) -> str:
    """Write a file to a signed URL: what went wrong, "" if nothing did."""
    code, said = await _run(*_mortal(where), *PUT, secret=put_order(source, url))
    return said or f"the copy ended with {code}" if code else ""


async def _run(*argv: str, secret: bytes = b"", timeout: float = 600.0) -> tuple[int, str]:
    """Run a client of XRootD's: its exit code and the last line it said."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", **_LIMITS},
        start_new_session=True,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(secret), timeout)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    lines = said.decode(errors="replace").strip().splitlines()
    return process.returncode or 0, lines[-1] if lines else ""


def _prepare(sources: Sequence[Source], staging: Path) -> list[Source]:
    staging.mkdir(mode=0o700, exist_ok=True)
    for source in sources:
        if source.size == 0:
            source.target.touch()
    return [source for source in sources if source.size > 0]


def _accept(source: Source, path: Path) -> str:
    """Move a copy to where it belongs, unless something is wrong with it: what that is."""
    if not path.exists():
        return "could not be read from there"
    if path.stat().st_size != source.size:
        return f"has {path.stat().st_size} bytes, the catalogue says {source.size}"
    if source.md5 and md5_of(path) != source.md5:
        return "its MD5 is not the one in the catalogue"
    path.replace(source.target)
    return ""


def md5_of(path: Path) -> str:
    """The MD5 of a file, as the catalogue keeps it."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
