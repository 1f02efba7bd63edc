"""What the ProxyServer is told at its start."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridproof.errors import ConfigError
from gridproof.proxy.protocol import check_name
from gridproof.proxy.state import Limits

MASTER = (sys.executable, "-m", "gridproof.proxy.master")


@dataclass(frozen=True)
class ServerConfig:
    """``users`` maps names to OpenSSH public keys; times are in seconds; ``port`` 0 means any.

    With ``owner_pipe`` the end of standard input ends the server and everything below it.
    """

    users: Mapping[str, Sequence[str]]
    host: str = "127.0.0.1"
    port: int = 20000
    forward_ports: tuple[int, int] = (20001, 20999)
    state_dir: Path | None = None
    owner_pipe: bool = True
    orphan_limit: float = 300.0
    login_timeout: float = 20.0
    strangers: int = 256  # connections that have not proved themselves yet
    master_timeout: float = 60.0
    master: Sequence[str] = MASTER
    limits: Limits = field(default_factory=Limits)


def read_config(values: Mapping[str, Any]) -> ServerConfig:
    """The configuration from its JSON object.

    Raises:
        ConfigError: unknown settings, no users, or values that cannot be.
    """
    settings = dict(values)
    known = {"users", "host", "port", "forward_ports", "state_dir", "owner_pipe", "orphan_limit", "master"}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(
            f"the ProxyServer knows no setting {', '.join(unknown)}; it knows {', '.join(sorted(known))}"
        )
    users = settings.get("users")
    if not isinstance(users, Mapping) or not users:
        raise ConfigError('the ProxyServer needs "users": {"name": ["ssh-ed25519 …", …]}')
    for name in users:
        check_name("user", name)
    if "forward_ports" in settings:
        first, last = settings["forward_ports"]
        if not 1024 <= first <= last <= 65535:
            raise ConfigError(f"forward_ports [{first}, {last}] is not a range of ports from 1024 to 65535")
        settings["forward_ports"] = (first, last)
    if settings.get("state_dir") is not None:
        settings["state_dir"] = Path(settings["state_dir"])
    return ServerConfig(**settings)
