"""Where replicas shall be: storage elements by name, and how many of which quality. Pure."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_REPLICAS = 2


@dataclass(frozen=True)
class Specs:
    """Where a file is to be read or written: SEs by name, those not wanted, and how many more of QoS disk.

    Names are in upper case.
    """

    ses: tuple[str, ...] = ()
    refused: frozenset[str] = frozenset()
    more: int = 0

    @classmethod
    def read(cls, text: str) -> Specs:
        """From ``VO::SITE::SE,!VO::OTHER::SE,disk:2``; raises ValueError."""
        ses, refused, counts = [], set(), {}
        for spec in filter(str.strip, text.split(",")):
            if spec.startswith("!"):
                refused.add(spec[1:].upper())
            elif "::" in spec:
                ses.append(spec.upper())
            else:
                quality, _, number = spec.replace("=", ":", 1).partition(":")
                counts[quality.strip()] = _count(spec, number.strip())
        wanted = tuple(se for se in ses if se not in refused)
        return cls(wanted, frozenset(refused), counts.get("disk", 0) if ses or counts else DEFAULT_REPLICAS)


def _count(spec: str, number: str) -> int:
    if not number:
        raise ValueError(f"Don't know what to do with `{spec}`")
    try:
        count = int(number)
    except ValueError:
        raise ValueError(f"Invalid format of the QoS string `{spec}`") from None
    if count < 1:
        raise ValueError(f"The number replicas has to be stricly positive in `{spec}`")
    return count
