"""Users: who they are, as whom they may act, what certificates are good for."""

from __future__ import annotations

import datetime
import re

import pytest
from click.testing import CliRunner
from websockets.exceptions import InvalidStatus

from gridproof.alien import Alien
from gridproof.config import PilotConfig
from gridproof.errors import LocalGridError
from gridproof.localgrid import Limits, LocalGrid, User
from gridproof.localgrid.certificates import (
    host_subject,
    job_subject,
    token_subject,
    user_subject,
    write_private,
)
from gridproof.localgrid.users import DEFAULT_USERS, Users, read_user
from gridproof.pilotjobs import PilotJobs
from gridproof.proxy.protocol import Versions

ACCOUNTS = (User("ada", ("pwg", "vobox")), User("bob", ("pwg",)), User("root1", ("admin",)), User("guest"))


def test_by_default_there_are_gridproof_guest_and_admin():
    homes = {user.name: user.home for user in Users(DEFAULT_USERS)}
    assert homes == {
        "gridproof": "/local/user/g/gproof/",
        "guest": "/local/user/g/guest/",
        "admin": "/local/user/a/admin/",
    }


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("ada", {"ada", "pwg", "vobox", "users"}),
        ("bob", {"bob", "pwg", "users"}),
        ("guest", {"guest", "users"}),
        ("pwg", {"pwg", "users"}),
        ("root1", {"ada", "bob", "root1", "guest", "admin", "pwg", "vobox", "users"}),
        ("admin", {"ada", "bob", "root1", "guest", "admin", "pwg", "vobox", "users"}),
    ],
)
def test_one_may_act_as_oneself_and_ones_groups_and_administrators_as_anyone(name, roles):
    everyone = {"ada", "bob", "root1", "guest", "admin", "pwg", "vobox", "users"}
    assert {role for role in everyone if Users(ACCOUNTS)[name].may_become(role)} == roles


@pytest.mark.parametrize(
    ("text", "user"), [("ada", User("ada")), ("ada:pwg,vobox", User("ada", ("pwg", "vobox")))]
)
def test_a_user_is_named_in_a_shell(text, user):
    assert read_user(text) == user


def test_a_group_has_members_and_an_account_its_own_name():
    users = Users(ACCOUNTS)
    assert (users.members("pwg"), users.members("ada")) == (["ada", "bob"], ["ada"])
    assert "pwg" in users
    assert "nobody" not in users


@pytest.mark.parametrize(
    ("accounts", "why"),
    [
        ([], "at least one user"),
        ([User("a/b")], "'a/b' cannot be a user"),
        ([User("ada", ("../x",))], r"'\.\./x' cannot be a user or a group"),
        ([User("admin")], "admin of the embedded Grid is fixed"),
        ([User("users")], "users of the embedded Grid is fixed"),
        ([User("ada"), User("ada")], "have the name ada"),
        ([User("ada"), User("bob", home="/local/user/a/ada")], "have the home /local/user/a/ada/"),
    ],
)
def test_users_that_cannot_be_are_refused_before_anything_is_started(accounts, why):
    with pytest.raises(LocalGridError, match=why):
        LocalGrid(users=accounts)


@pytest.fixture(scope="module")
def grid():
    with LocalGrid(sites=1, users=ACCOUNTS, limits=Limits(report_interval=0.2)) as grid:
        yield grid


def failure(answer):
    return int(answer["metadata"]["exitcode"]), answer["metadata"]["error"]


def test_every_user_has_a_certificate_and_a_home(grid, dial):
    for name in ("ada", "bob", "guest", "root1", "admin"):
        with dial(grid.environment_of(name)) as raw:
            me = raw.rows("whoami")[0]
            assert (me["username"], me["homedir"]) == (name, f"/local/user/{name[0]}/{name}/")
            assert raw.rows("pwd")[0]["pwd"] == me["homedir"]
            assert raw.rows("ls", me["homedir"]) == []
    with pytest.raises(LocalGridError, match="has no user eve; its users are ada, admin, bob, guest, root1"):
        grid.environment_of("eve")


def test_the_shell_gets_the_environment_of_any_user(grid, monkeypatch):
    from gridproof.localgrid import shell

    monkeypatch.setattr(shell, "_environment", lambda: grid.environment)
    for argv, name in ([], "ada"), (["--user", "guest"], "guest"):
        printed = CliRunner().invoke(shell.grid, ["env", *argv]).output
        assert f"users/{name}/usercert.pem" in printed
        assert f"export ALIENPY_JCENTRAL_PORT={grid.environment['ALIENPY_JCENTRAL_PORT']}" in printed


