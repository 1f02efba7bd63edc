// A selector that uses what selectors use, so that a process has met it all before its first query.

#ifndef GRIDPROOF_WARMUP_H
#define GRIDPROOF_WARMUP_H

#include <TFile.h>
#include <TH1D.h>
#include <TH2D.h>
#include <TProfile.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTree.h>
#include <TTreeReader.h>
#include <TTreeReaderArray.h>
#include <TTreeReaderValue.h>
#include <vector>

namespace gridproof {

inline void WriteSample(const char *path) {
   TDirectory::TContext nowhere(nullptr);
   TFile file(path, "RECREATE");
   auto tree = new TTree("sample", "");
   float x = 1;
   std::vector<float> many{1, 2, 3};
   tree->Branch("x", &x);
   tree->Branch("many", &many);
   for (int i = 0; i < 10; ++i)
      tree->Fill();
   file.Write();
}

class WarmUp : public TSelector {
   TTreeReader fReader;
   TTreeReaderValue<float> fX = {fReader, "x"};
   TTreeReaderArray<float> fMany = {fReader, "many"};
   TH1D *fH1 = nullptr;
   TH2D *fH2 = nullptr;
   TProfile *fProfile = nullptr;

public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override {
      fOutput->Add(fH1 = new TH1D("h1", "", 10, 0, 10));
      fOutput->Add(fH2 = new TH2D("h2", "", 10, 0, 10, 10, 0, 10));
      fOutput->Add(fProfile = new TProfile("profile", "", 10, 0, 10));
   }
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   bool Process(Long64_t entry) override {
      fReader.SetLocalEntry(entry);
      for (auto value : fMany) {
         fH1->Fill(value);
         fH2->Fill(value, *fX);
         fProfile->Fill(value, *fX);
      }
      return true;
   }
};

} // namespace gridproof

#endif
