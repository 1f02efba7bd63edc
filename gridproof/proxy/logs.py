"""The last lines of pilots, workers and masters, in bounded memory (pure: no I/O, no clock).

What is kept is text by user and source. A user's own sources share the room that each user has; what comes
too fast is cut, and what was left out is said where it is missing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Source(NamedTuple):
    """Who writes: ``worker`` (of the pilot ``owner``), ``pilot`` (``owner`` itself), or the ``master`` of the
    session ``owner``."""

    kind: str
    owner: str
    name: str = ""


@dataclass(frozen=True)
class Room:
    """Characters and, for ``ended``, sources of a kind; ``rate`` is per second, up to ``burst`` at once."""

    source: int = 32_768
    user: int = 16 << 20
    sources: int = 8192  # of a user
    ended: int = 64  # kept after their end, of a user
    rate: float = 16_384.0  # of a pilot with its workers
    burst: float = 262_144.0


@dataclass
class _Log:
    chunks: deque[str] = field(default_factory=deque)
    size: int = 0
    written: int = 0  # characters, whether they are kept or not

    def add(self, text: str, room: int) -> None:
        self.chunks.append(text)
        self.size += len(text)
        self.written += len(text)
        self.shrink(room)

    def shrink(self, room: int) -> None:
        while self.size > room:
            first = self.chunks.popleft()
            kept = first[self.size - room :]
            if kept:
                self.chunks.appendleft(kept)
            self.size -= len(first) - len(kept)


@dataclass
class _User:
    logs: dict[Source, _Log] = field(default_factory=dict)
    ended: dict[str, deque[Source]] = field(default_factory=dict)  # by kind, the oldest first
    size: int = 0


@dataclass
class _Allowance:
    left: float
    seen: float
    refused: int = 0  # characters since the last ones that were let through


class Logs:
    """Everybody's; times are in seconds of any steady clock."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room()
        self._users: dict[str, _User] = {}
        self._allowances: dict[str, _Allowance] = {}  # by pilot

    def add(self, user: str, source: Source, text: str, now: float) -> None:
        """A source has written more."""
        if source.kind != "master":
            text = self._within_rate(source.owner, text, now)
        if not text:
            return
        own = self._users.setdefault(user, _User())
        log = own.logs.get(source)
        if log is None:
            if len(own.logs) >= self._room.sources:
                return
            log = own.logs[source] = _Log()
        before = log.size
        log.add(text, self._room.source)
        own.size += log.size - before
        self._fit(own)

    def begin(self, user: str, source: Source) -> None:
        """A source writes from its beginning (again)."""
        self._forget(self._users.setdefault(user, _User()), source)

    def end(self, user: str, source: Source) -> None:
        """A source writes no more; so many of a kind are kept."""
        own = self._users.setdefault(user, _User())
        ended = own.ended.setdefault(source.kind, deque())
        if source in own.logs and source not in ended:
            ended.append(source)
        if len(ended) > self._room.ended:
            self._forget(own, ended[0])

    def pilot_gone(self, user: str, pilot: str) -> None:
        """A pilot writes no more, and none of its workers does."""
        self._allowances.pop(pilot, None)
        own = self._users.get(user, _User())
        for source in [source for source in own.logs if source.owner == pilot]:
            self.end(user, source)

    def last(
        self, user: str, source: Source, lines: int, most: int, since: int = 0
    ) -> tuple[str, int] | None:
        """Its last lines, and how many characters it has written in all; None if nothing is known of it.

        At most ``lines`` lines and ``most`` characters, and only what came after the first ``since`` ones.
        """
        log = self._users.get(user, _User()).logs.get(source)
        if log is None:
            return None
        text = "".join(log.chunks)
        text = text[max(0, len(text) - most, len(text) - (log.written - since)) :]
        return "".join(text.splitlines(keepends=True)[-lines:]), log.written

    def size(self, user: str) -> int:
        """Characters that are kept of a user."""
        own = self._users.get(user)
        return own.size if own else 0

    # ---- room

    def _within_rate(self, pilot: str, text: str, now: float) -> str:
        """The end of a text that its pilot may add now."""
        room = self._room
        allowance = self._allowances.setdefault(pilot, _Allowance(room.burst, now))
        allowance.left = min(room.burst, allowance.left + room.rate * (now - allowance.seen))
        allowance.seen = now
        kept = text[max(0, len(text) - int(allowance.left)) :]
        allowance.left -= len(kept)
        allowance.refused += len(text) - len(kept)
        if kept and allowance.refused:
            kept = f"… ({allowance.refused} characters came too fast)\n{kept}"
            allowance.refused = 0
        return kept

    def _fit(self, own: _User) -> None:
        """Back within a user's room: what ended goes first, then what is beyond an even share."""
        for source in _oldest_ended(own):
            if own.size <= self._room.user:
                return
            self._forget(own, source)
        if own.size > self._room.user:
            share = self._room.user // len(own.logs)
            for log in own.logs.values():
                log.shrink(share)
            own.size = sum(log.size for log in own.logs.values())

    def _forget(self, own: _User, source: Source) -> None:
        log = own.logs.pop(source, None)
        if log is not None:
            own.size -= log.size
        ended = own.ended.get(source.kind, deque())
        if source in ended:
            ended.remove(source)


def _oldest_ended(own: _User) -> Iterator[Source]:
    for ended in list(own.ended.values()):
        yield from list(ended)


def harmless(text: str) -> str:
    """A text that does nothing to a terminal but to appear on it."""
    text = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
