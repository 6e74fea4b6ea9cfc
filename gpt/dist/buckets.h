/* buckets.h: how the vector of all parameters is divided among ranks. Nothing here needs MPI.

   The parameters of the model are one vector, one tensor after the other, and so are their gradients and each of
   AdamW's moments. The vector is cut into buckets. All gradients of a bucket are summed, and all its weights sent,
   by one collective operation, a call in which every rank takes part.
   Backward finishes the gradients of one layer after the other, so with a bucket for about each layer the sums of the
   last layers are computed while backward is still at the first ones. Where the cuts are depends on the model alone.

   Every bucket is cut into one slice for each rank (bucket_slice in math/ranges.h). Slice r of all buckets together is
   shard r of the vector: the part whose gradients rank r sums.

   buckets_plan(starts, n, floats)   the buckets of a vector of `floats` floats. starts (n): the first parameter of each
                                     group, ascending, starts[0] = 0. The gradients of a group become final at the same
                                     time, those of the last group first. Release them with buckets_free
   buckets_shard(&buckets, shard, shards, &count)   shard number `shard` of `shards`: its slices (count), in ascending
                                     order, one of each bucket, some of them maybe empty. If there is only one shard, it
                                     is one range, the whole vector. The caller frees the array. An array with the
                                     values of one shard has ranges_floats(slices, count) elements, one slice after the
                                     other */
#ifndef GPT_DIST_BUCKETS_H
#define GPT_DIST_BUCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include "../base/check.h"
#include "../math/ranges.h"

typedef struct {
    FloatRange *ranges; /* (count) in ascending order, without gaps */
    int count;
} ParameterBuckets;

/* Sizes in floats. Groups are joined until a bucket has at least BUCKET_MIN, so that sending it takes much longer than
   starting to send it; only the embedding and the bucket after it may have less. A bucket has hardly more than
   BUCKET_MAX, so that the first one that backward completes can be sent early. A group that is cut into several buckets
   is cut at multiples of BUCKET_ALIGN from its start: the number of ranks usually divides BUCKET_ALIGN, and so the
   size of such a bucket; then all slices have the same size, with which NCCL (NVIDIA's library for messages between
   GPUs) is fastest. */
enum { BUCKET_MIN = 1 << 18, BUCKET_MAX = 1 << 22, BUCKET_ALIGN = 1 << 14 };

/* Cuts [begin, end) into buckets of about the same size and appends them, the last one first. */
static inline void buckets_append(ParameterBuckets *b, size_t begin, size_t end) {
    const size_t n = end - begin, pieces = (n + BUCKET_MAX - 1) / BUCKET_MAX;
    for (size_t i = pieces; i-- > 0;) {
        size_t from = begin + n * i / pieces / BUCKET_ALIGN * BUCKET_ALIGN;
        size_t to = i + 1 < pieces ? begin + n * (i + 1) / pieces / BUCKET_ALIGN * BUCKET_ALIGN : end;
        b->ranges[b->count++] = (FloatRange){from, to};
    }
}

/* Joins each small group with its neighbours into one bucket, and cuts a large one into several. The first group, the
   embedding, stays alone: its gradient becomes final last, and the other gradients must not wait for it. */
static inline ParameterBuckets buckets_plan(const size_t *starts, int n, size_t floats) {
    ParameterBuckets b = {.ranges =
                              check_calloc(((size_t)n + floats / BUCKET_MAX + 1) * 2 * sizeof *b.ranges)};
    size_t end = floats;
    for (int i = n - 1; i >= 0; i--) {
        if (i > 1 && end - starts[i] < BUCKET_MIN) continue;
        buckets_append(&b, starts[i], end);
        end = starts[i];
    }
    for (int i = 0; i < b.count / 2; i++) { /* reverses the order: now ascending */
        FloatRange swap = b.ranges[i];
        b.ranges[i] = b.ranges[b.count - 1 - i], b.ranges[b.count - 1 - i] = swap;
    }
    return b;
}

static inline void buckets_free(ParameterBuckets *b) { free(b->ranges); }

static inline FloatRange *buckets_shard(const ParameterBuckets *b, int shard, int shards, int *count) {
    FloatRange *slices = check_calloc((size_t)b->count * sizeof *slices);
    *count = shards == 1 ? 1 : b->count;
    for (int i = 0; i < *count; i++) slices[i] = bucket_slice(b->ranges[i], shard, shards);
    if (shards == 1) slices[0] = (FloatRange){0, b->ranges[b->count - 1].end};
    return slices;
}

#endif
