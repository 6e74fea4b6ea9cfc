/* device.h: the calls by which train_gpt.c lets a GPU hold the model and compute forward, loss and backward.
   train_gpt.cu implements them, in C++. In a program without a GPU (no -DHAVE_GPU) device_on() is false at compile time
   and the other calls do nothing.

   The host's weights and moments are what initial values, checkpoints and sampling read and write. device_put copies
   them to the GPU, device_get copies them, or the gradients, back. Activations exist on the GPU alone. Arrays of the
   caller stay the caller's. When a call of CUDA fails, the program dies with its message.

   device_on()                           whether this program uses a GPU
   device_choose(local_rank)             chooses the GPU of this rank, which is number local_rank on its host (hosts.h).
                                         Dies when there is no GPU
   device_has_attention(kind)            whether the GPU has kernels for this kind of attention
   device_name(text)                     writes the GPU's name and memory to text, and returns it
   device_peak_flops(bf16)               floating point operations per second in a large matrix product, measured
   device_memory_needed(&model)          the bytes of GPU memory that device_open allocates
   device_open(&model), device_close()   allocate the model's memory on the GPU, all weights, gradients and moments 0;
                                         free it
   device_put(array, from), device_get(array, to)   copy one of the arrays of DeviceArray. They return when it is done
   device_forward, device_loss, device_backward, device_logits   as model_forward, model_loss and so on in train_gpt.c.
                                         Only device_logits waits for the GPU; the others return at once, and the GPU
                                         computes one call after the other
   device_loss_sum()                     waits for the GPU; the sum of the losses of all device_loss since the last call
   device_note(text)                     after the first step: a line about how the GPU computes. Empty when it
                                         was returned before, or when there is nothing to report
   device_zero_gradients()               gradients = 0. Costs no time: the next micro-step writes gradients instead of
                                         adding to them
   device_gradient_squares()             waits for the GPU; the sum of the squares of the gradients. With several ranks:
                                         of those in this rank's shard (buckets.h)
   device_update(begin, moments, count, &settings)   AdamW on `count` weights from element `begin` of all weights on;
                                         their moments are elements `moments` and following of those that this GPU keeps

   Where device_has_collectives() is true, the GPUs of several ranks exchange gradients and weights with each other
   (cuda/exchange.cuh); else the host does it (exchange.h). Buckets and slices are the same. All ranks call these in the
   same order:
   device_has_collectives()              whether this program can do it
   device_join(&job)                     once, after device_open; also where there is a single rank
   device_reduce_scatter_begin()         the next device_backward is the last one of its step: each bucket of gradients
                                         is reduce-scattered as soon as backward has made it final.
                                         device_gradient_squares waits for the sums
   device_all_gather(array, bucket)      starts to all-gather bucket number `bucket` of the weights or the gradients
   device_collectives_wait()             the GPU begins no later work before all that has been started is done
   device_comm_overlap()                 as exchange_comm_overlap in exchange.h, for the time between the two latest
                                         calls of device_gradient_squares */
#ifndef GPT_DIST_DEVICE_H
#define GPT_DIST_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../math/attention.h"
#include "../math/optimizer.h"
#include "../math/ranges.h"

/* Where the tensors of a layer begin in the vector of all weights, in floats. Neighbours that are multiplied together
   (q, k, v; gate, up) form one matrix. */
typedef struct {
    int64_t attn_norm, qkv, o, mlp_norm, up, down;
} DeviceLayer;

typedef struct {
    int layers, heads, head_dim, embd, mlp_hidden, seq_len, vocab_size; /* L H D C F T V */
    int batch;                                                          /* B */
    int activation;                                                     /* as in options.h */
    int recompute;                                                      /* as in options.h */
    AttentionKind attn;
    bool sequence_shift, bf16;
    int64_t embed, position,
        final_norm;               /* where they begin in the weights; position is -1 when not learned */
    int64_t count;                /* floats of all weights */
    int64_t moments;              /* floats of each of AdamW's moments that this GPU keeps */
    const DeviceLayer *at;        /* (L) */
    const float *rope_cos_sin;    /* (T, D/2, 2) or NULL */
    const float *fixed_positions; /* (T, C) or NULL */
} DeviceModel;

