/* attention_ablations.h: what options change around attention: operations on q, k and v before it, and on its output
   after it. docs/ablations.md lists the options, with formulas and sources.

   qk_norm_forward(out, qkv, q_weight, k_weight, &shape)   --qk-norm: RMSNorm of each head of q and k, before rope
   qk_norm_backward(out, dqkv, dq_weight, dk_weight, qkv, q_weight, k_weight, &shape)
   ablations_before(&ablations, qkv, &shape)            q, k and v become what attention reads, in place
   ablations_after(&ablations, layer, out, qkv, &shape) what attention returned becomes the layer's o, in place; with
                                                        --laser-shift=none, dies where float32 could not hold exp(v)
   ablations_after_backward(&ablations, dout, out, &shape)   out becomes what attention returned again, and dout its
                                                        gradient, in place
   ablations_before_backward(&ablations, dqkv, dscale, qkv, &shape)   the gradient of what attention reads becomes that
                                                        of q, k and v as they were before ablations_before, in place
                                                        (=); adds to dscale (+=). qkv is what attention has read
   qkv and dqkv point to q and dq; k and v follow, as attention_shape.h describes. Without any of the options the
   functions of the AttentionAblations return at once, and no bit changes. Gradients of weights have the same bits for
   any number of threads (token_sums.h). */
#ifndef GPT_MATH_ATTENTION_ABLATIONS_H
#define GPT_MATH_ATTENTION_ABLATIONS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"
#include "array.h"
#include "attention_shape.h"
#include "head_norm.h"
#include "token_sums.h"

/* The c of --laser-shift=clamp, which is that of x-transformers. */
#define ABLATION_CLAMP 15.0f

/* In float32 exp(v) is infinite above the first number, and a sum that is below exp of the second is 0. */
#define ABLATION_EXP_MOST 88.7228f
#define ABLATION_LOG_LEAST -103.972f

typedef struct {
    /* The learned temperature: (H), or (D) if it is one for each dimension; NULL: the fixed scale 1 / sqrt(D) */
    const float *scale;
    bool scale_of_dimensions;
    float beta; /* LASER reads beta v in place of v, and its output is divided by beta; 1: nothing changes */
    float grad_scale; /* the gradient of the scores is multiplied by it; 1: nothing changes */
    bool clamped;     /* LASER reads c tanh(v / c) in place of v */
    bool unshifted;   /* LASER must not leave the range that float32 has without a shift */
} AttentionAblations;

/* v of a token follows its q and k, each (A). */
static inline ptrdiff_t ablations_v(const AttentionShape *s, int64_t token) {
    return token * s->qkv_row + 2 * (ptrdiff_t)s->H * s->D;
}

/* ---- --qk-norm ---- */

#define QK_NORM_EPS 1e-6f /* that of train_gpt.c's RMSNorm */

/* out (N, 3A) = qkv, where each head x (D) of q and k becomes x * rstd * weight with the weight (D) of q or of k. */
static inline void qk_norm_forward(float *out, const float *qkv, const float *q_weight, const float *k_weight,
                                   const AttentionShape *s) {
    const int H = s->H, D = s->D;
#pragma omp parallel for schedule(static) if (attention_tokens(s) > 1)
    for (int64_t n = 0; n < attention_tokens(s); n++) {
        for (int head = 0; head < 2 * H; head++) { /* the heads of q, then those of k */
            const float *x = qkv + n * s->qkv_row + head * D, *weight = head < H ? q_weight : k_weight;
            float *y = out + n * s->qkv_row + head * D, r = head_norm_rstd(x, QK_NORM_EPS, D);
            for (int d = 0; d < D; d++) y[d] = x[d] * r * weight[d];
        }
        const ptrdiff_t v = ablations_v(s, n);
        memcpy(out + v, qkv + v, (size_t)(H * D) * sizeof *out);
    }
}

/* qkv is what forward read. dqkv (N, 3A) becomes the gradient of it (=), and out, which may be dqkv, receives a copy.
   Adds to dq_weight (D) and dk_weight (D). */
