/* attention_checks.h: what every kind of attention in gpt/math/attention.h must satisfy, checked with no knowledge of
   its formula:
       - the gradients of q, k and v, and of weights of its own, are those that finite differences of forward give;
       - backward writes the first three (=), it does not add to what is there; it adds to those of the weights (+=);
       - a row does not depend on later tokens, to the bit;
       - the result has the same bits for any number of threads.

   attention_check(kind, text)   whether all of that holds; text says what was found
   test_gpt runs it on every kind, and so does the small program check_attention.c, which compiles in a few seconds. */
#ifndef TESTS_ATTENTION_CHECKS_H
#define TESTS_ATTENTION_CHECKS_H

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../gpt/base/check.h"
#include "../gpt/math/attention.h"
#include "../gpt/math/rng.h"

/* ATTENTION_CHECK_WEIGHTS: at least as many as a kind has of its own; the gradients of the others stay 0. */
enum { ATTENTION_CHECK_TEXT = 256, ATTENTION_CHECK_WEIGHTS = 64 };

/* Random q, k, v of B sequences as the trainer keeps them, (B, T, 3, H, D), random weights for a kind that has some of
   its own, and a random gradient of out. */
typedef struct {
    AttentionKind kind;
    AttentionShape shape;
    size_t A, out_size, lse_size; /* A = H*D; floats of out, of lse; q, k and v together have 3 * out_size */
    float *qkv, *dout, *out, *lse, *dqkv, *saved;
    float weights[ATTENTION_CHECK_WEIGHTS], dweights[ATTENTION_CHECK_WEIGHTS];
} AttentionCheck;

/* `c` is filled in where it is, because its shape points into it. */
static inline void attention_check_open(AttentionCheck *check, AttentionKind kind) {
    const int B = 2, T = 9, H = 4, D = 4;
    AttentionCheck c = {.kind = kind, .A = (size_t)(H * D)};
    c.shape = (AttentionShape){
        .B = B, .T = T, .H = H, .D = D, .qkv_row = 3 * H * D, .out_row = H * D, .dtype = DTYPE_FP32};
    c.out_size = (size_t)(B * T) * c.A, c.lse_size = (size_t)(B * H * T);
    c.qkv = (float *)check_calloc(3 * c.out_size * sizeof(float));
    c.dqkv = (float *)check_calloc(3 * c.out_size * sizeof(float));
    c.dout = (float *)check_calloc(c.out_size * sizeof(float));
    c.out = (float *)check_calloc(c.out_size * sizeof(float));
    c.lse = (float *)check_calloc(c.lse_size * sizeof(float));
    c.saved = (float *)check_calloc(3 * c.out_size * sizeof(float));
    for (size_t i = 0; i < 3 * c.out_size; i++) c.qkv[i] = (float)rng_normal(1, RNG_STREAM_TEST, i);
    for (size_t i = 0; i < c.out_size; i++) c.dout[i] = (float)rng_normal(2, RNG_STREAM_TEST, i);
    for (uint64_t i = 0; i < ATTENTION_CHECK_WEIGHTS; i++)
        c.weights[i] = 0.3f * (float)rng_normal(3, RNG_STREAM_TEST, i);
    *check = c;
    check->shape.own = (AttentionOwn){1, check->weights, check->dweights, check->saved};
}

static inline void attention_check_close(AttentionCheck *c) {
    free(c->qkv), free(c->dqkv), free(c->dout), free(c->out), free(c->lse), free(c->saved);
}

static inline void attention_check_forward(const AttentionCheck *c) {
    attention_forward(c->kind, c->out, c->lse, c->qkv, c->qkv + c->A, c->qkv + 2 * c->A, &c->shape);
}

/* The gradients of q, k and v are NaN before, so that a backward which adds to them, or leaves some out, is found.
   Those of the weights are 1 before, and 1 is subtracted from them. */
static inline void attention_check_backward(AttentionCheck *c) {
    for (size_t i = 0; i < 3 * c->out_size; i++) c->dqkv[i] = NAN;
    for (int i = 0; i < ATTENTION_CHECK_WEIGHTS; i++) c->dweights[i] = 1;
    attention_backward(c->kind, c->dqkv, c->dqkv + c->A, c->dqkv + 2 * c->A, c->dout, c->qkv, c->qkv + c->A,
                       c->qkv + 2 * c->A, c->out, c->lse, &c->shape);
    for (int i = 0; i < ATTENTION_CHECK_WEIGHTS; i++) c->dweights[i] -= 1;
}

/* The loss whose gradient with respect to out is dout. */
static inline double attention_check_loss(const AttentionCheck *c) {
    double sum = 0;
    attention_check_forward(c);
    for (size_t i = 0; i < c->out_size; i++) sum += (double)c->out[i] * c->dout[i];
    return sum;
}

