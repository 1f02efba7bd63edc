#include "PtSpectrum.h"

#include <TH1D.h>
#include <TH2D.h>
#include <TMath.h>
#include <TParameter.h>
#include <TProfile.h>

#include <cmath>
#include <vector>

namespace {
constexpr double kMaxEta = 0.9;

std::vector<double> LogBins(int bins, double low, double high)
{
   std::vector<double> edges;
   for (int i = 0; i <= bins; ++i)
      edges.push_back(low * std::pow(high / low, double(i) / bins));
   return edges;
}
}  // namespace

double PtSpectrum::Parameter(const char *name, double otherwise) const
{
   auto parameter = fInput ? dynamic_cast<TParameter<double> *>(fInput->FindObject(name)) : nullptr;
   return parameter ? parameter->GetVal() : otherwise;
}

// On each worker, before the first event: parameters in, histograms out.
void PtSpectrum::SlaveBegin(TTree *)
{
   fMinPt = Parameter("minPt", 0.15);
   fMaxZ = Parameter("maxZ", 10.);

   const auto edges = LogBins(50, 0.15, 30.);
   fHistPt = new TH1D("pt", ";#it{p}_{T} (GeV/#it{c});tracks", 50, edges.data());
   fHistEtaPhi = new TH2D("etaPhi", ";#eta;#varphi (rad);tracks", 36, -kMaxEta, kMaxEta, 72, 0., TMath::TwoPi());
   fHistMeanPt = new TProfile("meanPt", ";#eta;#LT#it{p}_{T}#GT (GeV/#it{c})", 36, -kMaxEta, kMaxEta);
   fHistVertexZ = new TH1D("vertexZ", ";#it{z} (cm);events", 100, -25., 25.);
   fHistMultiplicity = new TH1D("multiplicity", ";tracks;events", 100, -0.5, 99.5);
   for (TH1 *histogram : {(TH1 *)fHistPt, (TH1 *)fHistEtaPhi, (TH1 *)fHistMeanPt, (TH1 *)fHistVertexZ,
                          (TH1 *)fHistMultiplicity}) {
      histogram->SetDirectory(nullptr);  // fOutput owns it, no file does
      fOutput->Add(histogram);
   }
}

Bool_t PtSpectrum::Process(Long64_t entry)
{
   fReader.SetLocalEntry(entry);
   fHistVertexZ->Fill(*fVertexZ);
   if (std::fabs(*fVertexZ) > fMaxZ)
      return kTRUE;

   int accepted = 0;
   for (std::size_t i = 0; i < fPt.GetSize(); ++i) {
      if (fPt[i] < fMinPt)
         continue;
      fHistPt->Fill(fPt[i]);
      fHistEtaPhi->Fill(fEta[i], fPhi[i]);
      fHistMeanPt->Fill(fEta[i], fPt[i]);
      ++accepted;
   }
   fHistMultiplicity->Fill(accepted);
   return kTRUE;
}

// Where the query was asked, after the merge: fOutput holds the sums of all workers.
void PtSpectrum::Terminate()
{
   auto pt = dynamic_cast<TH1D *>(fOutput->FindObject("pt"));
   auto multiplicity = dynamic_cast<TH1D *>(fOutput->FindObject("multiplicity"));
   if (!pt || !multiplicity || multiplicity->GetEntries() == 0)
      return;
   auto yield = static_cast<TH1D *>(pt->Clone("yield"));
   yield->SetDirectory(nullptr);
   yield->Sumw2();
   yield->Scale(1. / (multiplicity->GetEntries() * 2. * kMaxEta), "width");
   yield->GetYaxis()->SetTitle("1/#it{N}_{ev} d^{2}#it{N}/(d#it{p}_{T}d#eta) (#it{c}/GeV)");
   fOutput->Add(yield);
}