/* The arrays on the GPU that the host may read and write: weights and gradients, (count) each, and AdamW's first and
   second moment, (moments) each. */
typedef enum { DEVICE_WEIGHTS, DEVICE_GRADIENTS, DEVICE_ADAM_M, DEVICE_ADAM_V } DeviceArray;

/* What the GPU's exchange must know of the job. parallel.h knows it, but only C programs can include that file. */
typedef struct {
    int rank, ranks;
    const FloatRange *buckets; /* (count) */
    int count;
    void (*collect)(void *all, const void *own, size_t n); /* parallel_collect */
} DeviceJob;

#ifdef HAVE_GPU
#ifdef __cplusplus
extern "C" {
#endif
static inline bool device_on(void) { return true; }
void device_choose(int local_rank);
bool device_has_attention(AttentionKind kind);
const char *device_name(char text[128]);
double device_peak_flops(bool bf16);
size_t device_memory_needed(const DeviceModel *model);
void device_open(const DeviceModel *model);
void device_close(void);
void device_put(DeviceArray array, const float *from);
void device_get(DeviceArray array, float *to);
void device_forward(const int32_t *tokens, int B, int T);
void device_loss(const int32_t *targets, int64_t N, float gradient_scale);
double device_loss_sum(void);
const char *device_note(char text[160]);
void device_backward(int B, int T);
void device_logits(float *logits, int64_t n);
void device_zero_gradients(void);
double device_gradient_squares(void);
void device_update(int64_t begin, int64_t moments, int64_t count, const AdamWSettings *settings);
bool device_has_collectives(void);
void device_join(const DeviceJob *job);
void device_reduce_scatter_begin(void);
void device_all_gather(DeviceArray array, int bucket);
void device_collectives_wait(void);
double device_comm_overlap(void);
#ifdef __cplusplus
}
#endif
#else
static inline bool device_on(void) { return false; }
static inline void device_choose(int local_rank) { (void)local_rank; }
static inline bool device_has_attention(AttentionKind kind) { return (void)kind, false; }
static inline const char *device_name(char text[128]) { return text; }
static inline double device_peak_flops(bool bf16) { return bf16; }
static inline size_t device_memory_needed(const DeviceModel *model) { return model == NULL; }
static inline void device_open(const DeviceModel *model) { (void)model; }
static inline void device_close(void) {}
static inline void device_put(DeviceArray array, const float *from) { (void)array, (void)from; }
static inline void device_get(DeviceArray array, float *to) { (void)array, (void)to; }
static inline void device_forward(const int32_t *tokens, int B, int T) { (void)tokens, (void)B, (void)T; }
static inline void device_loss(const int32_t *targets, int64_t N, float gradient_scale) {
    (void)targets, (void)N, (void)gradient_scale;
}
static inline double device_loss_sum(void) { return 0; }
static inline const char *device_note(char text[160]) { return text[0] = '\0', text; }
static inline void device_backward(int B, int T) { (void)B, (void)T; }
static inline void device_logits(float *logits, int64_t n) { (void)logits, (void)n; }
static inline void device_zero_gradients(void) {}
static inline double device_gradient_squares(void) { return 0; }
static inline void device_update(int64_t begin, int64_t moments, int64_t count,
                                 const AdamWSettings *settings) {
    (void)begin, (void)moments, (void)count, (void)settings;
}
static inline bool device_has_collectives(void) { return false; }
static inline void device_join(const DeviceJob *job) { (void)job; }
static inline void device_reduce_scatter_begin(void) {}
static inline void device_all_gather(DeviceArray array, int bucket) { (void)array, (void)bucket; }
static inline void device_collectives_wait(void) {}
static inline double device_comm_overlap(void) { return 0; }
#endif
#endif
