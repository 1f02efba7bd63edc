"""What the packetizer promises about order, sizes and second runs."""

import heapq
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridproof.engine.packetizer import Packetizer
from gridproof.engine.packetizer.places import Placed
from gridproof.engine.packets import cut

ENTRIES = 1_000_000


def files(*sites, entries=ENTRIES):
    """Files of a megabyte with known entries, each at the sites that its letters name."""
    return [Placed(1_000_000, tuple(places), entries) for places in sites]


def crowd(given, at_end=False, **sites):
    """A packetizer with workers by name at their sites."""
    packetizer = Packetizer(given, at_end)
    for name, site in sites.items():
        packetizer.join(name, site)
    return packetizer


def lease(packetizer, name, now=0.0, patient=False):
    (packet,) = packetizer.lease(name, now, patient)
    return packet


def finish(packetizer, name, packet, rate, source):
    entries = packet.last - packet.first
    packetizer.ran(name, packet.id, entries, entries / rate, source)
    packetizer.done([packet.id])


def measure(packetizer, name, rate, source, now=0.0):
    """Let a worker run its next packet at a rate."""
    packet = lease(packetizer, name, now)
    finish(packetizer, name, packet, rate, source)
    return packet


def process(given, workers, remote=1.0, opening=0.0, entries=ENTRIES):
    """Seconds until all is done by ``workers`` ((site, entries per second, joining time) by name), each with
    one packet ahead; and who ran how many entries of files far away."""
    packetizer = Packetizer(given)
    order = itertools.count()
    events = [(joins, next(order), name, "join", ()) for name, (_, _, joins) in workers.items()]
    queues = {name: [] for name in workers}
    heapq.heapify(events)
    far, now = dict.fromkeys(workers, 0), 0.0

    def begin(name):
        if not queues[name]:
            queues[name] += packetizer.lease(name, now)
        if not queues[name]:
            heapq.heappush(events, (now + 0.1, next(order), name, "begin", ()))
            return
        packet = queues[name].pop(0)
        if packet.solo and not packetizer.begin(name, packet.id, now):
            begin(name)
            return
        site, rate, _ = workers[name]
        places = given[packet.file][1]
        source = site if site in places else "".join(places[:1])
        first, last = packet.first, packet.last
        wait = opening if last < 0 else 0.0
        if last < 0:
            last = cut(0, packet.limit, entries, ())
            heapq.heappush(events, (now + wait, next(order), name, "opened", (packet.id, last)))
        if source != site:
            far[name] += last - first
        seconds = (last - first) / (rate if source == site else rate * remote)
        ran = (packet.id, last - first, seconds, source)
        heapq.heappush(events, (now + seconds + wait, next(order), name, "end", ran))
        if not queues[name]:
            queues[name] += packetizer.lease(name, now)

    while not packetizer.idle:
        now, _, name, what, detail = heapq.heappop(events)
        if what == "opened":
            packetizer.opened(name, *detail, entries, ())
            continue
        if what == "join":
            packetizer.join(name, workers[name][0])
        if what == "end":
            packetizer.ran(name, *detail)
            packetizer.done([detail[0]])
        begin(name)
    return now, far


# ---------------------------------------------------------------- which file


def test_files_that_only_this_site_holds_come_first():
    packetizer = crowd(files("AB", "A", "AB"), a="A", b="B")
    assert lease(packetizer, "a").file == 1


def test_files_on_the_own_node_come_before_others_of_the_site_and_are_left_to_that_node():
    given = [
        Placed(1_000_000, ["A"], ENTRIES, hosts=["node1"]),
        Placed(1_000_000, ["A"], ENTRIES),
        Placed(1_000_000, ["A"], ENTRIES, hosts=["node2"]),
    ]
    packetizer = Packetizer(given)
    for name, host in (("first", "node1"), ("second", "node1"), ("third", "node2"), ("fourth", "elsewhere")):
        packetizer.join(name, "A", host)
    assert [lease(packetizer, name).file for name in ("fourth", "third", "first", "second")] == [1, 2, 0, 0]


def test_a_node_helps_others_when_its_own_files_are_done():
    packetizer = Packetizer([Placed(1_000, ["A"], 10, hosts=["node1"]), Placed(1_000, ["A"], 10)])
    packetizer.join("w", "A", "node1")
    order = []
    while not packetizer.idle:
        packet = lease(packetizer, "w")
        order.append(packet.file)
        finish(packetizer, "w", packet, 1_000.0, "A")
    assert order == sorted(order)
    assert set(order) == {0, 1}


