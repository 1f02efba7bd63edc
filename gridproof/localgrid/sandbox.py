"""What surrounds a payload: its directory, its token, its environment, its inputs."""

from __future__ import annotations

import datetime
import glob
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from gridproof.alien.jdl import Jdl
from gridproof.localgrid import packages
from gridproof.localgrid.catalogue import READ
from gridproof.localgrid.certificates import job_subject, write_private
from gridproof.localgrid.core import Core, utc_now
from gridproof.localgrid.jobs import Job
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.splitting import input_lfn
from gridproof.localgrid.transfer import CopyFailed, Source

_TRACE_BYTES = 1 << 16
DEFAULT_REPLICAS = 2


@dataclass(frozen=True)
class Sandbox:
    """A job's directory on the worker node."""

    job: Job
    jdl: Jdl
    path: Path
    limits: Limits

    @property
    def executable(self) -> Path:
        return self.path / posixpath.basename(self.jdl.text("Executable"))

    @property
    def arguments(self) -> list[str]:
        return self.jdl.text("Arguments").split()

    @property
    def time_limit(self) -> float:
        return self.jdl.number("TTL", 21_600) + self.limits.ttl_grace

    def make(self, core: Core) -> None:
        """The directory with the job's token in it."""
        token = self.path / "token"
        token.mkdir(mode=0o700, parents=True)
        self.path.chmod(0o700)
        lifetime = datetime.timedelta(seconds=self.time_limit)
        issued = core.authority.issue(
            job_subject(self.job.owner, self.job.id, self.job.run - 1), utc_now(), lifetime
        )
        write_private(token / "tokencert.pem", issued.cert)
        write_private(token / "tokenkey.pem", issued.key)

    def environment(self, core: Core) -> dict[str, str]:
        """What JAliEn gives a payload. Raises PackageMissing."""
        job = self.job
        variables = {
            f"ALIEN_JDL_{key.upper()}": self.jdl.text(key) for key in self.jdl.strings("JDLVariables")
        }
        return {
            **variables,
            "ALIEN_PROC_ID": str(job.id),
            "ALIEN_MASTERJOB_ID": str(job.master or job.id),
            "ALIEN_SITE": job.site,
            "ALIEN_USER": job.owner,
            "ALIEN_JDL_CPUCORES": self.jdl.text("CPUCores", "1"),
            "JALIEN_TOKEN_CERT": str(self.path / "token" / "tokencert.pem"),
            "JALIEN_TOKEN_KEY": str(self.path / "token" / "tokenkey.pem"),
            "JALIEN_HOST": core.address,
            "JALIEN_WSPORT": str(core.port),
            "X509_CERT_DIR": str(core.root / "certificates"),
            "HOME": str(self.path),
            "TMPDIR": str(self.path),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **packages.environment(self.jdl.strings("Packages"), core.root / "packages"),
        }

    def sources(self, core: Core) -> list[Source]:
        """Executable, InputFile and the InputData to be downloaded. Raises CopyFailed."""
        wanted = [self.jdl.text("Executable"), *(input_lfn(e) for e in self.jdl.strings("InputFile"))]
        wanted += [input_lfn(e) for e in self.jdl.strings("InputData") if "nodownload" not in e.split(",")]
        return [self._source(core, lfn) for lfn in dict.fromkeys(wanted)]

    def _source(self, core: Core, lfn: str) -> Source:
        entry = core.catalogue.get(lfn)
        if entry is None or entry.is_dir:
            raise CopyFailed(f"{lfn} is not a file in the catalogue")
        if not entry.allows(self.job.owner, READ):
            raise CopyFailed(f"{lfn}: {self.job.owner} is not allowed to read it")
        return core.source(entry, self.job.site, self.path / posixpath.basename(entry.lfn))

    def own_trace(self) -> str:
        """What the payload wants to have in the job's trace; its standard output never comes there."""
        path = self.path / ".alienValidation.trace"
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_TRACE_BYTES).decode(errors="replace").strip()


@dataclass(frozen=True)
class Output:
    """A file to be saved as ``lfn``, with ``copies`` replicas, on ``ses`` if any are named."""

    path: Path
    lfn: str
    copies: int
    ses: tuple[str, ...]


def outputs(sandbox: Sandbox, home: str) -> tuple[list[Output], list[str]]:
    """What a JDL wants saved, and the patterns that match nothing."""
    jdl, found, missing = sandbox.jdl, [], []
    directory = jdl.text("OutputDir") or posixpath.join(home, f"alien-job-{sandbox.job.id}")
    if not directory.startswith("/"):
        directory = posixpath.join(home, directory)
    for entry in (*jdl.strings("OutputFile"), *jdl.strings("Output")):
        patterns, _, where = entry.partition("@")
        copies, ses = read_storage_specs(where.split(",") if where else [], DEFAULT_REPLICAS)
        for pattern in patterns.split(","):
            matching = sorted(glob.glob(pattern.strip(), root_dir=sandbox.path))  # noqa: PTH207
            if not matching:
                missing.append(pattern)
            for name in matching:
                path = sandbox.path / name
                if path.is_file() and sandbox.path in Path(os.path.realpath(path)).parents:
                    found.append(Output(path, posixpath.join(directory, name), copies, ses))
    return list({o.lfn: o for o in found}.values()), missing


def read_storage_specs(specs: list[str], default: int) -> tuple[int, tuple[str, ...]]:
    """``disk=2``, ``disk:2`` and SE names into a number of replicas and the SEs asked for."""
    copies, ses = 0, []
    for spec in (s.strip() for s in specs):
        if "::" in spec:
            ses.append(spec)
        elif spec:
            number = spec.replace("=", ":").rpartition(":")[2]
            copies += int(number) if number.isdigit() else 1
    return (max(copies, len(ses)) or default), tuple(ses)
