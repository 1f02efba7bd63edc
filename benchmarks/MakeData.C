// MakeData.C: a tree "esd" laid out as in examples/MakeEsd.C, written fast and with all of ROOT's defaults
// (compression, cluster sizes). The same seed gives the same entries.

#include <TFile.h>
#include <TMath.h>
#include <TRandom3.h>
#include <TTree.h>

#include <algorithm>

Long64_t MakeData(const char *fileName, Long64_t events, unsigned seed)
{
   constexpr int kMaxTracks = 256;
   TRandom3 random(seed);
   TFile file(fileName, "RECREATE");
   if (file.IsZombie())
      return -1;
   Int_t nTracks;
   Float_t vertexX, vertexY, vertexZ, pt[kMaxTracks], eta[kMaxTracks], phi[kMaxTracks];
   Char_t charge[kMaxTracks];
   TTree tree("esd", "simulated collisions");  // belongs to the file
   tree.Branch("vertexX", &vertexX, "vertexX/F");
   tree.Branch("vertexY", &vertexY, "vertexY/F");
   tree.Branch("vertexZ", &vertexZ, "vertexZ/F");
   tree.Branch("nTracks", &nTracks, "nTracks/I");
   tree.Branch("pt", pt, "pt[nTracks]/F");
   tree.Branch("eta", eta, "eta[nTracks]/F");
   tree.Branch("phi", phi, "phi[nTracks]/F");
   tree.Branch("charge", charge, "charge[nTracks]/B");

   for (Long64_t event = 0; event < events; ++event) {
      vertexX = random.Gaus(0.08, 0.003);
      vertexY = random.Gaus(0.35, 0.003);
      vertexZ = random.Gaus(0., 5.);
      nTracks = std::min(kMaxTracks, int(random.Exp(4.5)));
      for (int i = 0; i < nTracks; ++i) {
         pt[i] = 0.15 + random.Exp(0.5);
         eta[i] = random.Uniform(-0.9, 0.9);
         phi[i] = random.Uniform(0., TMath::TwoPi());
         charge[i] = random.Rndm() < 0.5 ? -1 : 1;
      }
      tree.Fill();
   }
   return file.Write() > 0 ? tree.GetEntries() : -1;
}
