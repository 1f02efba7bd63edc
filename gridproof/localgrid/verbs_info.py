"""Commands about sites and the service itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gridproof.localgrid.answers import (
    EINVAL,
    Answer,
    CommandFailed,
    Row,
    human_size,
    read_options,
    text,
)
from gridproof.localgrid.caller import Caller, Verb
from gridproof.localgrid.core import Core
from gridproof.localgrid.jobstates import ON_NODE
from gridproof.localgrid.packages import available
from gridproof.localgrid.sites import JOB_TTL_LIMIT, distance, find_site

VERSION = "1.8.5"


def list_ses(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """Storage elements, in their original case."""
    options = read_options(arguments, valued=("qos",), words=("verbose",))
    usage = core.catalogue.usage()
    rows: list[Row] = []
    wanted = {name.casefold() for part in options.rest for name in part.split(",")}
    shown = [s for s in core.storage.values() if not wanted or s.name.casefold() in wanted]
    width = max((len(se.name) for se in shown), default=0)
    for se in shown:
        files, used = usage.get(se.name, (0, 0))
        number = se.site.number
        line = (
            f"{se.name:>{width}}\t{number:>3}\t{human_size(0):>8}\t{human_size(used)}\t{human_size(0):>8}"
            f"\t{files:>12}\t 0.0000  0.0000\tdisk\t  {se.endpoint}"
        )
        rows.append(
            {
                "message": line if rows else f"{_SE_HEAD}\n{line}",
                "seName": se.name,
                "seNumber": str(number),
                "totalSpace": "0",
                "usedSpace": str(used),
                "freeSpace": "0",
                "fileCount": str(files),
                "demoteRead": "0.0",
                "demoteWrite": "0.0",
                "qos": "disk",
                "endpointUrl": se.endpoint,
            }
        )
    return Answer(rows)


_SE_HEAD = (
    "                         \t\t                Capacity\t  \t\t\t\t\tDemote\n"
    "                  SE name\t ID\t   Total  \t    Used  \t    Free      File count"
    "\t   Read   Write\tQoS \t  Endpoint URL"
)


def list_se_distance(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """How far SEs are from a site, in words."""
    options = read_options(arguments, valued=("site", "qos"), words=("read", "write"))
    site = options.values.get("site") or caller.site or core.sites[0].name
    found = find_site(core.sites, site)
    if found is None:
        raise CommandFailed(
            EINVAL, f"There is no site {site}; there are {', '.join(s.name for s in core.sites)}"
        )
    ranked = sorted(core.storage, key=lambda se: distance(found.name, se))
    return text(
        "\n".join(
            f"{se.upper():>40}\t(read:  0.000,  write:  0.000,  distance:  {distance(found.name, se):.3f})"
            for se in ranked
        )
    )


def list_ces(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """Computing elements with what they can hold."""
    host = socket.gethostname()
    ces = [(s.ce.upper(), s.slots, s.slots * 1000, JOB_TTL_LIMIT, "LOCAL", host) for s in core.sites]
    ces.append(("UNASSIGNED::SITE", 0, 0, 86_400, "", ""))
    width = max(25, *(len(name) for name, *_ in ces))
    head = f"CE Listing \n{'CE name':>{width}}\tStatus\tMax running\t Max queued\t  TTL\t    Type\t\tHost\n"
    rows: list[Row] = []
    for name, running, queued, ttl, kind, where in ces:
        line = f"{name:>{width}}\topen\t\t{running:>3}\t\t{queued:>3}\t{ttl}\t{kind:>8}\t{where}"
        rows.append(
            {
                "message": line if rows else head + line,
                "ceName": name,
                "status": "open",
                "maxRunning": str(running),
                "maxQueued": str(queued),
                "partitions": "",
                "TTL": ttl,
                "type": kind,
                "host": where,
            }
        )
    return Answer(rows)


def ping(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """Answers."""
    return text("reply from localhost\n\nCentral service endpoint information:\n  hostname : localhost")


def time_(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """JAliEn's ``time`` measures commands; this one only says how it is used."""
    usage = "Usage: time <times>  <command> [command_arguments] "
    raise CommandFailed(EINVAL, "Command requires an argument", [{"message": usage}])


def version(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The version of JAliEn whose manners these are."""
    row = {"tag": VERSION, "git_hash": "localgrid", "compiled_at": "0", "compiled_by": "gridproof"}
    return Answer([{"message": f"JAliEn tag: {VERSION}\nGit hash: localgrid", **row}])


def uptime(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """How many jobs there are."""
    jobs = core.queue.jobs()
    running = sum(job.status in ON_NODE for job in jobs)
    waiting = sum(not job.final for job in jobs) - running
    users = len({job.owner for job in jobs if not job.final})
    counts = {"running jobs": f" {running}", "waiting jobs": f" {waiting}", "active users": f" {users}"}
    message = f"{running} running jobs, {waiting} waiting jobs, {users} active users"
    return Answer([{**counts, "message": message}])


def packages(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """All that a JDL may name."""
    return Answer([{"packages": name} for name in sorted(available())])


def set_site(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Say where the caller is."""
    if not arguments:
        raise CommandFailed(EINVAL, "Command requires an argument")
    site = find_site(core.sites, arguments[0])
    if site is None:
        raise CommandFailed(EINVAL, f"There is no site {arguments[0]}")
    was, caller.site = caller.site, site.name
    return text(f"Setting close site to {site.name} (was {was})")


def grid_status(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The embedded Grid's own: sites with slots in use, SEs with pid and URL, jobs by state."""
    jobs = core.queue.jobs()
    rows: list[Row] = []
    for site in core.sites:
        se = core.storage[site.se]
        used = sum(job.site == site.name and job.status in ON_NODE for job in jobs)
        rows.append(
            {
                "site": site.name,
                "ce": site.ce,
                "slots": str(site.slots),
                "used": str(used),
                "se": se.name,
                "pid": str(se.pid),
                "url": se.endpoint,
            }
        )
    states: dict[str, int] = {}
    for job in jobs:
        states[job.status] = states.get(job.status, 0) + 1
    return Answer([*rows, *({"state": name, "jobs": str(count)} for name, count in states.items())])


def grid_commands(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:  # noqa: ARG001
    """The embedded Grid's own: how many commands of which name each certificate has sent."""
    return Answer(
        [
            {"subject": subject, "command": name, "count": str(count)}
            for (subject, name), count in core.served.items()
        ]
    )


INFO_VERBS: dict[str, Verb] = {
    "listSEs": list_ses,
    "listSEDistance": list_se_distance,
    "listCEs": list_ces,
    "ping": ping,
    "time": time_,
    "version": version,
    "uptime": uptime,
    "packages": packages,
    "setSite": set_site,
    "gridStatus": grid_status,
    "gridCommands": grid_commands,
}
