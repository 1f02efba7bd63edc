"""Whole sessions through real firewalls: sites behind NAT, in network namespaces, with slow links."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import asyncssh
import psutil
import pytest
import yaml

import gridproof
from gridproof.errors import ProxyError, SessionError
from gridproof.localgrid import Limits, LocalGrid
from gridproof.localgrid.client import GridAccess
from gridproof.localgrid.network.wide import PROXY_PORT, WideNetwork, missing
from gridproof.proxy.versions import here

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(300)]

SITES, CORES = 2, 2  # a pilot at each site, with two workers
WORKERS = SITES * CORES
FORWARDS = (20001, 20002)  # fewer than workers
CUT_SECONDS = 20
LOST_AFTER = 8  # s
FLAT = 4 << 20  # bytes of memory, after 150 more strangers
FILES, ENTRIES, TRACKS = 8, 40_000, 30  # 5 MB each


class ProxyServer:
    """The one on the VO-box, as `gridproof proxy` runs it there."""

    def __init__(self, vobox, directory, grid_cas):
        key = asyncssh.generate_private_key("ssh-ed25519")
        self.key_file = directory / "id_ed25519"
        self.key_file.touch(0o600)
        self.key_file.write_bytes(key.export_private_key())
        self._vobox = vobox
        self._file = directory / "proxy.yaml"
        self._settings = {
            "users": {"jdoe": [key.export_public_key().decode()]},
            "accounts": {"jdoe": None},
            "host": "0.0.0.0",
            "port": PROXY_PORT,
            "state_dir": str(directory / "state"),
            "cache_dir": str(directory / "cache"),
            "grid_cas": str(grid_cas),
            "forward_ports": list(FORWARDS),
        }

    def start(self, **settings):
        """Until it listens; returns its host key."""
        self._file.write_text(yaml.safe_dump({**self._settings, **settings}))
        argv = [*self._vobox.command, sys.executable, "-m", "gridproof.cli", "proxy", "--config", self._file]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        return yaml.safe_load(self.process.stdout.readline())["host_key"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Wide:
    """A Grid whose sites are behind firewalls, the ProxyServer of its VO-box, and files on it."""

    network: WideNetwork
    grid: LocalGrid
    proxy: ProxyServer
    world: object

    @property
    def url(self):
        """The ProxyServer, as a laptop names it."""
        return f"proxy://jdoe@{self.network.vobox_address}"

    def received(self):
        """Bytes that have come to worker nodes, by peer, of all sites."""
        by_site = [site.received() for site in self.network.sites]
        return {peer: sum(counted[peer] for counted in by_site) for peer in by_site[0]}

    def urls(self):
        """The files as URLs, which tell nothing of sites."""
        with GridAccess(self.grid.environment) as access:
            lfns = [f"/local/data/{file.name}" for file in self.world.files]
            permits = [access.command("access", "read", lfn)[0] for lfn in lfns]
            return [f"{permit['url']}?authz={permit['envelope']}" for permit in permits]


@pytest.fixture(scope="module")
def wide(tmp_path_factory, new_world):
    directory = tmp_path_factory.mktemp("wide")
    directory.chmod(0o755)
    with (
        WideNetwork(SITES) as network,
        pytest.MonkeyPatch.context() as patch,
    ):
        limits = Limits(report_interval=0.5)
        grid = LocalGrid(sites=SITES, slots=1, cores=CORES, network=network.network, limits=limits)
        with network.vobox.entered():
            grid.start()
        proxy = ProxyServer(network.vobox, directory, grid.root / "certificates")
        try:
            host_key = proxy.start()
            settings = {
                "proxy": {
                    "host": network.vobox_address,
                    "host_key": host_key,
                    "key_file": str(proxy.key_file),
                },
                "pilots": {"python": sys.executable, "cores": CORES},
            }
            (directory / "gridproof.yaml").write_text(yaml.safe_dump(settings))
            patch.setenv("GRIDPROOF_CONFIG", str(directory / "gridproof.yaml"))
            for name, value in grid.environment.items():
                patch.setenv(name, value)
            world = new_world(grid, directory, FILES, ENTRIES, TRACKS)
            for number, file in enumerate(world.files):
                with network.vobox.entered():
                    grid.put(file, f"/local/data/{file.name}", ses=[grid.se_names[number * SITES // FILES]])
            with network.laptop.entered():
                yield Wide(network, grid, proxy, world)
        finally:
            proxy.kill()
            grid.stop()


@pytest.fixture(scope="module")
def session(wide):
    """With the selector compiled at both sites: they need not come to that at the same time."""
    world = wide.world
    with gridproof.open(wide.url, workers=WORKERS, dataset=world.pattern, tree="events") as opened:
        world.assert_exact(opened.process(opened.dataset(world.pattern, tree="events"), world.selector))
        yield opened


def pids(session):
    return {worker.name: worker.pid for worker in session.workers}


def process(session, wide, dataset):
    """Process it; returns the share of bytes that were read at the own site, as the firewalls count them."""
    before = wide.received()
    result = session.process(session.dataset(dataset, tree="events"), wide.world.selector, "wait")
    wide.world.assert_exact(result)
    came = {peer: after - before[peer] for peer, after in wide.received().items()}
    share = came["own_se"] / (came["own_se"] + came["other_se"])
    print(f"{share:.0%} by the firewalls; {result.summary}")
    return share


def test_a_session_works_through_one_port_and_reads_at_home(session, wide):
    print(f"wide-area links: 100 Mbit/s, 10 ms each way by {wide.network.delayed_by}")
    assert {worker.site for worker in session.workers} == {"Site1", "Site2"}
    assert {worker.way for worker in session._link.status().workers.values()} == {"tunnel"}
    assert process(session, wide, wide.world.pattern) >= 0.95
    assert wide.received()["others"] == 0
    assert [site.dialled() for site in wide.network.sites] == [0, 0]


def test_without_locality_the_bytes_come_across_the_links(session, wide):
    assert process(session, wide, wide.urls()) < 0.9
    assert wide.received()["others"] == 0


def test_a_full_range_of_ports_costs_ways_to_workers_and_no_worker(session, wide):
    numbers = {name: worker.number for name, worker in session._link.status().workers.items()}
    assert sorted(numbers.values()) == [0, 0, *FORWARDS]
    for name, number in numbers.items():
        if number:
            assert session.forward(name).address
        else:
            with pytest.raises(ProxyError, match="none of the VO-box's ports 20001 to 20002 is free"):
                session.forward(name)
    process(session, wide, wide.world.pattern)


def test_a_cut_of_a_sites_link_in_the_middle_of_a_query_costs_no_worker(session, wide):
    site = wide.network.sites[0]
    before = pids(session)
    data = session.dataset(wide.world.pattern, tree="events")
    query = session.submit(data, wide.world.selector, "wait  ")
    while not query.progress.events:
        query.wait(0.1)
    site.cut()
    try:
        assert not query.wait(CUT_SECONDS), "the query was over before the cut"
    finally:
        site.mend()
    result = query.result()
    print(result.summary)
    wide.world.assert_exact(result)
    assert pids(session) == before


async def rubbish(reader, writer):
    writer.write(os.urandom(100_000))
    await reader.read()


async def a_huge_frame(reader, writer):
    writer.write(b"SSH-2.0-stranger\r\n" + (0xFFFF_FFF0).to_bytes(4, "big") + bytes(1_000_000))
    await reader.read()


async def nothing(reader, writer):
    await reader.read()


async def slow_talk(reader, writer):
    while not reader.at_eof():
        writer.write(b"S")
        await asyncio.sleep(0.05)


async def visit(address, do):
    """One stranger's connection, until the server closes it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with contextlib.suppress(ConnectionError):
            await do(reader, writer)
    finally:
        writer.close()


