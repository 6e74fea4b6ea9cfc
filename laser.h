/* laser.h: causal multi-head attention, standard and LASER, forward and backward, on the CPU. Version 1.0; the MIT
   license of the repository's file LICENSE applies.

   A single-header library: #define LASER_IMPLEMENTATION before one #include of it, in a C file. Any other C or C++
   file includes it without. The implementation needs GCC or clang (vector extensions) and libm, and uses OpenMP
   when compiled with -fopenmp. Define before, if you like:
       LASER_STATIC                       every function static
       LASER_MALLOC(size), LASER_FREE(p)  where work memory comes from (malloc, free)
       LASER_FAIL(text)                   no memory, a senseless shape; must not return (stderr, exit(1))

   WHAT IT COMPUTES, for every batch b and head h, with s_ij = scale * q_i . k_j over the keys j <= i,
   lse_i = log sum_j exp(s_ij) and a_ij = exp(s_ij - lse_i):
       standard   o_id = sum_j a_ij v_jd
       LASER      o_id = log sum_j a_ij exp(v_jd)
   (Duvvuri and Dhillon, "LASER: Attention with Exponential Transformation", ICML 2025, arXiv:2411.03493.)

   THE FUNCTIONS
       attention_forward(out, lse, q, k, v, &shape)
       attention_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape)
       attention_forward_naive, attention_backward_naive  the same in double, slowly, to read and to test by
       attention_memory(&shape, backward)                 bytes of work memory that a call allocates and frees

   Element (b, t, h, d) of q, k, v, dq, dk, dv lies at b * qkv_strides[0] + t * qkv_strides[1] + h *
   qkv_strides[2] + d, of out, dout likewise with out_strides: so q, k, v may be parts of one packed buffer.
   lse is (B, H, T), without gaps; forward writes it for backward, NULL when there will be none. Gradients
   are written (=), not added. Outputs must not overlap inputs. Any B, T, H, D from 1 on; the same bits for
   any number of threads. Work memory for each head in flight, one to a thread: about 2 T*D floats forward,
   6 T*D backward, up to 13 where the heads are few, less with pairs of bfloat16; nothing of size T*T. (glibc:
   mallopt with M_MMAP_THRESHOLD and M_TRIM_THRESHOLD keeps it from being faulted in again by each call.)

   EXAMPLE (a test compiles and runs these lines)
   [example]
   #define LASER_IMPLEMENTATION
   #include "laser.h"
   #include <stdio.h>
   enum { B = 1, T = 3, H = 1, D = 2, C = H * D };
   int main(void) {
       const float q[B * T * C] = {0}, k[B * T * C] = {0}; // equal scores: a row averages its past
       const float v[B * T * C] = {0, 1, 2, 3, 4, -1}, dout[B * T * C] = {0, 0, 0, 0, 1, 1};
       float out[B * T * C], lse[B * H * T], dq[B * T * C], dk[B * T * C], dv[B * T * C];
       AttentionShape shape = {.batch = B, .seq_len = T, .heads = H, .head_dim = D, .qkv_strides = {T * C, C, D},
                               .out_strides = {T * C, C, D}, .kind = ATTENTION_LASER};
       attention_forward(out, lse, q, k, v, &shape);
       attention_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape);
       for (int t = 0; t < T; t++)
           printf("out %.4f %.4f   dv %.4f %.4f\n", out[t * C], out[t * C + 1], dv[t * C], dv[t * C + 1]);
       return 0;
   }
   [end]

   BACKWARD. With p_ijd = a_ij exp(v_jd - o_id), which lies in [0, 1] and sums to 1 over j:
       dv_jd = sum_i do_id p_ijd          ds_ij = sum_d do_id p_ijd - a_ij sum_d do_id
   (d/dv_jd of log sum_j a_ij exp(v_jd) is p_ijd; d/da_ij is exp(v_jd - o_id); the softmax turns da into
   ds_ij = a_ij (da_ij - sum_j a_ij da_ij), and sum_j a_ij exp(v_jd - o_id) = 1.) That is standard attention's
   backward on V' = exp(V) and dO' = dO * exp(-O), with dV = dV' * V' and sum_d do_id in place of sum_d do_id
   o_id. So LASER costs T*D exponentials and logarithms more, and only o and lse are kept for backward.

   RANGE, or where a shift by the maximum went. An exponential is computed as p * 2^k, p near 1, k an integer;
   shifting it by n log 2 is writing k - n for k. All shifts here are such powers of two, by which sums are
   scaled exactly: whatever shift keeps the numbers in range gives the same bits. So the running shift of the
   online softmax costs no accuracy, and a later token that moves a shift moves no earlier row.
   - Scores: row i is scaled by 2^-K_i, K_i = the running maximum of s_ij log2(e) rounded to an integer.
   - Values, shift = LASER_SHIFT_CAUSAL: column d of a head is scaled by 2^-n_d, n_d = v_0d log2(e) rounded:
     the one key that every row sees. While the values stay within 40 of v_0d, float32 holds every exp(v_jd)
     and every sum of them. From the first key that does not, the column is "wild": the rows that see it take
     o_id + lse_i = log sum_j exp(s_ij + v_jd), a softmax of its own with its own running shift and without a
     matrix product. No visible contribution is lost whatever the later tokens are; |v| to 1e6. Backward does
     so for columns wider than 64 or farther than 128 from zero, where o in float32 has too few digits.
   - Values, shift = LASER_SHIFT_SEQUENCE, the paper's: n_d follows the column's maximum over the WHOLE
     sequence, later tokens included. What lies 2^-100 = exp(-69.3) below it is lost: such an o_id stays at
     maximum - 69.3, depends on later tokens and passes no gradient (the paper's formula has log 0 there).

   SMALL VALUES. Where |v| << 1, all exp(v) are nearly 1, and bfloat16 rounds away what tells them apart.
   Since sum_j a_ij = 1, a center may be taken out of V' before it is rounded and put back after:
       sum_j a_ij V'_jd = c_d + sum_j a_ij (V'_jd - c_d)
       sum_d do'_id V'_jd - sum_d do_id = sum_d do'_id (V'_jd - c_d) - sum_d do_id (1 - c_d exp(-o_id))
   and what remains is as small as v and keeps its digits. Backward takes c from the column; forward (bf16)
   from each tile of keys, so the last tile, which a row sees in part, is summed in float32 without.

   PRECISION. ATTENTION_BF16 rounds the operands of the products, q, k, v or exp(v) - c, a and their
   gradients, to bfloat16, on every CPU; sums, exp, log, shifts and outputs are float32. Where pairs of
   bfloat16 are multiplied faster than float32 (AVX512-BF16 without AMX, as in Zen 4 and 5), they are; else
   this costs a little more than ATTENTION_FP32. A row's a_ij are rounded before they are normalised: they
   still sum to 1.

   READING. First the naive twin. Then laser_rows, the forward over the keys of a panel of queries, and
   laser_backward_panel; scores lie key by key with the queries side by side in the lanes, so that maxima and
   sums of a row never cross lanes. attention_forward and attention_backward, at the end, list their steps. */
#ifndef LASER_H
#define LASER_H

#include <stddef.h>

#define LASER_VERSION "1.0"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef LASER_STATIC
#define LASER_API static __attribute__((unused))
#else
#define LASER_API extern
#endif

typedef enum { ATTENTION_STANDARD, ATTENTION_LASER } AttentionKind;
typedef enum { LASER_SHIFT_CAUSAL, LASER_SHIFT_SEQUENCE } LaserShift;
typedef enum { ATTENTION_FP32, ATTENTION_BF16 } AttentionPrecision;

typedef struct {
    int batch, seq_len, heads, head_dim; /* B, T, H, D */
    ptrdiff_t qkv_strides[3]; /* elements from one batch, token, head to the next in q k v dq dk dv */
    ptrdiff_t out_strides[3]; /* the same in out, dout */
    float scale;              /* of the scores; 0: 1 / sqrt(D) */
    AttentionKind kind;
    LaserShift shift;
    AttentionPrecision precision;
} AttentionShape;

LASER_API void attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                 const AttentionShape *shape);
LASER_API void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                  const float *k, const float *v, const float *out, const float *lse,
                                  const AttentionShape *shape);
LASER_API void attention_forward_naive(double *out, double *lse, const double *q, const double *k,
                                       const double *v, const AttentionShape *shape);
LASER_API void attention_backward_naive(double *dq, double *dk, double *dv, const double *dout,
                                        const double *q, const double *k, const double *v, const double *out,
                                        const double *lse, const AttentionShape *shape);
LASER_API size_t attention_memory(const AttentionShape *shape, int backward);

#ifdef __cplusplus
}
#endif
#endif

#if defined(LASER_IMPLEMENTATION) && !defined(LASER_IMPLEMENTED)
#define LASER_IMPLEMENTED

