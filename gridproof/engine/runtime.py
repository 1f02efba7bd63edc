"""The bridge to ``runtime.h`` and ``merge.h``: objects from and to bytes, calls that leave Python's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import _root

INCLUDE = Path(__file__).parents[1] / "include"
"""Where ``<gridproof/OutputFile.h>`` lies."""

LARGEST = (1 << 30) - 2
"""Bytes of objects that ROOT can pack."""

_RUNTIME, _MERGE = (Path(__file__).with_name(name) for name in ("runtime.h", "merge.h"))
_M_MMAP_THRESHOLD = -3  # malloc.h
_UNLOCKED = {
    "Source": ("Befriend", "Clusters", "TakeBytes"),
    "Instance": ("Begin", "SlaveBegin", "Process", "SlaveTerminate", "Terminate", "Output"),
}
_UNLOCKED_MERGING = {"Merger": ("Merge", "Output"), "FileMerger": ("Merge", "Close")}


def load() -> Any:
    """ROOT with namespace ``gridproof`` of ``runtime.h`` in it; every later call is cheap."""
    root = _root.load()
    for library in ("libHist", "libTree"):  # what Cling compiles does not find them by itself
        root.gSystem.Load(library)
    root.gInterpreter.AddIncludePath(str(INCLUDE))
    _declare(root, _RUNTIME, _UNLOCKED, creators=("Open", "Make", "Pack", "Unpack"))
    root.gridproof.Instance.Output.__creates__ = True
    return root


def load_threaded() -> Any:
    """As `load`, for processes of gridproof's own that run ROOT in threads: no graphics, errors watched."""
    root = load()
    root.gROOT.SetBatch(True)
    root.ROOT.EnableThreadSafety()
    root.gridproof.WatchErrors()
    return root


def load_merging() -> Any:
    """As `load_threaded`, with what is in ``merge.h`` too."""
    root = load_threaded()
    _declare(root, _MERGE, _UNLOCKED_MERGING, creators=("Decode",))
    root.gridproof.Merger.Output.__creates__ = True
    return root


def _declare(root: Any, header: Path, unlocked: Mapping[str, Sequence[str]], creators: Sequence[str]) -> None:
    """Compile a header. Methods ``unlocked`` run without the GIL, so do ``creators``, which make objects.

    Raises:
        ImportError: it does not compile.
    """
    if not root.gInterpreter.Declare(f'#include "{header}"'):
        raise ImportError(f"{header} does not compile with ROOT {root.gROOT.GetVersion()}")
    for name, methods in unlocked.items():
        for method in methods:
            getattr(getattr(root.gridproof, name), method).__release_gil__ = True
    for function in creators:
        getattr(root.gridproof, function).__release_gil__ = True
        getattr(root.gridproof, function).__creates__ = True


def return_memory() -> None:
    """Have large pieces of memory given back as soon as they are free, in a process that handles many.

    Otherwise glibc keeps them, in its own good time more and more of them.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 << 20)


def to_bytes(packed: Any) -> bytes:
    """The content of a ``gridproof::Bytes``, copied.

    Raises:
        ValueError: it is more than ROOT can pack.
    """
    if int(packed.Length()) > LARGEST:
        raise ValueError(
            f"{int(packed.Length()) / 1e9:.2f} GB of objects are more than the {LARGEST / 1e9:.2f} GB "
            "that ROOT can send at a time; a gridproof::OutputFile can be larger"
        )
    return ctypes.string_at(int(packed.Address()), int(packed.Length()))


def pack(root: Any, objects: Any) -> bytes:
    """A ``TCollection`` with its objects as bytes, in ROOT's own format."""
    return to_bytes(root.gridproof.Pack(objects))


def sample(root: Any) -> bytes:
    """Outputs of a query that was none, for those who want to have handled some."""
    objects = root.TList()
    histogram = root.TH1D("sample", "", 1, 0.0, 1.0)
    histogram.SetDirectory(root.nullptr)
    objects.Add(histogram)
    return pack(root, objects)


def unpack(root: Any, data: bytes) -> Any:
    """The ``TList`` in ``data``, owner of its objects.

    Raises:
        ValueError: the bytes hold no list.
    """
    objects = root.gridproof.Unpack(*_place(data))
    if root.addressof(objects) == 0:
        raise ValueError("the bytes hold no TList")
    return objects


def decode(root: Any, data: bytes) -> Any:
    """The ``gridproof::Objects`` in ``data``, to be merged.

    Raises:
        ValueError: the bytes hold no list, or something in it cannot be read.
    """
    objects = root.gridproof.Decode(*_place(data))
    if root.addressof(objects) == 0:
        raise ValueError(str(root.gridproof.Errors().First()) or "the bytes hold no TList")
    return objects


def _place(data: bytes) -> tuple[int, int]:
    """Where the bytes lie in memory: they can be large, and are not copied."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0, len(data)
