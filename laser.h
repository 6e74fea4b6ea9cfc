/* laser.h: causal multi-head attention, standard and LASER, forward and backward, on the CPU.

   A single-header library. In one C file write

       #define LASER_IMPLEMENTATION
       #include "laser.h"

   and include it plainly everywhere else. It needs GCC or clang (vector extensions), libm, and uses OpenMP
   when compiled with -fopenmp. Define before the implementation, if you want something else:
       LASER_STATIC                       every function static
       LASER_MALLOC(size), LASER_FREE(p)  where work memory comes from (malloc, free)
       LASER_FAIL(text)                   what happens when memory runs out or a shape makes no sense (one line
                                          on stderr and exit(1)); it must not return

   WHAT IT COMPUTES, for every batch b and head h, with s_ij = scale * q_i . k_j over the keys j <= i,
   lse_i = log sum_j exp(s_ij) and a_ij = exp(s_ij - lse_i):

       standard   o_id = sum_j a_ij v_jd
       LASER      o_id = log sum_j a_ij exp(v_jd)

   LASER is S. S. Duvvuri and I. S. Dhillon, "LASER: Attention with Exponential Transformation", ICML 2025
   (arXiv:2411.03493).

   THE FUNCTIONS

       attention_forward(out, lse, q, k, v, &shape)
       attention_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape)
       attention_forward_naive, attention_backward_naive     the same in double, slowly, for reading and testing

   q, k, v, dq, dk, dv: element (b, t, h, d) lies at b * qkv_strides[0] + t * qkv_strides[1] +
   h * qkv_strides[2] + d; out, dout likewise with out_strides. So q, k, v may be three parts of one packed
   buffer. lse is (B, H, T), without gaps; forward writes it for backward, NULL when there will be none.
   Gradients are written (=), not added. Nothing but the arguments is kept between calls; outputs must not
   overlap inputs. Work memory is linear in T: about 2 T*D floats forward, 8 T*D backward, for every
   head in flight (as many as threads, a few more when they do not divide evenly); nothing of size T*T.
   The same bits come out for any number of threads. Not for -ffast-math, which takes rounding away.

   EXAMPLE (a test compiles and runs these lines)

   [example]
   #define LASER_IMPLEMENTATION
   #include "laser.h"
   #include <stdio.h>

   enum { B = 1, T = 3, H = 1, D = 2, C = H * D };

   int main(void) {
       const float q[B * T * C] = {0}, k[B * T * C] = {0};             // equal scores: a row averages its past
       const float v[B * T * C] = {0, 1, 2, 3, 4, -1}, dout[B * T * C] = {0, 0, 0, 0, 1, 1};
       float out[B * T * C], lse[B * H * T], dq[B * T * C], dk[B * T * C], dv[B * T * C];
       AttentionShape shape = {.batch = B, .seq_len = T, .heads = H, .head_dim = D, .kind = ATTENTION_LASER,
                               .qkv_strides = {T * C, C, D}, .out_strides = {T * C, C, D}};
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
   ds_ij = a_ij (da_ij - sum_j a_ij da_ij), and sum_j a_ij exp(v_jd - o_id) = 1.) In matrix form, with V' = exp(V)
   and dO' = dO * exp(-O), it is standard attention's backward on V' and dO', with dV = dV' * V' and
   sum_d do_id in place of sum_d do_id o_id. So LASER costs what standard attention costs, plus T*D
   exponentials and logarithms, and only o and lse are kept from forward to backward.

   RANGE, or where a shift by the maximum went. An exponential exp(x) is computed as p * 2^k, p near 1, k an
   integer; shifting it by n log 2 is writing k - n for k, which changes no bit of p. All shifts here are
   such powers of two, and scaling sums by powers of two is exact: whatever shift keeps the numbers in
   range gives the same bits. So the running shift of the online softmax costs no accuracy, and a later
   token that moves a shift moves no earlier row.
   - Scores: row i is scaled by 2^-K_i, K_i = the running maximum of s_ij log2(e) rounded to an integer.
   - Values, shift = LASER_SHIFT_CAUSAL: a column d of a head whose values lie within 64 of each other is scaled by
     one 2^-n_d, and float32 holds every exp(v_jd) and every sum of them. A column with a wider spread (or far
     from zero, where o in float32 has too few digits left for backward) leaves the matrix products and is
     summed elementwise in numbers with an exponent of their own, rescaled as the running maximum over the
     keys moves. No visible contribution is lost whatever the later tokens are; |v| to 1e6.
   - Values, shift = LASER_SHIFT_SEQUENCE, the paper's: n_d follows the column's maximum over the WHOLE
     sequence, later tokens included, and the sum is taken as it comes. What lies 2^-100 = exp(-69.3) below that
     maximum is lost: such an o_id stays at maximum - 69.3, depends on later tokens, and passes no gradient (the
     paper's formula has log 0 there).

   PRECISION. ATTENTION_BF16 rounds the operands of the products to bfloat16: q, k, v or exp(v), a and their
   gradients. Sums, exp, log, shifts and outputs are float32 in both. A row's a_ij are rounded before they are
   normalised, so that they still sum to one. */
#ifndef LASER_H
#define LASER_H

#include <stddef.h>

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
#endif

#if defined(LASER_IMPLEMENTATION) && !defined(LASER_IMPLEMENTED)
#define LASER_IMPLEMENTED

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
#else
#define LASER_OMP(directive)
#endif

#ifndef LASER_MALLOC
#define LASER_MALLOC(size) malloc(size)
#define LASER_FREE(pointer) free(pointer)
#endif
#ifndef LASER_FAIL
#define LASER_FAIL(text) (fprintf(stderr, "error: %s (laser.h)\n", text), exit(1))
#endif
#define LASER_INLINE static inline __attribute__((always_inline))
#ifdef LASER_STATIC
#define LASER_DEFINE static
#else
#define LASER_DEFINE
#endif

/* ---- The naive twin: the formulas as they stand, in double ---- */

/* The paper's shift of a column: the next multiple of log 2 at or above its maximum, in units of log 2. */
static double laser_sequence_shift(const double *v, ptrdiff_t token_stride, int T) {
    double maximum = v[0];
    for (int t = 1; t < T; t++) maximum = fmax(maximum, v[t * token_stride]);
    return ceil(maximum * 1.4426950408889634);
}

static double laser_scale(const AttentionShape *shape) {
    return shape->scale != 0 ? shape->scale : 1 / sqrt(shape->head_dim);
}

static double laser_score(const double *q, const double *k, const AttentionShape *shape) {
    double dot = 0;
    for (int d = 0; d < shape->head_dim; d++) dot += q[d] * k[d];
    return dot * laser_scale(shape);
}

/* Row i of one head: scores s (i+1), their log-sum-exp, and out (D). */
static double laser_naive_row(double *out, double *s, const double *q, const double *k, const double *v,
                              int i, const AttentionShape *shape) {
    const int D = shape->head_dim;
    const ptrdiff_t stride = shape->qkv_strides[1];
    double maximum = -INFINITY, sum = 0;
    for (int j = 0; j <= i; j++) {
        s[j] = laser_score(q + i * stride, k + j * stride, shape);
        maximum = fmax(maximum, s[j]);
    }
    for (int j = 0; j <= i; j++) sum += exp(s[j] - maximum);
    const double lse = maximum + log(sum);
    for (int d = 0; d < D; d++) {
        if (shape->kind == ATTENTION_STANDARD) {
            out[d] = 0;
            for (int j = 0; j <= i; j++) out[d] += exp(s[j] - lse) * v[j * stride + d];
            continue;
        }
        double largest = -INFINITY, total = 0;
        for (int j = 0; j <= i; j++) largest = fmax(largest, s[j] + v[j * stride + d]);
        for (int j = 0; j <= i; j++) total += exp(s[j] + v[j * stride + d] - largest);
        out[d] = largest + log(total) - lse;
        if (shape->shift == LASER_SHIFT_SEQUENCE)
            out[d] = fmax(out[d], (laser_sequence_shift(v + d, stride, shape->seq_len) - 100) * log(2));
    }
    return lse;
}

LASER_DEFINE void attention_forward_naive(double *out, double *lse, const double *q, const double *k,
                                          const double *v, const AttentionShape *shape) {
    double *s = LASER_MALLOC((size_t)shape->seq_len * sizeof *s);
    if (!s) LASER_FAIL("attention: out of memory");
    for (int b = 0; b < shape->batch; b++)
        for (int h = 0; h < shape->heads; h++)
            for (int i = 0; i < shape->seq_len; i++) {
                const ptrdiff_t head = b * shape->qkv_strides[0] + h * shape->qkv_strides[2];
                double *o =
                    out + b * shape->out_strides[0] + i * shape->out_strides[1] + h * shape->out_strides[2];
                double l = laser_naive_row(o, s, q + head, k + head, v + head, i, shape);
                if (lse) lse[((ptrdiff_t)b * shape->heads + h) * shape->seq_len + i] = l;
            }
    LASER_FREE(s);
}

/* Adds what row i of one head sends to dq (row i), dk and dv (rows 0..i). */
static void laser_naive_row_backward(double *dq, double *dk, double *dv, const double *dout, const double *q,
                                     const double *k, const double *v, const double *o, double lse, int i,
                                     const AttentionShape *shape) {
    const int D = shape->head_dim;
    const ptrdiff_t stride = shape->qkv_strides[1];
    double row = 0; /* sum_j a_ij da_ij */
    for (int d = 0; d < D; d++) row += dout[d] * (shape->kind == ATTENTION_LASER ? 1 : o[d]);
    for (int j = 0; j <= i; j++) {
        const double s = laser_score(q + i * stride, k + j * stride, shape), a = exp(s - lse);
        double ds = -a * row;
        for (int d = 0; d < D; d++) {
            const double x = v[j * stride + d];
            const double p = shape->kind == ATTENTION_LASER ? exp(s - lse + x - o[d]) : a;
            dv[j * stride + d] += dout[d] * p;
            ds += dout[d] * p * (shape->kind == ATTENTION_LASER ? 1 : x);
        }
        for (int d = 0; d < D; d++) {
            dq[i * stride + d] += laser_scale(shape) * ds * k[j * stride + d];
            dk[j * stride + d] += laser_scale(shape) * ds * q[i * stride + d];
        }
    }
}

