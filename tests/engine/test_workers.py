"""Workers whose selectors use too much memory or do not come back, and queries that are cancelled."""

import os
import signal
import time

import pytest

from gridproof.engine import runtime
from gridproof.engine.client import Queries
from gridproof.errors import MemoryLimit, QueryError

ENTRIES = 2_000

SELECTOR = """
#include <TH1D.h>
#include <TSelector.h>
#include <chrono>
#include <cstring>
#include <sstream>
#include <string>
#include <thread>
#include <vector>
#include <fcntl.h>
class Wild : public TSelector {
   TH1D *seen = nullptr; Long64_t processed = 0; std::vector<char *> kept;
   void Take(std::size_t bytes) {
      kept.push_back(new char[bytes]);
      std::memset(kept.back(), 1, bytes);
   }
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override { fOutput->Add(seen = new TH1D("seen", "", 1, 0, 1)); }
   bool Process(Long64_t entry) override {
      std::string how, begun;
      std::istringstream(GetOption()) >> how >> begun;
      const bool first = !begun.empty() && open(begun.c_str(), O_CREAT | O_EXCL, 0600) >= 0;
      seen->Fill(0.5);
      if (how == "slow") std::this_thread::sleep_for(std::chrono::seconds(1));
      if (how == "brisk") std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (how == "stuck" || (how == "hangs" && first)) std::this_thread::sleep_for(std::chrono::hours(1));
      if (how == "hungry") Take(5'000'000);
      if (how == "greedy") Take(20'000'000'000);
      return true;
   }
   ~Wild() { for (auto piece : kept) delete[] piece; }
   ClassDefOverride(Wild, 0);
};
"""


def make_file(path, entries, tree="events", size=0):
    """A tree of so many entries; with ``size`` the file is padded to so many bytes."""
    frame = runtime.load().RDataFrame(entries).Define("x", "1. * rdfentry_")
    frame.Snapshot(tree, str(path))
    with path.open("ab") as file:
        file.write(bytes(max(0, size - path.stat().st_size)))
    return path


def part(path, tree="events", alias=""):
    files = [{"name": str(path), "kind": "path", "size": path.stat().st_size, "replicas": []}]
    return {"tree": tree, "alias": alias, "files": files}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def file(place):
    return make_file(place / "numbers.root", ENTRIES)


@pytest.fixture(scope="module")
def submit(cluster, place, file):
    """Submits the selector in one of its ways."""
    cluster.start(memory_limit=1_000_000_000)
    cluster.workers(1)
    queries = Queries(cluster.send, cluster.cache, None)
    source = place / "Wild.C"
    source.write_text(SELECTOR)

    def submit(how, parts=None, **settings):
        return queries.submit(parts or [part(file)], str(source), how, **settings)

    return submit


@pytest.fixture
def run(submit):
    """Runs the selector in one of its ways; returns the result."""

    def process(how, watch=lambda: None, **settings):
        query = submit(how, **settings)
        try:
            while not query.wait(0.1):
                watch()
            return query.result()
        finally:
            query.forget()

    return process


@pytest.fixture(scope="module")
def two_workers(cluster, submit):
    """Has one more worker than the tests before."""
    cluster.start()
    cluster.workers(2)


def cancel_within_a_packet(run, how, begun):
    """Leave a query once its selector is at its first entry."""

    def watch():
        if begun.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(f"{how} {begun}", watch)


def test_a_selector_that_eats_memory_fails_its_query_and_gets_a_fresh_worker(cluster, run):
    (before,) = cluster.workers(1)
    with pytest.raises(MemoryLimit, match=r"may use 1\.0 GB; make fewer .* in .*numbers\.root"):
        run("hungry")
    assert run("")["seen"].GetEntries() == ENTRIES
    (after,) = cluster.workers(1)
    assert after["pid"] != before["pid"]


def test_memory_that_is_wanted_at_once_is_refused(cluster, run):
    with pytest.raises(MemoryLimit, match="bad_alloc"):
        run("greedy")
    assert run("")["seen"].GetEntries() == ENTRIES


