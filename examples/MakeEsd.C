// MakeEsd.C: writes a tree "esd" of simulated collisions, as small as an event summary can be.
//
//     root -b -q 'MakeEsd.C("esd.root", 200000, 1)'
//
// Per event a vertex (cm), and per charged track pT (GeV/c), pseudorapidity, azimuth (rad) and charge:
//   pT    Levy-Tsallis with the pion's mass, dN/dpT ~ pT (1 + (mT - m) / nT)^-n, kept above 0.15 GeV/c
//   eta   rapidity flat; so eta has the shallow dip at 0 that the mass makes; kept within 0.9
//   n     negative binomial, as multiplicities in pp are, thinned by the two cuts above
//   z     Gaussian of 5 cm, the length of the luminous region
// The same seed gives the same file content.

#include <TFile.h>
#include <TMath.h>
#include <TTree.h>

#include <cmath>
#include <random>

Long64_t MakeEsd(const char *fileName, Long64_t events, unsigned seed = 1)
{
   constexpr int kMaxTracks = 256;
   constexpr double kMass = 0.13957;                             // charged pion, GeV/c2
   constexpr int kN = 7;                                         // power of the tail
   constexpr double kNT = kN * 0.125;                            // n times T, GeV
   constexpr double kHeavy = kMass / (kMass + kNT / (kN - 2.));  // share of the mass term, see below
   constexpr double kMinPt = 0.15, kMaxEta = 0.9, kMaxY = 0.9;
   constexpr double kMeanTracks = 5.5, kShape = 1.5;             // negative binomial, before the cuts

   std::mt19937_64 engine(seed);
   auto uniform = [&engine] { return ((engine() >> 11) + 0.5) * 0x1p-53; };  // never 0 nor 1
   auto gauss = [&uniform] { return std::sqrt(-2. * std::log(uniform())) * std::cos(TMath::TwoPi() * uniform()); };

   double cumulative[kMaxTracks];
   double probability = std::pow(1. + kMeanTracks / kShape, -kShape);
   for (int n = 0; n < kMaxTracks; ++n) {
      cumulative[n] = (n ? cumulative[n - 1] : 0.) + probability;
      probability *= (n + kShape) / (n + 1.) * kMeanTracks / (kMeanTracks + kShape);
   }

   TFile file(fileName, "RECREATE", "", 401);  // LZ4, level 1: fast to read
   if (file.IsZombie())
      return -1;
   Int_t nTracks;
   Float_t vertexX, vertexY, vertexZ, pt[kMaxTracks], eta[kMaxTracks], phi[kMaxTracks];
   Char_t charge[kMaxTracks];
   TTree tree("esd", "simulated collisions");  // belongs to the file
   tree.SetAutoFlush(20000);                   // entries to a cluster
   tree.Branch("vertexX", &vertexX, "vertexX/F");
   tree.Branch("vertexY", &vertexY, "vertexY/F");
   tree.Branch("vertexZ", &vertexZ, "vertexZ/F");
   tree.Branch("nTracks", &nTracks, "nTracks/I");
   tree.Branch("pt", pt, "pt[nTracks]/F");
   tree.Branch("eta", eta, "eta[nTracks]/F");
   tree.Branch("phi", phi, "phi[nTracks]/F");
   tree.Branch("charge", charge, "charge[nTracks]/B");

   for (Long64_t event = 0; event < events; ++event) {
      vertexX = 0.08 + 0.003 * gauss();
      vertexY = 0.35 + 0.003 * gauss();
      vertexZ = 5. * gauss();
      const double chance = uniform();
      int produced = 0;
      while (produced < kMaxTracks - 1 && cumulative[produced] < chance)
         ++produced;
      nTracks = 0;
      for (int i = 0; i < produced; ++i) {
         // In E = mT - m the spectrum is (E + m)(1 + E/nT)^-n: two beta-prime distributions, each a
         // ratio of two gammas of whole order, each the logarithm of a product of uniforms.
         const int order = uniform() < kHeavy ? 1 : 2;
         double above = 1., below = 1.;
         for (int k = 0; k < order; ++k)
            above *= uniform();
         for (int k = 0; k < kN - order; ++k)
            below *= uniform();
         const double mT = kMass + kNT * std::log(above) / std::log(below);
         const double pT = std::sqrt(mT * mT - kMass * kMass);
         const double y = kMaxY * (2. * uniform() - 1.);
         const double pseudo = std::asinh(mT / pT * std::sinh(y));
         if (pT < kMinPt || std::fabs(pseudo) > kMaxEta)
            continue;
         pt[nTracks] = pT;
         eta[nTracks] = pseudo;
         phi[nTracks] = TMath::TwoPi() * uniform();
         charge[nTracks] = uniform() < 0.5 ? -1 : 1;
         ++nTracks;
      }
      tree.Fill();
   }
   return file.Write() > 0 ? tree.GetEntries() : -1;
}
