/* sharded_optimizer.h: what a training step does after the backward pass. Each rank (a process that mpirun starts) has
   a gradient of its own sequences. These functions sum the gradients over the ranks, compute the L2 norm of the sum,
   update the weights by the chosen optimizer (AdamW, LAMB or Muon), and bring the new weights to every rank.

   The trainer calls them without knowing how many ranks there are and whether the weights are on a GPU. With one rank
   and no GPU they only call gradient_squares and adamw_update (math/optimizer.h).

   The vector of all parameters is cut into buckets, and every bucket into one slice for each rank; slice r of all
   buckets together is shard r (buckets.h; the shards of tokens in io/shards.h are something else). Rank r sums the
   gradients of shard r. With --zero=1 it also keeps the optimizer's two moments of this shard only, and updates only
   its weights, so that the moments take 1/ranks of the memory (ZeRO stage 1, Rajbhandari et al. 2020); then an
   all-gather brings the new weights to all ranks. With --zero=0 every rank keeps all moments and computes the whole
   update.

   AdamW treats each parameter alone. LAMB needs norms of whole tensors, which the ranks add up from their slices. Muon
   needs whole matrices, so with several ranks it needs --zero=0. It updates the matrices of the layers, and AdamW the
   other parameters; a matrix of Muon has its momentum in m, and its v stays 0.

   All ranks call these functions in the same order:
   ShardedOptimizer o = optimizer_plan(parameters, kind, zero, on_gpu)   decides which rank keeps which moments, and
                                    allocates the lists of ranges, but no moments: so --dry-run can tell the memory of a
                                    model without taking it. kind, zero: the options --optimizer and --zero. on_gpu: see
                                    the struct. The caller frees the tensors of *parameters
   optimizer_allocate(&o, weights, gradients, comm_bf16, comm_thread)   allocates the moments, all 0, and the buffers of
                                    messages (exchange.h). weights and gradients, (parameters->floats) each, stay the
                                    caller's. Call it once, and do not move o afterwards: exchange.h keeps a pointer to
                                    o.buckets
   optimizer_free(&o)               frees what these two have allocated
   optimizer_moments(&o)            how many floats each of the two moments has on this rank
   optimizer_work_floats(&o)        the size of Muon's work memory, in floats; 0 with other optimizers
   optimizer_buffer_floats(&o, comm_bf16)   the size of the buffers of messages, in floats
   optimizer_comm_overlap(&o)       how well the latest step hid its communication: of the time in which gradients or
                                    weights were being sent, the fraction in which this rank computed instead of waiting
                                    for them, 0 to 1; NaN: nothing was sent

   A step:
   gradients_clear(&o)              before the first micro-step: gradients = 0
   gradients_reduce_begin(&o)       before the last micro-step: from here on, gradients that have become final are sent
                                    while backward computes the others
   gradients_reduce(&o)             after the last micro-step: waits until the gradients are summed over the ranks, and
                                    returns the L2 norm of the sum, over all parameters
   optimizer_update(&o, &settings)  updates the weights. Afterwards all ranks have the same new weights

   Initial values and checkpoints are written and read on the host:
   optimizer_send_to_gpu(&o)        call it after the host's weights and moments have changed
   optimizer_fetch_from_gpu(&o)     call it before the host reads them */
#ifndef GPT_DIST_SHARDED_OPTIMIZER_H
#define GPT_DIST_SHARDED_OPTIMIZER_H

#include "../base/memory.h"
#include "../base/profile.h"
#include "../math/muon.h"
#include "../math/optimizer.h"
#include "../math/tensor_table.h"
#include "buckets.h"
#include "device.h"
#include "exchange.h"
#include "parallel.h"

