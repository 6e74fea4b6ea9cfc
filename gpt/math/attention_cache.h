/* attention_cache.h: attention for text that is generated token by token: keys and values of the tokens so far are
   kept, so that a new token costs one row of attention instead of all of them.

   A cache belongs to one sequence. It holds what attention needs of every token, for each of L layers:

   attention_cache_create(kind, layers, &shape)   an empty cache; shape has B = 1, and as T the most tokens it will hold
   attention_cache_bytes(kind, layers, &shape)    the bytes of memory that this takes
   attention_cache_forward(caches, l, out, lse, qkv, &shape)
                            what attention_forward computes for the last shape->T rows of each of shape->B sequences:
                            those of new tokens, which follow the caches[b]->count tokens before them. Adds their keys
                            and values to layer l of the caches. q, k and v of a token lie side by side in qkv (B, T,
                            3A). lse (B, H, T) is scratch
   cache->count             tokens in the cache. After the last layer the caller adds T to it in each. It may be made
                            smaller to forget everything (0), but else only grows
   attention_cache_free(cache)

   THE KINDS. When the cache is empty, the rows are those of a whole sequence, and attention_forward computes them. For
   later rows of standard attention and LASER, with the weights a_ij of row i,
       standard   o_id = sum_j a_ij v_jd
       LASER      o_id = m_d + log(1 + sum_j a_ij e_jd)       with e_jd = exp(v_jd - m_d) - 1
   where m_d is the smallest v_jd of column d so far. No e_jd is negative, so no digits are lost in the sum, however
   small or large the values are. The cache holds e, so a token costs no exponentials of other tokens' values. It holds
   v as well: when a new token has a value below m_d, column d of e is computed again (this becomes rare, as a new
   minimum does in any sequence). If the values of a column are farther apart than 60, float32 could not hold e; such a
   column is computed as log(sum_j exp(s_ij + v_jd)) - log(sum_j exp(s_ij)) from the scores s_ij.
   Differential attention has the rows of its heads with the values of both heads of a pair, and then their difference.
   For any other kind, the cache holds q, k and v of all tokens, and attention_forward computes all rows again. That
   takes longer with every token, but it is right for every kind. attention_cache_kinds has the kinds that are faster.

   Keys and values (or e) are stored in the model's dtype, as the products of attention_forward round them. Each head is
   computed by one thread, so results have the same bits for any number of threads. */
#ifndef GPT_MATH_ATTENTION_CACHE_H
#define GPT_MATH_ATTENTION_CACHE_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "../base/memory.h"
#include "attention.h"
#include "matmul_isa.h"
#include "vector_math.h"

/* How the rows of a kind are computed from the cache. */
typedef enum { CACHE_ALL_ROWS, CACHE_STANDARD, CACHE_LASER } AttentionCacheKind;
static const AttentionCacheKind attention_cache_kinds[ATTENTION_KIND_COUNT] = {
    [ATTENTION_STANDARD] = CACHE_STANDARD,
    [ATTENTION_LASER] = CACHE_LASER,
    [ATTENTION_DIFF] = CACHE_STANDARD,
    [ATTENTION_DIFF_LASER] = CACHE_LASER,
};

typedef struct {
    AttentionKind kind;
    AttentionCacheKind how;
    AttentionShape shape; /* of a pass over a full cache */
    int count;            /* tokens whose keys and values are in the cache */
    Array keys, values;   /* (L, H, T, D) each; values: v, or e for LASER */
    float *exact;         /* (L, H, T, D) v, for LASER */
    float *least, *most;  /* (L, H, D) the smallest and largest value of each column, for LASER */
    float *scores;        /* (H, 2, T) scratch: the scores of a row, and its weights */
    float *qkv;           /* (L, T, 3A) CACHE_ALL_ROWS: q, k and v of all tokens */
    float *out, *lse;     /* (T, A), (H, T) CACHE_ALL_ROWS: the rows computed again */
    void *memory;
} AttentionCache;

enum { CACHE_SPREAD = 60 }; /* the largest difference of two values of a column for which e is used */

