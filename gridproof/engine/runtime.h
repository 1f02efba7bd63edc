// What the engine does with ROOT objects, in C++ so that it runs without Python's lock:
// the event loop over a packet and a selector instance's life. Merging is in merge.h.
// Declared to Cling by gridproof.engine.runtime.

#ifndef GRIDPROOF_RUNTIME_H
#define GRIDPROOF_RUNTIME_H

#include <atomic>
#include <cstdint>
#include <exception>
#include <execinfo.h>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <csignal>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <TBufferFile.h>
#include <TChain.h>
#include <TClass.h>
#include <TError.h>
#include <TFile.h>
#include <TFriendElement.h>
#include <TInterpreter.h>
#include <TKey.h>
#include <TList.h>
#include <TMap.h>
#include <TNamed.h>
#include <TROOT.h>
#include <TSelector.h>
#include <TSystem.h>
#include <TTree.h>
#include <TTreeCache.h>

#include <gridproof/OutputFile.h>

namespace gridproof {

// ---------------------------------------------------------------- errors that ROOT only prints

struct ErrorLog {
   std::mutex mutex;
   std::string first;              // the first error since Reset
   std::atomic<bool> any{false};
   std::atomic<bool> writing{false}; // it came from writing a file
   std::atomic<bool> strict{false}; // every error counts, whoever reports it
   std::atomic<std::thread::id> reader{std::thread::id()}; // the thread that is in a packet
   ErrorHandlerFunc_t next{nullptr};

   void Reset(bool all = false) {
      std::lock_guard<std::mutex> lock(mutex);
      first.clear();
      any = writing = false;
      strict = all;
   }
   std::string First() {
      std::lock_guard<std::mutex> lock(mutex);
      return first;
   }
};

inline ErrorLog &Errors() {
   static ErrorLog log;
   return log;
}

// Reading goes on with stale values after an error in one of these; a selector's own Error() does not count.
inline bool SpoilsData(const char *location) {
   static const char *const prefixes[] = {"TFile", "TNetXNG", "TBasket", "TBranch", "TTree", "TChain", "TBuffer",
                                          "TStreamerInfo", "TKey", "TDirectoryFile", "R__unzip", "TLeaf", "TWebFile",
                                          "TNetFile", "TStorageFactory"};
   if (!location || std::string(location).find("::SetBranchStatus") != std::string::npos)
      return false;
   for (auto prefix : prefixes)
      if (std::string(location).compare(0, std::string(prefix).size(), prefix) == 0)
         return true;
   return false;
}

inline bool IsOfWriting(const char *location) {
   const std::string where(location ? location : "");
   return where.find("::Write") != where.npos || where.find("::Flush") != where.npos || where == "TTree::Fill";
}

inline void OnRootMessage(int level, Bool_t abort, const char *location, const char *message) {
   auto &log = Errors();
   if (level >= kError && level < kFatal && (log.strict || SpoilsData(location))) {
      std::lock_guard<std::mutex> lock(log.mutex);
      const auto writing = IsOfWriting(location);
      if (!log.any || (writing && !log.writing)) {
         log.first = std::string(location) + ": " + message;
         log.writing = writing;
         log.any = true;
      }
   }
   (log.next ? log.next : DefaultErrorHandler)(level, abort, location, message);
   // The selector must not get to see what was not read: it might crash on it.
   if (log.any && log.reader.load() == std::this_thread::get_id())
      throw std::runtime_error("a read failed");
}

inline std::string CannotWrite(const std::string &what) {
   return "an output file cannot be written (" + what + "); is the worker's disk full?";
}

struct InPacket {
   InPacket() { Errors().reader = std::this_thread::get_id(); }
   ~InPacket() { Errors().reader = std::thread::id(); }
};

inline void WatchErrors() {
   auto previous = SetErrorHandler(OnRootMessage);
   if (previous != OnRootMessage)
      Errors().next = previous;
}

// A crash leaves the failing frames in the worker's log and then takes its default course.
inline void OnCrash(int signum) {
   const char text[] = "\ngridproof: this worker crashed; the innermost frames are:\n";
   auto ignored = write(2, text, sizeof text - 1);
   (void)ignored;
   void *frames[48];
   backtrace_symbols_fd(frames, backtrace(frames, 48), 2);
   signal(signum, SIG_DFL);
   raise(signum);
}

inline void ReportCrashes() {
   for (auto root_signal : {kSigSegmentationViolation, kSigBus, kSigIllegalInstruction, kSigFloatingException})
      gSystem->ResetSignal(root_signal, kTRUE);
   void *frame[1];
   backtrace(frame, 1); // loads what the handler must not load
   for (auto signum : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT})
      signal(signum, OnCrash);
}

