"""Masters run as their user's account, or in a sandbox: what a session can and cannot reach on the VO-box."""

import asyncio
import json
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import asyncssh
import psutil
import pytest

import gridproof
from gridproof import processes
from gridproof.accounts import Account
from gridproof.errors import ProxyError
from gridproof.proxy import config
from gridproof.proxy.client import ProxyClient
from gridproof.proxy.masters.isolation import isolate
from gridproof.store import Store

SYSTEM_PYTHON = "/usr/bin/python3"  # that of the tests may lie in root's home
MASTER = [SYSTEM_PYTHON, str(Path(__file__).with_name("obedient_master.py"))]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to other accounts")
UNPRIVILEGED = (
    ("/usr/bin/unshare", "--map-user=65534", "--map-group=65534", "--") if os.geteuid() == 0 else ()
)
"""What a command begins with that shall not run as root: root's files are its own, and that is all."""


def sandbox_works():
    argv = [*UNPRIVILEGED, "bwrap", "--ro-bind", "/", "/", "--unshare-pid", "true"]
    return shutil.which("bwrap") and subprocess.run(argv, capture_output=True).returncode == 0


sandboxed = pytest.mark.skipif(not sandbox_works(), reason="bubblewrap is not installed, or may not unshare")


class VoBox:
    """A ProxyServer process with a state directory that other accounts can pass through."""

    def __init__(self, directory, *, starter=(), **settings):
        self.state, self.cache = directory / "state", directory / "cache"
        self.keys = {user: asyncssh.generate_private_key("ssh-ed25519") for user in ("alice", "bob")}
        settings = {
            "users": {user: [key.export_public_key().decode()] for user, key in self.keys.items()},
            "port": 0,
            "master": MASTER,
            "state_dir": str(self.state),
            "cache_dir": str(self.cache),
            **settings,
        }
        argv = [*starter, sys.executable, "-m", "gridproof.proxy"]
        self.process = processes.spawn(argv, stdout=subprocess.PIPE)
        self.process.stdin.write(json.dumps(settings).encode() + b"\n")
        self.process.stdin.flush()
        self.ready = json.loads(self.process.stdout.readline())

    @asynccontextmanager
    async def sessions(self, versions):
        """A session each of alice and bob; yields what runs a command in their masters."""
        async with AsyncExitStack() as stack:
            ports = {}
            for user in self.keys:
                client = await self.client(user)
                stack.push_async_callback(client.close)
                opened = await client.open_session(versions, 1, session=f"of-{user}")
                ports[user] = int(opened.address.rpartition(":")[2])

            async def run(user, command):
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[user])
                writer.write(command.encode() + b"\n")
                said = (await reader.read()).decode().strip()
                writer.close()
                await writer.wait_closed()
                return said

            yield run

    async def client(self, user):
        ready = self.ready
        return await ProxyClient.connect("127.0.0.1", ready["port"], ready["host_key"], user, self.keys[user])

    def stop(self):
        processes.stop(self.process)
        self.process.stdout.close()


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="gridproof-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def vobox(directory):
    started = []

    def start(**settings):
        started.append(VoBox(directory, **settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@contextmanager
def watched(pids):
    """A function that waits until all of these processes have ended."""
    handles = [os.pidfd_open(pid) for pid in pids]

    def ended(within=10.0):
        return all(select.select([handle], [], [], within)[0] for handle in handles)

    try:
        yield ended
    finally:
        for handle in handles:
            os.close(handle)


def below(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


ACCOUNTS = {"alice": "nobody", "bob": "daemon"}


@as_root
def test_a_master_runs_as_its_users_account_and_has_nothing_of_the_service(vobox, versions, monkeypatch):
    monkeypatch.setenv("GRID_SECRET", "of the service")
    server = vobox(accounts=ACCOUNTS)

    async def main():
        async with server.sessions(versions) as run:
            for user, name in ACCOUNTS.items():
                account = pwd.getpwnam(name)
                ids = await run(user, "id -ru; id -u; id -g; id -G")
                groups = " ".join(map(str, sorted(os.getgrouplist(name, account.pw_gid))))
                assert ids.split("\n")[:3] == [str(account.pw_uid)] * 2 + [str(account.pw_gid)]
                assert " ".join(sorted(ids.split("\n")[3].split(), key=int)) == groups
                status = await run(user, "cat /proc/self/status")
                assert "NoNewPrivs:\t1" in status
                assert "CapEff:\t0000000000000000" in status
                environment = await run(user, "env")
                assert f"USER={name}" in environment
                assert f"HOME={account.pw_dir}" in environment
                assert "SECRET" not in environment
                own = await run(user, "touch $TMPDIR/mine && stat -c '%U %a' $TMPDIR")
                assert own == f"{name} 700"

    asyncio.run(main())


@as_root
def test_a_master_reads_neither_the_host_key_nor_another_sessions_files_or_compiled_code(vobox, versions):
    server = vobox(accounts=ACCOUNTS)

    async def main():
        async with server.sessions(versions) as run:
            host_key = server.state / "host_key"
            assert "PRIVATE KEY" in host_key.read_text()
            assert "Permission denied" in await run("alice", f"cat {host_key}")
            assert "Permission denied" in await run("alice", f"ls {server.state}")
            assert await run("bob", f"echo secret > {server.state}/session-of-bob/mine") == ""
            for path in ("state/session-of-bob", "state/session-of-bob/mine", "cache/users/bob"):
                for command in ("cat", "ls", "rm -rf"):
                    assert "Permission denied" in await run(
                        "alice", f"{command} {server.state.parent}/{path}"
                    )
            assert "Permission denied" in await run("alice", f"touch {server.state}/x")
            assert await run("alice", f"touch {server.cache}/users/alice/compiled") == ""
            others = await run(
                "alice", "for p in /proc/[0-9]*; do cat $p/environ && echo $p; done 2>/dev/null"
            )
            assert str(server.process.pid) not in others.replace("/", " ").split()

    asyncio.run(main())
    assert (server.state / "session-of-bob/mine").exists()


@as_root
def test_masters_of_other_accounts_die_with_a_killed_server_and_the_next_one_clears_up(vobox, versions):
    server = vobox(accounts=ACCOUNTS)

    async def main():
        async with server.sessions(versions):
            with watched(below(server.process.pid)) as ended:
                server.process.kill()
                assert ended()

    asyncio.run(main())
    assert list(server.state.glob("session-*"))
    again = vobox(accounts=ACCOUNTS)
    assert not list(server.state.glob("session-*"))

    async def once_more():
        async with again.sessions(versions) as run:
            assert await run("alice", f"stat -c %U {again.cache}/users/alice") == "nobody"

    asyncio.run(once_more())


@as_root
def test_a_user_without_an_account_is_refused_and_told_what_to_do(vobox, versions):
    server = vobox(accounts={"alice": "nobody"})

    async def main():
        with pytest.raises(ProxyError, match=r"user bob has no account bob .* accounts: \{bob: …\}"):
            async with server.sessions(versions):
                pass

    asyncio.run(main())
    assert below(server.process.pid) != [], "alice's session is none the worse"


@as_root
def test_a_cache_that_belongs_to_somebody_else_is_not_used(vobox, versions):
    server = vobox(accounts=ACCOUNTS)
    planted = server.cache / "users/alice"
    planted.mkdir(parents=True)
    os.chown(planted, Account.find("daemon").uid, -1)

    async def main():
        with pytest.raises(ProxyError, match="users/alice on the VO-box belongs to uid"):
            async with server.sessions(versions):
                pass

    asyncio.run(main())


@as_root
def test_a_state_directory_that_an_account_cannot_reach_is_named(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ProxyError, match=r"account nobody, under which sessions of alice .*mode 711"):
        isolate("alice", ACCOUNTS, closed).own(closed / "session-x")


def test_the_servers_own_account_runs_as_it_is(tmp_path):
    name = pwd.getpwuid(os.geteuid()).pw_name
    for user, accounts in ((name, {}), ("alice", {"alice": name}), ("alice", {"alice": None})):
        own = isolate(user, accounts, tmp_path)
        assert own.command(["python"], tmp_path, tmp_path) == ["python"]
        assert own.environment(tmp_path) is None


# ---------------------------------------------------------------- a server that may not change accounts


@sandboxed
def test_in_a_sandbox_only_the_session_itself_is_seen_and_written(vobox, versions):
    server = vobox(starter=UNPRIVILEGED)

    async def main():
        async with server.sessions(versions) as run:
            assert await run("alice", f"ls {server.state}") == "session-of-alice"
            assert await run("alice", f"ls {server.cache}/users") == "alice"
            assert "No such file" in await run("alice", f"cat {server.state}/host_key")
            assert "mine" in (await run("alice", "touch $HOME/mine && ls $HOME")).split()
            assert await run("alice", f"touch {server.cache}/users/alice/compiled") == ""
            for path in ("/etc/x", "/usr/x", str(Path(sys.prefix) / "x")):
                said = await run("alice", f"touch {path}")
                assert "Read-only" in said or "Permission denied" in said, path
            needed = (Path(place) for place in (sys.prefix, sys.base_prefix, gridproof.__file__))
            home = {p.relative_to(Path.home()).parts[0] for p in needed if p.is_relative_to(Path.home())}
            seen = await run("alice", f"ls -A {Path.home()} 2>/dev/null")
            assert set(seen.split()) == home, "of homes no more than the programs that lie there"
            assert "USER=alice" in await run("alice", "env")
            processes = await run("alice", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
            assert "gridproof.proxy" not in processes
            assert "of-bob" not in processes

    asyncio.run(main())
    assert (server.state / "session-of-alice/mine").exists()
    assert (server.cache / "users/alice/compiled").exists()


@sandboxed
def test_a_sandbox_ends_with_its_session_and_with_a_killed_server(vobox, versions):
    server = vobox(starter=UNPRIVILEGED)

    async def main():
        async with server.sessions(versions):
            with watched(below(server.process.pid)) as ended:
                server.process.kill()
                assert ended()

    asyncio.run(main())
    server = vobox(starter=UNPRIVILEGED)
    assert not list(server.state.glob("session-*"))

    async def closed():
        async with server.sessions(versions):
            with watched(below(server.process.pid)) as ended:
                alice = await server.client("alice")
                await alice.close_session("of-alice")
                await alice.close()
                assert not (server.state / "session-of-alice").exists()
                server.stop()
                assert ended()

    asyncio.run(closed())


@sandboxed
@pytest.mark.skipif(not shutil.which("xrootd"), reason="xrootd is not installed")
def test_a_real_master_and_its_store_work_in_a_sandbox_and_die_together(vobox, versions, tmp_path):
    server = vobox(starter=UNPRIVILEGED, master=list(config.MASTER))
    (tmp_path / "file").write_text("shared")

    async def main():
        client = await server.client("alice")
        opened = await client.open_session(versions, 1, session="of-alice")
        store = Store(opened.store, lambda: opened.store.port)
        try:
            await asyncio.to_thread(store.put, tmp_path / "file", "name")
            kept = server.state / "session-of-alice/store/gridproof-of-alice/files/name"
            assert kept.read_text() == "shared"
            everything = below(server.process.pid)
            assert any("xrootd" in psutil.Process(pid).name() for pid in everything)
            with watched(everything) as ended:
                psutil.Process(everything[0]).kill()
                assert await asyncio.to_thread(ended)
        finally:
            store.close()
            await client.close()

    asyncio.run(main())


@pytest.mark.skipif(bool(UNPRIVILEGED) and not sandbox_works(), reason="root may not unshare here")
def test_without_a_sandbox_other_users_are_refused_and_told_what_to_do(vobox, versions, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    server = vobox(starter=UNPRIVILEGED)

    async def main():
        with pytest.raises(ProxyError, match=r"cannot be kept apart .* install bubblewrap"):
            async with server.sessions(versions):
                pass

    asyncio.run(main())
