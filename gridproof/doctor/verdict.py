"""What a check finds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gridproof.errors import GridproofError

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """How one thing stands: what was found, and how to mend it; with a ``warning`` a session may work."""

    state: State
    found: str
    remedy: str = ""


def ok(found: str) -> Verdict:
    """All is well."""
    return Verdict("ok", found)


def warning(found: str, remedy: str) -> Verdict:
    """It works, but not everywhere or not for long."""
    return Verdict("warning", found, remedy)


def failed(found: str, remedy: str = "") -> Verdict:
    """A session cannot work."""
    return Verdict("failed", found, remedy)


def skipped(why: str) -> Verdict:
    """It cannot be told."""
    return Verdict("skipped", why)


def bounded(check: Callable[[], Verdict], seconds: float) -> Verdict:
    """What a check finds, or that it has failed or found nothing within that time; never raises.

    A check that hangs is left to itself, in a thread that does not hold up the end of the process.
    """
    verdicts: list[Verdict] = []

    def run() -> None:
        try:
            verdicts.append(check())
        except GridproofError as error:
            verdicts.append(failed(str(error)))
        except Exception as error:  # a check must not end the examination
            verdicts.append(failed(f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, name="gridproof doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    return verdicts[0] if verdicts else failed(f"no result within {seconds:g} s", "is something overloaded?")
