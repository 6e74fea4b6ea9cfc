/* attention_diff.h: differential attention (Ye et al., "Differential Transformer", 2024, arXiv:2410.05258). Heads 2p and
   2p+1 are a pair, so H is even. Both attend to the values of both, V = [v_2p, v_2p+1], which are 2D numbers a token, and
   lambda times the output of the second is subtracted from that of the first:

       diff         x = A1 V - lambda A2 V              A1 = softmax(q_2p k_2p^T / sqrt(D)), A2 the same with 2p+1
       diff-laser   x = log(A1 exp(V)) - lambda log(A2 exp(V))
       both         o = (1 - lambda_init) w x / sqrt(mean x^2 + 1e-5)     for each token and pair, over its 2D numbers
                    lambda = exp(lq1 . lk1) - exp(lq2 . lk2) + lambda_init
                    lambda_init = 0.8 - 0.6 exp(-0.3 l) in layer l = 0, 1, ..., L - 1

   diff-laser is our reading of the LASER paper's "differential attention with LASER". log((A1 - lambda A2) exp(V)) need
   not exist, because A1 - lambda A2 has negative elements; so each of the two attentions is LASER here.

   A layer has weights that its pairs share: lq1, lk1, lq2, lk2 (D each), and w (2D), in this order (AttentionOwn). It
   saves the outputs of both attentions before they are subtracted, `maps` (2, B, T, A); backward computes x again.

   BACKWARD. With the gradient dx of x, that of A1 V is dx, that of A2 V is -lambda dx, and dlambda = -sum of dx . A2 V
   over all tokens and pairs. With e1 = exp(lq1 . lk1) and e2 = exp(lq2 . lk2),
       dlq1 = dlambda e1 lk1, dlk1 = dlambda e1 lq1, dlq2 = -dlambda e2 lk2, dlk2 = -dlambda e2 lq2

   laser.h computes all that is T x T, in four calls: each attention of the pairs with the left half of V, v_2p, and with
   the right half, v_2p+1. So the scores of a head are computed twice. No array of size T x T exists. */
#ifndef GPT_MATH_ATTENTION_DIFF_H
#define GPT_MATH_ATTENTION_DIFF_H

#include <math.h>
#include <stdlib.h>
#include "../base/memory.h"
#include "attention_shape.h"
#include "head_norm.h"
#include "laser_shape.h"
#include "token_sums.h"

#define DIFF_NORM_EPS 1e-5f

typedef struct {
    float e1, e2, init, all; /* all: lambda */
} DiffLambda;

static inline DiffLambda diff_lambda(const AttentionShape *s) {
    const float *w = s->own.weights;
    double dots[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        for (int d = 0; d < s->D; d++) dots[i] += (double)w[2 * i * s->D + d] * w[(2 * i + 1) * s->D + d];
    const double init = 0.8 - 0.6 * exp(-0.3 * s->own.layer), e1 = exp(dots[0]), e2 = exp(dots[1]);
    return (DiffLambda){(float)e1, (float)e2, (float)init, (float)(e1 - e2 + init)};
}

/* ---- the two attentions of every pair ---- */

/* Head number p of such a call is a head of pair p. Its arrays begin at that head of pair 0. */
static inline LaserShape diff_laser_shape(const AttentionShape *s, LaserKind kind) {
    LaserShape shape = laser_shape(s, kind);
    const ptrdiff_t A = (ptrdiff_t)s->H * s->D;
    shape.heads = s->H / 2;
    shape.qkv_strides[2] = 2 * s->D;
    shape.out_strides[0] = s->T * A, shape.out_strides[1] = A, shape.out_strides[2] = 2 * s->D;
    return shape;
}

/* Where maps of attention number 0 or 1 of the pairs begin, and its rows of lse. */
static inline float *diff_map(float *maps, const AttentionShape *s, int map) {
    return maps + map * attention_tokens(s) * s->H * s->D;
}
static inline ptrdiff_t diff_lse(const AttentionShape *s, int map) {
    return map * attention_tokens(s) * (s->H / 2);
}

static inline void diff_attend(float *maps, float *lse, const float *q, const float *k, const float *v,
                               const AttentionShape *s, LaserKind kind) {
    const LaserShape shape = diff_laser_shape(s, kind);
    const int D = s->D;
    for (int map = 0; map < 2; map++)
        for (int half = 0; half < 2; half++)
            laser_forward(diff_map(maps, s, map) + half * D, lse ? lse + diff_lse(s, map) : NULL, q + map * D,
                          k + map * D, v + half * D, &shape);
}

/* dmaps (2, B, T, A) is the gradient of maps. Of the four calls two write to dq, dk and dv, and the others, which have the
   same heads' gradients from the other half of V or the other attention, to `more`, which has their layout. */
static inline void diff_attend_backward(float *dq, float *dk, float *dv, float *more, float *dmaps,
                                        const float *q, const float *k, const float *v, const float *lse,
                                        const AttentionShape *s, LaserKind kind) {
    const LaserShape shape = diff_laser_shape(s, kind);
    const int D = s->D, A = s->H * D;
    for (int map = 0; map < 2; map++)
        for (int half = 0; half < 2; half++) {
            float *to_q = map == half ? dq : more, *to_k = map == half ? dk : more + A,
                  *to_v = map == half ? dv : more + 2 * A;
            laser_backward(to_q + map * D, to_k + map * D, to_v + half * D,
                           diff_map(dmaps, s, map) + half * D, q + map * D, k + map * D, v + half * D,
                           diff_map(s->own.saved, s, map) + half * D, lse + diff_lse(s, map), &shape);
        }
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < attention_tokens(s); n++)
        for (int i = 0; i < A; i++) {
            const ptrdiff_t at = n * s->qkv_row + i;
            dq[at] += more[at], dk[at] += more[at + A], dv[at] += more[at + 2 * A];
        }
}

