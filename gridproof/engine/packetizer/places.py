"""What the packetizer keeps of each site, worker and file (pure; plain state, without decisions)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

SHARES = 60  # an unstarted file's work is divided evenly among its sites: 60 divides by 1 to 6


class Placed(NamedTuple):
    """A file as it is given: bytes (−1: unknown), sites and nodes that hold a replica, and if that is known
    its entries (else −1) and the first ones of its clusters."""

    size: int
    sites: Iterable[str]
    entries: int = -1
    clusters: Sequence[int] = ()
    hosts: Collection[str] = ()


class Site:
    """A site: its workers, and what of its files nobody has been given yet."""

    __slots__ = (
        "behind",
        "beside",
        "bytes",
        "left",
        "links",
        "name",
        "order",
        "rate",
        "rated",
        "returned",
        "served",
        "shared",
        "unstarted",
        "workers",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.workers = 0
        self.rated = 0  # workers whose rate is known,
        self.rate = 0.0  # and their entries per second, read at this site
        self.links: dict[str, float] = {}  # by source: rate over the rate at home
        self.served = 0.0  # when one of its workers last got a packet of its files
        self.left = 0  # entries of its files, in 1/SHARES
        self.bytes = 0  # of its files that nobody has opened, likewise
        self.unstarted = 0  # files
        self.beside: dict[
            Site, list[File]
        ] = {}  # those, by another holder; under itself those it alone holds
        self.order: list[Site] = []  # of `beside`, furthest behind last
        self.shared: list[tuple[float, int, File]] = []  # heap: started files by −(entries left per reader)
        self.returned: deque[int] = deque()  # packets, some of which are no longer there
        self.behind = 0.0  # seconds of work, at the last survey


class Node:
    """A worker node: the files that lie on it."""

    __slots__ = ("started", "unstarted")

    def __init__(self) -> None:
        self.unstarted: list[File] = []  # some of them started by now
        self.started: list[File] = []  # by this node; some of them at their end by now


class File:
    """A file: what is known of it and how far it is cut into packets."""

    __slots__ = (
        "avoid",
        "avoided_by",
        "clusters",
        "dropped",
        "entries",
        "home",
        "hosts",
        "index",
        "next",
        "readers",
        "share",
        "sites",
        "size",
        "started",
    )

    def __init__(self, index: int, size: int, sites: tuple[Site, ...], hosts: Collection[str]) -> None:
        self.index = index
        self.hosts = hosts
        self.size = size
        self.sites = sites
        self.share = max(1, SHARES // len(sites))
        self.entries = -1  # until somebody has opened it, or a hint says
        self.clusters: Sequence[int] = ()
        self.next = 0  # entries before this one are in packets
        self.started = False  # a packet of it has been given out
        self.home: Site | None = None  # the site that has started it, whose work it is since
        self.dropped = False
        self.readers = 0
        self.avoided_by: frozenset[Worker] = frozenset()  # those that failed on it
        self.avoid: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        """Entries that are in no packet yet, as far as is known."""
        return max(0, self.entries - self.next)


class Worker:
    """A worker: how fast it is and what it holds."""

    __slots__ = (
        "avoids",
        "file",
        "host",
        "left",
        "local",
        "meters",
        "name",
        "pace",
        "queue",
        "ran",
        "since",
        "site",
        "watched",
    )

    def __init__(self, name: str, site: Site, host: str) -> None:
        self.name = name
        self.site = site
        self.host = host
        self.meters: dict[str, Meter] = {}  # by source
        self.pace = 0.0  # entries per second lately, wherever it read; 0 while unknown
        self.local = 0.0  # the same for files of its own site, perhaps inferred
        self.file: File | None = None
        self.queue: dict[int, float] = {}  # packets to run, the first one now; seconds expected
        self.ran: dict[int, float] = {}  # packets run and not committed; seconds expected
        self.since = -1.0  # when it began the first of the queue, −1: not known to have begun
        self.left = math.inf  # seconds that it has for more than it holds
        self.watched = False
        self.avoids: list[File] = []


class Meter:
    """Entries per second of one worker reading from one site; what is older weighs less."""

    __slots__ = ("entries", "packets", "rate", "seconds")

    MEMORY = 2.0  # seconds of work after which a measurement weighs half

    def __init__(self) -> None:
        self.entries = 0.0
        self.seconds = 0.0
        self.rate = 0.0
        self.packets = 0

    def add(self, entries: int, seconds: float) -> None:
        """Count one packet."""
        keep = 0.5 ** (seconds / self.MEMORY)
        self.entries = self.entries * keep + entries
        self.seconds = self.seconds * keep + seconds
        self.rate = self.entries / self.seconds
        self.packets += 1
