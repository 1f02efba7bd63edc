// PtSpectrum: transverse-momentum spectrum and friends from an event summary tree.
//
// A TSelector for trees with, per event, a vertex and arrays of tracks (see MakeEsd.C for how one is
// made). Runs as it stands with TChain::Process and with gridproof's session.process.
//
// Inputs   minPt    TParameter<double>, GeV/c: tracks below it are not counted (default 0.15)
//          maxZ     TParameter<double>, cm: events further out in z are not counted (default 10)
// Outputs  pt            counts per bin, logarithmic bins
//          etaPhi        counts in eta and phi
//          meanPt        mean pT against eta
//          vertexZ       z of the vertex, all events
//          multiplicity  tracks per accepted event; its entries are the accepted events
//          yield         1/N d2N/(dpT deta), made of pt in Terminate

#ifndef PtSpectrum_h
#define PtSpectrum_h

#include <TSelector.h>
#include <TTreeReader.h>
#include <TTreeReaderArray.h>
#include <TTreeReaderValue.h>

class TH1D;
class TH2D;
class TProfile;

class PtSpectrum : public TSelector {
public:
   Int_t Version() const override { return 2; }  // Process(entry) returns whether to go on
   void Begin(TTree *) override {}
   void SlaveBegin(TTree *) override;
   void Init(TTree *tree) override { fReader.SetTree(tree); }
   Bool_t Notify() override { return kTRUE; }
   Bool_t Process(Long64_t entry) override;
   void SlaveTerminate() override {}
   void Terminate() override;

private:
   double Parameter(const char *name, double otherwise) const;

   TTreeReader fReader;  //!
   TTreeReaderValue<Float_t> fVertexZ{fReader, "vertexZ"};  //!
   TTreeReaderArray<Float_t> fPt{fReader, "pt"};            //!
   TTreeReaderArray<Float_t> fEta{fReader, "eta"};          //!
   TTreeReaderArray<Float_t> fPhi{fReader, "phi"};          //!

   double fMinPt = 0;  //!
   double fMaxZ = 0;   //!

   // Made in SlaveBegin and handed to fOutput, which owns them from then on.
   TH1D *fHistPt = nullptr;            //!
   TH2D *fHistEtaPhi = nullptr;        //!
   TProfile *fHistMeanPt = nullptr;    //!
   TH1D *fHistVertexZ = nullptr;       //!
   TH1D *fHistMultiplicity = nullptr;  //!

   ClassDefOverride(PtSpectrum, 0);
};

#endif
