"""The end of a crashed worker's log, made readable."""

from __future__ import annotations

import ctypes
import re

_FRAME = re.compile(r"^(?P<library>\S*/)?(?P<name>[^/\s(]+)\((?P<symbol>\w*)\+0x[0-9a-f]+\)\[0x[0-9a-f]+\]$")
_NAMELESS = re.compile(r"^\[0x[0-9a-f]+\]$")
_OURS = ("libpython", "libCPyCppyy", "libcppyy", "libc.so", "libffi", "python")


def readable(log: str) -> str:
    """The log without frames that are not the selector's or ROOT's, and with C++ names instead of symbols."""
    lines = []
    for line in log.splitlines():
        frame = _FRAME.match(line.strip())
        if frame is None:
            if not _NAMELESS.match(line.strip()):
                lines.append(line)
        elif frame["symbol"] and not frame["name"].startswith(_OURS):
            lines.append(f"  {_demangled(frame['symbol'])} in {frame['name']}")
    return "\n".join(lines)


def _demangled(symbol: str) -> str:
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return symbol
    library.__cxa_demangle.restype = ctypes.c_void_p
    status = ctypes.c_int()
    text = library.__cxa_demangle(symbol.encode(), None, None, ctypes.byref(status))
    if not text:
        return symbol
    name = ctypes.string_at(text).decode()
    ctypes.CDLL(None).free(ctypes.c_void_p(text))
    return name
