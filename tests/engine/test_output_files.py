"""Files that selectors write on workers come back merged, and leave nothing behind."""

import os
import signal

import psutil
import pytest

from gridproof.engine import runtime
from gridproof.engine.client import Queries
from gridproof.engine.spool import BATCH, Spool
from gridproof.errors import MergeError, QueryError, SelectorError

ENTRIES, FILES = 4_000, 6

SKIM = """
#include <TH1D.h>
#include <TParameter.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTree.h>
#include <gridproof/OutputFile.h>
#include <cstdlib>
#include <vector>
class Skim : public TSelector {
   TTree *fChain = nullptr, *fSkim = nullptr;
   gridproof::OutputFile *fOut = nullptr;
   TH1D *fHistogram = nullptr;
   double x = 0; std::vector<double> noise; TString how;
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      how = GetOption();
      if (how == "again") (new gridproof::OutputFile("skim.root"))->OpenFile("RECREATE");
      fOut = new gridproof::OutputFile("skim.root");
      fOut->OpenFile("RECREATE")->mkdir("inside")->cd();
      fHistogram = new TH1D("histogram", "", 10, 0, 1e5);
      fOut->File()->cd();
      fSkim = new TTree("skim", "");
      fSkim->Branch("x", &x); fSkim->Branch("noise", &noise);
      fOutput->Add(new TH1D("also", "", 10, 0, 1e5));
   }
   void Init(TTree *tree) override { fChain = tree; fChain->SetBranchAddress("x", &x); }
   bool Process(Long64_t entry) override {
      fChain->GetTree()->GetEntry(entry);
      fHistogram->Fill(x);
      static_cast<TH1D *>(fOutput->FindObject("also"))->Fill(x);
      if (how == "slow" && entry % 20 == 0) gSystem->Sleep(10);
      if (how == "large") { noise.resize(200); for (auto &n : noise) n = std::rand(); }
      if (Long64_t(x) % 2 == 0) fSkim->Fill();
      return true;
   }
   void SlaveTerminate() override {
      if (how != "open") fOut->Close();
      if (how != "forgotten") fOutput->Add(fOut);
   }
   void Terminate() override {
      if (TString(GetOption()) != "read") return;
      auto file = static_cast<gridproof::OutputFile *>(fOutput->FindObject("skim.root"))->OpenFile("READ");
      fOutput->Add(new TParameter<Long64_t>("seen", file->Get<TTree>("skim")->GetEntries()));
      file->Close();
   }
   ClassDefOverride(Skim, 0);
};
"""


@pytest.fixture(scope="module")
def root():
    return runtime.load_merging()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    (directory / "Skim.C").write_text(SKIM)
    return directory


@pytest.fixture(scope="module")
def paths(root, place):
    made = [place / f"f{number}.root" for number in range(FILES)]
    for number, path in enumerate(made):
        offset = number * ENTRIES
        root.RDataFrame(ENTRIES).Define("x", f"double(rdfentry_) + {offset}").Snapshot("events", str(path))
    return made


@pytest.fixture(scope="module")
def process(cluster, place, paths):
    for _ in range(2):
        cluster.start()
    cluster.workers(2)
    queries = Queries(cluster.send, cluster.cache, None)
    files = [{"name": str(p), "kind": "path", "size": p.stat().st_size, "replicas": []} for p in paths]
    part = {"tree": "events", "alias": "", "files": files}

    def run(option="", feedback=0.25, used=queries, **options):
        return used.process([part], f"{place / 'Skim.C'}+", option, feedback=feedback, **options)

    run.queries = queries
    return run


def assert_right(result):
    file = result["skim.root"].open()
    kept = sorted(int(entry.x) for entry in file.Get("skim"))
    assert kept == list(range(0, FILES * ENTRIES, 2))
    histogram, also = file.Get("inside/histogram"), result["also"]
    assert histogram.GetEntries() == FILES * ENTRIES
    assert [histogram.GetBinContent(i) for i in range(12)] == [also.GetBinContent(i) for i in range(12)]
    file.Close()


def left_over(cluster):
    """Files of queries at the master, and of instances on workers."""
    return [
        path
        for pattern in ("query-*", "gridproof-outputs-*/[!t]*", "gridproof-outputs-*/taken/*")
        for path in cluster.directory.glob(pattern)
    ]


def until(condition):
    """Nothing tells of a removal; it does not take long."""
    for _ in range(200):
        if condition():
            return True
        psutil.Process().cpu_percent(0.05)
    return False


def test_trees_and_histograms_in_files_are_merged_exactly(process, cluster, tmp_path):
    result = process("read")
    assert_right(result)
    assert result["seen"].GetVal() == FILES * ENTRIES // 2
    assert result["skim.root"].size == result["skim.root"].path.stat().st_size
    result.save_file("skim.root", tmp_path)
    assert (tmp_path / "skim.root").read_bytes() == result["skim.root"].path.read_bytes()
    with pytest.raises(QueryError, match=r"no/such/place/skim\.root: No such file"):
        result.save_file("skim.root", tmp_path / "no" / "such" / "place" / "skim.root")
    for query in process.queries.handles():
        query.forget()
    assert until(lambda: not left_over(cluster))


def test_the_summary_tells_what_went_through_the_master(process):
    result = process("large")
    summary = result.summary
    assert summary.received_bytes > result["skim.root"].size / 2
    assert 0 < summary.sent_bytes < summary.received_bytes  # the file is still there
    assert 50e6 < summary.master_memory < 5e9
    assert "master: " in str(summary)


def test_a_temporary_copy_goes_with_the_result(process):
    result = process()
    path = result["skim.root"].path
    assert path.exists()
    del result
    assert not path.exists()


