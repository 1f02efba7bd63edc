"""``gridproof doctor``: whether everything is there that a session needs, and how to mend what is not."""

from __future__ import annotations

from gridproof.doctor.examination import examine
from gridproof.doctor.verdict import Verdict

__all__ = ["Verdict", "examine"]
