// Outputs of selector instances merged by name and class, in C++ so that it runs without Python's lock.
// Declared to Cling by gridproof.engine.runtime.

#ifndef GRIDPROOF_MERGE_H
#define GRIDPROOF_MERGE_H

#include "runtime.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include <TFileMergeInfo.h>
#include <TFileMerger.h>
#include <THStack.h>
#include <THashTable.h>
#include <TMap.h>
#include <TMethodCall.h>
#include <TObjArray.h>
#include <TOrdCollection.h>

namespace gridproof {

// The collection whose elements are outputs in their own right, or null where the object is one output.
inline TCollection *Elements(TObject *object) {
   static const std::set<TClass *> kinds{TObjArray::Class(), THashTable::Class(), TMap::Class(),
                                         TOrdCollection::Class()};
   if (auto list = dynamic_cast<TList *>(object)) // a TSelectorList is one
      return list;
   if (object->IsA() == THStack::Class())
      return static_cast<THStack *>(object)->GetHists();
   return kinds.count(object->IsA()) ? static_cast<TCollection *>(object) : nullptr;
}

inline TMap *AsMap(TCollection *collection) {
   return collection->IsA() == TMap::Class() ? static_cast<TMap *>(collection) : nullptr;
}

// A list and all that is in it, each object owned once, whichever collections share it.
class Objects {
   TList *fList;
   std::vector<TObject *> fOwned;
   std::unordered_set<TObject *> fKnown;

   void Own(TObject *object) {
      if (!object || !fKnown.insert(object).second)
         return;
      fOwned.push_back(object);
      auto elements = Elements(object);
      if (!elements)
         return;
      TIter next(elements); // of a map it gives the keys, unlike a range
      while (auto element = next()) {
         Own(element);
         if (auto map = AsMap(elements))
            Own(map->GetValue(element));
      }
   }

public:
   explicit Objects(TList *list) : fList(list) { Own(list); }
   Objects(const Objects &) = delete;
   Objects &operator=(const Objects &) = delete;

   ~Objects() { Free(); }

   void Free() {
      for (auto object : fOwned) {
         if (auto elements = Elements(object)) {
            elements->SetOwner(kFALSE);
            if (auto map = AsMap(elements))
               map->SetOwnerValue(kFALSE);
            elements->Clear("nodelete");
         }
      }
      for (auto object : fOwned)
         delete object;
      fOwned.clear();
   }

   TList *List() const { return fList; }

   // Takes over what of `other` is `wanted`.
   template <typename F>
   void Take(Objects &other, F &&wanted) {
      auto kept = std::stable_partition(other.fOwned.begin(), other.fOwned.end(), [&](auto o) { return !wanted(o); });
      fOwned.insert(fOwned.end(), kept, other.fOwned.end());
      other.fOwned.erase(kept, other.fOwned.end());
   }
};

// What a commit brings. Null if the bytes are no list. They may go afterwards.
inline Objects *Decode(std::uintptr_t address, Long64_t length) {
   Errors().Reset(true);
   auto list = Unpack(address, length);
   if (!list)
      return nullptr;
   auto objects = new Objects(list);
   if (Errors().any) {
      delete objects;
      return nullptr;
   }
   return objects;
}

class Merger {
   // The objects of one name and class in a collection; the nth of a delta goes to the nth here.
   struct Place {
      std::vector<TObject *> objects;
      std::size_t next{0};
      unsigned long delta{0};
   };
   // An object of the delta that nothing in `into` corresponds to; `value`: of a map's key.
   struct Fresh {
      TCollection *into;
      TObject *object, *value;
      Place *place;
   };
   using Index = std::unordered_map<std::string, Place>;

   Objects fMerged{new TList};
   std::unordered_map<const TCollection *, Index> fIndices;
   std::unordered_map<TObject *, TObject *> fBecame; // objects of the delta: where they went
   std::vector<Fresh> fFresh;                        // added when all others have been merged
   unsigned long fDelta{0};

   static std::string Key(const TObject *object) {
      return std::string(object->ClassName()) + '\0' + object->GetName();
   }

   static std::string Named(const TObject *object) {
      return std::string("output \"") + object->GetName() + "\" of class " + object->ClassName();
   }

   Index &IndexOf(TCollection *collection) {
      auto [found, fresh] = fIndices.try_emplace(collection);
      if (!fresh)
         return found->second;
      TIter next(collection);
      while (auto object = next())
         found->second[Key(object)].objects.push_back(object);
      return found->second;
   }

   Place &PlaceOf(Index &index, const TObject *object) {
      auto &place = index[Key(object)];
      if (place.delta != fDelta) {
         place.delta = fDelta;
         place.next = 0;
      }
      return place;
   }

   // Keeps an object with its elements; those that were merged elsewhere are replaced by what they became.
   void Adopt(TObject *object) {
      if (!object || !fBecame.emplace(object, object).second)
         return;
      auto elements = Elements(object);
      if (!elements)
         return;
      if (auto map = AsMap(elements)) {
         for (auto pair : *map->GetTable()) {
            fBecame[static_cast<TPair *>(pair)->Key()] = static_cast<TPair *>(pair)->Key();
            auto value = static_cast<TPair *>(pair)->Value();
            Adopt(value);
            if (value)
               static_cast<TPair *>(pair)->SetValue(fBecame[value]);
         }
         return;
      }
      std::vector<TObject *> became;
      auto changed = false;
      for (auto element : *elements) {
         Adopt(element);
         became.push_back(fBecame[element]);
         changed = changed || became.back() != element;
      }
      if (!changed)
         return;
      const auto owner = elements->IsOwner();
      elements->SetOwner(kFALSE);
      elements->Clear("nodelete");
      for (auto element : became)
         elements->Add(element);
      elements->SetOwner(owner);
   }