LASER_DEFINE void attention_backward_naive(double *dq, double *dk, double *dv, const double *dout,
                                           const double *q, const double *k, const double *v,
                                           const double *out, const double *lse,
                                           const AttentionShape *shape) {
    const int T = shape->seq_len, D = shape->head_dim;
    double *dout_row = LASER_MALLOC((size_t)D * sizeof *dout_row);
    if (!dout_row) LASER_FAIL("attention: out of memory");
    for (int b = 0; b < shape->batch; b++)
        for (int h = 0; h < shape->heads; h++) {
            const ptrdiff_t head = b * shape->qkv_strides[0] + h * shape->qkv_strides[2];
            for (int t = 0; t < T; t++)
                for (int d = 0; d < D; d++) {
                    const ptrdiff_t at = head + t * shape->qkv_strides[1] + d;
                    dq[at] = dk[at] = dv[at] = 0;
                }
            for (int i = 0; i < T; i++) {
                const ptrdiff_t row =
                    b * shape->out_strides[0] + i * shape->out_strides[1] + h * shape->out_strides[2];
                for (int d = 0; d < D; d++) {
                    dout_row[d] = dout[row + d];
                    if (shape->kind == ATTENTION_LASER && shape->shift == LASER_SHIFT_SEQUENCE &&
                        out[row + d] <=
                            (laser_sequence_shift(v + head + d, shape->qkv_strides[1], T) - 100) * log(2))
                        dout_row[d] = 0; /* stays at the floor: no gradient */
                }
                laser_naive_row_backward(dq + head, dk + head, dv + head, dout_row, q + head, k + head,
                                         v + head, out + row, lse[((ptrdiff_t)b * shape->heads + h) * T + i],
                                         i, shape);
            }
        }
    LASER_FREE(dout_row);
}

/* ---- Vectors, exponentials, logarithms ---- */

/* The register block: a kernel keeps ROWS x VECS vectors of W floats of sums. LANES queries side by side, a
   "panel", are the unit of everything below. */
#if defined(__AVX512F__)
enum { LASER_W = 16, LASER_ROWS = 8, LASER_VECS = 2 };
#elif defined(__AVX__)
enum { LASER_W = 8, LASER_ROWS = 6, LASER_VECS = 2 };
#elif defined(__aarch64__)
enum { LASER_W = 4, LASER_ROWS = 8, LASER_VECS = 2 };
#else
enum { LASER_W = 4, LASER_ROWS = 6, LASER_VECS = 2 };
#endif
enum {
    LASER_LANES = LASER_W * LASER_VECS,
    LASER_KEYS = 8 * LASER_ROWS, /* a tile of keys */
    LASER_SPAN = 2 * LASER_KEYS, /* the keys that backward takes at a time */
    LASER_QUERIES = 128,         /* a block of queries in backward */
    LASER_AHEAD = 12,            /* rows of the caller's that are fetched ahead */
};
_Static_assert(LASER_KEYS % LASER_LANES == 0 && LASER_QUERIES % LASER_LANES == 0, "tiles are whole panels");

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

/* What an instruction set does better than vector extensions say it. LASER_PAIR: two bfloat16 to a lane. */
#if defined(__AVX512F__)
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) {
    return (LaserVec)_mm512_max_ps((__m512)a, (__m512)b);
}
LASER_INLINE LaserVec laser_min(LaserVec a, LaserVec b) {
    return (LaserVec)_mm512_min_ps((__m512)a, (__m512)b);
}
#define LASER_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LASER_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) {
    return (LaserVec)_mm256_max_ps((__m256)a, (__m256)b);
}
LASER_INLINE LaserVec laser_min(LaserVec a, LaserVec b) {
    return (LaserVec)_mm256_min_ps((__m256)a, (__m256)b);
}
#define LASER_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define LASER_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) { return laser_select(a > b, a, b); }
LASER_INLINE LaserVec laser_min(LaserVec a, LaserVec b) { return laser_select(a < b, a, b); }
#define LASER_LOW 0, 4, 1, 5
#define LASER_HIGH 2, 6, 3, 7
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
enum { LASER_PAIR = 2 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) {
    return (LaserVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
/* One row as pairs along it: LASER_W / 2 floats hold W numbers. */
LASER_INLINE void laser_store_along(float *to, LaserVec x) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
/* Two rows as pairs across them. */
LASER_INLINE LaserVec laser_across(LaserVec x, LaserVec y) {
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39,
                                           7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i a = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh((__m512)x));
    return (LaserVec)_mm512_permutex2var_epi16(
        a, order, _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh((__m512)y)));
}
/* The two rows back, as rounded. */
LASER_INLINE void laser_apart(LaserVec pairs, LaserVec *x, LaserVec *y) {
    *x = (LaserVec)((LaserInt)pairs << 16), *y = (LaserVec)((LaserInt)pairs & (int32_t)0xFFFF0000);
}
#else
enum { LASER_PAIR = 1 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) { return sum + a * b; }
LASER_INLINE void laser_store_along(float *to, LaserVec x) { laser_store(to, x); }
LASER_INLINE LaserVec laser_across(LaserVec x, LaserVec y) { return x + y; }
LASER_INLINE void laser_apart(LaserVec pairs, LaserVec *x, LaserVec *y) { *x = *y = pairs; }
#endif

/* The lanes of a and b in turn: the first half of them, and the second. */
#if defined(__clang__) || __GNUC__ >= 12
LASER_INLINE LaserVec laser_low(LaserVec a, LaserVec b) { return __builtin_shufflevector(a, b, LASER_LOW); }
LASER_INLINE LaserVec laser_high(LaserVec a, LaserVec b) { return __builtin_shufflevector(a, b, LASER_HIGH); }
#else
LASER_INLINE LaserVec laser_low(LaserVec a, LaserVec b) {
    return __builtin_shuffle(a, b, (LaserInt){LASER_LOW});
}
LASER_INLINE LaserVec laser_high(LaserVec a, LaserVec b) {
    return __builtin_shuffle(a, b, (LaserInt){LASER_HIGH});
}
#endif

#ifdef __clang__
#define LASER_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LASER_UNROLL _Pragma("GCC unroll 16")
#endif

LASER_INLINE int laser_any(LaserInt mask) {
    uint64_t words[sizeof mask / 8], any = 0;
    memcpy(words, &mask, sizeof mask);
    LASER_UNROLL for (size_t i = 0; i < sizeof mask / 8; i++) any |= words[i];
    return any != 0;
}

#define LASER_LOG2E 1.44269504f
#define LASER_LN2_HIGH 0.693359375f /* nine bits: its product with an integer below 2^15 is exact */
#define LASER_LN2_LOW (-2.12194440e-4f)
#define LASER_ROUND 12582912.0f /* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer */
#define LASER_NONE (-1e9f)      /* the exponent of zero */
#define LASER_MASKED (-3e38f)   /* the score of a key that a row does not see */

/* 0, 1, 2, ... */
static const int32_t laser_lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* 2^k for an integer k <= 127; 0 where k < -126. */
LASER_INLINE LaserVec laser_pow2(LaserVec k) {
    const LaserVec y = laser_max(k, laser_set(-127)) + (LASER_ROUND + 127); /* its low bits: k + 127 */
    return (LaserVec)((LaserInt)y << 23);
}

/* 2^r - 1 for |r| <= 1/2, relative error 3e-9 before rounding (minimax, by the Remez exchange). */
LASER_INLINE LaserVec laser_exp2m1_poly(LaserVec r) {
    LaserVec p = laser_set(1.559467818e-4f);
    p = p * r + 1.340664390e-3f;
    p = p * r + 9.617692973e-3f;
    p = p * r + 5.550310551e-2f;
    p = p * r + 2.402265278e-1f;
    p = p * r + 6.931472150e-1f;
    return p * r;
}

/* 2^x for x <= 127; 0 where x < -126.5. */
LASER_INLINE LaserVec laser_exp2(LaserVec x) {
    x = laser_max(x, laser_set(-127));
    const LaserVec y = x + (LASER_ROUND + 127); /* its low bits: the integer part + 127 */
    const LaserVec r = x - (y - (LASER_ROUND + 127));
    return (laser_exp2m1_poly(r) + 1) * (LaserVec)((LaserInt)y << 23);
}

/* 2^x = result * 2^k, k an integer, result in [0.7, 1.42]; |x| < 2^22. */
LASER_INLINE LaserVec laser_exp2_split(LaserVec x, LaserVec *k) {
    *k = (x + LASER_ROUND) - LASER_ROUND;
    return laser_exp2m1_poly(x - *k) + 1;
}

/* exp(x) = (1 + result) * 2^k, k an integer; |x| is cut to 2e6. */
LASER_INLINE LaserVec laser_exp_split(LaserVec x, LaserVec *k) {
    x = laser_max(laser_min(x, laser_set(2e6f)), laser_set(-2e6f));
    *k = (x * LASER_LOG2E + LASER_ROUND) - LASER_ROUND;
    const LaserVec r = (x - *k * LASER_LN2_HIGH) - *k * LASER_LN2_LOW;
    return laser_exp2m1_poly(r * LASER_LOG2E);
}

/* exp(x) * 2^-n, n an integer; the power of two it is scaled by is cut to 0 below 2^-126, 2^127 above. */
LASER_INLINE LaserVec laser_exp(LaserVec x, LaserVec n) {
    LaserVec k;
    const LaserVec p = laser_exp_split(x, &k) + 1;
    k -= n;
    return p * laser_pow2(laser_min(k, laser_set(127)));
}

/* exp(x) and exp(x) - 1 for x <= 88, both with all their digits. */
LASER_INLINE LaserVec laser_exp_expm1(LaserVec x, LaserVec *expm1) {
    LaserVec k;
    const LaserVec p = laser_exp_split(x, &k), power = laser_pow2(laser_min(k, laser_set(127)));
    *expm1 = p * power + (power - 1);
    return p * power + power;
}

/* log(x * 2^n) for a normal x > 0 and an integer n; something finite for x = 0. */
LASER_INLINE LaserVec laser_log(LaserVec x, LaserVec n) {
    const LaserInt bits = (LaserInt)x,
                   e = (bits - 0x3F3504F3) >> 23; /* x = 2^e m, m in [sqrt(1/2), sqrt(2)) */
    const LaserVec m = (LaserVec)(bits - (e << 23)), f = m - 1, s = f / (f + 2), z = s * s;
    n += __builtin_convertvector(e, LaserVec);
    LaserVec t = laser_set(0.22222222f); /* log m = 2 atanh(s) = 2 s + 2/3 s^3 + 2/5 s^5 + ... */
    t = t * z + 0.28571429f;
    t = t * z + 0.4f;
    t = t * z + 0.66666667f;
    /* 2 s = f - s f, and f is exact */
    return n * LASER_LN2_HIGH + (f + (n * LASER_LN2_LOW + s * (z * t - f)));
}