/* Gives the arrays their places in cache->memory; returns how many bytes they take. With memory NULL it only counts. */
static inline size_t attention_cache_place(AttentionCache *c, int layers) {
    const AttentionShape *s = &c->shape;
    const size_t T = (size_t)s->T, A = (size_t)(s->H * s->D), L = (size_t)layers, H = (size_t)s->H;
    const size_t number = s->dtype == DTYPE_BF16 ? sizeof(uint16_t) : sizeof(float), all = L * T * A;
    const bool laser = c->how == CACHE_LASER, again = c->how == CACHE_ALL_ROWS;
    c->keys.dtype = c->values.dtype = s->dtype;
    const struct {
        void **array;
        size_t bytes;
    } pieces[] = {
        {&c->keys.data, again ? 0 : number * all},
        {&c->values.data, again ? 0 : number * all},
        {(void **)&c->exact, laser ? sizeof(float) * all : 0},
        {(void **)&c->least, laser ? sizeof(float) * L * A : 0},
        {(void **)&c->most, laser ? sizeof(float) * L * A : 0},
        {(void **)&c->scores, again ? 0 : sizeof(float) * H * 2 * T},
        {(void **)&c->qkv, again ? sizeof(float) * 3 * all : 0},
        {(void **)&c->out, again ? sizeof(float) * T * A : 0},
        {(void **)&c->lse, again ? sizeof(float) * H * T : 0},
    };
    size_t at = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        if (c->memory) *pieces[i].array = (char *)c->memory + at;
        at += (pieces[i].bytes + 63) / 64 * 64;
    }
    return at;
}

static inline size_t attention_cache_bytes(AttentionKind kind, int layers, const AttentionShape *shape) {
    AttentionCache c = {.kind = kind, .how = attention_cache_kinds[kind], .shape = *shape};
    return attention_cache_place(&c, layers);
}

/* `how` is CACHE_ALL_ROWS, or as attention_cache_kinds says. */
static inline AttentionCache attention_cache_create_as(AttentionKind kind, AttentionCacheKind how, int layers,
                                                       const AttentionShape *shape) {
    AttentionCache c = {.kind = kind, .how = how, .shape = *shape};
    c.memory = memory_allocate(attention_cache_place(&c, layers));
    attention_cache_place(&c, layers);
    return c;
}

static inline AttentionCache attention_cache_create(AttentionKind kind, int layers,
                                                    const AttentionShape *shape) {
    return attention_cache_create_as(kind, attention_cache_kinds[kind], layers, shape);
}

static inline void attention_cache_free(AttentionCache *c) { free(c->memory); }

/* Brings least, most and e of the columns of a head up to date, whose `rows` newest values are in `exact` already. */
static inline void attention_cache_columns(AttentionCache *c, int64_t head, int rows) {
    const int64_t D = c->shape.D;
    const int count = c->count + rows;
    const int64_t at = head * c->shape.T * D;
    for (int d = 0; d < D; d++) {
        const float *v = c->exact + at + d;
        float *least = &c->least[head * D + d], *most = &c->most[head * D + d];
        if (c->count == 0) *least = *most = v[0];
        const float before = *least;
        for (int t = c->count; t < count; t++) {
            *least = v[t * D] < *least ? v[t * D] : *least;
            *most = v[t * D] > *most ? v[t * D] : *most;
        }
        if (*most - *least > CACHE_SPREAD) continue; /* e is not used from now on */
        for (int t = *least < before ? 0 : c->count; t < count; t++)
            array_put(c->values, at + t * D + d, expm1f(v[t * D] - *least));
    }
}

/* Adds k and v of `rows` new tokens to head h of layer l. k points to the first of them, in qkv. */
static inline void attention_cache_add(AttentionCache *c, int l, int h, const float *k, int rows) {
    const AttentionShape *s = &c->shape;
    const int64_t head = (int64_t)l * s->H + h;
    for (int t = 0; t < rows; t++, k += s->qkv_row) {
        const float *v = k + s->H * s->D;
        const int64_t at = (head * s->T + c->count + t) * s->D;
        array_write(c->keys, at, k, s->D);
        if (c->how == CACHE_LASER)
            memcpy(c->exact + at, v, (size_t)s->D * sizeof *v);
        else
            array_write(c->values, at, v, s->D);
    }
    if (c->how == CACHE_LASER) attention_cache_columns(c, head, rows);
}

/* The two functions that read the cache, with the vectors of matmul_isa.h. Where they are called, dtype is a constant. */

/* scores (count) = scale * q (D) . keys (count, D), for LANES keys at a time: lane l of their LANES sums is a sum over
   every LANES-th element. Transposed, these are LANES parts of each score. */
