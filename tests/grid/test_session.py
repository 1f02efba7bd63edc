"""A session on an embedded Grid: its work, bad input, and the death of each of its parts."""

import asyncio
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import psutil
import pytest
from distributed import rpc

import gridproof
from gridproof.errors import (
    CompileError,
    ConfigError,
    DatasetError,
    MissingFiles,
    ProxyError,
    SelectorCrashed,
    SelectorError,
)


@pytest.fixture(scope="module")
def session(world):
    with gridproof.open(world.grid, workers=4, dataset=world.pattern, tree="events") as opened:
        yield opened


@pytest.fixture(scope="module")
def data(session, world):
    return session.dataset(world.pattern, tree="events")


def ours(title: str) -> list[psutil.Process]:
    """Processes below this one whose title begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
        except psutil.Error:
            continue
    return found


class MidQuery:
    """Does something once while a query runs, when it has processed a part of its events."""

    def __init__(self, session, act, after=0.2):
        self._follow, self._act, self._after = session._link.send, act, after
        self.done = False

    def __call__(self, message, **arguments):
        answer = self._follow(message, **arguments)
        if (
            message == "follow"
            and not self.done
            and answer["events"] > self._after * max(answer["expected"], 1)
        ):
            self.done = True
            self._act()
        return answer


def process_while(session, act, *arguments, **options):
    """`session.process`, with `act` called in its middle."""
    middle = MidQuery(session, act)
    queries = session._queries
    before, queries.send = queries.send, middle
    try:
        result = session.process(*arguments, **options)
    finally:
        queries.send = before
    assert middle.done
    return result


def await_workers(session):
    assert len(session._link.send("workers", at_least=4, wait=20)) >= 4


def test_workers_are_records_at_their_sites(session):
    assert len(session.workers) == 4
    assert {w.state for w in session.workers} == {"ready"}
    assert {w.site.upper() for w in session.workers} <= {"SITE1", "SITE2", "SITE3"}
    assert all(psutil.pid_exists(w.pid) for w in session.workers)
    assert all("gridproof worker" in " ".join(psutil.Process(w.pid).cmdline()) for w in session.workers)
    assert "site" in str(session.workers)
    assert "<table>" in session.workers._repr_html_()


def test_a_worker_and_its_nodes_xrootd_are_reached_by_forwards(session):
    worker = session.workers[0]
    assert worker.way == "direct"
    way = session.forward(worker.name)

    async def identity():
        async with rpc(
            f"tls://{way.address}", connection_args=way.security.get_connection_args("client")
        ) as it:
            return await it.identity()

    assert asyncio.run(identity())["type"] == "_Worker"
    way = session.forward(worker.name, "xrootd")
    subprocess.run(["xrdfs", f"root://{way.address}", "ls", "/"], check=True, timeout=30)
    with pytest.raises(ProxyError, match="no worker"):
        session.forward("nobody")


def test_a_query_is_exact_and_reads_near(session, world, data):
    result = session.process(data, world.selector)
    world.assert_exact(result)
    assert result.summary.local_fraction > 0.5
    assert sum(result.summary.per_worker.values()) == world.events
    assert result.summary.bytes_read > 0.5 * data.size


def test_workers_read_over_xrootd_and_not_from_the_local_disk(session, world, data):
    (world.directory / "Opened.C").write_text(
        """
