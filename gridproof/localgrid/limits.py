"""How long, how often and how much on the embedded Grid; the defaults are JAliEn's."""

from __future__ import annotations

from dataclasses import dataclass, field

from gridproof.errors import LocalGridError
from gridproof.localgrid.quotas import Quota


@dataclass(frozen=True)
class Limits:
    """Times are in seconds. Tests scale them; one is not JAliEn's, whose agents report every 600 s."""

    check_interval: float = 5.0  # between two looks of an agent at its payload
    idle_share: float = 0.1  # CPU-s per second and core: a payload that uses less is idle (0.5 per check)
    idle_checks: int = 180  # an idle payload is killed after more of them than this in a row; 0: never
    ttl_grace: float = 300.0  # beyond the TTL, then a payload is killed
    memory_factor: float = 1.2  # times MemorySize, more is killed
    report_interval: float = 5.0  # an agent says that it is alive and hears whether its job was killed
    kill_grace: float = 3.0  # between SIGTERM and SIGKILL
    zombie_after: float = 3600.0  # without a report of its agent a job is a ZOMBIE
    expired_after: float = 3600.0  # a ZOMBIE that stays one
    retries: int = 10  # of a job that failed before its payload ran
    retry_delay: float = 1.0  # before each of them
    subjobs: int = 10_000  # of one master
    quota: Quota = field(default_factory=Quota)  # of users who are given no other

    def __post_init__(self) -> None:
        for name in ("check_interval", "report_interval"):
            if getattr(self, name) <= 0:
                raise LocalGridError(f"The limit {name} must be more than 0 s, not {getattr(self, name)}")