MATMUL_INLINE void attention_cache_scores(float *scores, const float *q, const void *keys, const Dtype dtype,
                                          float scale, int count, int D) {
    const Array from = {(void *)keys, dtype}, query = array_of_floats(q);
    for (int j = 0; j < count; j += MATMUL_LANES) {
        const int rows = count - j < MATMUL_LANES ? count - j : MATMUL_LANES;
        MatmulVector sums[MATMUL_LANES], score = matmul_splat(0);
        for (int l = 0; l < MATMUL_LANES; l++) sums[l] = matmul_splat(0);
        int d = 0;
        for (; rows == MATMUL_LANES && d + MATMUL_LANES <= D; d += MATMUL_LANES) {
            const MatmulVector x = matmul_load(query, d, MATMUL_LANES);
            MATMUL_UNROLL
            for (int l = 0; l < MATMUL_LANES; l++)
                sums[l] += x * matmul_load(from, (int64_t)(j + l) * D + d, MATMUL_LANES);
        }
        for (; d < D; d += MATMUL_LANES) {
            const MatmulVector x = matmul_load(query, d, D - d);
            for (int l = 0; l < rows; l++) sums[l] += x * matmul_load(from, (int64_t)(j + l) * D + d, D - d);
        }
        matmul_transpose(sums);
        for (int l = 0; l < MATMUL_LANES; l++) score += sums[l];
        score *= matmul_splat(scale);
        memcpy(scores + j, &score, (size_t)rows * sizeof *scores);
    }
}

/* Columns d to d + VECTORS * LANES of out (D) = sum_j a_j values_jd over `count` rows; `vectors` is a constant, so that
   the sums stay in registers. */
MATMUL_INLINE int attention_cache_sum_columns(float *out, const float *a, Array from, const int vectors,
                                              int d, int count, int D) {
    for (; d + vectors * MATMUL_LANES <= D; d += vectors * MATMUL_LANES) {
        MatmulVector sums[8];
        MATMUL_UNROLL
        for (int i = 0; i < vectors; i++) sums[i] = matmul_splat(0);
        for (int j = 0; j < count; j++) {
            const MatmulVector weight = matmul_splat(a[j]);
            MATMUL_UNROLL
            for (int i = 0; i < vectors; i++)
                sums[i] += weight * matmul_load(from, (int64_t)j * D + d + i * MATMUL_LANES, MATMUL_LANES);
        }
        memcpy(out + d, sums, (size_t)(vectors * MATMUL_LANES) * sizeof *out);
    }
    return d;
}

/* out (D) = sum_j a_j values_jd over `count` rows */
MATMUL_INLINE void attention_cache_sum(float *out, const float *a, const void *values, const Dtype dtype,
                                       int count, int D) {
    const Array from = {(void *)values, dtype};
    int d = attention_cache_sum_columns(out, a, from, 8, 0, count, D);
    d = attention_cache_sum_columns(out, a, from, 4, d, count, D);
    d = attention_cache_sum_columns(out, a, from, 1, d, count, D);
    for (; d < D; d++) {
        float sum = 0;
        for (int j = 0; j < count; j++) sum += a[j] * array_get(from, (int64_t)j * D + d);
        out[d] = sum;
    }
}

/* log(sum_j exp(s_j + v_j)) - lse for a column v (count, D) whose values are too far apart for e. With the paper's
   shift, LASER does not return less than about 69.3 below the largest value (laser.h, RANGE). */
static inline float attention_cache_separate(const float *s, float lse, const float *v, float most, int count,
                                             const AttentionShape *shape) {
    const int64_t D = shape->D;
    float largest = s[0] + v[0], sum = 0;
    for (int j = 1; j < count; j++) largest = fmaxf(largest, s[j] + v[j * D]);
    for (int j = 0; j < count; j++) sum += expf(s[j] + v[j * D] - largest);
    const float o = largest + logf(sum) - lse, floor = (ceilf(most * 1.44269504f) - 100) * 0.693147181f;
    return shape->laser_shift == LASER_SHIFT_SEQUENCE ? fmaxf(o, floor) : o;
}

/* The row out (D) of the newest of `count` tokens in head h of layer l, for its query q (D) and the values of head
   `of`. */