def test_then_those_shared_with_the_site_that_is_furthest_behind():
    packetizer = crowd(files("AB", "AC", *["C"] * 5), a="A", b="B", c="C")
    assert lease(packetizer, "a").file == 1


def test_a_crowd_that_comes_at_once_does_not_drain_the_site_that_is_furthest_behind():
    """Its files that others have started are their work, at the same moment."""
    others = "ABCDEFGH"
    shared = [other + "T" for other in others for _ in range(25)]
    elsewhere = [a + b for a in others for b in others if a < b for _ in range(25)]
    workers = {f"{site}{n}": site for site in others for n in range(25)}
    packetizer = crowd(files(*shared, *elsewhere), **workers, **{f"T{n}": "T" for n in range(22)})
    given = [lease(packetizer, name) for name in workers]
    assert sum(packet.file < len(shared) for packet in given) < len(shared) / 3


def test_a_worker_stays_with_its_file_and_others_take_other_files():
    packetizer = crowd(files("A", "A"), v="A", w="A")
    taken = [lease(packetizer, name).file for name in "vwvwvw"]
    assert taken == [0, 1, 0, 1, 0, 1]


def test_when_no_file_is_untouched_the_one_with_most_left_per_reader_is_shared():
    given = [Placed(1, ("A",), 1_000), Placed(1, ("A",), 3_000)]
    packetizer = crowd(given, u="A", v="A", w="A")
    assert [lease(packetizer, name).file for name in "uvw"] == [0, 1, 1]


def test_files_without_a_site_are_near_to_everybody():
    packetizer = crowd(files("", ""), a="A", b="B")
    assert {lease(packetizer, "a").file, lease(packetizer, "b").file} == {0, 1}


def test_a_site_without_workers_is_helped_at_once():
    packetizer = crowd(files("B"), a="A")
    assert lease(packetizer, "a", patient=True).file == 0


@pytest.mark.parametrize(("far_rate", "helps"), [(100_000.0, True), (10.0, False)])
def test_a_site_is_helped_only_if_reading_there_takes_less_time_than_it_still_needs(far_rate, helps):
    packetizer = crowd(files("B", entries=30_000), a="A", b="B")
    measure(packetizer, "a", far_rate, "B")
    for _ in range(3):
        measure(packetizer, "b", 100_000.0, "B")
    assert bool(packetizer.lease("a", 1.0)) is helps


def test_a_patient_worker_leaves_alone_what_will_be_done_in_a_moment():
    packetizer = crowd(files("B", entries=50_000), a="A", b="B")
    measure(packetizer, "b", 100_000.0, "B")
    assert not packetizer.lease("a", 0.0, patient=True)
    assert packetizer.lease("a", 0.0)


def test_a_site_whose_workers_do_not_come_any_more_is_helped_in_any_case():
    packetizer = crowd(files("B", entries=5_000), a="A", b="B")
    measure(packetizer, "b", 100_000.0, "B", now=10.0)
    assert not packetizer.lease("a", 10.1)
    assert packetizer.lease("a", 15.0)


# ---------------------------------------------------------------- which size


def test_packets_start_small_and_double_up_to_a_second():
    packetizer = crowd(files("A", entries=10**9), w="A")
    sizes = []
    for _ in range(8):
        packet = measure(packetizer, "w", 1_000.0, "A")
        sizes.append(packet.last - packet.first)
    assert sizes == [10, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]


def test_a_worker_that_joins_late_starts_with_what_the_others_can_do():
    packetizer = crowd(files("A", entries=10**9), w="A")
    measure(packetizer, "w", 1_000.0, "A")
    packetizer.join("late", "A")
    packet = lease(packetizer, "late")
    assert packet.last - packet.first == 100


def test_a_first_packet_from_far_away_is_small_again():
    packetizer = crowd(files("A", "B", entries=10_000), a="A")
    near = []
    while not near or near[-1].file == 0:
        near.append(measure(packetizer, "a", 1_000.0, "A"))
    assert near[-1].last - near[-1].first == 50  # a tenth of a second at half the rate


def test_many_workers_get_longer_packets():
    packetizer = crowd(files("A", entries=10**12), **{f"w{i}": "A" for i in range(5_000)})
    for _ in range(10):
        packet = measure(packetizer, "w0", 1_000.0, "A")
    assert packet.last - packet.first == 5_000


def test_a_packet_has_a_deadline_that_fits_what_it_should_take():
    packetizer = crowd(files("A", entries=30), w="A")
    assert lease(packetizer, "w").deadline == 60.0
    packetizer.ran("w", 1, 10, 40.0, "A")
    assert lease(packetizer, "w").deadline == 40.0  # ten times four seconds, for one entry


