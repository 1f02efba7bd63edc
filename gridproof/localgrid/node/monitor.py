"""What a job may use, and when it is killed for using more, or nothing. Pure but for :meth:`Machine.here`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gridproof.alien.jdl import Jdl
from gridproof.localgrid.jobs.requirements import (
    DEFAULT_TTL,
    WORKDIR_PER_CORE,
    cpu_cores,
    megabytes,
    read_number,
    work_directory_size,
)
from gridproof.localgrid.limits import Limits

RESOURCE_FIELDS = (
    "FRUNTIME | RUNTIME | CPUUSAGE | MEMUSAGE | CPUTIME | RMEM | VMEM | NOCPUS | CPUFAMILY | CPUMHZ"
    " | RESOURCEUSAGE | RMEMMAX | VMEMMAX"
)
_MEMORY_PER_CORE = 8 * 1024  # MB, where a JDL says nothing
_MB = 1 << 20


@dataclass(frozen=True)
class Allowance:
    """What a JDL asks for: ``memory`` and ``disk`` in MB, ``ttl`` in seconds."""

    cores: int
    memory: int
    disk: int
    ttl: float

    @classmethod
    def of(cls, jdl: Jdl) -> Allowance:
        """As JAliEn reads it."""
        cores = cpu_cores(jdl)
        return cls(
            cores=cores,
            memory=megabytes(jdl.text("MemorySize")) or cores * _MEMORY_PER_CORE,
            disk=work_directory_size(jdl) or cores * WORKDIR_PER_CORE,
            ttl=read_number(jdl, "TTL", DEFAULT_TTL),
        )


@dataclass(frozen=True)
class Usage:
    """What a payload has used ``seconds`` after its start: CPU-s so far; memory and disk in bytes."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Machine:
    """The worker node: ``memory`` in bytes."""

    cpus: int
    family: str
    mhz: float
    memory: int

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        cpu = Path("/proc/cpuinfo").read_text()
        family, mhz = (re.search(rf"^{name}\s*:\s*(\S+)", cpu, re.M) for name in ("cpu family", "cpu MHz"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(os.cpu_count() or 1, family[1] if family else "0", float(mhz[1]) if mhz else 0.0, memory)


class Monitor:
    """Judges one job's payload by what it uses."""

    def __init__(self, limits: Limits, allowance: Allowance) -> None:
        self._limits = limits
        self._allowance = allowance
        self._last = Usage()
        self._idle_checks = 0
        self._most_memory = 0

    def judge(self, usage: Usage) -> str:
        """Why the payload must be killed now; mostly nothing."""
        limits, allowance = self._limits, self._allowance
        worked = usage.cpu - self._last.cpu
        idle = worked < limits.idle_share * limits.check_interval * allowance.cores
        self._idle_checks = self._idle_checks + 1 if idle else 0
        self.note(usage)
        if limits.idle_checks and self._idle_checks > limits.idle_checks:
            span = _span(limits.idle_checks * limits.check_interval)
            return f"CPU time consumed by the payload has been near zero for the last {span}. Aborting"
        if usage.disk > allowance.disk * _MB:
            now = usage.disk / _MB
            return (
                f"Killing the job (using more than {allowance.disk}MB of diskspace"
                f" (right now we were using {now:.1f}))"
            )
        if usage.memory > allowance.memory * limits.memory_factor * _MB:
            now = round(usage.memory / _MB)
            return f"Killing the job (using more than {allowance.memory} MB memory (right now ~{now}MB))"
        return ""

    def note(self, usage: Usage) -> None:
        """Take in the last usage, which nobody judges."""
        self._last = usage
        self._most_memory = max(self._most_memory, usage.memory)

    def resources(self, machine: Machine) -> str:
        """The line of resources in a job's trace; its fields are RESOURCE_FIELDS, memory in MB."""
        seconds, cpu, memory = int(self._last.seconds), self._last.cpu, self._last.memory
        used = 100 * cpu / self._last.seconds if self._last.seconds else 0.0
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        now, most = f"{memory / _MB:.2f}", f"{self._most_memory / _MB:.2f}"
        return (
            f"{clock} {seconds} {used:.2f} {100 * memory / machine.memory:.2f} {cpu:.2f} {now} {now}"
            f" {machine.cpus} {machine.family} {machine.mhz:.0f} {cpu * machine.mhz / 1000:.2f}"
            f" {most} {most} 1000"
        )


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:g} seconds"
