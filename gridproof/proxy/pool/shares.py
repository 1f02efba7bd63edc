"""Which session of a user has which slots of the user's pilots (pure: no I/O, no clock).

Sessions that are at work come first; among them, and then among the others, slots are shared max-min
fairly: in the end nobody has two more than another one that wants more and could use one of them. A session
keeps what it has while that is fair, and nothing is asked back that nobody could use.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Slot(NamedTuple):
    """Room for one worker on a pilot; ``site`` is the pilot's."""

    pilot: str
    number: int
    site: str


@dataclass(frozen=True)
class Claim:
    """What a session has, and how many workers it wants in all.

    ``held``: slots of workers that stay; ``leaving``: of those that were told to end and still live.
    ``barred``: slots that it cannot use for now. ``near``: sites that it prefers (none: all are alike).
    ``opening``: it cannot take slots yet, but they are kept for it.
    """

    session: str
    wanted: int
    at_work: bool = True
    held: Collection[Slot] = ()
    leaving: Collection[Slot] = ()
    barred: Collection[Slot] = ()
    near: frozenset[str] = frozenset()
    opening: bool = False

    def far(self, slot: Slot) -> bool:
        """Whether the slot is at none of the sites that the session prefers."""
        return bool(self.near) and slot.site not in self.near


@dataclass(frozen=True)
class Shares:
    """What is to be done: each session takes some free slots, and gives back some of those that it holds."""

    take: Sequence[tuple[str, Slot]] = ()
    give: Sequence[tuple[str, Slot]] = ()


def share(
    claims: Sequence[Claim],
    free: Collection[Slot],
    limit: int | None = None,
    away: Collection[Slot] = (),
) -> Shares:
    """Share out free slots, and see who has to give one back for it.

    All slots of the claims and the free ones are different, and a session that is named earlier is the older.
    ``limit`` is for all sessions together; slots that are ``away`` are of use to nobody but who holds them.
    """
    if all(len(claim.held) == claim.wanted and not claim.near for claim in claims):
        return Shares()
    sharing = _Sharing(claims, free, limit, away)
    sharing.give_surplus()
    sharing.hand_out()
    sharing.ask_back()
    sharing.come_nearer()
    return Shares(sharing.take, sharing.give)


