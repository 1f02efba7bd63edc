"""A session's store on the VO-box: real xrootd, real clients."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gridproof import xrootd
from gridproof.errors import ConfigError, StoreError
from gridproof.loopthread import LoopThread
from gridproof.proxy.masters import store as vobox
from gridproof.proxy.protocol import StoreAccess
from gridproof.store import Store

pytestmark = pytest.mark.skipif(not shutil.which("xrootd"), reason="xrootd is not installed")
LIMIT = 20_000_000
QUICK = {"XRD_CONNECTIONWINDOW": "3", "XRD_CONNECTIONRETRY": "1", "XRD_LOGLEVEL": "Error"}


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="gridproof-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def loop():
    with closing(LoopThread("stores")) as loop:
        yield loop


@pytest.fixture
def serve(directory, loop):
    """Starts the store of a session; gives it, and its user's side."""
    started = []

    async def start(name, size):
        own = directory / f"session-{name}"
        own.mkdir(mode=0o700)
        server = vobox.Store(name, own, size)
        return server, await server.start()

    def serve(name, size=LIMIT):
        server, access = loop.run(start(name, size))
        started.append((server, Store(access, lambda: access.port)))
        return started[-1]

    yield serve
    for server, user in started:
        user.close()
        loop.run(server.stop())


@pytest.fixture
def local(tmp_path):
    """Makes a local file of so many bytes."""

    def make(size, name="local"):
        (tmp_path / name).write_bytes(os.urandom(size))
        return tmp_path / name

    return make


def copy(source, target, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "XrdSecSSSKT"}
    argv = ["xrdcp", "--silent", "--force", str(source), str(target)]
    done = subprocess.run(argv, env={**clean, **QUICK, **environment}, capture_output=True, timeout=30)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_files_go_in_and_come_out(serve, local, tmp_path):
    _, store = serve("one")
    source = local(100_000)
    store.put(source, "calib/2026.root")
    store.put(local(10, "small"), "small")
    assert [(file.name, file.size) for file in sorted(store.ls(), key=lambda f: f.name)] == [
        ("calib/2026.root", 100_000),
        ("small", 10),
    ]
    assert store.get("calib/2026.root", tmp_path).read_bytes() == source.read_bytes()
    assert (tmp_path / "2026.root").exists()
    assert (store.used, store.limit) == (100_010, LIMIT)
    store.put(local(20, "small"), "small")
    store.rm("calib/2026.root")
    assert [(file.name, file.size) for file in store.ls()] == [("small", 20)]
    for missing in (lambda: store.get("nothing", tmp_path / "x"), lambda: store.rm("nothing")):
        with pytest.raises(StoreError, match="no such file"):
            missing()


def test_what_is_no_name_or_no_file_is_refused_before_anything_is_asked(serve, tmp_path):
    _, store = serve("one")
    for name in ("", "/etc/passwd", "../x", "a/../../x", "a//b", "a b", "a?b", "-", "."):
        if name != "-":
            with pytest.raises(ConfigError, match="is no name"):
                store.url(name)
    with pytest.raises(ConfigError, match="there is no file"):
        store.put(tmp_path / "nothing", "x")


def test_only_the_sessions_own_key_opens_it_and_no_client_needs_to_be_told_where_that_lies(serve, local):
    (_, one), (_, two) = serve("one"), serve("two")
    source = local(1000)
    one.put(source, "a")
    url = one.url("a")
    code, said = copy(url, "/dev/null")
    assert code == 0, said
    one.close()
    code, said = copy(url, "/dev/null")
    assert code != 0
    two.url("a")
    code, _ = copy(url, "/dev/null", XrdSecSSSKT=two._access.keytab)
    assert code != 0
    assert two.ls() == []


def test_nothing_but_the_store_is_reached_and_results_are_only_read(serve, local, directory):
    server, store = serve("one")
    (directory / "secret").write_text("of the service")
    port = store._access.port
    store.url("x")
    for path in ("//secret", "//../secret", f"/{directory}/secret", "//gridproof-one/files/../../../secret"):
        assert copy(f"root://127.0.0.1:{port}{path}", "/dev/null")[0] != 0
    merged = server.results / "query-1/merged"
    merged.mkdir(parents=True, mode=0o750)
    (merged / "skim.root").write_bytes(b"merged")
    (merged / "skim.root").chmod(0o640)
    assert store.used == 6
    assert copy(store.result_url(1, "skim.root"), "-") == (0, "merged")
    assert copy(local(10), store.result_url(1, "skim.root"))[0] != 0
    assert copy(local(10), store.result_url(2, "other"))[0] != 0
    with pytest.raises(StoreError, match="cannot stand in a URL"):
        store.result_url(1, "a file?")


