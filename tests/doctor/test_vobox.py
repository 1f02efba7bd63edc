"""What the doctor finds of a ProxyServer's port."""

import socket
import threading
from contextlib import contextmanager
from dataclasses import replace

import asyncssh
import pytest

from gridproof.doctor import vobox


@contextmanager
def listener(words):
    """Something that listens and says ``words`` to who comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            peer, _ = server.accept()
            with peer:
                peer.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_a_proxy_server_that_lets_us_in_is_well(endpoint):
    found = vobox.proxy(endpoint, public=False)
    assert found.state == "ok"
    assert "sessions there: 0" in found.found


def test_an_address_that_worker_nodes_do_not_reach_is_a_warning(endpoint):
    found = vobox.proxy(endpoint, public=True)
    assert (found.state, "127.0.0.1 is a private address" in found.found) == ("warning", True)


@pytest.mark.parametrize("host", ["voalice.invalid", "voalice..org"])
def test_a_name_that_is_not_known_is_the_configurations_fault(endpoint, host):
    found = vobox.proxy(replace(endpoint, host=host), public=True)
    assert (found.state, found.remedy) == ("failed", "correct proxy.host")


def test_a_closed_port_is_told_with_how_to_open_it(endpoint):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = vobox.proxy(replace(endpoint, port=closed.getsockname()[1]), public=True)
    assert (found.state, "firewall" in found.remedy) == ("failed", True)


def test_something_else_that_listens_there_is_no_proxy_server(endpoint):
    with listener(b"220 smtp.cern.ch ESMTP\r\n") as port:
        found = vobox.proxy(replace(endpoint, port=port), public=True)
    assert (found.state, found.remedy) == ("failed", "correct proxy.port")


def test_a_port_behind_which_nobody_speaks_is_given_up(endpoint, monkeypatch):
    monkeypatch.setattr(vobox, "_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = vobox.proxy(replace(endpoint, port=silent.getsockname()[1]), public=True)
    assert (found.state, "timed out" in found.found) == ("failed", True)


def test_another_host_key_is_told_apart(endpoint):
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    found = vobox.proxy(replace(endpoint, host_key=other), public=True)
    assert (found.state, "proxy.host_key" in found.remedy) == ("failed", True)


def test_a_key_that_the_proxy_server_does_not_know_is_told_apart(endpoint):
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    found = vobox.proxy(replace(endpoint, key=stranger), public=True)
    assert (found.state, "add your public key to users" in found.remedy) == ("failed", True)


@pytest.mark.parametrize("part", ["host_key", "key"])
def test_keys_that_are_none_are_the_configurations_fault(endpoint, part):
    found = vobox.proxy(replace(endpoint, **{part: "ssh-ed25519 AAAA"}), public=True)
    assert (found.state, "proxy.host_key and proxy.key_file" in found.found) == ("failed", True)
