"""Where pilots go, decided from where the bytes are, and the JDLs that send them there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl
from gridproof.alien.wire import REQUEST_LIMIT
from gridproof.errors import JdlError

_ROUNDS = 60  # of balancing replicated bytes; each brings an overfull site nearer to its capacity
_INPUT_BYTES = REQUEST_LIMIT - 10_000


@dataclass(frozen=True)
class PilotRequest:
    """So many pilots at sites that are close to one of these SEs (none: anywhere)."""

    ses: tuple[str, ...]
    count: int


def plan_pilots(
    workers: int,
    files: Sequence[tuple[int, tuple[str, ...]]],
    sites: Mapping[str, str],
    capacity: Mapping[str, int],
    cores: int = 1,
) -> list[PilotRequest]:
    """Share out ``workers`` over sites, in pilots of ``cores``, in proportion to the bytes there.

    ``files``: size in bytes (-1: unknown) and the SEs of each; ``sites``: the site of each SE, ``capacity``:
    how many pilots each site can run. Case does not matter in names. A replicated file counts for its sites
    in equal parts, less for one that is full. No site gets more than its capacity while another has room;
    without files, or with files on none of these SEs, all sites are alike. The counts add up to all workers.
    """
    pilots = math.ceil(workers / cores)
    site_of_se = {se.casefold(): site.upper() for se, site in sites.items()}
    room: dict[str, int] = {}
    for site, count in capacity.items():
        room[site.upper()] = room.get(site.upper(), 0) + max(count, 0)
    if not any(room.values()):  # nothing is known: nothing limits
        room = dict.fromkeys(site_of_se.values(), pilots)
    load = _balance(_bytes_by_sites(files, site_of_se), room, pilots)
    counts = _apportion(pilots, load, room)
    holding = {se.casefold() for _, ses in files for se in ses}
    requests = []
    for site in sorted(counts):
        here = sorted((se for se in sites if site_of_se[se.casefold()] == site), key=str.casefold)
        with_data = tuple(se for se in here if se.casefold() in holding)
        requests.append(PilotRequest(with_data or tuple(here), counts[site]))
    anywhere = sum(request.count for request in requests if not request.ses)
    return [r for r in requests if r.ses] + ([PilotRequest((), anywhere)] if anywhere else [])


def _bytes_by_sites(
    files: Sequence[tuple[int, tuple[str, ...]]], site_of_se: Mapping[str, str]
) -> dict[tuple[str, ...], float]:
    known = [size for size, _ in files if size >= 0]
    typical = max(sum(known) / len(known), 1.0) if known else 1.0
    groups: dict[tuple[str, ...], float] = {}
    for size, ses in files:
        where = tuple(sorted({site_of_se[se.casefold()] for se in ses if se.casefold() in site_of_se}))
        if where:
            groups[where] = groups.get(where, 0.0) + (size if size >= 0 else typical)
    return groups if sum(groups.values()) > 0 else {}


def _balance(
    groups: Mapping[tuple[str, ...], float], room: Mapping[str, int], pilots: int
) -> dict[str, float]:
    """Bytes that each site shall work on: replicated ones move away from sites that they would overfill."""
    weight = {site: float(room.get(site, 0) > 0) for where in groups for site in where}
    per_pilot = sum(groups.values()) / pilots
    load: dict[str, float] = {}
    for _ in range(_ROUNDS):
        load = dict.fromkeys(sorted(weight), 0.0)
        for where, size in groups.items():
            total = sum(weight[site] for site in where)
            for site in where:
                load[site] += size * weight[site] / total if total else size / len(where)
        limit = {site: room.get(site, 0) * per_pilot for site in load}
        overfull = {site: limit[site] / load[site] for site in load if load[site] > limit[site]}
        if not overfull:
            break
        for site, factor in overfull.items():
            weight[site] *= factor
    return load


def _apportion(pilots: int, load: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Whole pilots by largest remainder; beyond a site's room to the others, beyond all room by load."""
    counts: dict[str, int] = dict.fromkeys(sorted({*load, *room}), 0)
    if not counts:
        return {"": pilots}
    left = pilots
    while left:
        open_sites = [site for site in counts if counts[site] < room.get(site, 0)] or list(counts)
        full = not any(counts[site] < room.get(site, 0) for site in counts)
        weights = {s: load.get(s, 0.0) for s in open_sites if load.get(s, 0.0) > 0}
        weights = weights or dict.fromkeys(open_sites, 1.0)
        shares = _largest_remainder(left, weights)
        for site, share in shares.items():
            given = share if full else min(share, room.get(site, 0) - counts[site])
            counts[site] += given
            left -= given
    return {site: count for site, count in counts.items() if count}