// ---------------------------------------------------------------- outcomes

// Set by another thread to end the packet at its next entry.
inline std::atomic<bool> &Stop() {
   static std::atomic<bool> stop{false};
   return stop;
}

inline std::uintptr_t StopAddress() { return reinterpret_cast<std::uintptr_t>(&Stop()); }

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

// ---------------------------------------------------------------- a tree to read from

// Files of a friend beside one file of the main tree, in which the first one begins `lead` entries earlier.
struct FriendFiles {
   std::string tree, alias;
   std::vector<std::string> urls;
   std::vector<Long64_t> entries;
   Long64_t lead{0};
};

// A chain whose entry 0 lies within its first file, and that knows how many entries each file must have.
class AlignedChain : public TChain {
public:
   using TChain::TChain;
   void Expect(const std::string &url, Long64_t entries) {
      AddFile(url.c_str(), entries);
      fExpected.push_back(entries);
   }
   void Lead(Long64_t entries) {
      for (int i = 0; i <= fNtrees; ++i)
         fTreeOffset[i] -= entries;
      fEntries -= entries;
   }
   Long64_t LoadTree(Long64_t entry) override {
      const auto result = TChain::LoadTree(entry);
      if (fTree && fTreeNumber >= 0 && fTreeNumber != fChecked) {
         fChecked = fTreeNumber;
         const auto expected = fExpected[fTreeNumber]; // TChain has mended its own idea of it
         if (problem.empty() && fTree->GetEntries() != expected)
            problem = std::string(GetFile()->GetName()) + " has " + std::to_string(fTree->GetEntries()) +
                      " entries, not " + std::to_string(expected) + " as was learnt before";
      }
      return result;
   }
   std::string problem;

private:
   std::vector<Long64_t> fExpected;
   Int_t fChecked{-1};
};

// One file's tree, open for reading, with its friends aligned by global entry number.
class Source {
   std::unique_ptr<TFile> fFile;
   std::vector<std::unique_ptr<AlignedChain>> fFriends;
   std::unique_ptr<TChain> fChain; // instead of fTree where there are friends: readers demand it
   TTree *fTree{nullptr};
   Long64_t fEntries{0};
   Long64_t fBytesBefore{TFile::GetFileBytesRead()};

public:
   std::string problem, kind;

   // `size`: what the catalogue says, in bytes, or -1.
   Source(const std::string &url, const std::string &tree, Long64_t size) {
      Errors().Reset();
      TDirectory::TContext nowhere(nullptr);
      fFile.reset(TFile::Open(url.c_str(), "READ"));
      kind = "read";
      if (!fFile || fFile->IsZombie()) {
         problem = Errors().any ? Errors().First() : "cannot be opened";
         return;
      }
      if (fFile->TestBit(TFile::kRecovered)) {
         problem = "the file was not closed properly or is truncated (ROOT had to recover it)";
         return;
      }
      if (size >= 0 && fFile->GetSize() != size) {
         problem = "the file has " + std::to_string(fFile->GetSize()) + " bytes, the catalogue says " +
                   std::to_string(size);
         return;
      }
      fTree = fFile->Get<TTree>(tree.c_str());
      if (Errors().any) {
         problem = Errors().First();
         return;
      }
      if (!fTree) {
         kind = "tree";
         problem = "there is no tree \"" + tree + "\" in it; trees there: " + Trees();
         return;
      }
      kind = "";
      fEntries = fTree->GetEntries();
   }

   ~Source() {
      for (auto &chain : fFriends)
         fChain->RemoveFriend(chain.get());
   }

   std::string Trees() const {
      std::set<std::string> names;
      for (auto key : *fFile->GetListOfKeys())
         if (auto cl = TClass::GetClass(static_cast<TKey *>(key)->GetClassName()); cl && cl->InheritsFrom("TTree"))
            names.insert(key->GetName());
      std::string text;
      for (auto &name : names)
         text += (text.empty() ? "" : ", ") + name;
      return text.empty() ? "none" : text;
   }

