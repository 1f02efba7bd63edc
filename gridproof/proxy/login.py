"""How a user's process proves itself to a ProxyServer, and knows it again: keys, SSH agent, known_hosts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shlex
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh

from gridproof.errors import ConfigError, ProxyError
from gridproof.proxy.channel import KEX

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_SECONDS = 10.0

Key = asyncssh.SSHKey | asyncssh.SSHKeyPair


@asynccontextmanager
async def user_keys(key_file: str, environ: Mapping[str, str]) -> AsyncIterator[list[Key]]:
    """The keys to offer: that of ``key_file``; where it is "", those of the agent and in ``~/.ssh``.

    A key with a passphrase is used through the agent only.

    Raises:
        ConfigError: there is none, or the file's cannot be used; says what to do.
    """
    agent = await _agent(environ)
    try:
        held: Sequence[Key] = await _held(agent)
        yield _from_file(key_file, held) if key_file else _from_home(environ, held)
    finally:
        if agent is not None:
            agent.close()
            await agent.wait_closed()


async def _agent(environ: Mapping[str, str]) -> asyncssh.SSHAgentClient | None:
    socket = environ.get("SSH_AUTH_SOCK")
    if not socket:
        return None
    try:
        return await asyncio.wait_for(asyncssh.connect_agent(socket), _SECONDS)
    except (OSError, asyncio.TimeoutError):  # left over from a session that has ended
        return None


async def _held(agent: asyncssh.SSHAgentClient | None) -> Sequence[Key]:
    if agent is None:
        return ()
    try:
        return await asyncio.wait_for(agent.get_keys(), _SECONDS)
    except (OSError, ValueError, asyncssh.Error, asyncio.TimeoutError):
        return ()


def _from_file(key_file: str, held: Sequence[Key]) -> list[Key]:
    path = Path(key_file).expanduser()
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the key for the ProxyServer, {path}, cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"the key for the ProxyServer, {path}, is open to others: chmod 600 {path}")
    try:
        return [asyncssh.import_private_key(text)]
    except asyncssh.KeyImportError as error:
        if not _wants_passphrase(error):
            raise ConfigError(f"the key for the ProxyServer, {path}, is none: {error}") from None
    try:
        public = asyncssh.read_public_key(f"{path}.pub").public_data
    except (OSError, asyncssh.KeyImportError):
        public = b""
    if same := [key for key in held if key.public_data == public]:
        return same
    raise ConfigError(
        f"the key for the ProxyServer, {path}, has a passphrase, and the SSH agent does not hold it: "
        f"ssh-add {shlex.quote(str(path))}"
    )


def _from_home(environ: Mapping[str, str], held: Sequence[Key]) -> list[Key]:
    directory = Path(environ.get("HOME") or Path.home()) / ".ssh"
    keys, closed = list(held), []
    for path in (directory / name for name in DEFAULT_KEYS):
        try:
            key = asyncssh.import_private_key(path.read_bytes())
        except OSError:
            continue
        except asyncssh.KeyImportError as error:
            if _wants_passphrase(error):
                closed.append(path)
            continue
        if all(key.public_data != other.public_data for other in keys):
            keys.append(key)
    if keys:
        return keys
    if closed:
        what = f"{closed[0]} has a passphrase, and the SSH agent holds no key: ssh-add {closed[0]}"
    else:
        names = ", ".join(DEFAULT_KEYS)
        what = f"there is none in the SSH agent nor in {directory} ({names}): ssh-keygen -t ed25519"
    raise ConfigError(f"the ProxyServer wants an SSH key, and {what}")


def _wants_passphrase(error: asyncssh.KeyImportError) -> bool:
    return str(error).startswith("Passphrase")


async def known_host_keys(host: str, port: int, environ: Mapping[str, str]) -> list[asyncssh.SSHKey]:
    """The server's keys by the user's and the machine's ``known_hosts``.

    Raises:
        ProxyError: there is none; shows what the server offers, and how to add it.
    """
    user = Path(environ.get("HOME") or Path.home()) / ".ssh" / "known_hosts"
    place = host if port == 22 else f"[{host}]:{port}"
    trusted: list[asyncssh.SSHKey] = []
    revoked: list[asyncssh.SSHKey] = []
    for path in (user, Path("/etc/ssh/ssh_known_hosts")):
        for line in _lines(path):
            try:
                keys, _, others, *_ = asyncssh.import_known_hosts(line).match(place, "", None)
            except ValueError:  # a line of a form that is not known here
                continue
            trusted += keys
            revoked += others
    trusted = [key for key in trusted if key not in revoked]
    if trusted:
        return trusted
    where = f"the ProxyServer at {host}:{port}"
    offered = await offered_fingerprint(host, port)
    file = shlex.quote(str(user))
    first = "" if user.parent.exists() else f"mkdir -m 700 {shlex.quote(str(user.parent))} && "
    raise ProxyError(
        f"{where} is not known here; it shows the host key {offered}. If that is the one which its "
        f"administrator names, add it:  {first}ssh-keyscan -t ed25519 -p {port} {shlex.quote(host)} >> {file}"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


async def offered_fingerprint(host: str, port: int) -> str:
    """The fingerprint of the key that the server shows, as OpenSSH writes it.

    Raises:
        ProxyError: nothing answers there, or no SSH server.
    """
    try:
        key = await asyncio.wait_for(
            asyncssh.get_server_host_key(host, port, config=None, kex_algs=KEX), _SECONDS
        )
    except (OSError, asyncssh.Error, asyncio.TimeoutError) as error:
        what = str(error) or type(error).__name__
        raise ProxyError(f"the ProxyServer at {host}:{port} cannot be reached: {what}") from None
    return fingerprint(key.public_data) if key else "of no kind that is known"


def fingerprints(keys: asyncssh.SSHKey | Sequence[Key]) -> str:
    """Those of several keys, for a message."""
    several = keys if isinstance(keys, Sequence) else [keys]
    return ", ".join(fingerprint(key.public_data) for key in several)


def fingerprint(public: bytes) -> str:
    """``SHA256:…`` of a public key's wire format."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip('=')}"
