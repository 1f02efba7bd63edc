"""The real forkserver with stand-in workers, without ROOT: as told by the worker's name and session."""

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any

from gridproof.pilot.forkserver import Forkserver

VERSIONS = {"python": "3.11.2", "root": "6.40.00", "gridproof": "1", "distributed": "2026.1"}


def worker(spec: dict[str, Any]) -> int:
    """Echo on the port given, and greet the scheduler and the store."""
    session = spec["session"]
    print(f"worker {spec['name']} of {session} runs")
    if session == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if session == "talk":
        print("said by Python")
        ctypes.CDLL(None).printf(b"said by C\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if session == "fail":
        raise ValueError("no worker today")
    if session == "leave":
        return 0
    while session == "wait":
        time.sleep(1)
    if session == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("will not end")
        while True:
            time.sleep(1)
    host, port = spec["store"].removeprefix("root://").partition("//")[0].split(":")
    with socket.create_connection((host, int(port))) as store:
        store.sendall(spec["store_key"].encode())
        assert store.recv(7) == b"the key"
    host, port = spec["scheduler"].removeprefix("tls://").split(":")
    with socket.create_connection((host, int(port))) as scheduler:
        scheduler.sendall(b"hello")
        assert scheduler.recv(5) == b"hello"
        with socket.create_server(("127.0.0.1", spec["listen_port"])) as server:
            while True:
                peer, _ = server.accept()
                with peer:
                    peer.sendall(spec["name"].encode() + b"\n")


commands, reports = os.dup(0), os.dup(1)
os.dup2(2, 1)
server = Forkserver(commands, reports, worker)
server.report("ready", versions=VERSIONS, threads=1)
sys.exit(server.serve())