def _largest_remainder(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    shares = {name: math.floor(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in rest[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def close_to(ses: Sequence[str]) -> Expression:
    """The requirement to be close to one of these SEs, as the broker's regular expressions read it."""
    return Expression("( " + " || ".join(f'member(other.CloseSE,"{se}")' for se in ses) + " )")


def pilot_jdl(
    request: PilotRequest,
    *,
    executable: str,
    tag: str,
    arguments: str = "",
    input_files: Sequence[str] = (),
    strategy: str = "production",
    lfns: Sequence[str] = (),
    cores: int = 1,
    ttl: int = 6 * 3600,
    memory: str = "4GB",
    price: float = 1.0,
    packages: Sequence[str] = (),
) -> Jdl:
    """The JDL of one request. ``executable`` and ``input_files`` are LFNs, ``ttl`` is in s.

    Strategy ``production`` asks for ``request.count`` pilots close to ``request.ses``; ``se`` splits over
    ``lfns`` by where they are, into about that many. Nothing is saved as output. Raises JdlError.
    """
    jdl = Jdl({"Executable": executable, "JobTag": (f"comment:{tag}",)})
    if arguments:
        jdl["Arguments"] = arguments
    if input_files:
        jdl["InputFile"] = tuple(f"LF:{lfn.removeprefix('LF:')}" for lfn in input_files)
    if packages:
        jdl["Packages"] = tuple(packages)
    jdl.update({"TTL": ttl, "CPUCores": str(cores), "MemorySize": memory, "Price": float(price)})
    if strategy == "production":
        jdl["Split"] = f"production:1-{request.count}"
        if request.ses:
            jdl["Requirements"] = close_to(request.ses)
    elif strategy == "se":
        if not lfns:
            raise JdlError(
                'strategy "se" splits over the LFNs of a dataset, and there are none: use "production"'
            )
        jdl["Split"] = "se"
        jdl["SplitMaxInputFileNumber"] = math.ceil(len(lfns) / max(request.count, 1))
        jdl["InputData"] = tuple(f"LF:{lfn.removeprefix('LF:')},nodownload" for lfn in lfns)
    else:
        raise JdlError(f'strategy is "production" or "se", not {strategy!r}')
    return jdl


def pilot_requests(
    requests: Sequence[PilotRequest], strategy: str, lfns: Sequence[str]
) -> Iterator[tuple[PilotRequest, Sequence[str]]]:
    """What to make a JDL of each, with its LFNs: a request as it is, or for ``se`` a run of all the LFNs.

    One JDL of strategy ``se`` serves all requests together; it is cut only where a command would be too long.
    """
    if strategy != "se" or not lfns:
        yield from ((request, lfns) for request in requests)
        return
    pilots = sum(request.count for request in requests)
    start = size = 0
    for place, lfn in enumerate([*lfns, ""]):
        length = len(lfn.encode()) + len('"LF:,nodownload",') + 2
        if place == len(lfns) or (place > start and size + length > _INPUT_BYTES):
            some = lfns[start:place]
            yield PilotRequest((), max(1, round(pilots * len(some) / len(lfns)))), some
            start, size = place, 0
        size += length
