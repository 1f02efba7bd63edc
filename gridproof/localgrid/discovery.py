"""How processes of one user find an embedded Grid: a private file for each that runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gridproof.errors import LocalGridError


@dataclass(frozen=True)
class Running:
    """A Grid: the pids of its service and of its owner (0: nobody), its root, and how it is reached.

    ``proxy``: its standing ProxyServer as host, port, host_key, user and key_file; empty where it has none.
    """

    pid: int
    owner: int
    root: str
    temporary: bool
    environment: dict[str, str]
    proxy: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether this very service still runs."""
        try:
            arguments = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"localgrid" in arguments


def state_directory() -> Path:
    """``$XDG_RUNTIME_DIR/gridproof`` or ``/tmp/gridproof-<uid>``, ours and private. Raises LocalGridError."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    usable = bool(runtime) and os.access(str(runtime), os.W_OK | os.X_OK)
    base = Path(str(runtime)) / "gridproof" if usable else Path("/tmp") / f"gridproof-{os.getuid()}"  # noqa: S108
    base.mkdir(mode=0o700, exist_ok=True)
    info = base.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise LocalGridError(
            f"{base} must be a directory of your own, it belongs to uid {info.st_uid}: remove it"
        )
    base.chmod(0o700)
    return base


def user_directory(root: Path, user: str) -> Path:
    """Where a Grid keeps a user's certificate and key."""
    return root / "private" / "users" / user


def environment_of(environment: Mapping[str, str], user: str) -> dict[str, str]:
    """A Grid's environment, for another of its users. Raises LocalGridError for one that it does not have."""
    users = Path(environment["X509_USER_CERT"]).parent.parent
    names = sorted(path.name for path in users.iterdir())
    if user not in names:
        raise LocalGridError(f"The embedded Grid has no user {user}; its users are {', '.join(names)}")
    return {**environment, **certificates_of(users / user)}


def certificates_of(directory: Path) -> dict[str, str]:
    """The variables that name a user's certificate, and where clients keep the token that they get by it.

    Not in a temporary directory, where the token of another user or of another Grid would be taken.
    """
    files = {
        "X509_USER_CERT": "usercert.pem",
        "X509_USER_KEY": "userkey.pem",
        "JALIEN_TOKEN_CERT": "tokencert.pem",
        "JALIEN_TOKEN_KEY": "tokenkey.pem",
    }
    return {name: str(directory / file) for name, file in files.items()}


def publish(running: Running) -> Path:
    """Write the file by which a Grid is found."""
    name = f"grid-{running.owner}-{running.pid}.json" if running.owner else "grid.json"
    path = state_directory() / name
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as file:
        json.dump(asdict(running), file)
    Path(file.name).replace(path)
    return path


def _published() -> Iterator[tuple[Path, Running]]:
    for path in sorted(state_directory().glob("grid*.json"), key=_age):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield path, Running(**json.loads(path.read_text()))


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def find(owner: int) -> Running | None:
    """The newest live Grid of this owner (0: the one of ``gridproof grid start``)."""
    return next((grid for _, grid in _published() if grid.owner == owner and grid.alive), None)


def find_running() -> dict[str, str] | None:
    """The environment of a live Grid: one that this process owns, else that of ``gridproof grid start``."""
    running = find(os.getpid()) or find(0)
    return running.environment if running else None


def sweep() -> None:
    """Remove what Grids left behind whose service was killed together with their owner."""
    for path, grid in list(_published()):
        if grid.alive:
            continue
        path.unlink(missing_ok=True)
        if grid.temporary:
            remove_root(Path(grid.root))


def remove_root(root: Path) -> None:
    """Remove a temporary root; nothing else."""
    if root.name.startswith("gridproof-") and root.is_dir() and root.stat().st_uid == os.getuid():
        shutil.rmtree(root, ignore_errors=True)
