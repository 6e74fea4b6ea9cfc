/* parallel.h: data parallelism over MPI ranks; without -DHAVE_MPI one rank, and every call a no-op.

   parallel_start(&argc, &argv)   before anything else; parallel_finish() last
   parallel_rank(), parallel_ranks()
   parallel_sum(x, n)             x (n) := sum of x over the ranks, the same bits on every rank
   parallel_sum_double(x)         the same for one number, returned
   parallel_any(flag)             true on every rank when it is true on one
   parallel_barrier()

   Buckets and owners. The flat vector of all parameters is cut into buckets, the units in which gradients are summed
   and weights handed round; the cuts depend on the model alone. Of every bucket each rank owns one slice: it sums that
   slice's gradients, keeps its moments (--zero=1) and updates its weights.
   parallel_buckets(starts, n, floats)      the buckets; free with parallel_buckets_free
   parallel_slice(bucket, owner, owners)    what one of so many owners has of a bucket; the slices cover it in order
   parallel_owned(buckets, owner, owners, &count)   all of an owner's slices, ascending; its arrays hold them one after
                                  another, ranges_floats(owned, count) floats
   parallel_gather(x, buckets)    x (floats): every rank gets the other ranks' slices

   An error on one rank names it and ends the job on all (check.h's hooks). */
#ifndef GPT_PARALLEL_H
#define GPT_PARALLEL_H

#include <stdbool.h>
#include <stddef.h>
#include "check.h"
#include "tensors.h"
#ifdef HAVE_MPI
#include <mpi.h>
#endif

typedef struct {
    FloatRange *ranges; /* (count) in memory order, without gaps */
    int count;
} ParallelBuckets;

/* Large enough that a message costs more than its start, small enough that the first is on its way early. */
enum { PARALLEL_LEAST = 1 << 18, PARALLEL_MOST = 1 << 22, PARALLEL_ALIGN = 16 };

/* Appends [begin, end), the highest piece first, in pieces of at most PARALLEL_MOST floats. */
static inline void parallel_buckets_add(ParallelBuckets *b, size_t begin, size_t end) {
    const size_t pieces = (end - begin + PARALLEL_MOST - 1) / PARALLEL_MOST;
    for (size_t i = pieces; i-- > 0;) {
        size_t from = begin + (end - begin) * i / pieces / PARALLEL_ALIGN * PARALLEL_ALIGN;
        size_t to =
            i + 1 < pieces ? begin + (end - begin) * (i + 1) / pieces / PARALLEL_ALIGN * PARALLEL_ALIGN : end;
        b->ranges[b->count++] = (FloatRange){i ? from : begin, to};
    }
}

/* starts (n), ascending from 0: where groups of parameters begin whose gradients become final together, the last
   group first. Small neighbours share a bucket, except that the first group, final last, keeps to itself. */
static inline ParallelBuckets parallel_buckets(const size_t *starts, int n, size_t floats) {
    ParallelBuckets b = {.ranges =
                             check_malloc(((size_t)n + floats / PARALLEL_MOST + 1) * 2 * sizeof *b.ranges)};
    size_t end = floats;
    for (int i = n - 1; i >= 0; i--) {
        if (i > 1 && end - starts[i] < PARALLEL_LEAST) continue;
        parallel_buckets_add(&b, starts[i], end);
        end = starts[i];
    }
    for (int i = 0; i < b.count / 2; i++) {
        FloatRange swap = b.ranges[i];
        b.ranges[i] = b.ranges[b.count - 1 - i], b.ranges[b.count - 1 - i] = swap;
    }
    return b;
}

static inline void parallel_buckets_free(ParallelBuckets *b) { free(b->ranges); }

static inline FloatRange parallel_slice(FloatRange bucket, int owner, int owners) {
    const size_t n = bucket.end - bucket.begin, units = (n + PARALLEL_ALIGN - 1) / PARALLEL_ALIGN;
    size_t begin = units * (size_t)owner / (size_t)owners * PARALLEL_ALIGN;
    size_t end = units * ((size_t)owner + 1) / (size_t)owners * PARALLEL_ALIGN;
    return (FloatRange){bucket.begin + (begin < n ? begin : n), bucket.begin + (end < n ? end : n)};
}

