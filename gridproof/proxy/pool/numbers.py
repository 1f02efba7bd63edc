"""Ports of the VO-box as numbers that are given to workers (pure: no I/O, no clock)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import IPv4Address

_FIRST_NAME = int(IPv4Address("127.1.0.1"))
_NAMES = (1 << 24) - (1 << 17)  # up to 127.254.255.255


class Numbers:
    """Gives each number of ``ports`` to one taker at a time, the least recently used first.

    A number that comes back rests for ``rest`` s: those who dialled its former holder must have noticed.
    """

    def __init__(self, ports: Iterable[int], rest: float) -> None:
        self._rest = rest
        self._free = deque((port, float("-inf")) for port in ports)  # and since when

    def take(self, now: float) -> int:
        """A number that nobody has; 0 when there is none."""
        if not self._free or now - self._free[0][1] < self._rest:
            return 0
        return self._free.popleft()[0]

    def give_back(self, number: int, now: float) -> None:
        """Its taker is gone; 0 is nobody's."""
        if number:
            self._free.append((number, now))


def contact(number: int, serial: int) -> str:
    """A worker's address for distributed, which needs one that no other worker of its session has.

    That of its ``number`` on the VO-box's loopback; without a number an address of the loopback made from
    ``serial``. Nothing listens there: the scheduler does not dial workers that run no Dask tasks.
    """
    if number:
        return f"tls://127.0.0.1:{number}"
    return f"tls://{IPv4Address(_FIRST_NAME + serial % _NAMES)}:1"
