"""Selectors run by real workers under a real master give what a plain ROOT loop gives."""

import os
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from gridproof.engine import runtime
from gridproof.engine.bundle import collect
from gridproof.engine.client import Queries
from gridproof.engine.code import CodeStore
from gridproof.errors import CompileError, MissingFiles, QueryError, SelectorError

FILES = (20_000, 0, 30_000, 1, 25_000, *([40] * 30))
FRAMES = ([5_000, 0, 12_000, 1], [0, 0], [100] * 40, [25_001], [30_199, *[0] * 5])  # of entries, by file

MAKE = """
#include <TFile.h>
#include <TRandom3.h>
#include <TTree.h>
#include <ROOT/RVec.hxx>
void fill_tree(TDirectory &where, const char *tree, int entries, long offset, bool extra) {
   TDirectory::TContext there(&where);
   TTree t(tree, "");
   std::vector<float> pt; ROOT::RVec<float> eta; float vz; Long64_t id; double weight;
   t.Branch("pt", &pt); t.Branch("eta", &eta); t.Branch("vz", &vz); t.Branch("id", &id);
   if (extra) t.Branch("weight", &weight);
   t.SetAutoFlush(1000);
   for (long i = offset; i < offset + entries; ++i) {
      TRandom3 random(i + 1);
      pt.clear(); eta.clear();
      for (int k = random.Poisson(3); k > 0; --k) {
         pt.push_back(random.Exp(1));
         eta.push_back(random.Gaus());
      }
      vz = random.Gaus(0, 5); id = i; weight = 1. / (1 + i % 7);
      t.Fill();
   }
   t.Write();
}
void make_file(const char *name, const char *tree, int entries, long offset, bool extra) {
   TFile file(name, "RECREATE");
   fill_tree(file, tree, entries, offset, extra);
}
void make_uneven(const char *name, const char *tree) {
   TFile file(name, "RECREATE");
   for (auto extra : {true, false})
      fill_tree(*file.mkdir(extra ? "DF_000" : "DF_001"), tree, 500, 0, extra);
}
void make_frames(const char *name, const char *tree, const std::vector<int> &sizes, long offset, bool extra) {
   TFile file(name, "RECREATE");
   for (std::size_t i = 0; i < sizes.size(); ++i) {
      fill_tree(*file.mkdir(Form("DF_%03zu", i)), tree, sizes[i], offset, extra);
      offset += sizes[i];
   }
}
"""

READER = """
#include <TH1D.h>
#include <TH2F.h>
#include <TProfile.h>
#include <TSelector.h>
#include <TParameter.h>
#include <TTreeReader.h>
#include <TTreeReaderArray.h>
#include <TTreeReaderValue.h>
#include <ROOT/RVec.hxx>
#include "cuts.h"
class Reader : public TSelector {
   TTreeReader fReader;
   TTreeReaderArray<float> pt = {fReader, "pt"};
   TTreeReaderValue<ROOT::RVec<float>> eta = {fReader, "eta"};
   TTreeReaderValue<float> vz = {fReader, "vz"};
   TTreeReaderValue<Long64_t> *id = nullptr;
   TH1D *hpt = nullptr; TH2F *h2 = nullptr; TProfile *prof = nullptr; TH1D *terminated = nullptr;
   double scale = 1;
public:
   int Version() const override { return 2; }
   void Begin(TTree *) override { fInput->Add(new TNamed("from_begin", "yes")); }
   void SlaveBegin(TTree *) override {
      hpt = new TH1D("pt", GetOption(), 100, 0, 10); fOutput->Add(hpt);
      h2 = new TH2F("eta_vz", "", 20, -3, 3, 20, -20, 20); fOutput->Add(h2);
      prof = new TProfile("prof", "", 20, -20, 20); fOutput->Add(prof);
      if (auto p = dynamic_cast<TParameter<double> *>(fInput->FindObject("scale"))) scale = p->GetVal();
      if (!fInput->FindObject("from_begin")) Abort("Begin's input is missing");
   }
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   bool Process(Long64_t entry) override {
      fReader.SetLocalEntry(entry);
      for (auto p : pt) if (passes(p)) { hpt->Fill(scale * p); prof->Fill(*vz, p); }
      for (auto e : *eta) h2->Fill(e, *vz);
      return true;
   }
   void Terminate() override {
      fOutput->Add(new TNamed("terminated", fOutput->FindObject("pt") ? "seen" : ""));
   }
   ClassDefOverride(Reader, 0);
};
"""