static inline void qk_norm_backward(Array out, float *dqkv, float *dq_weight, float *dk_weight,
                                    const float *qkv, const float *q_weight, const float *k_weight,
                                    const AttentionShape *s) {
    const int H = s->H, D = s->D;
    TokenSums sums =
        token_sums_create(attention_tokens(s), 2 * D); /* those of q's weight, then those of k's */
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < sums.chunks; chunk++)
        for (int64_t n = token_sums_begin(&sums, chunk); n < token_sums_begin(&sums, chunk + 1); n++) {
            for (int head = 0; head < 2 * H; head++) {
                const ptrdiff_t at = n * s->qkv_row + head * D;
                float *dweight = token_sums_of(&sums, chunk) + (head < H ? 0 : D);
                head_norm_backward(dqkv + at, dweight, qkv + at, head < H ? q_weight : k_weight, QK_NORM_EPS,
                                   D);
            }
            if (out.data != dqkv) array_write(out, n * s->qkv_row, dqkv + n * s->qkv_row, 3 * H * D);
        }
    for (int d = 0; d < D; d++) {
        dq_weight[d] += token_sums_total(&sums, d);
        dk_weight[d] += token_sums_total(&sums, D + d);
    }
    token_sums_free(&sums);
}

/* ---- --attn-scale, --laser-shift=clamp, --laser-beta ---- */

/* log(1 + exp(w)), for any w. */
static inline double ablation_softplus(double w) { return fmax(w, 0) + log1p(exp(-fabs(w))); }

/* The number of the weight in x->scale that belongs to element i of a token's q (A). */
static inline int ablation_scale_at(const AttentionAblations *x, const AttentionShape *s, int i) {
    return x->scale_of_dimensions ? i % s->D : i / s->D;
}

/* The factors (A) of the elements of q: softplus(w) / softplus(0); NULL without a learned scale. The caller frees
   them. */
static inline float *ablation_factors(const AttentionAblations *x, const AttentionShape *s) {
    const int A = s->H * s->D;
    if (!x->scale) return NULL;
    float *factors = (float *)check_calloc((size_t)A * sizeof *factors);
    for (int i = 0; i < A; i++)
        factors[i] = (float)(ablation_softplus(x->scale[ablation_scale_at(x, s, i)]) / ablation_softplus(0));
    return factors;
}

static inline void ablations_before(const AttentionAblations *x, float *qkv, const AttentionShape *s) {
    const int A = s->H * s->D;
    if (!x->scale && !x->clamped && x->beta == 1) return;
    float *factors = ablation_factors(x, s);
    const float beta = x->beta;
#pragma omp parallel for schedule(static) if (attention_tokens(s) > 1)
    for (int64_t n = 0; n < attention_tokens(s); n++) {
        float *q = qkv + n * s->qkv_row, *v = qkv + ablations_v(s, n);
        for (int i = 0; i < A && factors; i++) q[i] *= factors[i];
        for (int i = 0; i < A && x->clamped; i++) v[i] = ABLATION_CLAMP * tanhf(v[i] / ABLATION_CLAMP);
        for (int i = 0; i < A && beta != 1; i++) v[i] *= beta;
    }
    free(factors);
}

/* forward: q' = f(w) q with f(w) = softplus(w) / softplus(0). dscale receives sum dq' q f'(w), where q f'(w) = q'
   f'(w) / f(w) and f'(w) / f(w) = sigmoid(w) / softplus(w). sums (chunks, H or D) are those of dq' q'. */
static inline void ablations_add_dscale(const AttentionAblations *x, float *dscale, const TokenSums *sums) {
    for (int i = 0; i < sums->width; i++) {
        const double w = x->scale[i];
        dscale[i] += (float)(token_sums_total(sums, i) / (1 + exp(-w)) / ablation_softplus(w));
    }
}

/* forward: q' = f(w) q, and v' = beta c tanh(v / c), whose derivative is beta (1 - tanh(v / c)^2) with tanh(v / c) =
   v' / (beta c). qkv has q' and v'. dscale (H or D) may be NULL when x->scale is.
   The gradient of the scores, ds, is multiplied by x->grad_scale. dq_i = sum_j ds_ij k_j and dk_j = sum_i ds_ij q_i are
   linear in ds, and dv does not depend on it; so it is enough to multiply dq and dk, before all that follows from dq. */
