"""Commands about sites: their storage and computing elements, and which site the caller is at.

Those of ``SITE_VERBS`` run in threads, those of ``SLOT_VERBS`` look at the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from errno import EINVAL, ENOENT, ENOSYS, EPERM, ESRCH

from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, is_whole, text
from gridproof.localgrid.commands.caller import Caller, Verb
from gridproof.localgrid.commands.files import existing
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.commands.usage import argument_missing
from gridproof.localgrid.core import Core
from gridproof.localgrid.formats import human_size
from gridproof.localgrid.jobs.requirements import read_requirements
from gridproof.localgrid.sites import JOB_TTL_LIMIT, Site, by_distance, distance, find_se, find_site

_UNASSIGNED = "UNASSIGNED::SITE"  # where JAliEn has the jobs that no site has
_UNASSIGNED_TTL = 86_400  # s


def list_ses(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Storage elements, in their original case."""
    options = read_options("listSEs", arguments)
    usage = core.catalogue.usage()
    wanted = {name.casefold() for part in options.rest for name in part.split(",")}
    shown = [s for s in core.storage.values() if not wanted or s.name.casefold() in wanted]
    if options.values.get("qos", QOS) != QOS:
        shown = []
    width = max((len(se.name) for se in shown), default=0)
    head = f"{'':{width}}\t\t{_SE_HEAD_1}\n{'SE name':>{width}}\t{_SE_HEAD_2}"
    rows: list[Row] = []
    for se in shown:
        files, used = usage.get(se.name, (0, 0))
        line = f"{se.name:>{width}}\t{se.site.number:>3}\t{_space(used, files)}"
        line += f"\t 0.0000  0.0000\t{QOS}\t  {se.endpoint}"
        rows.append(
            {
                "message": line if rows else f"{head}\n{line}",
                "seName": se.name,
                "seNumber": str(se.site.number),
                "totalSpace": "0",
                "usedSpace": str(used),
                "freeSpace": "0",
                "fileCount": str(files),
                "demoteRead": "0.0",
                "demoteWrite": "0.0",
                "qos": QOS,
                "endpointUrl": se.endpoint,
            }
        )
    if "s" in options.flags and len(shown) > 1:
        files, used = (sum(usage.get(se.name, (0, 0))[what] for se in shown) for what in (0, 1))
        rows.append({"message": f"\n{f'TOTAL: {len(shown)} SEs':>{width}}\t \t{_space(used, files)} files"})
    return Answer(rows or [{"message": head}])


def _space(used: int, files: int) -> str:
    return f"{human_size(0):>8}\t{human_size(used):>8}\t{human_size(0):>8}{files:>16}"


QOS = "disk"
_SE_HEAD_1 = "                Capacity\t  \t\t\t\t\tDemote"
_SE_HEAD_2 = " ID\t   Total  \t    Used  \t    Free      File count\t   Read   Write\tQoS \t  Endpoint URL"


