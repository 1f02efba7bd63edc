// Files in the session's store, for selectors: session.store.put("calib.root", "calib.root"), and in SlaveBegin
//
//    std::unique_ptr<TFile> file(TFile::Open(gridproof::StoreUrl("calib.root").c_str()));

#ifndef GRIDPROOF_STORE_H
#define GRIDPROOF_STORE_H

#include <string>

#include <TSystem.h>

namespace gridproof {

// Where a worker reads and writes a file of the store; elsewhere, as with plain TChain::Process, a local file.
inline std::string StoreUrl(const std::string &name)
{
   const char *store = gSystem->Getenv("GRIDPROOF_STORE"); // set on workers
   return store ? store + name + "?remote=1" : name; // ROOT would take a server on this node for a local file
}

} // namespace gridproof

#endif
