"""The ProxyServer, seen from outside its VO-box."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from gridproof.doctor.verdict import Verdict, failed, ok, warning
from gridproof.errors import ConfigError, ProxyError
from gridproof.grids import Endpoint

_SECONDS = 10.0
_BANNER = b"SSH-2.0-"


def proxy(endpoint: Endpoint, public: bool) -> Verdict:
    """Whether the port is open, an SSH server with the right host key is behind it, and lets this user in.

    ``public``: worker nodes elsewhere must reach it, so an address of this machine or site alone is no good.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    try:
        with socket.create_connection((endpoint.host, endpoint.port), _SECONDS) as connection:
            address, here = connection.getpeername()[0], connection.getsockname()[0]
            connection.settimeout(_SECONDS)
            banner = connection.recv(64)
    except (socket.gaierror, UnicodeError) as error:
        return failed(f"the name {endpoint.host} is not known: {error}", "correct proxy.host")
    except (TimeoutError, OSError) as error:
        return failed(
            f"{where} cannot be reached: {error}",
            "run 'gridproof proxy --config FILE' there with host: 0.0.0.0, and open the port in its firewall",
        )
    if not banner.startswith(_BANNER):
        return failed(f"at {where} something else than a ProxyServer listens", "correct proxy.port")
    try:
        sessions = asyncio.run(_sessions(endpoint))
    except ConfigError as error:  # of the user's own keys
        return failed(str(error))
    except ProxyError as error:
        return failed(str(error), _remedy(str(error), endpoint))
    text = f"{where} lets {endpoint.user} in; sessions there: {sessions}"
    if public and ipaddress.ip_address(address).is_private:
        return warning(
            f"{text}; but {address} is a private address, which worker nodes elsewhere do not reach",
            "give the VO-box's public name in proxy.host",
        )
    if public and address == here:
        return warning(
            f"{text}; but this is the VO-box itself, so its firewall was not tried",
            "run gridproof doctor on another machine too",
        )
    return ok(text)


async def _sessions(endpoint: Endpoint) -> int:
    client = await endpoint.connect()
    try:
        return len(await client.sessions())
    finally:
        await client.close()


def _remedy(problem: str, endpoint: Endpoint) -> str:
    if "host key" in problem:
        return "put the host key that the ProxyServer prints at its start into proxy.host_key or known_hosts"
    if "does not know this key" in problem:
        return f"add your public key to users: {{{endpoint.user}: […]}} in the ProxyServer's configuration"
    return "look at the ProxyServer's output"
