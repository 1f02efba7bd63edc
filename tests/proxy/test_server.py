"""Users at a real ProxyServer, over real SSH."""

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path

import asyncssh
import psutil
import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.client import ProxyClient, SessionLost, new_session_name
from gridproof.proxy.logs import Source
from gridproof.proxy.pool.state import Limits, UserLimits
from gridproof.proxy.protocol import Register


def masters():
    living = (p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE)
    return [p for p in living if "standin_master.py" in " ".join(p.cmdline())]


async def until(condition, timeout=10.0):
    async def poll():
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    await asyncio.wait_for(poll(), timeout)


def test_a_session_opens_with_a_scheduler_that_its_user_reaches(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 2)
            assert opened.address.startswith("tls://127.0.0.1:")
            assert "BEGIN CERTIFICATE" in opened.ca
            port = int(opened.address.rsplit(":", 1)[1])
            reader, writer = await alice.conn.open_connection("127.0.0.1", port)
            writer.write(b"ping")
            assert await reader.read(4) == b"ping"
            writer.close()
            assert len(masters()) == 1
            await alice.close_session(opened.session)
            assert masters() == []

    asyncio.run(main())


def test_a_submission_may_be_had_while_its_session_still_opens(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            name = new_session_name()
            opened, submission = await asyncio.gather(
                alice.open_session(versions, 1, session=name), alice.new_submission(name, 1, "alice")
            )
            assert opened.session == name
            assert "OPENSSH PRIVATE KEY" in submission.join_key
            assert submission.join_key not in repr(submission)

    asyncio.run(main())


def test_a_users_sessions_are_nobody_elses(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client("alice") as alice, proxy.client("bob") as bob:
            opened = await alice.open_session(versions, 1)
            ports = int(opened.address.rsplit(":", 1)[1]), opened.store.port

            def new_submission(session):
                return bob.new_submission(session, 1, "bob")

            for asked in (bob.status, bob.close_session, new_submission):
                with pytest.raises(ProxyError, match="bob has no session"):
                    await asked(opened.session)
            for port in ports:
                with pytest.raises(asyncssh.ChannelOpenError):
                    await bob.conn.open_connection("127.0.0.1", port)
                _, writer = await alice.conn.open_connection("127.0.0.1", port)
                writer.close()
            assert "the key" not in repr(opened)
            assert (await alice.status(opened.session)).pilots == {}

    asyncio.run(main())


def test_a_masters_death_is_told_at_once_to_its_user_alone(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client("alice") as alice:
            opened = await alice.open_session(versions, 1)
            (master,) = masters()
            master.send_signal(signal.SIGKILL)
            await until(lambda: proxy.events)
            assert proxy.events == [SessionLost(opened.session, proxy.events[0].reason)]
            assert "signal 9" in proxy.events[0].reason
            with pytest.raises(ProxyError, match="there are: none"):
                await alice.status(opened.session)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "ended with code 3"),
        ('print(\'{"port": "nowhere"}\', flush=True); input()', "not a port"),
        ("print('hello', flush=True); input()", "not JSON"),
        ("import time; time.sleep(60)", "did not come up within 1 s"),
    ],
)
def test_a_master_that_does_not_come_up_is_an_error_and_leaves_nothing(
    running_proxy, versions, code, message
):
    async def main():
        changes = {"master": (sys.executable, "-c", code), "master_timeout": 1.0}
        async with running_proxy(**changes) as proxy, proxy.client() as alice:
            with pytest.raises(ProxyError, match=message):
                await alice.open_session(versions, 1)
            assert [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE] == []
            assert proxy.server.registry.sessions("alice") == ()

    asyncio.run(main())


