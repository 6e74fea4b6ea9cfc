/* clock.h: how much time has passed. C and C++.

   seconds_now()            seconds of a clock that only goes forward, whatever happens to the calendar time; only
                            differences between two readings mean something
   processor_seconds_now()  seconds that processors have spent on this process so far, summed over its threads */
#ifndef GPT_BASE_CLOCK_H
#define GPT_BASE_CLOCK_H

#include <time.h>

static inline double clock_read(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline double seconds_now(void) { return clock_read(CLOCK_MONOTONIC); }
static inline double processor_seconds_now(void) { return clock_read(CLOCK_PROCESS_CPUTIME_ID); }

#endif
