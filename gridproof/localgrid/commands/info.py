"""Commands about the service itself: its version, how busy it is, what it offers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from errno import ENOSYS

from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, is_whole, text
from gridproof.localgrid.commands.caller import Caller, Verb
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.commands.usage import USAGES
from gridproof.localgrid.core import VERSION, Core
from gridproof.localgrid.formats import short_number
from gridproof.localgrid.jobs.state import INSERTING, ON_NODE, WAITING


def version(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The version of JAliEn whose manners these are."""
    lines = [f"JAliEn tag: {VERSION}", "Git hash: localgrid", "Compiled at: 01 Jan 1970 00:00 @ gridproof"]
    keys = {"tag": VERSION, "git_hash": "localgrid", "compiled_at": "0", "compiled_by": "gridproof"}
    return Answer([{"message": "\n".join(lines), **keys}])


def uptime(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """How many jobs there are."""
    activity = _activity(core)
    running, waiting = (sum(counts[n] for counts in activity.values()) for n in (0, 1))
    keys = {"running jobs": running, "waiting jobs": waiting, "active users": len(activity)}
    message = ", ".join(f"{value} {key}" for key, value in keys.items())
    return Answer([{**{key: f" {value}" for key, value in keys.items()}, "message": message}])


def w(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Who has jobs that run or wait."""
    flags = read_options("w", arguments).flags
    column = 1 if "w" in flags else 0
    rows = sorted(_activity(core).items())
    if flags & {"a", "w"}:
        rows.sort(key=lambda row: -row[1][column])
    if "r" in flags:
        rows.reverse()
    ruler = f"{'-' * 26}+{'-' * 14}+{'-' * 14}"
    lines = [f"     {'Account name':<20} | {'Active jobs':>12} | {'Waiting jobs':>12}", ruler]
    for number, (user, (running, waiting)) in enumerate(rows, 1):
        lines.append(f"{number:>3}. {user:<20} | {running:>12} | {waiting:>12}")
    running, waiting = (sum(counts[n] for _, counts in rows) for n in (0, 1))
    lines += [ruler, f"     {'TOTAL':<20} | {running:>12} | {waiting:>12}"]
    table = "\n".join(lines)
    return Answer([{"value": table + "\n", "message": table}])


def _activity(core: Core) -> dict[str, tuple[int, int]]:
    """For each user with jobs that are not final: how many are on a node, how many wait."""
    counts: dict[str, tuple[int, int]] = {}
    for job in core.queue.jobs():
        if job.status in ON_NODE or job.status in (INSERTING, WAITING):
            running, waiting = counts.get(job.owner, (0, 0))
            on_node = job.status in ON_NODE
            counts[job.owner] = running + on_node, waiting + (not on_node)
    return counts


def top(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """What JAliEn has not either."""
    raise CommandFailed(ENOSYS, "not implemented yet")


async def ping(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """How quickly the service takes up what it is asked."""
    options = read_options("ping", arguments)
    count, pause = _bounded(options.values.get("c"), 100, 3), _bounded(options.values.get("s"), 60_000, 1_000)
    lines = [f"Sending {count} messages" + (f" with a pause of {pause} ms between them" if pause else "")]
    began, taken = time.perf_counter(), []
    for number in range(count):
        if number:
            await asyncio.sleep(pause / 1000)
        start = time.perf_counter()
        await asyncio.sleep(0)
        taken.append((time.perf_counter() - start) * 1000)
        lines.append(f"reply from localhost: time={short_number(taken[-1])} ms")
    total = short_number((time.perf_counter() - began) * 1000)
    lines.append(f"{count} packets transmitted, time {total} ms")
    if taken:
        spread = (min(taken), statistics.fmean(taken), max(taken), statistics.pstdev(taken))
        lines.append(f"rtt min/avg/max/mdev = {'/'.join(map(short_number, spread))} ms")
    lines += ["", "Central service endpoint information:", "  hostname : localhost"]
    return text("\n".join(lines))


def _bounded(value: str | None, most: int, default: int) -> int:
    return int(value) if value and is_whole(value) and int(value) <= most else default


def packages(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """All that a JDL may name."""
    return Answer([{"packages": name, "message": f" {name}"} for name in sorted(core.packages)])


def commandlist(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The commands that JAliEn has, too."""
    rows: list[Row] = [{"commandlist": name} for name in USAGES]
    rows[0]["message"] = "\n".join(USAGES)
    return Answer(rows)


def grid_commands(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: how many commands of which name each certificate has sent."""
    return Answer(
        [
            {"subject": subject, "command": name, "count": str(count)}
            for (subject, name), count in core.served.items()
        ]
    )


INFO_VERBS: dict[str, Verb] = {
    "commandlist": commandlist,
    "version": version,
    "uptime": uptime,
    "w": w,
    "top": top,
    "packages": packages,
    "gridCommands": grid_commands,
}