static inline void ablations_before_backward(const AttentionAblations *x, float *dqkv, float *dscale,
                                             const float *qkv, const AttentionShape *s) {
    const int A = s->H * s->D;
    const float beta = x->beta, grad_scale = x->grad_scale, bound = beta * ABLATION_CLAMP;
    if (!x->scale && !x->clamped && x->beta == 1 && x->grad_scale == 1) return;
    float *factors = ablation_factors(x, s);
    TokenSums sums = token_sums_create(attention_tokens(s), x->scale_of_dimensions ? s->D : s->H);
#pragma omp parallel for schedule(static)
    for (int64_t chunk = 0; chunk < sums.chunks; chunk++)
        for (int64_t n = token_sums_begin(&sums, chunk); n < token_sums_begin(&sums, chunk + 1); n++) {
            const float *q = qkv + n * s->qkv_row, *v = qkv + ablations_v(s, n);
            float *dq = dqkv + n * s->qkv_row, *dv = dqkv + ablations_v(s, n);
            float *sum = token_sums_of(&sums, chunk);
            for (int i = 0; i < 2 * A && grad_scale != 1; i++) dq[i] *= grad_scale; /* dk follows dq */
            for (int i = 0; i < A && factors; i++)
                sum[ablation_scale_at(x, s, i)] += dq[i] * q[i], dq[i] *= factors[i];
            for (int i = 0; i < A && x->clamped; i++) dv[i] *= 1 - v[i] / bound * (v[i] / bound);
            for (int i = 0; i < A && beta != 1; i++) dv[i] *= beta;
        }
    if (x->scale) ablations_add_dscale(x, dscale, &sums);
    free(factors), token_sums_free(&sums);
}

/* ---- --laser-shift=none, and the output with --laser-beta ---- */

/* Dies if o = log(sum_j a_ij exp(v_jd)), computed in float32 without a shift, would not be finite: if exp(v) of this
   token is infinite, or if the sum of its row is 0. A shift changes no bit of o where neither happens (laser.h, RANGE),
   so attention itself is computed with the shift `causal`. */
static inline void ablations_check_range(int layer, const float *out, const float *qkv,
                                         const AttentionShape *s, int64_t token) {
    const float *v = qkv + ablations_v(s, token), *o = out + token * s->out_row;
    for (int i = 0; i < s->H * s->D; i++) {
        const bool infinite = v[i] > ABLATION_EXP_MOST;
        if (!infinite && !(o[i] < ABLATION_LOG_LEAST)) continue;
        die("layer %d, head %d: %s %.4g (token %lld of a sequence, dimension %d): without a shift %s in "
            "float32; "
            "--laser-shift=causal computes the same function for every value",
            layer, i / s->D, infinite ? "a value is" : "the logarithm of a row is",
            (double)(infinite ? v[i] : o[i]), (long long)(token % s->T), i % s->D,
            infinite ? "exp of a value above 88.72 is infinite"
                     : "a sum of exponentials below exp(-103.97) is 0");
    }
}

/* Dies where ablations_check_range does. */
static inline void ablations_check_all(int layer, const float *out, const float *qkv,
                                       const AttentionShape *s) {
    const int A = s->H * s->D;
    int outside = 0;
#pragma omp parallel for schedule(static) reduction(| : outside) if (attention_tokens(s) > 1)
    for (int64_t n = 0; n < attention_tokens(s); n++) {
        const float *v = qkv + ablations_v(s, n), *o = out + n * s->out_row;
        for (int i = 0; i < A; i++) outside |= (v[i] > ABLATION_EXP_MOST) | (o[i] < ABLATION_LOG_LEAST);
    }
    for (int64_t n = 0; outside && n < attention_tokens(s); n++) ablations_check_range(layer, out, qkv, s, n);
}

/* x (N, A) *= factor */
static inline void ablations_multiply(float *x, float factor, const AttentionShape *s) {
#pragma omp parallel for schedule(static) if (attention_tokens(s) > 1)
    for (int64_t n = 0; n < attention_tokens(s); n++)
        for (int i = 0; i < s->H * s->D; i++) x[n * s->out_row + i] *= factor;
}

static inline void ablations_after(const AttentionAblations *x, int layer, float *out, const float *qkv,
                                   const AttentionShape *s) {
    if (x->unshifted) ablations_check_all(layer, out, qkv, s);
    if (x->beta != 1) ablations_multiply(out, 1 / x->beta, s);
}

/* forward: o = o' / beta, so do' = do / beta. */
static inline void ablations_after_backward(const AttentionAblations *x, float *dout, float *out,
                                            const AttentionShape *s) {
    if (x->beta == 1) return;
    ablations_multiply(dout, 1 / x->beta, s);
    ablations_multiply(out, x->beta, s);
}

#endif
