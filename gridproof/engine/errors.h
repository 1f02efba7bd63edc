// Errors that ROOT only prints, and crashes: a packet during which one happens did not happen.

#ifndef GRIDPROOF_ERRORS_H
#define GRIDPROOF_ERRORS_H

#include <atomic>
#include <csignal>
#include <execinfo.h>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

#include <TError.h>
#include <TSystem.h>

namespace gridproof {

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

} // namespace gridproof

#endif
