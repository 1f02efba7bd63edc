"""Files to and from storage elements, with checks on both ends."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from gridproof import xrdclient
from gridproof.alien.catalogue import Access, Catalogue
from gridproof.errors import AlienError, CommandError, TransferError

_UPLOAD_ROUNDS = 2
_EEXIST = 17


def file_md5(path: Path) -> str:
    """The MD5 of a file's content, in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(access: Access, target: Path) -> None:
    """Copy one replica to a local file and check size and MD5. Raises TransferError."""
    xrdclient.download([access.signed_url], target, access.size, access.member)
    size = target.stat().st_size
    if size != access.size:
        raise TransferError(f"{access.se} has {size} bytes where the catalogue has {access.size}")
    if access.md5 and file_md5(target) != access.md5.lower():
        raise TransferError(f"{access.se} has other content than the catalogue says (MD5)")


class Transfers(Catalogue):
    """The catalogue with the files behind it."""

    def download(self, lfn: str, local: Path) -> None:
        """Copy a file here; each replica is tried, size and MD5 are checked, ``local`` appears when complete.

        ``local`` may be a directory. Raises CommandError (no such LFN) and TransferError (no good replica).
        """
        path = self.absolute(lfn)
        if local.is_dir():
            local = local / path.rpartition("/")[2]
        part = local.with_name(f".{local.name}.{secrets.token_hex(4)}")
        problems: list[str] = []
        for access in self.access_read(path):
            try:
                fetch(access, part)
                part.replace(local)
                return
            except TransferError as error:
                problems.append(f"{access.se}: {error}")
            except OSError as error:
                raise TransferError(f"{local} cannot be written: {error.strerror}") from None
            finally:
                part.unlink(missing_ok=True)
        raise TransferError("\n  ".join([f"{path} could not be read at any replica", *problems]))

    def cat(self, lfn: str) -> bytes:
        """The content of a file. Raises as `download` does."""
        with TemporaryDirectory(prefix="gridproof-cat-") as directory:
            local = Path(directory) / "content"
            self.download(lfn, local)
            return local.read_bytes()

    def upload(
        self, local: Path, lfn: str, ses: Sequence[str] = (), replicas: int = 1, private: bool = False
    ) -> None:
        """Copy a local file to the Grid and register it, its directory made where missing.

        ``ses`` must all get a replica; the service chooses SEs for what ``replicas`` asks beyond, and others
        when one of its choice is dead. On failure nothing stays behind. With ``private`` nobody else may read
        it; for the moment between two commands others may, because every new file is everybody's. Raises
        CommandError (not allowed, the name is taken) and TransferError.
        """
        if not local.is_file():
            raise TransferError(f"{local} is no file that could be uploaded to {lfn}")
        path, size, md5 = self.absolute(lfn), local.stat().st_size, file_md5(local)
        with self._new_name(path):
            dead: list[str] = []
            problems: list[str] = []
            for _ in range(1 if ses else _UPLOAD_ROUNDS):
                wanted = [*ses, *(f"!{se}" for se in dead)]
                if replicas > len(ses):
                    wanted.append(f"disk:{replicas - len(ses)}")
                accesses = self.access_write(path, ",".join(wanted), size, md5)
                failed = self._store_all(local, accesses)
                if not failed:
                    self._commit_all(path, accesses, size, md5, private)
                    return
                dead += failed
                problems += [f"{se}: {reason}" for se, reason in failed.items()]
            raise TransferError("\n  ".join([f"{local} could not be uploaded to {path}", *problems]))

    @contextlib.contextmanager
    def _new_name(self, path: str) -> Iterator[None]:
        """A name that is free, in a directory that is there; what had to be made of that goes again should
        what follows fail. Raises CommandError."""
        parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        there = {row.get("lfn", "").rstrip("/") for row in self._stat([path, *parents])}
        if path in there:
            raise CommandError(
                f"{path} exists already: choose another name, or remove it first",
                command=f"access write {path}",
                exitcode=_EEXIST,
            )
        missing = [parent for parent in parents if parent not in there]
        if missing:
            self.mkdir(missing[0])
        try:
            yield
        except BaseException:
            with contextlib.suppress(AlienError):  # somebody else has put something into it
                for made in missing:
                    self.rmdir(made)
            raise

    def _store_all(self, local: Path, accesses: Sequence[Access]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for access in accesses:
            try:
                xrdclient.upload(local, access.signed_url)
            except TransferError as error:
                failed[access.se] = str(error)
        return failed

    def _commit_all(self, path: str, accesses: Sequence[Access], size: int, md5: str, private: bool) -> None:
        try:
            for number, access in enumerate(accesses):
                self.commit(path, access, size, md5)
                if private and number == 0:
                    self.chmod(path, "600")
        except BaseException:
            with contextlib.suppress(AlienError):
                if self.stat(path).guid.lower() == accesses[0].guid.lower():  # else somebody else was faster
                    self.rm(path)
            raise
