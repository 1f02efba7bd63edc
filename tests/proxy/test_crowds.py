"""Strangers in large numbers: who has to go, and what they cost."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys

import asyncssh
import psutil
import pytest

from gridproof.pilot.membership import Refused
from gridproof.proxy import gate
from gridproof.proxy.admission import strangers
from gridproof.proxy.admission.strangers import PATIENCE, Strangers
from gridproof.proxy.protocol import CONTROL


def test_a_crowd_from_one_address_costs_only_itself_a_place():
    waiting = Strangers(10)
    assert waiting.came("honest", "192.0.2.1", 0.0) is None
    for number in range(1000):
        leaves = waiting.came(number, "198.51.100.1", number * 0.01)
        assert leaves != "honest"
        assert (leaves is None) == (number < 9)
    assert len(waiting) == 10


def test_a_newcomer_from_elsewhere_takes_a_place_of_the_crowds():
    waiting = Strangers(10)
    for number in range(10):
        waiting.came(number, "198.51.100.1", 0.0)
    assert waiting.came("honest", "192.0.2.1", 0.0) == 0


def test_within_a_crowd_who_came_just_now_may_finish_and_who_dawdles_goes():
    waiting = Strangers(2)
    waiting.came("slow", "192.0.2.1", 0.0)
    waiting.came("quick", "192.0.2.1", PATIENCE - 0.1)
    assert waiting.came("too many", "192.0.2.1", PATIENCE - 0.1) == "too many"
    assert waiting.came("newcomer", "192.0.2.1", PATIENCE) == "slow"


def test_an_honest_peer_that_shares_the_address_of_a_crowd_gets_in_if_it_tries_again():
    waiting, chance = Strangers(50), random.Random(1)
    for tick in range(5000):  # 100 a second
        waiting.came(tick, "198.51.100.1", tick * 0.01)
    tries = 0
    now = 50.0
    stays = False
    while not stays:
        tries += 1
        for _ in range(100):
            now += 0.01
            waiting.came(object(), "198.51.100.1", now)
        now += chance.uniform(0.0, 0.01)
        stays = waiting.came(("honest", tries), "198.51.100.1", now) != ("honest", tries)
    assert tries < 50


def test_a_crowd_from_one_ipv6_network_counts_as_one_address():
    waiting = Strangers(3)
    waiting.came("honest", "2001:db8::1", 0.0)
    for number in range(3):
        assert waiting.came(number, f"2001:db8:1:1::{number}", 0.0) != "honest"
    assert Strangers(1).came("a", "nowhere", 0.0) is None


def test_who_has_proved_itself_or_left_takes_no_place():
    waiting = Strangers(2)
    for number in range(100):
        assert waiting.came(number, "192.0.2.1", 0.0) is None
        waiting.gone(number)
        waiting.gone(number)
    assert len(waiting) == 0


def test_pilots_and_users_come_in_though_a_crowd_keeps_the_port_busy(running_proxy, versions, monkeypatch):
    monkeypatch.setattr(strangers, "PATIENCE", 0.2)

    async def main():
        async with running_proxy(strangers=16) as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            submission = await alice.new_submission(opened.session, 1, "alice")
            busy = True

            async def press():
                while busy:
                    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.server.port)
                    writer.write(b"SSH-2.0-x\r\n")
                    lines.append((reader, writer))
                    await asyncio.sleep(0.015)

            lines = []
            pressing = asyncio.create_task(press())
            member = proxy.membership(submission)
            for _ in range(200):
                try:
                    (await member.dial(5)).close()
                    break
                except (OSError, asyncssh.Error, asyncio.TimeoutError):
                    await asyncio.sleep(0.05)
            else:
                pytest.fail("the pilot never came in")
            async with proxy.client("bob") as bob:
                assert await bob.sessions() == []
            elsewhere = await asyncssh.connect(
                "127.0.0.1",
                proxy.server.port,
                local_addr=("127.0.0.2", 0),
                username="user:alice",
                client_keys=[proxy.keys["alice"]],
                known_hosts=None,
                config=None,
                agent_path=None,
            )
            elsewhere.close()
            busy = False
            await pressing
            assert len(proxy.server._strangers) <= 16
            for _, writer in lines:
                writer.close()

    asyncio.run(main())


def test_who_holds_a_join_key_and_dawdles_is_a_stranger_still_and_dropped(
    running_proxy, versions, monkeypatch
):
    monkeypatch.setattr(gate, "_CONTROL_WITHIN", 0.3)

    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            submission = await alice.new_submission(opened.session, 1, "alice")
            key = asyncssh.import_private_key(submission.join_key)
            idle = await proxy.dial(f"join:{submission.submission}", key)
            talks = await proxy.dial(f"join:{submission.submission}", key)
            await talks.open_session(subsystem=CONTROL, encoding=None)
            assert len(proxy.server._strangers) == 2
            for conn in (idle, talks):
                await asyncio.wait_for(conn.wait_closed(), 5)

    asyncio.run(main())


def test_slow_talkers_are_dropped_when_their_time_is_over(running_proxy):
    async def main():
        async with running_proxy(login_timeout=0.5) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.server.port)
            await reader.readline()
            gone = asyncio.create_task(reader.read())
            with contextlib.suppress(ConnectionError):
                while not gone.done():
                    writer.write(b"S")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                await gone
            writer.close()

    asyncio.run(main())


HUGE = b"SSH-2.0-x\r\n" + struct.pack(">I", 0x7FFFFFFF)
RUBBISH = [b"", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-\xff\r\n", b"\xff" * 20_000, HUGE]


def test_memory_and_log_stay_small_whatever_strangers_send(tmp_path, versions):
    key = asyncssh.generate_private_key("ssh-ed25519")
    settings = {"users": {"alice": [key.export_public_key().decode()]}, "port": 0}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gridproof.proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with server:
        server.stdin.write(json.dumps(settings).encode() + b"\n")
        server.stdin.flush()
        port = json.loads(server.stdout.readline())["port"]
        process = psutil.Process(server.pid)

        def strangers_come(count):
            kept = []
            for number in range(count):
                one = socket.create_connection(("127.0.0.1", port))
                with contextlib.suppress(OSError):
                    one.sendall(RUBBISH[number % len(RUBBISH)])
                    if RUBBISH[number % len(RUBBISH)] is HUGE:
                        one.sendall(bytes(200_000))
                kept.append(one)
                if len(kept) > 300:
                    kept.pop(0).close()
            for one in kept:
                one.close()

        strangers_come(300)
        before = process.memory_info().rss
        strangers_come(400)
        assert process.memory_info().rss - before < 30e6
        server.stdin.close()
    assert (tmp_path / "log").stat().st_size < 10_000


def test_wrong_keys_by_the_dozen_cost_one_line_each_connection(running_proxy, versions, monkeypatch):
    lines = []
    monkeypatch.setattr("gridproof.proxy.server.ProxyServer.trace", lambda _, line: lines.append(line))

    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            submission = await alice.new_submission(opened.session, 1, "alice")
            wrong = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(5)]
            for username in ("user:alice", f"join:{submission.submission}", "pilot:1-0011223344556677"):
                with pytest.raises(asyncssh.PermissionDenied):
                    await proxy.dial(username, wrong)
            member = proxy.membership(submission)
            member._config = member._config.__class__(
                **{**member._config.__dict__, "join_key": wrong[0].export_private_key().decode()}
            )
            with pytest.raises(Refused):
                await member.dial(10)
            for _ in range(500):
                await asyncio.sleep(0.01 if len(lines) < 4 else 0)
            assert len(lines) == 4
            for why in ("not one of the user's keys", "not the submission's join key", "no such pilot"):
                assert any(why in line for line in lines)

    asyncio.run(main())