#ifdef __cplusplus
#error                                                                                                       \
    "the implementation of laser.h is C: define LASER_IMPLEMENTATION in a .c file, and include laser.h in C++ without it"
#endif
#ifdef __FAST_MATH__
#error "laser.h rounds by adding and subtracting a constant: compile it without -ffast-math and -Ofast"
#endif

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#define LASER_OMP(directive) _Pragma(#directive)
#define LASER_THREAD omp_get_thread_num()
#define LASER_THREADS omp_get_max_threads()
#else
#define LASER_OMP(directive)
#define LASER_THREAD 0
#define LASER_THREADS 1
#endif

#ifndef LASER_MALLOC
#define LASER_MALLOC(size) malloc(size)
#define LASER_FREE(pointer) free(pointer)
#endif
#ifndef LASER_FAIL
#define LASER_FAIL(text) (fprintf(stderr, "error: %s (laser.h)\n", text), exit(1))
#endif
#define LASER_INLINE static inline __attribute__((always_inline))

/* ---- The naive twin: the formulas as they stand, in double ---- */

static void *laser_malloc(size_t size) {
    void *memory = LASER_MALLOC(size);
    if (!memory) LASER_FAIL("attention: out of memory; use a smaller batch or a shorter sequence");
    return memory;
}

static double laser_scale(const AttentionShape *shape) {
    return shape->scale != 0 ? shape->scale : 1 / sqrt(shape->head_dim);
}

/* Where row t of a head begins; heads are counted through the batch. */
static ptrdiff_t laser_at(const AttentionShape *shape, const ptrdiff_t strides[3], ptrdiff_t head,
                          ptrdiff_t t) {
    return head / shape->heads * strides[0] + t * strides[1] + head % shape->heads * strides[2];
}

/* s_ij, from q_i and k_j. */
static double laser_naive_score(const double *q, const double *k, const AttentionShape *shape) {
    double sum = 0;
    for (int d = 0; d < shape->head_dim; d++) sum += q[d] * k[d];
    return sum * laser_scale(shape);
}

/* log sum_j exp(s_j + v_j); v: a column, or NULL for zeros. */
static double laser_log_sum_exp(const double *s, const double *v, ptrdiff_t token, ptrdiff_t count) {
    double maximum = -INFINITY, sum = 0;
    for (ptrdiff_t j = 0; j < count; j++) maximum = fmax(maximum, s[j] + (v ? v[j * token] : 0));
    for (ptrdiff_t j = 0; j < count; j++) sum += exp(s[j] + (v ? v[j * token] : 0) - maximum);
    return maximum + log(sum);
}

/* The least o of a column: the paper's shift, the multiple of log 2 at or above its maximum, has one. */
static double laser_naive_floor(const double *v, const AttentionShape *shape) {
    if (shape->kind == ATTENTION_STANDARD || shape->shift == LASER_SHIFT_CAUSAL) return -INFINITY;
    double maximum = v[0];
    for (int t = 1; t < shape->seq_len; t++) maximum = fmax(maximum, v[t * shape->qkv_strides[1]]);
    return (ceil(maximum * 1.4426950408889634) - 100) * log(2);
}

LASER_API void attention_forward_naive(double *out, double *lse, const double *q, const double *k,
                                       const double *v, const AttentionShape *shape) {
    const ptrdiff_t T = shape->seq_len, token = shape->qkv_strides[1];
    double *s = laser_malloc((size_t)T * sizeof *s);
    for (ptrdiff_t row = 0; row < (ptrdiff_t)shape->batch * shape->heads * T; row++) {
        const ptrdiff_t i = row % T, head = laser_at(shape, shape->qkv_strides, row / T, 0);
        double *o = out + laser_at(shape, shape->out_strides, row / T, i);
        for (ptrdiff_t j = 0; j <= i; j++)
            s[j] = laser_naive_score(q + head + i * token, k + head + j * token, shape);
        const double row_lse = laser_log_sum_exp(s, NULL, 0, i + 1);
        if (lse) lse[row] = row_lse;
        for (int d = 0; d < shape->head_dim; d++) {
            const double *column = v + head + d;
            o[d] = 0;
            if (shape->kind == ATTENTION_LASER)
                o[d] = fmax(laser_log_sum_exp(s, column, token, i + 1) - row_lse,
                            laser_naive_floor(column, shape));
            else
                for (ptrdiff_t j = 0; j <= i; j++) o[d] += exp(s[j] - row_lse) * column[j * token];
        }
    }
    LASER_FREE(s);
}

LASER_API void attention_backward_naive(double *dq, double *dk, double *dv, const double *dout,
                                        const double *q, const double *k, const double *v, const double *out,
                                        const double *lse, const AttentionShape *shape) {
    const ptrdiff_t T = shape->seq_len, D = shape->head_dim, token = shape->qkv_strides[1];
    double *g = laser_malloc((size_t)D * sizeof *g);
    for (ptrdiff_t row = 0; row < (ptrdiff_t)shape->batch * shape->heads * T; row++) {
        const ptrdiff_t head = laser_at(shape, shape->qkv_strides, row / T, 0), i = head + row % T * token;
        const ptrdiff_t at_out = laser_at(shape, shape->out_strides, row / T, row % T);
        const double *o = out + at_out;
        for (ptrdiff_t d = 0; d < D; d++) {
            dq[i + d] = dk[i + d] = dv[i + d] = 0;
            g[d] = o[d] > laser_naive_floor(v + head + d, shape) ? dout[at_out + d] : 0;
        }
        for (ptrdiff_t past = 0; past <= row % T; past++) { /* i, j: where rows begin */
            const ptrdiff_t j = head + past * token;
            const double log_a = laser_naive_score(q + i, k + j, shape) - lse[row];
            double ds = 0;
            for (ptrdiff_t d = 0; d < D; d++) {
                const double a = exp(log_a), x = v[j + d];
                const double p = shape->kind == ATTENTION_LASER ? exp(log_a + x - o[d]) : a;
                dv[j + d] += g[d] * p;
                ds += g[d] * (shape->kind == ATTENTION_LASER ? p - a : a * (x - o[d]));
            }
            for (ptrdiff_t d = 0; d < D; d++) {
                dq[i + d] += laser_scale(shape) * ds * k[j + d];
                dk[j + d] += laser_scale(shape) * ds * q[i + d];
            }
        }
    }
    LASER_FREE(g);
}

/* ---- Vectors, exponentials, logarithms ---- */

/* The register block: a kernel keeps ROWS x VECS vectors of W floats of sums. LANES queries side by side, a
   "panel", are the unit of everything below. DEAL: the lanes of two vectors in turn, the first half of them
   and the second. */
#if defined(__AVX512F__)
enum { LASER_W = 16, LASER_ROWS = 8 };
#define LASER_PS(operation, a, b) (LaserVec) _mm512_##operation##_ps((__m512)(a), (__m512)(b))
#define LASER_STREAM(x, a) _mm512_stream_ps(x, (__m512)(a))
#define LASER_DEAL_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LASER_DEAL_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { LASER_W = 8, LASER_ROWS = 4 };
#define LASER_PS(operation, a, b) (LaserVec) _mm256_##operation##_ps((__m256)(a), (__m256)(b))
#define LASER_STREAM(x, a) _mm256_stream_ps(x, (__m256)(a))
#define LASER_DEAL_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define LASER_DEAL_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#ifdef __aarch64__
enum { LASER_W = 4, LASER_ROWS = 8 };
#else
enum { LASER_W = 4, LASER_ROWS = 4 };
#endif
#define LASER_DEAL_LOW 0, 4, 1, 5
#define LASER_DEAL_HIGH 2, 6, 3, 7
#endif
enum {
    LASER_VECS = 2,
    LASER_LANES = LASER_W * LASER_VECS,
    LASER_TILE = 128, /* the keys, and in backward also the queries, that are worked on at a time */
    LASER_AHEAD = 8   /* rows of the caller's that are fetched ahead */
};

typedef float LaserVec __attribute__((vector_size(4 * LASER_W)));
typedef int32_t LaserInt __attribute__((vector_size(4 * LASER_W)));
typedef float LaserLoose __attribute__((vector_size(4 * LASER_W), aligned(4), may_alias)); /* unaligned */

LASER_INLINE LaserVec laser_load(const float *x) { return *(const LaserLoose *)x; }
LASER_INLINE void laser_store(float *x, LaserVec a) { *(LaserLoose *)x = a; }
LASER_INLINE LaserVec laser_set(float x) { /* through integers: x may hold a pair of bfloat16 */
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (LaserVec)((LaserInt){0} + bits);
}
LASER_INLINE LaserVec laser_select(LaserInt mask, LaserVec a, LaserVec b) {
    return (LaserVec)((mask & (LaserInt)a) | (~mask & (LaserInt)b));
}

