// What an event costs beyond reading and histogramming: arithmetic, and waiting as for a remote service.

#ifndef Benchmarks_work_h
#define Benchmarks_work_h

#include <cmath>
#include <unistd.h>

namespace work {

struct Load {
   long long burn = 0;   // rounds of arithmetic per event
   long long every = 0;  // events between two waits, 0: none
   long long wait = 0;   // µs
   long long seen = 0;
   double sum = 0;  // keeps the compiler from leaving the arithmetic out

   void Event(double seed)
   {
      for (long long i = 0; i < burn; ++i)
         sum = std::sqrt(sum * 0.5 + std::fabs(seed) + 1.);
      if (every && ++seen % every == 0)
         usleep(wait);
   }
};

// For engines that run functions instead of objects: one load per process.
inline bool Event(double seed, long long burn, long long every, long long wait)
{
   thread_local Load load;
   load.burn = burn;
   load.every = every;
   load.wait = wait;
   load.Event(seed);
   return true;
}

}  // namespace work

#endif