def test_a_full_store_says_so_and_harms_no_other_session(serve, local, loop):
    (server, full), (_, other) = serve("full"), serve("other")
    with pytest.raises(StoreError, match=r"does not fit into the session's store, which has 20\.0 MB"):
        full.put(local(LIMIT + 1), "too-large")
    full.put(local(12_000_000), "a")
    with pytest.raises(StoreError, match=r"has 8\.0 MB of 20\.0 MB left: rm\(\) what is not needed"):
        full.put(local(9_000_000), "b")
    # Who does not ask first is stopped by the server.
    code, said = copy(local(LIMIT + 1), full.url("rude"))
    assert code != 0
    assert "file too large" in said or "maximum allowed file size exceeded" in said
    while server.room() > 0:  # it looks again within a fraction of a second
        loop.run(_moment())
    loop.run(_moment())
    code, said = copy(local(1000), full.url("more"))
    assert code != 0
    assert "file too large" in said
    other.put(local(1000), "a")
    full.rm("rude")
    full.rm("a")
    while server.room() < LIMIT - 10_000:
        loop.run(_moment())
    loop.run(_moment())
    full.put(local(15_000_000), "a")


async def _moment():
    import asyncio

    await asyncio.sleep(0.15)


def test_the_key_is_nobody_elses(serve):
    server, store = serve("one")
    store.url("a")
    keytab = Path(store._access.keytab)
    assert (stat.S_IMODE(keytab.stat().st_mode), keytab.stat().st_uid) == (0o600, os.geteuid())
    process = psutil.Process(server._server.child.pid)
    assert process.uids().real != 0
    secret = keytab.read_text().rpartition("k:")[2].strip()
    assert secret not in " ".join(process.cmdline())
    assert secret not in repr(store._access)
    for path in (server.results.parents[2] / "xrootd").iterdir():
        if path.is_file() and secret in path.read_text(errors="replace"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()
    assert not keytab.exists()


def test_a_keytab_that_somebody_has_planted_is_not_used(serve, tmp_path):
    _, store = serve("one")
    keytab = Path(store._access.keytab)
    (tmp_path / "theirs").touch()
    for plant in (lambda: keytab.symlink_to(tmp_path / "theirs"), lambda: keytab.touch(mode=0o644)):
        plant()
        with pytest.raises(StoreError, match="is somebody else's"):
            store.url("a")
        keytab.unlink()
    assert (tmp_path / "theirs").read_text() == ""
    lying = Store(replace(store._access, keytab=str(tmp_path / "x")), lambda: 1)
    with pytest.raises(StoreError, match="says that its key belongs to"):
        lying.url("a")


def test_a_vobox_without_xrootd_says_why_there_is_no_store(directory, loop, monkeypatch):
    monkeypatch.setenv("PATH", str(directory))

    async def start():
        await vobox.Store("one", directory, LIMIT).start()

    with pytest.raises(Exception, match="install the package xrootd-server"):
        loop.run(start())
    with pytest.raises(StoreError, match="session s has no store: it is broken"):
        Store(StoreAccess("s", problem="it is broken"), lambda: 0).url("a")


def test_a_server_that_is_killed_is_replaced_and_found_by_who_knew_it(serve, local, loop):
    server, store = serve("one")
    store.put(local(1000), "a")
    killed = psutil.Process(server._server.child.pid)
    killed.kill()
    while server._server.child.pid == killed.pid:
        loop.run(_moment())
    assert [file.name for file in store.ls()] == ["a"]
    loop.run(_moment())
    assert copy(local(LIMIT + 1), store.url("rude"))[0] != 0, "it is limited as the first one was"


def test_it_dies_with_its_owner_even_by_kill_9(directory):
    code = f"""
import asyncio
from pathlib import Path
from gridproof.proxy.masters.store import Store
async def main():
    store = Store("one", Path({str(directory)!r}), 10_000_000)
    await store.start()
    print(store._server.child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        server.wait(10)
    assert not server.is_running()


def test_keys_are_good_through_tunnels():
    assert " n:gridproof+ " in xrootd.make_key(0.0), "XRootD then does not compare addresses"
