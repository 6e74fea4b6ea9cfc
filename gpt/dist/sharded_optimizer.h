/* sharded_optimizer.h: the second half of an optimizer step: the gradients of all processes are summed, their norm is
   found, AdamW updates the weights, and every process gets all of them.

   This is the border behind which a step knows that there are several processes, and that the weights may be on a GPU.
   With one process and no GPU it is no more than gradient_squares and adamw_update (math/optimizer.h) over one array.

   The vector of all parameters is cut into buckets (parallel.h), and every bucket into one shard for each process. A
   process sums the gradients of its shards, keeps their two moments and updates their weights, so the moments take
   1/processes of the memory (ZeRO stage 1, Rajbhandari et al. 2020). With --zero=0 every process keeps all moments and
   computes the whole update.

   ShardedOptimizer o = optimizer_plan(parameters, zero, on_gpu)   who owns what; no memory yet
   optimizer_allocate(&o, weights, gradients, comm_bf16, comm_thread)   the moments, zero, and the buffers of messages.
                                    weights and gradients, (parameters->floats) each, stay the caller's
   optimizer_free(&o)
   optimizer_moments(&o)            floats of each of the two moments that this process keeps
   optimizer_buffer_floats(&o, comm_bf16)   the memory that messages take

   A step, on every process:
   gradients_clear(&o)              before the first micro-step: gradients = 0
   gradients_reduce_begin(&o)       before the last micro-step: from here on, gradients that have become final are sent
                                    while backward computes the others
   gradients_reduce(&o)             after it: waits for the sums, and returns the norm of the gradients of all processes
   optimizer_update(&o, &settings)  the weights of every process become the new ones

   Checkpoints and initial values are written and read on the host:
   optimizer_send_to_gpu(&o)        after the host's weights and moments have changed
   optimizer_fetch_from_gpu(&o)     before the host reads them */
#ifndef GPT_DIST_SHARDED_OPTIMIZER_H
#define GPT_DIST_SHARDED_OPTIMIZER_H

#include "../base/machine.h"
#include "../base/profile.h"
#include "../math/optimizer.h"
#include "../math/tensor_table.h"
#include "device.h"
#include "parallel.h"

typedef struct {
    TensorTable parameters; /* the model's, which owns it */
    float *weights, *gradients;
    float *m, *v; /* AdamW's first and second moment of the owned parameters, one range after the other */
    ParallelBuckets buckets; /* of the parameters */
    int shard, shards; /* the moments are divided into so many shards, of which this process keeps one */
    FloatRange *owned; /* (owned_count) the parameters whose moments are here */
    int owned_count;
    bool
        on_gpu; /* the GPU keeps the moments and updates the weights; else the host does, also where a GPU computes the
                    gradients and they are summed over the hosts */
} ShardedOptimizer;

/* Backward finishes the gradients of one layer after the other, the last layer first, and those of the embedding, which
   come before all layers in memory, at the very end. */
static inline ParallelBuckets optimizer_buckets(const TensorTable *parameters) {
    const Tensor *tensors = parameters->tensors;
    size_t *starts = check_malloc((size_t)parameters->count * sizeof *starts);
    int count = 1;
    for (int i = 1; i < parameters->count; i++)
        if (tensors[i].per_layer && (!tensors[i - 1].per_layer || tensors[i - 1].layer != tensors[i].layer))
            starts[count++] = tensors[i].offset;
    ParallelBuckets buckets = parallel_buckets(starts, count, parameters->floats);
    free(starts);
    return buckets;
}

static inline ShardedOptimizer optimizer_plan(const TensorTable *parameters, bool zero, bool on_gpu) {
    ShardedOptimizer o = {.parameters = *parameters, .on_gpu = on_gpu};
    o.buckets = optimizer_buckets(parameters);
    o.shards = zero ? parallel_ranks() : 1;
    o.shard = o.shards > 1 ? parallel_rank() : 0;
    o.owned = parallel_owned(&o.buckets, o.shard, o.shards, &o.owned_count);
    return o;
}

static inline size_t optimizer_moments(const ShardedOptimizer *o) {
    return ranges_floats(o->owned, o->owned_count);
}

static inline size_t optimizer_buffer_floats(const ShardedOptimizer *o, bool comm_bf16) {
    return o->on_gpu ? 0 : parallel_buffer_floats(&o->buckets, comm_bf16);
}

static inline void optimizer_allocate(ShardedOptimizer *o, float *weights, float *gradients, bool comm_bf16,
                                      bool comm_thread) {
    o->weights = weights, o->gradients = gradients;
    if (o->on_gpu)
        device_join(&(DeviceJob){parallel_rank(), parallel_ranks(), o->buckets.ranges, o->buckets.count,
                                 parallel_collect});
    else
        parallel_open(&o->buckets, comm_bf16, comm_thread);
    o->m = machine_allocate(optimizer_moments(o) * sizeof(float));
    o->v = machine_allocate(optimizer_moments(o) * sizeof(float));
}