#include <TFile.h>
#include <TSelector.h>
#include <TTree.h>
class Opened : public TSelector {
public:
   int Version() const override { return 2; }
   void Init(TTree *tree) override { fOutput->Add(new TNamed(tree->GetCurrentFile()->ClassName(), "")); }
   bool Process(Long64_t) override { return true; }
   ClassDefOverride(Opened, 0);
};
"""
    )
    result = session.process(data, f"{world.directory / 'Opened.C'}+")
    assert set(result) == {"TNetXNGFile"}
    assert result.summary.events == world.events


def test_workers_ask_for_leave_with_their_jobs_own_tokens(session, world, data):
    def accesses():
        return {who: n for (who, command), n in world.grid.commands().items() if command == "access"}

    before = accesses()
    world.assert_exact(session.process(data, world.selector))
    after = accesses()
    jobs = {who for who in after if "/CN=Jobs/" in who}
    assert {who: n for who, n in after.items() if who not in jobs} == {
        who: n for who, n in before.items() if who not in jobs
    }
    assert jobs <= {who for who, command in world.grid.commands() if command == "listSEDistance"}
    assert len(data.files) <= sum(after[who] for who in jobs) <= len(session.workers) * len(data.files)


def test_members_of_archives_on_the_grid_are_read_in_place(session, world, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in world.files:
            archive.write(file, file.name)
    world.grid.put(tmp_path / "all.zip", "/local/archives/all.zip")
    members = [f"/local/archives/all.zip#{file.name}" for file in world.files]
    world.assert_exact(session.process(session.dataset(members, tree="events"), world.selector))
    lost = session.dataset("/local/archives/all.zip#lost.root", tree="events")
    with pytest.raises(MissingFiles, match=r"member lost\.root not found in archive"):
        session.process(lost, world.selector)


def test_ctrl_c_cancels_the_query_and_the_session_goes_on(session, world, data):
    with pytest.raises(KeyboardInterrupt):
        process_while(
            session, lambda: signal.raise_signal(signal.SIGINT), data, world.selector, "wait for it"
        )
    assert session.queries() == []
    world.assert_exact(session.process(data, world.selector))


def test_results_can_be_saved_to_the_grid(session, world, data, tmp_path):
    session.process(data, world.selector).save("alien:///local/out/result.root")
    world.grid.get("/local/out/result.root", tmp_path / "back.root")
    assert (tmp_path / "back.root").stat().st_size > 1000


def test_the_collision_files_give_what_a_plain_loop_gives(session, world):
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the two collision files are not beside the checkout")
    for name in ("uproot-Zmumu.root", "uproot-HZZ.root"):
        world.grid.put(shared / name, f"/local/shared/{name}")
    (world.directory / "Count.C").write_text(
        """