# ---------------------------------------------------------------- together to the end


def limited(rate, left, given=None):
    """What a worker of this rate gets so long before its end; None if nothing."""
    packetizer = crowd(given or files("A", "A"), w="A")
    for _ in range(5):
        measure(packetizer, "w", rate, "A")
    packets = packetizer.lease("w", 100.0, ends=100.0 + left)
    return packets[0].last - packets[0].first if packets else None


def test_packets_get_shorter_towards_the_end_of_a_worker_and_what_it_cannot_finish_it_does_not_get():
    assert limited(1000.0, left=60.0) == 1000
    assert limited(1000.0, left=1.5) == 500
    assert limited(1000.0, left=0.03) == 10
    assert limited(1000.0, left=0.001) is None
    assert limited(0.1, left=60.0) == 1
    assert limited(0.1, left=20.0) is None


@given(
    rate=st.floats(0.2, 5_000.0),
    ends=st.floats(1.0, 200.0),
    cluster=st.integers(1, 5_000),
    known=st.booleans(),
)
def test_what_a_worker_of_steady_rate_is_given_it_has_run_before_its_end(rate, ends, cluster, known):
    """It asks for the next packet when it begins one."""
    clusters = range(0, ENTRIES, cluster)
    given = [Placed(1_000_000, ("A",), ENTRIES, clusters) if known else Placed(1_000_000, ("A",))] * 50
    packetizer = Packetizer(given)
    packetizer.join("w", "A")
    first = lease(packetizer, "w")
    queue, now, measured = [first], 0.0, False
    while queue:
        packet = queue.pop(0)
        if packet.last < 0:
            last = cut(0, packet.limit, ENTRIES, clusters)
            packetizer.opened("w", packet.id, last, ENTRIES, clusters)
            packet = packet._replace(last=last)
        if measured:
            queue += packetizer.lease("w", now, ends=ends)
        seconds = (packet.last - packet.first) / rate
        now += seconds
        assert packet.id == first.id or now <= ends
        packetizer.ran("w", packet.id, packet.last - packet.first, seconds, "A")
        packetizer.done([packet.id])
        measured = True
        if not queue:
            queue += packetizer.lease("w", now, ends=ends)


def test_what_a_worker_holds_already_is_taken_off_its_time():
    packetizer = crowd(files("A", "A"), w="A")
    for _ in range(5):
        measure(packetizer, "w", 1.0, "A")
    assert packetizer.lease("w", 100.0, ends=104.0)
    assert packetizer.lease("w", 100.0, ends=103.5) == []
    assert packetizer.short_of_time("w")


def test_while_no_rate_is_known_a_worker_that_ends_in_a_moment_gets_nothing():
    packetizer = crowd(files("A"), w="A")
    assert packetizer.lease("w", 0.0, ends=5.0) == []
    assert not packetizer.short_of_time("w")  # it may still get some when others have found out
    assert packetizer.lease("w", 0.0, ends=20.0)


def test_a_packet_that_comes_back_goes_to_one_who_has_the_time_for_it():
    packetizer = crowd(files("A", "A"), lost="A", brief="A", lasting="A")
    for name in ("lost", "brief", "lasting"):
        for _ in range(5):
            measure(packetizer, name, 10.0, "A")
    long = lease(packetizer, "lost")
    packetizer.leave("lost")
    assert long.id not in [packet.id for packet in packetizer.lease("brief", 0.0, ends=2.0)]
    assert lease(packetizer, "lasting").id == long.id


def test_a_worker_is_not_short_of_time_where_nothing_is_left():
    packetizer = crowd(files("A", entries=10), w="A")
    measure(packetizer, "w", 0.001, "A")
    while packets := packetizer.lease("w", 0.0):
        finish(packetizer, "w", packets[0], 0.001, "A")
    assert packetizer.lease("w", 0.0, ends=1.0) == []
    assert not packetizer.short_of_time("w")


def test_workers_of_different_speed_finish_together():
    workers = {"a": ("A", 100_000, 0), "b": ("A", 100_000, 0), "c": ("A", 25_000, 0), "d": ("A", 60_000, 0)}
    seconds, _ = process([Placed(1, ("A",), -1)] * 3, workers)
    assert seconds < 1.05 * 3 * ENTRIES / 285_000


def test_late_joiners_take_their_share():
    workers = {"a": ("A", 100_000, 0), "b": ("A", 100_000, 5)}
    seconds, _ = process([Placed(1, ("A",), -1)] * 2, workers)
    assert seconds < 1.05 * (2 * ENTRIES + 500_000) / 200_000