OLD_STYLE = """
#include <TH1D.h>
#include <TSelector.h>
#include <TTree.h>
class Old : public TSelector {
   TTree *fChain = nullptr; float vz = 0; Long64_t id = 0;
   TBranch *b_vz = nullptr, *b_id = nullptr; TH1D *h = nullptr;
   int notified = 0;
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override { h = new TH1D("vz", "", 50, -20, 20); fOutput->Add(h); }
   void Init(TTree *tree) override {
      fChain = tree; fChain->SetMakeClass(1);
      fChain->SetBranchAddress("vz", &vz, &b_vz); fChain->SetBranchAddress("id", &id, &b_id);
   }
   bool Notify() override { ++notified; return true; }
   bool Process(Long64_t entry) override {
      fChain->GetTree()->GetEntry(entry);
      if (notified) h->Fill(vz, 1 + id % 3);
      return true;
   }
   ClassDefOverride(Old, 0);
};
"""

BROKEN = """
#include <TSelector.h>
#include <TTree.h>
#include <stdexcept>
#include <csignal>
class Broken : public TSelector {
   TTree *fChain = nullptr; Long64_t seen = 0;
public:
   int Version() const override { return 2; }
   void Init(TTree *tree) override { fChain = tree; }
   bool Process(Long64_t entry) override {
      TString how = GetOption();
      if (++seen > 5) {
         if (how == "throw") throw std::runtime_error("no such luck");
         if (how == "crash") { volatile int *nowhere = nullptr; *nowhere = 1; }
         if (how == "abort") Abort("enough");
      }
      return true;
   }
   ClassDefOverride(Broken, 0);
};
"""

FRIENDS = """
#include <TH1D.h>
#include <TSelector.h>
#include <TTreeReader.h>
#include <TTreeReaderValue.h>
class Friends : public TSelector {
   TTreeReader fReader;
   TTreeReaderValue<Long64_t> id = {fReader, "id"};
   TTreeReaderValue<Long64_t> other = {fReader, "other.id"};
   TTreeReaderValue<double> weight = {fReader, "weight"};
   TH1D *same = nullptr, *sum = nullptr;
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      fOutput->Add(same = new TH1D("same", "", 2, 0, 2));
      fOutput->Add(sum = new TH1D("sum", "", 10, 0, 1e5));
   }
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   bool Process(Long64_t entry) override {
      fReader.SetLocalEntry(entry);
      same->Fill(*id == *other);
      sum->Fill(*id, *weight);
      return true;
   }
   ClassDefOverride(Friends, 0);
};
"""


@pytest.fixture(scope="module")
def root():
    loaded = runtime.load()
    loaded.gInterpreter.Declare(MAKE)
    return loaded


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    (directory / "cuts.h").write_text("inline bool passes(float p) { return p > 0.1f; }\n")
    for name, text in (("Reader", READER), ("Old", OLD_STYLE), ("Broken", BROKEN), ("Friends", FRIENDS)):
        (directory / f"{name}.C").write_text(text)
    return directory


@pytest.fixture(scope="module")
def paths(root, place):
    made, offset = [], 0
    for number, entries in enumerate(FILES):
        made.append(place / f"f{number:02}.root")
        root.make_file(str(made[-1]), "events", entries, offset, False)
        offset += entries
    return made


