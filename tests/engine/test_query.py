"""What a query decides about its workers' packets, commits and failures."""

from gridproof.engine.packets import cut
from gridproof.engine.query import STUCK_SECONDS, FileInfo, Query
from gridproof.errors import MemoryLimit, MissingFiles, SelectorError


def make(entries, sites=("A",), on_missing="fail"):
    replicas = tuple((f"V::{s}::SE", s) for s in sites)
    return Query([FileInfo(f"/f{i}", 100 * n + 1, replicas) for i, n in enumerate(entries)], on_missing)


class Worker:
    """What a worker does with its leases: opens, runs, commits."""

    def __init__(self, query, name, site, entries):
        self.query, self.name, self.entries = query, name, entries
        self.sequence = 0
        self.held = []
        self.run_packets = []
        query.join(name, site)

    def lease(self, now=0.0):
        packets = self.query.lease(self.name, now)
        self.held += packets
        return packets

    def run(self):
        packet = self.held.pop(0)
        first, last = packet.first, packet.last
        if last < 0:
            last = cut(0, packet.limit, self.entries[packet.file], ())
            if not self.query.opened(self.name, packet.id, last, self.entries[packet.file], ()):
                return
        self.query.ran(self.name, packet.id, last - first, 0.01, "A")
        self.run_packets.append((packet.id, packet.file, first, last))

    def commit(self):
        self.sequence += 1
        packets, self.run_packets = self.run_packets, []
        verdict = self.query.claim(self.name, self.name, self.sequence, [p[0] for p in packets])
        return [p[1:] for p in packets] if verdict.accepted and not verdict.repeated else []


def stuck(workers):
    """A query whose workers each have a packet, and those packets."""
    query = make([100_000] * workers)
    names = [f"w{n}" for n in range(workers)]
    for name in names:
        query.join(name, "A")
    return query, [(name, query.lease(name, 0.0)[0].id) for name in names]


def test_a_query_whose_workers_do_not_get_on_fails_and_says_where():
    query, packets = stuck(3)
    for name, packet in packets[:2]:
        assert query.late(name, packet, 1.0, STUCK_SECONDS - 1)
    assert query.late(*packets[0], 2000.0, STUCK_SECONDS)
    assert query.late(*packets[0], 2001.0, STUCK_SECONDS + 1)
    assert query.error is None  # one alone may be the worker's fault
    assert not query.late(*packets[1], 2002.0, STUCK_SECONDS)
    assert isinstance(query.error, SelectorError)
    assert "2 workers have been at one entry for 1800 s, the last time in the start of /f1:" in str(
        query.error
    )


def test_a_worker_that_got_on_after_all_is_not_counted_as_stuck():
    query, [(first, packet), other] = stuck(2)
    assert query.late(first, packet, 2000.0, STUCK_SECONDS)
    query.ran(first, packet, 10, 2000.0, "A")
    assert query.late(*other, 4000.0, STUCK_SECONDS)
    assert query.error is None


def test_a_worker_that_is_stuck_alone_fails_the_query_if_there_is_no_other():
    query, [(name, packet)] = stuck(1)
    assert not query.late(name, packet, 2000.0, STUCK_SECONDS)
    assert isinstance(query.error, SelectorError)


def test_a_worker_that_leaves_and_is_killed_meanwhile_speaks_not_against_the_selector():
    query = make([10])
    for number in range(6):
        name = f"w{number}"
        query.join(name, "A")
        query.lease(name, 0.0)
        query.excuse(name)
        query.lose(name)
    assert query.error is None


def test_a_worker_reads_at_its_own_site_while_there_is_something():
    query = Query([FileInfo(f"/f{i}", 10_000, (("V::X::SE", "AB"[i % 2]),)) for i in range(10)])
    for name, site in (("a", "A"), ("b", "B")):
        query.join(name, site)
    for _ in range(5):
        for name, parity in (("a", 0), ("b", 1)):
            [packet] = query.lease(name, 0.0)
            assert packet.file % 2 == parity
            query.opened(name, packet.id, 10, 10, ())
            query.claim(name, name, packet.id, [packet.id])
    assert query.finished


