"""The commands that change the catalogue: directories, names, permissions; they run in threads."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
from collections.abc import Callable, Sequence
from errno import EACCES, EINVAL, EIO, ENOENT, ENOTDIR, EPERM, EREMOTEIO

from gridproof.localgrid.catalogue.entries import CatalogueError, Entry
from gridproof.localgrid.commands.answers import Answer, CommandFailed
from gridproof.localgrid.commands.caller import Caller, Verb, missing
from gridproof.localgrid.commands.files import expanded
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.commands.usage import help_of
from gridproof.localgrid.core import Core, now_ms


def mkdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make directories."""
    options = read_options("mkdir", arguments)
    parents = "p" in options.flags
    answer = Answer()
    for path in options.rest:
        try:
            core.catalogue.mkdir(caller.path(path), caller.user, now_ms(), parents=parents)
        except CatalogueError:
            hint = " (or non-existing parents)" if parents else ""
            answer.fail(ENOENT, f"Could not create directory{hint}: {path}")
    return answer


def rm(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove files and empty directories, with ``-r`` directories with all in them."""
    options = read_options("rm", arguments)
    recursive = bool(options.flags & {"r", "R"})
    answer = Answer()
    for path in options.rest:
        lfns = expanded(core, caller, path)
        if not lfns:
            answer.fail(ENOENT, path)
        for lfn in lfns:
            if reason := _needed(caller, lfn):
                answer.fail(EINVAL, reason)
                continue
            try:
                core.catalogue.remove(lfn, caller.user, recursive=recursive)
            except CatalogueError:
                answer.fail(EIO, f"Failed to remove [{lfn}]")
    core.sweep()
    return answer


def rmdir(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Remove empty directories."""
    answer = Answer()
    for path in read_options("rmdir", arguments).rest:
        entry = _seen(core, caller, path)
        if entry is None:
            answer.fail(ENOENT, path)
        elif not entry.is_dir:
            answer.fail(ENOTDIR, path)
        elif reason := _needed(caller, entry.lfn):
            answer.fail(EINVAL, reason)
        else:
            try:
                core.catalogue.remove(entry.lfn, caller.user)
            except CatalogueError as error:
                if error.code == EACCES:
                    answer.fail(EPERM, path)
                else:
                    answer.fail(EIO, f"Could not remove directory: {path}")
    return answer


def _seen(core: Core, caller: Caller, path: str) -> Entry | None:
    """The entry of an LFN, unless it is in a directory that the caller may not pass."""
    try:
        return core.catalogue.look_up(caller.path(path), caller.user)
    except CatalogueError:
        return None


def _needed(caller: Caller, lfn: str) -> str:
    """Why the caller cannot remove this directory, if so."""
    if caller.directory.startswith(lfn + "/"):
        return "Cannot delete the directory you are in"
    if caller.home.startswith(lfn + "/"):
        return "Cannot delete your home dir"
    return ""


def mv(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Rename a file or directory, or move some into a directory, which is made where it is missing.

    As in JAliEn a file moved onto another does not replace it but becomes ``TARGET_backup``.
    """
    names = read_options("mv", arguments).rest
    if len(names) < 2:
        return help_of("mv")
    *sources, target = names
    lfn = caller.path(target)
    there = _seen(core, caller, target)
    into = len(sources) > 1 or (target.endswith("/") if there is None else there.is_dir)
    if into and there and not there.is_dir:
        raise CommandFailed(EINVAL, f"Several files can only be moved into a directory, not to {target}")
    answer = Answer()
    for source in sources:
        entry = _seen(core, caller, source)
        if entry is None:
            answer.fail(EINVAL, f"Source cannot be found: {caller.path(source)}")
        elif entry.is_dir and there and not there.is_dir:
            answer.fail(EINVAL, f"A directory cannot be moved to a file: {target}")
        else:
            new = posixpath.join(lfn, posixpath.basename(entry.lfn)) if into else lfn
            try:
                if into and there is None:
                    core.catalogue.mkdir(lfn, caller.user, now_ms(), parents=True)
                core.catalogue.move(entry.lfn, new if into or there is None else f"{lfn}_backup", caller.user)
            except CatalogueError:
                answer.fail(EIO, f"Failed to move {source} to {lfn}")
    return answer


def touch(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Make empty files; those that exist have changed now."""
    answer = Answer()
    for path in arguments:
        lfn = caller.path(path)
        try:
            core.catalogue.touch(lfn, caller.user, now_ms())
        except CatalogueError:
            answer.fail(EREMOTEIO, f"Failed to touch the LFN: {lfn}")
    return answer


def chmod(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change permissions, given in octal, with ``-R`` of all that is below, too."""
    options = read_options("chmod", arguments)
    mode, *paths = options.rest or ("",)
    if not paths:
        raise CommandFailed(EINVAL, "No user or file entered")
    if not fnmatch.fnmatchcase(mode, "[0-7][0-7][0-7]"):
        raise CommandFailed(EINVAL, f"{mode} is no octal mode of three digits")
    change = functools.partial(
        core.catalogue.chmod, perm=mode, user=caller.user, now_ms=now_ms(), recursive="R" in options.flags
    )
    return _altered(core, caller, "chmod", paths, change)


def chown(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Change owner and group, with ``-R`` of all that is below, too."""
    options = read_options("chown", arguments)
    roles, *paths = options.rest or ("",)
    owner, _, gowner = roles.partition(".")
    if not paths or not owner:
        raise CommandFailed(EINVAL, "No user or file entered")
    change = functools.partial(
        core.catalogue.chown, owner=owner, gowner=gowner, user=caller.user, recursive="R" in options.flags
    )
    return _altered(core, caller, "chown", paths, change)


def _altered(
    core: Core, caller: Caller, name: str, paths: Sequence[str], change: Callable[[str], list[str]]
) -> Answer:
    answer = Answer()
    for path in paths:
        lfns = expanded(core, caller, path)
        if not lfns:
            raise missing(path)
        for left in (left for one in lfns for left in _left(change, one)):
            answer.fail(EIO, f"{left}: unable to {name}")
    return answer


def _left(change: Callable[[str], list[str]], lfn: str) -> list[str]:
    """What is not changed."""
    try:
        return change(lfn)
    except CatalogueError as error:
        if error.code not in (ENOENT, EACCES):
            raise
        return [lfn]


CHANGE_VERBS: dict[str, Verb] = {
    "mkdir": mkdir,
    "rm": rm,
    "rmdir": rmdir,
    "mv": mv,
    "touch": touch,
    "chmod": chmod,
    "chown": chown,
}
