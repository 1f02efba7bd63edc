// What the engine does with ROOT objects, in C++ so that it runs without Python's lock:
// the event loop over a packet and a selector instance's life. Trees are in source.h, merging is in merge.h.
// Declared to Cling by gridproof.engine.runtime.

#ifndef GRIDPROOF_RUNTIME_H
#define GRIDPROOF_RUNTIME_H

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <TBufferFile.h>
#include <TClass.h>
#include <TFile.h>
#include <TInterpreter.h>
#include <TList.h>
#include <TMap.h>
#include <TNamed.h>
#include <TROOT.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTree.h>

#include <gridproof/OutputFile.h>

#include "errors.h"
#include "source.h"

namespace gridproof {

// ---------------------------------------------------------------- outcomes

// Set by another thread to end the packet at its next entry.
inline std::atomic<bool> &Stop() {
   static std::atomic<bool> stop{false};
   return stop;
}

inline std::uintptr_t StopAddress() { return reinterpret_cast<std::uintptr_t>(&Stop()); }

// Another thread sees by it whether a packet gets on.
inline std::atomic<Long64_t> &CurrentEntry() {
   static std::atomic<Long64_t> entry{-1};
   return entry;
}

inline std::uintptr_t CurrentEntryAddress() { return reinterpret_cast<std::uintptr_t>(&CurrentEntry()); }

struct Outcome {
   std::string kind;      // "" good, "read", "tree", "selector", "memory", "stopped"
   std::string message;
   Long64_t processed{0}; // entries
   Long64_t bytes{0};     // read from storage
};

inline Outcome Failure(const std::string &kind, const std::string &message) {
   Outcome outcome;
   outcome.kind = kind;
   outcome.message = message;
   return outcome;
}

template <typename F>
std::string Guarded(const char *where, F &&call) {
   try {
      call();
   } catch (const std::exception &error) {
      auto cl = TClass::GetClass(typeid(error));
      return std::string(where) + " threw " + (cl ? cl->GetName() : "an exception") + ": " + error.what();
   } catch (...) {
      return std::string(where) + " threw something that is no std::exception";
   }
   return "";
}

// ---------------------------------------------------------------- objects to bytes and back

struct Bytes {
   std::unique_ptr<TBufferFile> buffer;
   explicit Bytes(std::size_t size) : buffer(std::make_unique<TBufferFile>(TBuffer::kWrite, size)) {}
   std::uintptr_t Address() const { return reinterpret_cast<std::uintptr_t>(buffer->Buffer()); }
   Long64_t Length() const { return buffer->Length(); }
};

inline Bytes *Pack(TCollection *objects) {
   auto bytes = new Bytes(64 * 1024);
   bytes->buffer->WriteObjectAny(objects, objects->IsA());
   return bytes;
}

// Null if the bytes are no list. The caller owns list and objects.
inline TList *Unpack(std::uintptr_t address, Long64_t length) {
   TDirectory::TContext nowhere(nullptr);
   TBufferFile buffer(TBuffer::kRead, length, reinterpret_cast<void *>(address), kFALSE);
   auto list = static_cast<TList *>(buffer.ReadObjectAny(TList::Class()));
   if (list)
      list->SetOwner();
   return list;
}

// Class names of all objects in a collection and in the collections in it.
inline void AddClasses(const TCollection &objects, std::set<std::string> &names) {
   TIter next(&objects); // of a map it gives the keys, unlike a range
   while (auto object = next()) {
      names.insert(object->ClassName());
      if (auto inner = dynamic_cast<TCollection *>(object))
         AddClasses(*inner, names);
      if (auto map = dynamic_cast<const TMap *>(&objects))
         if (auto value = map->GetValue(object))
            names.insert(value->ClassName());
   }
}

// A selector's input. Python's objects in it may be gone before it is: it does not look at them then.
class InputList : public TList {
public:
   ~InputList() override { Clear("nodelete"); }
};

// ---------------------------------------------------------------- one life of a selector

struct WrittenFile {
   std::string name, path;
};

// Closes what a selector has left open of files that nobody wants.
inline void DropOutputFiles() {
   const std::string directory = gSystem->Getenv("GRIDPROOF_OUTPUTS") ? gSystem->Getenv("GRIDPROOF_OUTPUTS") : "";
   std::vector<TFile *> dropped;
   for (auto file : *gROOT->GetListOfFiles())
      if (!directory.empty() && std::string(file->GetName()).compare(0, directory.size() + 1, directory + "/") == 0)
         dropped.push_back(static_cast<TFile *>(file));
   for (auto file : dropped) {
      file->SetWritable(kFALSE);
      delete file;
   }
}

// A virtual worker: SlaveBegin, some packets, SlaveTerminate.
class Instance {
   std::unique_ptr<TSelector> fSelector;
   TList *fInput; // not owned
   Source *fSource{nullptr};
   TTree *fTree{nullptr}; // of fSource
   bool fBegun{false};

   template <typename F>
   std::string Guarded(const char *where, F &&call) {
      return gridproof::Guarded(where, [&] {
         try {
            call();
         } catch (const std::bad_alloc &) {
            starved = true;
            throw;
         }
      });
   }

public:
   std::string problem;
   bool starved{false}; // memory was refused
   std::vector<WrittenFile> files;

   Instance(const std::string &class_name, const std::string &option, TList *input) : fInput(input) {
      TDirectory::TContext nowhere(gROOT);
      auto cl = TClass::GetClass(class_name.c_str());
      if (!cl || !cl->InheritsFrom(TSelector::Class())) {
         problem = "there is no TSelector class \"" + class_name + "\"";
         return;
      }
      problem = Guarded("the selector's constructor", [&] {
         if (auto object = cl->New())
            fSelector.reset(static_cast<TSelector *>(cl->DynamicCast(TSelector::Class(), object)));
      });
      if (!problem.empty())
         return;
      if (!fSelector) {
         problem = "class \"" + class_name + "\" has no default constructor";
         return;
      }
      fSelector->SetInputList(fInput);
      fSelector->SetOption(option.c_str());
   }