def make_frames(root, place, name, tree, sizes, extra=False):
    """Files with a tree in each of several directories, as AO2D files are made."""
    assert sum(map(sum, sizes)) == sum(FILES)
    made, offset = [], 0
    for number, of_file in enumerate(sizes):
        made.append(place / f"{name}{number}.root")
        root.make_frames(str(made[-1]), tree, of_file, offset, extra)
        offset += sum(of_file)
    return made


@pytest.fixture(scope="module")
def frames(root, place):
    return make_frames(root, place, "AO2D", "O2track", FRAMES)


@pytest.fixture(scope="module")
def queries(cluster, root):
    for site in "ABC":
        cluster.start(site)
    cluster.workers(3)
    return Queries(cluster.send, cluster.cache, None)


def part(paths, tree="events", alias=""):
    files = [{"name": str(p), "kind": "path", "size": p.stat().st_size, "replicas": []} for p in paths]
    return {"tree": tree, "alias": alias, "files": files}


def process(queries, parts, selector, option="", inputs=(), on_missing="fail", watch=None):
    query = queries.submit(parts, str(selector), option, inputs, on_missing)
    try:
        while watch and not query.wait(0.02):
            watch(query.progress)
        return query.result()
    finally:
        query.forget()


def plain(root, selector, option, paths, scale=None):
    """The same selector class in this process, by ROOT's own loop."""
    chain = root.TChain("events")
    for path in paths:
        chain.Add(str(path))
    inputs = root.TList()
    parameter = root.TParameter["double"]("scale", 1 if scale is None else scale)
    inputs.Add(parameter)
    instance = root.gridproof.Make(selector, option, inputs)
    assert not str(instance.problem)
    chain.Process(instance.Selector(), option)
    outputs = {o.GetName(): o.Clone() for o in instance.Selector().GetOutputList()}
    for output in outputs.values():
        if hasattr(output, "SetDirectory"):
            output.SetDirectory(root.nullptr)
    return outputs


def assert_same(ours, theirs):
    assert ours.GetEntries() == theirs.GetEntries()
    for cell in range(theirs.GetNcells()):
        assert ours.GetBinContent(cell) == pytest.approx(theirs.GetBinContent(cell), rel=1e-12)


def test_reader_selector_over_jagged_rvec_tiny_and_empty_files(queries, root, place, paths):
    result = process(queries, [part(paths)], place / "Reader.C+", "my title", {"scale": 2.0})
    expected = plain(root, "Reader", "my title", paths, 2.0)
    for name in ("pt", "eta_vz", "prof"):
        assert_same(result[name], expected[name])
    assert result["pt"].GetTitle() == "my title"
    assert result["terminated"].GetTitle() == "seen"
    assert result.summary.events == sum(FILES)
    assert not result.summary.missing_files


def test_old_style_selector_with_branch_addresses(queries, root, place, paths):
    result = process(queries, [part(paths)], place / "Old.C+")
    assert_same(result["vz"], plain(root, "Old", "", paths)["vz"])


def test_a_selector_can_be_interpreted(queries, root, place, paths):
    text = (
        (place / "Old.C")
        .read_text()
        .replace("Old", "Interpreted")
        .replace("ClassDefOverride(Interpreted, 0);", "")
    )
    (place / "Interpreted.C").write_text(text)
    result = process(queries, [part(paths[:3])], place / "Interpreted.C")
    assert result["vz"].GetEntries() == sum(FILES[:3])


def test_an_edited_selector_is_the_one_that_runs(queries, place, paths):
    for bins in (10, 20):
        text = READER.replace("Reader", "Edited").replace("100, 0, 10", f"{bins}, 0, 10")
        (place / "Edited.C").write_text(text.replace("TTreeEdited", "TTreeReader"))
        result = process(queries, [part(paths[:3])], place / "Edited.C+")
        assert result["pt"].GetNbinsX() == bins
        assert result.summary.events == sum(FILES[:3])


