// Spectrum: what every benchmark runs. Counts of accepted tracks in pT and in (eta, phi).
//
// Inputs   burn   TParameter<Long64_t>: rounds of arithmetic per event, to make it dearer (default 0)
//          every  TParameter<Long64_t>: events between two waits (default 0: none)
//          wait   TParameter<Long64_t>: length of a wait in µs

#ifndef Spectrum_h
#define Spectrum_h

#include "work.h"

#include <TSelector.h>
#include <TTreeReader.h>
#include <TTreeReaderArray.h>
#include <TTreeReaderValue.h>

class TH1D;
class TH2D;

class Spectrum : public TSelector {
public:
   Int_t Version() const override { return 2; }
   void SlaveBegin(TTree *) override;
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   Bool_t Process(Long64_t entry) override;

private:
   Long64_t Parameter(const char *name) const;

   TTreeReader fReader;  //!
   TTreeReaderValue<Float_t> fVertexZ{fReader, "vertexZ"};  //!
   TTreeReaderArray<Float_t> fPt{fReader, "pt"};            //!
   TTreeReaderArray<Float_t> fEta{fReader, "eta"};          //!
   TTreeReaderArray<Float_t> fPhi{fReader, "phi"};          //!

   work::Load fLoad;       //!
   TH1D *fHistPt = nullptr;      //!
   TH2D *fHistEtaPhi = nullptr;  //!

   ClassDefOverride(Spectrum, 0);
};

#endif