/* x rounded to bfloat16, to nearest even. */
LASER_INLINE LaserVec laser_round_bf16(LaserVec x) {
    const LaserInt bits = (LaserInt)x;
    return (LaserVec)((bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF);
}

/* ---- The product kernel ---- */

/* C (ROWS, vecs * W) = [C +] [center weights^T +] A B, a sum over `depth`: A(r, p) = a[r * a_row + p * a_depth], B's row p
   starts at b + p * ldb. pair: each of A's and B's floats holds two bfloat16, both of one and the same sum. */
LASER_INLINE void laser_kernel(int pair, int vecs, float *c, size_t ldc, int accumulate, const float *center,
                               const float *weights, const float *a, size_t a_row, size_t a_depth,
                               const float *b, size_t ldb, int depth) {
    LaserVec sum[LASER_ROWS][LASER_VECS];
    LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++) sum[r][v] =
        accumulate ? laser_load(c + (size_t)r * ldc + v * LASER_W) : laser_set(0);
    if (center)
        LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++)
            sum[r][v] += center[r] * laser_load(weights + v * LASER_W);
    _Pragma("GCC unroll 2") for (int p = 0; p < depth; p++, a += a_depth, b += ldb) {
        LaserVec x[LASER_VECS];
        LASER_UNROLL for (int v = 0; v < vecs; v++) x[v] = laser_load(b + v * LASER_W);
        LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) {
            const LaserVec y = laser_set(a[(size_t)r * a_row]);
            LASER_UNROLL for (int v = 0; v < vecs; v++) sum[r][v] =
                pair == 2 ? laser_dot(sum[r][v], y, x[v]) : sum[r][v] + y * x[v];
        }
    }
    LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++)
        laser_store(c + (size_t)r * ldc + v * LASER_W, sum[r][v]);
}

/* ---- A call: sizes and memory ---- */

/* What one call works with. A "head" is a (b, h) pair; `flight` of them are worked on at a time, and the slot that
   one has meanwhile says where its packed operands lie. With pair == 2 each of their floats holds two bfloat16, neighbours in
   the dimension that is summed over: "along" a row of D, `units` floats a row, or "across" two rows,
   `stride` floats for both. With pair == 1 both forms of a matrix are one and the same. */
typedef struct {
    const AttentionShape *shape;
    const float *q, *k, *v, *out, *dout, *lse;
    float *new_out, *new_lse, *dq, *dk, *dv;
    int T, D, heads, threads, flight, parts, pair;
    int tiles, panels, blocks; /* of KEYS keys, LANES queries, QUERIES queries */
    int stride, units;         /* D rounded up for ROWS and W, and what that is in pairs */
    float scale, scale_log2e;
    int laser, causal, bf16;
    float *shift;      /* (flight, stride) n_d; backward: the center m_d */
    float *floor;      /* (flight, stride) backward, paper's shift: the least o a column has */
    float *wild;       /* (flight, D + 1) backward: how many columns are wild, which */
    float *wild_tiles; /* (flight, tiles, stride) forward: 1 where a tile's values do not fit 2^-n_d */
    float *wild_from;  /* (flight, stride + 1) the first such tile of a column; and of all */
    float *center;     /* (flight, tiles, stride) forward, bf16 LASER: what V' lies around */
    float *k_along, *k_across; /* (flight, tiles, KEYS, units), (flight, tiles, KEYS / pair, stride) */
    float *v_along, *v_across; /* V or V' - center: backward; forward */
    float *v_exact;            /* (flight, tiles, KEYS, stride) V' in float32 */
    float *q_panels,
        *g_panels; /* (flight, panels, units, LANES) along, transposed; g is dO' / sum of a row */
    float *q_across, *g_across;    /* (flight, blocks, QUERIES / pair, stride) */
    float *row_shift, *row_term;   /* (flight, blocks * QUERIES) K_i, and what is subtracted from dP */
    float *wild_g, *wild_exponent; /* (flight, D, blocks * QUERIES) do / sum of a wild column */
    float *dq_parts;               /* (flight, parts, panels, stride, LANES) */
    float *work;                   /* (threads, work_size) */
    size_t work_size;
} LaserCall;

/* One thread's buffers. */
typedef struct {
    float *tile, *other;         /* (max(SPAN, LANES), stride) rows being packed */
    float *query;                /* (units, LANES) */
    float *score, *slope;        /* (SPAN, LANES) scores; dP */
    float *weight;               /* (SPAN, LANES) a, as the right operand over keys */
    float *sum;                  /* (stride, LANES) o before it is normalised; dq */
    float *power, *exponent;     /* (SPAN, LANES) a = power * 2^exponent, for the wild columns */
    float *wide, *wide_exponent; /* (D, LANES) sums of the wild columns: wide * 2^wide_exponent */
    float *wild;                 /* (D + 1) how many columns are wild here, and which */
    float *a_along, *ds_along;   /* (SPAN, QUERIES / pair) left operands over queries */
    float *ds_across;            /* (SPAN / pair, LANES) right operand over keys */
    float *dk, *dv;              /* (SPAN, stride) */
    float *row_shift;            /* (LANES) K_i */
    float *row_sum, *row_weight; /* (LANES) sum of a; the same of a as rounded */
    float *tile_weight;          /* (LANES) row_weight of one tile */
} LaserWork;

static size_t laser_round_up(size_t x, size_t unit) { return (x + unit - 1) / unit * unit; }
static int laser_least(int a, int b) { return a < b ? a : b; }

/* Points each pointer of the table at its part of one allocation; returns the floats used. */
typedef struct {
    float **to;
    size_t count;
} LaserPart;

static size_t laser_carve(const LaserPart *parts, size_t count, float *memory) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (memory) *parts[i].to = memory + used;
        used += laser_round_up(parts[i].count, 16);
    }
    return used;
}

static float *laser_aligned(void *memory) { return (float *)(((uintptr_t)memory + 63) / 64 * 64); }

static void *laser_allocate(size_t floats) {
    void *memory = floats < SIZE_MAX / 8 ? LASER_MALLOC(floats * sizeof(float) + 64) : NULL;
    if (!memory) LASER_FAIL("attention: out of memory; use a smaller batch or a shorter sequence");
    return memory;
}

static size_t laser_carve_work(const LaserCall *c, LaserWork *w, float *memory) {
    const size_t D = (size_t)c->D, stride = (size_t)c->stride, tile = LASER_SPAN * LASER_LANES;
    const size_t rows = LASER_SPAN > LASER_LANES ? LASER_SPAN : LASER_LANES;
    const LaserPart parts[] = {{&w->tile, rows * stride},
                               {&w->other, rows * stride},
                               {&w->query, (size_t)c->units * LASER_LANES},
                               {&w->score, tile},
                               {&w->slope, tile},
                               {&w->weight, tile},
                               {&w->sum, stride * LASER_LANES},
                               {&w->power, tile},
                               {&w->exponent, tile},
                               {&w->wide, D * LASER_LANES},
                               {&w->wide_exponent, D * LASER_LANES},
                               {&w->wild, D + 1},
                               {&w->a_along, LASER_SPAN * LASER_QUERIES},
                               {&w->ds_along, LASER_SPAN * LASER_QUERIES},
                               {&w->ds_across, tile},
                               {&w->dk, LASER_SPAN * stride},
                               {&w->dv, LASER_SPAN * stride},
                               {&w->row_shift, LASER_LANES},
                               {&w->row_sum, LASER_LANES},
                               {&w->row_weight, LASER_LANES},
                               {&w->tile_weight, LASER_LANES}};
    return laser_carve(parts, sizeof parts / sizeof *parts, memory);
}

static void laser_sizes(LaserCall *c) {
    const AttentionShape *s = c->shape;
    if (s->batch < 1 || s->seq_len < 1 || s->heads < 1 || s->head_dim < 1)
        LASER_FAIL("attention: batch, seq_len, heads and head_dim must be at least 1");
    c->T = s->seq_len, c->D = s->head_dim, c->heads = s->batch * s->heads;
    c->laser = s->kind == ATTENTION_LASER, c->causal = s->shift == LASER_SHIFT_CAUSAL;
    c->bf16 = s->precision == ATTENTION_BF16, c->pair = c->bf16 ? LASER_PAIR : 1;
    c->scale = (float)laser_scale(s), c->scale_log2e = (float)(laser_scale(s) * 1.4426950408889634);
    c->tiles = (c->T + LASER_KEYS - 1) / LASER_KEYS;
    c->blocks = (c->T + LASER_QUERIES - 1) / LASER_QUERIES;
    c->panels = c->blocks * (LASER_QUERIES / LASER_LANES);
    c->stride = (int)laser_round_up(laser_round_up((size_t)c->D, LASER_ROWS), LASER_W);
    c->units = (int)laser_round_up((size_t)(c->stride / c->pair), LASER_W);
#ifdef _OPENMP
    c->threads = omp_get_max_threads();
#else
    c->threads = 1;
#endif
    /* Few heads: their keys are cut into parts, a number that follows from the shape alone. */
    c->parts = laser_least(32 / c->heads, c->T / 256);
    if (c->parts < 1) c->parts = 1;
    c->flight = laser_least(c->threads, c->heads);
}