def test_another_session_of_the_process_takes_a_selector_as_it_is_loaded(
    queries, root, cluster, place, paths
):
    process(queries, [part(paths[:1])], place / "Reader.C+")
    again = CodeStore(root, cluster.cache, renames=True).load(collect(f"{place / 'Reader.C'}+"))
    assert again.class_name == "Reader"


def test_a_library_is_not_used_with_another_installation_of_root(root, cluster, place):
    bundle = collect(f"{place / 'Reader.C'}+")
    version = root.gROOT.GetVersion()
    elsewhere = SimpleNamespace(GetSharedLibDir=lambda: "/elsewhere/lib", GetVersion=lambda: version)
    here = CodeStore(root, cluster.cache, renames=True)
    there = CodeStore(SimpleNamespace(gROOT=elsewhere), cluster.cache, renames=True)
    assert here._place(bundle) != there._place(bundle)


def test_friends_whose_files_are_cut_differently(queries, root, place, paths):
    total, cuts = sum(FILES), (7, 40_000, 0, 30_000)
    sizes = [*cuts, total - sum(cuts)]
    friends, offset = [], 0
    for number, entries in enumerate(sizes):
        friends.append(place / f"friend{number}.root")
        root.make_file(str(friends[-1]), "others", entries, offset, True)
        offset += entries
    parts = [part(paths), part(friends, "others", "other")]
    result = process(queries, parts, place / "Friends.C+")
    assert result["same"].GetBinContent(2) == total
    assert result["same"].GetBinContent(1) == 0
    assert result["sum"].GetSumOfWeights() == pytest.approx(sum(1 / (1 + i % 7) for i in range(total)))


def test_trees_of_many_directories_count_as_one(queries, root, place, paths, frames):
    for selector, outputs in (("Reader", ("pt", "eta_vz", "prof")), ("Old", ("vz",))):
        for _ in range(2):  # by the second time the entries of all files are known
            result = process(queries, [part(frames, "DF_*/O2track")], place / f"{selector}.C+")
            expected = plain(root, selector, "", paths)
            for name in outputs:
                assert_same(result[name], expected[name])
            assert result.summary.events == sum(FILES)


def test_one_of_many_trees_is_read_by_its_name(queries, place, frames):
    result = process(queries, [part(frames[:1], "DF_002/O2track")], place / "Reader.C+")
    assert result.summary.events == FRAMES[0][2]


def test_friends_of_many_trees_are_aligned_whatever_the_directories(queries, root, place, frames):
    cuts = [60_000, 7, 0, 3_000]
    sizes = [cuts[:2], cuts[2:], [sum(FILES) - sum(cuts) - 9, 9]]
    others = make_frames(root, place, "extra", "O2extra", sizes, extra=True)
    parts = [part(frames, "DF_*/O2track"), part(others, "DF_*/O2extra", "other")]
    result = process(queries, parts, place / "Friends.C+")
    assert result["same"].GetBinContent(2) == result.summary.events == sum(FILES)
    assert result["same"].GetBinContent(1) == 0
    expected = sum(1 / (1 + i % 7) for i in range(sum(FILES)))
    assert result["sum"].GetSumOfWeights() == pytest.approx(expected)


def test_members_of_zip_archives_are_read_in_place(queries, root, place, paths, frames):
    with zipfile.ZipFile(place / "all.zip", "w") as archive:  # stored, not compressed
        for path in frames:
            archive.write(path, path.name)
    members = [(f"{place}/all.zip#{path.name}", -1) for path in frames]
    files = [{"name": n, "kind": "path", "size": size, "replicas": []} for n, size in members]
    result = process(queries, [{"tree": "DF_*/O2track", "alias": "", "files": files}], place / "Reader.C+")
    assert_same(result["pt"], plain(root, "Reader", "", paths)["pt"])