/* ---- their difference, and its norm ---- */

/* x (2D) of one token and pair; first and second (2D) are its outputs of both attentions. */
static inline void diff_subtract(float *x, const float *first, const float *second, float lambda, int D) {
    for (int d = 0; d < 2 * D; d++) x[d] = first[d] - lambda * second[d];
}

static inline void diff_combine(float *out, const float *maps, const AttentionShape *s) {
    const DiffLambda lambda = diff_lambda(s);
    const int D = s->D, A = s->H * D;
    const float *weight = s->own.weights + 4 * D, *second = maps + attention_tokens(s) * A;
#pragma omp parallel for schedule(static) if (attention_tokens(s) > 1)
    for (int64_t n = 0; n < attention_tokens(s); n++)
        for (int i = 0; i < A; i += 2 * D) {
            float *x = out + n * s->out_row + i;
            diff_subtract(x, maps + n * A + i, second + n * A + i, lambda.all, D);
            const float factor = (1 - lambda.init) * head_norm_rstd(x, DIFF_NORM_EPS, 2 * D);
            for (int d = 0; d < 2 * D; d++) x[d] *= factor * weight[d];
        }
}

/* Of one token and pair: dfirst and dsecond (2D) become the gradients of its outputs of both attentions (=). sums has
   2D + 1 numbers: dw and dlambda are added to them (+=). x (2D) is scratch. */
static inline void diff_combine_backward_pair(float *dfirst, float *dsecond, float *sums, float *x,
                                              const float *dout, const float *first, const float *second,
                                              const DiffLambda *lambda, const AttentionShape *s) {
    const int D = s->D;
    diff_subtract(x, first, second, lambda->all, D);
    for (int d = 0; d < 2 * D; d++) dfirst[d] = (1 - lambda->init) * dout[d];
    head_norm_backward(dfirst, sums, x, s->own.weights + 4 * D, DIFF_NORM_EPS, 2 * D);
    for (int d = 0; d < 2 * D; d++) {
        sums[2 * D] -= dfirst[d] * second[d];
        dsecond[d] = -lambda->all * dfirst[d];
    }
}

/* Adds to the gradients of the layer's weights, of which sums has dw and dlambda. */
static inline void diff_add_dweights(const TokenSums *sums, const DiffLambda *lambda,
                                     const AttentionShape *s) {
    const int D = s->D;
    const float *w = s->own.weights, dlambda = token_sums_total(sums, 2 * D);
    float *dw = s->own.dweights;
    for (int i = 0; i < 2; i++) { /* lq1 and lk1, then lq2 and lk2 */
        const float of_dot = i == 0 ? dlambda * lambda->e1 : -dlambda * lambda->e2;
        for (int d = 0; d < D; d++) {
            dw[2 * i * D + d] += of_dot * w[(2 * i + 1) * D + d];
            dw[(2 * i + 1) * D + d] += of_dot * w[2 * i * D + d];
        }
    }
    for (int d = 0; d < 2 * D; d++) dw[4 * D + d] += token_sums_total(sums, d);
}

