"""Which connections that have proved nothing may stay when there are too many (pure: no I/O, no clock)."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from operator import itemgetter
from typing import Generic, TypeVar

PATIENCE = 3.0  # s in which an honest peer has proved itself, even from afar

T = TypeVar("T", bound=Hashable)


class Strangers(Generic[T]):
    """At most ``limit`` of them. Who comes in a crowd from one address costs that crowd a place, nobody else.

    Within the crowd the oldest one goes, unless it has come just now: then the newcomer does. So a peer that
    shares the address of a crowd (a site behind NAT) gets in too, if it tries again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._origins: dict[T, str] = {}
        self._crowds: dict[str, dict[T, float]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._origins)

    def came(self, stranger: T, address: str, now: float) -> T | None:
        """One more, at ``now`` (s of any steady clock); returns the one that has to go, if any."""
        origin = _origin(address)
        self._origins[stranger] = origin
        self._crowds.setdefault(origin, {})[stranger] = now
        if len(self._origins) <= self._limit:
            return None
        most = max(len(crowd) for crowd in self._crowds.values())
        first = [next(iter(crowd.items())) for crowd in self._crowds.values() if len(crowd) == most]
        oldest, since = min(first, key=itemgetter(1))
        own = len(self._crowds[origin]) == most
        leaves = stranger if own and now - since < PATIENCE else oldest
        self.gone(leaves)
        return leaves

    def gone(self, stranger: T) -> None:
        """It is none any more: it has proved itself, or left."""
        origin = self._origins.pop(stranger, None)
        if origin is not None:
            crowd = self._crowds[origin]
            del crowd[stranger]
            if not crowd:
                del self._crowds[origin]


def _origin(address: str) -> str:
    """What counts as one address: of IPv6 the network that a household or a site has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
