// ZMass: mass of muon pairs, for the classic Z -> mu mu tree of one pair per event
// (branches E1 px1 py1 pz1 Q1 and E2 px2 py2 pz2 Q2, in GeV).
//
// The older way to write a TSelector: branch addresses are set in Init, for each tree anew, and
// Process reads the branches that it needs. Header and code may share a file.

#include <TBranch.h>
#include <TH1D.h>
#include <TSelector.h>
#include <TTree.h>

#include <cmath>

class ZMass : public TSelector {
public:
   Int_t Version() const override { return 2; }
   void SlaveBegin(TTree *) override;
   void Init(TTree *tree) override;
   Bool_t Process(Long64_t entry) override;
   void Terminate() override;

private:
   static constexpr int kMuons = 2;
   TTree *fTree = nullptr;                              //! the tree at hand, not owned
   Double_t fE[kMuons], fPx[kMuons], fPy[kMuons], fPz[kMuons];  //!
   Int_t fCharge[kMuons];                               //!
   TH1D *fMass = nullptr;                               //! opposite charges
   TH1D *fLikeSign = nullptr;                           //! like charges: the background

   ClassDefOverride(ZMass, 0);
};

void ZMass::SlaveBegin(TTree *)
{
   fMass = new TH1D("mass", ";#it{m}_{#mu#mu} (GeV/#it{c}^{2});pairs", 120, 0., 120.);
   fLikeSign = new TH1D("likeSign", ";#it{m}_{#mu#mu} (GeV/#it{c}^{2});pairs", 120, 0., 120.);
   for (TH1D *histogram : {fMass, fLikeSign}) {
      histogram->SetDirectory(nullptr);
      fOutput->Add(histogram);
   }
}

// Called for the first tree and again whenever the chain goes on to the next one.
void ZMass::Init(TTree *tree)
{
   fTree = tree;
   if (!tree)
      return;
   tree->SetBranchStatus("*", false);
   auto read = [tree](const char *name, int muon, auto &value) {
      const TString branch = TString::Format("%s%d", name, muon + 1);
      tree->SetBranchStatus(branch, true);
      tree->SetBranchAddress(branch, &value);
   };
   for (int muon = 0; muon < kMuons; ++muon) {
      read("E", muon, fE[muon]);
      read("px", muon, fPx[muon]);
      read("py", muon, fPy[muon]);
      read("pz", muon, fPz[muon]);
      read("Q", muon, fCharge[muon]);
   }
}

Bool_t ZMass::Process(Long64_t entry)
{
   fTree->GetTree()->GetEntry(entry);
   const double e = fE[0] + fE[1], px = fPx[0] + fPx[1], py = fPy[0] + fPy[1], pz = fPz[0] + fPz[1];
   const double mass = std::sqrt(std::fmax(0., e * e - px * px - py * py - pz * pz));
   (fCharge[0] * fCharge[1] < 0 ? fMass : fLikeSign)->Fill(mass);
   return kTRUE;
}

void ZMass::Terminate()
{
   if (auto mass = dynamic_cast<TH1D *>(fOutput->FindObject("mass")))
      mass->SetTitle(TString::Format("%.0f pairs of opposite charge, peak at %.1f GeV", mass->GetEntries(),
                                     mass->GetBinCenter(mass->GetMaximumBin())));
}
