// A file that a selector writes, for trees and whatever is too large for memory.
//
//    fOut = new gridproof::OutputFile("skim.root");      // SlaveBegin
//    fOut->OpenFile("RECREATE");
//    fTree = new TTree("skim", "");                      // it lies in that file
//    ...
//    fOut->Close();                                      // SlaveTerminate: writes what is in it
//    fOutput->Add(fOut);
//
// With gridproof each selector instance writes a file of its own on its worker; all are merged, trees entry by
// entry and the rest as outputs in memory are. Terminate finds the merged file under its name in fOutput, and
// OpenFile("READ") opens it. With plain TChain::Process the file is written where ROOT runs.

#ifndef GRIDPROOF_OUTPUTFILE_H
#define GRIDPROOF_OUTPUTFILE_H

#include <functional>
#include <stdexcept>
#include <string>

#include <TFile.h>
#include <TNamed.h>
#include <TROOT.h>
#include <TSystem.h>

namespace gridproof {

// Without ClassDef: each library that includes this would bring a dictionary of its own.
class OutputFile : public TNamed {
   std::string fPath;                   //! where it is
   std::function<std::string()> fFetch; // gives its path, for a file that is not here yet

public:
   OutputFile() = default;

   // `name`: without directories; it is the output's name too.
   explicit OutputFile(const char *name) : TNamed(name, "")
   {
      if (fName.IsNull() || fName.Contains("/"))
         throw std::invalid_argument("an output file has a name without directories, not \"" + std::string(name) + "\"");
      const char *directory = gSystem->Getenv("GRIDPROOF_OUTPUTS"); // set on workers
      fPath = directory ? std::string(directory) + "/" + name : name;
   }

   OutputFile(const char *name, std::function<std::string()> fetch) : TNamed(name, ""), fFetch(fetch) {}

   const char *Path()
   {
      if (fPath.empty() && fFetch)
         fPath = fFetch();
      return fPath.c_str();
   }

   // The file as long as it is open, or null.
   TFile *File() { return static_cast<TFile *>(gROOT->GetListOfFiles()->FindObject(Path())); }

   // `option` as in TFile::Open. The file becomes the current directory.
   TFile *OpenFile(const char *option = "RECREATE")
   {
      if (auto open = File(); open && open->IsWritable())
         throw std::runtime_error("output file " + std::string(fName) + " is open already; each needs a name of its own");
      auto file = TFile::Open(Path(), option);
      if (!file || file->IsZombie())
         throw std::runtime_error("output file " + std::string(Path()) + " cannot be opened");
      return file;
   }

   // Writes what is in the file, and closes it.
   void Close()
   {
      auto file = File();
      if (!file)
         return;
      if (file->IsWritable())
         file->Write(nullptr, TObject::kOverwrite);
      file->Close();
      delete file;
   }
};

} // namespace gridproof

#endif