def test_a_file_left_open_is_written_and_closed(process):
    assert_right(process("open"))


def test_plain_root_writes_the_file_where_it_runs(root, place, paths, process, tmp_path, monkeypatch):
    process()  # makes the class known here
    monkeypatch.delenv("GRIDPROOF_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    chain = root.TChain("events")
    for path in paths:
        chain.Add(str(path))
    instance = root.gridproof.Make("Skim", "", root.TList())
    chain.Process(instance.Selector())
    file = root.TFile.Open(str(tmp_path / "skim.root"))
    assert file.Get("skim").GetEntries() == FILES * ENTRIES // 2
    file.Close()


def test_files_stay_exact_when_a_worker_dies(process, cluster):
    killed = []

    def kill_one(partial):
        if partial["also"].GetEntries() > 2_000 and not killed:
            killed.append(cluster.workers(2)[0]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    assert_right(process("slow", on_feedback=kill_one))
    assert killed
    cluster.workers(2)
    for query in process.queries.handles():
        query.forget()
    assert until(lambda: not left_over(cluster))


def test_a_file_that_was_not_added_to_the_outputs_is_an_error(process, cluster):
    with pytest.raises(SelectorError, match=r"has not added its gridproof::OutputFile skim\.root to fOutput"):
        process("forgotten")
    assert until(lambda: not left_over(cluster))


def test_two_files_of_one_name_are_an_error(process):
    with pytest.raises(SelectorError, match=r"skim\.root is open already"):
        process("again")


def test_a_full_disk_on_a_worker_fails_the_query_clearly(process, cluster):
    for worker in cluster.workers(2):
        limit(worker["pid"], 100_000)
    with pytest.raises(SelectorError, match=r"cannot be written.*is the worker's disk full\?"):
        process("large")
    assert until(lambda: not left_over(cluster))
    for worker in cluster.workers(2):
        limit(worker["pid"], psutil.RLIM_INFINITY)
    assert_right(process())


def test_a_full_disk_at_the_master_fails_the_query_clearly(process, cluster):
    limit(cluster.master_pid, 100_000)
    with pytest.raises(
        MergeError, match=r"the master cannot write to .* \(File too large\): free some space"
    ):
        process("large")
    limit(cluster.master_pid, psutil.RLIM_INFINITY)
    assert_right(process())
    for query in process.queries.handles():
        query.forget()
    assert until(lambda: not left_over(cluster))


def limit(pid, size):
    """No file may grow beyond ``size`` bytes: what a full disk does, but for one process."""
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


# ---------------------------------------------------------------- the spool alone


@pytest.fixture
def spool(root, tmp_path):
    return Spool(root, tmp_path / "query-1")


def tree_file(root, path, first, last):
    frame = root.RDataFrame(last - first).Define("x", f"double(rdfentry_) + {first}")
    frame.Snapshot("skim", str(path))
    return path.read_bytes()


def test_uploads_are_merged_in_batches_and_removed(root, spool, tmp_path):
    count = 2 * BATCH + 3
    for number in range(count):
        data = tree_file(root, tmp_path / "one.root", 10 * number, 10 * number + 10)
        spool.write("w", f"u{number}", 0, data[:100])
        spool.write("w", f"u{number}", 100, data[100:])
        spool.write("w", f"u{number}", 100, data[100:])  # a repeated message
        files = [("skim.root", f"u{number}", len(data))]
        spool.check(files)
        spool.merge(files)
        assert len(list((tmp_path / "query-1").glob("upload *"))) < BATCH
    spool.finish()
    (merged,) = (tmp_path / "query-1/merged").iterdir()
    assert merged.name == "skim.root"
    assert spool.sizes() == {"skim.root": merged.stat().st_size}
    file = root.TFile.Open(str(merged))
    assert [int(entry.x) for entry in file.Get("skim")] == list(range(10 * count))
    file.Close()
    assert spool.read("skim.root", 4, 10) == merged.read_bytes()[4:14]
    spool.remove()
    assert not (tmp_path / "query-1").exists()


def test_uploads_that_do_not_count_are_removed(spool, tmp_path):
    for worker, upload in (("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2")):
        spool.write(worker, upload, 0, b"some bytes")
    spool.drop(["b1"])
    spool.lost("a")
    assert [path.name for path in (tmp_path / "query-1").iterdir()] == ["upload b2"]
    spool.finish()
    assert not list((tmp_path / "query-1").iterdir())


def test_an_upload_that_is_not_whole_or_has_a_strange_name_is_refused(spool):
    spool.write("w", "u", 0, b"some bytes")
    with pytest.raises(MergeError, match="did not come in whole"):
        spool.check([("skim.root", "u", 11)])
    with pytest.raises(MergeError, match="is no name for an upload"):
        spool.write("w", "../u", 0, b"")
    for name in ("../skim.root", "..", "", "a/b"):
        with pytest.raises(MergeError, match="is no name for an output file"):
            spool.check([(name, "u", 10)])


def test_files_for_which_there_is_no_room_in_the_store_are_refused(root, tmp_path):
    spool = Spool(root, tmp_path / "query-1", room=lambda: 15)
    spool.write("w", "u", 0, b"some bytes")
    with pytest.raises(MergeError, match="no room for output files in the session's store"):
        spool.write("w", "u", 10, b"and many more bytes")
    assert not list(tmp_path.rglob("*more*"))


def test_what_is_no_root_file_fails_the_merge(spool):
    spool.write("w", "u", 0, b"some bytes")
    spool.merge([("skim.root", "u", 10)])
    with pytest.raises(MergeError, match=r"output file skim\.root cannot be merged"):
        spool.finish()