/* What an instruction set does better than vector extensions say it; STREAM: a store past the caches. */
#ifdef LASER_PS
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) { return LASER_PS(max, a, b); }
LASER_INLINE LaserVec laser_min(LaserVec a, LaserVec b) { return LASER_PS(min, a, b); }
#else
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) { return laser_select(a > b, a, b); }
LASER_INLINE LaserVec laser_min(LaserVec a, LaserVec b) { return laser_select(a < b, a, b); }
#define LASER_STREAM(x, a) laser_store(x, a)
#endif
#ifdef __clang__
#define LASER_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define LASER_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LASER_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (LaserInt){__VA_ARGS__})
#define LASER_UNROLL _Pragma("GCC unroll 16")
#endif

/* The operands of products are float32 or bfloat16. LASER_PAIR: how many bfloat16 a float of them holds, 2
   where an instruction multiplies such pairs faster than two of float32: AVX512-BF16, but not Intel's, which
   comes with AMX (clang 14 leaves an underscore out). A pair lies "along" a row, W of its numbers in W / 2
   floats, or "across" two rows, x and y; across returns z + x + y, x and y as rounded. */
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && !defined(__AMX_BF16__) && !defined(__AMXBF16__)
enum { LASER_PAIR = 2 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) {
    return (LaserVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
LASER_INLINE __m256i laser_bf16(LaserVec x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }
LASER_INLINE void laser_put_along(int bf16, float *to, LaserVec x) {
    bf16 ? _mm256_storeu_si256((void *)to, laser_bf16(x)) : laser_store(to, x);
}
LASER_INLINE LaserVec laser_put_across(int bf16, float *to, ptrdiff_t row, LaserVec x, LaserVec y,
                                       LaserVec z) {
    if (!bf16) {
        laser_store(to, x), laser_store(to + row, y);
        return z + (x + y);
    }
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
    const LaserVec pairs = (LaserVec)_mm512_permutexvar_epi16(order, both);
    laser_store(to, pairs);
    return laser_dot(z, pairs, (LaserVec)((LaserInt){0} + 0x3F803F80)); /* times pairs of 1 */
}
#else
enum { LASER_PAIR = 1 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) { return sum + a * b; }
LASER_INLINE LaserVec laser_bf16(LaserVec x) { /* to nearest, ties to even, in float32; a NaN stays one */
    const LaserInt bits = (LaserInt)x;
    const LaserVec rounded = (LaserVec)(bits + 0x7FFF + ((bits >> 16) & 1)),
                   quiet = (LaserVec)(bits | 0x400000);
    return (LaserVec)((LaserInt)laser_select(x == x, rounded, quiet) & ~0xFFFF);
}
LASER_INLINE void laser_put_along(int bf16, float *to, LaserVec x) {
    laser_store(to, bf16 ? laser_bf16(x) : x);
}
LASER_INLINE LaserVec laser_put_across(int bf16, float *to, ptrdiff_t row, LaserVec x, LaserVec y,
                                       LaserVec z) {
    if (bf16) x = laser_bf16(x), y = laser_bf16(y);
    laser_store(to, x), laser_store(to + row, y);
    return z + (x + y);
}
#endif

#define LASER_LOG2E 1.44269504f
#define LASER_LN2_HIGH 0.693359375f /* nine bits: its product with an integer below 2^15 is exact */
#define LASER_LN2_LOW (-2.12194440e-4f)
#define LASER_ROUND 12582912.0f /* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer */
#define LASER_MASKED (-3e38f)   /* the score of a key that a row does not see */
#define LASER_NEVER 1e9f        /* the key from which on a tame column is wild */

/* x, or the integer nearest to it: beyond 2^22 a float has no fraction worth rounding. */
LASER_INLINE LaserVec laser_whole(LaserVec x) {
    const LaserVec size = (LaserVec)((LaserInt)x & 0x7FFFFFFF);
    return laser_select(size < 4e6f, (x + LASER_ROUND) - LASER_ROUND, x);
}

/* 2^k for an integer k <= 127; 0 where k < -126. */
LASER_INLINE LaserVec laser_pow2(LaserVec k) {
    const LaserVec y = laser_max(k, laser_set(-127)) + (LASER_ROUND + 127); /* its low bits: k + 127 */
    return (LaserVec)((LaserInt)y << 23);
}

/* 2^r - 1 for |r| <= 1/2, relative error 3e-9 before rounding (minimax, by the Remez exchange). */
LASER_INLINE LaserVec laser_exp2m1_poly(LaserVec r) {
    const LaserVec p = (1.559467818e-4f * r + 1.340664390e-3f) * r + 9.617692973e-3f;
    return (((p * r + 5.550310551e-2f) * r + 2.402265278e-1f) * r + 6.931472150e-1f) * r;
}

/* 2^x for x <= 127; 0 far below 2^-126. */
LASER_INLINE LaserVec laser_exp2(LaserVec x) {
#ifdef __AVX512F__
    const LaserVec k = (LaserVec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
    return (LaserVec)_mm512_scalef_ps((__m512)(laser_exp2m1_poly(x - k) + 1), (__m512)k);
#else
    x = laser_max(x, laser_set(-127));
    const LaserVec y = x + (LASER_ROUND + 127); /* its low bits: the integer part + 127 */
    const LaserVec r = x - (y - (LASER_ROUND + 127));
    return (laser_exp2m1_poly(r) + 1) * (LaserVec)((LaserInt)y << 23);
#endif
}

/* exp(x) = (1 + result) * 2^k, k an integer; |x| is cut to 2e6. */
LASER_INLINE LaserVec laser_exp_split(LaserVec x, LaserVec *k) {
    x = laser_max(laser_min(x, laser_set(2e6f)), laser_set(-2e6f));
    *k = (x * LASER_LOG2E + LASER_ROUND) - LASER_ROUND;
    const LaserVec r = (x - *k * LASER_LN2_HIGH) - *k * LASER_LN2_LOW;
    return laser_exp2m1_poly(r * LASER_LOG2E);
}

/* exp(x) * 2^-n, n an integer, and that less 1 where it is asked for, both with all their digits; the power
   of two that scales them is cut to 0 below 2^-126, 2^127 above. */
LASER_INLINE LaserVec laser_exp(LaserVec x, LaserVec n, LaserVec *less_one) {
    LaserVec k;
    const LaserVec p = laser_exp_split(x, &k), power = laser_pow2(laser_min(k - n, laser_set(127)));
    if (!less_one) return (p + 1) * power; /* with one rounding less, where there is fused multiply-add */
    *less_one = p * power + (power - 1);
    return p * power + power;
}

/* log(x * 2^n) for a normal x > 0 and an integer n; something finite for x = 0. */
LASER_INLINE LaserVec laser_log(LaserVec x, LaserVec n) {
    const LaserInt e = ((LaserInt)x - 0x3F3504F3) >> 23; /* x = 2^e m, m in [sqrt(1/2), sqrt(2)) */
    const LaserVec f = (LaserVec)((LaserInt)x - (e << 23)) - 1, s = f / (f + 2), z = s * s;
    n += __builtin_convertvector(e, LaserVec);
    const LaserVec t = ((0.22222222f * z + 0.28571429f) * z + 0.4f) * z + 0.66666667f;
    /* log m = 2 atanh(s) = 2 s + s (2/3 z + 2/5 z^2 + ...), where 2 s = f - s f, and f is exact */
    return n * LASER_LN2_HIGH + (f + (n * LASER_LN2_LOW + s * (z * t - f)));
}

/* ---- Products ---- */

static ptrdiff_t laser_up(ptrdiff_t x, ptrdiff_t unit) { return (x + unit - 1) / unit * unit; }
static ptrdiff_t laser_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t laser_most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* C (rows, columns) = [C [* rescale] +] [weights^T center +] A B, summed over depth: A(r, p) is a[r * a_row +
   p * a_depth], B's row p begins at b + p * ldb. With pair == 2 a float of A, B is two bfloat16 of one sum. */
typedef struct {
    float *c;
    const float *a, *b, *rescale, *weights, *center;
    ptrdiff_t ldc, a_row, a_depth, ldb, rows, columns, depth;
    ptrdiff_t first, last; /* A(r, p) is 0, and need not be there, for p < r + first and for p > r + last */
    int pair, accumulate;
} LaserProduct;

/* ROWS rows and `vecs` vectors of C, in registers. */
LASER_INLINE void laser_kernel(int pair, int vecs, const LaserProduct *p, ptrdiff_t row, ptrdiff_t column,
                               ptrdiff_t a_row, ptrdiff_t a_depth) {
    const ptrdiff_t first = laser_most(0, row + p->first) / pair;
    const ptrdiff_t end = laser_least(p->depth, (row + LASER_ROWS + p->last) / pair);
    const float *a = p->a + row * a_row + first * a_depth, *b = p->b + first * p->ldb + column;
    float *c = p->c + row * p->ldc + column;
    LaserVec sum[LASER_ROWS * LASER_VECS], x[LASER_VECS];
    LASER_UNROLL for (int i = 0; i < LASER_ROWS * vecs; i++) {
        sum[i] = p->accumulate ? laser_load(c + i / vecs * p->ldc + i % vecs * LASER_W) : laser_set(0);
        if (p->rescale) sum[i] *= p->rescale[row + i / vecs];
    }
    if (p->center)
        LASER_UNROLL for (int i = 0; i < LASER_ROWS * vecs; i++) sum[i] +=
            p->weights[row + i / vecs] * laser_load(p->center + column + i % vecs * LASER_W);
    _Pragma("GCC unroll 2") for (ptrdiff_t n = end - first; n > 0; n--, a += a_depth, b += p->ldb) {
        LASER_UNROLL for (int v = 0; v < vecs; v++) x[v] = laser_load(b + v * LASER_W);
        LASER_UNROLL for (int i = 0; i < LASER_ROWS * vecs; i++) {
            const LaserVec y = laser_set(a[i / vecs * a_row]);
            sum[i] = pair == 2 ? laser_dot(sum[i], y, x[i % vecs]) : sum[i] + y * x[i % vecs];
        }
    }
    LASER_UNROLL for (int i = 0; i < LASER_ROWS * vecs; i++)
        laser_store(c + i / vecs * p->ldc + i % vecs * LASER_W, sum[i]);
}

/* Whole vectors and whole ROWS: what C has beyond its rows and columns is written too. The strides that are
   1 are spelled out, for the kernel's addresses. */
LASER_INLINE void laser_product_of(int pair, const LaserProduct *p) {
    for (ptrdiff_t column = 0; column < p->columns; column += LASER_LANES)
        for (ptrdiff_t row = 0; row < p->rows; row += LASER_ROWS)
            if (p->columns - column <= LASER_W)
                laser_kernel(pair, 1, p, row, column, p->a_row, p->a_depth);
            else if (p->a_row == 1)
                laser_kernel(pair, LASER_VECS, p, row, column, 1, p->a_depth);
            else
                laser_kernel(pair, LASER_VECS, p, row, column, p->a_row, 1);
}

static void laser_product(LaserProduct p) { p.pair == 2 ? laser_product_of(2, &p) : laser_product_of(1, &p); }

/* ---- A call, a head, a thread: sizes and memory ---- */

/* The sizes of one call, and the caller's arrays. With pair == 2 a float of a packed operand holds two
   bfloat16, neighbours in the dimension that the product sums over: "along" a row of D, `units` floats a row,
   or "across" two rows, `stride` = 2 `units` for both. With pair == 1 both forms of a matrix are the same. */
typedef struct {
    const AttentionShape *shape;
    const float *q, *k, *v, *out, *dout, *lse;
    float *new_out, *new_lse, *dq, *dk, *dv;
    ptrdiff_t T, D, heads, threads, flight; /* flight: heads worked on at a time */
    ptrdiff_t tiles, rows, panels;          /* of TILE rows; T rounded up to whole ones; of LANES queries */
    ptrdiff_t stride, units;                /* D rounded up for whole vectors, and what that is in pairs */
    ptrdiff_t in_token, out_token;          /* the caller's strides from token to token */
    ptrdiff_t head_size, work_size;         /* floats of the arrays of a LaserHead, a LaserWork */
    size_t bytes;                           /* of all of them */
    ptrdiff_t parts, part[9]; /* into which backward cuts the tiles of a head, where they begin */
    float scale, scale_log2e;
    int backward, laser, causal, bf16, pair; /* pair: numbers in a float of a packed operand */
} LaserCall;

/* A head: where it begins in the caller's arrays, and what is packed of it; shapes: laser_carve_head. */
typedef struct __attribute__((aligned(64))) {
    ptrdiff_t in, out, row;
    float *shift, *floor, *wild, *center, *exact, *k_along, *k_across, *v;
    float *q_panels, *g_panels, *q_across, *g_across, *row_shift, *row_term, *dq_parts;
    float *wild_g, *wild_shift; /* (D, rows) backward, of wild columns: do_id / sum, and the sum's shift */
    float wild_from;            /* the first wild key of all columns */
} LaserHead;

/* One thread's buffers; shapes of the others: laser_carve_work. */
typedef struct __attribute__((aligned(64))) {
    float score[LASER_TILE * LASER_LANES], slope[LASER_TILE * LASER_LANES];      /* log2(e) s; dP */
    float weight[LASER_TILE * LASER_LANES], ds_across[LASER_TILE * LASER_LANES]; /* a and dS, over keys */
    float a_along[LASER_TILE * LASER_TILE], ds_along[LASER_TILE * LASER_TILE];   /* the same over queries */
    float row_shift[LASER_LANES], rescale[LASER_LANES], row_sum[LASER_LANES];    /* K_i; sum of a */
    float row_weight[LASER_LANES], tile_weight[LASER_LANES]; /* sum of a as rounded; one tile's part of it */
    float *tile, *other, *query, *sum, *dk, *dv, *v, *wild_sum, *wild_shift;
} LaserWork;

/* The next `count` floats of memory m; NULL: they are only counted. */
static float *laser_cut(float *m, ptrdiff_t *used, ptrdiff_t count) {
    const ptrdiff_t at = *used;
    *used += laser_up(count, 16);
    return m ? m + at : NULL;
}

/* Makes h the caller's head `head`, and cuts its arrays off the memory m; returns the floats of them all. */
static ptrdiff_t laser_carve_head(const LaserCall *c, LaserHead *h, ptrdiff_t head, float *m) {
    const ptrdiff_t back = c->backward, centered = !back && c->laser && c->bf16;
    const ptrdiff_t packed = c->rows * c->units;
    ptrdiff_t used = 0;
    h->shift = laser_cut(m, &used, c->stride); /* n_d; backward: m_d */
    h->wild = laser_cut(m, &used, c->stride);  /* a column's first wild key; backward: all are, 0, or none */
    h->floor = laser_cut(m, &used, back * c->stride);                 /* the paper's shift: the least o */
    h->center = laser_cut(m, &used, centered * c->tiles * c->stride); /* what V' of a tile lies around */
    h->exact = laser_cut(m, &used, centered * c->rows * c->stride);   /* V' in float32 */
    h->k_along = laser_cut(m, &used, packed);
    h->k_across = c->pair == 1 ? h->k_along : laser_cut(m, &used, back * packed);
    h->v = laser_cut(m, &used, !back * packed);       /* V, or V' less its center, across */
    h->q_panels = laser_cut(m, &used, back * packed); /* (panels, units, LANES): along, transposed */
    h->g_panels = laser_cut(m, &used, back * packed); /* the same of dO' / sum of a row */
    h->q_across = laser_cut(m, &used, back * packed);
    h->g_across = laser_cut(m, &used, back * packed);
    h->row_shift = laser_cut(m, &used, back * c->rows); /* K_i */
    h->row_term = laser_cut(m, &used, back * c->rows);  /* what is subtracted from dP */
    h->dq_parts = laser_cut(m, &used, back * c->parts * c->rows * c->stride);
    h->in = laser_at(c->shape, c->shape->qkv_strides, head, 0);
    h->out = laser_at(c->shape, c->shape->out_strides, head, 0);
    h->row = head * c->T, h->wild_from = LASER_NEVER;
    return used;
}

/* The same for a thread's buffers. */
static ptrdiff_t laser_carve_work(const LaserCall *c, LaserWork *w, float *m) {
    ptrdiff_t used = 0;
    w->tile = laser_cut(m, &used, LASER_TILE * c->stride); /* rows on the way to being packed */
    w->other = laser_cut(m, &used, LASER_TILE * c->stride);
    w->query = laser_cut(m, &used, LASER_LANES * c->units); /* a panel */
    w->sum = laser_cut(m, &used, LASER_LANES * c->stride);  /* o of a panel */
    w->dk = laser_cut(m, &used, LASER_TILE * c->stride);
    w->dv = laser_cut(m, &used, LASER_TILE * c->stride);
    w->v = laser_cut(m, &used,
                     c->backward * LASER_TILE * c->units); /* backward: V, or V' less its center, along */
    w->wild_sum = laser_cut(m, &used, c->D * LASER_LANES); /* sums of exp(s + v) 2^-shift */
    w->wild_shift = laser_cut(m, &used, c->D * LASER_LANES);
    return used;
}

static LaserCall laser_call(const AttentionShape *s, int backward) {
    if (s->batch < 1 || s->seq_len < 1 || s->heads < 1 || s->head_dim < 1)
        LASER_FAIL("attention: batch, seq_len, heads and head_dim must be at least 1");
    LaserCall c = {
        .shape = s, .T = s->seq_len, .D = s->head_dim, .threads = LASER_THREADS, .backward = backward};
    LaserHead head;
    LaserWork work;
    c.heads = (ptrdiff_t)s->batch * s->heads, c.flight = laser_least(c.threads, c.heads);
    c.laser = s->kind == ATTENTION_LASER, c.causal = s->shift == LASER_SHIFT_CAUSAL;
    c.bf16 = s->precision == ATTENTION_BF16, c.pair = c.bf16 ? LASER_PAIR : 1;
    c.scale = (float)laser_scale(s), c.scale_log2e = (float)(laser_scale(s) * 1.4426950408889634);
    c.rows = laser_up(c.T, LASER_TILE), c.tiles = c.rows / LASER_TILE;
    c.panels = laser_up(c.T, LASER_LANES) / LASER_LANES;
    c.stride = laser_up(c.D, LASER_W * c.pair), c.units = c.stride / c.pair;
    c.in_token = s->qkv_strides[1], c.out_token = s->out_strides[1];
    /* few heads: 64 parts for the threads, equal areas under the diagonal; from the shape alone, for the bits */
    c.parts = laser_least(laser_least(64 / c.heads, c.T / 256), 8);
    c.parts += c.parts == 0;
    for (int i = 0; i <= c.parts; i++)
        c.part[i] = (ptrdiff_t)((double)c.tiles * (1 - sqrt(1 - (double)i / (double)c.parts)) + 0.5);
    c.head_size = laser_carve_head(&c, &head, 0, NULL), c.work_size = laser_carve_work(&c, &work, NULL);
    c.bytes = (size_t)c.flight * (sizeof head + (size_t)c.head_size * sizeof(float)) +
              (size_t)c.threads * (sizeof work + (size_t)c.work_size * sizeof(float)) + 64;
    return c;
}

LASER_API size_t attention_memory(const AttentionShape *shape, int backward) {
    return laser_call(shape, backward).bytes;
}

/* C (n, LANES) = A B over d: A (n, units) along, B a panel (units, LANES). */
static void laser_over_d(const LaserCall *c, float *C, const float *A, const float *B, ptrdiff_t n) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = n, .columns = LASER_LANES, .pair = c->pair};
    p.ldc = p.ldb = LASER_LANES, p.a_row = c->units, p.a_depth = 1, p.depth = (c->D + c->pair - 1) / c->pair;
    p.first = -n, p.last = c->D; /* nothing is left out */
    laser_product(p);
}

/* C (LANES, D) = [C +] A^T B over tokens: A (tokens, LANES) and B (tokens, stride) across. */
static LaserProduct laser_over_tokens(const LaserCall *c, float *C, const float *A, const float *B,
                                      ptrdiff_t tokens, ptrdiff_t diagonal, int accumulate) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = LASER_LANES, .columns = laser_up(c->D, LASER_W)};
    p.ldc = p.ldb = c->stride, p.a_row = 1, p.a_depth = LASER_LANES, p.depth = tokens / c->pair;
    p.pair = c->pair, p.accumulate = accumulate, p.first = -LASER_LANES, p.last = diagonal;
    return p;
}

