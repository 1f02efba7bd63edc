"""A wide-area network on one machine: sites behind NAT and firewalls, a VO-box, a laptop, slow links.

Each place is a network namespace. The links to the sites have a rate and a delay. Nobody can dial a site but
its storage element; worker nodes dial out and are masqueraded. The VO-box takes connections to the
ProxyServer and to the Grid's central service only, the laptop none at all::

    laptop ──┐                          ┌── gateway and SE of Site1 ── its worker nodes
             ├── backbone ── (links) ───┤
    VO-box ──┘                          └── gateway and SE of Site2 ── its worker nodes
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from gridproof import processes
from gridproof.errors import LocalGridError
from gridproof.localgrid.network.namespaces import Namespace
from gridproof.localgrid.sites import GridNetwork, SiteNetwork

PROXY_PORT = 20000
CENTRAL_PORT = 8097  # as JAliEn's
SE_PORT = 1094
MTU = 9000
# There are no routes to anything else: who asks a name server is told at once that it cannot be reached.
_WORLD = "100.64.0.0/16"
_VOBOX, _LAPTOP = "100.64.0.1", "100.64.100.1"
_PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "nsenter": "util-linux"}

_GATEWAY = """
table inet firewall {{
  counter dialled {{}}
  chain cut_in {{ type filter hook prerouting priority raw; }}
  chain cut_out {{ type filter hook postrouting priority 300; }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname {{ "lo", "nodes" }} accept
    ct state established,related accept
    tcp dport {se_port} accept
    counter name dialled
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "nodes" oifname "wan" accept
    counter name dialled
  }}
}}
table ip nat {{
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "wan" masquerade
  }}
}}
"""

# What comes back to the nodes, by where from: named counters for each peer that they may have.
_NODES = """
table inet firewall {{
  counter proxy {{}}
  counter central {{}}
  counter own_se {{}}
  counter other_se {{}}
  counter others {{}}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state related accept
    ct state established ip saddr {vobox} tcp sport {proxy_port} counter name proxy accept
    ct state established ip saddr {vobox} tcp sport {central_port} counter name central accept
    ct state established ip saddr {own_se} tcp sport {se_port} counter name own_se accept
    ct state established ip saddr {world} tcp sport {se_port} counter name other_se accept
    counter name others
  }}
}}
"""

_LEAF = """
table inet firewall {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    {accepted}
  }}
}}
"""


def missing() -> str:
    """Why this process cannot make such a network; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces with firewalls need Linux and root"
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking:
        packages = sorted({_PROGRAMS[name] for name in lacking})
        return f"{', '.join(lacking)} not found in PATH (Debian: apt-get install {' '.join(packages)})"
    try:
        probe = Namespace()
    except LocalGridError as error:
        return str(error)
    try:
        probe.run("nft", "add", "table", "inet", "probe")
        if not _has_netem(probe) and not Path("/dev/net/tun").exists():
            return "the kernel has neither netem nor TUN devices to delay packets with"
    except LocalGridError as error:
        return str(error)
    finally:
        probe.close()
    return ""


class WideSite:
    """A site: ``gateway`` (NAT, firewall, storage element) and ``nodes`` behind it."""

    def __init__(self, number: int, gateway: Namespace, nodes: Namespace) -> None:
        self.address = f"100.64.{number}.1"  # of the gateway, and of all that comes from the site
        self.gateway = gateway
        self.nodes = nodes

    @property
    def network(self) -> SiteNetwork:
        """As the embedded Grid wants it."""
        return SiteNetwork(self.nodes.command, self.gateway.command, self.address, SE_PORT)

    def cut(self) -> None:
        """From now on its link loses all packets, in both directions."""
        self.gateway.run(
            *("nft", "add rule inet firewall cut_in iifname wan drop;"),
            "add rule inet firewall cut_out oifname wan drop",
        )

    def mend(self) -> None:
        """Its link carries packets again."""
        self.gateway.run("nft", "flush chain inet firewall cut_in; flush chain inet firewall cut_out")

    def received(self) -> dict[str, int]:
        """Bytes that came to its worker nodes since their start, by peer.

        ``proxy``, ``central``, ``own_se``, ``other_se``, and ``others``: from anybody else, and dropped.
        """
        return _counters(self.nodes)

    def dialled(self) -> int:
        """Bytes of attempts to connect to it from outside, which were dropped."""
        return _counters(self.gateway)["dialled"]