static void *laser_begin(LaserCall *c, int backward) {
    laser_sizes(c);
    LaserWork none;
    c->work_size = laser_carve_work(c, &none, NULL);
    const size_t F = (size_t)c->flight, stride = (size_t)c->stride, units = (size_t)c->units,
                 pair = (size_t)c->pair;
    const size_t B = backward ? F : 0, exact = c->laser && c->bf16 && !backward ? F : 0;
    const size_t tiles = (size_t)c->tiles, keys = tiles * LASER_KEYS,
                 queries = (size_t)c->blocks * LASER_QUERIES;
    const LaserPart parts[] = {{&c->shift, F * stride},
                               {&c->floor, B * stride},
                               {&c->wild, F * ((size_t)c->D + 1)},
                               {&c->wild_tiles, (F - B) * tiles * stride},
                               {&c->wild_from, (F - B) * (stride + 1)},
                               {&c->center, (F - B) * tiles * stride},
                               {&c->k_along, F * keys * units},
                               {&c->k_across, pair == 1 ? 0 : B * keys / pair * stride},
                               {&c->v_across, (F - B) * keys / pair * stride},
                               {&c->v_exact, exact * keys * stride},
                               {&c->v_along, B * keys * units},
                               {&c->q_panels, B * queries * units},
                               {&c->g_panels, B * queries * units},
                               {&c->q_across, B * queries / pair * stride},
                               {&c->g_across, B * queries / pair * stride},
                               {&c->row_shift, B * queries},
                               {&c->row_term, B * queries},
                               {&c->dq_parts, B * (size_t)c->parts * queries * stride},
                               {&c->work, (size_t)c->threads * c->work_size}};
    const size_t count = sizeof parts / sizeof *parts;
    void *memory = laser_allocate(laser_carve(parts, count, NULL));
    laser_carve(parts, count, laser_aligned(memory));
    if (c->pair == 1) c->k_across = c->k_along;
    if (backward) c->v_across = c->center = NULL;
    return memory;
}

static ptrdiff_t laser_at(const LaserCall *c, const ptrdiff_t *strides, int head, int t) {
    return head / c->shape->heads * strides[0] + t * strides[1] + head % c->shape->heads * strides[2];
}

/* ---- Packing ---- */

/* Asks for the cache lines of a row of the caller's that comes up: rows lie pages apart, where no hardware prefetch
   follows. */
LASER_INLINE void laser_fetch(const float *row, ptrdiff_t ahead, int D, int write) {
    const uintptr_t at = (uintptr_t)row + (uintptr_t)ahead * sizeof *row; /* may lie behind the last row */
    for (size_t i = 0; i < (size_t)D * sizeof *row; i += 64) {
        if (write)
            __builtin_prefetch((const void *)(at + i), 1);
        else
            __builtin_prefetch((const void *)(at + i), 0);
    }
}

LASER_INLINE void laser_scale_row(float *to, const float *from, int count, float scale) {
    int d = 0;
    for (; d + LASER_W <= count; d += LASER_W) laser_store(to + d, laser_load(from + d) * scale);
    for (; d < count; d++) to[d] = from[d] * scale;
}

/* Rows first .. first + count - 1 of a head, padded with zeros to whole vectors and rows: the caller's own where
   they need no padding, else a copy in `tile`. *row: floats from row to row. */
static const float *laser_view(const LaserCall *c, float *tile, const float *x, const ptrdiff_t *strides,
                               int head, int first, int count, ptrdiff_t *row) {
    x += laser_at(c, strides, head, first);
    *row = strides[1];
    if (c->D == c->stride && first + count <= c->T) return x;
    *row = c->stride;
    for (int r = 0; r < count; r++) {
        const int inside = first + r < c->T ? c->D : 0;
        if (inside) memcpy(tile + r * c->stride, x + r * strides[1], (size_t)inside * sizeof *tile);
        memset(tile + r * c->stride + inside, 0, (size_t)(c->stride - inside) * sizeof *tile);
    }
    return tile;
}

/* A number as it goes into a product that is packed in float32. */
LASER_INLINE LaserVec laser_operand(const LaserCall *c, LaserVec x) {
    return c->bf16 && c->pair == 1 ? laser_round_bf16(x) : x;
}

static void laser_pack_along(const LaserCall *c, float *to, const float *from, ptrdiff_t row, int count,
                             float scale) {
    for (int r = 0; r < count; r++, to += c->units, from += row) {
        laser_fetch(from, LASER_AHEAD * row, c->D, 0);
        if (c->pair == 2)
            for (int d = 0; d < c->stride; d += LASER_W)
                laser_store_along(to + d / 2, laser_load(from + d) * scale);
        else
            for (int d = 0; d < c->stride; d += LASER_W)
                laser_store(to + d, laser_operand(c, laser_load(from + d) * scale));
        for (int u = c->stride / c->pair; u < c->units; u++) to[u] = 0;
    }
}

static void laser_pack_across(const LaserCall *c, float *to, const float *from, ptrdiff_t row, int count,
                              float scale) {
    for (int r = 0; r < count; r += c->pair, to += c->stride, from += c->pair * row) {
        for (int p = 0; p < c->pair; p++) laser_fetch(from, (LASER_AHEAD + p) * row, c->D, 0);
        if (c->pair == 2)
            for (int d = 0; d < c->stride; d += LASER_W)
                laser_store(to + d,
                            laser_across(laser_load(from + d) * scale, laser_load(from + row + d) * scale));
        else
            for (int d = 0; d < c->stride; d += LASER_W)
                laser_store(to + d, laser_operand(c, laser_load(from + d) * scale));
    }
}

/* to (columns, to_row) = from (rows, from_row) transposed, times `scale`; rows and columns multiples of W. */
LASER_INLINE void laser_transpose(float *to, ptrdiff_t to_row, const float *from, ptrdiff_t from_row,
                                  int rows, int columns, float scale, int round) {
    for (int i = 0; i < rows; i += LASER_W)
        for (int j = 0; j < columns; j += LASER_W) {
            LaserVec x[LASER_W], y[LASER_W];
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) {
                x[r] = laser_load(from + (i + r) * from_row + j) * scale;
                if (round) x[r] = laser_round_bf16(x[r]);
            }
            LASER_UNROLL for (int deal = 1; deal < LASER_W;
                              deal *= 2) { /* like cards: log2(W) perfect shuffles */
                LASER_UNROLL for (int r = 0; r < LASER_W / 2; r++) {
                    y[2 * r] = laser_low(x[r], x[r + LASER_W / 2]);
                    y[2 * r + 1] = laser_high(x[r], x[r + LASER_W / 2]);
                }
                LASER_UNROLL for (int r = 0; r < LASER_W; r++) x[r] = y[r];
            }
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) laser_store(to + (j + r) * to_row + i, x[r]);
        }
}

/* A panel of queries along d, transposed; spoils `spare`. */
static void laser_pack_panel(const LaserCall *c, float *to, const float *from, ptrdiff_t row, float scale,
                             float *spare) {
    if (c->pair == 2) {
        laser_pack_along(c, spare, from, row, LASER_LANES, scale);
        laser_transpose(to, LASER_LANES, spare, c->units, LASER_LANES, c->units, 1, 0);
    } else {
        laser_transpose(to, LASER_LANES, from, row, LASER_LANES, c->stride, scale, c->bf16);
    }
}

/* ---- Products of tiles ---- */

static int laser_depth(const LaserCall *c, int count) { return c->pair == 2 ? (count + 1) / 2 : count; }

/* C (rows, LANES) = A B over d; A (rows, units) along, B (units, LANES). */
static void laser_product_d(const LaserCall *c, float *C, const float *A, const float *B, int rows) {
    const int depth = laser_depth(c, c->D);
    const size_t units = (size_t)c->units;
    for (int r = 0; r < rows; r += LASER_ROWS) {
        const float *a = A + (size_t)r * units;
        if (c->pair == 2)
            laser_kernel(2, LASER_VECS, C + r * LASER_LANES, LASER_LANES, 0, NULL, NULL, a, units, 1, B,
                         LASER_LANES, depth);
        else
            laser_kernel(1, LASER_VECS, C + r * LASER_LANES, LASER_LANES, 0, NULL, NULL, a, units, 1, B,
                         LASER_LANES, depth);
    }
}

/* C (stride, LANES) = [C +] [center weights^T +] A^T B over keys; A (keys, stride) across, B (keys, ldb) across. */
static void laser_product_keys(const LaserCall *c, int pair, float *C, int accumulate, const float *center,
                               const float *weights, const float *A, const float *B, size_t ldb, int keys) {
    const int depth = pair == 2 ? (keys + 1) / 2 : keys;
    for (int d = 0; d < c->D; d += LASER_ROWS) {
        const float *middle = center ? center + d : NULL;
        if (pair == 2)
            laser_kernel(2, LASER_VECS, C + d * LASER_LANES, LASER_LANES, accumulate, middle, weights, A + d,
                         1, (size_t)c->stride, B, ldb, depth);
        else
            laser_kernel(1, LASER_VECS, C + d * LASER_LANES, LASER_LANES, accumulate, middle, weights, A + d,
                         1, (size_t)c->stride, B, ldb, depth);
    }
}

/* C (rows, stride) += A B over queries; A (rows, QUERIES) along, B (QUERIES, stride) across; A is 0 left of
   its r-th row's element r + zeros, and right of `queries`. */
static void laser_product_queries(const LaserCall *c, float *C, const float *A, const float *B, int rows,
                                  int zeros, int queries) {
    const size_t stride = (size_t)c->stride, lda = (size_t)(LASER_QUERIES / c->pair);
    for (int d = 0; d < c->D; d += LASER_LANES)
        for (int r = 0; r < rows; r += LASER_ROWS) {
            const int first = r + zeros > 0 ? (r + zeros) / c->pair : 0,
                      depth = laser_depth(c, queries) - first;
            float *to = C + (size_t)r * stride + d;
            const float *a = A + (size_t)r * lda + first, *b = B + (size_t)first * stride + d;
            if (c->D - d > LASER_W && c->pair == 2)
                laser_kernel(2, LASER_VECS, to, stride, 1, NULL, NULL, a, lda, 1, b, stride, depth);
            else if (c->D - d > LASER_W)
                laser_kernel(1, LASER_VECS, to, stride, 1, NULL, NULL, a, lda, 1, b, stride, depth);
            else if (c->pair == 2)
                laser_kernel(2, 1, to, stride, 1, NULL, NULL, a, lda, 1, b, stride, depth);
            else
                laser_kernel(1, 1, to, stride, 1, NULL, NULL, a, lda, 1, b, stride, depth);
        }
}

/* ---- Wild columns: sums of numbers with an exponent of their own ---- */

/* Weights 2^(score - K) of a tile as power * 2^exponent. */
static void laser_wide_weights(LaserWork *w, const float *row_shift, int keys) {
    for (int j = 0; j < keys; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            const LaserVec s = laser_load(w->score + j * LASER_LANES + x), K = laser_load(row_shift + x);
            const LaserInt seen = s > LASER_MASKED;
            LaserVec k, p = laser_exp2_split(laser_max(s - K, laser_set(-4e6f)), &k);
            laser_store(w->power + j * LASER_LANES + x, laser_select(seen, p, laser_set(0)));
            laser_store(w->exponent + j * LASER_LANES + x, laser_select(seen, k + K, laser_set(LASER_NONE)));
        }
}

