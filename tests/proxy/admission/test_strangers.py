"""What comes to the ProxyServer's port uninvited, and what invited peers may not do."""

import asyncio
import contextlib
import socket
from dataclasses import asdict

import asyncssh
import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.protocol import CONTROL, MAX_LINE, encode

GONE = (asyncssh.Error, OSError)


async def joined(proxy, alice, versions):
    """A pilot's connection, enrolled but not registered."""
    opened = await alice.open_session(versions, 1)
    submission = await alice.new_submission(opened.session, 4, "alice")
    return opened, await proxy.membership(submission).dial(10)


REGISTER = {
    "do": "register",
    "job_id": "1",
    "master_id": "1",
    "site": "Site1",
    "host": "node",
    "pid": 1,
    "cores": 1,
}


async def control(conn):
    return await conn.open_session(subsystem=CONTROL, encoding=None)


@pytest.mark.parametrize(
    "username", ["user:alice", "user:nobody", "join:0011223344556677", "pilot:1-0011223344556677", "root", ""]
)
def test_an_unknown_key_is_refused_whoever_it_says_it_is(running_proxy, username):
    async def main():
        async with running_proxy() as proxy:
            for key in (asyncssh.generate_private_key("ssh-ed25519"), None):
                with pytest.raises(asyncssh.PermissionDenied):
                    await proxy.dial(username, key)

    asyncio.run(main())


def test_a_users_key_is_good_for_that_user_only(running_proxy):
    async def main():
        async with running_proxy() as proxy:
            for username in ("user:bob", "join:alice", "pilot:alice", "alice"):
                with pytest.raises(asyncssh.PermissionDenied):
                    await proxy.dial(username, proxy.keys["alice"])

    asyncio.run(main())


def test_passwords_are_not_even_asked_for(running_proxy):
    async def main():
        async with running_proxy() as proxy:
            with pytest.raises(asyncssh.PermissionDenied):
                await proxy.dial("user:alice", None, password="secret")
            methods = await asyncssh.get_server_auth_methods(
                "127.0.0.1", proxy.server.port, username="user:alice", config=None
            )
            assert methods == ["publickey"]

    asyncio.run(main())


def test_a_revoked_join_key_is_refused(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            submission = await alice.new_submission(opened.session, 4, "alice")
            key = asyncssh.import_private_key(submission.join_key)
            (await proxy.dial(f"join:{submission.submission}", key)).close()
            await alice.close_session(opened.session)
            with pytest.raises(asyncssh.PermissionDenied):
                await proxy.dial(f"join:{submission.submission}", key)

    asyncio.run(main())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" * 1000,
        b"SSH-2.0-x\r\n" + b"\xff" * 50_000,
        b"\n" * 5000,
        b"",
    ],
)
def test_rubbish_and_half_open_connections_are_dropped_and_harm_nobody(running_proxy, versions, rubbish):
    async def main():
        async with running_proxy(login_timeout=1.0) as proxy, proxy.client() as alice:
            strangers = [await asyncio.open_connection("127.0.0.1", proxy.server.port) for _ in range(20)]
            for _, writer in strangers:
                writer.write(rubbish)
            await alice.open_session(versions, 1)
            for reader, writer in strangers:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), 5)
                writer.close()
            assert not proxy.server._strangers

    asyncio.run(main())


def test_of_too_many_strangers_those_of_the_largest_crowd_go_and_users_still_come_in(running_proxy):
    async def main():
        async with running_proxy(strangers=8) as proxy:
            server, address = ("127.0.0.1", proxy.server.port), ("127.0.0.2", 0)
            crowd = [socket.create_connection(server, source_address=address) for _ in range(40)]
            await asyncio.sleep(0.2)
            assert len(proxy.server._strangers) <= 8
            async with proxy.client():
                pass
            for one in crowd:
                one.close()

    asyncio.run(main())


def test_there_is_no_shell_no_command_no_other_subsystem_and_no_second_control_channel(running_proxy):
    async def main():
        async with running_proxy() as proxy:
            conn = await proxy.dial("user:alice", proxy.keys["alice"])
            for options in (
                {"command": "id"},
                {"subsystem": "sftp"},
                {},
                {"request_pty": True, "term_type": "vt100"},
            ):
                with pytest.raises(asyncssh.Error):
                    await conn.open_session(**options)
                conn.close()
                conn = await proxy.dial("user:alice", proxy.keys["alice"])
            await control(conn)
            with pytest.raises(asyncssh.ChannelOpenError):
                await control(conn)
            conn.close()

    asyncio.run(main())