def test_a_worker_without_work_at_home_helps_the_site_that_is_furthest_behind():
    files = [FileInfo("/small", 10, (("V::B::SE", "B"),)), FileInfo("/big", 1_000, (("V::C::SE", "C"),))]
    query = Query(files)
    query.join("a", "A")
    query.join("b", "B")
    query.join("c", "C")
    assert query.lease("a", 0.0)[0].file == 1


def test_a_file_that_only_other_sites_cannot_read_waits_for_the_workers_of_its_own():
    query = make([10], sites=("A",))
    for name, site in (("a", "a"), ("b1", "B"), ("b2", "B")):
        query.join(name, site)

    def cannot_read(name):
        [packet] = query.lease(name, 10.0)
        query.fail(name, packet.id, (), "read", "no answer", ["V::A::SE"])

    cannot_read("b1")
    cannot_read("b2")
    assert query.error is None
    assert not query.lease("b1", 10.0)
    query.lose("a")
    cannot_read("b1")
    assert isinstance(query.error, MissingFiles)


def test_a_file_that_no_replica_gives_fails_the_query_after_two_workers_tried_each():
    query = make([10], sites=("A", "B"))
    query.join("w1", "A")
    query.join("w2", "B")
    ses = ("V::A::SE", "V::B::SE")
    for name in ("w1", "w2"):
        assert query.error is None
        [packet] = query.lease(name, 0.0)
        query.fail(name, packet.id, (), "read", "gone", ses)
    assert isinstance(query.error, MissingFiles)
    assert query.error.files == {"/f0": "gone"}


def test_a_missing_file_may_be_skipped():
    query = make([10, 20], on_missing="skip")
    worker = Worker(query, "w", "A", [10, 20])
    [packet] = worker.lease()
    query.fail("w", packet.id, (), "tree", "no such tree", ())
    worker.held.clear()
    while worker.lease():
        worker.run()
        worker.commit()
    assert query.finished
    assert query.missing == {"/f0": "no such tree"}
    assert query.tally.entries == 20


def test_the_record_of_a_skipped_file_tells_what_of_it_is_in_the_result():
    query = make([10_000], on_missing="skip")
    worker = Worker(query, "w", "A", [10_000])
    worker.lease()
    worker.run()
    [(_, first, last)] = worker.commit()
    [packet] = worker.lease()
    query.fail("w", packet.id, (), "read", "broken from there on", ["V::A::SE"])
    assert query.missing == {"/f0": f"broken from there on ({last - first} of its entries are in the result)"}
    assert query.tally.entries == last - first


def test_a_packet_that_kills_three_workers_fails_the_query():
    query = make([10])
    for name in ("w1", "w2", "w3"):
        query.join(name, "A")
        assert query.error is None
        assert query.lease(name, 0.0)
        query.lose(name)
    assert isinstance(query.error, SelectorError)
    assert "3 workers died" in str(query.error)


def test_a_selector_that_throws_fails_the_query_at_once():
    query = make([10])
    query.join("w", "A")
    [packet] = query.lease("w", 0.0)
    query.fail("w", packet.id, (), "selector", "it threw at entry 3", ())
    assert isinstance(query.error, SelectorError)
    assert "/f0" in str(query.error)
    assert not query.lease("w", 0.0)


def test_packets_grow_with_the_measured_rate_and_shrink_towards_the_end():
    query = make([1_000_000])
    worker = Worker(query, "w", "A", [1_000_000])
    sizes = []
    while packets := query.lease("w", 0.0):
        [packet] = packets
        last = packet.last if packet.last >= 0 else packet.limit
        if packet.last < 0:
            query.opened("w", packet.id, last, 1_000_000, ())
        sizes.append(last - packet.first)
        query.ran("w", packet.id, sizes[-1], sizes[-1] / 100_000, "A")
        worker.sequence += 1
        query.claim("w", "w", worker.sequence, [packet.id])
    assert sum(sizes) == 1_000_000
    assert sizes[0] <= 500
    assert max(sizes) >= 80_000
    assert sizes[-1] < max(sizes) / 4


