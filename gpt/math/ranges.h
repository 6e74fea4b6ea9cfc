/* ranges.h: parts of the vector that all parameters of the model form, one tensor after the other. C and C++, so that
   the CPU's and the GPU's program divide the vector in the same way. All positions and sizes count floats.

   FloatRange                    elements begin to end - 1 of the vector
   ranges_floats(ranges, n)      the number of elements in n ranges together
   range_intersection(a, b)      the elements that are in both ranges; an empty range has end = begin
   bucket_slice(bucket, shard, shards)
                                 part number `shard`, from 0, when a range (a bucket, see dist/buckets.h) is divided
                                 into `shards` slices of about the same size. The slices cover the bucket in this order,
                                 without gaps */
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

static inline FloatRange range_intersection(FloatRange a, FloatRange b) {
    FloatRange both = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (both.end < both.begin) both.end = both.begin;
    return both;
}

/* Slices begin at multiples of 16 floats from the begin of their bucket, so that vector instructions find them aligned
   where the bucket is. */
enum { SLICE_ALIGN = 16 };

static inline FloatRange bucket_slice(FloatRange bucket, int shard, int shards) {
    const size_t n = bucket.end - bucket.begin, units = (n + SLICE_ALIGN - 1) / SLICE_ALIGN;
    const size_t begin = units * (size_t)shard / (size_t)shards * SLICE_ALIGN;
    const size_t end = units * ((size_t)shard + 1) / (size_t)shards * SLICE_ALIGN;
    const FloatRange slice = {bucket.begin + (begin < n ? begin : n), bucket.begin + (end < n ? end : n)};
    return slice;
}

#endif