#include <TH1D.h>
#include <TLeaf.h>
#include <TSelector.h>
#include <TTree.h>
class Count : public TSelector {
   TTree *fChain = nullptr; TH1D *h = nullptr; TString leaf;
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      leaf = GetOption();
      fOutput->Add(h = new TH1D("h", "", 100, -100, 200));
   }
   void Init(TTree *tree) override { fChain = tree; }
   bool Process(Long64_t entry) override {
      fChain->GetTree()->GetEntry(entry);
      auto values = fChain->GetTree()->GetLeaf(leaf);
      for (int i = 0; i < values->GetLen(); ++i) h->Fill(values->GetValue(i));
      return true;
   }
   ClassDefOverride(Count, 0);
};
"""
    )
    from gridproof import _root

    root = _root.load()
    for name, leaf in (("uproot-Zmumu.root", "M"), ("uproot-HZZ.root", "Muon_Px")):
        file = root.TFile.Open(str(shared / name))
        tree = file.Get("events")
        reference = root.TH1D("reference", "", 100, -100, 200)
        reference.SetDirectory(root.nullptr)
        for entry in range(tree.GetEntries()):
            tree.GetEntry(entry)
            values = tree.GetLeaf(leaf)
            for i in range(values.GetLen()):
                reference.Fill(values.GetValue(i))
        data = session.dataset(f"/local/shared/{name}", tree="events")
        result = session.process(data, f"{world.directory / 'Count.C'}+", leaf)
        assert result["h"].GetEntries() == reference.GetEntries() > 0
        assert [result["h"].GetBinContent(i) for i in range(102)] == [
            reference.GetBinContent(i) for i in range(102)
        ]
        file.Close()


def test_bad_input_gives_clear_errors_and_the_session_stays_usable(session, world, data, tmp_path):
    with pytest.raises(DatasetError, match=r"/local/data/nothing\.root"):
        session.dataset(["/local/data/nothing.root"], tree="events")
    with pytest.raises(ConfigError, match=r"Slow\.C"):
        session.process(data, f"{world.directory / 'Slwo.C'}+")
    wrong = tmp_path / "Wrong.C"
    wrong.write_text("#include <TSelector.h>\nclass Wrong : public TSelector { int x = nonsense; };\n")
    with pytest.raises(CompileError, match="nonsense"):
        session.process(data, f"{wrong}+")
    with pytest.raises(MissingFiles, match=r'no tree "other"; |no tree "other" in it; trees there: events'):
        session.process(session.dataset(world.pattern, tree="other"), world.selector)
    with pytest.raises(SelectorError, match="as asked at entry 30000 of /local/data/events"):
        session.process(data, world.selector, "throw")
    with pytest.raises(ConfigError, match=r"session\.dataset"):
        session.submit(world.pattern, world.selector)
    with pytest.raises(SelectorCrashed, match=r"(?s)events.*signal 6.*Slow\w*::Process"):
        session.process(data, world.selector, "crash")
    broken = tmp_path / "broken.root"
    broken.write_bytes(world.files[0].read_bytes()[:100_000])
    world.grid.put(broken, "/local/broken/broken.root")
    with pytest.raises(MissingFiles, match=r"broken\.root.*truncated"):
        session.process(session.dataset("/local/broken/broken.root", tree="events"), world.selector)
    world.assert_exact(session.process(data, world.selector))


_SHARED = """
#include <TFile.h>
#include <TParameter.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTree.h>
#include <gridproof/OutputFile.h>
#include <gridproof/Store.h>
#include <memory>
#include <stdexcept>
class Shared : public TSelector {
   gridproof::OutputFile *fOut = nullptr;
   TTree *fSkim = nullptr;
   double fFactor = 0;
   std::unique_ptr<TFile> Open(const std::string &name, const char *option) {
      std::unique_ptr<TFile> file(TFile::Open(gridproof::StoreUrl(name).c_str(), option));
      if (!file || file->IsZombie()) throw std::runtime_error("the store has no " + name);
      if (TString(file->ClassName()) != "TNetXNGFile") throw std::runtime_error("not by XRootD");
      return file;
   }
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      fFactor = Open("calib/factor.root", "READ")->Get<TParameter<double>>("factor")->GetVal();
      fOut = new gridproof::OutputFile("scaled.root");
      fOut->OpenFile("RECREATE");
      fSkim = new TTree("scaled", "");
      fSkim->Branch("factor", &fFactor);
   }
   bool Process(Long64_t) override { fSkim->Fill(); return true; }
   void SlaveTerminate() override {
      fOut->Close();
      fOutput->Add(fOut);
      auto file = Open(std::string("by/") + std::to_string(gSystem->GetPid()) + ".root", "RECREATE");
      TParameter<double>("factor", fFactor).Write();
   }
   ClassDefOverride(Shared, 0);
};
"""


def test_workers_share_the_sessions_store_and_merged_files_are_read_in_place(session, world, tmp_path):
    root = session._queries.root
    local = root.TFile.Open(str(tmp_path / "factor.root"), "RECREATE")
    root.TParameter["double"]("factor", 2.5).Write()
    local.Close()
    (tmp_path / "Shared.C").write_text(_SHARED)
    session.store.put(tmp_path / "factor.root", "calib/factor.root")
    few = session.dataset(str(world.files[0]), tree="events")
    result = session.process(few, str(tmp_path / "Shared.C"))
    merged = result["scaled.root"].open()
    assert merged.ClassName() == "TNetXNGFile"
    assert merged.Get("scaled").GetEntries() == result.summary.events
    assert merged.Get("scaled").GetMaximum("factor") == 2.5
    merged.Close()
    written = [file.name for file in session.store.ls() if file.name.startswith("by/")]
    assert 1 <= len(written) <= 4
    for worker in session.workers:
        keytab = Path(psutil.Process(worker.pid).cwd()) / "store.keytab"
        assert keytab.stat().st_mode & 0o777 == 0o600
        assert keytab.read_text() == Path(session.store._access.keytab).read_text()


def test_a_worker_that_is_given_back_commits_first(session, world, data):
    await_workers(session)
    link = session._link

    def want(workers):
        link.loop.run(link.proxy.resize_session(session.name, workers))

    result = process_while(session, lambda: want(3), data, world.selector, "wait for it")
    world.assert_exact(result)
    (left,) = [log for log in session.logs() if "told to end, it left after" in log.about]
    assert "leaves: takes no further packet" in left.text
    want(4)
    await_workers(session)


def test_a_killed_worker_costs_nothing_but_time(session, world, data):
    await_workers(session)
    victim = session.workers[0].pid
    result = process_while(
        session, lambda: os.kill(victim, signal.SIGKILL), data, world.selector, "wait for it"
    )
    world.assert_exact(result)


def test_a_killed_pilot_costs_nothing_but_time(session, world, data):
    await_workers(session)
    pilots = ours("gridproof pilot")
    assert len(pilots) == 4
    world.assert_exact(process_while(session, pilots[0].kill, data, world.selector, "wait for it"))


def test_a_killed_storage_element_is_replaced_by_its_other_replicas(session, world, data):
    victim = int(world.grid.status()[0]["pid"])
    result = process_while(
        session, lambda: os.kill(victim, signal.SIGKILL), data, world.selector, "wait for it"
    )
    world.assert_exact(result)
    assert not result.summary.missing_files
