/* optimizer.h: the learning-rate schedules, the sum of squares for the gradient's norm, and AdamW.

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

   C++ sees only AdamWSettings: the CUDA program, which is C++, has its own kernel for the update (cuda/optimizer.cuh)
   and takes these settings. */
#ifndef GPT_MATH_OPTIMIZER_H
#define GPT_MATH_OPTIMIZER_H

#include <stdint.h>

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double gradient_scale; /* a factor of the gradient, below 1 when the gradient is clipped */
    int64_t step;          /* t in the formula: 1 for the first update */
} AdamWSettings;

#ifndef __cplusplus
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include "../base/check.h"

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

#endif
#endif