typedef struct {
    TensorTable parameters; /* the model's, which owns the memory */
    OptimizerKind kind;
    float *weights, *gradients; /* (parameters.floats) each, the caller's */
    /* (optimizer_moments) each: the first and second moment of the parameters in shard_ranges, one range after the
       other. */
    float *m, *v;
    float *work; /* (optimizer_work_floats) */
    ParameterBuckets buckets;
    int shard, shards; /* the moments are divided into `shards` shards; this rank keeps number `shard` */
    /* (shard_range_count) the parameters of this shard. If there are several shards, range i is this shard's slice of
       bucket i; if there is only one, there is one range with all parameters. */
    FloatRange *shard_ranges;
    int shard_range_count;
    /* True: the moments are on the GPU, which also sums the gradients with the GPUs of other ranks and computes the
       update. False: the host does both. If there is a GPU nevertheless (--comm=host), it computes only the gradients,
       which are copied to the host. */
    bool on_gpu;
} ShardedOptimizer;

/* Cuts the vector of all parameters into buckets, so that the gradients in a bucket become final at the same time and
   can be sent while backward computes the others. Backward finishes one layer after the other, the last layer first,
   and the embedding, which precedes all layers in memory, at the very end. So the groups that
   are passed to buckets_plan begin at 0 (the embedding) and at the first parameter of each layer. */
static inline ParameterBuckets optimizer_buckets(const TensorTable *parameters) {
    const Tensor *tensors = parameters->tensors;
    size_t *starts = check_calloc((size_t)parameters->count * sizeof *starts);
    int count = 1;
    for (int i = 1; i < parameters->count; i++)
        if (tensors[i].per_layer && (!tensors[i - 1].per_layer || tensors[i - 1].layer != tensors[i].layer))
            starts[count++] = tensors[i].offset;
    ParameterBuckets buckets = buckets_plan(starts, count, parameters->floats);
    free(starts);
    return buckets;
}

static inline ShardedOptimizer optimizer_plan(const TensorTable *parameters, OptimizerKind kind, bool zero,
                                              bool on_gpu) {
    ShardedOptimizer o = {.parameters = *parameters, .kind = kind, .on_gpu = on_gpu};
    o.buckets = optimizer_buckets(parameters);
    o.shards = zero ? parallel_ranks() : 1;
    o.shard = o.shards > 1 ? parallel_rank() : 0;
    o.shard_ranges = buckets_shard(&o.buckets, o.shard, o.shards, &o.shard_range_count);
    return o;
}

static inline size_t optimizer_moments(const ShardedOptimizer *o) {
    return ranges_floats(o->shard_ranges, o->shard_range_count);
}

/* Whether Muon updates the tensor: the matrices of the layers, but not those of tokens and positions. */
static inline bool optimizer_takes_muon(const ShardedOptimizer *o, const Tensor *tensor) {
    return o->kind == OPTIMIZER_MUON && tensor->per_layer && tensor->dimensions == 2;
}

static inline size_t optimizer_work_floats(const ShardedOptimizer *o) {
    size_t most = 0;
    for (int i = 0; i < o->parameters.count; i++) {
        const Tensor *t = &o->parameters.tensors[i];
        if (!optimizer_takes_muon(o, t)) continue;
        const size_t floats = muon_work_floats((size_t)t->shape[0], (size_t)t->shape[1]);
        if (floats > most) most = floats;
    }
    return most;
}

static inline size_t optimizer_buffer_floats(const ShardedOptimizer *o, bool comm_bf16) {
    return o->on_gpu ? 0 : exchange_buffer_floats(&o->buckets, comm_bf16);
}

static inline void optimizer_allocate(ShardedOptimizer *o, float *weights, float *gradients, bool comm_bf16,
                                      bool comm_thread) {
    o->weights = weights, o->gradients = gradients;
    if (o->on_gpu)
        device_join(&(DeviceJob){parallel_rank(), parallel_ranks(), o->buckets.ranges, o->buckets.count,
                                 parallel_collect});
    else
        exchange_open(&o->buckets, comm_bf16, comm_thread);
    o->m = memory_allocate(optimizer_moments(o) * sizeof(float));
    o->v = memory_allocate(optimizer_moments(o) * sizeof(float));
    o->work = memory_allocate(optimizer_work_floats(o) * sizeof(float));
}

