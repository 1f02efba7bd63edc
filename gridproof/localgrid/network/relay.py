"""Wide-area links for kernels without ``netem``: pairs of TUN devices, packets delayed between them.

``python -I -S relay.py JSON``, where that is ``{"delay": seconds, "mtu": bytes, "links": [[[namespace,
device], [namespace, device]], …]}``, a namespace by the path of its file. One line on standard output says
that the devices are there; they go with this process, which ends with its standard input.
"""

import ctypes
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_AT_ONCE = 64  # packets read from one device before the others have their turn


def open_tun(namespace: str, device: str) -> int:
    """Make the device in the namespace, where this thread then is; a packet is one read or write."""
    there = os.open(namespace, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(there, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(there)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def relay(peers: dict[int, int], delay: float, mtu: int) -> None:
    """Pass packets on, each ``delay`` s after it came, until standard input ends."""
    waiting: deque[tuple[float, int, bytes]] = deque()
    watched = [0, *peers]
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select(watched, [], [], left)
        due = time.monotonic() + delay
        for source in ready:
            if source == 0:
                if not os.read(0, 4096):
                    return
                continue
            try:
                for _ in range(_AT_ONCE):
                    waiting.append((due, peers[source], os.read(source, mtu)))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, target, packet = waiting.popleft()
            try:
                os.write(target, packet)
            except OSError:  # the device is down: as on any link, the packet is lost
                continue


def main() -> int:
    """As the module says."""
    settings = json.loads(sys.argv[1])
    peers: dict[int, int] = {}
    for left, right in settings["links"]:
        one, other = open_tun(*left), open_tun(*right)
        peers |= {one: other, other: one}
    os.write(1, b"ready\n")
    relay(peers, settings["delay"], settings["mtu"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