def list_se_distance(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """How far SEs are from a site, in words."""
    options = read_options("listSEDistance", arguments)
    site = options.values.get("site") or caller.site or core.sites[0].name
    found = find_site(core.sites, site)
    if found is None:
        raise CommandFailed(
            EINVAL, f"There is no site {site}; there are {', '.join(s.name for s in core.sites)}"
        )
    ses: Iterable[str] = core.storage
    if lfn := options.values.get("read"):
        ses = [se.name for se, _ in core.replica_urls(existing(core, caller, lfn, READ), found.name)]
    if options.values.get("qos", QOS) != QOS:
        ses = ()
    return text(
        "\n".join(
            f"{se.upper():>40}\t(read:  0.000,  write:  0.000,  distance:  {distance(found.name, se):.3f})"
            for se in by_distance(found.name, ses)
        )
    )


def list_ces(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Computing elements with what they can hold; none is in a partition."""
    options = read_options("listCEs", arguments)
    wanted = {name.upper() for name in options.rest}
    ces = [] if "p" in options.values else _ce_rows(core.sites, verbose="v" in options.flags)
    rows = [row for row in ces if not wanted or row["ceName"] in wanted]
    shown = _headed(rows, "Type\t\t\t\t\t  Host\t\t\tPartitions" if "v" in options.flags else "Type\t\tHost")
    if "s" in options.flags and len(rows) > 1:
        width = max(len(row["ceName"]) for row in rows)
        running, queued = (sum(int(row[key]) for row in rows) for key in ("maxRunning", "maxQueued"))
        total = f"{f'TOTAL: {len(rows)} CEs':>{width}}"
        shown.append({"message": f"\n{total}\t \t{running:>8}\t{queued:>8}"})
    return Answer(shown)


def job_list_match(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The computing elements that could run a job."""
    number = arguments[0]
    if not is_whole(number):
        raise argument_missing("jobListMatch")
    job = core.queue.get(int(number))
    if job is None:
        raise CommandFailed(ESRCH, f"Job ID {number} was not found in the task queue")
    needs = read_requirements(core.queue.jdl(job.id))
    rows = _ce_rows([site for site in core.sites if needs.allow(core.offer(site))])
    if needs.close_ses or needs.ces or needs.ttl > _UNASSIGNED_TTL:
        rows.pop()
    keys = ("message", "ceName", "status", "maxRunning", "maxQueued")
    return Answer([{key: row[key] for key in keys if key in row} for row in _headed(rows, "Type\tHost")])


def _ce_rows(sites: Sequence[Site], *, verbose: bool = False) -> list[Row]:
    ces = [(s.ce.upper(), s.slots, s.queued, JOB_TTL_LIMIT, s.batch, s.host) for s in sites]
    ces.append((_UNASSIGNED, 0, 0, _UNASSIGNED_TTL, "", ""))
    width, tail = max(len(name) for name, *_ in ces), f"\t\t{'':8}" if verbose else ""
    return [
        {
            "message": f"{name:>{width}}\topen\t\t{running:>3}\t\t{queued:>3}\t{ttl}\t{batch:>8}"
            f"\t{host:>{40 if verbose else 8}}{tail}",
            "ceName": name,
            "status": "open",
            "maxRunning": str(running),
            "maxQueued": str(queued),
            "partitions": "",
            "TTL": ttl,
            "type": batch,
            "host": host,
        }
        for name, running, queued, ttl, batch, host in ces
    ]


def _headed(rows: Sequence[Row], last: str) -> list[Row]:
    width = max((len(row["ceName"]) for row in rows), default=0)
    head = f"CE Listing \n{'CE name':>{width}}\tStatus\tMax running\t Max queued\t  TTL\t    {last}"
    if not rows:
        return [{"message": head}]
    return [
        {**row, "message": row["message"] if n else f"{head}\n{row['message']}"} for n, row in enumerate(rows)
    ]


def list_partitions(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The partitions of the Grid: there are none."""
    head = "Partition listing\n Partition name"
    verbose = "v" in read_options("listpartitions", arguments).flags
    return text(f"{head}\t\t Member CEs" if verbose else head)


def set_site(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Say where the caller is."""
    if not arguments:
        return text(f"Keeping the current close site: {caller.site}")
    site = find_site(core.sites, arguments[0])
    if site is None:
        raise CommandFailed(EINVAL, f"There is no site {arguments[0]}")
    was, caller.site = caller.site, site.name
    return text(f"Setting close site to {site.name} (was {was})")


def df(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """What JAliEn has not either."""
    raise CommandFailed(ENOSYS)


def grid_status(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: sites with slots in use, SEs with pid and URL, jobs by state."""
    used = Counter(job.site for job in core.queue.active())
    rows: list[Row] = []
    for site in core.sites:
        se = core.storage[site.se]
        rows.append(
            {
                "site": site.name,
                "ce": site.ce,
                "slots": str(site.slots),
                "used": str(used[site.name]),
                "se": se.name,
                "pid": str(se.pid),
                "url": se.endpoint,
            }
        )
    states = Counter(job.status for job in core.queue.jobs())
    return Answer([*rows, *({"state": name, "jobs": str(count)} for name, count in states.items())])


async def grid_restart_se(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The embedded Grid's own: start the server of a storage element anew."""
    who = caller.identity
    if not caller.account.is_admin and (who.job or who.user != core.users.default.name):
        raise CommandFailed(EPERM, "Servers are started anew by administrators and the Grid's first user")
    found = find_se(core.sites, " ".join(arguments))
    if found is None:
        raise CommandFailed(ENOENT, f"There is no SE {' '.join(arguments)}")
    await core.storage[found.se].start()
    return Answer()


SITE_VERBS: dict[str, Verb] = {
    "df": df,
    "listSEs": list_ses,
    "listSEDistance": list_se_distance,
    "listCEs": list_ces,
    "listpartitions": list_partitions,
    "setSite": set_site,
}
SLOT_VERBS: dict[str, Verb] = {"jobListMatch": job_list_match, "gridStatus": grid_status}