/* exp(v) of one column of at most SPAN keys as power * 2^exponent. */
static void laser_wide_values(const LaserCall *c, float *power, float *exponent, int head, int key, int keys,
                              int d) {
    const float *v = c->v + laser_at(c, c->shape->qkv_strides, head, key) + d;
    for (int j = 0; j < LASER_SPAN; j++) power[j] = j < keys ? v[j * c->shape->qkv_strides[1]] : 0;
    for (int j = 0; j < LASER_SPAN; j += LASER_W) {
        LaserVec k, p = laser_exp_split(laser_load(power + j), &k) + 1;
        laser_store(power + j, p);
        laser_store(exponent + j, k);
    }
}

/* The same of a column that is packed, as the products see it. */
static void laser_packed_values(const LaserCall *c, float *power, float *exponent, const float *v_across,
                                int d, float shift) {
    for (int j = 0; j < LASER_KEYS; j++) {
        const float unit = v_across[j / c->pair * c->stride + d];
        uint32_t bits;
        memcpy(&bits, &unit, sizeof bits);
        if (c->pair == 2) bits = j % 2 ? bits & 0xFFFF0000 : bits << 16;
        memcpy(&power[j], &bits, sizeof bits);
        exponent[j] = shift;
    }
}

/* (sum, e) += x * factor * 2^f: the same bits as sum += x * factor wherever float32 could hold it. */
LASER_INLINE void laser_wide_add(LaserVec *sum, LaserVec *e, LaserVec x, float factor, LaserVec f) {
    const LaserVec larger = laser_max(*e, f), scaled = x * laser_pow2(f - larger);
    *sum = laser_select(*e < larger, *sum * laser_pow2(*e - larger), *sum) + scaled * factor;
    *e = larger;
}

/* Adds a tile of keys to the sums of the wild columns. packed: to the tile before the columns' first wild one,
   apply the values that the products use, so that nothing changes for the rows that see only those. */
static void laser_wide_sum(const LaserCall *c, LaserWork *w, int slot, int head, int key, int keys,
                           int diagonal) {
    const int tile = key / LASER_KEYS;
    const size_t at = (size_t)slot * (size_t)c->tiles + (size_t)tile, stride = (size_t)c->stride;
    for (int i = 0; i < (int)w->wild[0]; i++) {
        const int d = (int)w->wild[1 + i];
        const int packed = c->v_across && tile < (int)c->wild_from[(size_t)slot * (stride + 1) + (size_t)d];
        const float shift = packed ? c->shift[(size_t)slot * stride + (size_t)d] : 0;
        const float center = packed && c->bf16 ? c->center[at * stride + (size_t)d] : 0;
        float power[LASER_SPAN], exponent[LASER_SPAN];
        if (packed)
            laser_packed_values(c, power, exponent,
                                c->v_across + at * (LASER_KEYS / (size_t)c->pair) * stride, d, shift);
        else
            laser_wide_values(c, power, exponent, head, key, keys, d);
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            LaserVec sum = laser_load(w->wide + i * LASER_LANES + x),
                     e = laser_load(w->wide_exponent + i * LASER_LANES + x);
            if (center != 0)
                laser_wide_add(&sum, &e, laser_load(w->tile_weight + x), center,
                               laser_load(w->row_shift + x) + shift);
            for (int j = 0; j < keys; j++) {
                const LaserVec a = laser_load(w->power + j * LASER_LANES + x);
                laser_wide_add(&sum, &e, c->v_across && c->bf16 && !diagonal ? laser_round_bf16(a) : a,
                               power[j], laser_load(w->exponent + j * LASER_LANES + x) + exponent[j]);
            }
            laser_store(w->wide + i * LASER_LANES + x, sum);
            laser_store(w->wide_exponent + i * LASER_LANES + x, e);
        }
    }
}

/* ---- Forward ---- */

/* The columns of a head: which power of two scales exp(v). */
static void laser_shift_columns(const LaserCall *c, int slot, int head) {
    float *shift = c->shift + (size_t)slot * (size_t)c->stride;
    const float *v = c->v + laser_at(c, c->shape->qkv_strides, head, 0);
    memset(shift, 0, (size_t)c->stride * sizeof *shift);
    memcpy(shift, v, (size_t)c->D * sizeof *shift);
    for (int t = 1; !c->causal && t < c->T; t++)
        for (int d = 0; d < c->D; d++) {
            const float x = v[t * c->shape->qkv_strides[1] + d];
            shift[d] = x > shift[d] ? x : shift[d];
        }
    for (int d = 0; d < c->D; d++) {
        const double n = fmax(-2e6, fmin(2e6, shift[d])) * 1.4426950408889634;
        shift[d] = (float)(c->causal ? rint(n) : ceil(n));
    }
}

/* V' = exp(v) 2^-n of a tile into w->tile; its center, and where it is wild. */
static void laser_exp_tile(const LaserCall *c, LaserWork *w, const float *v, ptrdiff_t row, int slot,
                           int tile, int keys) {
    const size_t stride = (size_t)c->stride, at = ((size_t)slot * (size_t)c->tiles + (size_t)tile) * stride;
    for (int d = 0; d < c->stride; d += LASER_W) {
        const LaserVec n = laser_load(c->shift + (size_t)slot * stride + d);
        LaserVec low = laser_set(3e38f), high = laser_set(0), wild = laser_set(0);
        for (int j = 0; j < LASER_KEYS; j++) {
            const LaserVec x = laser_load(v + j * row + d), y = x * LASER_LOG2E - n, e = laser_exp(x, n);
            laser_store(w->tile + j * c->stride + d, e);
            if (j >= keys) continue;
            low = laser_min(low, e), high = laser_max(high, e);
            wild = laser_select((y > 58) | (y < -58), laser_set(1), wild); /* 40 log 2 */
        }
        const LaserVec middle = (low + high) * 0.5f, top = low * 2.7f;
        laser_store(c->center + at + d, laser_min(middle, top));
        laser_store(c->wild_tiles + at + d, c->causal ? wild : laser_set(0));
    }
}

static void laser_pack_keys(const LaserCall *c, LaserWork *w, int slot, int head, int tile) {
    const size_t at = ((size_t)slot * (size_t)c->tiles + (size_t)tile) * LASER_KEYS,
                 stride = (size_t)c->stride;
    const ptrdiff_t *strides = c->shape->qkv_strides;
    const int key = tile * LASER_KEYS;
    ptrdiff_t row;
    const float *k = laser_view(c, w->tile, c->k, strides, head, key, LASER_KEYS, &row);
    laser_pack_along(c, c->k_along + at * (size_t)c->units, k, row, LASER_KEYS, 1);
    const float *v = laser_view(c, w->tile, c->v, strides, head, key, LASER_KEYS, &row);
    if (c->laser) {
        laser_exp_tile(c, w, v, row, slot, tile, laser_least(LASER_KEYS, c->T - key));
        v = w->tile, row = c->stride;
    }
    if (c->laser && c->bf16) {
        const float *center = c->center + at / LASER_KEYS * stride;
        memcpy(c->v_exact + at * stride, v, LASER_KEYS * stride * sizeof *v);
        for (int i = 0; i < LASER_KEYS; i++)
            for (int d = 0; d < c->stride; d++) w->tile[i * c->stride + d] -= center[d];
    }
    laser_pack_across(c, c->v_across + at / (size_t)c->pair * stride, v, row, LASER_KEYS, 1);
}

/* From which tile on each column of a head is wild, and whether any is. */
static void laser_find_wild(const LaserCall *c, int slot) {
    float *from = c->wild_from + (size_t)slot * (size_t)(c->stride + 1);
    for (int d = 0; d < c->stride; d++) from[d] = (float)c->tiles;
    for (int t = c->tiles - 1; t >= 0; t--) {
        const float *wild = c->wild_tiles + ((size_t)slot * (size_t)c->tiles + (size_t)t) * (size_t)c->stride;
        for (int d = 0; d < c->stride; d++) from[d] = wild[d] > 0 ? (float)t : from[d];
    }
    from[c->stride] = (float)c->tiles;
    for (int d = 0; d < c->D; d++) from[c->stride] = from[d] < from[c->stride] ? from[d] : from[c->stride];
}

/* The columns that are wild among the keys up to a tile. */
static void laser_list_wild(const LaserCall *c, LaserWork *w, int slot, int tile) {
    const float *from = c->wild_from + (size_t)slot * (size_t)(c->stride + 1);
    w->wild[0] = 0;
    if (!c->laser || from[c->stride] > (float)tile) return;
    for (int d = 0; d < c->D; d++)
        if (from[d] <= (float)tile) w->wild[1 + (int)w->wild[0]++] = (float)d;
}

/* Scores of keys that a query does not see. */
static void laser_mask(float *score, int keys, int key, int query) {
    LaserInt lane;
    memcpy(&lane, laser_lane, sizeof lane);
    for (int j = query > key ? query - key : 0; j < keys; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *s = score + j * LASER_LANES + x;
            laser_store(s, laser_select(lane < key + j - query - x, laser_set(LASER_MASKED), laser_load(s)));
        }
}

/* One step of the online softmax: moves the row shifts to a tile of scores, rescaling the sums. */
static void laser_move_shift(const LaserCall *c, LaserWork *w, int keys, int rescale) {
    LaserVec top[LASER_VECS];
    LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) top[x] = laser_load(w->score + x * LASER_W);
    for (int j = 1; j < keys; j++)
        LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) top[x] =
            laser_max(top[x], laser_load(w->score + j * LASER_LANES + x * LASER_W));
    for (int x = 0; x < LASER_VECS; x++) {
        const int at = x * LASER_W;
        const LaserVec old = laser_load(w->row_shift + at), big = (LaserVec)((LaserInt)top[x] & 0x7FFFFFFF);
        /* beyond 2^22 a float has no fraction worth rounding */
        const LaserVec K =
            laser_max(old, laser_select(big < 4e6f, (top[x] + LASER_ROUND) - LASER_ROUND, top[x]));
        if (!laser_any(K > old)) continue;
        const LaserVec scale = laser_pow2(old - K);
        laser_store(w->row_shift + at, K);
        laser_store(w->row_sum + at, laser_load(w->row_sum + at) * scale);
        laser_store(w->row_weight + at, laser_load(w->row_weight + at) * scale);
        for (int d = 0; rescale && d < c->D; d++)
            laser_store(w->sum + d * LASER_LANES + at, laser_load(w->sum + d * LASER_LANES + at) * scale);
    }
}