   std::string Branches() const {
      std::string text;
      int shown = 0;
      for (auto branch : *fTree->GetListOfBranches())
         if (++shown <= 20)
            text += (text.empty() ? "" : ", ") + std::string(branch->GetName());
      return shown > 20 ? text + ", …" : text;
   }

   Long64_t Entries() const { return fEntries; }
   TTree *Tree() const { return fChain ? fChain.get() : fTree; }

   // First entries of the clusters, at most `most` of them, evenly thinned.
   std::vector<Long64_t> Clusters(std::size_t most) const {
      std::vector<Long64_t> starts;
      auto clusters = fTree->GetClusterIterator(0);
      for (auto start = clusters(); start < fEntries; start = clusters()) {
         starts.push_back(start);
         if (clusters.GetNextEntry() <= start)
            break;
      }
      if (starts.size() > most) {
         std::vector<Long64_t> thinned;
         for (std::size_t i = 0; i < most; ++i)
            thinned.push_back(starts[i * starts.size() / most]);
         starts.swap(thinned);
      }
      return starts;
   }

   void Befriend(const std::string &url, const std::string &tree, const std::vector<FriendFiles> &friends) {
      fChain = std::make_unique<TChain>(tree.c_str());
      fChain->AddFile(url.c_str(), fEntries);
      for (auto &described : friends) {
         auto chain = std::make_unique<AlignedChain>(described.tree.c_str());
         for (std::size_t i = 0; i < described.urls.size(); ++i)
            chain->Expect(described.urls[i], described.entries[i]);
         chain->Lead(described.lead);
         fChain->AddFriend(chain.get(), described.alias.c_str());
         fFriends.push_back(std::move(chain));
      }
   }

   // What of the friends that were read so far is not as it was said to be.
   std::string Misalignment() const {
      for (auto &chain : fFriends)
         if (!chain->problem.empty())
            return chain->problem;
      return "";
   }

   void Prepare(Long64_t first, Long64_t last) {
      auto tree = Tree();
      tree->LoadTree(first);
      if (tree->GetCacheSize() <= 0)
         tree->SetCacheSize(32 * 1024 * 1024);
      tree->SetCacheEntryRange(first, last);
   }

   // As a fresh instance expects to find it.
   void Release() {
      auto tree = Tree();
      tree->ResetBranchAddresses();
      tree->SetMakeClass(0);
      tree->SetNotify(nullptr);
      tree->SetBranchStatus("*", true);
   }

   // Bytes that this process has read from storage since the last call.
   Long64_t TakeBytes() {
      const auto now = TFile::GetFileBytesRead();
      const auto delta = now - fBytesBefore;
      fBytesBefore = now;
      return delta;
   }
   void StartBytes() { fBytesBefore = TFile::GetFileBytesRead(); }
};

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
      auto &errors = Errors();
      errors.Reset();
      if (first >= last)
         return outcome;
      TDirectory::TContext nowhere(gROOT);
      auto tree = source.Tree();
      const auto old_style = fSelector->Version() == 0;
      Long64_t entry = first;
      auto thrown = Guarded("the selector", [&] {
         InPacket watched;
         source.Prepare(first, last);
         if (&source != fSource) {
            fSource = &source;
            if (!old_style)
               fSelector->Init(tree);
            else if (!fBegun)
               fSelector->Begin(tree);
            fBegun = true;
            fSelector->Notify();
         }
         for (; entry < last && !stop.load(std::memory_order_relaxed); ++entry) {
            const auto local = tree->LoadTree(entry);
            if (local < 0)
               break;
            if (old_style) {
               if (fSelector->ProcessCut(local))
                  fSelector->ProcessFill(local);
            } else {
               fSelector->Process(local);
            }
            if (fSelector->GetAbort() != TSelector::kContinue || errors.any.load(std::memory_order_relaxed))
               break;
         }
      });
      outcome.processed = entry - first;
      outcome.bytes = source.TakeBytes();
      const auto place = " at entry " + std::to_string(entry);
      if (errors.any) {
         const auto what = errors.First();
         if (errors.writing)
            return Failure("selector", CannotWrite(what) + place);
         const auto no_such_branch = what.find("::SetBranchAddress") != what.npos || what.find("::CreateProxy") != what.npos;
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
