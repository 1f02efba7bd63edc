"""Where pilots go, decided from where the bytes are, and the JDLs that send them there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gridproof.alien.jdl import Expression, Jdl
from gridproof.alien.wire import REQUEST_LIMIT
from gridproof.errors import JdlError

_ROUNDS = 60  # of balancing replicated bytes; each brings an overfull site nearer to its capacity
_INPUT_BYTES = REQUEST_LIMIT - 10_000
_READABLE_SE = re.compile(r"\w+::[\w-]+::[\w+-]+", re.ASCII)  # what the broker's regular expression takes
_READABLE_CE = re.compile(r'[^"\s]+')


@dataclass(frozen=True)
class PilotRequest:
    """So many pilots at sites that are close to one of ``ses``, in one of ``ces`` (none: anywhere).

    With ``lfns``, as many as pilots, each goes to where one of these files is.
    """

    ses: tuple[str, ...]
    count: int
    ces: tuple[str, ...] = ()
    lfns: tuple[str, ...] = ()

    def __str__(self) -> str:
        pilots = f"{self.count} pilot{'s' if self.count > 1 else ''}"
        if self.lfns:
            return f"{pilots}, one close to each file of InputData"
        return f"{pilots} close to {', '.join(self.ses)}" if self.ses else f"{pilots} anywhere"


def plan_pilots(
    pilots: int,
    files: Sequence[tuple[int, tuple[str, ...]]],
    sites: Mapping[str, str],
    capacity: Mapping[str, int],
) -> list[PilotRequest]:
    """Share out so many pilots over sites, in proportion to the bytes there.

    ``files``: size in bytes (-1: unknown) and the SEs of each; ``sites``: the site of each SE, ``capacity``:
    how many pilots each site can run. Case does not matter in names. A replicated file counts for its sites
    in equal parts, less for one that is full. No site gets more than its capacity while another has room;
    without files, or with files on none of these SEs, all sites are alike. The counts add up to all pilots.
    An SE whose name AliEn's broker would not read is as good as none.
    """
    site_of_se = {se.casefold(): site.upper() for se, site in sites.items() if _READABLE_SE.fullmatch(se)}
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
        here = sorted((se for se in sites if site_of_se.get(se.casefold()) == site), key=str.casefold)
        with_data = tuple(se for se in here if se.casefold() in holding)
        requests.append(PilotRequest(with_data or tuple(here), counts[site]))
    anywhere = sum(request.count for request in requests if not request.ses)
    return [r for r in requests if r.ses] + ([PilotRequest((), anywhere)] if anywhere else [])


def plan_by_files(pilots: int, files: Sequence[tuple[str, tuple[str, ...]]]) -> list[PilotRequest]:
    """A file for each pilot, chosen evenly from all by where they are; AliEn sends it to one of its SEs.

    ``files``: LFN and SEs of each. One JDL serves for many pilots, but names no file twice, and must not be
    longer than a command. Raises JdlError without files.
    """
    places = {lfn: sorted(se.casefold() for se in ses) for lfn, ses in files}
    ordered = sorted(places, key=lambda lfn: (places[lfn], lfn))
    if not ordered:
        raise JdlError('strategy "se" goes by the LFNs of a dataset, and there are none: use "production"')
    requests = []
    while pilots:
        count = min(pilots, len(ordered))
        chosen = [ordered[(2 * number + 1) * len(ordered) // (2 * count)] for number in range(count)]
        requests += [PilotRequest((), len(some), lfns=tuple(some)) for some in _runs(chosen)]
        pilots -= count
    return requests


def _runs(lfns: Sequence[str]) -> Iterator[Sequence[str]]:
    """The LFNs in runs that each fit into one command."""
    start = size = 0
    for place, lfn in enumerate(lfns):
        length = len(lfn.encode()) + len('"LF:,nodownload",') + 2
        if place > start and size + length > _INPUT_BYTES:
            yield lfns[start:place]
            start, size = place, 0
        size += length
    yield lfns[start:]


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


def requirements(ses: Sequence[str], ces: Sequence[str] = ()) -> Expression | None:
    """To be close to one of these SEs and in one of these CEs, as the broker's regular expressions read it.

    They ignore ``&&``, ``||`` and brackets, take the SEs for alternatives and the CEs likewise, and drop
    without a word what they do not know. So nothing is negated here: ``!member(…)`` means nothing where no
    SE is wanted, and a site is left out by naming the others. Raises JdlError for a name they do not read.
    """
    terms = []
    for names, readable, term in (
        (ses, _READABLE_SE, 'member(other.CloseSE,"{}")'),
        (ces, _READABLE_CE, 'other.CE == "{}"'),
    ):
        if unreadable := [name for name in names if not readable.fullmatch(name)]:
            raise JdlError(f"Requirements: AliEn's broker does not read the name {unreadable[0]!r}")
        if names:
            terms.append(f"( {' || '.join(term.format(name) for name in names)} )")
    return Expression(" && ".join(terms)) if terms else None


def pilot_jdl(
    request: PilotRequest,
    *,
    executable: str,
    tag: str,
    input_files: Sequence[str] = (),
    cores: int = 1,
    ttl: int = 6 * 3600,
    memory: str = "4GB",
    price: float = 1.0,
    packages: Sequence[str] = (),
) -> Jdl:
    """The JDL of one request: a master that AliEn splits into ``request.count`` pilots.

    ``executable`` and ``input_files`` are LFNs, ``ttl`` is in s. Nothing is saved as output. Raises JdlError.
    """
    jdl = Jdl({"Executable": executable, "JobTag": (f"comment:{tag}",)})
    if input_files:
        jdl["InputFile"] = tuple(f"LF:{lfn.removeprefix('LF:')}" for lfn in input_files)
    if packages:
        jdl["Packages"] = tuple(packages)
    jdl.update({"TTL": ttl, "CPUCores": str(cores), "MemorySize": memory, "Price": float(price)})
    if request.lfns:
        jdl.update({"Split": "se", "SplitMaxInputFileNumber": 1})
        jdl["InputData"] = tuple(f"LF:{lfn.removeprefix('LF:')},nodownload" for lfn in request.lfns)
    else:
        jdl["Split"] = f"production:1-{request.count}"
    required = requirements(request.ses, request.ces)
    if required:
        jdl["Requirements"] = required
    return jdl