/* ---- Packing ---- */

/* Rows of D floats: whole vectors, with zeros beyond D. */
typedef struct {
    const float *at;
    ptrdiff_t step;
} LaserRows;

/* Asks for the row that lies `ahead` floats behind this one. Rows may lie pages apart, where no hardware prefetch
   follows; into the second-level cache, since in the first such rows drive each other out. */
LASER_INLINE void laser_fetch(const LaserCall *c, const float *row, ptrdiff_t ahead) {
    const char *x = (const char *)((uintptr_t)row + (uintptr_t)ahead * sizeof *row);
    for (ptrdiff_t d = 0; d < c->D; d += 16) __builtin_prefetch(x + d * (ptrdiff_t)sizeof *row, 0, 2);
}

/* Rows first .. first + count - 1 of the caller's, where they are; or copied, with zeros for what is not there. */
static LaserRows laser_read_rows(const LaserCall *c, float *copy, const float *x, ptrdiff_t step,
                                 ptrdiff_t first, ptrdiff_t count) {
    if (c->stride == c->D && first + count <= c->T) return (LaserRows){x + first * step, step};
    for (ptrdiff_t t = first; t < first + count; t++) {
        const ptrdiff_t inside = t < c->T ? c->D : 0;
        float *to = copy + (t - first) * c->stride;
        if (inside) memcpy(to, x + t * step, (size_t)inside * sizeof *x);
        memset(to + inside, 0, (size_t)(c->stride - inside) * sizeof *x);
    }
    return (LaserRows){copy, c->stride};
}