/* Scores of a tile into weights, as the right operand of the product with V; their sums. */
static void laser_weigh(const LaserCall *c, LaserWork *w, int keys, int exact) {
    const int pair = exact ? 1 : c->pair, round = c->bf16 && !exact;
    LaserVec sum[LASER_VECS], weight[LASER_VECS], K[LASER_VECS];
    LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
        sum[x] = weight[x] = laser_set(0);
        K[x] = laser_load(w->row_shift + x * LASER_W);
    }
    if (keys % 2) /* an odd key's neighbour */
        for (int i = 0; i < LASER_LANES; i++) w->score[keys * LASER_LANES + i] = LASER_MASKED;
    for (int j = 0; j < keys; j += 2) LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
            const float *s = w->score + j * LASER_LANES + x * LASER_W;
            LaserVec a = laser_exp2(laser_load(s) - K[x]), b = laser_exp2(laser_load(s + LASER_LANES) - K[x]);
            float *to = w->weight + j / pair * LASER_LANES + x * LASER_W;
            sum[x] += a + b;
            if (pair == 2) {
                const LaserVec pairs = laser_across(a, b);
                laser_store(to, pairs);
                laser_apart(pairs, &a, &b);
            } else {
                if (round) a = laser_round_bf16(a), b = laser_round_bf16(b);
                laser_store(to, a), laser_store(to + LASER_LANES, b);
            }
            weight[x] += a + b;
        }
    LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
        const int at = x * LASER_W;
        laser_store(w->tile_weight + at, weight[x]);
        laser_store(w->row_sum + at, laser_load(w->row_sum + at) + sum[x]);
        laser_store(w->row_weight + at, laser_load(w->row_weight + at) + weight[x]);
    }
}

/* Goes over the keys of a panel of queries q: leaves K_i, the sums of the weights, the sums of the columns that
   w->wild lists, and with_values the sums of a V. */
static void laser_rows(const LaserCall *c, LaserWork *w, const float *q, int slot, int head, int panel,
                       int with_values) {
    const int query = panel * LASER_LANES, end = laser_least(query + LASER_LANES, c->T),
              wild = w->wild[0] > 0;
    const size_t stride = (size_t)c->stride;
    for (int i = 0; i < LASER_LANES; i++)
        w->row_shift[i] = LASER_MASKED, w->row_sum[i] = w->row_weight[i] = 0;
    for (int i = 0; i < (int)w->wild[0] * LASER_LANES; i++) w->wide[i] = 0, w->wide_exponent[i] = LASER_NONE;
    for (int key = 0; key < end; key += LASER_KEYS) {
        const int keys = laser_least(LASER_KEYS, end - key), diagonal = key + LASER_KEYS > query + 1;
        /* LASER in bf16: what hangs on a tile's values, as their center does, may not reach rows that do not see
           all of the tile: the last tile is summed in float32. */
        const int exact = c->laser && c->bf16 && with_values && diagonal;
        const size_t at = (size_t)slot * (size_t)c->tiles * LASER_KEYS + (size_t)key;
        laser_product_d(c, w->score, c->k_along + at * (size_t)c->units, q, keys);
        if (diagonal) laser_mask(w->score, keys, key, query);
        laser_move_shift(c, w, keys, with_values && key > 0);
        if (wild) laser_wide_weights(w, w->row_shift, keys);
        laser_weigh(c, w, keys, exact);
        if (wild) laser_wide_sum(c, w, slot, head, key, keys, diagonal);
        if (exact)
            laser_product_keys(c, 1, w->sum, key > 0, NULL, NULL, c->v_exact + at * stride, w->weight,
                               LASER_LANES, keys);
        else if (with_values)
            laser_product_keys(c, c->pair, w->sum, key > 0,
                               c->laser && c->bf16 ? c->center + at / LASER_KEYS * stride : NULL,
                               w->tile_weight, c->v_across + at / (size_t)c->pair * stride, w->weight,
                               LASER_LANES, keys);
    }
}

/* o of a panel from its sums, in place: divided by the weights; LASER: the logarithm. */
static void laser_normalise(const LaserCall *c, LaserWork *w, int slot) {
    const float *shift = c->shift + (size_t)slot * (size_t)c->stride;
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec inverse = 1 / laser_load(w->row_weight + x), K = laser_load(w->row_shift + x);
        for (int d = 0; d < c->D; d++) {
            float *o = w->sum + d * LASER_LANES + x;
            LaserVec value = laser_load(o) * inverse;
            if (c->laser && !c->causal) value = laser_max(value, laser_set(0x1p-100f));
            laser_store(o, c->laser ? laser_log(value, laser_set(shift[d])) : value);
        }
        for (int i = 0; i < (int)w->wild[0]; i++)
            laser_store(w->sum + (int)w->wild[1 + i] * LASER_LANES + x,
                        laser_log(laser_load(w->wide + i * LASER_LANES + x) * inverse,
                                  laser_load(w->wide_exponent + i * LASER_LANES + x) - K));
    }
}

/* Rows of a head from their transpose, times `scale`. */
static void laser_write_rows(const LaserCall *c, LaserWork *w, float *out, const ptrdiff_t *strides, int head,
                             int first, const float *transpose, float scale) {
    const int count = laser_least(LASER_LANES, c->T - first),
              columns = (int)laser_round_up((size_t)c->D, LASER_W);
    out += laser_at(c, strides, head, first);
    for (int i = 0; i < count; i++) laser_fetch(out, i * strides[1], c->D, 1);
    if (c->D == columns && count == LASER_LANES) {
        laser_transpose(out, strides[1], transpose, LASER_LANES, columns, LASER_LANES, scale, 0);
        return;
    }
    laser_transpose(w->tile, c->stride, transpose, LASER_LANES, columns, LASER_LANES, scale, 0);
    for (int i = 0; i < count; i++)
        memcpy(out + i * strides[1], w->tile + i * c->stride, (size_t)c->D * sizeof *out);
}

static void laser_forward_panel(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const int query = panel * LASER_LANES, last = laser_least(query + LASER_LANES, c->T) - 1;
    ptrdiff_t row;
    const float *q = laser_view(c, w->tile, c->q, c->shape->qkv_strides, head, query, LASER_LANES, &row);
    laser_pack_panel(c, w->query, q, row, c->scale_log2e, w->other);
    laser_list_wild(c, w, slot, last / LASER_KEYS);
    laser_rows(c, w, w->query, slot, head, panel, 1);
    laser_normalise(c, w, slot);
    laser_write_rows(c, w, c->new_out, c->shape->out_strides, head, query, w->sum, 1);
    for (int x = 0; x < LASER_LANES; x += LASER_W)
        laser_store(w->row_sum + x, laser_log(laser_load(w->row_sum + x), laser_load(w->row_shift + x)));
    for (int i = 0; c->new_lse && i <= last - query; i++)
        c->new_lse[(size_t)head * (size_t)c->T + (size_t)(query + i)] = w->row_sum[i];
}

LASER_INLINE int laser_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* The heads come in two lots: as many as the threads divide evenly, a whole head to a thread; then what is left,
   all threads on one lot of heads. */
LASER_DEFINE void attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                    const AttentionShape *shape) {
    LaserCall call = {.shape = shape, .q = q, .k = k, .v = v, .new_out = out, .new_lse = lse}, *c = &call;
    void *memory = laser_begin(c, 0);
    const int panels = (c->T + LASER_LANES - 1) / LASER_LANES, alone = c->heads - c->heads % c->threads;
    const int n = c->heads - alone;
    LASER_OMP(omp parallel num_threads(c->threads)) {
        LaserWork w;
        const int me = laser_thread();
        laser_carve_work(c, &w, c->work + (size_t)me * c->work_size);
        LASER_OMP(omp for schedule(dynamic))
        for (int head = 0; head < alone; head++) {
            if (c->laser) laser_shift_columns(c, me, head);
            for (int tile = 0; tile < c->tiles; tile++) laser_pack_keys(c, &w, me, head, tile);
            if (c->laser) laser_find_wild(c, me);
            for (int panel = 0; panel < panels; panel++) laser_forward_panel(c, &w, me, head, panel);
        }
        LASER_OMP(omp for schedule(static))
        for (int s = 0; s < n; s++)
            if (c->laser) laser_shift_columns(c, s, alone + s);
        LASER_OMP(omp for schedule(static))
        for (int i = 0; i < n * c->tiles; i++)
            laser_pack_keys(c, &w, i / c->tiles, alone + i / c->tiles, i % c->tiles);
        LASER_OMP(omp for schedule(static))
        for (int s = 0; s < n; s++)
            if (c->laser) laser_find_wild(c, s);
        LASER_OMP(omp for schedule(dynamic))
        for (int i = 0; i < n * panels; i++) /* the longest rows first */
            laser_forward_panel(c, &w, i % n, alone + i % n, panels - 1 - i / n);
    }
    LASER_FREE(memory);
}

/* ---- Backward ---- */

/* The columns of a head: the center m_d of exp(v), and which are wild. */
static void laser_scan_columns(const LaserCall *c, LaserWork *w, int slot, int head) {
    float *center = c->shift + (size_t)slot * (size_t)c->stride,
          *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    float *low = w->tile, *high = w->other;
    const float *v = c->v + laser_at(c, c->shape->qkv_strides, head, 0);
    memset(center, 0, (size_t)c->stride * sizeof *center);
    wild[0] = 0;
    if (!c->laser) return;
    for (int d = 0; d < c->D; d++) low[d] = high[d] = v[d];
    for (int t = 1; t < c->T; t++) {
        v += c->shape->qkv_strides[1];
        laser_fetch(v, LASER_AHEAD * c->shape->qkv_strides[1], c->D, 0);
        for (int d = 0; d < c->D; d++) {
            low[d] = v[d] < low[d] ? v[d] : low[d];
            high[d] = v[d] > high[d] ? v[d] : high[d];
        }
    }
    for (int d = 0; d < c->D; d++) {
        center[d] = fminf(0.5f * low[d] + 0.5f * high[d], low[d] + 1);
        if (!c->causal) {
            const LaserVec n = laser_set((float)ceil(high[d] * 1.4426950408889634));
            c->floor[(size_t)slot * (size_t)c->stride + (size_t)d] = laser_log(laser_set(0x1p-100f), n)[0];
            center[d] = fmaxf(center[d], high[d] - 69);
        } else if (!(high[d] - low[d] <= 64 && high[d] < 128 && low[d] > -128))
            wild[1 + (int)wild[0]++] = (float)d;
    }
}

