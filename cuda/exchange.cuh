/* exchange.cuh: gradients and weights of several ranks on their way while the GPU computes, as the exchange of
   gpt/dist/parallel.h between hosts: the same buckets, the same owners, the same order.

   It has a stream of its own. Backward runs on the model's; a bucket's sum waits for what that stream has been given so
   far, which made the bucket's gradients final, and for nothing after it.

   exchange_open(job), exchange_close(e)      NULL for a single rank; all calls but measure take NULL and then do nothing
   exchange_reduce_scatter_begin(e)                     the next backward is the last of its step: it makes gradients final
   exchange_reduce_scatter_ready(e, gradients, begin, stream)   those from float `begin` on are; starts the sums of their buckets. A no-op
                                         before exchange_reduce_scatter_begin, so that backward can call it always
   exchange_all_gather(e, x, bucket, stream)  every rank gets the other ranks' slices of this bucket of x, once `stream` is here
   exchange_wait(e, stream)              what `stream` is given from now on waits until all of that is done
   exchange_watch(e, event)              the host waits for it, and learns of other ranks' failures; without e it waits
   exchange_measure(e)                   after that: e->comm_overlap is, of the time that buckets were on their way since the last
                                         call, the share in which `stream` did not wait for them; NaN: none were */
#ifndef CUDA_EXCHANGE_CUH
#define CUDA_EXCHANGE_CUH

#include "collectives.cuh"

/* Buckets that exchange_wait waits for together, between two moments of each stream. */
struct ExchangePhase {
    cudaEvent_t first, last;       /* of the exchange's stream: around the collectives */
    cudaEvent_t waiting, going_on; /* of the model's */
};

struct Exchange {
    Collectives collectives;
    cudaStream_t stream;
    std::vector<ExchangePhase> phases;
    size_t phase; /* of them: those before it are over, and not yet measured */
    bool under_way;
    double comm_overlap;
    std::vector<FloatRange> buckets, owned; /* owned: this rank's slices, none of them empty */
    int not_final;                          /* buckets before this one wait for exchange_reduce_scatter_ready */
};

static inline Exchange *exchange_open(const DeviceJob &job) {
    if (job.ranks == 1) return nullptr;
    Exchange *e = new Exchange();
    e->buckets.assign(job.buckets, job.buckets + job.count);
    for (const FloatRange &bucket : e->buckets) {
        const FloatRange own = bucket_slice(bucket, job.rank, job.ranks);
        if (own.end > own.begin) e->owned.push_back(own);
    }
    e->stream = stream_create();
    e->comm_overlap = NAN;
    collectives_open(&e->collectives, job);
    return e;
}

static inline void exchange_close(Exchange *e) {
    if (!e) return;
    device_wait(e->stream);
    collectives_close(&e->collectives);
    for (const ExchangePhase &p : e->phases)
        for (cudaEvent_t event : {p.first, p.last, p.waiting, p.going_on}) event_destroy(event);
    stream_destroy(e->stream);
    delete e;
}

/* The exchange's stream will do collectives, after all that `stream` has been given. */
static inline void exchange_start(Exchange *e, cudaStream_t stream) {
    stream_wait(e->stream, stream);
    if (e->under_way) return;
    if (e->phase == e->phases.size())
        e->phases.push_back({event_create(), event_create(), event_create(), event_create()});
    event_record(e->phases[e->phase].first, e->stream);
    e->under_way = true;
}

static inline void exchange_reduce_scatter_begin(Exchange *e) {
    if (e) e->not_final = (int)e->buckets.size();
}

static inline void exchange_reduce_scatter_ready(Exchange *e, float *gradients, int64_t begin, cudaStream_t stream) {
    if (!e || e->not_final == 0 || (int64_t)e->buckets[(size_t)e->not_final - 1].begin < begin) return;
    exchange_start(e, stream);
    while (e->not_final > 0 && (int64_t)e->buckets[(size_t)e->not_final - 1].begin >= begin)
        collectives_reduce_scatter(&e->collectives, gradients, e->buckets[(size_t)--e->not_final], e->stream);
}

static inline void exchange_all_gather(Exchange *e, float *x, int bucket, cudaStream_t stream) {
    if (!e) return;
    exchange_start(e, stream);
    collectives_all_gather(&e->collectives, x, e->buckets[(size_t)bucket], e->stream);
}

static inline void exchange_wait(Exchange *e, cudaStream_t stream) {
    if (!e || !e->under_way) return;
    const ExchangePhase &p = e->phases[e->phase++];
    event_record(p.last, e->stream);
    event_record(p.waiting, stream);
    stream_wait(stream, e->stream);
    event_record(p.going_on, stream);
    e->under_way = false;
}

static inline void exchange_watch(Exchange *e, cudaEvent_t event) {
    if (e)
        collectives_watch(&e->collectives, event);
    else
        event_wait(event);
}

static inline void exchange_measure(Exchange *e) {
    double on_their_way = 0, waited = 0;
    for (size_t i = 0; i < e->phase; i++) {
        const ExchangePhase &p = e->phases[i];
        on_their_way += event_seconds(p.first, p.last), waited += event_seconds(p.waiting, p.going_on);
    }
    e->comm_overlap = on_their_way > 0 ? fmax(0, 1 - waited / on_their_way) : NAN;
    e->phase = 0;
}

#endif
