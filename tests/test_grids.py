"""Which ProxyServer is meant, by name, URL and configuration."""

import getpass

import pytest

from gridproof import grids
from gridproof.config import Config, ProxyConfig
from gridproof.errors import ConfigError

CONFIGURED = Config(
    proxy=ProxyConfig(host="vobox.example.org", host_key="ssh-ed25519 AAAA", user="jdoe", key_file="~/own")
)


def endpoint(grid, config=CONFIGURED):
    return grids.standing(grid, config).proxy


def test_the_real_grids_proxy_server_is_the_configured_one():
    found = endpoint("alien")
    assert (found.host, found.port, found.user) == ("vobox.example.org", 20000, "jdoe")
    assert (found.host_key, found.key_file, found.key) == ("ssh-ed25519 AAAA", "~/own", "")


@pytest.mark.parametrize(
    ("url", "host", "port", "user"),
    [
        ("proxy://alice@other.example.org", "other.example.org", 20000, "alice"),
        ("proxy://alice@other.example.org:2200/", "other.example.org", 2200, "alice"),
        ("proxy://other.example.org", "other.example.org", 20000, "jdoe"),
        ("proxy://alice@[2001:db8::1]:2200", "2001:db8::1", 2200, "alice"),
    ],
)
def test_a_url_names_server_and_user_and_the_rest_is_as_configured(url, host, port, user):
    found = endpoint(url)
    assert (found.host, found.port, found.user, found.key_file) == (host, port, user, "~/own")
    assert found.host_key == "", "that of another server is no good"


def test_the_configured_host_key_is_for_the_configured_server():
    assert endpoint("proxy://alice@vobox.example.org").host_key == "ssh-ed25519 AAAA"
    assert endpoint("proxy://alice@vobox.example.org:2200").host_key == ""


def test_without_a_name_the_user_is_who_runs_this():
    assert endpoint("proxy://vobox.example.org", Config()).user == getpass.getuser()


@pytest.mark.parametrize(
    "url",
    ["proxy://", "proxy://user@", "proxy://user:secret@host", "proxy://host:port", "proxy://host/path"],
)
def test_a_url_that_names_no_server_says_how_to(url):
    with pytest.raises(ConfigError, match="proxy://user@host:port"):
        endpoint(url)


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        endpoint("proxy://user:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("grid", ["", "lokal", "http://host", "proxy:host"])
def test_other_names_are_refused_with_those_that_there_are(grid):
    for asked in (grids.check_name, lambda name: grids.standing(name, CONFIGURED), grids.environment):
        with pytest.raises(ConfigError, match='grid is "local", "alien", "proxy://user@host" or a LocalGrid'):
            asked(grid)


def test_a_real_grid_without_a_proxy_server_says_where_to_name_one():
    with pytest.raises(ConfigError, match=r"open\('proxy://user@host'\), or proxy.host"):
        endpoint("alien", Config())
