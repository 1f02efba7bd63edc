"""Which sites there are, what they are called, and how far they are from each other."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

VO = "Local"
LOOPBACK = "127.0.0.1"
JOB_TTL_LIMIT = 87_000  # s a slot lasts, as CEs publish it


@dataclass(frozen=True)
class SiteNetwork:
    """Where a site is: the commands before those of its worker nodes and of its SE (``nsenter --net=…``).

    ``se_address``: the SE's, from everywhere; ``se_port`` 0: any free one.
    """

    nodes: tuple[str, ...] = ()
    se: tuple[str, ...] = ()
    se_address: str = LOOPBACK
    se_port: int = 0


@dataclass(frozen=True)
class GridNetwork:
    """A Grid that is not all on the loopback: where its central service listens, and where its sites are."""

    address: str = LOOPBACK
    port: int = 0  # any free one
    sites: tuple[SiteNetwork, ...] = ()


@dataclass(frozen=True)
class Site:
    """A site: ``number`` from 1, ``slots`` jobs at once with ``cores`` CPU cores each."""

    number: int
    slots: int
    cores: int
    network: SiteNetwork = field(default_factory=SiteNetwork)

    @property
    def name(self) -> str:
        return f"Site{self.number}"

    @property
    def ce(self) -> str:
        return f"{VO}::{self.name}::CE"

    @property
    def se(self) -> str:
        return f"{VO}::{self.name}::SE"

    @property
    def queued(self) -> int:
        """How many agents may wait for a slot."""
        return math.ceil(self.slots / 10)

    @property
    def batch(self) -> str:
        """The batch system, as JAliEn calls one that only starts processes."""
        return "FORK"

    @property
    def host(self) -> str:
        """Where its computing element is."""
        return socket.gethostname()

    @property
    def close_ses(self) -> tuple[str, ...]:
        return (self.se,)


@dataclass(frozen=True)
class Slot:
    """What the broker is offered: a slot that lasts ``ttl`` s more, on a node with ``disk`` MB free."""

    site: Site
    ttl: float = JOB_TTL_LIMIT
    disk: float = math.inf
    packages: frozenset[str] = frozenset()


def make_sites(count: int, slots: int, cores: int, networks: Sequence[SiteNetwork] = ()) -> tuple[Site, ...]:
    """``count`` sites alike, on the loopback where they have no networks of their own.

    Each SE has an address there: XRootD's clients, which look for another replica when one cannot be read,
    take all servers of one address for one.
    """
    loopback = (SiteNetwork(se_address=str(IPv4Address(LOOPBACK) + place)) for place in range(count))
    where = [*networks, *loopback]
    return tuple(Site(number, slots, cores, where[number - 1]) for number in range(1, count + 1))


def site_of(name: str) -> str:
    """The site in ``VO::SITE::NAME``; anything else is taken for a site's name itself."""
    parts = name.split("::")
    return parts[1] if len(parts) == 3 else name


def distance(site: str, se: str) -> float:
    """0 at home, 0.5 elsewhere; without a site everything is equally near."""
    return 0.0 if not site or site_of(se).casefold() == site.casefold() else 0.5


def by_distance(site: str, ses: Iterable[str]) -> list[str]:
    """SEs, nearest first; those equally near stay in their order."""
    return sorted(ses, key=lambda se: distance(site, se))


def find_se(sites: Sequence[Site], name: str) -> Site | None:
    """The site whose SE has this name, in whatever case."""
    return next((s for s in sites if s.se.casefold() == name.casefold()), None)


def find_site(sites: Sequence[Site], name: str) -> Site | None:
    """The site of this name or the one of this CE or SE, in whatever case."""
    return next((s for s in sites if s.name.casefold() == site_of(name).casefold()), None)
