"""Where a session's Grid and ProxyServer are: embedded in this machine, or the real ones."""

from __future__ import annotations

import getpass
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import processes
from .config import Config, ProxyConfig
from .errors import ConfigError, LocalGridError, ProxyError, SessionError
from .loopthread import LoopThread

if TYPE_CHECKING:
    from typing import TypeGuard

    from .localgrid import LocalGrid
    from .proxy.client import OnEvent, ProxyClient

LOCAL_TIMEOUT = 60.0  # seconds to wait for workers
GRID_TIMEOUT = 600.0
LOCAL_SITES = 3
LOCAL_ORPHAN_LIMIT = 10.0


@dataclass(frozen=True)
class Endpoint:
    """A ProxyServer to connect to.

    ``host_key``: its public key (OpenSSH text), "": the one in ``known_hosts``. ``key``: the user's private
    key (OpenSSH text), "": that of ``key_file``, and without that those of the SSH agent and of ``~/.ssh``.
    """

    host: str
    port: int
    host_key: str
    user: str
    key: str = field(default="", repr=False)
    key_file: str = ""

    async def connect(self, on_event: OnEvent | None = None) -> ProxyClient:
        """A connection to it.

        Raises:
            ProxyError: it cannot be reached, is not known here or another one, or refuses.
            ConfigError: there is no key to prove oneself with.
        """
        from .proxy.client import ProxyClient
        from .proxy.login import known_host_keys, user_keys

        host, port = self.host, self.port
        trusted = self.host_key or await known_host_keys(host, port, os.environ)
        if self.key:
            return await ProxyClient.connect(host, port, trusted, self.user, self.key, on_event=on_event)
        async with user_keys(self.key_file, os.environ) as keys:
            return await ProxyClient.connect(host, port, trusted, self.user, keys, on_event=on_event)


@dataclass(frozen=True)
class Place:
    """What a session needs to know of its Grid.

    ``embedded``: it is this very machine. ``standing``: its ProxyServer outlives this process.
    """

    environ: Mapping[str, str]
    proxy: Endpoint
    config: Config
    timeout: float
    embedded: bool
    standing: bool


def enter(grid: str | LocalGrid, workers: int, config: Config, stack: ExitStack, loop: LoopThread) -> Place:
    """Have the Grid and the ProxyServer there; what is started for it ends with ``stack``.

    ``loop`` lasts as long as the session: a child dies with the thread that started it.

    Raises:
        ConfigError: no such kind of Grid, or its configuration lacks something.
        LocalGridError, ProxyError: something does not start.
    """
    from .localgrid import Limits, LocalGrid, discovery

    if is_remote(grid):
        return _remote(grid, config)
    if isinstance(grid, LocalGrid):
        proxy = _start_proxy(config, stack, loop)
        return _embedded(grid.environment, proxy(grid.environment), config)
    check_name(grid)
    running = discovery.find(os.getpid()) or discovery.find(0)
    if running is not None and running.proxy:
        return _embedded(running.environment, _endpoint(running.proxy), config, standing=True)
    proxy = _start_proxy(config, stack, loop)
    if running is None:
        slots = max(2, math.ceil(workers / LOCAL_SITES))
        limits = Limits(idle_checks=0)  # whoever is at a prompt may take a break
        own = LocalGrid(sites=LOCAL_SITES, slots=slots, limits=limits)
        environment = stack.enter_context(own).environment
    else:
        environment = running.environment
    return _embedded(environment, proxy(environment), config)


def standing(grid: str, config: Config) -> Place:
    """Where sessions outlive the processes that opened them.

    Raises:
        ConfigError: no such kind of Grid, or its configuration lacks something.
        SessionError: there is no such place.
    """
    from .localgrid import discovery

    if is_remote(grid):
        return _remote(grid, config)
    check_name(grid)
    running = discovery.find(0)
    if running is None or not running.proxy:
        raise SessionError(
            "no embedded Grid is running that keeps sessions; 'gridproof grid start' starts one, "
            "and what is opened there can be attached to"
        )
    return _embedded(running.environment, _endpoint(running.proxy), config, standing=True)


def environment(grid: str) -> Mapping[str, str]:
    """The variables by which a client finds a Grid's central service; nothing is started.

    Raises:
        ConfigError: no such kind of Grid.
        LocalGridError: no embedded Grid is running.
    """
    from .localgrid import discovery

    if is_remote(grid):
        return os.environ
    check_name(grid)
    running = discovery.find_running()
    if running is None:
        raise LocalGridError("no embedded Grid is running; 'gridproof grid start' starts one")
    return {**os.environ, **running}