class WideNetwork:
    """Use as a context manager; ``rate`` in bit/s, ``delay`` in s, each way, of each site's link.

    ``delayed_by``: ``netem``, or ``relay`` (in `network.relay`) where the kernel has none.

    Raises:
        LocalGridError: it cannot be made; nothing of it is left.
    """

    def __init__(self, sites: int = 2, rate: int = 100_000_000, delay: float = 0.01) -> None:
        self._count = sites
        self._rate = rate
        self._delay = delay
        self._stack = contextlib.ExitStack()
        self.delayed_by = ""
        self.vobox: Namespace
        self.laptop: Namespace
        self.sites: tuple[WideSite, ...] = ()

    def __enter__(self) -> WideNetwork:
        if reason := missing():
            raise LocalGridError(f"no wide-area network can be made here: {reason}")
        with contextlib.ExitStack() as undo:
            undo.callback(self._stack.close)
            self._make()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def network(self) -> GridNetwork:
        """What a `LocalGrid` that is started inside ``vobox`` is told."""
        return GridNetwork(_VOBOX, CENTRAL_PORT, tuple(site.network for site in self.sites))

    @property
    def vobox_address(self) -> str:
        return _VOBOX

    def _namespace(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made

    def _make(self) -> None:
        backbone = self._namespace()
        _forward(backbone)
        self.vobox, self.laptop = self._namespace(), self._namespace()
        services = f"tcp dport {{ {PROXY_PORT}, {CENTRAL_PORT} }} accept"
        for leaf, name, address, accepted in (
            (self.vobox, "vobox", _VOBOX, services),
            (self.laptop, "laptop", _LAPTOP, ""),
        ):
            _veth(backbone, name, leaf, "wan")
            _connect(backbone, name, leaf, "wan", address)
            leaf.run("nft", "-f", "-", stdin=_LEAF.format(accepted=accepted))
        numbers = range(1, self._count + 1)
        self.sites = tuple(WideSite(n, self._namespace(), self._namespace()) for n in numbers)
        self._link(backbone)
        for number, site in zip(numbers, self.sites, strict=True):
            _connect(backbone, f"site{number}", site.gateway, "wan", site.address)
            _forward(site.gateway)
            _veth(site.gateway, "nodes", site.nodes, "lan")
            _connect(site.gateway, "nodes", site.nodes, "lan", f"10.0.{number}.1")
            site.gateway.run("nft", "-f", "-", stdin=_GATEWAY.format(se_port=SE_PORT))
            rules = _NODES.format(
                vobox=_VOBOX,
                world=_WORLD,
                proxy_port=PROXY_PORT,
                central_port=CENTRAL_PORT,
                own_se=site.address,
                se_port=SE_PORT,
            )
            site.nodes.run("nft", "-f", "-", stdin=rules)

    def _link(self, backbone: Namespace) -> None:
        """The sites' links: a device ``siteN`` at the backbone, a device ``wan`` at the gateway."""
        ends = [((backbone, f"site{n}"), (s.gateway, "wan")) for n, s in enumerate(self.sites, start=1)]
        self.delayed_by = "netem" if _has_netem(backbone) else "relay"
        shape = ("tbf", "rate", str(self._rate), "burst", "128kb", "latency", "100ms")
        if self.delayed_by == "relay":
            self._relay([[(n.path, device) for n, device in pair] for pair in ends])
        for pair in ends:
            if self.delayed_by == "netem":
                _veth(*pair[0], *pair[1])
            for namespace, device in pair:
                qdisc = ("tc", "qdisc", "add", "dev", device)
                if self.delayed_by == "relay":
                    namespace.run(*qdisc, "root", *shape)
                else:
                    delay = ("netem", "delay", f"{1e6 * self._delay:.0f}us", "limit", "10000")
                    namespace.run(*qdisc, "root", "handle", "1:", *delay)
                    namespace.run(*qdisc, "parent", "1:1", *shape)

    def _relay(self, links: Sequence[Sequence[tuple[str, str]]]) -> None:
        settings = json.dumps({"delay": self._delay, "mtu": MTU, "links": links})
        program = str(Path(__file__).with_name("relay.py"))
        argv = [sys.executable, "-I", "-S", program, settings]
        process = processes.spawn(argv, stdout=subprocess.PIPE)
        self._stack.callback(processes.stop, process)
        assert process.stdout
        self._stack.callback(process.stdout.close)
        if process.stdout.readline() != b"ready\n":
            raise LocalGridError("the relay of the wide-area links did not start; its words are above")


def _has_netem(namespace: Namespace) -> bool:
    try:
        namespace.run("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "0ms")
    except LocalGridError:
        return False
    namespace.run("tc", "qdisc", "del", "dev", "lo", "root")
    return True


def _forward(namespace: Namespace) -> None:
    with namespace.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _veth(one: Namespace, device: str, other: Namespace, other_device: str) -> None:
    one.run("ip", "link", "add", device, "type", "veth", "peer", "name", other_device, "netns", other.path)


def _connect(router: Namespace, device: str, leaf: Namespace, leaf_device: str, address: str) -> None:
    """Give both ends addresses; the leaf sends everything through the router."""
    via = f"{address.rpartition('.')[0]}.254"
    for namespace, name, own in ((router, device, via), (leaf, leaf_device, address)):
        namespace.run("ip", "address", "add", f"{own}/24", "dev", name)
        namespace.run("ip", "link", "set", name, "mtu", str(MTU), "up")
    leaf.run("ip", "route", "add", _WORLD, "via", via)


def _counters(namespace: Namespace) -> dict[str, int]:
    listed = json.loads(namespace.run("nft", "-j", "list", "counters"))["nftables"]
    found = (entry["counter"] for entry in listed if "counter" in entry)
    return {counter["name"]: counter["bytes"] for counter in found}
