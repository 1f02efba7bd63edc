"""A user at a ProxyServer that runs for itself, as on a VO-box, and its restart."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncssh
import psutil
import pytest
import yaml
from click.testing import CliRunner

import gridproof
from gridproof import config, grids
from gridproof.cli import cli
from gridproof.errors import ProxyError, SessionError
from gridproof.localgrid import Limits, LocalGrid
from gridproof.localgrid.client import GridAccess
from gridproof.proxy.versions import here


class VoBox:
    """A ProxyServer by ``gridproof proxy --config``, with a file of keys for each user."""

    def __init__(self, directory, authorities):
        self.directory = directory
        self.keys = directory / "keys"
        self.keys.mkdir(mode=0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        paths = {name: str(directory / name) for name in ("state_dir", "cache_dir")}
        settings = {
            "authorized_keys_file": f"{self.keys}/%u",
            "accounts": {"jdoe": None},
            "port": self.port,
            "grid_cas": authorities,
        }
        (directory / "proxy.yaml").write_text(yaml.safe_dump({**paths, **settings}))
        self.start()

    def start(self):
        argv = [sys.executable, "-m", "gridproof.cli", "proxy", "--config", self.directory / "proxy.yaml"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.host_key = yaml.safe_load(self.process.stdout.readline())["host_key"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's: an SSH key, and the configuration of a Grid whose pilots need nothing special."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    cache = Path("~/.cache/gridproof").expanduser()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = asyncssh.generate_private_key("ssh-ed25519")
    (home / ".ssh" / "id_ed25519").touch(0o600)
    (home / ".ssh" / "id_ed25519").write_bytes(key.export_private_key())
    (home / ".ssh" / "id_ed25519.pub").write_bytes(key.export_public_key())
    (home / ".config").mkdir()
    settings = {"pilots": {"python": sys.executable, "cores": 2}, "cache_dir": str(cache)}
    (home / ".config" / "gridproof.yaml").write_text(yaml.safe_dump(settings))
    return home


def pilots(grid):
    """How many jobs were ever submitted."""
    with GridAccess(grid.environment) as access:
        return len(access.command("ps", "-a"))


async def at_hand(where, workers):
    """Until the pilots that are registered can give so many workers."""
    client = await grids.standing(where, config.load()).proxy.connect()
    await client.open_session(here(), workers, session="probe")
    while await client.at_hand("probe") < workers:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await client.close_session("probe")
    await client.close()


@pytest.mark.timeout(240)
def test_a_user_opens_by_url_and_finds_the_pilots_again_when_the_proxy_server_was_killed(
    new_world, home, tmp_path, monkeypatch
):
    with LocalGrid(sites=1, slots=1, cores=2, limits=Limits(report_interval=0.5)) as grid:
        for name, value in grid.environment.items():
            monkeypatch.setenv(name, value)
        vobox = VoBox(tmp_path, grid.environment["X509_CERT_DIR"])
        where = f"proxy://jdoe@127.0.0.1:{vobox.port}"
        try:
            with pytest.raises(ProxyError, match="is not known here"):
                gridproof.open(where, workers=2)
            known_hosts = home / ".ssh" / "known_hosts"
            known_hosts.write_text(f"[127.0.0.1]:{vobox.port} {vobox.host_key}\n")
            with pytest.raises(ProxyError, match="does not know this key of jdoe"):
                gridproof.open(where, workers=2)
            (vobox.keys / "jdoe").write_bytes((home / ".ssh" / "id_ed25519.pub").read_bytes())

            world = new_world(grid, tmp_path, 2, 60_000, 3)
            for file in world.files:
                grid.put(file, f"/local/data/{file.name}")
            session = gridproof.open(where, workers=2, timeout=120)
            world.assert_exact(session.process(session.dataset(world.pattern, "events"), world.selector))
            assert [record.name for record in gridproof.sessions(where)] == [session.name]
            shown = CliRunner().invoke(cli, ["queries", "--grid", where])
            assert f"session {session.name}: open, 2 workers" in shown.output
            before = pilots(grid)

            vobox.kill()
            with pytest.raises(SessionError, match="open a new session"):
                session.process(session.dataset(world.pattern, "events"), world.selector)
            vobox.start()
            session.close()
            asyncio.run(at_hand(where, 2))
            with gridproof.open(where, workers=2, timeout=120) as again:
                assert pilots(grid) == before, "those that are there serve"
                world.assert_exact(again.process(again.dataset(world.pattern, "events"), world.selector))
        finally:
            vobox.kill()
    children = [p for p in psutil.Process(os.getpid()).children() if p.status() != psutil.STATUS_ZOMBIE]
    assert not [p for p in children if "gridproof" in p.name()]