def test_who_is_no_longer_a_user_has_no_certificate_any_more(roots, dial):
    settings = {"sites": 1, "slots": 1, "root": roots / "grid"}
    with LocalGrid(**settings, users=[User("ada"), User("eve")]) as grid:
        assert grid.environment_of("eve")
    with LocalGrid(**settings, users=[User("ada")]) as grid:
        with pytest.raises(LocalGridError, match="no user eve; its users are ada, admin"):
            grid.environment_of("eve")
        with dial(grid.environment) as ada:
            assert ada.rows("ls", "-l", "/local/user/e")[0]["user"] == "eve"


def test_groups_are_shown_as_by_jalien(ada, bob):
    assert ada.rows("whoami")[0]["roles"] == "ada,pwg,vobox"
    assert ada.rows("groups")[0]["message"] == (
        "User: ada, main group: ada\nMember of groups: ada pwg vobox "
    )
    assert bob.rows("groupmembers", "pwg")[0]["message"] == "Members of pwg: ada bob"
    assert failure(bob.ask("groupmembers", "x")) == (2, "No such file or directory : Group x does not exist")
    assert bob.rows("whois", "ada") == [
        {
            "message": "Username: ada\n  Roles: ada, pwg, vobox\n  Subject: /C=ch/O=AliEn2/CN=ada",
            "username": "ada",
            "roles": "ada, pwg, vobox",
            "subject": "/C=ch/O=AliEn2/CN=ada",
        }
    ]
    assert bob.rows("whois", "eve") == [{"message": "Username not found: eve"}]
    assert [row["username"] for row in bob.rows("whois", "-s", "oo")] == ["root1"]


def test_one_changes_to_a_role_that_one_has_and_to_no_other(ada, bob, admin):
    assert failure(bob.ask("user", "ada")) == (
        1,
        "Operation not permitted : Switching user bob to [ada] failed",
    )
    assert ada.rows("user", "pwg") == [{"homedir": "/local/user/p/pwg/"}]
    assert ada.ask("pwd")["metadata"]["user"] == "pwg"
    assert failure(ada.ask("user", "ada"))[0] == 1  # the group is not ada
    assert admin.rows("user", "bob") == [{"homedir": "/local/user/b/bob/"}]
    assert failure(admin.ask("user", "root1"))[0] == 1
    assert failure(ada.ask("user"))[0] == 22


def test_a_user_token_does_what_the_certificate_does(grid, dial, ada, tmp_path):
    row = ada.rows("token")[0]
    write_private(tmp_path / "cert.pem", row["tokencert"])
    write_private(tmp_path / "key.pem", row["tokenkey"])
    assert row["message"].startswith("DN: /C=ch/O=AliEn2/CN=Users/CN=ada/OU=ada\nExpires: ")
    with dial(grid.environment, tmp_path / "cert.pem", tmp_path / "key.pem") as raw:
        assert raw.rows("whoami")[0]["username"] == "ada"
        raw.rows("touch", "by-token")
        raw.rows("rm", "by-token")
        assert raw.rows("token")


def test_a_token_for_a_role_acts_as_the_role(grid, dial, bob, tmp_path):
    row = bob.rows("token", "-u", "pwg")[0]
    assert "DN: /C=ch/O=AliEn2/CN=Users/CN=bob/OU=pwg\n" in row["message"]
    assert bob.ask("pwd")["metadata"]["user"] == "pwg"
    write_private(tmp_path / "cert.pem", row["tokencert"])
    write_private(tmp_path / "key.pem", row["tokenkey"])
    with dial(grid.environment, tmp_path / "cert.pem", tmp_path / "key.pem") as raw:
        assert raw.rows("whoami")[0]["username"] == "pwg"


def test_who_asks_for_another_ones_token_gets_an_own_one_and_an_error(bob):
    answer = bob.ask("token", "-u", "ada")
    assert failure(answer) == (1, "Operation not permitted : Switching user bob to [ada] failed")
    assert "/CN=Users/CN=bob/OU=bob\n" in answer["results"][0]["message"]


def test_a_token_ends_with_the_certificate_that_it_was_got_by(grid, dial, issue):
    with dial(grid.environment, *issue(token_subject("bob", "bob"), hours=2)) as raw:
        expires = re.search("Expires: (.*)\n", raw.rows("token")[0]["message"])
        assert expires
        ends = datetime.datetime.strptime(f"{expires[1]} +0000", "%a %b %d %H:%M:%S UTC %Y %z")
        assert ends < datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=2)


