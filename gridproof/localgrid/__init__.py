"""The embedded Grid: a small real one, with JAliEn's wire, task queue and catalogue and XRootD storage."""

from __future__ import annotations

from gridproof.localgrid.discovery import find_running
from gridproof.localgrid.grid import LocalGrid
from gridproof.localgrid.limits import Limits
from gridproof.localgrid.quotas import Quota
from gridproof.localgrid.users import User

__all__ = ["Limits", "LocalGrid", "Quota", "User", "find_running"]
