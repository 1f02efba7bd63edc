"""Workers whose selectors use too much memory or do not come back, and queries that are cancelled."""

import pytest

from gridproof.engine import runtime
from gridproof.engine.client import Queries
from gridproof.errors import MemoryLimit

ENTRIES = 2_000

SELECTOR = """
#include <TH1D.h>
#include <TSelector.h>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>
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
      if (!begun.empty()) std::ofstream(begun.c_str());
      seen->Fill(0.5);
      if (how == "slow") std::this_thread::sleep_for(std::chrono::seconds(1));
      if (how == "stuck") std::this_thread::sleep_for(std::chrono::hours(1));
      if (how == "hungry") Take(5'000'000);
      if (how == "greedy") Take(20'000'000'000);
      return true;
   }
   ~Wild() { for (auto piece : kept) delete[] piece; }
   ClassDefOverride(Wild, 0);
};
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = runtime.load()
    path = tmp_path_factory.mktemp("data") / "numbers.root"
    frame = root.RDataFrame(ENTRIES).Define("x", "1. * rdfentry_")
    frame.Snapshot("events", str(path))
    return path


@pytest.fixture(scope="module")
def run(cluster, file):
    """Runs the selector in one of its ways; returns the result."""
    cluster.start(memory_limit=1_000_000_000)
    cluster.workers(1)
    queries = Queries(cluster.send, cluster.cache, None)
    source = file.with_name("Wild.C")
    source.write_text(SELECTOR)
    files = [{"name": str(file), "kind": "path", "size": file.stat().st_size, "replicas": []}]
    parts = [{"tree": "events", "alias": "", "files": files}]

    def process(how, watch=lambda: None):
        query = queries.submit(parts, str(source), how)
        try:
            while not query.wait(0.1):
                watch()
            return query.result()
        finally:
            query.forget()

    return process


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