   ~Instance() {
      try {
         TDirectory::TContext nowhere(gROOT);
         fSelector.reset();
         DropOutputFiles();
      } catch (...) {
      }
   }

   TSelector *Selector() const { return fSelector.get(); }

   std::string Aborted(const char *where) const {
      return fSelector->GetAbort() == TSelector::kAbortProcess
                ? std::string(where) + " called Abort" : std::string();
   }

   std::string Begin() {
      TDirectory::TContext nowhere(gROOT);
      auto thrown = Guarded("Begin", [&] { fSelector->Begin(nullptr); });
      return thrown.empty() ? Aborted("Begin") : thrown;
   }

   std::string SlaveBegin() {
      TDirectory::TContext nowhere(gROOT);
      auto thrown = Guarded("SlaveBegin", [&] { fSelector->SlaveBegin(nullptr); });
      return thrown.empty() ? Aborted("SlaveBegin") : thrown;
   }

   // Closes the output files too, of which `files` then tells.
   std::string SlaveTerminate() {
      TDirectory::TContext nowhere(gROOT);
      Errors().Reset();
      auto problem = Guarded("SlaveTerminate", [&] {
         fSelector->SlaveTerminate();
         for (auto object : *fSelector->GetOutputList())
            if (auto file = dynamic_cast<OutputFile *>(object)) {
               file->Close();
               if (!gSystem->AccessPathName(file->Path())) // it was opened
                  files.push_back({file->GetName(), file->Path()});
            }
      });
      return Errors().writing ? CannotWrite(Errors().First()) : problem;
   }

   std::string Terminate() {
      TDirectory::TContext nowhere(gROOT);
      return Guarded("Terminate", [&] { fSelector->Terminate(); });
   }

   // The outputs but for the files.
   Bytes *Output() {
      TList outputs;
      for (auto object : *fSelector->GetOutputList())
         if (!dynamic_cast<OutputFile *>(object))
            outputs.Add(object);
      auto bytes = Pack(&outputs);
      outputs.Clear("nodelete");
      return bytes;
   }

   std::vector<std::string> OutputClasses() const {
      std::set<std::string> names;
      AddClasses(*fSelector->GetOutputList(), names);
      return {names.begin(), names.end()};
   }

   // Runs entries [first, last) of the source.
   Outcome Process(Source &source, Long64_t first, Long64_t last) {
      Outcome outcome;
      const auto &stop = Stop();
      auto &current = CurrentEntry();
      auto &errors = Errors();
      errors.Reset();
      if (first >= last)
         return outcome;
      TDirectory::TContext nowhere(gROOT);
      const auto old_style = fSelector->Version() == 0;
      Long64_t entry = first;
      auto thrown = Guarded("the selector", [&] {
         InPacket watched;
         for (auto &segment : source.Segments(first, last)) {
            auto tree = segment.tree;
            source.Enter(segment);
            if (&source != fSource || tree != fTree) {
               fSource = &source;
               fTree = tree;
               if (!old_style)
                  fSelector->Init(tree);
               else if (!fBegun)
                  fSelector->Begin(tree);
               fBegun = true;
               fSelector->Notify();
            }
            const auto end = segment.offset + segment.last;
            for (; entry < end && !stop.load(std::memory_order_relaxed); ++entry) {
               current.store(entry, std::memory_order_relaxed);
               const auto local = tree->LoadTree(entry - segment.offset);
               if (local < 0)
                  return;
               if (old_style) {
                  if (fSelector->ProcessCut(local))
                     fSelector->ProcessFill(local);
               } else {
                  fSelector->Process(local);
               }
               if (fSelector->GetAbort() != TSelector::kContinue || errors.any.load(std::memory_order_relaxed))
                  return;
            }
            if (entry < end)
               return;
         }
      });
      outcome.processed = entry - first;
      outcome.bytes = source.TakeBytes();
      const auto place = " at entry " + std::to_string(entry);
      if (errors.any) {
         const auto what = errors.First();
         if (errors.writing)
            return Failure("selector", CannotWrite(what) + place);
         const auto no_such_branch = what.find("::SetBranchAddress") != what.npos || what.find("::CreateProxy") != what.npos ||
                                     what.find("TBranchProxy::Setup") == 0;
         return no_such_branch ? Failure("selector", what + "; the branches are " + source.Branches() + ";" + place)
                               : Failure("read", what + " (" + place.substr(1) + ")");
      }
      if (auto misaligned = source.Misalignment(); !misaligned.empty())
         return Failure("changed", misaligned);
      if (!thrown.empty())
         return Failure(starved ? "memory" : "selector", thrown + place);
      if (fSelector->GetAbort() == TSelector::kAbortProcess)
         return Failure("selector", "the selector called Abort" + place);
      if (fSelector->GetAbort() == TSelector::kAbortFile)
         return Failure("selector", "the selector left the file by Abort(kAbortFile)" + place +
                                       ", but others process its other parts; skip entries in Process instead,");
      if (entry < last && stop)
         return Failure("stopped", "the packet was called off" + place);
      if (entry < last)
         return Failure("read", "the tree cannot be loaded" + place);
      return outcome;
   }
};

inline Source *Open(const std::string &url, const std::string &tree, Long64_t size) {
   return new Source(url, tree, size);
}

inline Instance *Make(const std::string &class_name, const std::string &option, TList *input) {
   return new Instance(class_name, option, input);
}

} // namespace gridproof

#endif
