/* device.h: a GPU that holds the model and computes in place of section 2 of train_gpt.c; without -DHAVE_GPU there is none,
   device_on() is false at compile time, and every call disappears. train_gpt.cu implements it, in C++.

   The host's weights and moments stay what init, checkpoints and sampling work on: device_put sends them, device_get
   brings them (or the gradients) back. Everything else lives on the GPU and never leaves it.

   device_on()                           whether there is one
   device_choose(local_rank)             the GPU of this rank, counted on its host; dies when there is none
   device_has_attention(kind)            whether it has kernels for this kind of attention
   device_name(text), device_peak_flops(bf16)   the second is measured
   device_memory_needed(&model)          bytes of its memory that device_open will take
   device_open(&model), device_close()
   device_forward, device_loss, device_backward, device_logits    as model_forward, model_loss, ... of train_gpt.c; only the
                                         last of them waits for the GPU, the others give it work and go on
   device_loss_sum()                     waits for it: the sum of what device_loss found since the last call
   device_note(text)                     once, after the first step: a line about how it computes; else, and where there is
                                         nothing to say, an empty one
   device_zero_gradients()               costs nothing: the micro-step that follows writes gradients where others add; who reads
                                         them before that finds zeros
   device_gradient_squares()             the sum of their squares; with several ranks of those in the slices that this one owns
   device_update(begin, moments, count, &settings)   AdamW on `count` weights from float `begin` on, whose moments begin at
                                         `moments` of those that are here

   The GPUs of several ranks exchange gradients and weights themselves where device_has_collectives() (cuda/exchange.cuh);
   buckets, slices and owners are parallel.h's.
   device_join(&job)                     once, all ranks, after device_open; a single rank too
   device_sum_begin()                    the next device_backward is the last of its step: it sums the gradients of all ranks, each
                                         slice on its owner. device_gradient_squares waits for that
   device_share(what, bucket)            every rank gets the other ranks' slices of this bucket of the weights or gradients
   device_share_wait()                   what the GPU does from now on waits until all of that is done
   device_hidden()                       as parallel_hidden, between the two latest calls of device_gradient_squares */
#ifndef GPT_DIST_DEVICE_H
#define GPT_DIST_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../math/attention.h"
#include "../math/optimizer.h"
#include "../math/ranges.h"

/* Where the tensors of a layer begin in the weights, in floats. Adjacent ones (q, k, v; gate, up) are one matrix. */
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
    int64_t embed, position, final_norm; /* where they begin in the weights; position -1: not learned */
    int64_t count;                       /* floats of the weights */
    int64_t moments;                     /* of each of AdamW's moments: those that the GPU keeps */
    const DeviceLayer *at;               /* (L) */
    const float *rope_cos_sin;           /* (T, D/2, 2) or NULL */
    const float *fixed_positions;        /* (T, C) or NULL */
} DeviceModel;

enum { DEVICE_WEIGHTS, DEVICE_GRADIENTS, DEVICE_MEAN, DEVICE_SQUARE };

typedef struct { /* what parallel.h, which is C, knows */
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
void device_put(int what, const float *from);
void device_get(int what, float *to);
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
void device_sum_begin(void);
void device_share(int what, int bucket);
void device_share_wait(void);
double device_hidden(void);
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
static inline void device_put(int what, const float *from) { (void)what, (void)from; }
static inline void device_get(int what, float *to) { (void)what, (void)to; }
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
static inline void device_sum_begin(void) {}
static inline void device_share(int what, int bucket) { (void)what, (void)bucket; }
static inline void device_share_wait(void) {}
static inline double device_hidden(void) { return 0; }
#endif
#endif
