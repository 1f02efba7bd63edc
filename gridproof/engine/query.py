"""One query's decisions: packets, commits, failures and the end (pure; time is not needed)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import MissingFiles, QueryError, SelectorCrashed, SelectorError
from .commits import CommitLog, Verdict
from .packetizer import Packetizer
from .packets import Packet

CRASHES_FORGIVEN = 2  # a packet during which one more worker dies fails the query


@dataclass(frozen=True)
class FileInfo:
    """A file as decisions need it: its name, its size in bytes (−1: unknown), its SEs and their sites."""

    name: str
    size: int
    replicas: tuple[tuple[str, str], ...]  # (SE, site); empty for a file on no SE

    @property
    def sites(self) -> frozenset[str]:
        """The sites that hold a replica."""
        return frozenset(site for _, site in self.replicas)


@dataclass
class _Trouble:
    """Who failed to read a file, and from where."""

    tries: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # SE → workers
    reason: str = ""


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
    without it. ``error`` is set when the query has failed; ``finished`` when every packet is committed.
    """

    def __init__(self, files: Sequence[FileInfo], on_missing: str = "fail") -> None:
        self.files = files
        self.tally = Tally()
        self.missing: dict[str, str] = {}
        self.error: QueryError | None = None
        self._on_missing = on_missing
        self._packetizer = Packetizer((f.size, f.sites) for f in files)
        self._log = CommitLog()
        self._leased: dict[int, Packet] = {}
        self._trouble: dict[int, _Trouble] = defaultdict(_Trouble)
        self._run: dict[str, set[int]] = defaultdict(set)  # worker → packets it has run but not committed
        self._crashes: dict[tuple[int, int], int] = defaultdict(int)  # by file and first entry
        self._workers: set[str] = set()

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

    # ------------------------------------------------------------ workers

    def join(self, worker: str, site: str) -> None:
        """A worker is there (again)."""
        self._workers.add(worker)
        self._packetizer.join(worker, site)

    def lose(self, worker: str) -> None:
        """A worker is gone; what it has not committed runs again elsewhere."""
        self._workers.discard(worker)
        run = self._run.pop(worker, set())
        lost = self._packetizer.leave(worker)
        begun = next((p for p in lost if p.id not in run), None)
        if begun is None:
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

    def lease(self, worker: str, patient: bool = False, now: float = 0.0) -> Packet | None:
        """The next packet for this worker; see `Packetizer.lease`."""
        if self.error is not None or worker not in self._workers:
            return None
        packet = self._packetizer.lease(worker, patient, now)
        if packet is not None:
            self._leased.setdefault(packet.id, packet)
        return packet

    def opened(self, worker: str, packet_id: int, last: int, entries: int, clusters: Sequence[int]) -> bool:
        """A file has been opened for a packet; False if the worker does not hold that packet any more."""
        if packet_id in self._log:
            return False
        try:
            self._leased[packet_id] = self._packetizer.opened(packet_id, worker, last, entries, clusters)
        except KeyError:
            return False
        return True

    def ran(self, worker: str, packet_id: int, entries: int, seconds: float) -> None:
        """A worker has run a packet, and has yet to commit it."""
        self._run[worker].add(packet_id)
        self._packetizer.measured(worker, entries, seconds)

    def known(self, incarnation: str, sequence: int) -> Verdict | None:
        """The answer given before to the same commit."""
        return self._log.known(incarnation, sequence)

    def claim(self, worker: str, incarnation: str, sequence: int, packets: Sequence[int]) -> Verdict:
        """Claim a commit's packets, once its delta is known to be good.

        Raises:
            KeyError: a packet in it was never leased, or its entries are not known.
        """
        unknown = [p for p in packets if p not in self._leased or self._leased[p].last < 0]
        if unknown:
            raise KeyError(f"packets {unknown} were never leased")
        verdict = self._log.claim(incarnation, sequence, packets)
        if verdict.repeated:
            return verdict
        self._run[worker] -= set(packets)
        if verdict.accepted:
            self._packetizer.done(packets)
            entries = sum(self._leased[p].last - self._leased[p].first for p in packets)
            self.tally.entries += entries
            self.tally.entries_by_worker[worker] += entries
            self.tally.packets += len(packets)
        else:
            self.tally.discarded_commits += 1
            self._packetizer.give_back(worker, packets)
            self._packetizer.done(set(packets) - verdict.orphans)
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
        failed), ``tree`` (the file has no such tree), ``selector`` (the user's code failed), ``stopped``
        (nothing is wrong).
        """
        released = {*released, packet_id}
        self._run[worker] -= released
        packet = self._leased.get(packet_id)
        if packet is None:
            return
        if kind == "selector":
            self.error = self.error or SelectorError(f"{reason} of {self.files[packet.file].name}")
        held = {p.id for p in self._packetizer.outstanding(worker)}
        if kind == "read" and packet_id in held:
            self._distrust(packet, worker, reason, storage_elements)
        self._packetizer.give_back(worker, released)
        if kind == "tree":
            self._give_up(packet.file, reason)
        elif kind == "read" and self._tried_everywhere(packet.file):
            self._give_up(packet.file, self._trouble[packet.file].reason)

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

    def _distrust(self, packet: Packet, worker: str, reason: str, ses: Sequence[str]) -> None:
        trouble = self._trouble[packet.file]
        for storage_element in ses:
            trouble.tries[storage_element].add(worker)
        trouble.reason = reason
        self._packetizer.avoid(packet.file, tuple(sorted(trouble.tries)), worker)

    def _tried_everywhere(self, file: int) -> bool:
        """Every replica has failed twice, at two workers where there are two."""
        tries = self._trouble[file].tries
        places = {se for se, _ in self.files[file].replicas} or {""}
        enough = min(2, len(self._workers))
        return all(len(tries.get(place, ())) >= enough for place in places)

    def _give_up(self, file: int, reason: str) -> None:
        name = self.files[file].name
        self.missing[name] = reason
        self._packetizer.drop(file)
        if self._on_missing == "fail" and self.error is None:
            self.error = MissingFiles(
                f"{name} cannot be read: {reason}. "
                'Mend the file, leave it out, or process with on_missing="skip".',
                dict(self.missing),
            )
