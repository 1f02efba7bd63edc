// Rivals.C: the same histograms by ROOT's own ways to use several cores of one machine.

#include "Spectrum.h"

#include <ROOT/RDataFrame.hxx>
#include <ROOT/TTreeProcessorMP.hxx>
#include <TH1D.h>
#include <TH2D.h>
#include <TList.h>
#include <TMath.h>
#include <TROOT.h>

#include <cmath>
#include <string>
#include <vector>

// TTreeProcessorMP with the very selector, in `workers` forked processes.
TList *ByProcesses(const std::vector<std::string> &files, TSelector &selector, unsigned workers)
{
   ROOT::TTreeProcessorMP pool(workers);
   return pool.Process(files, selector, "esd");
}

// RDataFrame, compiled, in `workers` threads.
TList *ByThreads(const std::vector<std::string> &files, unsigned workers)
{
   using Floats = ROOT::RVecF;
   ROOT::EnableImplicitMT(workers);
   ROOT::RDataFrame frame("esd", files);
   auto good = frame.Filter([](float z) { return std::fabs(z) <= 10.f; }, {"vertexZ"})
                  .Define("good", [](const Floats &pt) { return pt >= 0.3f; }, {"pt"});
   auto select = [](const Floats &values, const ROOT::RVecI &mask) { return values[mask]; };
   auto tracks = good.Define("goodPt", select, {"pt", "good"})
                    .Define("goodEta", select, {"eta", "good"})
                    .Define("goodPhi", select, {"phi", "good"});
   auto pt = tracks.Histo1D<Floats>({"pt", "", 100, 0., 10.}, "goodPt");
   auto etaPhi = tracks.Histo2D<Floats, Floats>({"etaPhi", "", 36, -0.9, 0.9, 72, 0., TMath::TwoPi()}, "goodEta",
                                                "goodPhi");
   auto found = new TList;
   found->SetOwner();
   for (TH1 *histogram : {(TH1 *)pt->Clone(), (TH1 *)etaPhi->Clone()}) {
      histogram->SetDirectory(nullptr);
      found->Add(histogram);
   }
   return found;
}
