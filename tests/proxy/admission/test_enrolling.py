"""How payloads become pilots at a real ProxyServer, over real SSH, and who does not."""

import asyncio
import datetime
import time
from dataclasses import replace

import asyncssh
import pytest

from gridproof.errors import ProxyError
from gridproof.localgrid.certificates import Authority, job_subject, token_subject
from gridproof.pilot.membership import Refused
from gridproof.proxy.protocol import CONTROL, MAX_LINE, Enrol, Register, encode, message

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def grid(tmp_path):
    return Authority(tmp_path / "grid", datetime.datetime.now(datetime.timezone.utc))


@pytest.fixture
def trace(monkeypatch):
    """What the operator reads."""
    trace = Trace()
    monkeypatch.setattr("gridproof.proxy.server.ProxyServer.trace", lambda _, line: trace.append(line))
    return trace


class Trace(list):
    """Lines; ``await told(words)`` returns when one of them has these words."""

    async def told(self, words):
        for _ in range(1000):
            if any(words in line for line in self):
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"never told: {words}")


def token(grid, user="alice", job=1, subject=None, ago=0.0):
    """A job's environment with a token."""
    now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=ago)
    issued = grid.issue(subject or job_subject(user, job), now, HOUR)
    return {"JALIEN_TOKEN_CERT": issued.cert, "JALIEN_TOKEN_KEY": issued.key}


async def submitted(alice, versions, pilots=4):
    opened = await alice.open_session(versions, 1)
    return opened.session, await alice.new_submission(opened.session, pilots, "alice")


def register(job_id="1"):
    return encode(message(Register(job_id, "0", "Site1", "node", 1, 1)))


def test_a_pilot_enrols_once_and_then_dials_by_its_own_key(running_proxy, versions, tmp_path):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            session, submission = await submitted(alice, versions)
            member = proxy.membership(submission)
            member._file = tmp_path / "pilot.json"
            member._file.write_text(submission.join_key)
            (await member.dial(10)).close()
            assert member.pilot.startswith("1-")
            assert member._config.join_key == "", "the join key is forgotten,"
            assert not any(tmp_path.iterdir()), "on the disk too"
            await alice.close_session(session)
            (await member.dial(10)).close()

    asyncio.run(main())


def test_a_join_key_opens_nothing_but_the_enrolment(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            opened = await alice.open_session(versions, 1)
            submission = await alice.new_submission(opened.session, 1, "alice")
            key = asyncssh.import_private_key(submission.join_key)
            conn = await proxy.dial(f"join:{submission.submission}", key)
            with pytest.raises(asyncssh.ChannelOpenError):
                await conn.open_connection("127.0.0.1", int(opened.address.rsplit(":", 1)[1]))
            with pytest.raises(asyncssh.ChannelListenError):
                await conn.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
            for username in ("pilot:1-0011223344556677", "user:alice", f"pilot:{submission.submission}"):
                with pytest.raises(asyncssh.PermissionDenied):
                    await proxy.dial(username, key)
            conn.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\n",
        b"x" * (MAX_LINE + 100),
        register(),
        encode({"id": 1, "do": "sessions"}),
        encode({"do": "enrol", "job_id": "1", "key": "k"}),
        encode(message(Enrol("1", "ssh-ed25519 rubbish", 0.0))),
        encode(message(Enrol("1", "ssh-rsa " + "A" * 5000, 0.0))),
        encode(message(Enrol("../1", "", 0.0))),
    ],
)
def test_who_holds_a_join_key_and_breaks_the_protocol_is_dropped_and_named(
    running_proxy, versions, trace, sent
):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            key = asyncssh.import_private_key(submission.join_key)
            conn = await proxy.dial(f"join:{submission.submission}", key)
            writer, reader, _ = await conn.open_session(subsystem=CONTROL, encoding=None)
            writer.write(sent)
            try:
                answer = await asyncio.wait_for(reader.read(), 10)
            except (asyncssh.Error, OSError):
                answer = b""
            assert b"welcome" not in answer
            await asyncio.wait_for(conn.wait_closed(), 10)
            await trace.told(f"'join:{submission.submission}' from 127.0.0.1: ")

    asyncio.run(main())


def test_a_job_proves_itself_by_its_token(running_proxy, versions, grid):
    async def main():
        async with running_proxy(grid_cas=grid.cert_path) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            (await proxy.membership(submission, "1", **token(grid)).dial(10)).close()

    asyncio.run(main())


def test_a_copied_join_key_is_worth_nothing_without_a_token_of_that_users_job(
    running_proxy, versions, grid, trace, tmp_path
):
    other_grid = Authority(tmp_path / "other", datetime.datetime.now(datetime.timezone.utc))
    thieves = {
        "it has no job token": {},
        "it is a job of mallory, not of alice": token(grid, user="mallory"),
        "its token is job 8's": token(grid, job=8),
        "not of the Grid's authority": token(other_grid),
        "not a job's token": token(grid, subject=token_subject("alice", "alice")),
        "it does not hold the key of its job token": {
            "JALIEN_TOKEN_CERT": token(grid)["JALIEN_TOKEN_CERT"],
            "JALIEN_TOKEN_KEY": token(grid)["JALIEN_TOKEN_KEY"],
        },
        "its job token is valid from": token(grid, ago=7200),
    }

    async def main():
        async with running_proxy(grid_cas=grid.cert_path) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            for why, environ in thieves.items():
                with pytest.raises(Refused, match=why):
                    await proxy.membership(submission, "1", **environ).dial(10)
                await trace.told(why)
            assert submission.join_key not in "".join(trace)

    asyncio.run(main())


