// gridproof.h: run a TSelector on the Grid from ROOT's C++ prompt.
//
//     root [0] #include "macros/gridproof.h"
//     root [1] auto outputs = gridproof::Process("/local/demo/*.root", "esd", "examples/PtSpectrum.C+", 6);
//     root [2] ((TH1 *)outputs->FindObject("pt"))->Draw();
//
// A thin bridge: the command `gridproof run` does the work, in a session that it opens and closes; its
// outputs come back through a file. The command must be on PATH, or $GRIDPROOF must name it.

#ifndef gridproof_h
#define gridproof_h

#include <TClass.h>
#include <TError.h>
#include <TFile.h>
#include <TH1.h>
#include <TKey.h>
#include <TList.h>
#include <TROOT.h>
#include <TString.h>
#include <TSystem.h>
#include <TTree.h>

#include <cerrno>
#include <memory>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <vector>

namespace gridproof {

// Runs a command without a shell in between, so that no name needs quoting; its exit code, or -1.
inline int Run(std::vector<std::string> words)
{
   std::vector<char *> argv;
   for (auto &word : words)
      argv.push_back(&word[0]);
   argv.push_back(nullptr);
   pid_t pid;
   if (posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) {
      ::Error("gridproof::Run", "%s cannot be started: put it on PATH or name it in $GRIDPROOF", argv[0]);
      return -1;
   }
   int status = 0;
   while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
   }
   return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Processes a dataset (an LFN pattern, an LFN, a root:// URL or a path) with a selector on so many workers.
// Returns the selector's outputs in a list that owns them and belongs to the caller, or nullptr.
inline TList *Process(const char *dataset, const char *tree, const char *selector, int workers = 2,
                      const char *option = "", const char *grid = "local")
{
   TString path = "gridproof_";
   if (FILE *file = gSystem->TempFileName(path, nullptr, ".root"))
      fclose(file);
   const char *command = gSystem->Getenv("GRIDPROOF");
   const int code = Run({command ? command : "gridproof", "run", "--tree", tree, "--workers", std::to_string(workers),
                         "--option", option, "--grid", grid, "--output", path.Data(), "--", selector, dataset});
   TList *outputs = nullptr;
   if (code == 0) {
      TDirectory::TContext here;  // gDirectory is afterwards what it was
      if (std::unique_ptr<TFile> file{TFile::Open(path)}) {
         outputs = new TList;
         outputs->SetOwner();
         for (TObject *key : *file->GetListOfKeys()) {
            TObject *object = static_cast<TKey *>(key)->ReadObj();
            if (auto histogram = dynamic_cast<TH1 *>(object)) {
               histogram->SetDirectory(nullptr);
            } else if (auto stored = dynamic_cast<TTree *>(object)) {
               gROOT->cd();
               object = stored->CloneTree();
            }
            outputs->Add(object);
         }
      }
   }
   gSystem->Unlink(path);
   return outputs;
}

}  // namespace gridproof

#endif
