// process.C: a selector over a dataset on the Grid, its outputs saved to a file.
//
//     root -b -q 'macros/process.C("/local/demo/*.root", "esd", "examples/PtSpectrum.C+", 4, "out.root")'

#include "gridproof.h"

int process(const char *dataset, const char *tree, const char *selector, int workers, const char *output)
{
   std::unique_ptr<TList> outputs{gridproof::Process(dataset, tree, selector, workers)};
   if (!outputs)
      return 1;
   TFile file(output, "RECREATE");
   outputs->Print();
   outputs->Write();
   return 0;
}