/* The derivative of the loss with respect to *x, by finite differences. */
static inline double attention_check_difference(const AttentionCheck *c, float *x) {
    const float step = 0x1p-6f, was = *x;
    *x = was + step;
    const double above = attention_check_loss(c), high = *x;
    *x = was - step;
    const double below = attention_check_loss(c), low = *x;
    *x = was;
    return (above - below) / (high - low);
}

/* |gradient - finite differences| / |finite differences| for q (part 0), k (1), v (2), or the kind's own weights (3); 0
   if it has none. float32 leaves about 1e-4. */
static inline double attention_check_gradient(AttentionCheck *c, size_t part) {
    double error = 0, size = 0;
    attention_check_forward(c);
    attention_check_backward(c);
    for (size_t i = 0; i < (part < 3 ? 3 * c->out_size : ATTENTION_CHECK_WEIGHTS); i++) {
        if (part < 3 && i / c->A % 3 != part) continue;
        const double want = attention_check_difference(c, part < 3 ? &c->qkv[i] : &c->weights[i]);
        const double off = (double)(part < 3 ? c->dqkv[i] : c->dweights[i]) - want;
        error += off * off, size += want * want;
    }
    return error == 0 ? 0 : sqrt(error / size);
}

/* The first row of a sequence that changes when a later token does, or -1. */
static inline int attention_check_future(AttentionCheck *c) {
    const size_t row = (size_t)c->shape.T / 2,
                 A = c->A; /* all tokens from this one on change, in the first sequence */
    float *before = (float *)check_calloc(row * A * sizeof *before);
    int changed = -1;
    attention_check_forward(c);
    memcpy(before, c->out, row * A * sizeof *before);
    for (size_t i = 3 * A * row; i < 3 * A * (size_t)c->shape.T; i++) c->qkv[i] += 1;
    attention_check_forward(c);
    for (size_t t = row; t-- > 0;)
        if (memcmp(before + t * A, c->out + t * A, A * sizeof *before) != 0) changed = (int)t;
    for (size_t i = 3 * A * row; i < 3 * A * (size_t)c->shape.T; i++) c->qkv[i] -= 1;
    free(before);
    return changed;
}

/* Returns how many threads there were. */
static inline int attention_check_set_threads(int threads) {
#ifdef _OPENMP
    const int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    return before;
#else
    return threads;
#endif
}

/* Whether one thread and three threads give the same bits. */
static inline bool attention_check_threads(AttentionCheck *c) {
    bool same = true;
#ifdef _OPENMP
    const size_t count = 4 * c->out_size;
    float dweights[ATTENTION_CHECK_WEIGHTS];
    float *one = (float *)check_calloc(count * sizeof *one);
    const int threads = attention_check_set_threads(1);
    attention_check_forward(c), attention_check_backward(c);
    memcpy(one, c->out, c->out_size * sizeof *one);
    memcpy(one + c->out_size, c->dqkv, 3 * c->out_size * sizeof *one);
    memcpy(dweights, c->dweights, sizeof dweights);
    attention_check_set_threads(3);
    attention_check_forward(c), attention_check_backward(c);
    same = memcmp(one, c->out, c->out_size * sizeof *one) == 0 &&
           memcmp(one + c->out_size, c->dqkv, 3 * c->out_size * sizeof *one) == 0 &&
           memcmp(dweights, c->dweights, sizeof dweights) == 0;
    attention_check_set_threads(threads);
    free(one);
#else
    (void)c;
#endif
    return same;
}

static inline bool attention_check(AttentionKind kind, char text[ATTENTION_CHECK_TEXT]) {
    AttentionCheck c;
    const int threads = attention_check_set_threads(1); /* faster for such small arrays, and the same bits */
    double error[4];
    char own[48] = "";
    attention_check_open(&c, kind);
    for (size_t part = 0; part < 4; part++) error[part] = attention_check_gradient(&c, part);
    attention_check_set_threads(threads);
    if (error[3] != 0) snprintf(own, sizeof own, ", of its weights %.1e", error[3]);
    const int future = attention_check_future(&c);
    const bool same = attention_check_threads(&c);
    const bool right =
        error[0] < 2e-3 && error[1] < 2e-3 && error[2] < 2e-3 && error[3] < 2e-3; /* false for NaN */
    snprintf(text, ATTENTION_CHECK_TEXT,
             "%-10s gradients %s (relative error of q %.1e, k %.1e, v %.1e%s); a row sees %s; %s bits for 1 "
             "and 3 threads",
             attention_name(kind), right ? "right" : "WRONG", error[0], error[1], error[2], own,
             future < 0 ? "no later token" : "LATER TOKENS", same ? "same" : "OTHER");
    attention_check_close(&c);
    return right && future < 0 && same;
}

#endif