def test_a_pattern_that_no_tree_matches_says_what_trees_there_are(queries, place, frames):
    with pytest.raises(MissingFiles, match=r"no tree .DF_\*/O2trakc.*there: DF_000/O2track, DF_001/O2track"):
        process(queries, [part(frames[:1], "DF_*/O2trakc")], place / "Reader.C+")


def test_a_friend_that_is_too_short_is_an_error(queries, root, place, paths):
    short = place / "short.root"
    root.make_file(str(short), "others", 10, 0, True)
    with pytest.raises(QueryError, match=r"has 10 entries, the dataset has 20000"):
        process(queries, [part(paths[:1]), part([short], "others", "other")], place / "Friends.C+")


def test_a_selector_that_throws_says_where(queries, place, paths):
    with pytest.raises(SelectorError, match=r"runtime_error: no such luck at entry \d+ of .*\.root"):
        process(queries, [part(paths)], place / "Broken.C+", "throw")


def test_a_selector_that_aborts_fails(queries, place, paths):
    with pytest.raises(SelectorError, match="called Abort"):
        process(queries, [part(paths)], place / "Broken.C+", "abort")


def test_a_selector_that_does_not_compile_shows_the_compilers_message(queries, place, paths):
    (place / "Wrong.C").write_text(
        "#include <TSelector.h>\nclass Wrong : public TSelector { int x = nonsense; };\n"
    )
    with pytest.raises(CompileError, match="nonsense"):
        process(queries, [part(paths)], place / "Wrong.C+")


def test_a_file_without_that_tree_names_the_trees_it_has(queries, place, paths):
    with pytest.raises(MissingFiles, match=r'no tree "nothing" in it; trees there: events'):
        process(queries, [part(paths[:2], "nothing")], place / "Reader.C+")


def test_a_truncated_file_fails_or_is_skipped(queries, place, paths):
    cut = place / "truncated.root"
    cut.write_bytes(paths[0].read_bytes()[:40_000])
    with pytest.raises(MissingFiles, match=r"truncated\.root"):
        process(queries, [part([paths[2], cut])], place / "Reader.C+")
    result = process(queries, [part([paths[2], cut])], place / "Reader.C+", on_missing="skip")
    assert result.summary.events == FILES[2]
    assert list(result.summary.missing_files) == [str(cut)]


def test_damage_inside_a_file_is_not_read_as_numbers(queries, place, paths):
    content = bytearray(paths[4].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20_000] = b"\x55" * 20_000
    damaged = place / "damaged.root"
    damaged.write_bytes(content)
    with pytest.raises(MissingFiles, match=r"damaged\.root"):
        process(queries, [part([damaged])], place / "Reader.C+")


def test_a_missing_branch_is_an_error_not_zeros(queries, place, paths):
    text = READER.replace('"vz"', '"nowhere"').replace("class Reader", "class NoBranch")
    (place / "NoBranch.C").write_text(text.replace("(Reader, 0)", "(NoBranch, 0)"))
    with pytest.raises(QueryError, match="nowhere"):
        process(queries, [part(paths[:1])], place / "NoBranch.C+")


@pytest.mark.parametrize("selector", ["Reader", "Old"])
def test_a_branch_that_one_of_the_trees_of_a_file_lacks_is_the_selectors_error(
    queries, root, place, selector
):
    uneven = place / f"uneven{selector}.root"
    root.make_uneven(str(uneven), "O2track")
    text = {"Reader": READER, "Old": OLD_STYLE}[selector]
    name = f"Uneven{selector}"
    text = (
        text.replace('"vz"', '"weight"')
        .replace("float vz", "double vz")
        .replace("Value<float> vz", "Value<double> vz")
    )
    text = text.replace(f"class {selector}", f"class {name}").replace(f"({selector}, 0)", f"({name}, 0)")
    (place / f"{name}.C").write_text(text)
    with pytest.raises(SelectorError, match=r"weight.*the branches are pt, eta, vz, id;"):
        process(queries, [part([uneven], "DF_*/O2track")], place / f"{name}.C+")


