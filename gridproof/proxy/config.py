"""What the ProxyServer is told at its start."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gridproof.errors import ConfigError
from gridproof.proxy.admission.userkeys import check_pattern
from gridproof.proxy.pool.state import Limits, UserLimits
from gridproof.proxy.protocol import check_name

# Through the pilot's SSH connection, by a connection of their own, or so where that is possible.
FORWARDING = ("auto", "tunnel", "direct")
MASTER = (sys.executable, "-m", "gridproof.proxy.masters")


@dataclass(frozen=True)
class ServerConfig:
    """``users`` maps names to OpenSSH public keys; times are in seconds; ``port`` 0 means any.

    ``accounts`` names the account on this machine under which sessions of a user run, where it has another
    name than the user; None: the one that the ProxyServer itself runs as.
    With ``owner_pipe`` the end of standard input ends the server and everything below it. Results of queries
    are kept for ``keep_results``. In the configuration ``limits`` is what a user may have (see `UserLimits`),
    and ``user_limits`` maps names to what differs from that for some: a session that nobody is connected to
    and that runs no query gives its workers back after ``idle``, and ends when it keeps no result any more.
    There ``lost_after`` is how long a pilot may be silent before it is given up. ``forward_ports`` listen on
    ``forward_host``, each when somebody has asked for what it leads to. ``packet_forwarding``: how workers
    reach their master, one of `FORWARDING`.
    """

    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    authorized_keys_file: str = ""  # of further users and keys, see `gridproof.proxy.admission.userkeys`
    accounts: Mapping[str, str | None] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 20000
    forward_ports: tuple[int, int] = (20001, 20999)
    forward_host: str = "127.0.0.1"
    packet_forwarding: str = "auto"
    state_dir: Path | None = None
    grid_cas: Path | None = None  # authorities of job tokens; None: pilots need not prove their jobs
    cache_dir: Path | None = None  # compiled selectors, beyond sessions
    owner_pipe: bool = True
    orphan_limit: float = 300.0
    keep_results: float = 24 * 3600.0
    join_lifetime: float = 86400.0  # of a submission's join key
    login_timeout: float = 20.0
    strangers: int = 256  # connections that have not proved themselves yet
    master_timeout: float = 60.0
    store_size: int = 10 << 30  # bytes that a session's store holds at most
    master: Sequence[str] = MASTER
    limits: Limits = field(default_factory=Limits)

    @property
    def master_host(self) -> str:
        """The interface that masters listen on."""
        return "127.0.0.1" if self.packet_forwarding == "tunnel" else self.host


_LEAST_STORE = 1 << 20  # bytes; XRootD wants as many

_YEAR = 366 * 86400
_RANGES: Mapping[str, tuple[float, float]] = {
    "port": (0, 65535),
    "store_size": (_LEAST_STORE, 1 << 60),
    "orphan_limit": (1, _YEAR),
    "keep_results": (0, _YEAR),
    "join_lifetime": (1, _YEAR),
    "lost_after": (1, _YEAR),
}
_KINDS: Mapping[str, tuple[type, ...]] = {
    "users": (dict,),
    "authorized_keys_file": (str,),
    "accounts": (dict,),
    "host": (str,),
    "port": (int,),
    "forward_ports": (list,),
    "forward_host": (str,),
    "packet_forwarding": (str,),
    "state_dir": (str, type(None)),
    "cache_dir": (str, type(None)),
    "grid_cas": (str, type(None)),
    "owner_pipe": (bool,),
    "orphan_limit": (int, float),
    "keep_results": (int, float),
    "store_size": (int,),
    "join_lifetime": (int, float),
    "limits": (dict,),
    "user_limits": (dict,),
    "lost_after": (int, float),
    "master": (list,),
}


def read_config(values: Mapping[str, Any]) -> ServerConfig:
    """The configuration from its JSON object.

    Raises:
        ConfigError: unknown settings, no users, or values that cannot be.
    """
    settings = dict(values)
    for name, value in settings.items():
        kinds = _KINDS.get(name)
        if kinds is None:
            raise ConfigError(f"the ProxyServer knows no setting {name}; it knows {', '.join(_KINDS)}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"the ProxyServer's setting {name} cannot be {value!r}")
    for name in _RANGES.keys() & settings:
        least, most = _RANGES[name]
        if not least <= settings[name] <= most:
            raise ConfigError(
                f"the ProxyServer's setting {name} cannot be {settings[name]!r}: "
                f"it lies between {least} and {most}"
            )
    users = settings.get("users", {})
    if not all(isinstance(keys, list) and _texts([name, *keys]) for name, keys in users.items()):
        raise ConfigError('the ProxyServer\'s users are {"name": ["ssh-ed25519 …", …]}')
    if settings.get("authorized_keys_file"):
        check_pattern(settings["authorized_keys_file"])
    elif not users:
        raise ConfigError(
            'the ProxyServer needs users: {"name": ["ssh-ed25519 …", …]}, or authorized_keys_file'
        )
    for name in users:
        check_name("user", name)
    for name, account in settings.get("accounts", {}).items():
        known = name in users or settings.get("authorized_keys_file")
        if not known or not isinstance(account, (str, type(None))):
            raise ConfigError(f"the ProxyServer's accounts map its users to names of accounts, not {name!r}")
    if settings.get("packet_forwarding", "auto") not in FORWARDING:
        raise ConfigError(
            f"packet_forwarding is one of {', '.join(FORWARDING)}, not {settings['packet_forwarding']!r}"
        )
    if not settings.get("master", MASTER) or not _texts(settings.get("master", MASTER)):
        raise ConfigError(f"the ProxyServer's setting master is a command, not {settings['master']!r}")
    if "forward_ports" in settings:
        settings["forward_ports"] = _port_range(settings["forward_ports"])
    for name in ("state_dir", "cache_dir", "grid_cas"):
        if settings.get(name) is not None:
            settings[name] = _path(settings[name])
    everybody = _user_limits("limits", settings.pop("limits", {}), UserLimits())
    others = {
        name: _user_limits(f"user_limits, {name}", some, everybody)
        for name, some in settings.pop("user_limits", {}).items()
    }
    unknown = sorted(set(others) - set(users))
    if unknown and not settings.get("authorized_keys_file"):
        raise ConfigError(f"user_limits are given for {unknown[0]}, who is not among the ProxyServer's users")
    silence = settings.pop("lost_after", Limits().lost_after)
    silent = min(silence, Limits().silent_after)
    limits = Limits(silent_after=silent, lost_after=silence, user=everybody, users=others)
    return ServerConfig(**settings, limits=limits)


def _user_limits(where: str, values: Any, beside: UserLimits) -> UserLimits:
    known = [f.name for f in fields(UserLimits)]
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ConfigError(f"the ProxyServer's {where} cannot be {values!r}; they are {', '.join(known)}")
    for name, value in values.items():
        kinds = (int,) if name in ("workers", "sessions") else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
            raise ConfigError(f"the ProxyServer's {where}: {name} cannot be {value!r}")
    return replace(beside, **values)


def _port_range(ports: Sequence[Any]) -> tuple[int, int]:
    if len(ports) == 2 and all(isinstance(port, int) for port in ports):
        first, last = ports
        if 1024 <= first <= last <= 65535:
            return first, last
    raise ConfigError(f"forward_ports {ports} is not [first, last] within 1024 to 65535")


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _path(text: str) -> Path:
    """Where it really is: that is what has to be hidden from sandboxes."""
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # no such account, links in a circle, no path
        raise ConfigError(f"{text}: {error}") from None
