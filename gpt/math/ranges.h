/* ranges.h: parts of the vector that all parameters of the model form, one tensor after the other. C and C++, so that
   the CPU's and the GPU's program divide the vector in the same way.

   FloatRange                    elements begin to end - 1 of the vector
   ranges_floats(ranges, n)      the number of elements in n ranges together
   range_meet(a, b)              the elements that are in both ranges
   parallel_slice(bucket, owner, owners)
                                 the slice of rank `owner` (from 0) when a bucket is divided among `owners` ranks. In
                                 the order of the ranks the slices cover the bucket without gaps */
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

enum {
    PARALLEL_ALIGN = 16
}; /* slices begin at multiples of so many floats, counted from the begin of their bucket */

static inline FloatRange parallel_slice(FloatRange bucket, int owner, int owners) {
    const size_t n = bucket.end - bucket.begin, units = (n + PARALLEL_ALIGN - 1) / PARALLEL_ALIGN;
    const size_t begin = units * (size_t)owner / (size_t)owners * PARALLEL_ALIGN;
    const size_t end = units * ((size_t)owner + 1) / (size_t)owners * PARALLEL_ALIGN;
    const FloatRange slice = {bucket.begin + (begin < n ? begin : n), bucket.begin + (end < n ? end : n)};
    return slice;
}

#endif
