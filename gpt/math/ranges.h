/* ranges.h: parts of the vector of all parameters, and who owns which. C and C++: the GPU's program divides alike.

   FloatRange                   floats begin to end of it
   ranges_floats(ranges, n)     how many floats they hold
   range_meet(a, b)             what is in both
   parallel_slice(bucket, owner, owners)   what one of so many owners has of a bucket; the slices cover it in order */
#ifndef GPT_MATH_RANGES_H
#define GPT_MATH_RANGES_H

#include <stddef.h>

typedef struct {
    size_t begin, end;
} FloatRange;

static inline size_t ranges_floats(const FloatRange *ranges, int count) {
    size_t floats = 0;
    for (int i = 0; i < count; i++) floats += ranges[i].end - ranges[i].begin;
    return floats;
}

static inline FloatRange range_meet(FloatRange a, FloatRange b) {
    FloatRange both = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (both.end < both.begin) both.end = both.begin;
    return both;
}

enum { PARALLEL_ALIGN = 16 }; /* floats: slices begin at multiples of it, counted from their bucket's begin */

static inline FloatRange parallel_slice(FloatRange bucket, int owner, int owners) {
    const size_t n = bucket.end - bucket.begin, units = (n + PARALLEL_ALIGN - 1) / PARALLEL_ALIGN;
    const size_t begin = units * (size_t)owner / (size_t)owners * PARALLEL_ALIGN;
    const size_t end = units * ((size_t)owner + 1) / (size_t)owners * PARALLEL_ALIGN;
    const FloatRange slice = {bucket.begin + (begin < n ? begin : n), bucket.begin + (end < n ? end : n)};
    return slice;
}

#endif
