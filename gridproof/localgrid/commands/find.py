"""``find``; it runs in threads."""

from __future__ import annotations

import json
import posixpath
import re
import subprocess
import sys
from collections.abc import Sequence
from errno import EINVAL, ENOTDIR

from gridproof.localgrid.catalogue import xmlcollection
from gridproof.localgrid.catalogue.entries import Entry, entry_number
from gridproof.localgrid.catalogue.permissions import PASS, READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row
from gridproof.localgrid.commands.caller import Caller
from gridproof.localgrid.commands.files import existing, long_line, whole_seconds
from gridproof.localgrid.commands.options import Options, read_options
from gridproof.localgrid.commands.usage import argument_missing, help_of
from gridproof.localgrid.core import Core, now_ms
from gridproof.localgrid.formats import human_size
from gridproof.localgrid.sites import distance


def find(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """What lies below a directory with a pattern in its path; with ``-x`` as an XML collection."""
    options = read_options("find", arguments)
    path, pattern = _path_and_pattern(options.rest)
    top = core.catalogue.look_up(caller.path(path), caller.user)
    if top is None or not top.is_dir:
        raise CommandFailed(ENOTDIR, path)
    existing(core, caller, top.lfn, READ | PASS)
    first, count = options.number("o", 0), options.number("l", 0)
    found = _search(core, caller, top, pattern, options)[max(first, 0) :]
    if count > 0:
        found = found[:count]
    answer = Answer(error=_ignored(options, first, count))
    target = options.values.get("x")
    if target is None:
        answer.rows = [_found(entry, options.flags, caller) for entry in found]
        if "c" in options.flags:
            _add_line(answer.rows, _sum(found, options.flags))
        return answer
    lfn = "" if target == "-" else caller.path(target)
    seen = [entry.as_seen_by(caller.account) for entry in found]
    content = xmlcollection.render(seen, lfn, f"find {' '.join(arguments)}", caller.user, now_ms())
    if lfn:
        core.store_file(lfn, content.encode(), caller.user)
    else:
        answer.rows = [{"lfn": entry.path} for entry in found]
        _add_line(answer.rows, content)
    return answer


def _path_and_pattern(names: Sequence[str]) -> tuple[str, str]:
    """The directory and the pattern; they may be one name with ``*`` in it."""
    if not names:
        raise argument_missing("find")
    if len(names) > 1:
        return names[0], names[1]
    directory, slash, _ = names[0].partition("*")[0].rpartition("/")
    if "*" not in names[0] or not directory:
        raise CommandFailed(
            EINVAL,
            f"I can't infer the search pattern from `{names[0]}`,"
            " please pass the base directory and the search pattern separately",
            help_of("find").rows,
        )
    return directory, names[0][len(directory + slash) :]


def _ignored(options: Options, first: int, count: int) -> str:
    """What JAliEn says of numbers with which it does nothing; the command does not fail."""
    if "l" in options.values and count <= 0:
        return f"Limit value has to be strictly positive, ignoring indicated value ({count})\n"
    return f"Offset value cannot be negative, ignoring indicated value ({first})\n" if first < 0 else ""


def _search(core: Core, caller: Caller, top: Entry, pattern: str, options: Options) -> list[Entry]:
    if "y" in options.flags:
        return []  # there are no calibration objects here
    types = "fcd" if "d" in options.flags else "fc"
    found = core.catalogue.find(top.lfn, "*" if "r" in options.flags else pattern, caller.user, types)
    if "d" in options.flags and not pattern.strip("*%"):
        found.insert(0, top)
    if "r" in options.flags:
        found = _matching(re.escape(top.path) + pattern, found)
    if job := options.number("j", 0):
        found = [entry for entry in found if entry.job == job]
    if site := options.values.get("S"):
        found.sort(key=lambda entry: _distance(core, entry, site))
    return found


def _matching(expression: str, entries: Sequence[Entry]) -> list[Entry]:
    """Those whose path a regular expression matches, looked at in a process that cannot go on for long."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise CommandFailed(EINVAL, f"{expression} is no regular expression: {error}") from error
    request = json.dumps([MATCHING_SECONDS, expression, [entry.path for entry in entries]])
    done = subprocess.run([sys.executable, "-c", _MATCH], input=request, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(EINVAL, f"{expression} takes too long: name what you look for more exactly")
    return [entries[number] for number in json.loads(done.stdout)]


MATCHING_SECONDS = 2
_MATCH = """
import json, re, resource, sys
seconds, expression, paths = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
print(json.dumps([number for number, path in enumerate(paths) if re.match(expression, path)]))
"""


def _distance(core: Core, entry: Entry, site: str) -> float:
    """How far the nearest replica of a file is from a site."""
    return min((distance(site, se) for se in core.catalogue.replicas(entry.guid)), default=1.0)


def _found(entry: Entry, flags: frozenset[str], caller: Caller) -> Row:
    row: Row = {"lfn": entry.path}
    if flags & {"w", "f"}:
        row |= {
            "perm": entry.perm,
            "owner": entry.owner,
            "gowner": entry.gowner,
            "size": str(entry.size),
            "ctime": whole_seconds(entry),
            "guid": entry.guid,
        }
    if "f" in flags:
        row |= {
            "name": posixpath.basename(entry.lfn),
            "aclId": "",
            "broken": "0",
            "dir": str(entry_number(posixpath.dirname(entry.lfn))),
            "entryId": str(entry_number(entry.lfn)),
            "expiretime": "",
            "guidtime": (entry.guid[14:18] + entry.guid[9:13]).upper(),
            "md5": entry.as_seen_by(caller.account).md5,
            "jobid": str(entry.job or -1),
            "replicated": "0",
            "type": entry.type,
        }
    line = f"{long_line(entry, human='h' in flags)}     " if "w" in flags else ""
    row["message"] = f"{line}{entry.path}"
    return row


def _sum(found: Sequence[Entry], flags: frozenset[str]) -> str:
    size = sum(entry.size for entry in found)
    of = f", of {human_size(size) if 'h' in flags else size}" if "w" in flags else ""
    return f"Found {len(found)} maching entries{of}"


def _add_line(rows: list[Row], line: str) -> None:
    """Behind the text of the last row, which is made where there is none."""
    if not rows:
        rows.append({})
    rows[-1]["message"] = "\n".join(filter(None, [rows[-1].get("message"), line]))
