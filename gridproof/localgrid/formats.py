"""Sizes, numbers and times as JAliEn prints them. Pure."""

from __future__ import annotations

import struct
import time


def human_size(size: int) -> str:
    """Bytes as JAliEn prints them: ``51 B``, ``2.861 MB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB", "PB"):
        if value < 1024 or unit == "PB":
            break
        value /= 1024
    return f"{short_number(value)} {unit}"


def short_number(value: float) -> str:
    """At most three digits after the point, fewer for larger numbers, as JAliEn prints them."""
    if value >= 1000:
        return str(int(value))
    digits = 3 if value < 10 else 2 if value < 100 else 1
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def java_date(seconds: float) -> str:
    """A time as Java prints it: ``Sun Nov 22 13:32:36 UTC 2026``."""
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(seconds))


def single(value: float) -> float:
    """In single precision, as JAliEn keeps costs."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def java_float(value: float) -> str:
    """A number of single precision as Java prints it: ``0.0``, ``100.0``, ``1.0E12``."""
    number = single(value)
    if number == 0:
        return "0.0"
    shortest = next(s for digits in range(9) if single(float(s := f"{number:.{digits}e}")) == number)
    mantissa, _, exponent = shortest.partition("e")
    if 1e-3 <= abs(number) < 1e7:
        return f"{number:.{max(1, len(mantissa.lstrip('-')) - 2 - int(exponent))}f}"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"