def test_what_a_master_wrote_is_in_its_error_and_kept_for_its_user_alone(running_proxy, versions):
    code = "import sys; sys.stderr.write('no space left\\n\\x1b[2Jbye\\n'); raise SystemExit(3)"

    async def main():
        async with (
            running_proxy(master=(sys.executable, "-c", code)) as proxy,
            proxy.client("alice") as alice,
            proxy.client("bob") as bob,
        ):
            with pytest.raises(
                ProxyError, match=r"code 3 before it was up\nit wrote last:\nno space left\n\\x1b"
            ):
                await alice.open_session(versions, 1, session="mine")
            source = Source("master", "mine")
            assert (await alice.logs([source], 5))[source][0] == "no space left\n\x1b[2Jbye\n"
            assert await bob.logs([source], 5) == {}

    asyncio.run(main())


def test_logs_that_do_not_fit_into_one_answer_come_in_several(running_proxy):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            sources = [Source("worker", "p", f"w{n}") for n in range(20)]
            for source in sources:
                for n in range(100):
                    proxy.server.logs.add("alice", source, f"{source.name} {n} {'ü' * 100}\n", 1e9)
            found = await alice.logs([*sources, Source("pilot", "p")], 1000)
            assert list(found) == sources
            assert all(text.startswith(f"{source.name} 0 ") for source, (text, _) in found.items())

    asyncio.run(main())


