"""The wide-area network: who can dial whom, what its links do, and what is left of it."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gridproof.errors import LocalGridError
from gridproof.localgrid.network import wide
from gridproof.localgrid.network.namespaces import Namespace

pytestmark = pytest.mark.skipif(bool(wide.missing()), reason=wide.missing())
DELAY = 0.01
REFUSED_AFTER = 0.3


@pytest.fixture(scope="module")
def network():
    with wide.WideNetwork(sites=2, delay=DELAY) as made:
        yield made


@contextlib.contextmanager
def listening(namespace: Namespace, port: int):
    with namespace.entered():
        listener = socket.create_server(("", port))
    with listener:
        yield listener


def dial(namespace: Namespace, address: str, port: int, timeout: float = 10) -> socket.socket:
    with namespace.entered():
        return socket.create_connection((address, port), timeout=timeout)


def test_worker_nodes_dial_out_and_nobody_dials_in(network):
    site = network.sites[0]
    with listening(network.vobox, wide.PROXY_PORT) as server, listening(site.nodes, 4000):
        with dial(site.nodes, network.vobox_address, wide.PROXY_PORT), server.accept()[0] as seen:
            assert seen.getpeername()[0] == site.address  # the gateway's: it is masqueraded
        dialled = site.dialled()
        for port in (22, 4000):
            with pytest.raises(OSError, match="timed out"):
                dial(network.laptop, site.address, port, REFUSED_AFTER)
        assert site.dialled() > dialled
    assert set(site.received()) == {"proxy", "central", "own_se", "other_se", "others"}
    assert site.received()["proxy"] > 0


def test_the_vobox_is_open_on_its_own_ports_only(network):
    with listening(network.vobox, 20001), pytest.raises(OSError, match="timed out"):
        dial(network.sites[0].nodes, network.vobox_address, 20001, REFUSED_AFTER)


def test_storage_is_near_for_its_own_nodes_and_across_the_links_for_others(network):
    one, other = network.sites
    for site in network.sites:
        with site.nodes.entered(), pytest.raises(OSError, match="unreachable"):
            socket.create_connection(("192.0.2.1", 53))  # a name server, say
    with listening(one.gateway, wide.SE_PORT) as server:
        began = time.monotonic()
        for client in (other.nodes, network.laptop, one.nodes):
            with dial(client, one.address, wide.SE_PORT), server.accept()[0] as seen:
                seen.sendall(b"x" * 1000)
        assert time.monotonic() - began > 6 * DELAY  # two links each way, and one
    assert other.received()["other_se"] > 0
    assert other.received()["own_se"] == 0


def test_what_is_sent_during_a_cut_arrives_after_it(network):
    site = network.sites[0]
    with (
        listening(network.vobox, wide.PROXY_PORT) as server,
        dial(site.nodes, network.vobox_address, wide.PROXY_PORT) as node,
        server.accept()[0] as vobox,
    ):
        site.cut()
        node.sendall(b"still here")
        vobox.settimeout(REFUSED_AFTER)
        with pytest.raises(TimeoutError):
            vobox.recv(100)
        site.mend()
        vobox.settimeout(10)
        assert vobox.recv(100) == b"still here"


def test_a_command_that_fails_in_a_namespace_says_why(network):
    with pytest.raises(LocalGridError, match=r"ip link show nothing failed: .*nothing"):
        network.vobox.run("ip", "link", "show", "nothing")


OWNER = """
import os, time
from gridproof.localgrid import LocalGrid
from gridproof.localgrid.network.wide import WideNetwork
with WideNetwork(sites=1) as network:
    with network.vobox.entered():
        LocalGrid(sites=1, slots=1, network=network.network).start()
    (site,) = network.sites
    spaces = [network.vobox, network.laptop, site.gateway, site.nodes]
    print(*(os.readlink(space.path) for space in spaces), flush=True)
    time.sleep(1000)
"""


def residents(namespaces: list[str]) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and str((process / "ns" / "net").readlink()) in namespaces:
                found.append((process / "cmdline").read_text())
    return found


def test_nothing_is_left_when_its_owner_is_killed():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        namespaces = owner.stdout.readline().split()
        assert any("xrootd" in command for command in residents(namespaces))
        assert any("localgrid" in command for command in residents(namespaces))
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while residents(namespaces):
        assert time.monotonic() < deadline, residents(namespaces)
        time.sleep(0.05)
