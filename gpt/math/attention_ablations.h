/* attention_ablations.h: what options change around attention: operations on q, k and v before it, and on its output
   after it. docs/ablations.md lists the options, with formulas and sources.

   ablations_before(&ablations, qkv, &shape)            q, k and v become what attention reads, in place
   ablations_after(&ablations, layer, out, qkv, &shape) what attention returned becomes the layer's o, in place; with
                                                        --laser-shift=none, dies where float32 could not hold exp(v)
   ablations_before_backward(&ablations, dqkv, qkv, &shape)   the gradient of what attention reads becomes that of q, k
                                                        and v as they were before ablations_before, in place; qkv is
                                                        what attention has read
   qkv and dqkv point to q and dq; k and v follow, as attention_shape.h describes. Without any of the options these
   functions return at once, and no bit changes. */
#ifndef GPT_MATH_ATTENTION_ABLATIONS_H
#define GPT_MATH_ATTENTION_ABLATIONS_H

#include <math.h>
#include <stdbool.h>
#include "../base/check.h"
#include "attention_shape.h"

/* The c of --laser-shift=clamp, which is that of x-transformers. */
#define ABLATION_CLAMP 15.0f

/* In float32 exp(v) is infinite above the first number, and a sum that is below exp of the second is 0. */
#define ABLATION_EXP_MOST 88.7228f
#define ABLATION_LOG_LEAST -103.972f

typedef struct {
    bool clamped;   /* LASER reads c tanh(v / c) in place of v */
    bool unshifted; /* LASER must not leave the range that float32 has without a shift */
} AttentionAblations;

/* v of a token follows its q and k, each (A). */
static inline ptrdiff_t ablations_v(const AttentionShape *s, int64_t token) {
    return token * s->qkv_row + 2 * (ptrdiff_t)s->H * s->D;
}

static inline void ablations_before(const AttentionAblations *x, float *qkv, const AttentionShape *s) {
    if (!x->clamped) return;
    const int A = s->H * s->D;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < (int64_t)s->B * s->T; n++) {
        float *v = qkv + ablations_v(s, n);
        for (int i = 0; i < A; i++) v[i] = ABLATION_CLAMP * tanhf(v[i] / ABLATION_CLAMP);
    }
}

/* forward: v' = c tanh(v / c), whose derivative is 1 - tanh(v / c)^2 = 1 - (v' / c)^2 */
static inline void ablations_before_backward(const AttentionAblations *x, float *dqkv, const float *qkv,
                                             const AttentionShape *s) {
    if (!x->clamped) return;
    const int A = s->H * s->D;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < (int64_t)s->B * s->T; n++) {
        const float *v = qkv + ablations_v(s, n);
        float *dv = dqkv + ablations_v(s, n);
        for (int i = 0; i < A; i++) dv[i] *= 1 - v[i] / ABLATION_CLAMP * (v[i] / ABLATION_CLAMP);
    }
}

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

static inline void ablations_after(const AttentionAblations *x, int layer, const float *out, const float *qkv,
                                   const AttentionShape *s) {
    const int A = s->H * s->D;
    int outside = 0;
    if (!x->unshifted) return;
#pragma omp parallel for schedule(static) reduction(| : outside)
    for (int64_t n = 0; n < (int64_t)s->B * s->T; n++) {
        const float *v = qkv + ablations_v(s, n), *o = out + n * s->out_row;
        for (int i = 0; i < A; i++) outside |= (v[i] > ABLATION_EXP_MOST) | (o[i] < ABLATION_LOG_LEAST);
    }
    for (int64_t n = 0; outside && n < (int64_t)s->B * s->T; n++)
        ablations_check_range(layer, out, qkv, s, n);
}

#endif
