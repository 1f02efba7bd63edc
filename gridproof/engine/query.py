"""One query's decisions: packets, commits, failures and the end (pure; time comes in as an argument)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import MemoryLimit, MissingFiles, QueryError, SelectorCrashed, SelectorError
from .commits import CommitLog, Verdict
from .packetizer import Packetizer
from .packetizer.places import Placed
from .packets import Packet

CRASHES_FORGIVEN = 2  # a packet during which one more worker dies fails the query
STUCK_SECONDS = 1800.0  # at one entry, two workers: the query fails


@dataclass(frozen=True)
class FileInfo:
    """A file as decisions need it: its name, its size in bytes (−1: unknown), its SEs and their sites, and
    the hosts that are known to hold it.

    ``entries`` and ``clusters`` (first entries, ascending) are what an earlier query learnt, −1 and empty if
    none did. They are a hint: a worker that finds other entries fails its packet as ``changed``.
    """

    name: str
    size: int
    replicas: tuple[tuple[str, str], ...]  # (SE, site); empty for a file on no SE
    entries: int = -1
    clusters: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()

    def placed(self) -> Placed:
        """What the packetizer needs of it."""
        sites = {site for _, site in self.replicas}
        return Placed(self.size, sites, self.entries, self.clusters, self.hosts)


@dataclass
class _Trouble:
    """Who failed to read a file, and from where."""

    tries: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # SE → workers
    reason: str = ""
    hung: bool = False  # once already


@dataclass
class Tally:
    """What has been counted so far; bytes and entries of accepted commits only."""

    entries: int = 0
    bytes_read: int = 0
    local_bytes: int = 0
    packets: int = 0
    discarded_commits: int = 0
    entries_by_worker: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Query:
    """Follows one query from its files to the last commit.

    ``on_missing``: ``"fail"`` raises `MissingFiles` once a file cannot be read anywhere, ``"skip"`` goes on
    without it. ``at_end``: workers commit when nothing is left for them. ``error`` is set when the query has
    failed; ``finished`` when every packet is committed.
    """

    def __init__(self, files: Sequence[FileInfo], on_missing: str = "fail", at_end: bool = False) -> None:
        self.files = files
        self.tally = Tally()
        self.missing: dict[str, str] = {}
        self.error: QueryError | None = None
        self._on_missing = on_missing
        self._packetizer = Packetizer((file.placed() for file in files), at_end)
        self._log = CommitLog(self._packetizer.packets)
        self._hinted = {i for i, f in enumerate(files) if f.entries >= 0}  # and no commit has confirmed it
        self._trouble: dict[int, _Trouble] = defaultdict(_Trouble)
        self._counted: dict[int, int] = defaultdict(int)  # entries in the result, by file
        self._crashes: dict[tuple[int, int], int] = defaultdict(int)  # by file and first entry
        self._workers: dict[str, str] = {}  # their sites
        self._excused: set[str] = set()
        self._stuck: set[str] = set()

    @property
    def finished(self) -> bool:
        """Every packet is committed or given up."""
        return self.error is None and self._packetizer.idle

    @property
    def expected_entries(self) -> int:
        """Entries in the dataset, an estimate until every file was opened."""
        return self._packetizer.expected_entries

    def outstanding(self) -> int:
        """Packets that are out with workers."""
        return self._packetizer.out

    def entries(self, file: int) -> int:
        """Entries of a file as its packets suppose, −1 while nothing is known of it."""
        return self._packetizer.entries(file)

    def working(self) -> int:
        """Workers that hold packets."""
        return self._packetizer.working

    # ------------------------------------------------------------ workers

    def join(self, worker: str, site: str, host: str = "") -> None:
        """A worker is there (again)."""
        self._workers[worker] = site.upper()
        self._excused.discard(worker)
        self._packetizer.join(worker, site, host)

    def excuse(self, worker: str) -> None:
        """A worker leaves: should it be lost with a packet, that is no sign against the selector."""
        self._excused.add(worker)

    def lose(self, worker: str) -> None:
        """A worker is gone; what it has not committed runs again elsewhere."""
        self._workers.pop(worker, None)
        begun = self._packetizer.leave(worker)
        if begun is None or worker in self._excused:
            return
        place = (begun.file, begun.first)
        self._crashes[place] += 1
        if self._crashes[place] > CRASHES_FORGIVEN:
            where = self.describe(begun)
            self.error = SelectorCrashed(
                f"{self._crashes[place]} workers died while they processed {where}: the selector crashes. "
                "(What Begin makes is not there on workers: SlaveBegin must make it.)"
            )

    # ------------------------------------------------------------ packets

    def lease(self, worker: str, now: float, patient: bool = False, ends: float = math.inf) -> list[Packet]:
        """The next packets for this worker, in order; none if there is nothing for it ``now`` (seconds of
        any clock). See `Packetizer.lease`."""
        if self.error is not None:
            return []
        return self._packetizer.lease(worker, now, patient, ends)

    def short_of_time(self, worker: str) -> bool:
        """There is something left, but no time for it before the worker's end."""
        return self.error is None and self._packetizer.short_of_time(worker)

    def begin(self, worker: str, packet_id: int, now: float) -> bool:
        """A worker is about to run a ``solo`` packet that waited behind another; False: it was taken back."""
        return self.error is None and self._packetizer.begin(worker, packet_id, now)

    def late(self, worker: str, packet_id: int, now: float, stuck: float = 0.0) -> bool:
        """A worker is still at a packet after its deadline; False: drop it, nobody needs it any more.

        As long as nobody has committed it the worker may go on; another one gets a copy meanwhile. When two
        workers have been ``stuck`` at one entry for very long, nobody will come back from there.
        """
        wanted = self.error is None and self._packetizer.late(worker, packet_id, now)
        if stuck < STUCK_SECONDS:
            self._stuck.discard(worker)
        elif wanted:
            self._stuck.add(worker)
            there = self._stuck & self._workers.keys()
            if len(there) >= min(2, len(self._workers)):
                where = self.describe(self._packetizer.packets[packet_id])
                have = "2 workers have" if len(there) > 1 else "the only worker has"
                self.error = SelectorError(
                    f"{have} been at one entry for {stuck:.0f} s, the last time in {where}: neither the "
                    "selector nor what it reads comes back from there"
                )
        return wanted and self.error is None

    def opened(self, worker: str, packet_id: int, last: int, entries: int, clusters: Sequence[int]) -> bool:
        """A file has been opened for a packet, which ends at ``last``; False: the packet is not to be run."""
        return self._packetizer.opened(worker, packet_id, last, entries, clusters)

    def ran(self, worker: str, packet_id: int, entries: int, seconds: float, source: str) -> None:
        """A worker has run a packet read at the site ``source`` ("": none), and has yet to commit it."""
        self._stuck.discard(worker)
        self._packetizer.ran(worker, packet_id, entries, seconds, source)

    def known(self, incarnation: str, sequence: int) -> Verdict | None:
        """The answer given before to the same commit."""
        return self._log.known(incarnation, sequence)

    def claim(self, worker: str, incarnation: str, sequence: int, packets: Sequence[int]) -> Verdict:
        """Claim a commit's packets, once its delta is known to be good.

        Raises:
            KeyError: a packet in it was never leased, or its entries are not known.
        """
        live = self._packetizer.packets
        claimed = [live[p] for p in packets if p in live]
        unknown = [p for p in packets if p > self._packetizer.last_id] + [p.id for p in claimed if p.last < 0]
        if unknown:
            raise KeyError(f"packets {unknown} were never leased, or their files never opened")
        verdict = self._log.claim(incarnation, sequence, packets)
        if verdict.repeated:
            return verdict
        if verdict.accepted:
            self._packetizer.done(packets)
            for packet in claimed:
                entries = packet.last - packet.first
                self._counted[packet.file] += entries
                self.tally.entries += entries
                self.tally.entries_by_worker[worker] += entries
            self.tally.packets += len(packets)
            if self._hinted:
                self._hinted.difference_update(packet.file for packet in claimed)
        else:
            self.tally.discarded_commits += 1
            self._packetizer.give_back(worker, sorted(verdict.orphans))
        return verdict

    def fail(
        self,
        worker: str,
        packet_id: int,
        released: Iterable[int],
        kind: str,
        reason: str,
        storage_elements: Sequence[str],
    ) -> None:
        """A packet failed; ``released`` are the uncommitted ones of the same selector instance.

        ``kind``: ``read`` (another replica or worker may do better; ``storage_elements`` are those that
        failed), ``hung`` (a read does not come back; the second time it counts as ``read``), ``changed``
        (the file has other entries than its hint says), ``tree`` (the file has no such tree), ``selector``
        (the user's code failed), ``memory`` (it needs too much), ``stopped`` (nothing is wrong).
        """
        packet = self._packetizer.packets.get(packet_id)
        if packet is None or not self._packetizer.has(worker, packet_id):
            kind = "stopped"  # it is no longer this worker's
        elif kind == "selector":
            self.error = self.error or SelectorError(f"{reason} of {self.files[packet.file].name}")
        elif kind == "memory":
            self.error = self.error or MemoryLimit(f"{reason}, in {self.describe(packet)}")
        elif kind == "changed":
            kind = self._changed(packet.file)
        elif kind == "hung":
            kind = self._hung(packet.file, worker)
        if packet is not None and kind == "read":
            self._distrust(packet.file, worker, reason, storage_elements)
        self._packetizer.give_back(worker, sorted({*released, packet_id}), {packet_id})
        if packet is not None and (
            kind == "tree" or (kind == "read" and self._tried_everywhere(packet.file))
        ):
            self._give_up(packet.file, reason)

    def describe(self, packet: Packet) -> str:
        """A packet in words."""
        name = self.files[packet.file].name
        if packet.last < 0:
            return f"the start of {name}"
        return f"entries {packet.first} to {packet.last} of {name}"

    def entries_by_file(self) -> list[int]:
        """Entries of every file, −1 where nobody has opened it."""
        return self._packetizer.entries_by_file()

    # ------------------------------------------------------------ inside

    def _changed(self, file: int) -> str:
        """Forget a hint that is wrong; where no mere hint is contradicted, the replica is to blame."""
        if file not in self._hinted:
            return "read"
        self._hinted.discard(file)
        self._packetizer.forget(file)
        return "stopped"

    def _hung(self, file: int, worker: str) -> str:
        """Let another worker try; the second time the replica is to blame."""
        trouble = self._trouble[file]
        if trouble.hung:
            return "read"
        trouble.hung = True
        self._packetizer.avoid(file, tuple(sorted(trouble.tries)), worker)
        return "stopped"

    def _distrust(self, file: int, worker: str, reason: str, ses: Sequence[str]) -> None:
        trouble = self._trouble[file]
        for storage_element in ses:
            trouble.tries[storage_element].add(worker)
        trouble.reason = reason
        self._packetizer.avoid(file, tuple(sorted(trouble.tries)), worker)

    def _tried_everywhere(self, file: int) -> bool:
        """Every replica has failed twice, at two workers where there are two.

        One of them is at the replica's own site if there are any: to others that site may be cut off.
        """
        tries = self._trouble[file].tries
        enough = min(2, len(self._workers))
        for storage_element, site in self.files[file].replicas or (("", ""),):
            tried = tries.get(storage_element, set())
            own = {worker for worker, where in self._workers.items() if where == site.upper()}
            if len(tried) < enough or (own and not own & tried):
                return False
        return True

    def _give_up(self, file: int, reason: str) -> None:
        name = self.files[file].name
        if self._counted[file]:
            reason += f" ({self._counted[file]} of its entries are in the result)"
        self.missing[name] = reason
        self._packetizer.drop(file)
        if self._on_missing == "fail" and self.error is None:
            self.error = MissingFiles(
                f"{name} cannot be read: {reason}. "
                'Mend the file, leave it out, or process with on_missing="skip".',
                dict(self.missing),
            )