def test_results_survive_the_death_of_workers(queries, cluster, root, place, paths):
    killed = []

    def kill_one(progress):
        if progress.events > 10_000 and not killed:
            victim = cluster.workers(3)[0]
            killed.append(victim["pid"])
            os.kill(victim["pid"], signal.SIGKILL)

    text = READER.replace("class Reader", "class Lost").replace("(Reader, 0)", "(Lost, 0)")
    text = text.replace(
        "fReader.SetLocalEntry(entry);", "fReader.SetLocalEntry(entry); gSystem->Sleep(entry % 100 == 0);"
    )
    (place / "Lost.C").write_text("#include <TSystem.h>\n" + text)
    result = process(queries, [part(paths)], place / "Lost.C+", watch=kill_one)
    assert killed
    assert_same(result["pt"], plain(root, "Lost", "", paths)["pt"])
    cluster.workers(3)


def test_a_selector_that_crashes_fails_its_query_and_not_the_session(queries, cluster, root, place, paths):
    cluster.workers(3)
    with pytest.raises(SelectorError, match="workers died"):
        process(queries, [part(paths[:1])], place / "Broken.C+", "crash")
    assert "Broken::Process" in cluster.log() or "Broken7Process" in cluster.log()
    cluster.workers(3)
    result = process(queries, [part(paths[:3])], place / "Old.C+")
    assert result["vz"].GetEntries() == sum(FILES[:3])


def test_a_class_that_load_made_known_can_be_named(queries, place, paths):
    (place / "loaded.h").write_text("#pragma once\ninline int answer() { return 42; }\n")
    queries.load(str(place / "loaded.h"))
    text = OLD_STYLE.replace("Old", "UsesLoaded").replace(
        "#include <TTree.h>", '#include <TTree.h>\n#include "loaded.h"'
    )
    (place / "UsesLoaded.C").write_text(text.replace("h->Fill(vz, 1 + id % 3)", "h->Fill(answer())"))
    queries.load(f"{place / 'UsesLoaded.C'}+")
    result = process(queries, [part(paths[:1])], "UsesLoaded")
    assert result["vz"].GetEntries() == FILES[0]


def test_a_library_and_a_macro_that_load_made_known_are_there_on_the_workers(
    queries, cluster, root, place, paths
):
    (place / "library.C").write_text('extern "C" int library_answer() { return 21; }\n')
    built = CodeStore(root, cluster.cache, renames=True).build(collect(f"{place / 'library.C'}+"))
    library = place / "libanswer.so"
    library.write_bytes(built.read_bytes())
    (place / "twice.C").write_text("int twice(int x) { return 2 * x; }\n")
    queries.load(str(library))
    queries.load(str(place / "twice.C"))
    text = OLD_STYLE.replace("Old", "UsesLibrary").replace(
        "#include <TTree.h>",
        '#include <TTree.h>\n#include <TInterpreter.h>\nextern "C" int library_answer();',
    )
    weight = 'gInterpreter->Calc("twice(1)") * library_answer()'
    text = text.replace("int notified = 0;", f"int notified = 0; const double weight = {weight};")
    (place / "UsesLibrary.C").write_text(text.replace("1 + id % 3", "weight"))
    result = process(queries, [part(paths[:1])], place / "UsesLibrary.C+")
    inside = sum(result["vz"].GetBinContent(i) for i in range(52))
    assert inside == 42 * FILES[0]


def test_results_can_be_saved(queries, root, place, paths, tmp_path):
    result = process(queries, [part(paths[:1])], place / "Old.C+")
    result.save(tmp_path / "out.root")
    file = root.TFile.Open(str(tmp_path / "out.root"))
    assert file.Get("vz").GetEntries() == FILES[0]
    file.Close()
    with pytest.raises(KeyError, match="vz"):
        result["vzz"]
    with pytest.raises(QueryError, match="cannot be written"):
        result.save(Path("/proc/nothing.root"))
