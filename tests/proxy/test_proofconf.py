"""The workers of a session as PROOF's file."""

import asyncio

from gridproof.proxy.pool.records import WorkerRecord
from gridproof.proxy.proofconf import NAME, render, replace
from gridproof.proxy.protocol import Ready, Register
from tests.proxy.conftest import VERSIONS


def worker(name, state="running", number=0):
    return WorkerRecord(name, "s", "CERN", "wn12", 1, state, "1", "p", number, "tunnel", "")


def test_each_worker_that_runs_has_a_line():
    workers = [worker("a", number=20001), worker("b", "ended"), worker("c"), worker("d", "starting", 20002)]
    assert render("alice", "vobox", workers).splitlines() == [
        "master vobox",
        "worker alice@localhost port=20001 image=CERN-wn12",
        "# no port: c image=CERN-wn12",
    ]


def test_the_file_follows_the_workers(running_proxy, tmp_path):
    async def main():
        async with running_proxy(state_dir=tmp_path) as proxy, proxy.client() as alice:
            opened = await alice.open_session(VERSIONS, 1)
            registry, path = proxy.server.registry, tmp_path / f"session-{opened.session}" / NAME

            async def shows(line):
                while not (path.exists() and line in path.read_text()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

            await asyncio.wait_for(shows("master "), 5)
            registry.register("p", "alice", opened.session, Register("1", "0", "CERN", "wn12", 1, 1), 0.0)
            registry.ready("p", Ready(VERSIONS), proxy.server.now())
            (start,) = registry.decide(proxy.server.now())
            registry.worker_started("p", start.name, 1, False)
            proxy.server.act()
            await asyncio.wait_for(shows("port=20001 image=CERN-wn12"), 5)
            assert [file.name for file in path.parent.iterdir()] == [NAME]

    asyncio.run(main())


def test_the_file_replaces_whatever_lies_there(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not to be touched")
    path = tmp_path / NAME
    path.symlink_to(secret)
    replace(path, "master vobox\n")
    assert not path.is_symlink()
    assert path.read_text() == "master vobox\n"
    assert secret.read_text() == "not to be touched"
