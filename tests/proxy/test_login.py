"""A user's keys, SSH agent and known_hosts, with OpenSSH's own programs where there are some."""

import asyncio
import os
import shutil
import subprocess

import asyncssh
import pytest

from gridproof.errors import ConfigError, ProxyError
from gridproof.grids import Endpoint
from gridproof.proxy.login import fingerprint, known_host_keys, user_keys

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with an empty ``~/.ssh``; no agent."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def agent(home, monkeypatch):
    """A running SSH agent without keys."""
    socket = home / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield socket
    process.terminate()
    process.wait()
    process.stdout.close()


def make_key(path):
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.touch(0o600)
    path.write_bytes(key.export_private_key())
    path.with_name(path.name + ".pub").write_bytes(key.export_public_key())
    return key


def close(path):
    """Give the key a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", path], check=True)


def offered(key_file=""):
    async def main():
        async with user_keys(key_file, os.environ) as keys:
            return [key.public_data for key in keys]

    return asyncio.run(main())


def test_the_keys_in_the_home_are_offered_and_those_with_a_passphrase_are_not(home):
    plain = make_key(home / ".ssh" / "id_ed25519")
    make_key(home / ".ssh" / "id_rsa")
    close(home / ".ssh" / "id_rsa")
    assert offered() == [plain.public_data]


def test_a_key_file_that_is_configured_is_the_only_one(home):
    make_key(home / ".ssh" / "id_ed25519")
    own = make_key(home / "own")
    assert offered("~/own") == [own.public_data]


def test_the_agents_keys_come_first_and_none_comes_twice(home, agent):
    plain = make_key(home / ".ssh" / "id_ed25519")
    closed = make_key(home / ".ssh" / "id_ecdsa")
    subprocess.run(["ssh-add", "-q", home / ".ssh" / "id_ecdsa"], check=True)
    close(home / ".ssh" / "id_ecdsa")
    assert offered() == [closed.public_data, plain.public_data]
    subprocess.run(["ssh-add", "-q", home / ".ssh" / "id_ed25519"], check=True)
    assert sorted(offered()) == sorted([closed.public_data, plain.public_data])


def test_a_key_with_a_passphrase_is_used_through_the_agent(home, agent):
    key = make_key(home / "own")
    subprocess.run(["ssh-add", "-q", home / "own"], check=True)
    close(home / "own")
    assert offered("~/own") == [key.public_data]
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    with pytest.raises(ConfigError, match=r"own, has a passphrase, and the SSH agent does not hold it"):
        offered("~/own")


def test_keys_that_cannot_be_used_are_named_with_what_to_do(home):
    with pytest.raises(ConfigError, match=r"there is none in the SSH agent nor in .*: ssh-keygen"):
        offered()
    make_key(home / ".ssh" / "id_ed25519")
    close(home / ".ssh" / "id_ed25519")
    with pytest.raises(ConfigError, match=r"id_ed25519 has a passphrase, .*: ssh-add"):
        offered()
    with pytest.raises(ConfigError, match="missing, cannot be read"):
        offered("~/missing")
    (home / ".ssh" / "id_ed25519").chmod(0o644)
    with pytest.raises(ConfigError, match="open to others: chmod 600"):
        offered("~/.ssh/id_ed25519")
    (home / "rubbish").touch(0o600)
    with pytest.raises(ConfigError, match="rubbish, is none"):
        offered("~/rubbish")


def test_an_agent_that_has_ended_is_none(home, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "gone"))
    plain = make_key(home / ".ssh" / "id_ed25519")
    assert offered() == [plain.public_data]


def known(host, port):
    return [key.public_data for key in asyncio.run(known_host_keys(host, port, os.environ))]


def test_host_keys_are_those_of_known_hosts_by_host_and_port(home):
    ours, sshds, cluster = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
    lines = [
        f"vobox.example.org {sshds.export_public_key().decode()}",
        "this line is rubbish",
        f"[vobox.example.org]:20000 {ours.export_public_key().decode()}",
        f"[*.grid.example.org]:20000 {cluster.export_public_key().decode()}",
    ]
    (home / ".ssh" / "known_hosts").write_text("\n".join(line.strip() for line in lines))
    assert known("vobox.example.org", 20000) == [ours.public_data]
    assert known("a.grid.example.org", 20000) == [cluster.public_data]


def test_hashed_and_revoked_host_keys_are_read_as_openssh_writes_them(home):
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = home / ".ssh" / "known_hosts"
    path.write_text(f"[vobox.example.org]:20000 {key.export_public_key().decode()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert "vobox" not in path.read_text()
    assert known("vobox.example.org", 20000) == [key.public_data]
    with path.open("a") as file:
        file.write(f"@revoked * {key.export_public_key().decode()}")
    with pytest.raises(ProxyError, match="example"):
        known("vobox.example.org", 20000)


def endpoint(proxy):
    return Endpoint("127.0.0.1", proxy.server.port, "", "alice", key_file="~/own")


@pytest.mark.parametrize("first", ["", "mkdir -m 700 "])
def test_a_server_that_is_not_known_is_shown_by_its_fingerprint_and_the_line_to_run_serves(
    running_proxy, home, versions, first
):
    if first:  # nobody has ever used SSH here
        (home / ".ssh").rmdir()

    async def main():
        async with running_proxy() as proxy:
            (home / "own").touch(0o600)
            (home / "own").write_bytes(proxy.keys["alice"].export_private_key())
            shown = fingerprint(proxy.server._host_key.public_data)
            with pytest.raises(ProxyError, match="not known here") as caught:
                await endpoint(proxy).connect()
            assert shown in str(caught.value)
            command = str(caught.value).partition("add it:  ")[2]
            assert command.startswith(first or "ssh-keyscan ")
            assert f"ssh-keyscan -t ed25519 -p {proxy.server.port} 127.0.0.1 >> " in command
            scan = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.DEVNULL)
            assert await scan.wait() == 0
            client = await endpoint(proxy).connect()
            assert client.host_key == proxy.server.host_key
            await client.close()

    asyncio.run(main())


def test_a_server_whose_key_has_changed_is_refused_hard(running_proxy, home):
    async def main():
        async with running_proxy() as proxy:
            make_key(home / "own")
            old = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
            place = f"[127.0.0.1]:{proxy.server.port}"
            (home / ".ssh" / "known_hosts").write_text(f"{place} {old}")
            with pytest.raises(ProxyError, match="another host key than is known here") as caught:
                await endpoint(proxy).connect()
            assert fingerprint(proxy.server._host_key.public_data) in str(caught.value)
            assert f"ssh-keygen -R '{place}'" in str(caught.value)

    asyncio.run(main())


def test_a_user_comes_in_through_the_agent(running_proxy, home, agent):
    async def main():
        async with running_proxy() as proxy:
            (home / "key").touch(0o600)
            (home / "key").write_bytes(proxy.keys["alice"].export_private_key())
            add = await asyncio.create_subprocess_exec("ssh-add", "-q", home / "key")
            assert await add.wait() == 0
            (home / "key").unlink()
            where = Endpoint("127.0.0.1", proxy.server.port, proxy.server.host_key, "alice")
            client = await where.connect()
            assert await client.sessions() == []
            await client.close()

    asyncio.run(main())


def test_keys_that_the_server_does_not_know_are_shown_by_their_fingerprints(running_proxy, home):
    async def main():
        async with running_proxy() as proxy:
            key = make_key(home / ".ssh" / "id_ed25519")
            where = Endpoint("127.0.0.1", proxy.server.port, proxy.server.host_key, "alice")
            with pytest.raises(ProxyError, match="does not know this key of alice") as caught:
                await where.connect()
            assert fingerprint(key.public_data) in str(caught.value)

    asyncio.run(main())
