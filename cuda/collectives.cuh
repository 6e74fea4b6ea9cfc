/* collectives.cuh: what the GPUs of several ranks do together: sums of gradients, and weights handed round.

   With -DHAVE_NCCL it is NCCL, from GPU to GPU; in the emulator emulate_nccl.h, between real ranks. Without it there is none of
   it: the trainer then moves gradients and weights through the hosts (gpt/dist/parallel.h).

   collectives_available()                      whether this program has them
   collectives_open(&c, job)                all ranks; each has a GPU of its own
   collectives_reduce_scatter(&c, x, bucket, stream)   the own slice of this bucket of x = its sum over the ranks; the other slices
                                            hold nothing of use afterwards
   collectives_all_gather(&c, x, bucket, stream)   every rank gets the other ranks' slices of this bucket of x
   collectives_watch(&c, event)             the host waits for it, which may be after collectives. They never end where a rank or
                                            the network has failed: what NCCL finds of that ends the job
   collectives_close(&c)
   x is all gradients, or all weights. All ranks call the same, in the same order. Slices are those of bucket_slice. */
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
    check_die(
        file, line,
        "%s: %s; NCCL_DEBUG=WARN tells more (each rank needs a GPU of its own), --comm=host goes without "
        "NCCL",
        call, ncclGetErrorString(result));
}
#define nccl_check(call) nccl_check_at(call, #call, __FILE__, __LINE__)

/* Ranks wait for each other as they do on the CPU, where MPI knows no time-out either: one may be reading or writing for
   long, and when one dies its launcher ends the job. So after this long they say what they wait for, and go on waiting. */
enum { COLLECTIVES_PATIENCE = 600 /* seconds */ };

struct Collectives {
    int rank, ranks;
    ncclComm_t comm;
    double patience; /* seconds until the word; infinite: it has been said */
};

static inline bool collectives_available() { return true; }

static inline void collectives_open(Collectives *c, const DeviceJob &job) {
    ncclUniqueId own = ncclUniqueId();
    std::vector<ncclUniqueId> all((size_t)job.ranks);
    if (job.rank == 0) nccl_check(ncclGetUniqueId(&own));
    job.collect(all.data(), &own, sizeof own); /* rank 0's is everybody's */
    c->rank = job.rank, c->ranks = job.ranks, c->patience = COLLECTIVES_PATIENCE;
#ifndef __CUDACC__
    emulated_collect = job.collect;
#endif
    nccl_check(ncclCommInitRank(&c->comm, job.ranks, all[0], job.rank));
}

static inline void collectives_close(Collectives *c) { nccl_check(ncclCommDestroy(c->comm)); }

/* Dies when NCCL has found a fault since the latest call, which its kernels would wait through without end. */
static inline void collectives_check(Collectives *c) {
    ncclResult_t fault;
    nccl_check(ncclCommGetAsyncError(c->comm, &fault));
    if (fault == ncclSuccess || fault == ncclInProgress) return;
    ncclCommAbort(c->comm); /* ends its kernels */
    die("NCCL, among %d ranks: %s; the cause is another rank or the network: see what other ranks said, "
        "NCCL_DEBUG=WARN tells more; --resume=auto goes on from the last checkpoint",
        c->ranks, ncclGetErrorString(fault));
}

static inline void collectives_watch(Collectives *c, cudaEvent_t event) {
    const struct timespec pause = {0, 20000}; /* next to nothing of a step, and leaves the core to others */
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
             "and end "
             "the job if not: --resume=auto goes on from the last checkpoint",
             waited);
    }
}

/* NCCL's reduce-scatter and all-gather want slices of one size, as those of large models are. */
static inline bool slices_have_equal_size(const Collectives *c, FloatRange bucket) {
    return (bucket.end - bucket.begin) % ((size_t)c->ranks * SLICE_ALIGN) == 0;
}

/* One group of calls, call(at, count, owner) for every slice that is not empty. */
template <typename Call>
static inline void each_slice(const Collectives *c, float *x, FloatRange bucket, Call call) {
    nccl_check(ncclGroupStart());
    for (int r = 0; r < c->ranks; r++) {
        const FloatRange slice = bucket_slice(bucket, r, c->ranks);
        if (slice.end > slice.begin) nccl_check(call(x + slice.begin, slice.end - slice.begin, r));
    }
    nccl_check(ncclGroupEnd());
}

static inline void collectives_reduce_scatter(Collectives *c, float *x, FloatRange bucket, cudaStream_t stream) {
    const FloatRange own = bucket_slice(bucket, c->rank, c->ranks);
    if (slices_have_equal_size(c, bucket)) {
        nccl_check(ncclReduceScatter(x + bucket.begin, x + own.begin, own.end - own.begin, ncclFloat, ncclSum,
                                     c->comm, stream));
        return;
    }
    each_slice(c, x, bucket, [&](float *at, size_t count, int owner) {
        return ncclReduce(at, at, count, ncclFloat, ncclSum, owner, c->comm, stream);
    });
}

static inline void collectives_all_gather(Collectives *c, float *x, FloatRange bucket, cudaStream_t stream) {
    const FloatRange own = bucket_slice(bucket, c->rank, c->ranks);
    if (slices_have_equal_size(c, bucket)) {
        nccl_check(
            ncclAllGather(x + own.begin, x + bucket.begin, own.end - own.begin, ncclFloat, c->comm, stream));
        return;
    }
    each_slice(c, x, bucket, [&](float *at, size_t count, int owner) {
        return ncclBroadcast(at, at, count, ncclFloat, owner, c->comm, stream);
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
