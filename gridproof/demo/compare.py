"""Whether two sets of histograms are the same: counts exactly, floating sums to rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gridproof import _root

_MOMENTS = 13  # TH1::kNstat, the longest array that GetStats fills


def differences(
    measured: Mapping[str, Any], expected: Mapping[str, Any], *, tolerance: float = 1e-9
) -> list[str]:
    """What differs, one line each; empty if the same.

    Names and classes must agree. Of histograms: axes, entries and, where a bin only counts, bin
    contents exactly; weighted contents, errors and the sums behind mean and width to the relative
    ``tolerance``, because the order of a floating sum is not fixed. Bins include under- and overflow.
    """
    names = sorted(set(measured) ^ set(expected))
    found = [f"{name}: only {'measured' if name in measured else 'expected'}" for name in names]
    for name in sorted(set(measured) & set(expected)):
        found += [f"{name}: {what}" for what in _between(measured[name], expected[name], tolerance)]
    return found


def _between(one: Any, other: Any, tolerance: float) -> Iterator[str]:
    if one.ClassName() != other.ClassName():
        yield f"is a {one.ClassName()}, not a {other.ClassName()}"
    elif other.InheritsFrom("TH1"):
        yield from _between_histograms(one, other, tolerance)


def _between_histograms(one: Any, other: Any, tolerance: float) -> Iterator[str]:
    if one.GetNcells() != other.GetNcells():
        yield f"has {one.GetNcells()} bins, not {other.GetNcells()}"
        return
    for axis in ("X", "Y", "Z"):
        if _edges(one, axis) != _edges(other, axis):
            yield f"has other edges on its {axis} axis"
    weighted = other.GetSumw2N() > 0
    entries = one.GetEntries(), other.GetEntries()
    if not (_close(*entries, tolerance) if weighted else entries[0] == entries[1]):
        yield f"has {entries[0]:.17g} entries, not {entries[1]:.17g}"
    profile = other.InheritsFrom("TProfile") or other.InheritsFrom("TProfile2D")
    for bin_ in range(other.GetNcells()):
        if profile and one.GetBinEntries(bin_) != other.GetBinEntries(bin_):
            yield f"bin {bin_} has {one.GetBinEntries(bin_)} entries, not {other.GetBinEntries(bin_)}"
        contents = one.GetBinContent(bin_), other.GetBinContent(bin_)
        if not (_close(*contents, tolerance) if weighted or profile else contents[0] == contents[1]):
            yield f"bin {bin_} holds {contents[0]:.17g}, not {contents[1]:.17g}"
        if not _close(
            one.GetBinError(bin_), other.GetBinError(bin_), math.sqrt(tolerance) if profile else tolerance
        ):
            yield f"bin {bin_} has the error {one.GetBinError(bin_):.17g}, not {other.GetBinError(bin_):.17g}"
    for moment, (a, b) in enumerate(zip(_moments(one), _moments(other), strict=True)):
        if not _close(a, b, tolerance):
            yield f"sum {moment} of its statistics is {a:.17g}, not {b:.17g}"


def _close(a: float, b: float, tolerance: float) -> bool:
    return math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))


def _edges(histogram: Any, axis: str) -> list[float]:
    of = getattr(histogram, f"Get{axis}axis")()
    return [of.GetBinLowEdge(bin_) for bin_ in range(1, of.GetNbins() + 2)]


def _moments(histogram: Any) -> list[float]:
    values = _root.load().std.vector["double"](_MOMENTS)
    histogram.GetStats(values.data())
    return [float(value) for value in values]
