"""A pilot's bundle: gridproof and what it needs, as one archive that a job brings along.

The archive is a ``tar.gz`` with everything below ``gridproof-bundle/``, which goes onto ``PYTHONPATH`` as it
is: no scripts, no absolute paths, no byte code; the same environment gives the same bytes. Its first member,
``manifest.json``, says what is in it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gridproof.errors import CommandError, ConfigError
from gridproof.proxy.protocol import Versions

if TYPE_CHECKING:
    from gridproof.alien import Alien

TOP = "gridproof-bundle"
MANIFEST = f"{TOP}/manifest.json"
REPLICAS = 2
_GLIBC = re.compile(rb"\0GLIBC_2\.(\d+)(?=[.\0])")


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    ``python`` is the minor version it is for, such as ``3.11``; ``glibc`` the oldest that its binaries load
    with. ``root`` and ``interpreter`` are the versions of ROOT and Python in it; "": the node brings them.
    """

    python: str
    machine: str
    glibc: str
    gridproof: str
    root: str
    distributions: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""

    def check(self, session: Versions) -> None:
        """Raise ConfigError if pilots from this bundle could not join a session with these versions."""
        wanted = {
            "Python": (self.python, ".".join(session.python.split(".")[:2])),
            "gridproof": (self.gridproof, session.gridproof),
            "distributed": (self.distributions.get("distributed", ""), session.distributed),
        }
        if self.root:
            wanted["ROOT"] = (self.root, session.root)
        wrong = [f"{name} {has} instead of {is_}" for name, (has, is_) in wanted.items() if has != is_]
        if wrong:
            raise ConfigError(
                f"the bundle that pilots.bundle names has {', '.join(wrong)}: "
                "make it anew with 'gridproof pilot bundle' in the environment of the session"
            )


@dataclass(frozen=True)
class Bundle:
    """A bundle's file."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle's manifest; ``path`` may begin with ``~``. Raises ConfigError."""
        try:
            path = path.expanduser()
            with tarfile.open(path, "r:gz") as archive:
                first = archive.next()
                content = archive.extractfile(first) if first and first.name == MANIFEST else None
                if content is None:
                    raise ConfigError(f"{path} is no bundle that 'gridproof pilot bundle' has made")
                return cls(path, Manifest(**json.loads(content.read())))
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(f"the pilots' bundle {path} cannot be read: {error}") from None
        except OSError as error:
            raise ConfigError(
                f"the pilots' bundle {path} cannot be read ({error.strerror}): "
                "'gridproof pilot bundle -o FILE' makes one, pilots.bundle names it"
            ) from None

    @cached_property
    def sha256(self) -> str:
        """The hash of its content, in hex."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def name(self) -> str:
        """Its name in the catalogue, and so in a job's directory: by content, so that it is uploaded once."""
        return f"{self.sha256[:32]}.tar.gz"

    def lfn(self, home: str) -> str:
        """Where it lies in the catalogue; ``home`` is the user's directory there and ends in ``/``."""
        return f"{home}.gridproof/bundles/{self.name}"

    def upload(self, alien: Alien) -> str:
        """Have it in the user's home in the catalogue; returns its LFN.

        Raises:
            CommandError, TransferError: it is not there and cannot be put there.
        """
        lfn = self.lfn(alien.home)
        if not self._is_at(alien, lfn):
            try:
                alien.upload(self.path, lfn, replicas=REPLICAS)
            except CommandError:
                if not self._is_at(alien, lfn):  # another session's upload may have been faster
                    raise
        return lfn

    def _is_at(self, alien: Alien, lfn: str) -> bool:
        try:
            return alien.stat(lfn).size == self.size
        except CommandError:
            return False


def write(path: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle of ``files`` (their contents or where they are, by name); the manifest learns its glibc.

    Raises:
        ConfigError: a file cannot be read, or the bundle not be written; nothing stays behind then.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        glibc = max((_glibc(content) for _, content in _contents(files)), default=0)
        manifest = Manifest(**{**asdict(manifest), "glibc": f"2.{glibc}"})
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            _add(archive, MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True).encode())
            for name, content in _contents(files):
                _add(archive, f"{TOP}/{name}", content)
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"the bundle {path} cannot be written: {error.strerror} ({error.filename})"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()
    return Bundle(path, manifest)


def _contents(files: Mapping[str, Path | bytes]) -> Iterator[tuple[str, bytes]]:
    for name, file in sorted(files.items()):
        yield name, file.read_bytes() if isinstance(file, Path) else file


def _glibc(content: bytes) -> int:
    """The minor version of the glibc that a program or library asks for; 0 if it is neither."""
    if content[:4] != b"\x7fELF":
        return 0
    return max((int(minor) for minor in _GLIBC.findall(content)), default=0)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """One member that tells nothing of where and when it was made."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o755 if content[:4] == b"\x7fELF" or content[:2] == b"#!" else 0o644
    archive.addfile(member, io.BytesIO(content))