/* The way back: those of the rows that the caller has. Whole lines go past the caches, which would fetch first
   what is overwritten here. */
static void laser_write_rows(const LaserCall *c, float *x, ptrdiff_t step, ptrdiff_t first, ptrdiff_t count,
                             const float *rows) {
    for (ptrdiff_t t = first; t < laser_least(first + count, c->T); t++, rows += c->stride) {
        float *to = x + t * step;
        const ptrdiff_t lines = (uintptr_t)to % 64 ? 0 : c->D / 16 * 16;
        for (ptrdiff_t d = 0; d < lines; d += LASER_W) LASER_STREAM(to + d, laser_load(rows + d));
        for (ptrdiff_t d = lines; d < c->D; d++) to[d] = rows[d];
    }
}

/* `count` rows, packed along them, times `scale`. */
static void laser_pack_along(const LaserCall *c, float *to, LaserRows x, ptrdiff_t count, float scale) {
    for (; count > 0; count--, x.at += x.step, to += c->units) {
        laser_fetch(c, x.at, LASER_AHEAD * x.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W)
            laser_put_along(c->bf16, to + d / c->pair, laser_load(x.at + d) * scale);
    }
}

/* The same across them, an even number. */
static void laser_pack_across(const LaserCall *c, float *to, LaserRows x, ptrdiff_t count) {
    for (; count > 0; count -= 2, x.at += 2 * x.step, to += c->pair == 2 ? c->stride : 2 * c->stride) {
        laser_fetch(c, x.at, LASER_AHEAD * x.step), laser_fetch(c, x.at + x.step, LASER_AHEAD * x.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec a = laser_load(x.at + d), b = laser_load(x.at + x.step + d);
            laser_put_across(c->bf16, to + d, c->stride, a, b, a);
        }
    }
}

/* A panel of queries, packed along d, times `scale`, and transposed: (units, LANES); spoils `spare`. */
static void laser_pack_panel(const LaserCall *c, float *to, LaserRows x, float scale, float *spare) {
    laser_pack_along(c, spare, x, LASER_LANES, scale);
    for (ptrdiff_t i = 0; i < LASER_LANES; i += LASER_W)
        for (ptrdiff_t u = 0; u < c->units; u += LASER_W) {
            LaserVec v[LASER_W], y[LASER_W];
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) v[r] = laser_load(spare + (i + r) * c->units + u);
            LASER_UNROLL for (int deal = 1; deal < LASER_W; deal *= 2) { /* cards: log2(W) perfect shuffles */
                LASER_UNROLL for (int r = 0; r < LASER_W / 2; r++) {
                    y[2 * r] = LASER_SHUFFLE(v[r], v[r + LASER_W / 2], LASER_DEAL_LOW);
                    y[2 * r + 1] = LASER_SHUFFLE(v[r], v[r + LASER_W / 2], LASER_DEAL_HIGH);
                }
                LASER_UNROLL for (int r = 0; r < LASER_W; r++) v[r] = y[r];
            }
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) laser_store(to + (u + r) * LASER_LANES + i, v[r]);
        }
}

/* ---- Wild columns: each a softmax of its own, over s_ij + v_jd ---- */

/* log2(e) v of a column as an integer and the rest. */
static void laser_wild_values(const LaserCall *c, const LaserHead *h, float *whole, float *rest,
                              ptrdiff_t key, ptrdiff_t keys, ptrdiff_t d) {
    for (ptrdiff_t j = 0; j < keys; j++) {
        const ptrdiff_t t = laser_least(key + j, c->T - 1); /* beyond T no query sees the key */
        const double y = c->v[h->in + t * c->in_token + d] * 1.4426950408889634;
        whole[j] = (float)rint(y), rest[j] = (float)(y - rint(y));
    }
}

/* exp(s + v) 2^-shift of a key and W queries, from log2(e) s; the integers are added apart, so that no digits
   of what is left of s and v are lost. */
LASER_INLINE LaserVec laser_wild_power(const float *score, float whole, float rest, LaserVec shift) {
    const LaserVec s = laser_load(score), k = laser_whole(s);
    return laser_exp2(((k + whole) - shift) + ((s - k) + rest));
}

