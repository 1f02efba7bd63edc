#include "Heavy.h"

void Heavy::SlaveBegin(TTree *) {
   if (auto wait = dynamic_cast<TParameter<Long64_t> *>(fInput->FindObject("wait")))
      fWait = wait->GetVal();
   for (int i = 0; i < 500; ++i)
      fHistograms.push_back(new TH1D(Form("spectrum%d", i), "", 1000, 0, 1000));
   for (int i = 0; i < 100; ++i)
      fHistograms.push_back(new TProfile(Form("mean%d", i), "", 1000, 0, 1000));
   for (int i = 0; i < 20; ++i)
      fHistograms.push_back(new TH2F(Form("plane%d", i), "", 400, 0, 1000, 400, 0, 1000));
   for (auto histogram : fHistograms)
      fOutput->Add(histogram);
}

bool Heavy::Process(Long64_t entry) {
   for (auto histogram : fHistograms)
      histogram->Fill(entry % 1000, entry % 777);
   std::this_thread::sleep_for(std::chrono::microseconds(fWait));
   return true;
}
