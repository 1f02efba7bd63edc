#include "Spectrum.h"

#include <TH1D.h>
#include <TH2D.h>
#include <TMath.h>
#include <TParameter.h>

#include <cmath>

Long64_t Spectrum::Parameter(const char *name) const
{
   auto parameter = fInput ? dynamic_cast<TParameter<Long64_t> *>(fInput->FindObject(name)) : nullptr;
   return parameter ? parameter->GetVal() : 0;
}

void Spectrum::SlaveBegin(TTree *)
{
   fLoad.burn = Parameter("burn");
   fLoad.every = Parameter("every");
   fLoad.wait = Parameter("wait");
   fHistPt = new TH1D("pt", ";#it{p}_{T} (GeV/#it{c});tracks", 100, 0., 10.);
   fHistEtaPhi = new TH2D("etaPhi", ";#eta;#varphi (rad);tracks", 36, -0.9, 0.9, 72, 0., TMath::TwoPi());
   for (TH1 *histogram : {(TH1 *)fHistPt, (TH1 *)fHistEtaPhi}) {
      histogram->SetDirectory(nullptr);  // fOutput owns it, no file does
      fOutput->Add(histogram);
   }
}

Bool_t Spectrum::Process(Long64_t entry)
{
   fReader.SetLocalEntry(entry);
   fLoad.Event(*fVertexZ);
   if (std::fabs(*fVertexZ) > 10.f)
      return kTRUE;
   for (std::size_t i = 0; i < fPt.GetSize(); ++i) {
      if (fPt[i] < 0.3f)
         continue;
      fHistPt->Fill(fPt[i]);
      fHistEtaPhi->Fill(fEta[i], fPhi[i]);
   }
   return kTRUE;
}