def test_one_huge_file_is_shared_from_its_opening_on():
    workers = {f"w{i}": ("A", 50_000, 0) for i in range(10)}
    seconds, _ = process([Placed(1, ("A",), -1)], workers, opening=0.05)
    assert seconds < 1.25 * ENTRIES / 500_000


def test_a_site_with_too_much_to_do_is_helped_so_that_both_finish_together():
    workers = {"a": ("A", 100_000, 0), "b": ("B", 100_000, 0)}
    given = [Placed(1, ("A",), -1)] * 3 + [Placed(1, ("B",), -1)]
    seconds, far = process(given, workers, remote=0.5)
    assert seconds < 1.05 * (ENTRIES / 100_000 + 2 * ENTRIES / 150_000)
    assert far["a"] == 0


# ---------------------------------------------------------------- several at once


def tiny(packetizer, count=1):
    for _ in range(count):
        packet = packetizer.lease("w", 0.0)[0]
        packetizer.opened("w", packet.id, 100, 100, ())
        packetizer.ran("w", packet.id, 100, 0.01, "A")
        packetizer.done([packet.id])


def test_packets_of_tiny_files_go_out_together():
    packetizer = crowd([Placed(1_000, ("A",), -1)] * 2_000, w="A")
    tiny(packetizer)
    packets = packetizer.lease("w", 0.0)
    assert len(packets) == 5  # of 10 ms each
    assert len({packet.file for packet in packets}) == 5


def test_but_never_many_of_them_and_near_the_end_one_by_one():
    packetizer = crowd([Placed(1_000, ("A",), 1)] * 20_000, w="A")
    packet = lease(packetizer, "w")
    packetizer.ran("w", packet.id, 1, 0.001, "A")
    assert len(packetizer.lease("w", 0.0)) == 32
    packetizer = crowd([Placed(1_000, ("A",), -1)] * 150, w="A")
    tiny(packetizer)
    assert len(packetizer.lease("w", 0.0)) == 1


# ---------------------------------------------------------------- second runs


def ending(at_end=False):
    """Two workers with a rate of 1 000 and two packets out each; nothing else is left."""
    packetizer = crowd(files("A", entries=4_000), at_end, slow="A", fast="A")
    held = {"slow": [], "fast": []}
    for name in held:
        measure(packetizer, name, 1_000.0, "A")
    for name in itertools.cycle(held):
        packets = packetizer.lease(name, 0.0)
        if not packets:
            break
        held[name] += packets
    for name, packets in held.items():
        while len(packets) > 2:
            finish(packetizer, name, packets.pop(0), 1_000.0, "A")
    return packetizer, held


def test_the_last_packets_are_committed_one_by_one():
    _, held = ending()
    assert all(packets[-1].solo for packets in held.values())


def test_unless_workers_commit_at_the_end():
    _, held = ending(at_end=True)
    assert not any(packet.solo for packets in held.values() for packet in packets)


def test_an_idle_worker_takes_a_packet_that_the_slow_one_has_not_begun():
    packetizer, held = ending()
    for packet in held["fast"]:
        finish(packetizer, "fast", packet, 1_000.0, "A")
    waiting = held["slow"][-1]
    assert lease(packetizer, "fast", 1.0).id == waiting.id
    assert not packetizer.begin("slow", waiting.id, 1.1)


def test_what_was_begun_is_not_taken_but_copied_once_it_is_clearly_late():
    packetizer, held = ending()
    for packet in held["fast"]:
        finish(packetizer, "fast", packet, 1_000.0, "A")
    first, second = held["slow"]
    finish(packetizer, "slow", first, 1_000.0, "A")
    assert packetizer.begin("slow", second.id, 0.0)
    assert not packetizer.lease("fast", 0.05)
    assert lease(packetizer, "fast", 5.0).id == second.id
    assert packetizer.has("slow", second.id)


def test_a_packet_is_never_out_with_more_than_two_workers():
    packetizer = crowd(files("A", entries=1), u="A", v="A", w="A")
    lease(packetizer, "u")
    assert lease(packetizer, "v", 100.0).id == 1
    assert not packetizer.lease("w", 500.0)
    packetizer.give_back("v", [1])
    assert lease(packetizer, "w", 600.0).id == 1


def test_a_late_packet_goes_out_again_before_fresh_work():
    packetizer = crowd(files("A"), u="A", v="A")
    late = lease(packetizer, "u")
    assert lease(packetizer, "v", 59.0).id != late.id
    assert packetizer.late("u", late.id, 61.0)
    assert lease(packetizer, "v", 61.0).id == late.id
    packetizer.done([late.id])
    assert not packetizer.late("u", late.id, 62.0)


