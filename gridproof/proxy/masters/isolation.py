"""Under whose account the processes of a user's sessions run on the VO-box, and what they may touch there.

Where the ProxyServer is root they run as the user's own account. Where it is not, sessions of its own account
run as it does, all others in a sandbox (bubblewrap) that sees the system, read-only, and of everything that
the ProxyServer keeps only what is the session's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import gridproof
from gridproof.accounts import Account
from gridproof.errors import ProxyError

_KEPT = (  # of the environment: what it takes to find programs, Python, ROOT and its compiler
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"),
    *("ROOTSYS", "ROOT_INCLUDE_PATH", "CPATH", "LIBRARY_PATH"),
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/cvmfs")
_TRIAL = 10.0  # seconds


class Isolation(Protocol):
    """How processes of one user's sessions are started."""

    def own(self, directory: Path) -> None:
        """Make ``directory`` theirs alone; it may be there already, if it is.

        Raises:
            ProxyError: it is somebody else's, or they cannot reach it.
        """

    def command(self, argv: Sequence[str], directory: Path, cache: Path) -> Sequence[str]:
        """``argv`` as it is to be started; it may write to ``directory`` and ``cache``."""

    def environment(self, directory: Path) -> Mapping[str, str] | None:
        """The environment to start it with; None: the ProxyServer's."""

    def cache(self, shared: Path) -> Path:
        """Where they keep compiled code below the ProxyServer's ``shared`` cache: with nobody else."""


def isolate(user: str, accounts: Mapping[str, str | None], state: Path) -> Isolation:
    """How sessions of ``user`` are to run; ``state`` is the ProxyServer's own directory.

    ``accounts`` names the account of a user, where that is not of the user's name; None: the ProxyServer's.

    Raises:
        ProxyError: there is no way to keep them apart from other users and the ProxyServer; says what to do.
    """
    name = accounts.get(user, user)
    account = Account.find(name) if name is not None else None
    if name is None or (account and account.uid == os.geteuid()):
        return Own()
    if os.geteuid() != 0:
        return Sandbox(user, state)
    if account is None:
        raise ProxyError(
            f"user {user} has no account {name} on the VO-box, under which sessions would run: make one, or "
            f"name another one in the ProxyServer's configuration, accounts: {{{user}: …}}"
        )
    return OtherAccount(user, account)


class Own:
    """As the ProxyServer itself."""

    def own(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def command(self, argv: Sequence[str], directory: Path, cache: Path) -> Sequence[str]:  # noqa: ARG002
        return argv

    def environment(self, directory: Path) -> None:  # noqa: ARG002
        return None

    def cache(self, shared: Path) -> Path:
        return shared


class OtherAccount:
    """As another account, which root can change to."""

    def __init__(self, user: str, account: Account) -> None:
        self._user = user
        self._account = account

    def own(self, directory: Path) -> None:
        directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._see_way(directory.parent)
        _make_private(directory, self._account.uid, self._account)

    def command(self, argv: Sequence[str], directory: Path, cache: Path) -> Sequence[str]:  # noqa: ARG002
        program = Path(shutil.which(argv[0]) or sys.executable)
        for needed in (program, program.resolve(), Path(gridproof.__file__)):
            self._see_way(needed)
        return (*self._account.change(), *argv)

    def environment(self, directory: Path) -> Mapping[str, str]:
        name = self._account.name
        return _environment(directory) | {"HOME": self._account.home, "USER": name, "LOGNAME": name}

    def cache(self, shared: Path) -> Path:
        return shared / "users" / self._user

    def _see_way(self, path: Path) -> None:
        if closed := self._account.bar(path):
            raise ProxyError(
                f"account {self._account.name}, under which sessions of {self._user} run on the VO-box, "
                f"cannot pass through {closed} to {path}: open the way (mode 711), or install gridproof and "
                "keep its state elsewhere"
            )


class Sandbox:
    """As the ProxyServer's account, confined."""

    def __init__(self, user: str, state: Path) -> None:
        self._user = user
        self._state = state

    def own(self, directory: Path) -> None:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(directory, os.geteuid())

    def command(self, argv: Sequence[str], directory: Path, cache: Path) -> Sequence[str]:
        if problem := _trouble():
            raise ProxyError(
                f"sessions of {self._user} cannot be kept apart on the VO-box ({problem}), so that its "
                "ProxyServer serves the user of its own account only: install bubblewrap there, or run it as "
                f"root; if {self._user} is that user, say so in its configuration: "
                f"accounts: {{{self._user}: null}}"
            )
        binds = [option for path in _programs(argv) for option in ("--ro-bind", path, path)]
        for hidden in dict.fromkeys((str(self._state), str(cache.parent))):
            binds += ["--tmpfs", hidden]
        for own in dict.fromkeys((str(directory), str(cache))):
            binds += ["--bind", own, own]
        return (*_sandbox(), *binds, "--chdir", str(directory), "--", *argv)

    def environment(self, directory: Path) -> Mapping[str, str]:
        home = str(directory)
        return _environment(directory) | {"HOME": home, "USER": self._user, "LOGNAME": self._user}

    def cache(self, shared: Path) -> Path:
        return shared / "users" / self._user


def _make_private(directory: Path, uid: int, account: Account | None = None) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        there = directory.lstat().st_uid
        if directory.is_symlink() or there != uid:
            raise ProxyError(
                f"{directory} on the VO-box belongs to uid {there}, not {uid}: remove it"
            ) from None
        return
    except OSError as error:
        raise ProxyError(f"{directory} cannot be made on the VO-box: {error.strerror}") from None
    if account:
        account.own(directory)


def _environment(directory: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": os.defpath, **kept, "TMPDIR": str(directory)}


def _sandbox() -> list[str]:
    """Processes, memory and devices of its own; the network, for the loopback, is everybody's."""
    argv = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-cgroup-try"]
    argv += ["--cap-drop", "ALL"]
    for path in _SYSTEM:
        argv += ["--ro-bind-try", path, path]
    return [*argv, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108


def _trouble() -> str:
    """Why no sandbox can be made on this machine; empty if one can."""
    if shutil.which("bwrap") is None:
        return "there is no bwrap"
    try:
        tried = subprocess.run([*_sandbox(), "true"], capture_output=True, text=True, timeout=_TRIAL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return tried.stderr.strip()[:200] or "bwrap does not work" if tried.returncode else ""


def _programs(argv: Sequence[str]) -> list[str]:
    """What lies outside of the system's directories and is needed to run: Python, this package, ROOT."""
    paths = [sys.prefix, sys.base_prefix, str(Path(gridproof.__file__).parent)]
    paths += [word for word in argv if word.startswith("/")]
    for variable in ("ROOTSYS", "LD_LIBRARY_PATH", "ROOT_INCLUDE_PATH"):
        paths += os.environ.get(variable, "").split(os.pathsep)
    paths += [path for path in sys.path if "site-packages" in path or "dist-packages" in path]
    found: list[str] = []
    for path in sorted({path for path in paths if path}):  # what lies below another one comes after it
        with suppress(OSError):
            real = Path(path).resolve(strict=True)
            if not any(real.is_relative_to(system) for system in _SYSTEM) and not any(
                Path(path).is_relative_to(bound) for bound in found
            ):
                found.append(path)
    return found
