"""Write a local file to an XRootD server: a program, to which the URL, a secret, comes on standard input.

(``xrdcp`` takes it as an argument, which everybody on the machine can read.) It writes by XRootD's client,
through the POSIX interface that comes with ``xrdcp``, and needs nothing but Python's own library.
"""

import ctypes
import json
import os
import sys

_LIBRARY = "libXrdPosixPreload.so"
_BLOCK = 8 << 20


def put(source: str, url: str) -> str:
    """Copy ``source`` to ``url``: what went wrong, "" if nothing did."""
    try:
        posix = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError:
        return f"{_LIBRARY} is not installed: install the package xrootd-client"
    posix.XrdPosix_Write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
    posix.XrdPosix_Write.restype = ctypes.c_ssize_t
    with open(source, "rb") as file:  # noqa: PTH123
        target = posix.XrdPosix_Open(
            url.encode(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ctypes.c_uint(0o644)
        )
        if target < 0:
            return _reason("it cannot be opened there")
        while block := file.read(_BLOCK):
            if posix.XrdPosix_Write(target, block, len(block)) != len(block):
                return _reason("it could not be written")
        if posix.XrdPosix_Close(target):
            return _reason("it could not be written to its end")
    return ""


def _reason(what: str) -> str:
    return f"{what}: {os.strerror(ctypes.get_errno())}"


if __name__ == "__main__":
    problem = put(**json.load(sys.stdin))
    print(problem, file=sys.stderr, flush=True)
    os._exit(1 if problem else 0)  # not through the client's destructors, which wait for its connections
