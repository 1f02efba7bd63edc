"""What users may have, from the ProxyServer's configuration."""

import asyncio

import pytest

from gridproof.errors import ConfigError, ProxyError
from gridproof.proxy.config import read_config
from gridproof.proxy.pool.state import Limits, UserLimits

USERS = {"users": {"alice": ["ssh-ed25519 AAAA"], "bob": ["ssh-ed25519 AAAA"]}}


def test_limits_are_for_all_and_some_may_have_others():
    limits = read_config(
        {**USERS, "limits": {"workers": 10, "idle": 60}, "user_limits": {"bob": {"workers": 99}}}
    ).limits
    assert limits.of("alice") == UserLimits(workers=10, idle=60)
    assert limits.of("bob") == UserLimits(workers=99, idle=60)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {"wokers": 3}}, "they are workers, sessions, idle, pilot_idle"),
        ({"limits": {"workers": 0}}, "workers cannot be 0"),
        ({"limits": {"sessions": 1.5}}, "sessions cannot be 1.5"),
        ({"limits": {"idle": True}}, "idle cannot be True"),
        ({"user_limits": {"bob": 3}}, "user_limits, bob cannot be 3"),
        ({"user_limits": {"eve": {}}}, "eve, who is not among"),
    ],
)
def test_limits_that_cannot_be_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        read_config({**USERS, **settings})


def test_what_sandboxes_must_not_see_is_named_by_where_it_really_is(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    config = read_config({**USERS, **dict.fromkeys(("state_dir", "cache_dir"), f"{tmp_path}/link/here")})
    assert config.state_dir == config.cache_dir == tmp_path.resolve() / "real" / "here"


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 65536},
        {"port": True},
        {"users": {5: []}},
        {"users": {"alice": [5]}},
        {"master": []},
        {"orphan_limit": float("nan")},
        {"limits": {"idle": float("nan")}},
        {"state_dir": "~there-is-no-such-account/x"},
    ],
)
def test_settings_that_cannot_be_are_errors(settings):
    with pytest.raises(ConfigError):
        read_config({**USERS, **settings})


def test_who_asks_for_too_much_is_told_and_nothing_of_it_stays(running_proxy, versions):
    async def main():
        limits = Limits(user=UserLimits(sessions=1, workers=4))
        async with running_proxy(limits=limits) as proxy, proxy.client() as alice, proxy.client("bob") as bob:
            with pytest.raises(ProxyError, match=r"alice may have 4 workers at once .*; ask for 4"):
                await alice.open_session(versions, 5)
            opened = await alice.open_session(versions, 4)
            with pytest.raises(ProxyError, match=rf"1 sessions at once .* has {opened.session}; close one"):
                await alice.open_session(versions, 1)
            assert [record.name for record in await alice.sessions()] == [opened.session]
            await bob.open_session(versions, 4)

    asyncio.run(main())
