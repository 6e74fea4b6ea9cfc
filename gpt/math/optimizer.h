/* optimizer.h: the learning-rate schedules, the sum of squares for the gradient's norm, AdamW and LAMB. A third
   optimizer has a file of its own, muon.h.

   learning_rate(&schedule, step)   the rate of update `step`, which counts from 0. A warmup of W steps has the rates
                                    peak / W, 2 peak / W, ..., peak. The rate then depends on the kind, as listed below.
                                    Except with LR_CONSTANT it falls towards peak * floor_fraction, which it would reach
                                    at step number `steps`. The last step of the run is number `steps` - 1, so the run
                                    ends a little above that.

                                    LR_COSINE     half a period of a cosine, from the end of the warmup on
                                    LR_LINEAR     a straight line, from the end of the warmup on
                                    LR_CONSTANT   peak, to the end of the run
                                    LR_WSD        warmup, stable, decay: peak, then a straight line over the last
                                                  `cooldown` steps

   gradient_squares(g, n)           the sum of g[i]^2 in float64, for float32 g (n). Its root is the norm of g. The sums
                                    over chunks of fixed size are added in order, so the result has the same bits for
                                    any number of threads. If g has an infinity or NaN, the result is not finite.
   adamw_update(parameter, gradient, m, v, n, &settings)
                                    One update of float32 arrays (n): parameter and the two moments m and v change. m is
                                    the first moment, the running mean of the gradient; v is the second moment, the
                                    running mean of its square; both begin as zeros. This is algorithm 2 of Loshchilov &
                                    Hutter, "Decoupled weight decay regularization" (2019), in the names of Kingma & Ba,
                                    "Adam" (2015), with g = gradient_scale * gradient and t = step:

                                    m = beta1 m + (1 - beta1) g
                                    v = beta2 v + (1 - beta2) g^2
                                    parameter = (1 - lr weight_decay) parameter
                                                - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

   LAMB (You et al., "Large batch optimization for deep learning", 2020, algorithm 2) makes the length of a tensor's
   update a fraction lr of the length of the tensor itself:

                                    step = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
                                           + weight_decay parameter
                                    parameter = parameter - lr trust step,    trust = |parameter| / |step|

   m and v are AdamW's, | | is the L2 norm over the whole tensor, and the trust is 1 where one of the norms is 0. The
   tensor may be in several pieces, on several ranks: all pieces go through lamb_moments first; their sums give the
   trust; then all go through lamb_update.
   lamb_moments(&squares, parameter, gradient, m, v, n, &settings)   m and v change; adds to squares the sums of
                                    parameter^2 and step^2 of this piece, in float64 and in a fixed order
   lamb_trust(&squares)             the trust, from the sums over all pieces
   lamb_update(parameter, m, v, n, trust, &settings)   the update of a piece

   C++ sees only AdamWSettings: the CUDA program, which is C++, has its own kernel for the update (cuda/optimizer.cuh)
   and takes these settings. */
#ifndef GPT_MATH_OPTIMIZER_H
#define GPT_MATH_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double gradient_scale; /* a factor of the gradient, below 1 when the gradient is clipped */
    int64_t step;          /* t in the formula: 1 for the first update */
    bool decay_vectors;    /* weight_decay applies to all tensors, not to matrices only */
} AdamWSettings;

#ifndef __cplusplus
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "../base/check.h"

/* The choices of --optimizer, in this order. */
typedef enum { OPTIMIZER_ADAMW, OPTIMIZER_LAMB, OPTIMIZER_MUON } OptimizerKind;

/* The choices of --schedule, in this order. */
typedef enum { LR_COSINE, LR_LINEAR, LR_CONSTANT, LR_WSD } LearningRateKind;

typedef struct {
    LearningRateKind kind;
    double peak, floor_fraction;
    int64_t warmup; /* how many steps the warmup has */
    int64_t steps;  /* how many steps the run has, warmup included: the last is number steps - 1 */
    /* For LR_WSD: how many steps the decay at the end has; 0 stands for a fifth of all steps. The decay never begins
       before the end of the warmup. */
    int64_t cooldown;
} LearningRate;

static inline double learning_rate(const LearningRate *s, int64_t step) {
    if (step < s->warmup) return s->peak * (double)(step + 1) / (double)s->warmup;
    int64_t cooldown = s->cooldown > 0 ? s->cooldown : s->steps / 5;
    int64_t start = s->kind == LR_WSD && s->steps - cooldown > s->warmup ? s->steps - cooldown : s->warmup;
    if (step < start || s->kind == LR_CONSTANT) return s->peak;
    double span = (double)(s->steps > start ? s->steps - start : 1), progress = (double)(step - start) / span;
    if (progress > 1) progress = 1;
    double share = s->kind == LR_COSINE ? 0.5 * (1 + cos(3.141592653589793 * progress)) : 1 - progress;
    return s->peak * (s->floor_fraction + (1 - s->floor_fraction) * share);
}