static void laser_pack_keys_backward(const LaserCall *c, LaserWork *w, int slot, int head, int tile) {
    const size_t at = ((size_t)slot * (size_t)c->tiles + (size_t)tile) * LASER_KEYS;
    const float *center = c->shift + (size_t)slot * (size_t)c->stride;
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    const ptrdiff_t *strides = c->shape->qkv_strides;
    ptrdiff_t row;
    const float *k = laser_view(c, w->tile, c->k, strides, head, tile * LASER_KEYS, LASER_KEYS, &row);
    laser_pack_along(c, c->k_along + at * (size_t)c->units, k, row, LASER_KEYS, 1);
    if (c->pair == 2) laser_pack_across(c, c->k_across + at / 2 * (size_t)c->stride, k, row, LASER_KEYS, 1);
    const float *v = laser_view(c, w->tile, c->v, strides, head, tile * LASER_KEYS, LASER_KEYS, &row);
    if (c->laser) {
        for (int i = 0; i < LASER_KEYS; i++)
            for (int d = 0; d < c->stride; d += LASER_W) {
                LaserVec expm1;
                laser_exp_expm1(laser_load(v + i * row + d) - laser_load(center + d), &expm1);
                laser_store(w->tile + i * c->stride + d, expm1);
            }
        for (int n = 1; n <= (int)wild[0]; n++)
            for (int i = 0; i < LASER_KEYS; i++) w->tile[i * c->stride + (int)wild[n]] = 0;
        v = w->tile, row = c->stride;
    }
    laser_pack_along(c, c->v_along + at * (size_t)c->units, v, row, LASER_KEYS, 1);
}

/* Where lse in float32 has too few digits left for the weights, or a column is wild, sums are computed again. */
static int laser_needs_rows(const LaserCall *c, LaserWork *w, int head, int query) {
    if (w->wild[0] > 0) return 1;
    for (int i = query; i < query + LASER_LANES && i < c->T; i++)
        if (fabsf(c->lse[(size_t)head * (size_t)c->T + (size_t)i]) > 64) return 1;
    return 0;
}

/* K_i and 1 / (sum of row i), into w->row_shift and w->row_sum. q: the panel, packed. */
static void laser_row_sums(const LaserCall *c, LaserWork *w, const float *q, int slot, int head, int panel) {
    const int query = panel * LASER_LANES;
    memcpy(w->wild, c->wild + (size_t)slot * (size_t)(c->D + 1), (size_t)(c->D + 1) * sizeof *w->wild);
    if (laser_needs_rows(c, w, head, query)) {
        laser_rows(c, w, q, slot, head, panel, 0);
        for (int x = 0; x < LASER_LANES; x += LASER_W)
            laser_store(w->row_sum + x, 1 / laser_load(w->row_sum + x));
        return;
    }
    for (int i = 0; i < LASER_LANES; i++)
        w->row_sum[i] = query + i < c->T ? -c->lse[(size_t)head * (size_t)c->T + (size_t)(query + i)] : 0;
    for (int x = 0; x < LASER_LANES; x += LASER_W) { /* exp(-lse) = 1 / sum * 2^-K */
        LaserVec k, inverse = laser_exp_split(laser_load(w->row_sum + x), &k) + 1;
        laser_store(w->row_sum + x, inverse);
        laser_store(w->row_shift + x, -k);
    }
}

/* Takes the wild columns out of dO in w->other: leaves do / sum for them, and adds do to the row terms. */
static void laser_wild_gradient(const LaserCall *c, LaserWork *w, int slot, int query, float *term) {
    for (int n = 0; n < (int)w->wild[0]; n++) {
        const size_t at =
            ((size_t)slot * (size_t)c->D + (size_t)n) * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
        for (int i = 0; i < LASER_LANES; i++) {
            float *g = w->other + i * c->stride + (int)w->wild[1 + n];
            c->wild_g[at + (size_t)i] = *g / w->wide[n * LASER_LANES + i];
            c->wild_exponent[at + (size_t)i] = w->wide_exponent[n * LASER_LANES + i];
            term[i] += *g;
            *g = 0;
        }
    }
}

/* dO' / sum of a row in place of dO; returns the row term before it is divided by the sum: standard sum_d do o;
   LASER, V' being packed without its center: sum_d do (1 - exp(m - o)). */
static float laser_row_gradient(const LaserCall *c, float *dout, const float *out, int slot, float inverse) {
    const float *center = c->shift + (size_t)slot * (size_t)c->stride;
    const float *floor = c->floor + (size_t)slot * (size_t)c->stride;
    LaserVec row = laser_set(0);
    for (int d = 0; d < c->stride; d += LASER_W) {
        LaserVec g = laser_load(dout + d), o = laser_load(out + d), expm1;
        if (!c->laser) {
            row += g * o;
        } else {
            if (!c->causal)
                g = laser_select(o > laser_load(floor + d), g, laser_set(0)); /* none from the floor */
            const LaserVec exp = laser_exp_expm1(laser_load(center + d) - o, &expm1);
            row -= g * expm1;
            g *= exp;
        }
        laser_store(dout + d, g * inverse);
    }
    float total = 0;
    for (int x = 0; x < LASER_W; x++) total += row[x];
    return total;
}

/* Packs a panel of queries and of gradients. */
static void laser_pack_queries(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const int query = panel * LASER_LANES;
    const size_t at = (size_t)slot * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
    const size_t along = at * (size_t)c->units, across = at / (size_t)c->pair * (size_t)c->stride;
    ptrdiff_t row, dout_row;
    const float *q = laser_view(c, w->tile, c->q, c->shape->qkv_strides, head, query, LASER_LANES, &row);
    laser_pack_panel(c, c->q_panels + along, q, row, c->scale_log2e, w->other);
    laser_pack_across(c, c->q_across + across, q, row, LASER_LANES, c->scale_log2e);
    laser_row_sums(c, w, c->q_panels + along, slot, head, panel);
    memcpy(c->row_shift + at, w->row_shift, LASER_LANES * sizeof(float));
    const float *out = laser_view(c, w->tile, c->out, c->shape->out_strides, head, query, LASER_LANES, &row);
    const float *dout =
        laser_view(c, w->other, c->dout, c->shape->out_strides, head, query, LASER_LANES, &dout_row);
    float *term = c->row_term + at;
    for (int i = 0; i < LASER_LANES; i++) {
        term[i] = 0;
        laser_fetch(out, (i + LASER_AHEAD) * row, c->D, 0);
        laser_fetch(dout, (i + LASER_AHEAD) * dout_row, c->D, 0);
        if (dout != w->other)
            memcpy(w->other + i * c->stride, dout + i * dout_row, (size_t)c->stride * sizeof *dout);
    }
    laser_wild_gradient(c, w, slot, query, term);
    for (int i = 0; i < LASER_LANES; i++) {
        const float inverse = w->row_sum[i];
        term[i] += laser_row_gradient(c, w->other + i * c->stride, out + i * row, slot, inverse);
        term[i] *= inverse;
    }
    laser_pack_panel(c, c->g_panels + along, w->other, c->stride, 1, w->tile);
    laser_pack_across(c, c->g_across + across, w->other, c->stride, LASER_LANES, 1);
}

/* do_id p_ijd of the wild columns of a tile: summed over them into w->weight, for dS; over the queries into dv. */
static void laser_wide_gradient(const LaserCall *c, LaserWork *w, int slot, int head, int key, int keys,
                                int query) {
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    memset(w->weight, 0, LASER_SPAN * LASER_LANES * sizeof(float));
    for (int n = 0; n < (int)wild[0]; n++) {
        const size_t at =
            ((size_t)slot * (size_t)c->D + (size_t)n) * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
        const int d = (int)wild[1 + n];
        float power[LASER_SPAN], exponent[LASER_SPAN];
        laser_wide_values(c, power, exponent, head, key, keys, d);
        for (int j = 0; j < keys; j++) {
            LaserVec sum = laser_set(0);
            for (int x = j * LASER_LANES, i = 0; i < LASER_LANES; x += LASER_W, i += LASER_W) {
                const LaserVec k =
                    laser_load(w->exponent + x) + exponent[j] - laser_load(c->wild_exponent + at + i);
                const LaserVec g = laser_load(c->wild_g + at + i) * (laser_load(w->power + x) * power[j]) *
                                   laser_pow2(laser_select(k < 64, k, laser_set(64)));
                sum += g;
                laser_store(w->weight + x, laser_load(w->weight + x) + g);
            }
            for (int i = 0; i < LASER_W; i++) w->dv[j * c->stride + d] += sum[i];
        }
    }
}

/* Scores and dP of a panel into weights a and slopes dS = a (dP - term) [+ more], packed for the products that follow;
   `offset` is the panel's place in its block. */
static void laser_slopes(const LaserCall *c, LaserWork *w, size_t at, int keys, int offset,
                         const float *more) {
    const int pair = c->pair, round = c->bf16 && pair == 1, lda = LASER_QUERIES / pair;
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec K = laser_load(c->row_shift + at + x), term = laser_load(c->row_term + at + x);
        for (int j = 0; j < keys; j += 2) {
            LaserVec a[2], ds[2];
            LASER_UNROLL for (int n = 0; n < 2; n++) {
                const int from = (j + n) * LASER_LANES + x, to = (j + n) * lda + (offset + x) / pair;
                a[n] = laser_exp2(laser_load(w->score + from) - K);
                ds[n] = a[n] * (laser_load(w->slope + from) - term);
                if (more) ds[n] += laser_load(more + from);
                if (round) a[n] = laser_round_bf16(a[n]), ds[n] = laser_round_bf16(ds[n]);
                if (pair == 2) {
                    laser_store_along(w->a_along + to, a[n]);
                    laser_store_along(w->ds_along + to, ds[n]);
                } else {
                    laser_store(w->a_along + to, a[n]);
                    laser_store(w->ds_along + to, ds[n]);
                    laser_store(w->ds_across + from, ds[n]);
                }
            }
            if (pair == 2) laser_store(w->ds_across + j / 2 * LASER_LANES + x, laser_across(ds[0], ds[1]));
        }
    }
}