def test_tokens_of_jobs_and_hosts_are_for_administrators(ada, admin):
    assert failure(ada.ask("token", "-hostname", "a.b")) == (
        121,
        "Remote I/O error : Server didn't execute your request, reason was: Only admin can do that",
    )
    assert "Only a JobAgent can ask" in failure(ada.ask("token", "-t", "job", "-jobid", "1"))[1]
    message = admin.rows("token", "-t", "host", "-hostname", "a.b")[0]["message"]
    assert message.startswith("DN: /C=ch/O=AliEn2/OU=ALICE/CN=a.b\n")


@pytest.fixture
def running(grid, ada, tmp_path):
    """A job of ada's that runs, with the certificate and key of its token."""
    (tmp_path / "sleep.sh").write_text("#!/bin/sh\nsleep 600\n")
    ada.ask("rm", "/local/user/a/ada/sleep.sh")
    grid.put(tmp_path / "sleep.sh", "/local/user/a/ada/sleep.sh")
    job = ada.submit('Executable = "/local/user/a/ada/sleep.sh";')
    ada.wait(job, "RUNNING")
    token = grid.root / "wn" / f"alien-job-{job}.1" / "token"
    for name in ("tokencert.pem", "tokenkey.pem"):  # the job's directory goes with its run
        write_private(tmp_path / name, (token / name).read_text())
    yield job, tmp_path / "tokencert.pem", tmp_path / "tokenkey.pem"
    ada.ask("kill", job)


def test_a_job_acts_as_its_owner_but_gets_no_user_token(grid, dial, running):
    _, *token = running
    with dial(grid.environment, *token) as payload:
        assert payload.rows("whoami")[0]["username"] == "ada"
        payload.rows("touch", "by-the-job")
        assert failure(payload.ask("token")) == (
            121,
            "Remote I/O error : Server didn't execute your request, reason was:"
            " You can't request a User token as JobAgent or Job",
        )
        assert failure(payload.ask("token", "-u", "pwg"))[0] == 121


def test_a_jobs_token_is_worth_nothing_once_the_job_runs_again(grid, dial, ada, running):
    job, *token = running
    with dial(grid.environment, *token) as payload:
        assert payload.rows("pwd")
        ada.rows("kill", job)
        assert payload.rows("pwd")  # the payload of a killed job lives for a while
        ada.rows("resubmit", job)
        ada.wait(job, "RUNNING")
        answer = payload.ask("pwd")
        assert answer["metadata"]["error"].endswith("This job is not supposed to still be running")
        assert not answer["results"]
    with pytest.raises(InvalidStatus, match="401"):
        dial(grid.environment, *token)


@pytest.mark.parametrize(
    "subject",
    [
        host_subject("localhost"),
        user_subject("eve"),
        token_subject("eve", "eve"),
        token_subject("bob", "ada"),
        job_subject("bob", 7),
    ],
    ids=[
        "a host",
        "an unknown user",
        "an unknown user's token",
        "a role that one has not",
        "a job that is not",
    ],
)
def test_a_certificate_of_nobody_gets_401(grid, dial, issue, subject):
    with pytest.raises(InvalidStatus, match="401"):
        dial(grid.environment, *issue(subject))


def test_the_pilots_join_key_is_at_no_moment_open_to_others(grid, bob, monkeypatch):
    with Alien.connect(grid.environment_of("ada")) as alien:
        pilots = PilotJobs(alien, PilotConfig(), "tag")
        key, refused = f"{alien.home}.gridproof/tag/pilot.json", {}
        chmod = alien.chmod

        def before_it_is_closed(lfn, mode):
            if lfn == key:
                assert alien.stat(key).perm == "755"
                for command in (("access", "read", key), ("cat", key), ("stat", key)):
                    refused[command[0]] = bob.ask(*command)["metadata"]["exitcode"]
            chmod(lfn, mode)

        monkeypatch.setattr(alien, "chmod", before_it_is_closed)
        pilots.submit([], {"join_key": "secret"}, Versions("3.11.7", "6.40.00", "1.2", "2026.8.0"))
        try:
            assert set(refused) == {"access", "cat", "stat"}
            assert "0" not in refused.values()
            assert alien.stat(key).perm == "600"
            assert b"secret" in alien.cat(key)
        finally:
            pilots.end()
