"""The embedded Grid's VO-box: a ProxyServer whose sessions outlive the processes that opened them."""

from __future__ import annotations

import asyncio
import getpass
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gridproof import processes
from gridproof.errors import LocalGridError
from gridproof.localgrid.certificates import write_private

HOST = "127.0.0.1"
ORPHAN_LIMIT = 10.0  # seconds
PILOT_IDLE = 60.0


class VoBox:
    """A ProxyServer that dies with this process; its state and the user's key lie in ``directory``."""

    def __init__(self, process: subprocess.Popen[bytes], address: dict[str, Any]) -> None:
        self._process = process
        self.address = address  # how it is reached: host, port, host_key, user, key_file

    @classmethod
    async def start(cls, directory: Path, cache_dir: str, certificates: Path) -> VoBox:
        """Start it; ``cache_dir`` keeps compiled selectors, ``certificates`` the Grid's authority.

        Raises:
            LocalGridError: it does not come up.
        """
        user, key_file = getpass.getuser(), directory / "user_key"
        settings = {
            "host": HOST,
            "port": 0,
            "users": {user: [_new_key(key_file)]},
            "accounts": {user: None},
            "state_dir": str(directory),
            "cache_dir": cache_dir or None,
            "grid_cas": str(certificates),
            "orphan_limit": ORPHAN_LIMIT,
            "limits": {"pilot_idle": PILOT_IDLE},
        }
        process = processes.spawn([sys.executable, "-m", "gridproof.proxy"], stdout=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        try:
            line = await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)
        except asyncio.CancelledError:
            processes.stop(process, grace=0)  # else it would still write into a root that is being removed
            process.stdout.close()
            raise
        if not line:
            processes.stop(process)
            raise LocalGridError(
                "The embedded Grid's ProxyServer did not start; its words are in service.log"
            )
        ready = json.loads(line)
        address = {"host": HOST, "user": user, "key_file": str(key_file), **ready}
        return cls(process, address)

    def stop(self) -> None:
        """End it with its sessions."""
        processes.stop(self._process)
        assert self._process.stdout
        self._process.stdout.close()


def _new_key(path: Path) -> str:
    """Write a new private key for its owner alone; returns the public one."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