def test_a_packet_that_came_back_while_another_worker_has_it_does_not_go_out_a_third_time():
    packetizer = crowd(files("A", entries=1), u="A", v="A", w="A")
    lease(packetizer, "u")
    lease(packetizer, "v", 100.0)
    packetizer.leave("u")
    assert not packetizer.lease("w", 101.0)
    packetizer.done([1])
    assert packetizer.idle


# ---------------------------------------------------------------- trouble


def test_what_a_lost_worker_had_run_goes_out_again_and_may_share_a_commit_what_it_had_not_run_may_not():
    packetizer = crowd(files("A"), v="A", w="A")
    run, begun = lease(packetizer, "v"), lease(packetizer, "v")
    packetizer.ran("v", run.id, 10, 1.0, "A")
    packetizer.begin("v", begun.id, 1.0)
    assert packetizer.leave("v").id == begun.id
    again = {packet.id: packet for packet in (lease(packetizer, "w"), lease(packetizer, "w"))}
    assert not again[run.id].solo
    assert again[begun.id].solo


def test_a_packet_that_counts_after_its_worker_was_lost_does_not_go_out_again():
    packetizer = crowd(files("A", entries=1), v="A", w="A")
    packet = lease(packetizer, "v")
    packetizer.leave("v")
    packetizer.done([packet.id])
    assert not packetizer.lease("w", 0.0)
    assert packetizer.idle


def test_a_worker_that_failed_leaves_the_file_to_others_while_there_are_any():
    packetizer = crowd(files("A", entries=1), v="A", w="A")
    packet = lease(packetizer, "v")
    packetizer.avoid(0, ("V::A::SE",), "v")
    packetizer.give_back("v", [packet.id], [packet.id])
    assert not packetizer.lease("v", 0.0)
    packetizer.leave("w")
    again = lease(packetizer, "v")
    assert (again.id, again.solo, again.avoid) == (packet.id, True, ("V::A::SE",))


def test_what_failed_at_its_own_site_goes_to_a_patient_worker_far_away():
    packetizer = crowd(files("A", entries=1), a="A", b="B")
    packet = lease(packetizer, "a")
    packetizer.avoid(0, (), "a")
    packetizer.give_back("a", [packet.id])
    assert lease(packetizer, "b", patient=True).id == packet.id


def test_two_workers_that_open_a_file_and_cut_it_differently_do_not_both_run_it():
    packetizer = crowd([Placed(1_000, ("A",), -1)], v="A", w="A")
    packet = lease(packetizer, "v")
    assert lease(packetizer, "w", 100.0).id == packet.id
    assert packetizer.opened("v", packet.id, 10, 100, ())
    assert packetizer.opened("v", packet.id, 10, 100, ())  # the message came again
    assert not packetizer.opened("w", packet.id, 12, 100, ())
    assert not packetizer.opened("w", packet.id, 10, 90, ())


def test_an_empty_file_is_opened_even_if_it_was_known_to_be_empty():
    packetizer = crowd([Placed(1_000, ("A",), 0)], w="A")
    packet = lease(packetizer, "w")
    assert packet.last == -1
    assert packetizer.opened("w", packet.id, 0, 0, ())
    packetizer.done([packet.id])
    assert packetizer.idle


# ---------------------------------------------------------------- scale


def work_of_leases(workers, count):
    """Python calls for a hundred leases in the middle of a query."""
    given = [Placed(1_000_000, (f"S{i % 10}", f"S{(i + 1 + i // 10 % 9) % 10}"), 1_000) for i in range(count)]
    packetizer = crowd(given, **{f"w{i}": f"S{i % 10}" for i in range(workers)})
    for i in range(workers):
        measure(packetizer, f"w{i}", 1_000.0, f"S{i % 10}")
    calls = 0

    def note(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        for i in range(100):
            packetizer.lease(f"w{i % workers}", 1.0)
    finally:
        sys.setprofile(None)
    return calls


def test_a_decision_costs_the_same_with_many_workers_and_files():
    assert work_of_leases(1_000, 20_000) < 1.5 * work_of_leases(20, 400)


def test_decisions_depend_on_nothing_but_what_was_asked():
    def packets():
        packetizer = crowd(files(*["AB", "BC", "CA"] * 10), a="A", b="B", c="C")
        return [measure(packetizer, name, 1_000.0, name.upper()) for name in "abc" * 30]

    assert packets() == packets()
