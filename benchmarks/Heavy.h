// A selector of 20 MB of histograms, which waits instead of computing.

#ifndef HEAVY_H
#define HEAVY_H

#include <TH1D.h>
#include <TH2F.h>
#include <TParameter.h>
#include <TProfile.h>
#include <TSelector.h>
#include <TTree.h>

#include <chrono>
#include <thread>
#include <vector>

class Heavy : public TSelector {
   std::vector<TH1 *> fHistograms;
   Long64_t fWait = 0; // us for each entry

public:
   int Version() const override { return 2; }
   void SlaveBegin(TTree *) override;
   bool Process(Long64_t entry) override;
   ClassDefOverride(Heavy, 0);
};

#endif