async def show_a_wrong_key(address, user):
    key = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            *address, username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None
        )


async def fifty_strangers(address):
    """At once; when all that are to be turned away at once have been, those who only linger hang up."""
    lingering = [asyncio.create_task(visit(address, do)) for do in (nothing, slow_talk) * 10]
    users = ("user:jdoe", "join:0011223344556677", "pilot:1-0011223344556677", "root", "")
    await asyncio.gather(
        *(visit(address, do) for do in (rubbish, a_huge_frame) * 10),
        *(show_a_wrong_key(address, user) for user in users * 2),
    )
    for task in lingering:
        task.cancel()
    await asyncio.gather(*lingering, return_exceptions=True)


def test_strangers_disturb_nobody_and_cost_no_memory(session, wide):
    before = pids(session)
    server = psutil.Process(wide.proxy.process.pid)
    data = session.dataset(wide.world.pattern, tree="events")
    query = session.submit(data, wide.world.selector, "wait")
    used = []
    for _ in range(4):
        asyncio.run(fifty_strangers((wide.network.vobox_address, PROXY_PORT)))
        used.append(server.memory_info().rss)
    wide.world.assert_exact(query.result())
    assert pids(session) == before
    print(f"memory of the ProxyServer after each fifty: {[size >> 20 for size in used]} MiB")
    assert used[-1] - used[0] < FLAT


async def open_without_submitting(endpoint):
    """A session, once pilots that have come back can give all of its workers."""
    proxy = await endpoint.connect()
    await proxy.open_session(here(), WORKERS, session="again")
    while await proxy.at_hand("again") < WORKERS:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await proxy.close()


@contextlib.contextmanager
def after_a_restart(session, wide, **settings):
    """The ProxyServer is killed and started anew; a session on the pilots that have come back to it."""
    wide.proxy.kill()
    wide.proxy.start(**settings)
    asyncio.run(open_without_submitting(session._link.place.proxy))
    with gridproof.attach("again", wide.url) as opened:
        yield opened


def test_pilots_come_back_to_a_proxy_server_that_was_killed(session, wide):
    data = session.dataset(wide.world.pattern, tree="events")
    query = session.submit(data, wide.world.selector, "wait")
    while not query.progress.events:
        query.wait(0.1)
    with after_a_restart(session, wide) as again:
        with pytest.raises(SessionError, match="open a new session"):
            query.result()
        process(again, wide, wide.world.pattern)


def test_a_site_that_is_cut_off_for_good_costs_its_workers_and_not_the_query(session, wide):
    lost = wide.network.sites[1]
    world = replace(wide.world, files=wide.world.files[:4], events=4 * ENTRIES)
    for file in world.files:
        wide.grid.put(file, f"/local/both/{file.name}", ses=wide.grid.se_names)
    with after_a_restart(session, wide, lost_after=LOST_AFTER) as again:
        data = again.dataset("/local/both/*.root", tree="events")
        query = again.submit(data, world.selector, "wait for it")
        while not query.progress.events:
            query.wait(0.1)
        lost.cut()
        world.assert_exact(query.result())
        while {worker.site for worker in again.workers} != {"Site1"}:
            time.sleep(0.1)
        lost.mend()
