// The trees of one file, open for reading as one, with their friends.

#ifndef GRIDPROOF_SOURCE_H
#define GRIDPROOF_SOURCE_H

#include <algorithm>
#include <fnmatch.h>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <TChain.h>
#include <TChainElement.h>
#include <TClass.h>
#include <TFile.h>
#include <TFriendElement.h>
#include <TKey.h>
#include <TTree.h>
#include <TTreeCache.h>

#include "errors.h"

namespace gridproof {

// Files of a friend beside one file of the main tree, in which the first one begins `lead` entries earlier.
struct FriendFiles {
   std::string tree, alias;
   std::vector<std::string> urls;
   std::vector<Long64_t> entries;
   Long64_t lead{0};
};

// One more element of a chain. AddFile alone would take a URL apart: what follows a # is a tree to it.
inline void Append(TChain &chain, const std::string &url, const std::string &tree, Long64_t entries) {
   chain.AddFile("file.root", entries, tree.c_str());
   static_cast<TChainElement *>(chain.GetListOfFiles()->Last())->SetTitle(url.c_str());
}

// A chain whose entry 0 lies within its first file, and that knows how many entries each tree must have.
class AlignedChain : public TChain {
public:
   using TChain::TChain;
   void Expect(const std::string &url, const std::string &tree, Long64_t entries) {
      Append(*this, url, tree, entries);
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

// Calls `visit` with name and class of what lies in a directory, each name once, in order.
template <typename F>
void Visit(TDirectory &directory, F &&visit) {
   std::set<std::string> names;
   for (auto key : *directory.GetListOfKeys())
      names.insert(key->GetName());
   for (auto &name : names)
      if (auto cl = TClass::GetClass(directory.GetKey(name.c_str())->GetClassName()))
         visit(name, *cl);
}

// Names of the trees below a directory that match a pattern, in which wildcards stand for no slash.
inline std::vector<std::string> Matching(TDirectory &directory, const std::string &pattern) {
   const auto slash = pattern.find('/');
   const auto head = pattern.substr(0, slash);
   std::vector<std::string> found;
   Visit(directory, [&](const std::string &name, const TClass &cl) {
      if (fnmatch(head.c_str(), name.c_str(), 0) != 0)
         return;
      if (slash == pattern.npos && cl.InheritsFrom(TTree::Class()))
         found.push_back(name);
      if (slash != pattern.npos && cl.InheritsFrom(TDirectory::Class()))
         if (auto inner = directory.GetDirectory(name.c_str()))
            for (auto &tree : Matching(*inner, pattern.substr(slash + 1)))
               found.push_back(name + "/" + tree);
   });
   return found;
}

inline bool IsPattern(const std::string &tree) { return tree.find_first_of("*?[") != tree.npos; }

// One of the trees: its entries follow those of the ones before it.
struct Part {
   std::string name;
   TTree *tree;
   Long64_t first, entries;
};

// Entries [first, last) of a tree, in its own numbering, which in the source begins at `offset`.
struct Segment {
   TTree *tree;
   Long64_t first, last, offset;
};

class Source {
   std::unique_ptr<TFile> fFile;
   std::vector<std::unique_ptr<AlignedChain>> fFriends;
   std::unique_ptr<TChain> fChain; // instead of the parts where there are friends: readers demand it
   std::vector<Part> fParts;
   TTree *fEntered{nullptr};
   Long64_t fEntries{0};
   Long64_t fBytesBefore{TFile::GetFileBytesRead()};

   bool Add(const std::string &name) {
      auto tree = fFile->Get<TTree>(name.c_str());
      if (!tree || Errors().any)
         return false;
      fParts.push_back({name, tree, fEntries, tree->GetEntries()});
      fEntries += tree->GetEntries();
      return true;
   }

public:
   std::string problem, kind;

   // `tree`: a name or a pattern. `size`: what the catalogue says, in bytes, or -1.
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
      const auto wanted = IsPattern(tree) ? Matching(*fFile, tree) : std::vector<std::string>{tree};
      const auto all = std::all_of(wanted.begin(), wanted.end(), [&](auto &name) { return Add(name); });
      if (Errors().any) {
         problem = Errors().First();
         return;
      }
      if (wanted.empty() || !all) {
         kind = "tree";
         problem = "there is no tree \"" + tree + "\" in it; trees there: " + Trees();
         return;
      }
      kind = "";
   }

   ~Source() {
      for (auto &chain : fFriends)
         fChain->RemoveFriend(chain.get());
   }

   // For people: the first few, those in directories too.
   std::string Trees() const {
      const std::size_t most = 12;
      auto names = Matching(*fFile, "*");
      if (names.size() < most)
         for (auto &name : Matching(*fFile, "*/*"))
            names.push_back(name);
      std::string text;
      for (std::size_t i = 0; i < std::min(most, names.size()); ++i)
         text += (i ? ", " : "") + names[i];
      return text.empty() ? "none" : names.size() > most ? text + ", …" : text;
   }

   std::string Branches() const {
      std::string text;
      int shown = 0;
      for (auto branch : *(fEntered ? fEntered : fParts.front().tree)->GetListOfBranches())
         if (++shown <= 20)
            text += (text.empty() ? "" : ", ") + std::string(branch->GetName());
      return shown > 20 ? text + ", …" : text;
   }

   Long64_t Entries() const { return fEntries; }
   const std::vector<Part> &Parts() const { return fParts; }

   // First entries of the clusters, at most `most` of them, evenly thinned; each tree begins one.
   std::vector<Long64_t> Clusters(std::size_t most) const {
      std::vector<Long64_t> starts;
      for (auto &part : fParts) {
         auto clusters = part.tree->GetClusterIterator(0);
         for (auto start = clusters(); start < part.entries; start = clusters()) {
            starts.push_back(part.first + start);
            if (clusters.GetNextEntry() <= start)
               break;
         }
      }
      if (starts.size() > most) {
         std::vector<Long64_t> thinned;
         for (std::size_t i = 0; i < most; ++i)
            thinned.push_back(starts[i * starts.size() / most]);
         starts.swap(thinned);
      }
      return starts;
   }

   // Returns why a friend cannot be attached, or nothing.
   std::string Befriend(const std::string &url, const std::vector<FriendFiles> &friends) {
      fChain = std::make_unique<TChain>(fParts.front().name.c_str());
      for (auto &part : fParts)
         if (part.entries)
            Append(*fChain, url, part.name, part.entries);
      for (auto &described : friends) {
         auto chain = std::make_unique<AlignedChain>(described.tree.c_str());
         for (std::size_t i = 0; i < described.urls.size(); ++i) {
            if (!IsPattern(described.tree)) {
               chain->Expect(described.urls[i], described.tree, described.entries[i]);
               continue;
            }
            const Source opened(described.urls[i], described.tree, -1);
            if (!opened.kind.empty())
               return "the friend " + described.alias + ": " + opened.problem;
            for (auto &part : opened.Parts())
               if (part.entries)
                  chain->Expect(described.urls[i], part.name, part.entries);
            if (chain->problem.empty() && opened.Entries() != described.entries[i])
               chain->problem = "the friend " + described.alias + " has " + std::to_string(opened.Entries()) +
                                " entries beside this file, not " + std::to_string(described.entries[i]) +
                                " as was learnt before";
         }
         chain->Lead(described.lead);
         fChain->AddFriend(chain.get(), described.alias.c_str());
         fFriends.push_back(std::move(chain));
      }
      return "";
   }

   // What of the friends that were read so far is not as it was said to be.
   std::string Misalignment() const {
      for (auto &chain : fFriends)
         if (!chain->problem.empty())
            return chain->problem;
      return "";
   }

   // Where entries [first, last) lie.
   std::vector<Segment> Segments(Long64_t first, Long64_t last) const {
      if (fChain)
         return {{fChain.get(), first, last, 0}};
      std::vector<Segment> segments;
      for (auto &part : fParts) {
         const auto from = std::max(first - part.first, Long64_t(0));
         const auto to = std::min(last - part.first, part.entries);
         if (from < to)
            segments.push_back({part.tree, from, to, part.first});
      }
      return segments;
   }

   // Makes ready to read a segment; the tree read before gives its memory back.
   void Enter(const Segment &segment) {
      if (fEntered && fEntered != segment.tree) {
         fEntered->DropBaskets();
         fEntered->SetCacheSize(0);
      }
      fEntered = segment.tree;
      segment.tree->LoadTree(segment.first);
      if (segment.tree->GetCacheSize() <= 0)
         segment.tree->SetCacheSize(32 * 1024 * 1024);
      segment.tree->SetCacheEntryRange(segment.first, segment.last);
   }

   // As a fresh instance expects to find it.
   void Release() {
      for (auto &part : fParts)
         Release(*part.tree);
      if (fChain)
         Release(*fChain);
   }

   static void Release(TTree &tree) {
      tree.ResetBranchAddresses();
      tree.SetMakeClass(0);
      tree.SetNotify(nullptr);
      tree.SetBranchStatus("*", true);
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

} // namespace gridproof

#endif