static inline void optimizer_free(ShardedOptimizer *o) {
    exchange_close();
    buckets_free(&o->buckets);
    free(o->m), free(o->v), free(o->work), free(o->shard_ranges);
}

/* ---- the host and the GPU ---- */

static inline void optimizer_send_to_gpu(ShardedOptimizer *o) {
    if (device_on()) device_put(DEVICE_WEIGHTS, o->weights);
    if (o->on_gpu) device_put(DEVICE_ADAM_M, o->m), device_put(DEVICE_ADAM_V, o->v);
}

static inline void optimizer_fetch_from_gpu(ShardedOptimizer *o) {
    if (!o->on_gpu) return;
    device_get(DEVICE_WEIGHTS, o->weights);
    device_get(DEVICE_ADAM_M, o->m), device_get(DEVICE_ADAM_V, o->v);
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
        device_reduce_scatter_begin();
    else
        reduce_scatter_begin(o->gradients);
}

/* Every rank has the sums of its own slices. Their squares, added over all ranks, give the square of the norm. */
static inline double gradients_reduce(ShardedOptimizer *o) {
    double squares = 0;
    if (o->on_gpu) return sqrt(parallel_sum_double(device_gradient_squares()));
    profile(PROFILE_REDUCE);
    if (device_on()) device_get(DEVICE_GRADIENTS, o->gradients);
    reduce_scatter_ready(0);
    exchange_wait();
    profile(PROFILE_UPDATE);
    for (int i = 0; i < o->buckets.count; i++) {
        FloatRange slice = bucket_slice(o->buckets.ranges[i], parallel_rank(), parallel_ranks());
        squares += gradient_squares(o->gradients + slice.begin, slice.end - slice.begin);
    }
    return sqrt(parallel_sum_double(squares));
}

static inline double optimizer_comm_overlap(const ShardedOptimizer *o) {
    return o->on_gpu ? device_comm_overlap() : exchange_comm_overlap();
}

/* Starts to send this rank's slice of a bucket of the weights to the other ranks, and to receive theirs. */
static inline void optimizer_all_gather_weights(ShardedOptimizer *o, int bucket) {
    if (o->on_gpu)
        device_all_gather(DEVICE_WEIGHTS, bucket);
    else
        all_gather(o->weights, bucket);
}

/* Starts to send this rank's slice of a bucket of the summed gradients to the other ranks, and to receive theirs. */
static inline void optimizer_all_gather_gradients(ShardedOptimizer *o, int bucket) {
    if (o->on_gpu)
        device_all_gather(DEVICE_GRADIENTS, bucket);
    else
        all_gather(o->gradients, bucket);
}

/* Waits until everything that was started is sent and received. */
static inline void optimizer_wait(ShardedOptimizer *o) {
    if (o->on_gpu)
        device_collectives_wait();
    else
        exchange_wait();
}

/* The part of a tensor that lies in one of shard_ranges. */
typedef struct {
    const Tensor *tensor;
    size_t begin, count; /* elements of weights and gradients */
    size_t moments;      /* where those of m and v begin */
    AdamWSettings settings;
} OptimizerPiece;

/* The part of tensor number i in `range`, whose moments begin at element `at` of m and v; its count may be 0. Weight
   decay applies to matrices only, unless decay_vectors is set. */
static inline OptimizerPiece optimizer_piece(const ShardedOptimizer *o, int i, FloatRange range, size_t at,
                                             const AdamWSettings *settings) {
    const Tensor *tensor = &o->parameters.tensors[i];
    const FloatRange both = range_intersection(tensor_range(tensor), range);
    OptimizerPiece piece = {tensor, both.begin, both.end - both.begin, at + both.begin - range.begin,
                            *settings};
    if (tensor->dimensions != 2 && !settings->decay_vectors) piece.settings.weight_decay = 0;
    return piece;
}