def test_a_patient_worker_leaves_a_site_what_it_will_soon_have_done_by_itself():
    query = Query([FileInfo("/f", 100, (("V::B::SE", "B"),))])
    query.join("a", "A")
    query.join("b", "B")
    [packet] = query.lease("b", 0.0)
    query.opened("b", packet.id, 500, 1_000, ())
    query.ran("b", packet.id, 500, 0.005, "B")
    assert not query.lease("a", 0.0, patient=True)
    assert query.lease("b", 0.0)


def test_a_packet_that_is_long_overdue_goes_to_a_second_worker_and_counts_once():
    query = make([100])
    hung, other = Worker(query, "hung", "A", [100]), Worker(query, "other", "A", [100])
    hung.lease(now=0.0)
    assert not other.lease(now=5.0)
    assert other.lease(now=60.0)
    other.run()
    assert other.commit() == [(0, 0, 10)]
    while other.lease(now=60.0):
        other.run()
        other.commit()
    assert query.finished
    hung.run()
    assert hung.run_packets == []
    assert query.tally.entries == 100


def test_a_known_number_of_entries_lets_two_workers_cut_one_file_at_once():
    query = Query([FileInfo("/f", 10, (), 1_000, tuple(range(0, 1_000, 100)))])
    query.join("a", "A")
    query.join("b", "B")
    [first], [second] = query.lease("a", 0.0), query.lease("b", 0.0)
    assert (first.first, first.last, second.first) == (0, 10, 10)
    assert query.working() == 2


def test_a_file_that_has_changed_since_its_hint_is_opened_anew_and_counts_once():
    query = Query([FileInfo("/f", 10, (), 1_000)])
    worker, other = Worker(query, "w", "A", [1_200]), Worker(query, "o", "A", [1_200])
    [packet], _ = worker.lease(), other.lease()
    query.fail("w", packet.id, (), "changed", "1200 entries", ())
    worker.held.clear()
    assert query.entries(0) == -1
    other.run()
    assert other.commit() == []
    while worker.lease():
        worker.run()
        worker.commit()
    assert query.finished
    assert query.tally.entries == 1_200


def test_a_selector_that_needs_too_much_memory_fails_the_query_at_once():
    query = make([10])
    query.join("w", "A")
    [packet] = query.lease("w", 0.0)
    query.fail("w", packet.id, (), "memory", "it needs more than 2 GB", ())
    assert isinstance(query.error, MemoryLimit)
    assert "/f0" in str(query.error)


def test_a_read_that_hangs_blames_no_replica_unless_it_happens_again():
    query = make([10])
    for name in ("w1", "w2", "w3"):
        query.join(name, "A")
    [packet] = query.lease("w1", 0.0)
    query.fail("w1", packet.id, (), "hung", "no answer in 60 s", ("V::A::SE",))
    [packet] = query.lease("w2", 0.0)
    assert packet.avoid == ()
    query.fail("w2", packet.id, (), "hung", "no answer in 60 s", ("V::A::SE",))
    [packet] = query.lease("w3", 0.0)
    assert packet.avoid == ("V::A::SE",)


def test_a_late_worker_goes_on_unless_its_packet_is_committed():
    query = make([10])
    slow, fast = Worker(query, "slow", "A", [10]), Worker(query, "fast", "A", [10])
    [packet] = slow.lease(0.0)
    assert query.late("slow", packet.id, 100.0)
    fast.lease(100.0)
    fast.run()
    fast.commit()
    assert not query.late("slow", packet.id, 110.0)


def test_files_of_unknown_size_are_shared_like_others():
    query = Query([FileInfo(f"root://host//{i}", -1, ()) for i in range(5)])
    worker = Worker(query, "w", "A", [1_000] * 5)
    while worker.lease():
        worker.run()
        worker.commit()
    assert query.finished
    assert query.tally.entries == query.expected_entries == 5_000
