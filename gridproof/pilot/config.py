"""What a pilot finds in its input sandbox and its environment."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gridproof.errors import ConfigError, ProxyError
from gridproof.proxy.protocol import build, decode

_GRID_VARIABLES = re.compile(r"(ALIEN|ALIENPY|JALIEN|X509)_\w+")


@dataclass(frozen=True)
class PilotConfig:
    """The sandbox file: where to dial, whom to trust there, and what to prove oneself with.

    ``host_key`` is the ProxyServer's public, ``join_key`` the submission's private key (OpenSSH texts);
    times are in seconds; ``ttl`` 0 means that the slot has no end. ``cache_dir`` is where workers keep
    compiled code ("": in the job's directory); what the node's XRootD exports is always the pilot's own.
    ``worker_memory``: bytes that one worker may use, 0 for as many as there are.
    """

    host: str
    port: int
    host_key: str
    submission: str
    join_key: str = field(repr=False)
    orphan_limit: float = 300.0
    cores: int = 1
    ttl: float = 0.0
    cache_dir: str = ""
    worker_memory: int = 0


@dataclass(frozen=True)
class Job:
    """The job as its environment tells."""

    job_id: str
    master_id: str
    site: str
    host: str
    grid_environment: Mapping[str, str]  # what the Grid's client needs in a worker


def read_config(path: Path) -> PilotConfig:
    """The configuration; the file holds the join key, and is closed to others if the sandbox left it open.

    Raises:
        ConfigError: it is missing, open to others and not ours to close, or not what it should be.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the pilot's configuration {path} cannot be read or closed to others: {error.strerror}"
        ) from None
    try:
        return build(PilotConfig, decode(content))
    except ProxyError as error:
        raise ConfigError(f"the pilot's configuration {path}: {error}") from None


def job_of(environ: Mapping[str, str]) -> Job:
    """Read the job's environment; outside of a Grid job all have a default."""
    job_id = environ.get("ALIEN_PROC_ID", "0")
    return Job(
        job_id=job_id,
        master_id=environ.get("ALIEN_MASTERJOB_ID", job_id),
        site=environ.get("ALIEN_SITE", "unknown"),
        host=socket.gethostname(),
        grid_environment={name: value for name, value in environ.items() if _GRID_VARIABLES.fullmatch(name)},
    )
