/* sampling.h: draws the next token from a model's logits.

   sample_token(logits, V, &rule, seen, count, seed, draw)
       the token; logits (V) are not changed. seen (count) are the tokens that the model sees, for repeat_penalty; draw
       is how many tokens were drawn with this seed before

   The steps, in this order; a field of SamplingRule that is 0 switches its step off:
       repeat_penalty r   the logit of every token in `seen` is divided by r if it is positive, else multiplied by r
                          (Keskar et al. 2019), so r above 1 makes repetitions less likely
       temperature t      the weight of a token is exp(logit / t). 0: the token with the largest logit is taken, and the
                          steps below do not matter
       top_k k            only the k tokens with the largest logits stay
       top_p p            of these, only the likeliest stay, as few as have at least the share p of their weight
                          (nucleus sampling, Holtzman et al. 2020)
       min_p m            only tokens stay whose weight is at least m times the largest
   Then a token is drawn with a probability in proportion to its weight. Of two tokens with the same logit, the one with
   the smaller number counts as larger. A rule that keeps every token draws the same token as one without that rule. */
#ifndef GPT_MATH_SAMPLING_H
#define GPT_MATH_SAMPLING_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"
#include "rng.h"

typedef struct {
    double temperature;
    int64_t top_k;
    double top_p, min_p, repeat_penalty;
} SamplingRule;

/* Whether token a is likelier than token b. */
static inline bool sampling_before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* heap (n) holds tokens so that none is likelier than its parent, the one at (i - 1) / 2, except that the one at i may
   be: moves it to its place. */
static inline void sampling_sift(int32_t *heap, int n, int i, const float *logits) {
    const int32_t token = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && sampling_before(logits, heap[child + 1], heap[child])) child++;
        if (!sampling_before(logits, heap[child], token)) break;
        heap[i] = heap[child];
    }
    heap[i] = token;
}

/* Takes the likeliest of the n tokens off the heap and puts it at its end, heap[n - 1]. */
static inline void sampling_take(int32_t *heap, int n, const float *logits) {
    const int32_t token = heap[0];
    heap[0] = heap[n - 1];
    sampling_sift(heap, n - 1, 0, logits);
    heap[n - 1] = token;
}

/* Sets the weights (V) of the tokens that top_k, top_p and min_p exclude to 0; the largest weight is 1. A heap gives
   the tokens from the likeliest on; usually few are asked for, so this is faster than sorting all of them. */
static inline void sampling_exclude(double *weights, const float *logits, int V, const SamplingRule *rule) {
    const int most = rule->top_k > 0 && rule->top_k < V ? (int)rule->top_k : V;
    const double top_p = rule->top_p > 0 ? rule->top_p : 1;
    if (most == V && top_p >= 1 && rule->min_p <= 0) return;
    int32_t *heap = (int32_t *)check_calloc((size_t)V * sizeof *heap);
    for (int v = 0; v < V; v++) heap[v] = v;
    for (int i = V / 2 - 1; i >= 0; i--) sampling_sift(heap, V, i, logits);

    int taken = 0, stay = 0; /* the i-th token that was taken is at heap[V - 1 - i] */
    double total = 0, sum = 0;
    for (int v = 0; v < V && most == V; v++) total += weights[v];
    for (; most < V && taken < most; taken++) {
        sampling_take(heap, V - taken, logits);
        total += weights[heap[V - 1 - taken]];
    }
    for (; stay < most && (top_p >= 1 || sum < top_p * total); stay++) {
        if (stay == taken) sampling_take(heap, V - taken++, logits);
        const double weight = weights[heap[V - 1 - stay]];
        if (weight < rule->min_p) break;
        sum += weight;
    }
    for (int i = 0; i < V - stay; i++) weights[heap[i]] = 0;
    free(heap);
}

/* penalised (V) = logits with repeat_penalty */
static inline void sampling_penalise(float *penalised, const float *logits, int V, double penalty,
                                     const int32_t *seen, int count) {
    memcpy(penalised, logits, (size_t)V * sizeof *penalised);
    for (int i = 0; i < count; i++) {
        const float x = logits[seen[i]];
        penalised[seen[i]] = (float)(x > 0 ? x / penalty : x * penalty);
    }
}

static inline int32_t sample_token(const float *logits, int V, const SamplingRule *rule, const int32_t *seen,
                                   int count, uint64_t seed, uint64_t draw) {
    const size_t size = (size_t)V;
    double *weights = (double *)check_calloc(size * (sizeof *weights + sizeof(float))), sum = 0, passed = 0;
    if (rule->repeat_penalty > 0 && rule->repeat_penalty != 1) {
        float *penalised = (float *)(weights + size);
        sampling_penalise(penalised, logits, V, rule->repeat_penalty, seen, count);
        logits = penalised;
    }
    int32_t best = 0, token = -1;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    if (rule->temperature > 0) {
#pragma omp parallel for schedule(                                                                           \
    static) if (V >= 8192) /* a smaller vocabulary is not worth waking threads for */
        for (int v = 0; v < V; v++) weights[v] = exp((logits[v] - logits[best]) / rule->temperature);
        sampling_exclude(weights, logits, V, rule);
        for (int v = 0; v < V; v++) sum += weights[v];
        const double goal = rng_uniform(seed, RNG_STREAM_SAMPLE, draw) * sum;
        for (int v = 0; v < V && token < 0; v++)
            if ((passed += weights[v]) > goal) token = v;
    }
    free(weights);
    return token < 0 ? best : token;
}

#endif
