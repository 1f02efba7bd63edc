"""Copies between sandboxes and storage elements, by ``xrdcp``."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """A file to fetch: one URL for each replica, what it must be, and where it goes."""

    lfn: str
    urls: tuple[str, ...]
    size: int
    md5: str
    target: Path


class CopyFailed(Exception):
    """A file could not be copied; the text says which and why."""


def transfer_environment() -> dict[str, str]:
    """The environment for XRootD's clients."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", **_LIMITS}


def copy_argv(*arguments: str, where: Sequence[str] = ()) -> list[str]:
    """An ``xrdcp`` that dies with us; ``where``: the command before it (see `SiteNetwork`)."""
    return [*where, "setpriv", "--pdeathsig", "KILL", "xrdcp", "--silent", "--nopbar", *arguments]


async def fetch(sources: Sequence[Source], staging: Path, where: Sequence[str] = ()) -> None:
    """Bring files in with as few processes as possible; ``staging`` is on the targets' file system.

    The first replicas of all come in one go; what that did not bring is tried replica by replica. ``where``
    is as for :func:`copy_argv`. Raises CopyFailed.
    """
    wanted = _prepare(sources, staging)
    try:
        if first := list(dict.fromkeys(s.urls[0] for s in wanted if s.urls)):
            await run_copy(*first, f"{staging}/", where=where)
        for source in wanted:
            await _settle(source, staging, where)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


async def _settle(source: Source, staging: Path, where: Sequence[str]) -> None:
    why = "has no replica on any storage element"
    for number, url in enumerate(source.urls):
        here = staging / url.rsplit("/", 1)[-1]
        said = ""
        if number or not here.exists():
            here.unlink(missing_ok=True)
            _, said = await run_copy(url, str(here), where=where)
        problem = await asyncio.to_thread(_problem, source, here)
        if not problem:
            here.replace(source.target)
            return
        why = f"{url}: {said or problem}"
    raise CopyFailed(f"{source.lfn}: {why}")


async def run_copy(*arguments: str, timeout: float = 600.0, where: Sequence[str] = ()) -> tuple[int, str]:
    """Run ``xrdcp``: its exit code and the last line it said."""
    process = await asyncio.create_subprocess_exec(
        *copy_argv(*arguments, where=where),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=transfer_environment(),
        start_new_session=True,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), timeout)
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


def _problem(source: Source, path: Path) -> str:
    if not path.exists():
        return "could not be read from there"
    if path.stat().st_size != source.size:
        return f"has {path.stat().st_size} bytes, the catalogue says {source.size}"
    if source.md5 and md5_of(path) != source.md5:
        return "its MD5 is not the one in the catalogue"
    return ""


def md5_of(path: Path) -> str:
    """The MD5 of a file, as the catalogue keeps it."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
