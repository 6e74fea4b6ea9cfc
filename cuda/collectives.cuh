/* collectives.cuh: the operations that the GPUs of all ranks do together: reduce-scatter and all-gather of a bucket.

   With -DHAVE_NCCL the NCCL library does them, from GPU to GPU. In the emulator emulate_nccl.h does them, between the
   processes of a real MPI job. Without either, the hosts exchange gradients and weights (gpt/dist/exchange.h).

   x is the vector of all gradients or of all weights on the GPU, `bucket` a range of it; its slices are those of
   bucket_slice (gpt/math/ranges.h). All ranks call the same functions in the same order:
   collectives_available()                  whether this program can do this
   collectives_open(&c, job)                connects to the other ranks; each rank needs a GPU of its own
   collectives_close(&c)                    frees what collectives_open has allocated
   collectives_reduce_scatter(&c, x, bucket, stream)   this rank's slice of the bucket = its sum over the ranks. The
                                            other slices have no defined values afterwards
   collectives_all_gather(&c, x, bucket, stream)   the other ranks' slices of the bucket = what these ranks have there
   collectives_watch(&c, event)             the host waits for an event on a stream. When a rank or the network has
                                            failed, a collective operation never ends; then this dies with what NCCL
                                            reports */
#ifndef CUDA_COLLECTIVES_CUH
#define CUDA_COLLECTIVES_CUH

#include <vector>
#include "../gpt/dist/device.h"
#include "device.h"

#ifndef __CUDACC__
#include "emulate_nccl.h"
#define HAVE_NCCL
#elif defined(HAVE_NCCL)
#include <nccl.h>
#endif

#ifdef HAVE_NCCL

static inline void nccl_check_at(ncclResult_t result, const char *call, const char *file, int line) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    check_die(file, line,
              "%s: %s; NCCL_DEBUG=WARN shows more (each rank needs a GPU of its own), --comm=host works "
              "without NCCL",
              call, ncclGetErrorString(result));
}
#define nccl_check(call) nccl_check_at(call, #call, __FILE__, __LINE__)

/* There is no time limit for waiting, as there is none in MPI: a rank may read or write files for long, and when a rank
   dies, the launcher ends the job. After so many seconds the host warns once what it waits for, and goes on waiting. */
enum { COLLECTIVES_PATIENCE = 600 };

struct Collectives {
    int rank, ranks;
    ncclComm_t comm;
    double patience; /* seconds of waiting until the warning; infinite after it */
};

static inline bool collectives_available() { return true; }

static inline void collectives_open(Collectives *c, const DeviceJob &job) {
    ncclUniqueId own = ncclUniqueId();
    std::vector<ncclUniqueId> all((size_t)job.ranks);
    if (job.rank == 0) nccl_check(ncclGetUniqueId(&own));
    job.collect(all.data(), &own, sizeof own); /* all ranks use that of rank 0 */
    c->rank = job.rank, c->ranks = job.ranks, c->patience = COLLECTIVES_PATIENCE;
#ifndef __CUDACC__
    emulated_collect = job.collect;
#endif
    nccl_check(ncclCommInitRank(&c->comm, job.ranks, all[0], job.rank));
}

static inline void collectives_close(Collectives *c) { nccl_check(ncclCommDestroy(c->comm)); }

/* Dies when NCCL has found an error; its kernels would wait for ever. */
static inline void collectives_check(Collectives *c) {
    ncclResult_t fault;
    nccl_check(ncclCommGetAsyncError(c->comm, &fault));
    if (fault == ncclSuccess || fault == ncclInProgress) return;
    ncclCommAbort(c->comm); /* ends the waiting kernels */
    die("NCCL, among %d ranks: %s; the cause is another rank or the network: see the messages of other "
        "ranks; NCCL_DEBUG=WARN shows more; --resume=auto goes on from the last checkpoint",
        c->ranks, ncclGetErrorString(fault));
}

static inline void collectives_watch(Collectives *c, cudaEvent_t event) {
    /* The core is free for other threads during these 20 microseconds, which are short beside a step. */
    const struct timespec pause = {0, 20000};
    const double start = seconds_now();
    for (;;) {
        const bool done = event_done(event);
        collectives_check(c);
        if (done) return;
        nanosleep(&pause, nullptr);
        const double waited = seconds_now() - start;
        if (waited < c->patience) continue;
        c->patience = INFINITY;
        warn("the GPU has been waiting for the other ranks for %.0f s; see whether all of them still run, "
             "and end the job if not: --resume=auto goes on from the last checkpoint",
             waited);
    }
}

/* Whether NCCL's own reduce-scatter and all-gather fit: they need slices of one size, as most buckets have. */
static inline bool slices_have_equal_size(const Collectives *c, FloatRange bucket) {
    return (bucket.end - bucket.begin) % ((size_t)c->ranks * SLICE_ALIGN) == 0;
}

/* Else: call(first element, count, rank) for every rank's slice that is not empty, as one group of NCCL's calls. */
template <typename Call>
static inline void each_slice(const Collectives *c, float *x, FloatRange bucket, Call call) {
    nccl_check(ncclGroupStart());
    for (int r = 0; r < c->ranks; r++) {
        const FloatRange slice = bucket_slice(bucket, r, c->ranks);
        if (slice.end > slice.begin) nccl_check(call(x + slice.begin, slice.end - slice.begin, r));
    }
    nccl_check(ncclGroupEnd());
}

static inline void collectives_reduce_scatter(Collectives *c, float *x, FloatRange bucket,
                                              cudaStream_t stream) {
    const FloatRange slice = bucket_slice(bucket, c->rank, c->ranks);
    if (slices_have_equal_size(c, bucket)) {
        nccl_check(ncclReduceScatter(x + bucket.begin, x + slice.begin, slice.end - slice.begin, ncclFloat,
                                     ncclSum, c->comm, stream));
        return;
    }
    each_slice(c, x, bucket, [&](float *at, size_t count, int rank) {
        return ncclReduce(at, at, count, ncclFloat, ncclSum, rank, c->comm, stream);
    });
}

static inline void collectives_all_gather(Collectives *c, float *x, FloatRange bucket, cudaStream_t stream) {
    const FloatRange slice = bucket_slice(bucket, c->rank, c->ranks);
    if (slices_have_equal_size(c, bucket)) {
        nccl_check(ncclAllGather(x + slice.begin, x + bucket.begin, slice.end - slice.begin, ncclFloat,
                                 c->comm, stream));
        return;
    }
    each_slice(c, x, bucket, [&](float *at, size_t count, int rank) {
        return ncclBroadcast(at, at, count, ncclFloat, rank, c->comm, stream);
    });
}

#else

struct Collectives {};
static inline bool collectives_available() { return false; }
static inline void collectives_open(Collectives *, const DeviceJob &) { die("built without NCCL"); }
static inline void collectives_close(Collectives *) {}
static inline void collectives_watch(Collectives *, cudaEvent_t) {}
static inline void collectives_reduce_scatter(Collectives *, float *, FloatRange, cudaStream_t) {}
static inline void collectives_all_gather(Collectives *, float *, FloatRange, cudaStream_t) {}

#endif
#endif