def test_a_user_forwards_nothing_but_the_own_schedulers(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            port = int(opened.address.rsplit(":", 1)[1])
            for host, wanted in [
                ("127.0.0.1", proxy.server.port),
                ("127.0.0.1", 22),
                ("192.0.2.1", port),
                ("", port),
            ]:
                with pytest.raises(asyncssh.ChannelOpenError):
                    await alice.conn.open_connection(host, wanted)
            with pytest.raises(asyncssh.ChannelListenError):
                await alice.conn.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
            with pytest.raises(asyncssh.ChannelOpenError):
                await alice.conn.open_unix_connection("/run/anything")
            with pytest.raises(asyncssh.ChannelListenError):
                await alice.conn.forward_remote_path("/tmp/gridproof-test-socket", "/tmp/x")

    asyncio.run(main())


def test_a_pilot_listens_nowhere_unless_it_was_told_to(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, conn = await joined(proxy, alice, versions)
            writer, _, _ = await control(conn)
            writer.write(encode(REGISTER))
            for host, port in [("127.0.0.1", 0), ("127.0.0.1", 20001), ("0.0.0.0", 0), ("", 8022)]:
                with pytest.raises(asyncssh.ChannelListenError):
                    await conn.forward_remote_port(host, port, "127.0.0.1", 1)
            conn.close()

    asyncio.run(main())


def test_a_pilot_dials_only_schedulers_of_sessions_whose_workers_it_was_told_to_run(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client("alice") as alice, proxy.client("bob") as bob:
            opened, conn = await joined(proxy, alice, versions)
            other = await bob.open_session(versions, 1)
            own_port, other_port = (int(o.address.rsplit(":", 1)[1]) for o in (opened, other))
            with pytest.raises(asyncssh.ChannelOpenError):
                await conn.open_connection("127.0.0.1", own_port)
            control_channel, orders, _ = await control(conn)
            control_channel.write(encode(REGISTER))
            with pytest.raises(asyncssh.ChannelOpenError):
                await conn.open_connection("127.0.0.1", own_port)
            control_channel.write(encode({"do": "ready", "versions": asdict(versions)}))
            while b"start_worker" not in await orders.readline():
                pass
            _, writer = await conn.open_connection("127.0.0.1", own_port)
            writer.close()
            for host, port in [("127.0.0.1", other_port), ("127.0.0.1", 22), ("example.org", own_port)]:
                with pytest.raises(asyncssh.ChannelOpenError):
                    await conn.open_connection(host, port)
            conn.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\n",
        b"x" * (MAX_LINE + 100),
        encode({"do": "heartbeat", "load": 1}),
        encode({**REGISTER, "site": "../../etc"}),
        encode({**REGISTER, "cores": "many"}),
        encode(REGISTER) + encode(REGISTER),
        encode({**REGISTER, "master_id": "1\x1b[2J"}),
        encode({"id": 1, "do": "open_session", "session": "x", "workers": 1, "versions": {}}),
    ],
)
def test_a_pilot_that_breaks_the_protocol_is_dropped(running_proxy, versions, monkeypatch, sent):
    monkeypatch.setattr("gridproof.proxy.gate._LEAVE_WITHIN", 0.2)

    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, conn = await joined(proxy, alice, versions)
            writer, reader, _ = await control(conn)
            writer.write(sent)
            try:
                answer = await asyncio.wait_for(reader.read(), 10)
            except GONE:
                answer = b""
            assert b"start_worker" not in answer
            await asyncio.wait_for(conn.wait_closed(), 10)

    asyncio.run(main())


@pytest.mark.parametrize("sent", [b"rubbish\n", b"[]\n", encode({"do": "status"}), b"x" * (MAX_LINE + 100)])
def test_a_user_that_breaks_the_protocol_is_dropped(running_proxy, sent):
    async def main():
        async with running_proxy() as proxy:
            conn = await proxy.dial("user:alice", proxy.keys["alice"])
            writer, _, _ = await control(conn)
            writer.write(sent)
            await asyncio.wait_for(conn.wait_closed(), 10)

    asyncio.run(main())


def test_what_can_never_be_written_down_does_not_stop_what_is_kept_of_others(
    running_proxy, versions, tmp_path
):
    async def main():
        async with running_proxy(state_dir=tmp_path) as proxy:
            async with proxy.client("alice") as alice:
                opened, pilot = await joined(proxy, alice, versions)
                writer, _, _ = await control(pilot)
                writer.write(encode(REGISTER) + b'{"do": "bye", "reason": "\\ud800"}\n')
                await asyncio.wait_for(pilot.wait_closed(), 10)
                with pytest.raises(ProxyError):
                    await alice.new_submission(opened.session, 1 << 70, "alice")
            async with proxy.client("bob") as bob:
                await joined(proxy, bob, versions)

    asyncio.run(main())