def test_a_cancelled_query_is_left_in_the_middle_of_a_packet(cluster, run, tmp_path):
    (before,) = cluster.workers(1)
    cancel_within_a_packet(run, "slow", tmp_path / "begun")  # the packet would take minutes
    assert run("")["seen"].GetEntries() == ENTRIES
    (after,) = cluster.workers(1)
    assert after["pid"] == before["pid"]


def test_a_worker_that_does_not_come_back_from_a_cancelled_query_is_replaced(cluster, run, tmp_path):
    (before,) = cluster.workers(1)
    cancel_within_a_packet(run, "stuck", tmp_path / "begun")
    assert run("")["seen"].GetEntries() == ENTRIES
    (after,) = cluster.workers(1)
    assert after["pid"] != before["pid"]


def test_with_one_commit_at_the_end_each_worker_commits_once(cluster, submit):
    query = submit("brisk", commit="end")
    assert query.result()["seen"].GetEntries() == ENTRIES
    assert cluster.send("partial", query=query.id, version=0, wait=0)["version"] == 1
    query.forget()


def test_a_file_that_was_replaced_by_another_one_of_its_size_is_learnt_anew(cluster, run, place):
    path = make_file(place / "replaced.root", 1_500)
    before = part(path)
    assert run("", parts=[before])["seen"].GetEntries() == 1_500
    make_file(path, 1_000, size=before["files"][0]["size"])
    for _ in range(2):
        assert run("", parts=[part(path)])["seen"].GetEntries() == 1_000


def test_entries_of_friends_are_counted_once_and_verified(cluster, run, place, file):
    path = make_file(place / "friend.root", ENTRIES, "others")
    size = path.stat().st_size
    for _ in range(2):
        parts = [part(file), part(path, "others", "other")]
        assert run("", parts=parts)["seen"].GetEntries() == ENTRIES
    make_file(path, ENTRIES // 2, "others", size)
    with pytest.raises(QueryError, match=r"friend\.root has 1000 entries, not 2000 .* try again"):
        run("", parts=parts)
    with pytest.raises(QueryError, match="has 1000 entries, the dataset has 2000"):
        run("", parts=parts)


@pytest.mark.usefixtures("two_workers")
def test_two_queries_run_side_by_side(submit, place):
    parts = [part(make_file(place / "long.root", 3 * ENTRIES))]
    both = [submit("brisk", parts=parts), submit("brisk", parts=parts)]
    together = False
    while not any(query.wait(0.05) for query in both):
        together = together or all(query.progress.events for query in both)
    assert together
    for query in both:
        assert query.result()["seen"].GetEntries() == 3 * ENTRIES
        query.forget()


@pytest.mark.usefixtures("two_workers")
def test_a_packet_that_hangs_at_one_worker_is_run_by_another_one(cluster, submit, tmp_path):
    before = {worker["pid"] for worker in cluster.workers(2)}
    query = submit(f"hangs {tmp_path / 'begun'}")
    assert query.result()["seen"].GetEntries() == ENTRIES
    query.forget()
    while len(before & {worker["pid"] for worker in cluster.workers(0)}) == 2:
        time.sleep(0.1)  # until the one that hangs is replaced
    assert len(before & {worker["pid"] for worker in cluster.workers(2)}) == 1


@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize("commit", ["interval", "end"])
def test_workers_that_are_told_to_leave_commit_what_they_have_run(cluster, submit, tmp_path, commit):
    leaving = cluster.workers(2)
    begun = tmp_path / "begun"
    query = submit(f"brisk {begun}", commit=commit)
    while not begun.exists():
        time.sleep(0.01)
    for worker in leaving:
        os.kill(worker["pid"], signal.SIGTERM)
    assert query.result()["seen"].GetEntries() == ENTRIES
    state = cluster.send("follow", query=query.id, version=0, wait=0)
    assert {worker["name"] for worker in leaving} & state["events_by_worker"].keys()
    query.forget()
