"""What surrounds a payload: its directory, its token, its environment, its inputs."""

from __future__ import annotations

import asyncio
import datetime
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gridproof.alien.jdl import Jdl
from gridproof.localgrid.catalogue import kept
from gridproof.localgrid.catalogue.entries import CatalogueError
from gridproof.localgrid.catalogue.permissions import READ
from gridproof.localgrid.certificates import job_subject, write_private
from gridproof.localgrid.core import Core, utc_now
from gridproof.localgrid.jobs import packages
from gridproof.localgrid.jobs.job import Job
from gridproof.localgrid.jobs.splitting import Located, input_lfn
from gridproof.localgrid.storage.transfer import CopyFailed, Source

_TRACE_BYTES = 1 << 16


@dataclass(frozen=True)
class Sandbox:
    """A job's directory on the worker node."""

    job: Job
    jdl: Jdl
    path: Path

    @property
    def arguments(self) -> list[str]:
        return self.jdl.text("Arguments").split()

    def output_directory(self, home: str, well: bool) -> str:
        """Where outputs go; those of a job that did not end ``well`` are kept apart."""
        own = f"alien-job-{self.job.id}"
        if not well:
            return posixpath.join(home, kept.DIRECTORY, own)
        return posixpath.join(home, self.jdl.text("OutputDir").strip() or own).rstrip("/")

    def make(self, core: Core, seconds: float) -> None:
        """The directory with the job's token in it, good for ``seconds``."""
        token = self.path / "token"
        token.mkdir(mode=0o700, parents=True)
        self.path.chmod(0o700)
        lifetime = datetime.timedelta(seconds=seconds)
        issued = core.authority.issue(
            job_subject(self.job.owner, self.job.id, self.job.run - 1), utc_now(), lifetime
        )
        write_private(token / "tokencert.pem", issued.cert)
        write_private(token / "tokenkey.pem", issued.key)

    def environment(self, core: Core) -> dict[str, str]:
        """What JAliEn gives a payload. Raises PackageMissing."""
        job = self.job
        variables = {
            f"ALIEN_JDL_{key.upper()}": "##".join(self.jdl.strings(key))
            for key in self.jdl.strings("JDLVariables")
            if key in self.jdl
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

    def sources(self, core: Core, data: Sequence[Located]) -> list[Source]:
        """What is to be downloaded, of the input ``data`` what may be. Raises CopyFailed.

        A second file of one name becomes ``1/NAME``.
        """
        wanted = [self.jdl.text("Executable"), self.jdl.text("ValidationCommand")]
        wanted += [input_lfn(e) for e in self.jdl.strings("InputFile")]
        wanted += [file.lfn for file in data if "nodownload" not in file.entry.split(",")]
        targets: dict[Path, Source] = {}
        for lfn in filter(None, dict.fromkeys(wanted)):
            target, number = self.path / posixpath.basename(lfn), 0
            while target in targets or target.exists():
                number += 1
                target = self.path / str(number) / posixpath.basename(lfn)
            targets[target] = self._source(core, lfn, target)
        return list(targets.values())

    def _source(self, core: Core, lfn: str, target: Path) -> Source:
        try:
            entry = core.catalogue.look_up(lfn, self.job.owner, READ)
        except CatalogueError:
            raise CopyFailed(f"{lfn}: {self.job.owner} is not allowed to read it") from None
        if entry is None or entry.is_dir:
            raise CopyFailed(f"{lfn} is not a file in the catalogue")
        return core.source(entry, self.job.site, target)

    async def remove(self) -> None:
        """Whatever the payload has left there, also directories deeper than Python can remove."""
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec("rm", "-rf", "--", self.path, stdin=null, stderr=null)
        await process.wait()

    def take_trace(self) -> str:
        """What the payload wants to have in the job's trace; its standard output never comes there."""
        path = self.path / ".alienValidation.trace"
        if path.is_symlink() or not path.is_file():
            return ""
        with path.open("rb") as file:
            said = file.read(_TRACE_BYTES).decode(errors="replace").strip()
        path.unlink()
        return said