/* dmaps (2, B, T, A) = the gradient of what forward saved. Adds to those of the layer's weights. */
static inline void diff_combine_backward(float *dmaps, const float *dout, const AttentionShape *s) {
    const DiffLambda lambda = diff_lambda(s);
    const int D = s->D, A = s->H * D;
    const ptrdiff_t map = attention_tokens(s) * A; /* from the first attention's arrays to the second's */
    TokenSums sums = token_sums_create(attention_tokens(s), 2 * D + 1);
#pragma omp parallel
    {
        float *x = (float *)check_calloc((size_t)(2 * D) * sizeof *x);
#pragma omp for schedule(static)
        for (int64_t chunk = 0; chunk < sums.chunks; chunk++)
            for (int64_t n = token_sums_begin(&sums, chunk); n < token_sums_begin(&sums, chunk + 1); n++)
                for (int i = 0; i < A; i += 2 * D) {
                    float *dfirst = dmaps + n * A + i;
                    const float *first = s->own.saved + n * A + i;
                    diff_combine_backward_pair(dfirst, dfirst + map, token_sums_of(&sums, chunk), x,
                                               dout + n * s->out_row + i, first, first + map, &lambda, s);
                }
        free(x);
    }
    diff_add_dweights(&sums, &lambda, s);
    token_sums_free(&sums);
}

/* ---- the functions of both kinds ---- */

static inline void diff_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                const AttentionShape *s, LaserKind kind) {
    diff_attend(s->own.saved, lse, q, k, v, s, kind);
    diff_combine(out, s->own.saved, s);
}

/* The floats of dmaps, and of `more`. */
static inline size_t diff_dmaps_floats(const AttentionShape *s) {
    return (size_t)(2 * attention_tokens(s) * s->H * s->D);
}
static inline size_t diff_more_floats(const AttentionShape *s) {
    return (size_t)(attention_tokens(s) * s->qkv_row);
}

static inline void diff_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                 const float *k, const float *v, const float *lse, const AttentionShape *s,
                                 LaserKind kind) {
    float *dmaps = (float *)memory_reserve((diff_dmaps_floats(s) + diff_more_floats(s)) * sizeof *dmaps);
    diff_combine_backward(dmaps, dout, s);
    diff_attend_backward(dq, dk, dv, dmaps + diff_dmaps_floats(s), dmaps, q, k, v, lse, s, kind);
    free(dmaps);
}

static inline size_t diff_memory(const AttentionShape *s, LaserKind kind) {
    const LaserShape shape = diff_laser_shape(s, kind);
    return (diff_dmaps_floats(s) + diff_more_floats(s)) * sizeof(float) + laser_memory(&shape, 1);
}

static inline void diff_attention_forward(float *out, float *lse, const float *q, const float *k,
                                          const float *v, const AttentionShape *s) {
    diff_forward(out, lse, q, k, v, s, LASER_KIND_STANDARD);
}

static inline void diff_attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                           const float *k, const float *v, const float *out, const float *lse,
                                           const AttentionShape *s) {
    (void)out;
    diff_backward(dq, dk, dv, dout, q, k, v, lse, s, LASER_KIND_STANDARD);
}

static inline size_t diff_attention_memory(const AttentionShape *s) {
    return diff_memory(s, LASER_KIND_STANDARD);
}

static inline void diff_laser_attention_forward(float *out, float *lse, const float *q, const float *k,
                                                const float *v, const AttentionShape *s) {
    diff_forward(out, lse, q, k, v, s, LASER_KIND_LASER);
}

static inline void diff_laser_attention_backward(float *dq, float *dk, float *dv, const float *dout,
                                                 const float *q, const float *k, const float *v,
                                                 const float *out, const float *lse,
                                                 const AttentionShape *s) {
    (void)out;
    diff_backward(dq, dk, dv, dout, q, k, v, lse, s, LASER_KIND_LASER);
}

static inline size_t diff_laser_attention_memory(const AttentionShape *s) {
    return diff_memory(s, LASER_KIND_LASER);
}

#endif
