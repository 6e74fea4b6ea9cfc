/* optimizer.h: the learning-rate schedules, the global gradient norm, and AdamW.

   All arrays are float32 of equal length; sums are double over fixed chunks added in order, so the result has
   the same bits for any number of threads.

   learning_rate(schedule, step)   step 0 is the first update: a warmup of W steps gives lr/W, 2lr/W, ... lr
   gradient_squares(g, n)          the sum of squares; gradient_norm(g, n) its root
   adamw_update(p, g, m, v, n, settings)   one update of p and of the moments m, v (Loshchilov & Hutter,
                                   "Decoupled weight decay regularization", 2019, algorithm 2) */
#ifndef GPT_MATH_OPTIMIZER_H
#define GPT_MATH_OPTIMIZER_H

#include <math.h>
#include <stdint.h>
#include "../base/check.h"

typedef enum { LR_COSINE, LR_LINEAR, LR_CONSTANT, LR_WSD } LearningRateKind;

typedef struct {
    LearningRateKind kind;
    double peak, floor_fraction; /* the rate ends at peak * floor_fraction */
    int64_t warmup, steps;       /* of the whole run */
    int64_t cooldown;            /* LR_WSD: last steps, in which the rate falls linearly; 0: a fifth of all */
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

enum { OPTIMIZER_CHUNK = 1 << 16 };

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

static inline double gradient_norm(const float *gradient, size_t n) {
    return sqrt(gradient_squares(gradient, n));
}

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double gradient_scale; /* multiplies the gradient first: the clipping factor */
    int64_t step;          /* 1 at the first update: corrects the bias of the moments */
} AdamWSettings;

static inline void adamw_update(float *restrict parameter, const float *restrict gradient,
                                float *restrict mean, float *restrict square, size_t n,
                                const AdamWSettings *s) {
    const float beta1 = (float)s->beta1, beta2 = (float)s->beta2, scale = (float)s->gradient_scale;
    const float new1 = (float)(1 - s->beta1), new2 = (float)(1 - s->beta2), eps = (float)s->eps;
    const float keep = (float)(1 - s->lr * s->weight_decay);
    const float rate = (float)(s->lr / (1 - pow(s->beta1, (double)s->step)));
    const float unbias = (float)(1 / sqrt(1 - pow(s->beta2, (double)s->step)));
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        float g = gradient[i] * scale;
        float m = mean[i] = beta1 * mean[i] + new1 * g;
        float v = square[i] = beta2 * square[i] + new2 * g * g;
        parameter[i] = keep * parameter[i] - rate * m / (sqrtf(v) * unbias + eps);
    }
}

#endif
