/* exchange.cuh: gradients and weights of several ranks on their way while the GPU computes, as the exchange of
   gpt/parallel.h between hosts: the same buckets, the same owners, the same order.

   It has a stream of its own. Backward runs on the model's; a bucket's sum waits for what that stream has been given so
   far, which made the bucket's gradients final, and for nothing after it.

   exchange_open(job), exchange_close(e)      NULL for a single rank; all calls take NULL and then do nothing
   exchange_begin(e)                     the next backward is the last of its step: it makes gradients final
   exchange_final(e, gradients, begin, stream)   those from float `begin` on are; starts the sums of their buckets. A no-op
                                         before exchange_begin, so that backward can call it always
   exchange_share(e, x, bucket, stream)  every rank gets the other ranks' slices of this bucket of x, once `stream` is here
   exchange_wait(e, stream)              what `stream` is given from now on waits until all of that is done */
#ifndef CUDA_EXCHANGE_CUH
#define CUDA_EXCHANGE_CUH

#include "collectives.cuh"

struct Exchange {
    Collectives collectives;
    cudaStream_t stream;
    std::vector<FloatRange> buckets, owned; /* owned: this rank's slices, none of them empty */
    int not_final;                          /* buckets before this one wait for exchange_final */
};

static inline Exchange *exchange_open(const DeviceJob &job) {
    if (job.ranks == 1) return nullptr;
    Exchange *e = new Exchange();
    e->buckets.assign(job.buckets, job.buckets + job.count);
    for (const FloatRange &bucket : e->buckets) {
        const FloatRange own = parallel_slice(bucket, job.rank, job.ranks);
        if (own.end > own.begin) e->owned.push_back(own);
    }
    e->stream = stream_create();
    collectives_open(&e->collectives, job);
    return e;
}

static inline void exchange_close(Exchange *e) {
    if (!e) return;
    device_wait(e->stream);
    collectives_close(&e->collectives);
    stream_destroy(e->stream);
    delete e;
}

static inline void exchange_begin(Exchange *e) {
    if (e) e->not_final = (int)e->buckets.size();
}

static inline void exchange_final(Exchange *e, float *gradients, int64_t begin, cudaStream_t stream) {
    if (!e || e->not_final == 0 || (int64_t)e->buckets[(size_t)e->not_final - 1].begin < begin) return;
    stream_wait(e->stream, stream);
    while (e->not_final > 0 && (int64_t)e->buckets[(size_t)e->not_final - 1].begin >= begin)
        collectives_reduce(&e->collectives, gradients, e->buckets[(size_t)--e->not_final], e->stream);
}

static inline void exchange_share(Exchange *e, float *x, int bucket, cudaStream_t stream) {
    if (!e) return;
    stream_wait(e->stream, stream);
    collectives_gather(&e->collectives, x, e->buckets[(size_t)bucket], e->stream);
}

static inline void exchange_wait(Exchange *e, cudaStream_t stream) {
    if (e) stream_wait(stream, e->stream);
}

#endif