def test_a_join_key_that_is_used_up_or_revoked_is_refused_and_the_operator_reads_why(
    running_proxy, versions, trace
):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            session, submission = await submitted(alice, versions, pilots=1)
            (await proxy.membership(submission, "1").dial(10)).close()
            with pytest.raises(Refused, match="used up: 1 jobs"):
                await proxy.membership(submission, "2").dial(10)
            await alice.close_session(session)
            with pytest.raises(Refused, match="expired, revoked"):
                await proxy.membership(submission, "1").dial(10)
            await trace.told(f"from 127.0.0.1: its join key was revoked with session {session}")

    asyncio.run(main())


def test_an_expired_join_key_is_refused_and_the_operator_reads_why(running_proxy, versions, trace):
    async def main():
        async with running_proxy(join_lifetime=0.0) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            with pytest.raises(Refused, match="expired, revoked"):
                await proxy.membership(submission, "1").dial(10)
            await trace.told("its join key expired")

    asyncio.run(main())


def test_of_two_payloads_of_a_job_the_tokens_tell_which_is_the_later(running_proxy, versions, grid):
    async def main():
        async with running_proxy(grid_cas=grid.cert_path) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            killed = proxy.membership(submission, "1", **token(grid, ago=600))
            wanted = proxy.membership(submission, "1", **token(grid))
            killed._began = time.time() + 1e6  # what it says of itself counts for nothing
            (await wanted.dial(10)).close()
            with pytest.raises(Refused, match="a newer payload of job 1"):
                await killed.dial(10)

    asyncio.run(main())


def test_a_pilot_that_was_replaced_or_has_left_is_not_let_in_again(running_proxy, versions, trace):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            older, newer = (proxy.membership(submission) for _ in range(2))
            conn = await older.dial(10)
            writer, reader, _ = await conn.open_session(subsystem=CONTROL, encoding=None)
            writer.write(register())
            assert b'"registered"' in await asyncio.wait_for(reader.readline(), 10)
            (await newer.dial(10)).close()
            assert b"a newer payload of job 1" in await asyncio.wait_for(reader.readline(), 10)
            conn.close()
            with pytest.raises(Refused, match="does not know this pilot any more"):
                await older.dial(10)
            await trace.told("no pilot any more: a newer payload of job 1 has taken its place")

    asyncio.run(main())


def test_a_pilot_says_of_what_job_it_is_once_and_for_all(running_proxy, versions):
    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            conn = await proxy.membership(submission, "1").dial(10)
            writer, reader, _ = await conn.open_session(subsystem=CONTROL, encoding=None)
            writer.write(register("2"))
            assert b"says that it is job '2'" in await asyncio.wait_for(reader.readline(), 10)
            conn.close()

    asyncio.run(main())


def test_a_restarted_server_knows_its_pilots_and_submissions(running_proxy, versions, tmp_path):
    async def main():
        state = tmp_path / "state"
        async with running_proxy(state_dir=state) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            early, late = proxy.membership(submission, "1"), proxy.membership(submission, "2")
            (await early.dial(10)).close()
        async with running_proxy(state_dir=state) as proxy:
            for member in (early, late):
                member._config = replace(member._config, port=proxy.server.port)
                (await member.dial(10)).close()

    asyncio.run(main())


def test_a_pilot_whose_welcome_was_lost_with_the_server_is_welcomed_by_the_next_one(
    running_proxy, versions, tmp_path, monkeypatch
):
    from gridproof.proxy.gate import JoinControl

    async def main():
        state = tmp_path / "state"
        with monkeypatch.context() as patch:
            patch.setattr(JoinControl, "send", lambda control, _: control.abort())
            patch.setattr(JoinControl, "session_started", lambda control: None)
            async with running_proxy(state_dir=state) as proxy, proxy.client() as alice:
                _, submission = await submitted(alice, versions, pilots=1)
                member = proxy.membership(submission)
                key = asyncssh.import_private_key(submission.join_key)
                conn = await proxy.dial(f"join:{submission.submission}", key)
                writer, _, _ = await conn.open_session(subsystem=CONTROL, encoding=None)
                writer.write(encode(message(member._application(""))))
                await asyncio.wait_for(conn.wait_closed(), 10)
        async with running_proxy(state_dir=state) as proxy:
            member._config = replace(member._config, port=proxy.server.port)
            (await member.dial(10)).close()
            with pytest.raises(Refused, match="used up"):
                await proxy.membership(submission, "2").dial(10)

    asyncio.run(main())


def test_a_pilot_that_cannot_be_kept_is_not_welcomed_and_tries_again(
    running_proxy, versions, tmp_path, trace
):
    async def main():
        async with running_proxy(state_dir=tmp_path) as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            disk = proxy.server.door._ledger._base
            member = proxy.membership(submission)
            disk.execute("PRAGMA query_only = ON")
            for _ in range(2):
                with pytest.raises(ProxyError, match="went away while this pilot enrolled") as caught:
                    await member.dial(10)
                assert not isinstance(caught.value, Refused)
            await alice.close_session((await alice.open_session(versions, 1)).session)
            for _ in range(3):
                await proxy.server.door.tick()
            assert sum("no pilot can join" in line for line in trace) == 1, "and not every second"
            disk.execute("PRAGMA query_only = OFF")
            (await member.dial(10)).close()

    asyncio.run(main())


def test_a_pilot_that_does_not_register_is_dropped(running_proxy, versions, monkeypatch):
    monkeypatch.setattr("gridproof.proxy.gate._CONTROL_WITHIN", 0.3)

    async def main():
        async with running_proxy() as proxy, proxy.client() as alice:
            _, submission = await submitted(alice, versions)
            conn = await proxy.membership(submission).dial(10)
            await conn.open_session(subsystem=CONTROL, encoding=None)
            await asyncio.wait_for(conn.wait_closed(), 5)

    asyncio.run(main())
