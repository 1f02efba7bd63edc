"""An embedded Grid with real data on it, for the tests that need everything."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridproof import _root
from gridproof.localgrid import Limits, LocalGrid

FILES, ENTRIES = 6, 60_000

_MAKE = """
#include <TFile.h>
#include <TRandom3.h>
#include <TTree.h>
void make_events(const char *name, int entries, int seed, double tracks) {
   TFile file(name, "RECREATE");
   TTree tree("events", "");
   std::vector<float> pt; float vz; Long64_t id;
   tree.Branch("pt", &pt); tree.Branch("vz", &vz); tree.Branch("id", &id);
   tree.SetAutoFlush(2000);
   TRandom3 random(seed);
   for (Long64_t i = 0; i < entries; ++i) {
      pt.clear();
      for (int k = random.Poisson(tracks); k > 0; --k) pt.push_back(random.Exp(1));
      vz = random.Gaus(0, 5); id = i;
      tree.Fill();
   }
   tree.Write();
}
"""

_SELECTOR = """
#include <TH1D.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTreeReader.h>
#include <TTreeReaderArray.h>
#include <TTreeReaderValue.h>
#include <cstdlib>
#include <stdexcept>
class Slow : public TSelector {
   TTreeReader fReader;
   TTreeReaderArray<float> pt = {fReader, "pt"};
   TTreeReaderValue<Long64_t> id = {fReader, "id"};
   TH1D *hpt = nullptr, *hid = nullptr;
   TString how;
public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      how = GetOption();
      fOutput->Add(hpt = new TH1D("pt", "", 100, 0, 10));
      fOutput->Add(hid = new TH1D("id", "", 60, 0, 60000));
   }
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   bool Process(Long64_t entry) override {
      fReader.SetLocalEntry(entry);
      for (auto value : pt) hpt->Fill(value);
      hid->Fill(*id);
      if (*id % 100 == 0 && how.BeginsWith("wait")) gSystem->Sleep(how.Length());
      if (*id == 30000 && how == "throw") throw std::runtime_error("as asked");
      if (*id == 30000 && how == "crash") std::abort();
      return true;
   }
   ClassDefOverride(Slow, 0);
};
"""


@dataclass
class World:
    """A running Grid, files on it, and a selector for them."""

    grid: LocalGrid
    directory: Path
    files: list[Path]
    events: int

    @property
    def selector(self) -> str:
        return f"{self.directory / 'Slow.C'}+"

    pattern = "/local/data/*.root"

    def histogram(self, name: str = "pt"):
        """What a plain loop over the files fills."""
        root = _root.load()
        frame = root.RDataFrame("events", [str(f) for f in self.files])
        bins = (100, 0, 10) if name == "pt" else (60, 0, 60_000)
        return frame.Histo1D(("reference", "", *bins), name).GetValue().Clone()

    def assert_exact(self, result) -> None:
        """Every entry is in the result, and none twice."""
        assert result.summary.events == self.events
        for name in ("pt", "id"):
            ours, theirs = result[name], self.histogram(name)
            assert ours.GetEntries() == theirs.GetEntries()
            for cell in range(theirs.GetNcells()):
                assert ours.GetBinContent(cell) == theirs.GetBinContent(cell)


def make_world(grid: LocalGrid, directory: Path, files: int, entries: int, tracks: float) -> World:
    """Files and the selector, in the directory."""
    root = _root.load()
    if not hasattr(root, "make_events"):
        root.gInterpreter.Declare(_MAKE)
    (directory / "Slow.C").write_text(textwrap.dedent(_SELECTOR))
    paths = [directory / f"events{number}.root" for number in range(files)]
    for number, path in enumerate(paths):
        root.make_events(str(path), entries, number + 1, tracks)
    return World(grid, directory, paths, files * entries)


@pytest.fixture(scope="module")
def new_world():
    """`make_world`, for tests with a Grid of their own."""
    return make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with LocalGrid(sites=3, slots=2, limits=Limits(report_interval=0.5)) as grid:
        made = make_world(grid, tmp_path_factory.mktemp("world"), FILES, ENTRIES, tracks=3)
        for number, file in enumerate(made.files):
            ses = [grid.se_names[number % 3], grid.se_names[(number + 1) % 3]]
            grid.put(file, f"/local/data/{file.name}", ses=ses)
        yield made