/* One panel of queries against some keys: its columns of the weights and of dS, and its dq. */
static void laser_backward_panel(const LaserCall *c, LaserWork *w, int slot, int head, int part, int key,
                                 int keys, int panel, int accumulate) {
    const int all = (int)laser_round_up((size_t)keys, LASER_ROWS);
    const int query = panel * LASER_LANES, offset = query % LASER_QUERIES, lda = LASER_QUERIES / c->pair;
    keys = laser_least(keys, query + LASER_LANES - key);
    if (keys < 0) keys = 0;
    const int even = keys + keys % 2, diagonal = key + keys > query + 1;
    for (int j = keys; j < all; j++) /* keys that no query of the panel sees */
        for (int i = j * lda + offset / c->pair, x = 0; x < LASER_LANES / c->pair; x++)
            w->a_along[i + x] = w->ds_along[i + x] = 0;
    if (keys == 0) return;
    const size_t at = (size_t)slot * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
    const size_t tile = (size_t)slot * (size_t)c->tiles * LASER_KEYS + (size_t)key, units = (size_t)c->units;
    laser_product_d(c, w->score, c->k_along + tile * units, c->q_panels + at * units, keys);
    laser_product_d(c, w->slope, c->v_along + tile * units, c->g_panels + at * units, keys);
    if (even > keys) /* an odd key's neighbour */
        for (int i = keys * LASER_LANES; i < even * LASER_LANES; i++)
            w->score[i] = LASER_MASKED, w->slope[i] = 0;
    if (diagonal) laser_mask(w->score, keys, key, query);
    const int wild = c->wild[(size_t)slot * (size_t)(c->D + 1)] > 0;
    if (wild) {
        laser_wide_weights(w, c->row_shift + at, keys);
        laser_wide_gradient(c, w, slot, head, key, keys, query);
    }
    if (query == 0 && key == 0) w->slope[0] = c->row_term[at], w->weight[0] = 0; /* row 0: one key, dS = 0 */
    laser_slopes(c, w, at, keys, offset, wild ? w->weight : NULL);
    const size_t to = ((size_t)slot * (size_t)c->parts + (size_t)part) * (size_t)c->panels + (size_t)panel;
    laser_product_keys(c, c->pair, c->dq_parts + to * (size_t)c->stride * LASER_LANES, accumulate, NULL, NULL,
                       c->k_across + tile / (size_t)c->pair * (size_t)c->stride, w->ds_across, LASER_LANES,
                       keys);
}

/* dk and dv of a tile of keys from their sums. */
static void laser_write_keys(const LaserCall *c, LaserWork *w, int slot, int head, int key, int keys) {
    const float *center = c->shift + (size_t)slot * (size_t)c->stride;
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    const ptrdiff_t token = c->shape->qkv_strides[1], first = laser_at(c, c->shape->qkv_strides, head, key);
    ptrdiff_t row = 0;
    const float *v =
        c->laser ? laser_view(c, w->tile, c->v, c->shape->qkv_strides, head, key, keys, &row) : NULL;
    for (int i = 0; i < keys; i++) {
        float *dv = w->dv + i * c->stride;
        laser_fetch(c->dk + first, (i + LASER_AHEAD) * token, c->D, 1);
        laser_fetch(c->dv + first, (i + LASER_AHEAD) * token, c->D, 1);
        for (int n = 1; n <= (int)wild[0]; n++) w->wide[n] = dv[(int)wild[n]];
        for (int d = 0; c->laser && d < c->stride; d += LASER_W) { /* dv = dv' exp(v - m) */
            LaserVec expm1,
                exp = laser_exp_expm1(laser_load(v + i * row + d) - laser_load(center + d), &expm1);
            laser_store(dv + d, laser_load(dv + d) * exp);
        }
        for (int n = 1; n <= (int)wild[0]; n++) dv[(int)wild[n]] = w->wide[n]; /* whole as it is */
        laser_scale_row(c->dk + first + i * token, w->dk + i * c->stride, c->D,
                        0.693147181f); /* q is times log2(e) */
        laser_scale_row(c->dv + first + i * token, dv, c->D, 1);
    }
}

/* dk and dv of some keys, and what they add to dq. */
static void laser_backward_keys(const LaserCall *c, LaserWork *w, int slot, int head, int part, int key,
                                int keys, int accumulate) {
    const size_t size = LASER_SPAN * (size_t)c->stride;
    memset(w->dk, 0, size * sizeof(float));
    memset(w->dv, 0, size * sizeof(float));
    for (int first = key / LASER_QUERIES * LASER_QUERIES; first < c->T; first += LASER_QUERIES) {
        int queries = 0;
        for (; queries < LASER_QUERIES && first + queries < c->T; queries += LASER_LANES)
            laser_backward_panel(c, w, slot, head, part, key, keys, (first + queries) / LASER_LANES,
                                 accumulate);
        const size_t at =
            ((size_t)slot * (size_t)c->blocks * LASER_QUERIES + (size_t)first) / (size_t)c->pair;
        laser_product_queries(c, w->dv, w->a_along, c->g_across + at * (size_t)c->stride, keys, key - first,
                              queries);
        laser_product_queries(c, w->dk, w->ds_along, c->q_across + at * (size_t)c->stride, keys, key - first,
                              queries);
    }
    laser_write_keys(c, w, slot, head, key, keys);
}

/* The first tile of a part: parts are equal areas under the diagonal. */
static int laser_part_begin(const LaserCall *c, int part) {
    return (int)(c->tiles * (1 - sqrt(1 - (double)part / c->parts)) + 0.5);
}

/* Backward over the keys of one part of a head. */
static void laser_backward_part(const LaserCall *c, LaserWork *w, int slot, int head, int part) {
    const int first = laser_part_begin(c, part) * LASER_KEYS,
              end = laser_part_begin(c, part + 1) * LASER_KEYS;
    for (int key = first; key < laser_least(end, c->T); key += LASER_SPAN)
        laser_backward_keys(c, w, slot, head, part, key,
                            laser_least(LASER_SPAN, laser_least(end, c->T) - key), key > first);
}

/* dq of a panel: its parts, summed in order. */
static void laser_write_queries(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const size_t size = (size_t)c->stride * LASER_LANES;
    const int query = panel * LASER_LANES;
    const float *sum = NULL;
    for (int part = 0; part < c->parts; part++) {
        const int first = laser_part_begin(c, part), last = laser_part_begin(c, part + 1);
        if (first == last || first * LASER_KEYS >= query + LASER_LANES) continue;
        const size_t at =
            ((size_t)slot * (size_t)c->parts + (size_t)part) * (size_t)c->panels + (size_t)panel;
        const float *from = c->dq_parts + at * size;
        for (size_t i = 0; sum && i < (size_t)c->D * LASER_LANES; i += LASER_W)
            laser_store(w->sum + i, laser_load(sum + i) + laser_load(from + i));
        sum = sum ? w->sum : from;
    }
    laser_write_rows(c, w, c->dq, c->shape->qkv_strides, head, query, sum, c->scale);
}

/* Room for the wild columns of the heads in flight, should one have any. */
static void laser_make_wild(LaserCall *c, void **memory, int slot) {
    const size_t size = (size_t)c->flight * (size_t)c->D * (size_t)c->blocks * LASER_QUERIES;
    if (c->wild[slot * (c->D + 1)] == 0 || *memory) return;
    *memory = laser_allocate(2 * size);
    c->wild_g = laser_aligned(*memory), c->wild_exponent = c->wild_g + size;
}

LASER_DEFINE void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                     const float *k, const float *v, const float *out, const float *lse,
                                     const AttentionShape *shape) {
    LaserCall call = {.shape = shape,
                      .q = q,
                      .k = k,
                      .v = v,
                      .out = out,
                      .lse = lse,
                      .dout = dout,
                      .dq = dq,
                      .dk = dk,
                      .dv = dv},
              *c = &call;
    void *memory = laser_begin(c, 1), *wild = NULL;
    const int panels = (c->T + LASER_LANES - 1) / LASER_LANES, alone = c->heads - c->heads % c->threads;
    const int n = c->heads - alone;
    LASER_OMP(omp parallel num_threads(c->threads)) {
        LaserWork w;
        const int me = laser_thread();
        laser_carve_work(c, &w, c->work + (size_t)me * c->work_size);
        LASER_OMP(omp for schedule(dynamic))
        for (int head = 0; head < alone; head++) {
            laser_scan_columns(c, &w, me, head);
            LASER_OMP(omp critical(laser_wild))
            laser_make_wild(c, &wild, me);
            for (int tile = 0; tile < c->tiles; tile++) laser_pack_keys_backward(c, &w, me, head, tile);
            for (int panel = 0; panel < panels; panel++) laser_pack_queries(c, &w, me, head, panel);
            for (int part = 0; part < c->parts; part++) laser_backward_part(c, &w, me, head, part);
            for (int panel = 0; panel < panels; panel++) laser_write_queries(c, &w, me, head, panel);
        }
        LASER_OMP(omp for schedule(static))
        for (int s = 0; s < n; s++) {
            laser_scan_columns(c, &w, s, alone + s);
            LASER_OMP(omp critical(laser_wild))
            laser_make_wild(c, &wild, s);
        }
        LASER_OMP(omp for schedule(static))
        for (int i = 0; i < n * c->tiles; i++)
            laser_pack_keys_backward(c, &w, i / c->tiles, alone + i / c->tiles, i % c->tiles);
        LASER_OMP(omp for schedule(dynamic))
        for (int i = 0; i < n * panels; i++) laser_pack_queries(c, &w, i % n, alone + i % n, i / n);
        LASER_OMP(omp for schedule(dynamic))
        for (int i = 0; i < n * c->parts; i++) laser_backward_part(c, &w, i % n, alone + i % n, i / n);
        LASER_OMP(omp for schedule(static))
        for (int i = 0; i < n * panels; i++) laser_write_queries(c, &w, i % n, alone + i % n, i / n);
    }
    LASER_FREE(memory);
    LASER_FREE(wild);
}

#endif
