"""Every default in one place; a YAML file may say otherwise.

The file is ``$GRIDPROOF_CONFIG`` or ``~/.config/gridproof.yaml``::

    proxy:
      host: voalice06.cern.ch
      host_key: ssh-ed25519 AAAA…
      user: jdoe
      key_file: ~/.ssh/id_ed25519
    pilots:
      strategy: se
      packages: [VO_ALICE@ROOT::v6-36-04-1]
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError


@dataclass(frozen=True)
class ProxyConfig:
    """The ProxyServer on the VO-box. Its host key and the user's key are OpenSSH's.

    ``host_key`` "": the one in ``known_hosts``. ``key_file`` "": the keys of the SSH agent and of ``~/.ssh``.
    """

    host: str = ""
    port: int = 20000
    host_key: str = ""
    user: str = ""
    key_file: str = ""


@dataclass(frozen=True)
class PilotConfig:
    """The pilots' JDLs. ``ttl`` in seconds; ``cores`` is also the number of workers of a pilot.

    ``strategy``: ``production`` (so many pilots per set of SEs) or ``se`` (AliEn splits: each pilot goes to
    where one file of the dataset is).
    ``python``: the interpreter on the worker node that is tried first; ``bundle``: what 'gridproof pilot
    bundle' made, for pilots to bring along ("": the node has gridproof).
    ``memory`` is the job's, ``worker_memory`` what one worker may use ("": an equal share of the job's).
    """

    strategy: str = "production"
    cores: int = 1
    ttl: int = 6 * 3600
    memory: str = "4GB"
    price: float = 1.0
    packages: tuple[str, ...] = ()
    python: str = "python3"
    bundle: str = ""
    orphan_limit: float = 300.0
    worker_memory: str = ""

    def __post_init__(self) -> None:
        for name in ("cores", "ttl", "price", "orphan_limit"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"pilots, {name} must be more than 0, not {getattr(self, name)}")

    @property
    def worker_bytes(self) -> int:
        """Bytes of memory that one worker may use.

        Raises:
            ConfigError: ``worker_memory`` or ``memory`` is no size.
        """
        if self.worker_memory:
            return _bytes(self.worker_memory, "pilots, worker_memory")
        return _bytes(self.memory, "pilots, memory") // self.cores


@dataclass(frozen=True)
class Config:
    """All settings. ``cache_dir`` keeps compiled selectors."""

    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    pilots: PilotConfig = field(default_factory=PilotConfig)
    cache_dir: str = "~/.cache/gridproof"

    @property
    def cache(self) -> Path:
        """The cache directory, ``~`` expanded."""
        return Path(self.cache_dir).expanduser()


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration from a YAML file, or the defaults where there is none.

    Raises:
        ConfigError: the file is missing though named, no YAML, or has settings that do not exist.
    """
    named = path or (Path(environ["GRIDPROOF_CONFIG"]) if environ.get("GRIDPROOF_CONFIG") else None)
    place = named or Path("~/.config/gridproof.yaml").expanduser()
    if not place.exists():
        if named:
            raise ConfigError(f"the configuration {place} does not exist")
        return Config()
    try:
        values = yaml.safe_load(place.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the configuration {place} cannot be read: {error}") from None
    built: Config = _build(Config, values, str(place))
    return built


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected settings, found {values!r}")
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"{where}: no such setting: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    sections = {"proxy": ProxyConfig, "pilots": PilotConfig}
    arguments = {}
    for name, value in values.items():
        if name in sections:
            value = _build(sections[name], value or {}, f"{where}, {name}")
        else:
            value = _typed(getattr(kind(), name), value, f"{where}: {name}")
        arguments[name] = value
    return kind(**arguments)


def _bytes(size: str, where: str) -> int:
    """What ``"4GB"`` or ``"500 MB"`` says, in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])B?", size.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f'{where} must be a size such as "4GB" or "500MB", not {size!r}')
    return int(float(found[1]) * 1000 ** (1 + "KMGT".index(found[2].upper())))


def _typed(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(str(v) for v in value)
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{where} must be {type(default).__name__}, not {value!r}")
    return value