def test_pilots_with_long_reasons_are_shown_in_as_many_lines_as_it_takes(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            registry, now = proxy.server.registry, proxy.server.now()
            for job in map(str, range(50)):
                registry.register(job, "alice", opened.session, Register(job, job, "S", "h", 1, 1), now)
                registry.draining(job, "\U0001f600" * 4096)
            assert len((await alice.status(opened.session)).pilots) == 50

    asyncio.run(main())


def test_requests_that_cannot_be_are_answered_with_why(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            for verb, arguments, message in [
                ("dance", {}, "known are open_session"),
                ("status", {}, "needs 'session'"),
                ("status", {"session": "nope"}, "there are: none"),
                ("open_session", {"session": "../x", "workers": 1, "versions": {}}, "not a name"),
                ("open_session", {"session": "x", "workers": 1, "versions": {}}, "lacks its field"),
                ("open_session", {"session": "x", "workers": True, "versions": {}}, "lacks|needs"),
                ("logs", {"sources": [["worker", "p", 1, 0]], "lines": 1}, "a source of logs is"),
                ("logs", {"sources": [None], "lines": 1}, "a source of logs is"),
            ]:
                with pytest.raises(ProxyError, match=message):
                    await alice._request(verb, **arguments)
            with pytest.raises(ProxyError, match="one at least"):
                await alice.open_session(versions, 0)

    asyncio.run(main())


def test_a_client_learns_that_the_server_is_gone_and_of_what_it_waits_for(running_proxy, versions):
    async def main():
        silent = (sys.executable, "-c", "input(); input()")
        async with running_proxy(master=silent) as proxy, proxy.client() as alice:
            opening = asyncio.create_task(alice.open_session(versions, 1))
            await until(lambda: proxy.server.registry.sessions("alice"))
            await proxy.server.close("enough")
            with pytest.raises(ProxyError):
                await opening
            assert "was lost" in await alice.closed
            with pytest.raises(ProxyError, match="was lost"):
                await alice.status("x")

    asyncio.run(main())


def test_wrong_keys_hosts_and_ports_are_told_apart(running_proxy):
    async def main():
        async with running_proxy() as proxy:
            stranger = asyncssh.generate_private_key("ssh-ed25519")
            port, host_key = proxy.server.port, proxy.server.host_key
            other = stranger.export_public_key().decode()
            with pytest.raises(ProxyError, match="does not know this key of alice"):
                await ProxyClient.connect("127.0.0.1", port, host_key, "alice", stranger)
            with pytest.raises(ProxyError, match="another host key"):
                await ProxyClient.connect("127.0.0.1", port, other, "alice", proxy.keys["alice"])
        with pytest.raises(ProxyError, match="cannot be reached"):
            await ProxyClient.connect("127.0.0.1", port, host_key, "alice", stranger)

    asyncio.run(main())


def test_a_port_in_use_is_named(running_proxy):
    async def main():
        async with running_proxy() as proxy:
            with pytest.raises(ProxyError, match=str(proxy.server.port)):
                async with running_proxy(port=proxy.server.port):
                    pass

    asyncio.run(main())


def test_the_host_key_is_kept_in_the_state_directory(running_proxy, tmp_path):
    async def main():
        keys = []
        for _ in range(2):
            async with running_proxy(state_dir=tmp_path / "state") as proxy:
                keys.append(proxy.server.host_key)
        assert keys[0] == keys[1]
        assert (tmp_path / "state" / "host_key").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "state").stat().st_mode & 0o066 == 0

    asyncio.run(main())


def test_a_state_directory_or_host_key_that_is_open_to_others_is_not_used(running_proxy, tmp_path):
    async def main(why):
        with pytest.raises(ProxyError, match=why):
            async with running_proxy(state_dir=tmp_path):
                pass

    tmp_path.chmod(0o777)
    asyncio.run(main("others may write the ProxyServer's state_dir"))
    tmp_path.chmod(0o755)
    (tmp_path / "host_key").touch(0o644)
    asyncio.run(main("host_key is open to others: chmod 600"))


def test_nothing_is_left_behind(running_proxy, versions, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            await alice.open_session(versions, 1)
            assert any(tmp_path.iterdir())
        assert not any(tmp_path.iterdir())
        assert masters() == []

    asyncio.run(main())


def test_a_session_needs_an_unused_name(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            with pytest.raises(ProxyError, match="is open already"):
                await alice.open_session(replace(versions, root="x"), 1, session=opened.session)
            assert len(masters()) == 1

    asyncio.run(main())


def test_a_session_is_attached_to_by_another_process_of_its_user_and_by_nobody_else(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy:
            async with proxy.client("alice") as alice:
                opened = await alice.open_session(versions, 1)
            async with proxy.client("alice") as again, proxy.client("bob") as bob:
                (record,) = await again.sessions()
                assert (record.name, record.users) == (opened.session, 0)
                assert await again.attach_session(record.name, versions) == opened
                port = int(opened.address.rsplit(":", 1)[1])
                _, writer = await again.conn.open_connection("127.0.0.1", port)
                writer.close()
                assert [record.users for record in await again.sessions()] == [1]
                assert await bob.sessions() == []
                with pytest.raises(ProxyError, match="bob has no session"):
                    await bob.attach_session(opened.session, versions)
                with pytest.raises(ProxyError, match="root differ"):
                    await again.attach_session(opened.session, replace(versions, root="x"))
                await again.close_session(opened.session)
                assert await again.sessions() == []

    asyncio.run(main())


def test_a_session_that_everybody_has_left_ends_when_it_is_idle_for_long(running_proxy, versions):
    async def main():
        async with running_proxy(limits=Limits(user=UserLimits(idle=0.1))) as proxy:
            async with proxy.client() as alice:
                await alice.open_session(versions, 1)
                (master,) = masters()
            await until(lambda: not master.is_running() or master.status() == psutil.STATUS_ZOMBIE)
            await until(lambda: not proxy.server.registry.sessions("alice"))

    asyncio.run(main())


def test_a_session_that_keeps_results_lasts_longer_than_its_workers(running_proxy, versions):
    standin = Path(__file__).with_name("standin_master.py").read_text()
    keeps = standin.replace(
        "    ended =", '    print(json.dumps({"running": 0, "kept": 1}), flush=True)\n    ended ='
    )

    async def main():
        changes = {"master": (sys.executable, "-c", keeps), "limits": Limits(user=UserLimits(idle=0.1))}
        async with running_proxy(**changes) as proxy:
            async with proxy.client() as alice:
                opened = await alice.open_session(versions, 1)

            def retired():
                records = proxy.server.registry.session_records("alice", proxy.server.now())
                return [(record.state, record.kept) for record in records] == [("retired", 1)]

            await until(retired)
            async with proxy.client() as alice:
                assert await alice.attach_session(opened.session, versions) == opened

    asyncio.run(main())
