"""What has become of a session's pilots, and what to do about it (pure: no I/O, no clock).

`PilotWatch` is told what ``ps`` shows of the jobs and what the ProxyServer knows of the payloads, with the
time ``now`` in seconds of any steady clock. A job that was killed and submitted again, or that AliEn tries
again by itself, keeps its id: each is a *run* of its own here, and payloads of an earlier run, which may
live on for minutes, do not count for a later one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .alien import Job, Phase
from .proxy.pool.records import PilotRecord
from .proxy.pool.state import CONNECTED

YOUNG = 120.0  # s: a pilot that fails so soon, or before it registers, has died young
YOUNG_DEATHS = 3  # so many at a site without a registration between them: it is left out
LEFT_OUT = 900.0  # s
RETRY_PATIENCE = 300.0  # s in ERROR_A or ERROR_IB: AliEn has given up trying
REPLACE_EVERY = 30.0  # s from one submission of replacements to the next
_SAMPLES = 12  # traces that are worth a call
_SHOWN = 4  # sites in a summary, job ids in a line
_OURS = "gridproof pilot: "
_TRACE_LINE = re.compile(r"(?:\d{8} \d\d:\d\d:\d\d )?\[(\w+) *\]: ?(.*)")
_BOOKKEEPING = ("state", "proc", "procfmt")  # tags of what says nothing of why
_ROUTINE = ("Cleaning up", "JobWrapper", "Going to upload", "Uploading", "Registering", "No output given")
_ERRORS = ("ERROR", "[FATAL]")  # what agents begin a line of their own with


@dataclass
class _Pilot:
    """A job that is a pilot, or a master that stands for ``size`` pilots until it is split."""

    job: Job
    since: float  # when it came into its state
    size: int = 1
    site: str = ""
    run: int = 1
    began: float | None = None  # when this run was first seen to hold a slot
    former: frozenset[str] = frozenset()  # payloads of earlier runs
    ended: bool = False
    failed: bool = False


@dataclass(frozen=True)
class PilotGroup:
    """Pilots at one site that are equally far: ``count`` of them, and the ids of their jobs.

    ``at_proxy``: the state at the ProxyServer, "" for pilots that have not registered. ``cause``: the last
    words of one of those that failed or are tried again.
    """

    site: str
    status: str
    ended: bool
    run: int
    at_proxy: str
    count: int
    jobs: tuple[int, ...]
    cause: str

    def __str__(self) -> str:
        what = f"ended in {self.status}" if self.ended else self.status
        where = f"at {self.site} " if self.site else ""
        ids = ", ".join(str(id) for id in self.jobs[:_SHOWN]) + (", …" if self.jobs[_SHOWN:] else "")
        notes = [f"run {self.run}"] if self.run > 1 else []
        notes += [f"{self.at_proxy} at the ProxyServer"] if self.at_proxy else []
        notes += [f"job{'s' if self.jobs[1:] else ''} {ids}"]
        cause = f": {self.cause}" if self.cause else ""
        return f"{_pilots(self.count)} {where}{what} ({'; '.join(notes)}){cause}"


class PilotWatch:
    """Follows the jobs of a session's pilots: masters, and the subjobs into which AliEn splits them."""

    def __init__(self) -> None:
        self._masters: list[int] = []
        self._pilots: dict[int, _Pilot] = {}
        self._payloads: dict[int, dict[str, PilotRecord]] = {}
        self._deaths: dict[str, list[float]] = {}  # young ones since the last registration, by site
        self._causes: dict[tuple[str, str], str] = {}
        self._asked_masters = False
        self._wanted = self._replaced = 0
        self._next_replacement = -math.inf

    # ---- what is told

    def sent(self, master: int, pilots: int, now: float, *, instead: bool = False) -> None:
        """A job was submitted that AliEn will split into so many pilots, perhaps instead of failed ones."""
        self._masters.append(master)
        self._pilots[master] = _Pilot(Job(master, 0, "INSERTING"), now, pilots)
        if instead:
            self._replaced += pilots
        else:
            self._wanted += pilots

    def adopted(self, masters: Iterable[int]) -> None:
        """Another process has submitted these jobs; they are split already."""
        self._masters += sorted(set(masters))

    def saw(self, jobs: Sequence[Job], now: float) -> bool:
        """What ``ps`` shows; returns whether anything is new."""
        changed = False
        for job in jobs:
            changed |= self._pilots.pop(job.master, None) is not None
            pilot = self._pilots.get(job.id)
            if pilot is None and job.id in self._masters:
                continue
            if pilot is None:
                pilot = self._pilots[job.id] = _Pilot(job, now)
                changed = True
            changed |= pilot.job != job
            self._follow(pilot, job, now)
        for pilot in self._pilots.values():
            self._perhaps_end(pilot, now)
        return changed

    def registered(self, records: Iterable[PilotRecord]) -> None:
        """All pilots that the ProxyServer knows."""
        for record in records:
            if not record.job_id.isdigit():
                continue
            payloads = self._payloads.setdefault(int(record.job_id), {})
            if record.id not in payloads:
                self._deaths.pop(record.site.upper(), None)
            payloads[record.id] = record

    def told(self, job: int, trace: Sequence[str]) -> None:
        """The trace of a job that `samples` named."""
        if pilot := self._pilots.get(job):
            self._causes[pilot.site, pilot.job.status] = last_words(trace)

    def _follow(self, pilot: _Pilot, job: Job, now: float) -> None:
        old = pilot.job
        moved = bool(old.node and job.node) and old.node != job.node
        back = job.phase is Phase.WAITING and pilot.began is not None
        retried = old.phase is Phase.RETRIED and job.phase in (Phase.WAITING, Phase.RUNNING)
        if moved or back or retried or (pilot.ended and job.status != old.status and not job.is_final):
            pilot.run += 1
            pilot.former = frozenset(self._payloads.get(job.id, ()))
            pilot.began, pilot.site, pilot.ended, pilot.failed = None, "", False, False
        if job.status != old.status:
            pilot.since = now
        if pilot.began is None and job.phase in (Phase.RUNNING, Phase.SILENT):
            pilot.began = now
        pilot.job = job
        pilot.site = job.site or pilot.site

    def _perhaps_end(self, pilot: _Pilot, now: float) -> None:
        phase = pilot.job.phase
        given_up = phase is Phase.RETRIED and now - pilot.since >= RETRY_PATIENCE
        to_split = pilot.job.id in self._masters and _is_split(pilot.job)
        if pilot.ended or to_split or not (phase.final or given_up):
            return
        came = bool(self._own_payloads(pilot))
        pilot.ended = True
        pilot.failed = phase is Phase.FAILED or given_up or (phase is Phase.DONE and not came)
        lived = now - pilot.began if pilot.began is not None else 0.0
        if pilot.failed and pilot.site and (not came or lived < YOUNG):
            self._deaths.setdefault(pilot.site, []).append(now)

    def _own_payloads(self, pilot: _Pilot) -> list[PilotRecord]:
        """The payloads of this run of a pilot, the newest last."""
        payloads = self._payloads.get(pilot.job.id, {})
        return [record for id, record in payloads.items() if id not in pilot.former]

    def _serves(self, pilot: _Pilot) -> bool:
        return any(record.state in CONNECTED for record in self._own_payloads(pilot))

    # ---- what to ask

    def next_question(self) -> tuple[str, list[int]]:
        """What to ask next, in one call: for ``"masters"`` that are not split yet, or for ``"subjobs"``.

        AliEn tells of one or of the others; where both are worth asking they take turns.
        """
        unsplit = [id for id in self._masters if (p := self._pilots.get(id)) and not _is_split(p.job)]
        unsplit = [id for id in unsplit if not self._pilots[id].ended]
        split = [id for id in self._masters if (p := self._pilots.get(id)) is None or _is_split(p.job)]
        self._asked_masters = bool(unsplit) and not (self._asked_masters and split)
        return ("masters", unsplit) if self._asked_masters else ("subjobs", split)

    def samples(self) -> list[int]:
        """Jobs whose traces would tell why pilots failed, or AliEn tries them again: one for each site and
        state not yet told of."""
        wanted = {
            (pilot.site, pilot.job.status): pilot.job.id
            for pilot in self._pilots.values()
            if _wants_cause(pilot) and (pilot.site, pilot.job.status) not in self._causes
        }
        return list(wanted.values())[: max(0, _SAMPLES - len(self._causes))]

    # ---- what to do

    @property
    def masters(self) -> list[int]:
        """The jobs that were submitted."""
        return list(self._masters)

    def left_out(self, now: float) -> frozenset[str]:
        """Sites where pilots have died young, one after the other or all of them, not long ago."""
        return frozenset(
            site
            for site, deaths in self._deaths.items()
            if now - deaths[-1] < LEFT_OUT
            and (len(deaths) >= YOUNG_DEATHS or all(p.ended for p in self._pilots.values() if p.site == site))
        )

    def take_replacements(self, now: float) -> int:
        """How many pilots to submit now instead of failed ones; at most as many as were wanted, in all.

        None before a pilot has registered somewhere: until then the pilot may be at fault, not the site.
        And none for a while after some were taken.
        """
        count = self._replaceable() if now >= self._next_replacement else 0
        if count:
            self._next_replacement = now + REPLACE_EVERY
        return count

    def _replaceable(self) -> int:
        failed = sum(pilot.size for pilot in self._pilots.values() if pilot.failed)
        return max(0, min(failed, self._wanted) - self._replaced) if self._payloads else 0

    def over(self) -> bool:
        """Whether no pilot serves, none can come any more, and none will be submitted instead."""
        if not self._pilots and (self._masters or self.others()):
            return False
        ended = all(pilot.ended and not self._serves(pilot) for pilot in self._pilots.values())
        return ended and not self._replaceable()

    def others(self) -> int:
        """How many pilots are connected that other sessions have submitted."""
        theirs = (payloads for job, payloads in self._payloads.items() if job not in self._pilots)
        return sum(record.state in CONNECTED for payloads in theirs for record in payloads.values())

    def unregistered(self) -> list[int]:
        """Jobs that have not ended and have no payload at the ProxyServer: pilots, and unsplit masters."""
        return [id for id, p in self._pilots.items() if not p.ended and not self._own_payloads(p)]

    def coming(self) -> bool:
        """Whether a pilot is on its way: it has not registered yet, or was lost and may dial again."""
        living = (self._own_payloads(pilot)[-1:] for pilot in self._pilots.values() if not pilot.ended)
        return any(not newest or newest[0].state == "lost" for newest in living)

    # ---- what to say

    def groups(self) -> list[PilotGroup]:
        """All pilots, those together that are equally far at the same site; those that failed come first."""
        members: dict[tuple[bool, str, str, bool, int, str], list[_Pilot]] = {}
        for pilot in self._pilots.values():
            newest = self._own_payloads(pilot)[-1:]
            at_proxy = newest[0].state if newest else ""
            if newest and newest[0].state not in CONNECTED:
                at_proxy += f", {newest[0].reason}"
            key = (not pilot.failed, pilot.site, pilot.job.status, pilot.ended, pilot.run, at_proxy)
            members.setdefault(key, []).append(pilot)
        return [
            PilotGroup(
                site=site,
                status=status,
                ended=ended,
                run=run,
                at_proxy=at_proxy,
                count=sum(pilot.size for pilot in pilots),
                jobs=tuple(pilot.job.id for pilot in pilots),
                cause=self._causes.get((site, status), "") if _wants_cause(pilots[0]) else "",
            )
            for (_, site, status, ended, run, at_proxy), pilots in sorted(members.items())
        ]

    def summary(self) -> str:
        """One line: how many wait, and at each site how many have registered, run, or failed and why."""
        waiting = sum(p.size for p in self._pilots.values() if not p.ended and p.began is None)
        sites: dict[str, dict[str, int]] = {}
        for pilot in self._pilots.values():
            if (pilot.ended and pilot.failed) or pilot.began is not None:
                how = "failed" if pilot.failed else "registered" if self._serves(pilot) else "running"
                if how != "running" or not pilot.ended:
                    counts = sites.setdefault(pilot.site, {})
                    counts[how] = counts.get(how, 0) + pilot.size
        busiest = sorted(sites, key=lambda site: -sum(sites[site].values()))
        parts = [f"{waiting} waiting"] if waiting else []
        parts += [self._tell(site, sites[site]) for site in busiest[:_SHOWN]]
        return "; ".join(parts) + ("; …" if busiest[_SHOWN:] else "")

    def _tell(self, site: str, counts: dict[str, int]) -> str:
        causes = [f"{status} {cause}".rstrip() for (at, status), cause in self._causes.items() if at == site]
        why = f" ({causes[-1]})" if causes and "failed" in counts else ""
        order = ("registered", "running", "failed")
        where = f"{site}: " if site else ""
        return where + ", ".join(f"{counts[how]} {how}" for how in order if how in counts) + why


