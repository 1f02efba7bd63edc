"""Datasets: which files, how large, and on which storage elements. Who knows LFNs is handed in."""

from __future__ import annotations

from gridproof.dataset.files import Dataset, File, Friend
from gridproof.dataset.sources import resolve

__all__ = ["Dataset", "File", "Friend", "resolve"]