/* Adds a tile of keys to the sums of the columns that are wild before row `end`, moving their shifts. */
static void laser_wild_sum(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                           ptrdiff_t keys, ptrdiff_t end) {
    float whole[LASER_TILE], rest[LASER_TILE];
    for (ptrdiff_t d = 0; d < c->D; d++) {
        if (h->wild[d] >= (float)end) continue;
        laser_wild_values(c, h, whole, rest, key, keys, d);
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *at = w->wild_sum + d * LASER_LANES + x, *at_shift = w->wild_shift + d * LASER_LANES + x;
            const float *score = w->score + x;
            const LaserVec old = laser_load(at_shift);
            LaserVec shift = old;
            for (ptrdiff_t j = 0; j < keys; j++)
                shift = laser_max(shift, laser_whole(laser_load(score + j * LASER_LANES)) + whole[j]);
            LaserVec sum = laser_load(at) * laser_pow2(old - shift);
            for (ptrdiff_t j = 0; j < keys; j++)
                sum += laser_wild_power(score + j * LASER_LANES, whole[j], rest[j], shift);
            laser_store(at, sum), laser_store(at_shift, shift);
        }
    }
}

/* ---- Steps 1 and 2, of forward and backward: columns; keys and values ---- */

/* Step 1: what scales each column of V; backward: which columns are wild. */
static void laser_scan_columns(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t first) {
    const ptrdiff_t end = c->backward || !c->causal ? c->T : 1;
    float *low = w->other, *high = low + c->stride;
    for (ptrdiff_t d = 0; d < c->stride; d++) low[d] = 3e38f, high[d] = -3e38f;
    for (ptrdiff_t t = first; t < end; t++) {
        const LaserRows x = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, t, 1);
        laser_fetch(c, x.at, LASER_AHEAD * c->in_token);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec y = laser_load(x.at + d);
            laser_store(low + d, laser_min(laser_load(low + d), y));
            laser_store(high + d, laser_max(laser_load(high + d), y));
        }
    }
    const float *v = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, first, 1).at;
    for (ptrdiff_t d = 0; d < c->stride; d++) {
        const double n = fmax(-2e6, fmin(2e6, c->causal ? v[d] : high[d])) * 1.4426950408889634;
        h->shift[d] = (float)(c->causal ? rint(n) : ceil(n)), h->wild[d] = LASER_NEVER;
        if (!c->backward) continue;
        h->floor[d] = c->causal ? -3e38f : laser_log(laser_set(0x1p-100f), laser_set(h->shift[d]))[0];
        h->shift[d] = fminf(0.5f * low[d] + 0.5f * high[d], low[d] + 1);
        if (!c->causal) h->shift[d] = fmaxf(h->shift[d], high[d] - 69);
        const int wild = c->causal && !(high[d] - low[d] <= 64 && high[d] < 128 && low[d] > -128);
        if (wild) h->shift[d] = -1e30f; /* so that exp(m - o) is 0 */
        if (wild) h->wild[d] = h->wild_from = 0;
    }
    if (h->wild_from > 0 || h->wild_g) return;
    h->wild_g = laser_malloc(2 * (size_t)(c->D * c->rows) * sizeof(float));
    h->wild_shift = h->wild_g + c->D * c->rows;
}

/* V' = exp(v) 2^-n into w->tile; bf16: less its center. Notes the first wild key of a column. */
static LaserRows laser_exp_tile(const LaserCall *c, LaserHead *h, LaserWork *w, LaserRows v, ptrdiff_t tile) {
    for (ptrdiff_t j = 0; j < LASER_TILE; j++) laser_fetch(c, v.at + j * v.step, 0);
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        const LaserVec n = laser_load(h->shift + d);
        LaserVec low = laser_set(3e38f), high = laser_set(0), wild = laser_set(LASER_NEVER);
        for (ptrdiff_t j = LASER_TILE - 1; j >= 0; j--) {
            const LaserVec x = laser_load(v.at + j * v.step + d), y = x * LASER_LOG2E - n;
            const LaserVec e = laser_exp(x, n, NULL);
            const LaserInt far = (y > 58) | (y < -58); /* 40 log2(e) */
            if (c->causal) wild = laser_select(far, laser_set((float)(tile * LASER_TILE + j)), wild);
            low = laser_min(low, e), high = laser_max(high, e);
            laser_store(w->tile + j * c->stride + d, e);
        }
        for (int i = 0; i < LASER_W; i++)
            if (wild[i] < LASER_NEVER) LASER_OMP(omp critical(laser)) {
                    h->wild[d + i] = fminf(h->wild[d + i], wild[i]);
                    h->wild_from = fminf(h->wild_from, wild[i]);
                }
        if (!c->bf16) continue;
        const LaserVec center = laser_min((low + high) * 0.5f, low * 2.7f);
        laser_store(h->center + tile * c->stride + d, center);
        for (ptrdiff_t at = d; at < LASER_TILE * c->stride; at += c->stride) {
            laser_store(h->exact + tile * LASER_TILE * c->stride + at, laser_load(w->tile + at));
            laser_store(w->tile + at, laser_load(w->tile + at) - center);
        }
    }
    return (LaserRows){w->tile, c->stride};
}

/* Step 2: packs a tile of keys, and in forward of values. */
static void laser_pack_keys(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    const ptrdiff_t key = tile * LASER_TILE, packed = key * c->units;
    LaserRows x = laser_read_rows(c, w->tile, c->k + h->in, c->in_token, key, LASER_TILE);
    laser_pack_along(c, h->k_along + packed, x, LASER_TILE, 1);
    if (c->backward && c->pair == 2) laser_pack_across(c, h->k_across + packed, x, LASER_TILE);
    if (c->backward) return;
    x = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, key, LASER_TILE);
    if (c->laser) x = laser_exp_tile(c, h, w, x, tile);
    laser_pack_across(c, h->v + packed, x, LASER_TILE);
}

/* ---- Forward ---- */

/* Marks the scores of keys that a query does not see. */
static void laser_mask(float *score, ptrdiff_t key, ptrdiff_t keys, ptrdiff_t query) {
    for (ptrdiff_t j = query > key ? query - key : 0; j < keys; j++)
        for (ptrdiff_t i = 0; i < LASER_LANES && query + i < key + j; i++)
            score[j * LASER_LANES + i] = LASER_MASKED;
}

/* One step of the online softmax: moves the row shifts to a tile of scores, the sums with them; makes weights
   of the scores, an operand of the product with V, and adds them to the sums. */
LASER_INLINE void laser_weigh(LaserWork *w, ptrdiff_t keys, int bf16) {
    const int pair = bf16 ? LASER_PAIR : 1;
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        LaserVec top = laser_load(w->score + x), odd = top; /* two chains of maxima are faster than one */
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            top = laser_max(top, laser_load(w->score + j * LASER_LANES + x));
            odd = laser_max(odd, laser_load(w->score + (j + 1) * LASER_LANES + x));
        }
        const LaserVec old = laser_load(w->row_shift + x);
        const LaserVec K = laser_max(old, laser_whole(laser_max(top, odd))), scale = laser_pow2(old - K);
        LaserVec sum = laser_set(0), weight = sum;
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            const float *s = w->score + j * LASER_LANES + x;
            const LaserVec a = laser_exp2(laser_load(s) - K), b = laser_exp2(laser_load(s + LASER_LANES) - K);
            float *to = w->weight + j / pair * LASER_LANES + x;
            sum += a + b, weight = laser_put_across(bf16, to, LASER_LANES, a, b, weight);
        }
        laser_store(w->row_shift + x, K), laser_store(w->rescale + x, scale);
        laser_store(w->tile_weight + x, weight);
        laser_store(w->row_sum + x, laser_load(w->row_sum + x) * scale + sum);
        laser_store(w->row_weight + x, laser_load(w->row_weight + x) * scale + weight);
    }
}

/* Goes over the keys of a panel of queries, q packed: leaves K_i, the sums of the weights and of the wild
   columns, and in forward the sums of a V. */