enum { OPTIMIZER_CHUNK = 1 << 16 }; /* floats in a chunk of gradient_squares */

static inline double gradient_squares(const float *gradient, size_t n) {
    size_t chunks = (n + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK;
    double *partial = check_calloc(chunks * sizeof *partial), sum = 0;
#pragma omp parallel for schedule(static)
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t begin = chunk * OPTIMIZER_CHUNK,
               end = begin + OPTIMIZER_CHUNK < n ? begin + OPTIMIZER_CHUNK : n;
        double squares = 0;
#pragma omp simd reduction(+ : squares)
        for (size_t i = begin; i < end; i++) squares += (double)gradient[i] * gradient[i];
        partial[chunk] = squares;
    }
    for (size_t chunk = 0; chunk < chunks; chunk++) sum += partial[chunk];
    free(partial);
    return sum;
}

static inline void adamw_update(float *restrict parameter, const float *restrict gradient, float *restrict m,
                                float *restrict v, size_t n, const AdamWSettings *s) {
    const float beta1 = (float)s->beta1, beta2 = (float)s->beta2, scale = (float)s->gradient_scale;
    const float one_minus_beta1 = (float)(1 - s->beta1), one_minus_beta2 = (float)(1 - s->beta2);
    const float decay = (float)(1 - s->lr * s->weight_decay), eps = (float)s->eps;
    const float rate = (float)(s->lr / (1 - pow(s->beta1, (double)s->step))); /* lr / (1 - beta1^t) */
    const float root_unbias = (float)(1 / sqrt(1 - pow(s->beta2, (double)s->step)));
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        const float g = gradient[i] * scale;
        const float first = m[i] = beta1 * m[i] + one_minus_beta1 * g;
        const float second = v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
        parameter[i] = decay * parameter[i] - rate * first / (sqrtf(second) * root_unbias + eps);
    }
}

typedef struct {
    double parameter, step; /* sums of squares */
} LambSquares;

/* The numbers of an update that are the same for all elements. */
typedef struct {
    float unbias, root_unbias, eps, decay;
} LambFactors;

static inline LambFactors lamb_factors(const AdamWSettings *s) {
    return (LambFactors){.unbias = (float)(1 / (1 - pow(s->beta1, (double)s->step))),
                         .root_unbias = (float)(1 / sqrt(1 - pow(s->beta2, (double)s->step))),
                         .eps = (float)s->eps,
                         .decay = (float)s->weight_decay};
}

static inline float lamb_step(float parameter, float m, float v, LambFactors f) {
    return m * f.unbias / (sqrtf(v) * f.root_unbias + f.eps) + f.decay * parameter;
}

static inline void lamb_moments(LambSquares *squares, const float *parameter, const float *gradient, float *m,
                                float *v, size_t n, const AdamWSettings *s) {
    const LambFactors f = lamb_factors(s);
    const float beta1 = (float)s->beta1, beta2 = (float)s->beta2, scale = (float)s->gradient_scale;
    const float one_minus_beta1 = (float)(1 - s->beta1), one_minus_beta2 = (float)(1 - s->beta2);
    const size_t chunks = (n + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK;
    LambSquares *partial = check_calloc(chunks * sizeof *partial);
#pragma omp parallel for schedule(static)
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        const size_t begin = chunk * OPTIMIZER_CHUNK;
        const size_t end = begin + OPTIMIZER_CHUNK < n ? begin + OPTIMIZER_CHUNK : n;
        for (size_t i = begin; i < end; i++) {
            const float g = gradient[i] * scale;
            m[i] = beta1 * m[i] + one_minus_beta1 * g;
            v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
            const double step = lamb_step(parameter[i], m[i], v[i], f);
            partial[chunk].step += step * step;
            partial[chunk].parameter += (double)parameter[i] * parameter[i];
        }
    }
    for (size_t chunk = 0; chunk < chunks; chunk++)
        squares->parameter += partial[chunk].parameter, squares->step += partial[chunk].step;
    free(partial);
}

static inline double lamb_trust(const LambSquares *squares) {
    return squares->parameter > 0 && squares->step > 0 ? sqrt(squares->parameter / squares->step) : 1;
}

static inline void lamb_update(float *parameter, const float *m, const float *v, size_t n, double trust,
                               const AdamWSettings *s) {
    const LambFactors f = lamb_factors(s);
    const float rate = (float)(s->lr * trust);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) parameter[i] -= rate * lamb_step(parameter[i], m[i], v[i], f);
}

#endif
#endif