class _Sharing:
    """One sharing out, step by step."""

    def __init__(
        self,
        claims: Sequence[Claim],
        free: Collection[Slot],
        limit: int | None,
        away: Collection[Slot],
    ) -> None:
        self.take: list[tuple[str, Slot]] = []
        self.give: list[tuple[str, Slot]] = []
        self._claims = claims
        self._away = away
        self._left = dict.fromkeys(free)  # free slots that nobody has taken yet
        self._has = {claim.session: len(claim.held) for claim in claims}  # once all is carried out
        self._dear: dict[str, dict[Slot, None]] = {}  # what is held still, the first to be given back first
        living = sum(len(claim.held) + len(claim.leaving) for claim in claims)
        self._room = len(free) if limit is None else max(0, limit - living)

    def give_surplus(self) -> None:
        """Nobody keeps more than was wanted."""
        for claim in self._claims:
            surplus = len(claim.held) - claim.wanted
            if surplus > 0:
                self._give(claim, _dearest(claim, claim.held)[:surplus])

    def hand_out(self) -> None:
        """Free slots to those that want more: one each in turn, the poorest first."""
        hungry = [claim for claim in self._claims if self._missing(claim)]
        if not hungry or not self._left:
            return
        offers: dict[str, Iterator[Slot]] = {}
        queue = [self._need(claim, age) for age, claim in enumerate(hungry)]
        heapq.heapify(queue)
        while queue and self._room and self._left:
            *_, age = heapq.heappop(queue)
            claim = hungry[age]
            if claim.session not in offers:
                offers[claim.session] = self._offers(claim)
            slot = next((slot for slot in offers[claim.session] if slot in self._left), None)
            if slot is None:
                continue
            del self._left[slot]
            self._room -= 1
            if not claim.opening:
                self.take.append((claim.session, slot))
            self._has[claim.session] += 1
            if self._missing(claim):
                heapq.heappush(queue, self._need(claim, age))

    def ask_back(self) -> None:
        """Who has less than is fair gets it from those that have more, as soon as their workers have left."""
        hungry = [claim for claim in self._claims if self._missing(claim)]
        if not any(self._is_unfair(poor, rich) for poor in hungry for rich in self._claims):
            return
        gone = {slot for _, slot in self.give}
        going = {slot for claim in self._claims for slot in claim.leaving} | gone
        coming = dict.fromkeys(sorted(slot for slot in going if slot not in self._away))
        queue = [self._need(claim, age) for age, claim in enumerate(hungry)]
        heapq.heapify(queue)
        while queue:
            *_, age = heapq.heappop(queue)
            claim = hungry[age]
            slot = next((slot for slot in coming if slot not in claim.barred), None)
            if slot is not None:
                del coming[slot]
            elif not self._ask(claim, gone):
                continue
            self._has[claim.session] += 1
            if self._missing(claim):
                heapq.heappush(queue, self._need(claim, age))

    def _ask(self, poor: Claim, gone: set[Slot]) -> bool:
        """Have one session give a slot back that ``poor`` can use; whether there is one."""
        for rich in sorted(self._claims, key=lambda claim: (claim.at_work, -self._has[claim.session])):
            if rich is poor or not self._is_unfair(poor, rich):
                continue
            if rich.session not in self._dear:
                usable = [s for s in rich.held if s not in gone and s not in self._away]
                self._dear[rich.session] = dict.fromkeys(_dearest(rich, usable))
            dear = self._dear[rich.session]
            slot = next((slot for slot in dear if slot not in poor.barred), None)
            if slot is not None:
                del dear[slot]
                self._give(rich, [slot])
                return True
        return False

    def _is_unfair(self, poor: Claim, rich: Claim) -> bool:
        if poor.at_work is not rich.at_work:
            return poor.at_work and self._has[rich.session] > 0
        return self._has[rich.session] > self._has[poor.session] + 1

    def come_nearer(self) -> None:
        """A worker far from its session's data makes way for one on a free slot near them."""
        giving = {name for name, _ in self.give}
        for claim in self._claims:
            if not claim.near or claim.session in giving or self._has[claim.session] < claim.wanted:
                continue
            far = [slot for slot in claim.held if claim.far(slot)] if self._left else []
            if not far:
                continue
            near = sorted(s for s in self._left if not claim.far(s) and s not in claim.barred)
            for slot in near[: len(far)]:
                del self._left[slot]
            self._give(claim, _dearest(claim, far)[: len(near)])

    def _missing(self, claim: Claim) -> int:
        """How many more it may have; workers that leave still count."""
        return max(0, claim.wanted - self._has[claim.session] - len(claim.leaving))

    def _need(self, claim: Claim, age: int) -> tuple[bool, int, int]:
        """Sorts the neediest to the front."""
        return not claim.at_work, self._has[claim.session], age

    def _give(self, claim: Claim, slots: Iterable[Slot]) -> None:
        for slot in slots:
            self.give.append((claim.session, slot))
            self._has[claim.session] -= 1

    def _offers(self, claim: Claim) -> Iterator[Slot]:
        """The free slots that it can use, the best first."""
        usable = [slot for slot in self._left if slot not in claim.barred]
        if claim.opening or len(usable) < 2:
            return iter(usable)
        pilots = {slot.pilot for slot in usable}
        others = (s for c in self._claims for s in (*c.held, *c.leaving)) if len(pilots) > 1 else ()
        return iter(_spread(claim, usable, Counter(s.pilot for s in others), claim.held))


def _spread(
    claim: Claim, slots: Iterable[Slot], busy: Counter[str], present: Iterable[Slot] = ()
) -> list[Slot]:
    """Slots in the order in which a session takes them: near ones first, over pilots and then over sites."""
    on_pilot = Counter(busy)
    ranked = []
    for slot in sorted(slots):
        ranked.append((claim.far(slot), on_pilot[slot.pilot], slot))
        on_pilot[slot.pilot] += 1
    at_site = Counter(slot.site for slot in present)
    spread = []
    for far, depth, slot in sorted(ranked):
        spread.append((far, depth, at_site[slot.site], slot))
        at_site[slot.site] += 1
    return [slot for *_, slot in sorted(spread)]


def _dearest(claim: Claim, slots: Iterable[Slot]) -> list[Slot]:
    """Slots in the order in which it gives them back: far ones first, then where it has most."""
    return _spread(claim, slots, Counter())[::-1]