static void laser_rows(const LaserCall *c, const LaserHead *h, LaserWork *w, const float *q,
                       ptrdiff_t query) {
    const ptrdiff_t end = query + LASER_LANES;
    for (int i = 0; i < LASER_LANES; i++)
        w->row_shift[i] = LASER_MASKED, w->row_sum[i] = w->row_weight[i] = 0;
    for (ptrdiff_t i = 0; h->wild_from < (float)end && i < c->D * LASER_LANES; i++)
        w->wild_sum[i] = 0, w->wild_shift[i] = LASER_MASKED;
    const int centered = c->laser && c->bf16 && !c->backward;
    for (ptrdiff_t key = 0; key < end; key += LASER_TILE) {
        /* What hangs on all values of a tile, as its center does, must not reach a row that does not see
           all of it: so bf16 LASER sums the last tile as it is, in float32. */
        const ptrdiff_t keys = laser_least(LASER_TILE, end - key), behind = query - key;
        const int exact = centered && key + LASER_TILE >= end;
        laser_over_d(c, w->score, h->k_along + key * c->units, q, keys);
        laser_mask(w->score, key, keys, query);
        if (h->wild_from < (float)end) laser_wild_sum(c, h, w, key, keys, end);
        exact || !c->bf16 ? laser_weigh(w, keys, 0) : laser_weigh(w, keys, 1);
        if (c->backward) continue;
        const float *v = h->v + key * c->units;
        LaserProduct p = laser_over_tokens(c, w->sum, w->weight, v, keys, behind, key > 0);
        p.rescale = key > 0 ? w->rescale : NULL;
        if (exact)
            p.b = h->exact + key * c->stride, p.depth = keys, p.pair = 1;
        else if (centered)
            p.center = h->center + key / LASER_TILE * c->stride, p.weights = w->tile_weight;
        laser_product(p);
    }
}

/* o of a panel from its sums, in place: divided by the weights; LASER: the logarithm. */
static void laser_normalise(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t query) {
    for (ptrdiff_t i = 0; i < LASER_LANES; i++) {
        const float inverse = 1 / w->row_weight[i];
        for (ptrdiff_t d = 0; d < c->D; d += LASER_W) {
            float *o = w->sum + i * c->stride + d;
            LaserVec value = laser_load(o) * inverse;
            if (c->laser && !c->causal) value = laser_max(value, laser_set(0x1p-100f));
            laser_store(o, c->laser ? laser_log(value, laser_load(h->shift + d)) : value);
        }
    }
    for (ptrdiff_t d = 0; h->wild_from < (float)(query + LASER_LANES) && d < c->D; d++)
        for (ptrdiff_t x = 0; x < LASER_LANES; x += LASER_W) {
            const LaserVec sum = laser_load(w->wild_sum + d * LASER_LANES + x) / laser_load(w->row_sum + x);
            const LaserVec shift = laser_load(w->wild_shift + d * LASER_LANES + x);
            const LaserVec value = laser_log(sum, shift - laser_load(w->row_shift + x));
            for (ptrdiff_t i = 0; i < LASER_W; i++) /* the rows that see what makes it wild */
                if ((float)(query + x + i) >= h->wild[d]) w->sum[(x + i) * c->stride + d] = value[i];
        }
}

/* Step 3: a panel of queries. */
static void laser_forward_panel(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES, count = laser_least(LASER_LANES, c->T - query);
    const LaserRows q = laser_read_rows(c, w->tile, c->q + h->in, c->in_token, query, LASER_LANES);
    laser_pack_panel(c, w->query, q, c->scale_log2e, w->other);
    laser_rows(c, h, w, w->query, query);
    laser_normalise(c, h, w, query);
    laser_write_rows(c, c->new_out + h->out, c->out_token, query, LASER_LANES, w->sum);
    for (int x = 0; x < LASER_LANES; x += LASER_W)
        laser_store(w->row_sum + x, laser_log(laser_load(w->row_sum + x), laser_load(w->row_shift + x)));
    if (c->new_lse) memcpy(c->new_lse + h->row + query, w->row_sum, (size_t)count * sizeof(float));
}

/* ---- Backward ---- */

/* K_i and 1 / (sum of row i), into w->row_shift and w->row_sum: from lse, but where lse in float32 has too
   few digits left, or a column is wild, by summing again. */
static void laser_row_sums(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t query) {
    int again = h->wild_from == 0;
    for (int i = 0; i < LASER_LANES; i++) {
        w->row_sum[i] = query + i < c->T ? -c->lse[h->row + query + i] : 0;
        again |= fabsf(w->row_sum[i]) > 64;
    }
    if (again) laser_rows(c, h, w, h->q_panels + query * c->units, query);
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        LaserVec k, sum = laser_load(w->row_sum + x);
        const LaserVec inverse = laser_exp_split(sum, &k) + 1; /* exp(-lse) = 1 / sum * 2^-K */
        laser_store(w->row_sum + x, again ? 1 / sum : inverse);
        if (!again) laser_store(w->row_shift + x, -k);
    }
}

/* dO' / sum of a row into `to`; returns the row term before it is divided by the sum: standard sum_d
   do o; LASER, V' being packed less its center: sum_d do (1 - exp(m - o)), of a wild column do. */
static float laser_row_gradient(const LaserCall *c, const LaserHead *h, float *to, const float *dout,
                                const float *out, float inverse) {
    LaserVec row = laser_set(0);
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        LaserVec g = laser_load(dout + d), o = laser_load(out + d), expm1;
        if (!c->laser) {
            row += g * o;
        } else {
            g = laser_select(o > laser_load(h->floor + d), g, laser_set(0)); /* the floor passes none */
            const LaserVec exp = laser_exp(laser_load(h->shift + d) - o, laser_set(0), &expm1);
            row -= g * expm1, g *= exp;
        }
        laser_store(to + d, g * inverse);
    }
    float total = 0;
    for (int x = 0; x < LASER_W; x++) total += row[x];
    return total;
}

/* Step 3: packs a panel of queries and of gradients, with dS's factor `scale`. */
static void laser_pack_queries(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES, packed = query * c->units;
    const LaserRows q = laser_read_rows(c, w->tile, c->q + h->in, c->in_token, query, LASER_LANES);
    laser_pack_panel(c, h->q_panels + packed, q, c->scale_log2e, w->other);
    laser_pack_across(c, h->q_across + packed, q, LASER_LANES);
    laser_row_sums(c, h, w, query);
    memcpy(h->row_shift + query, w->row_shift, LASER_LANES * sizeof(float));
    const LaserRows out = laser_read_rows(c, w->tile, c->out + h->out, c->out_token, query, LASER_LANES);
    const LaserRows dout = laser_read_rows(c, w->other, c->dout + h->out, c->out_token, query, LASER_LANES);
    for (int i = 0; i < LASER_LANES; i++) {
        const float *g = dout.at + i * dout.step, *o = out.at + i * out.step;
        laser_fetch(c, g, LASER_AHEAD * dout.step), laser_fetch(c, o, LASER_AHEAD * out.step);
        for (ptrdiff_t d = 0; h->wild_from == 0 && d < c->D; d++) {
            h->wild_g[d * c->rows + query + i] = g[d] / w->wild_sum[d * LASER_LANES + i];
            h->wild_shift[d * c->rows + query + i] = w->wild_shift[d * LASER_LANES + i];
        }
        const float row = laser_row_gradient(c, h, w->other + i * c->stride, g, o, w->row_sum[i]);
        h->row_term[query + i] = row * w->row_sum[i] * c->scale;
    }
    const LaserRows g = {w->other, c->stride};
    laser_pack_across(c, h->g_across + packed, g, LASER_LANES);
    laser_pack_panel(c, h->g_panels + packed, g, c->scale, w->tile);
}

/* do_id p_ijd of the wild columns: summed over them into w->weight, for dS; over the queries into dv. */
static void laser_wild_gradient(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                                ptrdiff_t keys, ptrdiff_t query) {
    float whole[LASER_TILE], rest[LASER_TILE];
    memset(w->weight, 0, sizeof w->weight);
    for (ptrdiff_t d = 0; d < c->D; d++) {
        if (h->wild[d] > 0) continue;
        laser_wild_values(c, h, whole, rest, key, keys, d);
        for (ptrdiff_t j = 0; j < keys; j++)
            for (int x = 0; x < LASER_LANES; x += LASER_W) {
                const ptrdiff_t at = j * LASER_LANES + x, row = d * c->rows + query + x;
                const LaserVec shift = laser_load(h->wild_shift + row);
                const LaserVec p = laser_wild_power(w->score + at, whole[j], rest[j], shift);
                const LaserVec g = laser_load(h->wild_g + row) * p;
                laser_store(w->weight + at, laser_load(w->weight + at) + g * c->scale);
                for (int i = 0; i < LASER_W; i++) w->dv[j * c->stride + d] += g[i];
            }
    }
}

/* Scores and dP of a panel into a and dS = a (dP - term) [+ more], packed for the products that follow. */
LASER_INLINE void laser_slopes(const LaserHead *h, LaserWork *w, ptrdiff_t query, ptrdiff_t keys,
                               const float *more, int bf16) {
    const int pair = bf16 ? LASER_PAIR : 1, lda = LASER_TILE / pair;
    for (ptrdiff_t x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec K = laser_load(h->row_shift + query + x), term = laser_load(h->row_term + query + x);
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            LaserVec ds[2];
            LASER_UNROLL for (int n = 0; n < 2; n++) {
                const ptrdiff_t from = (j + n) * LASER_LANES + x;
                const ptrdiff_t to = (j + n) * lda + (query % LASER_TILE + x) / pair;
                const LaserVec a = laser_exp2(laser_load(w->score + from) - K);
                ds[n] = a * (laser_load(w->slope + from) - term);
                if (more) ds[n] += laser_load(more + from);
                laser_put_along(bf16, w->a_along + to, a);
                laser_put_along(bf16, w->ds_along + to, ds[n]);
            }
            float *across = w->ds_across + j / pair * LASER_LANES + x;
            laser_put_across(bf16, across, LASER_LANES, ds[0], ds[1], ds[0]);
        }
    }
}