static inline void optimizer_free(ShardedOptimizer *o) {
    parallel_close();
    parallel_buckets_free(&o->buckets);
    free(o->m), free(o->v), free(o->owned);
}

/* ---- the host and the GPU ---- */

static inline void optimizer_send_to_gpu(ShardedOptimizer *o) {
    if (device_on()) device_put(DEVICE_WEIGHTS, o->weights);
    if (o->on_gpu) device_put(DEVICE_MEAN, o->m), device_put(DEVICE_SQUARE, o->v);
}

static inline void optimizer_fetch_from_gpu(ShardedOptimizer *o) {
    if (!o->on_gpu) return;
    device_get(DEVICE_WEIGHTS, o->weights);
    device_get(DEVICE_MEAN, o->m), device_get(DEVICE_SQUARE, o->v);
}

/* ---- a step ---- */

static inline void gradients_clear(ShardedOptimizer *o) {
    if (device_on())
        device_zero_gradients();
    else
        memset(o->gradients, 0, o->parameters.floats * sizeof(float));
}

static inline void gradients_reduce_begin(ShardedOptimizer *o) {
    if (o->on_gpu)
        device_sum_begin();
    else
        reduce_scatter_begin(o->gradients);
}

/* Every process has summed its own shards; the squares of all shards together give the norm. */
static inline double gradients_reduce(ShardedOptimizer *o) {
    double squares = 0;
    if (o->on_gpu) return sqrt(parallel_sum_double(device_gradient_squares()));
    profile(PROFILE_REDUCE);
    if (device_on()) device_get(DEVICE_GRADIENTS, o->gradients);
    reduce_scatter_ready(0);
    parallel_wait();
    profile(PROFILE_UPDATE);
    for (int i = 0; i < o->buckets.count; i++) {
        FloatRange own = parallel_slice(o->buckets.ranges[i], parallel_rank(), parallel_ranks());
        squares += gradient_squares(o->gradients + own.begin, own.end - own.begin);
    }
    return sqrt(parallel_sum_double(squares));
}

/* Of the time that gradients and weights were on their way during the latest step, the fraction in which no process
   waited for them; NaN: nothing was sent. */
static inline double optimizer_comm_hidden(const ShardedOptimizer *o) {
    return o->on_gpu ? device_hidden() : parallel_hidden();
}

/* Sends this process's shard of a bucket to the others and receives theirs. */
static inline void optimizer_all_gather(ShardedOptimizer *o, int what, int bucket) {
    if (o->on_gpu)
        device_share(what, bucket);
    else
        all_gather(what == DEVICE_WEIGHTS ? o->weights : o->gradients, bucket);
}

static inline void optimizer_wait(ShardedOptimizer *o) {
    if (o->on_gpu)
        device_share_wait();
    else
        parallel_wait();
}

/* AdamW on the parameters of `range`, whose moments begin at `at` of m and v. Matrices decay, norms do not. */
static inline void optimizer_update_range(ShardedOptimizer *o, FloatRange range, size_t at,
                                          const AdamWSettings *settings) {
    for (int i = 0; i < o->parameters.count; i++) {
        const Tensor *tensor = &o->parameters.tensors[i];
        const FloatRange both = range_meet(tensor_range(tensor), range);
        const size_t n = both.end - both.begin, moments = at + both.begin - range.begin;
        if (n == 0) continue;
        AdamWSettings own = *settings;
        if (tensor->rank != 2) own.weight_decay = 0;
        if (o->on_gpu)
            device_update((int64_t)both.begin, (int64_t)moments, (int64_t)n,
                          &(DeviceAdamW){own.lr, own.beta1, own.beta2, own.eps, own.weight_decay,
                                         own.gradient_scale, own.step});
        else
            adamw_update(o->weights + both.begin, o->gradients + both.begin, o->m + moments, o->v + moments,
                         n, &own);
    }
}

static inline void optimizer_update(ShardedOptimizer *o, const AdamWSettings *settings) {
    size_t at = 0;
    for (int i = 0; i < o->buckets.count && o->shards < parallel_ranks(); i++)
        optimizer_all_gather(o, DEVICE_GRADIENTS,
                             i); /* --zero=0: each process needs the sums of all shards */
    optimizer_wait(o);
    for (int i = 0; i < o->owned_count; i++) {
        optimizer_update_range(o, o->owned[i], at, settings);
        if (o->shards > 1) optimizer_all_gather(o, DEVICE_WEIGHTS, i);
        at += o->owned[i].end - o->owned[i].begin;
    }
    optimizer_wait(o);
    if (device_on() && !o->on_gpu) device_put(DEVICE_WEIGHTS, o->weights);
}

#endif
