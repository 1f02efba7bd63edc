"""Whose keys are whose: the ProxyServer's configuration, and files of keys on the VO-box."""

import asyncio
import os
import pwd

import asyncssh
import pytest

from gridproof.errors import ConfigError, ProxyError
from gridproof.proxy.admission.userkeys import UserKeys, check_pattern
from gridproof.proxy.config import read_config

LISTED, FILED, STRANGER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))


def text(key):
    return key.export_public_key().decode().strip()


def public(key):
    return key.convert_to_public()


@pytest.fixture
def directory(tmp_path):
    """Of key files; alice has one."""
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o755)
    write(directory / "alice", f"# alice's\n\n{text(FILED)} laptop\n")
    return directory


def write(path, content, mode=0o644):
    path.write_text(content)
    path.chmod(mode)


def keys(directory):
    return UserKeys({"alice": [text(LISTED)], "bob": []}, f"{directory}/%u", {})


def test_a_user_comes_in_by_a_listed_key_or_one_of_the_file(directory):
    for key in (LISTED, FILED):
        keys(directory).check("alice", public(key), "192.0.2.1")
    for user, key, why in [
        ("alice", STRANGER, "not one of the user's keys, nor of .*/keys/alice"),
        ("bob", LISTED, "not one of the user's keys"),
        ("carol", FILED, "no such user"),
    ]:
        with pytest.raises(ProxyError, match=why):
            keys(directory).check(user, public(key), "192.0.2.1")


def test_a_key_that_is_added_or_removed_counts_from_the_next_login_on(directory):
    known = keys(directory)
    write(directory / "carol", text(STRANGER))
    known.check("carol", public(STRANGER), "192.0.2.1")
    write(directory / "carol", "")
    with pytest.raises(ProxyError, match="not one"):
        known.check("carol", public(STRANGER), "192.0.2.1")


@pytest.mark.parametrize("user", ["../keys/alice", "/etc/passwd", ".", "", "alice/", "alice\0"])
def test_what_a_stranger_calls_himself_never_becomes_a_path(directory, user):
    with pytest.raises(ProxyError, match="no such user"):
        keys(directory).check(user, public(FILED), "192.0.2.1")


@pytest.mark.parametrize("options", ['command="backup"', "restrict", 'expiry-time="2020"', "cert-authority"])
def test_lines_that_allow_less_than_a_session_are_left_out(directory, options):
    write(directory / "alice", f"{options} {text(FILED)}\n")
    with pytest.raises(ProxyError, match="not one"):
        keys(directory).check("alice", public(FILED), "192.0.2.1")


def test_a_line_may_say_from_where(directory):
    write(directory / "alice", f'from="192.0.2.0/24" {text(FILED)}\n')
    keys(directory).check("alice", public(FILED), "192.0.2.1")
    with pytest.raises(ProxyError, match="not one"):
        keys(directory).check("alice", public(FILED), "198.51.100.1")


def test_a_file_that_others_may_write_is_left_out(directory):
    (directory / "alice").chmod(0o664)
    with pytest.raises(
        ProxyError, match=r"keys/alice is left out: others may write it \(owner \d+, mode 664"
    ):
        keys(directory).check("alice", public(FILED), "192.0.2.1")
    (directory / "alice").chmod(0o644)
    directory.chmod(0o777)
    with pytest.raises(ProxyError, match=r"keys is left out: .* mode 777"):
        keys(directory).check("alice", public(FILED), "192.0.2.1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_account_is_left_out(directory):
    os.chown(directory / "alice", 12345, 12345)
    with pytest.raises(ProxyError, match="owner 12345"):
        keys(directory).check("alice", public(FILED), "192.0.2.1")


def test_what_is_no_plain_file_neither_blocks_nor_counts(directory):
    elsewhere = directory.parent / "elsewhere"
    write(elsewhere, text(FILED))
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(elsewhere)):
        (directory / "alice").unlink()
        make(directory / "alice")
        with pytest.raises(ProxyError, match=r"alice (is no file of keys|cannot be read)"):
            keys(directory).check("alice", public(FILED), "192.0.2.1")
        if (directory / "alice").is_dir():
            (directory / "alice").rmdir()
            write(directory / "alice", "")


def test_the_accounts_own_files_serve_as_sshd_takes_them(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    home.chmod(0o755)
    write(home / ".ssh" / "authorized_keys", text(FILED), 0o600)
    accounts = {"jdoe": 4711, "root": 0}

    def getpwnam(name):
        if name not in accounts:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", accounts[name], accounts[name], "", str(home), "/bin/sh"))

    monkeypatch.setattr("pwd.getpwnam", getpwnam)
    monkeypatch.setattr("os.getgrouplist", lambda *_: [])
    known = UserKeys({}, "%h/.ssh/authorized_keys", {"jane": "jdoe", "nobody": None})
    for user in ("jdoe", "jane"):
        known.check(user, public(FILED), "192.0.2.1")
    for user in ("root", "nobody", "carol"):
        with pytest.raises(ProxyError, match="no such user"):
            known.check(user, public(FILED), "192.0.2.1")
    home.chmod(0o770)
    with pytest.raises(ProxyError, match="home is left out"):
        known.check("jdoe", public(FILED), "192.0.2.1")


@pytest.mark.parametrize(
    "pattern", ["keys/%u", "/keys/%u.pub", "/keys/%h/%u", "~/.ssh/authorized_keys", "/%x/%u"]
)
def test_a_pattern_that_is_none_is_an_error_of_the_configuration(pattern):
    with pytest.raises(ConfigError, match="authorized_keys_file is"):
        check_pattern(pattern)


def test_a_server_needs_users_or_a_pattern():
    with pytest.raises(ConfigError, match=r"needs users: .* or authorized_keys_file"):
        read_config({})
    assert read_config({"authorized_keys_file": "%h/.ssh/authorized_keys"}).users == {}


def test_users_of_files_come_in_over_ssh(running_proxy, directory, versions):
    async def main():
        async with running_proxy(authorized_keys_file=f"{directory}/%u") as proxy:
            async with proxy.client("alice", FILED) as alice:
                opened = await alice.open_session(versions, 1)
            write(directory / "carol", text(STRANGER))
            async with proxy.client("carol", STRANGER) as carol:
                assert await carol.sessions() == []
                with pytest.raises(ProxyError, match="carol has no session"):
                    await carol.close_session(opened.session)

    asyncio.run(main())


def test_every_request_about_a_session_is_refused_to_others(running_proxy, versions):
    about = {
        "attach_session": {"versions": versions.__dict__},
        "at_hand": {},
        "new_submission": {"pilots": 1, "grid_user": "bob"},
        "resize_session": {"workers": 9},
        "status": {},
        "forward": {"worker": "w", "what": "worker"},
        "close_session": {},
    }

    async def main():
        async with running_proxy() as proxy, proxy.client("alice") as alice, proxy.client("bob") as bob:
            opened = await alice.open_session(versions, 1)
            with pytest.raises(ProxyError, match="known are") as caught:
                await bob._request("dance")
            verbs = set(str(caught.value).partition("known are ")[2].split(", "))
            own = {"open_session", "sessions", "logs"}  # which name no session, or only the user's own
            assert verbs - own <= set(about), "each request is tried here"
            for verb in verbs - own:
                with pytest.raises(ProxyError, match="bob has no session"):
                    await bob._request(verb, session=opened.session, **about[verb])
            (record,) = await alice.sessions()
            assert record.name == opened.session

    asyncio.run(main())