/* A panel of queries against the keys of a tile that it sees: its columns of a and dS, and its dq. */
static void laser_backward_panel(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                 ptrdiff_t key, ptrdiff_t query, int accumulate) {
    const ptrdiff_t keys = laser_least(LASER_TILE, query + LASER_LANES - key);
    const ptrdiff_t k = key * c->units, q = query * c->units;
    laser_over_d(c, w->score, h->k_along + k, h->q_panels + q, keys);
    laser_over_d(c, w->slope, w->v, h->g_panels + q, keys);
    laser_mask(w->score, key, keys, query);
    if (h->wild_from == 0) laser_wild_gradient(c, h, w, key, keys, query);
    if (query == 0 && key == 0) w->slope[0] = h->row_term[0], w->weight[0] = 0; /* row 0: one key, dS = 0 */
    const float *more = h->wild_from == 0 ? w->weight : NULL;
    c->bf16 ? laser_slopes(h, w, query, keys, more, 1) : laser_slopes(h, w, query, keys, more, 0);
    laser_product(laser_over_tokens(c, dq, w->ds_across, h->k_across + k, keys, query - key, accumulate));
}

/* Packs a tile of values; LASER: exp(v - m) - 1, and 0 in wild columns, which take no part in the products.
   Leaves what makes dV of dV' in w->tile: exp(v - m), in wild columns 1. */
static void laser_pack_values(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key) {
    const LaserRows v = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, key, LASER_TILE);
    if (!c->laser) laser_pack_along(c, w->v, v, LASER_TILE, 1);
    for (ptrdiff_t j = 0; c->laser && j < LASER_TILE; j++) {
        laser_fetch(c, v.at + j * v.step, LASER_AHEAD * v.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserInt tame = laser_load(h->wild + d) > 0;
            LaserVec expm1, x = laser_load(v.at + j * v.step + d) - laser_load(h->shift + d);
            x = laser_exp(x, laser_set(0), &expm1);
            laser_store(w->tile + j * c->stride + d, laser_select(tame, x, laser_set(1)));
            laser_put_along(c->bf16, w->v + j * c->units + d / c->pair,
                            laser_select(tame, expm1, laser_set(0)));
        }
    }
}

/* dk and dv of a tile of keys, and what they add to dq (rows, stride). */
static void laser_backward_tile(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                ptrdiff_t key, int accumulate) {
    const ptrdiff_t keys = laser_least(LASER_TILE, c->T - key);
    laser_pack_values(c, h, w, key);
    memset(w->dv, 0, (size_t)(LASER_TILE * c->stride) * sizeof(float));
    for (ptrdiff_t first = key; first < c->T; first += LASER_TILE) {
        const ptrdiff_t end = laser_least(first + LASER_TILE, c->panels * LASER_LANES);
        for (ptrdiff_t query = first; query < end; query += LASER_LANES)
            laser_backward_panel(c, h, w, dq + query * c->stride, key, query, accumulate);
        LaserProduct p = laser_over_tokens(c, w->dv, w->a_along, h->g_across + first * c->units, end - first,
                                           LASER_TILE, 1);
        p.rows = keys, p.a_row = LASER_TILE / c->pair, p.a_depth = 1, p.first = key - first;
        laser_product(p);
        p.c = w->dk, p.a = w->ds_along, p.b = h->q_across + first * c->units, p.accumulate = first > key;
        laser_product(p);
    }
    for (ptrdiff_t i = 0; c->laser && i < keys * c->stride; i += LASER_W)
        laser_store(w->dv + i, laser_load(w->dv + i) * laser_load(w->tile + i));
    laser_write_rows(c, c->dk + h->in, c->in_token, key, keys, w->dk);
    laser_write_rows(c, c->dv + h->in, c->in_token, key, keys, w->dv);
}

/* Step 4: the keys of one part of a head. */
static void laser_backward_part(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t part) {
    float *dq = h->dq_parts + part * c->rows * c->stride;
    for (ptrdiff_t tile = c->part[part]; tile < c->part[part + 1]; tile++)
        laser_backward_tile(c, h, w, dq, tile * LASER_TILE, tile > c->part[part]);
}

/* Step 5: dq of a panel: its parts, summed in order. */
static void laser_write_queries(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    (void)w;
    const ptrdiff_t query = panel * LASER_LANES;
    float *dq = h->dq_parts + query * c->stride;
    for (ptrdiff_t part = 1; part < c->parts && c->part[part] <= query / LASER_TILE; part++) {
        const float *more = dq + part * c->rows * c->stride;
        for (ptrdiff_t i = 0; i < LASER_LANES * c->stride; i += LASER_W)
            laser_store(dq + i, laser_load(dq + i) + laser_load(more + i));
    }
    laser_write_rows(c, c->dq + h->in, c->in_token, query, LASER_LANES, dq);
}

/* ---- The two functions ---- */

/* What is done to a head, one step after the other; the pieces of a step may run in any order. */
typedef struct {
    void (*run)(const LaserCall *, LaserHead *, LaserWork *, ptrdiff_t piece);
    ptrdiff_t pieces;
} LaserStep;

/* Heads come in two lots: as many as the threads divide evenly, a whole head to a thread; then the rest, on
   which all threads work together, piece by piece. */
static void laser_run(const LaserCall *c, const LaserStep *steps, int count) {
    const ptrdiff_t alone = c->heads - c->heads % c->threads, rest = c->heads - alone;
    void *memory = laser_malloc(c->bytes);
    LaserHead *heads = (void *)(((uintptr_t)memory + 63) / 64 * 64);
    LaserWork *works = (void *)(heads + c->flight);
    float *arrays = (void *)(works + c->threads);
    for (ptrdiff_t i = 0; i < c->flight; i++) heads[i].wild_g = NULL;
    LASER_OMP(omp parallel num_threads((int)c->threads)) {
        const ptrdiff_t me = LASER_THREAD;
        LaserWork *w = &works[me];
        laser_carve_work(c, w, arrays + c->flight * c->head_size + me * c->work_size);
        LASER_OMP(omp for schedule(dynamic))
        for (ptrdiff_t head = 0; head < alone; head++) {
            laser_carve_head(c, &heads[me], head, arrays + me * c->head_size);
            for (int s = 0; s < count; s++)
                for (ptrdiff_t i = 0; i < steps[s].pieces; i++) steps[s].run(c, &heads[me], w, i);
        }
        LASER_OMP(omp for schedule(static))
        for (ptrdiff_t i = 0; i < rest; i++)
            laser_carve_head(c, &heads[i], alone + i, arrays + i * c->head_size);
        for (int s = 0; s < count; s++) {
            LASER_OMP(omp for schedule(dynamic))
            for (ptrdiff_t i = rest * steps[s].pieces - 1; i >= 0; i--) /* the last are the longest */
                steps[s].run(c, &heads[i % rest], w, i / rest);
        }
#ifdef __AVX__
        _mm_sfence(); /* what was streamed is in memory */
#endif
    }
    for (ptrdiff_t i = 0; i < c->flight; i++) LASER_FREE(heads[i].wild_g);
    LASER_FREE(memory);
}

LASER_API void attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                 const AttentionShape *shape) {
    LaserCall c = laser_call(shape, 0);
    c.q = q, c.k = k, c.v = v, c.new_out = out, c.new_lse = lse;
    const LaserStep steps[] = {
        {laser_scan_columns, c.laser}, {laser_pack_keys, c.tiles}, {laser_forward_panel, c.panels}};
    laser_run(&c, steps, sizeof steps / sizeof *steps);
}

LASER_API void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                  const float *k, const float *v, const float *out, const float *lse,
                                  const AttentionShape *shape) {
    LaserCall c = laser_call(shape, 1);
    c.q = q, c.k = k, c.v = v, c.out = out, c.lse = lse, c.dout = dout, c.dq = dq, c.dk = dk, c.dv = dv;
    const LaserStep steps[] = {{laser_scan_columns, c.laser},
                               {laser_pack_keys, c.tiles},
                               {laser_pack_queries, c.panels},
                               {laser_backward_part, c.parts},
                               {laser_write_queries, c.panels}};
    laser_run(&c, steps, sizeof steps / sizeof *steps);
}

#endif