   std::string MergeElements(TCollection *into, TCollection *from) {
      auto &index = IndexOf(into);
      auto map = AsMap(into);
      TIter next(from);
      while (auto object = next()) {
         auto &place = PlaceOf(index, object);
         auto value = map ? static_cast<TMap *>(from)->GetValue(object) : nullptr;
         if (place.next < place.objects.size()) {
            auto known = place.objects[place.next++];
            auto known_value = map ? map->GetValue(known) : nullptr;
            auto problem = !map                   ? Combine(known, object)
                           : known_value && value ? Combine(known_value, value)
                                                  : std::string();
            if (!problem.empty())
               return problem;
            continue;
         }
         fFresh.push_back({into, object, value, &place});
      }
      return "";
   }

   void AddFresh() {
      for (auto &[into, object, value, place] : fFresh) {
         Adopt(object);
         Adopt(value);
         if (auto map = AsMap(into))
            map->Add(object, value ? fBecame[value] : nullptr);
         else
            into->Add(fBecame[object]);
         place->objects.push_back(fBecame[object]);
      }
      fFresh.clear();
   }

   std::string Combine(TObject *into, TObject *from) {
      if (!fBecame.emplace(from, into).second)
         return ""; // it is in two collections and was merged in the other one
      auto elements = Elements(into);
      if (into->IsA() != from->IsA())
         Warn(from);
      else if (elements && Elements(from))
         return MergeElements(elements, Elements(from));
      else
         return MergeOne(into, from);
      return "";
   }

   std::string MergeOne(TObject *into, TObject *from) {
      TList others;
      others.Add(from);
      auto cl = into->IsA();
      Long64_t status = -1;
      std::string thrown;
      if (auto merge = cl->GetMerge()) {
         TFileMergeInfo info(gROOT);
         thrown = Guarded("its Merge", [&] { status = merge(into, &others, &info); });
      } else {
         TMethodCall call;
         call.InitWithPrototype(cl, "Merge", "TCollection*");
         if (!call.IsValid()) {
            if (!Same(into, from))
               Warn(from);
            return "";
         }
         call.SetParam(reinterpret_cast<Longptr_t>(&others));
         Longptr_t result = -1;
         thrown = Guarded("its Merge", [&] { call.Execute(into, result); });
         status = result;
      }
      if (status >= 0 && thrown.empty() && !Errors().any)
         return "";
      return Named(from) + ": " +
             (Errors().any ? Errors().First() : thrown.empty() ? "its Merge reported a failure" : thrown);
   }

   // Both are the same down to the last byte.
   static bool Same(TObject *one, TObject *other) {
      TBufferFile first(TBuffer::kWrite), second(TBuffer::kWrite);
      first.WriteObjectAny(one, one->IsA());
      second.WriteObjectAny(other, other->IsA());
      return first.Length() == second.Length() && !std::memcmp(first.Buffer(), second.Buffer(), first.Length());
   }

   void Warn(const TObject *object) {
      auto warning = Named(object) + " cannot be merged; the first one was kept";
      if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end())
         warnings.push_back(warning);
   }

public:
   std::vector<std::string> warnings;

   // Takes from the delta what is new and merges the rest; nothing is left of it. "" or what went wrong, and then
   // the merged outputs are worth nothing either.
   std::string Merge(Objects &delta) {
      TDirectory::TContext nowhere(nullptr);
      Errors().Reset(true);
      ++fDelta;
      auto problem = MergeElements(fMerged.List(), delta.List());
      AddFresh();
      fMerged.Take(delta, [&](auto object) {
         auto became = fBecame.find(object);
         return became != fBecame.end() && became->second == object;
      });
      fBecame.clear();
      delta.Free();
      return problem;
   }

   Bytes *Output() { return Pack(fMerged.List()); }
};

// ---------------------------------------------------------------- files

// Files of one name merged into one, batch by batch: the output stays open and grows.
class FileMerger {
   std::string fPath;
   std::unique_ptr<TFileMerger> fMerger;

   void Start(const std::string &like) {
      std::unique_ptr<TFile> first(TFile::Open(like.c_str()));
      if (!first || first->IsZombie())
         throw std::runtime_error("an uploaded file cannot be opened");
      fMerger = std::make_unique<TFileMerger>(kFALSE);
      fMerger->SetPrintLevel(0);
      if (!fMerger->OutputFile(fPath.c_str(), "RECREATE", first->GetCompressionSettings()))
         throw std::runtime_error(fPath + " cannot be written");
   }

   template <typename F>
   std::string Watched(F &&call) {
      TDirectory::TContext nowhere(nullptr);
      Errors().Reset(true);
      auto thrown = Guarded("merging", call);
      return Errors().any ? Errors().First() : thrown;
   }

public:
   explicit FileMerger(const std::string &path) : fPath(path) {}

   // Appends what is in these files. "" or what went wrong.
   std::string Merge(const std::vector<std::string> &paths) {
      return Watched([&] {
         if (!fMerger)
            Start(paths.front());
         for (auto &path : paths)
            if (!fMerger->AddFile(path.c_str(), kFALSE))
               throw std::runtime_error("an uploaded file cannot be opened");
         if (!fMerger->PartialMerge(TFileMerger::kAllIncremental | TFileMerger::kKeepCompression))
            throw std::runtime_error("its content cannot be merged");
         fMerger->Reset();
      });
   }

   std::string Close() {
      return Watched([&] { fMerger.reset(); });
   }
};

} // namespace gridproof

#endif
