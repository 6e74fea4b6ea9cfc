/* exchange.cuh: sums gradients over all ranks and sends new weights to them, from GPU to GPU, while the model computes.
   It is gpt/dist/exchange.h for GPUs, with the same buckets, slices and order.

   The collective operations run on a CUDA stream of their own, beside the stream on which the model computes. Backward
   finishes the gradients of the last layers first. When those of a bucket are final, its reduce-scatter is launched; it
   waits for the kernels launched before it on the model's stream, and backward goes on beside it.

   `stream` is the model's stream. All ranks call these functions in the same order. With a single rank exchange_open
   returns nullptr; all functions but exchange_measure accept it and then do nothing, except that exchange_watch waits.
   exchange_open(job), exchange_close(e)   the caller of exchange_open closes it. The buckets in job are copied
   exchange_reduce_scatter_begin(e)   the next backward is the last one of its step: it makes gradients final
   exchange_reduce_scatter_ready(e, gradients, begin, stream)   the gradients from element `begin` on are final once
                                      `stream` is done with what it has been given so far. Launches the reduce-scatters
                                      of their buckets. Does nothing before exchange_reduce_scatter_begin, so that
                                      backward can call it in every micro-step
   exchange_all_gather(e, x, bucket, stream)   launches the all-gather of a bucket of x (all weights or all gradients),
                                      which begins when `stream` is done with what it has been given so far
   exchange_wait(e, stream)           what `stream` is given from now on waits until all of that is done; the host does
                                      not wait
   exchange_watch(e, event)           the host waits for the event, and dies when another rank or the network has failed
   exchange_measure(e)                call it when both streams have done all that was launched before the latest
                                      exchange_wait. Sets e->comm_overlap: of the time that collective operations took
                                      since the last call, the fraction in which `stream` did not wait for them, 0 to 1;
                                      NaN: there were none */
#ifndef CUDA_EXCHANGE_CUH
#define CUDA_EXCHANGE_CUH

#include "collectives.cuh"

/* The operations that one exchange_wait waits for, between two events on each stream, from which their time is
   found. */
struct ExchangePhase {
    cudaEvent_t first, last;       /* on the exchange's stream: before and after the operations */
    cudaEvent_t waiting, going_on; /* on the model's stream: before and after it waits for them */
};

struct Exchange {
    Collectives collectives;
    cudaStream_t stream;
    std::vector<ExchangePhase> phases; /* used again after each exchange_measure */
    size_t phase;        /* the current one; those before it are complete and not yet measured */
    bool under_way;      /* operations have been launched since the last exchange_wait */
    double comm_overlap; /* see exchange_measure */
    std::vector<FloatRange> buckets;
    std::vector<FloatRange> slices; /* this rank's slices of the buckets, without the empty ones */
    int not_final;                  /* the buckets before this one wait for exchange_reduce_scatter_ready */
};

static inline Exchange *exchange_open(const DeviceJob &job) {
    if (job.ranks == 1) return nullptr;
    Exchange *e = new Exchange();
    e->buckets.assign(job.buckets, job.buckets + job.count);
    for (const FloatRange &bucket : e->buckets) {
        const FloatRange slice = bucket_slice(bucket, job.rank, job.ranks);
        if (slice.end > slice.begin) e->slices.push_back(slice);
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

/* Called before operations are launched: they begin when `stream` is done with what it has been given so far. */
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

static inline void exchange_reduce_scatter_ready(Exchange *e, float *gradients, int64_t begin,
                                                 cudaStream_t stream) {
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
    double under_way = 0, waited = 0;
    for (size_t i = 0; i < e->phase; i++) {
        const ExchangePhase &p = e->phases[i];
        under_way += event_seconds(p.first, p.last), waited += event_seconds(p.waiting, p.going_on);
    }
    e->comm_overlap = under_way > 0 ? fmax(0, 1 - waited / under_way) : NAN;
    e->phase = 0;
}

#endif