/* The first half of LAMB: updates all moments and finds the trust of each tensor (parameters.count). Every rank has the
   sums of squares of its own slices; they are added in the order of the ranks, so all ranks get the same bits. The
   weight vectors of RMSNorm have a trust of 1, as in the authors' program. */
static inline void optimizer_lamb_trust(ShardedOptimizer *o, const AdamWSettings *settings, double *trust) {
    const int count = o->parameters.count, ranks = o->shards > 1 ? parallel_ranks() : 1;
    LambSquares *own = check_calloc((size_t)count * sizeof *own);
    LambSquares *all = check_calloc((size_t)(count * ranks) * sizeof *all);
    size_t at = 0;
    for (int r = 0; r < o->shard_range_count; r++) {
        for (int i = 0; i < count; i++) {
            const OptimizerPiece p = optimizer_piece(o, i, o->shard_ranges[r], at, settings);
            if (p.count)
                lamb_moments(&own[i], o->weights + p.begin, o->gradients + p.begin, o->m + p.moments,
                             o->v + p.moments, p.count, &p.settings);
        }
        at += o->shard_ranges[r].end - o->shard_ranges[r].begin;
    }
    if (ranks > 1)
        parallel_collect(all, own, (size_t)count * sizeof *own);
    else
        memcpy(all, own, (size_t)count * sizeof *own);
    for (int i = 0; i < count; i++) {
        LambSquares sum = {0, 0};
        for (int r = 0; r < ranks; r++)
            sum.parameter += all[r * count + i].parameter, sum.step += all[r * count + i].step;
        trust[i] = o->parameters.tensors[i].dimensions == 2 ? lamb_trust(&sum) : 1;
    }
    free(own), free(all);
}

/* Updates the weights of a piece. trust: that of its tensor, for LAMB. */
static inline void optimizer_update_piece(ShardedOptimizer *o, const OptimizerPiece *p, double trust) {
    float *weights = o->weights + p->begin, *gradients = o->gradients + p->begin;
    float *m = o->m + p->moments, *v = o->v + p->moments;
    if (o->on_gpu)
        device_update((int64_t)p->begin, (int64_t)p->moments, (int64_t)p->count, &p->settings);
    else if (o->kind == OPTIMIZER_LAMB)
        lamb_update(weights, m, v, p->count, trust, &p->settings);
    else if (optimizer_takes_muon(o, p->tensor)) /* the piece is the whole matrix: there is one shard */
        muon_update(weights, gradients, m, p->tensor->shape[0], p->tensor->shape[1], &p->settings, o->work);
    else
        adamw_update(weights, gradients, m, v, p->count, &p->settings);
}

static inline void optimizer_update(ShardedOptimizer *o, const AdamWSettings *settings) {
    double *trust = check_calloc((size_t)o->parameters.count * sizeof *trust); /* read by LAMB only */
    /* With --zero=0 every rank updates all parameters, but has summed the gradients of its own slices only: it needs
       the sums of the others first. */
    if (o->shards < parallel_ranks())
        for (int bucket = 0; bucket < o->buckets.count; bucket++) optimizer_all_gather_gradients(o, bucket);
    optimizer_wait(o);
    if (o->kind == OPTIMIZER_LAMB) optimizer_lamb_trust(o, settings, trust);
    size_t at = 0;
    for (int r = 0; r < o->shard_range_count; r++) {
        for (int i = 0; i < o->parameters.count; i++) {
            const OptimizerPiece piece = optimizer_piece(o, i, o->shard_ranges[r], at, settings);
            if (piece.count) optimizer_update_piece(o, &piece, trust[i]);
        }
        /* With several shards there is one range for each bucket, so r is also the number of the bucket. */
        if (o->shards > 1) optimizer_all_gather_weights(o, r);
        at += o->shard_ranges[r].end - o->shard_ranges[r].begin;
    }
    optimizer_wait(o);
    free(trust);
    if (device_on() && !o->on_gpu) device_put(DEVICE_WEIGHTS, o->weights);
}

#endif
