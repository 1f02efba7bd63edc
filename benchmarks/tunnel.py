"""The way from a worker to its master: a pilot's SSH connection, against a direct one and OpenSSH's.

A stand-in for the master takes and gives bytes, and echoes short messages. They go straight, through an
SSH connection as pilots have it to a real ProxyServer (both processes of their own), and through ``ssh -L``
with an ``sshd`` of its own and the same cipher, all on the loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import IO, Any

import asyncssh
import harness
from harness import say

from gridproof import processes
from gridproof.proxy.channel import CIPHERS
from gridproof.proxy.client import ProxyClient
from gridproof.proxy.protocol import Versions

CLAIM = (
    "a pilot's tunnel carries at least 0.5 of the bytes that OpenSSH carries with the same cipher, each way, "
    "and at least 0.5 of the short messages"
)
Measure = Callable[[int, int], float]
CHUNK = 1 << 20
WORD = 1024  # bytes of a short message
SSHD = "/usr/sbin/sshd"


# ---------------------------------------------------------------- processes of their own


def sink() -> None:
    """In place of a master: takes b"u" and bytes until their end, gives b"d" many, or echoes b"e"."""
    json.loads(sys.stdin.readline())
    server = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": server.getsockname()[1]}), flush=True)
    while True:
        peer, _ = server.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, suppress(OSError):
            what, size = peer.recv(1), int.from_bytes(_exactly(peer, 8), "big")
            if what == b"u":
                _drain(peer, size)
                peer.sendall(b"!")
            elif what == b"d":
                _fill(peer, size)
            for _ in range(size if what == b"e" else 0):
                peer.sendall(_exactly(peer, WORD))
            peer.recv(1)  # until the peer is done


def pilot() -> None:
    """Connect to a ProxyServer as told; says where the session's master is reached, here and there."""

    async def main() -> None:
        told = json.loads(sys.stdin.readline())
        client = await ProxyClient.connect("127.0.0.1", told["port"], told["host_key"], "bench", told["key"])
        opened = await client.open_session(Versions("3", "6", "1", "1"), 1)
        far = int(opened.address.rpartition(":")[2])
        listener = await client.conn.forward_local_port("127.0.0.1", 0, "127.0.0.1", far)  # as pilots do
        print(json.dumps({"near": listener.get_port(), "far": far}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await client.close()

    asyncio.run(main())


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = peer.recv(size - len(found))
        if not more:
            raise ConnectionError("the peer is gone")
        found += more
    return found


def _drain(peer: socket.socket, size: int) -> None:
    buffer = bytearray(CHUNK)
    while size:
        count = peer.recv_into(buffer)
        if not count:
            raise ConnectionError("the peer is gone")
        size -= count


def _fill(peer: socket.socket, size: int) -> None:
    chunk = os.urandom(CHUNK)
    for _ in range(size // CHUNK):
        peer.sendall(chunk)


# ---------------------------------------------------------------- what is measured


@contextmanager
def dialled(port: int, what: bytes, size: int) -> Iterator[socket.socket]:
    """A connection to the sink, which knows what to do."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(what + size.to_bytes(8, "big"))
        yield peer


def up(port: int, size: int) -> float:
    """Seconds for ``size`` bytes from here to the master."""
    with dialled(port, b"u", size) as peer:
        began = time.perf_counter()
        _fill(peer, size)
        _exactly(peer, 1)
        return time.perf_counter() - began


def down(port: int, size: int) -> float:
    """Seconds for ``size`` bytes from the master to here."""
    with dialled(port, b"d", size) as peer:
        began = time.perf_counter()
        _drain(peer, size)
        return time.perf_counter() - began


def talk(port: int, count: int) -> float:
    """Seconds for ``count`` short messages there and back, one after the other."""
    word = os.urandom(WORD)
    with dialled(port, b"e", count) as peer:
        began = time.perf_counter()
        for _ in range(count):
            peer.sendall(word)
            _exactly(peer, WORD)
        return time.perf_counter() - began


# ---------------------------------------------------------------- the ways


def ours(stack: ExitStack) -> tuple[int, int, list[int]]:
    """A ProxyServer and a pilot's connection to it: the tunnel's port here, the master's, and who carries."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = _start(stack, [sys.executable, "-m", "gridproof.proxy"])
    config = {
        "users": {"bench": [key.export_public_key().decode().strip()]},
        "accounts": {"bench": None},
        "port": 0,
        "master": [sys.executable, __file__, "sink"],
    }
    ready = _ask(server, config)
    client = _start(stack, [sys.executable, __file__, "pilot"])
    ports = _ask(client, {**ready, "key": key.export_private_key().decode()})
    return ports["near"], ports["far"], [server.pid, client.pid]


def openssh(stack: ExitStack, far: int) -> int:
    """``ssh -L`` and its own ``sshd``: the tunnel's port here."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gridproof-bench-")))
    for name in ("host", "user"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        (home / name).touch(0o600)
        key.write_private_key(str(home / name))
        key.write_public_key(str(home / f"{name}.pub"))
    port, near = _free_port(), _free_port()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    options = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": home / "host",
        "AuthorizedKeysFile": home / "user.pub",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "Ciphers": CIPHERS[0],
    }
    (home / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it shuts its unprivileged part in
    log = stack.enter_context((home / "log").open("wb"))
    daemon = _start(stack, [SSHD, "-D", "-e", "-f", str(home / "sshd_config")], log)
    _until_listening(port, daemon, home / "log")
    options = {
        "IdentityFile": home / "user",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": home / "known_hosts",
        "ExitOnForwardFailure": "yes",
        "Compression": "no",
        "Ciphers": CIPHERS[0],
    }
    argv = ["ssh", "-F", "none", "-N", "-L", f"127.0.0.1:{near}:127.0.0.1:{far}", "-p", str(port)]
    argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    client = _start(stack, [*argv, f"{getuser()}@127.0.0.1"], log)
    _until_listening(near, client, home / "log")
    return near


def _start(stack: ExitStack, argv: list[str], log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    process = processes.spawn(argv, stdout=subprocess.PIPE, stderr=log)
    stack.callback(processes.stop, process)
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    return process


def _ask(process: subprocess.Popen[bytes], what: dict[str, Any]) -> dict[str, Any]:
    harness.tell(process, **what)
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"{process.args!r} did not come up: {log.read_text()}")


def compare(ports: dict[str, int], carriers: list[int], measure: Measure, amount: int, pairs: int) -> Any:
    """Each way's times, their ratios to the tunnel's, and the CPU seconds of what carries the tunnel."""

    def over(port: int) -> Callable[[], float]:
        return lambda: measure(port, amount)

    before = harness.cpu_seconds(carriers)
    found = dict(zip(ports, harness.interleaved(pairs, *map(over, ports.values())), strict=True))
    cpu = (harness.cpu_seconds(carriers) - before) / pairs
    ratios = {way: harness.ratios(found[way], found["tunnel"]) for way in ports if way != "tunnel"}
    return found, ratios, cpu


def main() -> int:
    scale = harness.scale()
    size, words = scale(512, 64) * CHUNK, scale(5000, 500)
    with ExitStack() as stack:
        tunnelled, master, carriers = ours(stack)
        ports = {"direct": master, "tunnel": tunnelled}
        figures: dict[str, Any] = {}
        if shutil.which("ssh") and Path(SSHD).exists():
            ports["openssh"] = openssh(stack, master)
        else:
            figures["openssh"] = (
                "not measured: ssh or sshd is missing (Debian: openssh-client, openssh-server)"
            )
        value: dict[str, float] = {}
        for name, measure in (("up", up), ("down", down)):
            say(name)
            found, ratios, cpu = compare(ports, carriers, measure, size, scale.pairs)
            megabytes = {way: harness.spread([size / s / 1e6 for s in taken]) for way, taken in found.items()}
            figures[name] = {"mb_per_second": megabytes, "of": ratios, "cpu_seconds_per_gb": cpu / size * 1e9}
            value |= {f"{name}_of_{way}": ratio["median"] for way, ratio in ratios.items()}
        say("talk")
        found, ratios, cpu = compare(ports, carriers, talk, words, scale.pairs)
        times = {way: harness.spread([s / words * 1e6 for s in taken]) for way, taken in found.items()}
        figures["talk"] = {"us": times, "speed_of": ratios, "cpu_us": cpu / words * 1e6}
        value |= {f"talk_speed_of_{way}": ratio["median"] for way, ratio in ratios.items()}
    met = "openssh" in ports and all(
        value[f"{name}_of_openssh"] >= 0.5 for name in ("up", "down", "talk_speed")
    )
    harness.report("tunnel", CLAIM, value, met, scale.pairs, figures, scale.quick)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["sink"]:
        sink()
    elif sys.argv[1:] == ["pilot"]:
        pilot()
    else:
        sys.exit(main())