def last_words(trace: Sequence[str]) -> str:
    """What a job's trace says of its end: the pilot's own last words, else errors, else its last lines.

    Of a payload that was started these are the lines since then.
    """
    lines = [(found[1], found[2]) if (found := _TRACE_LINE.fullmatch(line)) else ("", line) for line in trace]
    told = [(tag, text) for tag, text in lines if tag not in _BOOKKEEPING and text.strip()]
    ours = [text.partition(_OURS)[2] for _, text in told if _OURS in text]
    errors = [text for tag, text in told if tag == "error" or text.startswith(_ERRORS)]
    started = [place for place, (_, text) in enumerate(told) if text.startswith("Starting execution")]
    since = told[started[-1] + 1 :] if started else told
    others = [text for _, text in since if not text.startswith(_ROUTINE)]
    others = [text for text in others if not text.endswith(": uploaded as requested")] or others
    return " | ".join(text.strip() for text in (ours[-2:] or errors[-3:] or others[-3:]))


def _is_split(job: Job) -> bool:
    return job.phase in (Phase.SPLIT, Phase.DONE)


def _wants_cause(pilot: _Pilot) -> bool:
    return pilot.failed or pilot.job.phase is Phase.RETRIED


def _pilots(count: int) -> str:
    return f"{count} pilot{'s' if count != 1 else ''}"