static inline void attention_cache_row(const AttentionCache *c, int l, int h, int of, float *out,
                                       const float *q, int count) {
    const AttentionShape *s = &c->shape;
    const int D = s->D;
    const int64_t head = (int64_t)l * s->H + of, at = head * s->T * D;
    float *scores = c->scores + (int64_t)h * 2 * s->T, *weights = scores + s->T;
    const bool bf16 = s->dtype == DTYPE_BF16;
    const void *keys = array_from(c->keys, ((int64_t)l * s->H + h) * s->T * D).data,
               *values = array_from(c->values, at).data;
    const float scale = 1.0f / sqrtf((float)D);
    if (bf16)
        attention_cache_scores(scores, q, keys, DTYPE_BF16, scale, count, D);
    else
        attention_cache_scores(scores, q, keys, DTYPE_FP32, scale, count, D);
    for (int j = 0; j < count && s->softcap > 0; j++) scores[j] = s->softcap * tanhf(scores[j] / s->softcap);
    const float largest = row_max(scores, count);
    float sum = 0;
    for (int j = 0; j < count; j++) weights[j] = exp_fast(scores[j] - largest);
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < count; j++) sum += weights[j];
    if (bf16)
        attention_cache_sum(out, weights, values, DTYPE_BF16, count, D);
    else
        attention_cache_sum(out, weights, values, DTYPE_FP32, count, D);
    for (int d = 0; d < D; d++) out[d] /= sum;
    if (c->how != CACHE_LASER) return;
    const float *least = c->least + head * D, *most = c->most + head * D;
    for (int d = 0; d < D; d++)
        out[d] =
            most[d] - least[d] <= CACHE_SPREAD
                ? least[d] + log1pf(out[d])
                : attention_cache_separate(scores, largest + logf(sum), c->exact + at + d, most[d], count, s);
}

/* A kind that is not in attention_cache_kinds: all rows again, of which the last T are wanted. */
static inline void attention_cache_all_rows(AttentionCache *c, int l, float *out, const float *qkv, int T,
                                            const AttentionOwn *own) {
    const int64_t A = (int64_t)c->shape.H * c->shape.D;
    float *all = c->qkv + (int64_t)l * c->shape.T * 3 * A;
    AttentionShape shape = c->shape;
    memcpy(all + c->count * 3 * A, qkv, (size_t)(T * 3 * A) * sizeof *all);
    shape.T = c->count + T, shape.own = *own;
    attention_forward(c->kind, c->out, c->lse, all, all + A, all + 2 * A, &shape);
    memcpy(out, c->out + c->count * A, (size_t)(T * A) * sizeof *out);
}

/* The rows of head h of one sequence; out and qkv are those of its first new token. */
static inline void attention_cache_head(AttentionCache *c, int l, int h, float *out, const float *qkv,
                                        int T) {
    const int64_t D = c->shape.D, A = c->shape.H * D;
    attention_cache_add(c, l, h, qkv + A + h * D, T);
    for (int t = 0; t < T && c->count > 0; t++)
        attention_cache_row(c, l, h, h, out + t * A + h * D, qkv + t * 3 * A + h * D, c->count + t + 1);
}

/* The rows of differential attention for one sequence, whose shape is `one`. */
static inline void attention_cache_pairs(AttentionCache *c, int l, float *out, const float *qkv,
                                         const AttentionShape *one) {
    const int T = one->T, H = one->H;
    const int64_t D = one->D, A = H * D;
#pragma omp parallel for schedule(dynamic)
    for (int h = 0; h < H; h++) attention_cache_add(c, l, h, qkv + A + h * D, T);
    if (c->count == 0) return; /* attention_forward has computed them */
#pragma omp parallel for schedule(dynamic)
    for (int h = 0; h < H; h++)
        for (int row = 0; row < 2 * T; row++) { /* each token, with the values of either head of the pair */
            const int t = row / 2, of = h / 2 * 2 + row % 2;
            attention_cache_row(c, l, h, of, diff_map(one->own.saved, one, h % 2) + t * A + of * D,
                                qkv + t * 3 * A + h * D, c->count + t + 1);
        }
    diff_combine(out, one->own.saved, one);
}

static inline void attention_cache_forward(AttentionCache *const *caches, int l, float *out, float *lse,
                                           const float *qkv, const AttentionShape *shape) {
    const int B = shape->B, T = shape->T, H = shape->H;
    const int64_t A = (int64_t)H * shape->D;
    bool heads = false; /* there are rows that are computed head by head */
    AttentionShape one = *shape;
    one.B = 1;
    for (int b = 0; b < B; b++) {
        AttentionCache *c = caches[b];
        float *rows = out + b * T * A;
        const float *from = qkv + b * T * 3 * A;
        if (c->count + T > c->shape.T)
            die("the cache of attention has room for %d tokens; %d + %d were given", c->shape.T, c->count, T);
        if (c->how == CACHE_ALL_ROWS) {
            attention_cache_all_rows(c, l, rows, from, T, &shape->own);
            continue;
        }
        if (c->count == 0)
            attention_forward(c->kind, rows, lse + (int64_t)b * H * T, from, from + A, from + 2 * A, &one);
        if (attention_is_diff(c->kind))
            attention_cache_pairs(c, l, rows, from, &one);
        else
            heads = true;
    }
    if (!heads) return;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            attention_cache_head(caches[b], l, h, out + b * T * A, qkv + b * T * 3 * A, T);
}

#endif