def check_name(grid: object) -> None:
    """Raises:
    ConfigError: no such kind of Grid.
    """
    if grid != "local" and not is_remote(grid):
        raise ConfigError(f'grid is "local", "alien", "proxy://user@host" or a LocalGrid, not {grid!r}')


def _embedded(
    environ: Mapping[str, str], proxy: Endpoint, config: Config, *, standing: bool = False
) -> Place:
    pilots = replace(config.pilots, orphan_limit=LOCAL_ORPHAN_LIMIT)
    if not pilots.bundle:
        pilots = replace(pilots, python=sys.executable)
    return Place(
        {**os.environ, **environ},
        proxy,
        replace(config, pilots=pilots),
        LOCAL_TIMEOUT,
        embedded=True,
        standing=standing,
    )


def _endpoint(found: Mapping[str, Any]) -> Endpoint:
    """Of an embedded Grid's standing ProxyServer."""
    try:
        key = Path(found["key_file"]).read_text()
    except OSError as error:
        raise ProxyError(f"the key for the embedded Grid's ProxyServer cannot be read: {error}") from None
    return Endpoint(found["host"], found["port"], found["host_key"], found["user"], key)


def _start_proxy(config: Config, stack: ExitStack, loop: LoopThread) -> _Starting:
    """Start a ProxyServer that ends with this process; call what is returned when its Grid is there."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode().strip()

    async def spawn() -> subprocess.Popen[bytes]:
        return processes.spawn([sys.executable, "-m", "gridproof.proxy"], stdout=subprocess.PIPE)

    process = loop.run(spawn())
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    stack.callback(processes.stop, process)
    user = getpass.getuser()
    settings = {
        "host": "127.0.0.1",
        "port": 0,
        "cache_dir": str(config.cache),
        "users": {user: [public]},
        "accounts": {user: None},
        "orphan_limit": LOCAL_ORPHAN_LIMIT,
        "owner_pipe": True,
    }
    return _Starting(process, user, settings, key.export_private_key().decode())


@dataclass(frozen=True)
class _Starting:
    process: subprocess.Popen[bytes]
    user: str
    settings: Mapping[str, Any]
    key: str = field(repr=False)

    def __call__(self, environment: Mapping[str, str]) -> Endpoint:
        """Have it listen; ``environment`` is that of the Grid whose jobs its pilots are."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        settings = {**self.settings, "grid_cas": environment["X509_CERT_DIR"]}
        self.process.stdin.write(json.dumps(settings).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise ProxyError(f"the ProxyServer ended at its start with exit code {code}; its words are above")
        ready = json.loads(line)
        return Endpoint("127.0.0.1", ready["port"], ready["host_key"], self.user, self.key)


def _remote(grid: str, config: Config) -> Place:
    """The real Grid, with the ProxyServer of the configuration or of a URL."""
    proxy = config.proxy if grid == "alien" else _named(grid, config.proxy)
    if not proxy.host:
        raise ConfigError(
            "to open a session on the Grid, name the ProxyServer: open('proxy://user@host'), or proxy.host "
            "in ~/.config/gridproof.yaml or the file that $GRIDPROOF_CONFIG names"
        )
    user = proxy.user or getpass.getuser()
    endpoint = Endpoint(proxy.host, proxy.port, proxy.host_key, user, key_file=proxy.key_file)
    return Place(os.environ, endpoint, config, GRID_TIMEOUT, embedded=False, standing=True)


def _named(url: str, configured: ProxyConfig) -> ProxyConfig:
    """The ProxyServer that ``proxy://user@host:port`` names; the rest is as configured."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or ProxyConfig.port
    except ValueError:
        host = None
    if not host or parts.password or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(
            "a ProxyServer is named as proxy://user@host or proxy://user@host:port, without password or path"
        )
    same = (host, port) == (configured.host.lower(), configured.port)
    return replace(
        configured,
        host=host,
        port=port,
        host_key=configured.host_key if same else "",
        user=parts.username or configured.user,
    )


def is_remote(grid: object) -> TypeGuard[str]:
    """Whether this names the real Grid."""
    return isinstance(grid, str) and (grid == "alien" or grid.startswith("proxy://"))