/* Its slices in order, one of each bucket (some may be empty); a single owner has one range, everything. free() them. */
static inline FloatRange *parallel_owned(const ParallelBuckets *b, int owner, int owners, int *count) {
    FloatRange *owned = check_malloc((size_t)b->count * sizeof *owned);
    *count = owners == 1 ? 1 : b->count;
    for (int i = 0; i < *count; i++) owned[i] = parallel_slice(b->ranges[i], owner, owners);
    if (owners == 1) owned[0] = (FloatRange){0, b->ranges[b->count - 1].end};
    return owned;
}

#ifdef HAVE_MPI

static int parallel_rank_, parallel_ranks_ = 1;

static inline int parallel_rank(void) { return parallel_rank_; }
static inline int parallel_ranks(void) { return parallel_ranks_; }

static void parallel_end_job(int code) {
    if (parallel_ranks_ > 1) MPI_Abort(MPI_COMM_WORLD, code);
}

static inline void parallel_start(int *argc, char ***argv) {
    /* Without a launcher there is one rank, and MPI's own start-up, a good part of a second, is not needed. */
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                                            "MPI_LOCALNRANKS"};
    bool launched = false;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        launched |= getenv(launchers[i]) != NULL;
    if (!launched) return;
    int provided;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &parallel_rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &parallel_ranks_);
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (parallel_ranks_ == 1 && size && atoi(size) > 1)
        die("the launcher started %s ranks, but this program's MPI sees one; use the mpirun of the MPI it "
            "was built with",
            size);
    if (parallel_ranks_ == 1) return;
    char host[MPI_MAX_PROCESSOR_NAME];
    int length;
    MPI_Get_processor_name(host, &length);
    snprintf(check_hooks.prefix, sizeof check_hooks.prefix, "rank %d on %.100s: ", parallel_rank_, host);
    check_hooks.end_job = parallel_end_job;
}

static inline void parallel_finish(void) {
    int initialized;
    MPI_Initialized(&initialized);
    if (initialized) MPI_Finalize();
}

static inline void parallel_barrier(void) {
    if (parallel_ranks_ > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static inline void parallel_sum(float *x, size_t n) {
    const size_t most = 1 << 24; /* MPI counts are int */
    for (size_t i = 0; i < n && parallel_ranks_ > 1; i += most)
        MPI_Allreduce(MPI_IN_PLACE, x + i, (int)(n - i < most ? n - i : most), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
}

static inline void parallel_gather(float *x, const ParallelBuckets *b) {
    const int ranks = parallel_ranks_;
    int *counts = check_malloc(2 * (size_t)ranks * sizeof *counts), *places = counts + ranks;
    for (int i = 0; i < b->count && ranks > 1; i++) {
        for (int r = 0; r < ranks; r++) {
            FloatRange slice = parallel_slice(b->ranges[i], r, ranks);
            counts[r] = (int)(slice.end - slice.begin);
            places[r] = (int)(slice.begin - b->ranges[i].begin);
        }
        MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, x + b->ranges[i].begin, counts, places, MPI_FLOAT,
                       MPI_COMM_WORLD);
    }
    free(counts);
}

static inline double parallel_sum_double(double x) {
    if (parallel_ranks_ > 1) MPI_Allreduce(MPI_IN_PLACE, &x, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return x;
}

static inline bool parallel_any(bool flag) { return parallel_sum_double(flag) > 0; }

#else

static inline int parallel_rank(void) { return 0; }
static inline int parallel_ranks(void) { return 1; }
static inline void parallel_start(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (!size) size = getenv("PMI_SIZE");
    if (size && atoi(size) > 1)
        die("started as one of %s ranks, but built without MPI, so each would train alone; install an MPI "
            "with mpicc "
            "and run make again",
            size);
}
static inline void parallel_finish(void) {}
static inline void parallel_barrier(void) {}
static inline void parallel_sum(float *x, size_t n) { (void)x, (void)n; }
static inline void parallel_gather(float *x, const ParallelBuckets *b) { (void)x, (void)b; }
static inline double parallel_sum_double(double x) { return x; }
static inline bool parallel_any(bool flag) { return flag; }

#endif
#endif
