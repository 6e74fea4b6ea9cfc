/* laser.h: causal multi-head attention, standard and LASER, forward and backward, on the CPU.

   A single-header library. In one C file write

       #define LASER_IMPLEMENTATION
       #include "laser.h"

   and include it plainly everywhere else. It needs GCC or clang (vector extensions), libm, and uses OpenMP
   when compiled with -fopenmp. Define before the implementation, if you want something else:
       LASER_STATIC                       every function static
       LASER_MALLOC(size), LASER_FREE(p)  where work memory comes from (malloc, free)
       LASER_FAIL(text)                   when memory runs out or a shape makes no sense (one line on stderr
                                          and exit(1)); it must not return

   WHAT IT COMPUTES, for every batch b and head h, with s_ij = scale * q_i . k_j over the keys j <= i,
   lse_i = log sum_j exp(s_ij) and a_ij = exp(s_ij - lse_i):

       standard   o_id = sum_j a_ij v_jd
       LASER      o_id = log sum_j a_ij exp(v_jd)

   LASER is S. S. Duvvuri and I. S. Dhillon, "LASER: Attention with Exponential Transformation", ICML 2025
   (arXiv:2411.03493).

   THE FUNCTIONS

       attention_forward(out, lse, q, k, v, &shape)
       attention_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape)
       attention_forward_naive, attention_backward_naive  the same in double, slowly, to read and to test by
       attention_memory(&shape, backward)                 bytes of work memory that a call allocates and frees

   q, k, v, dq, dk, dv: element (b, t, h, d) lies at b * qkv_strides[0] + t * qkv_strides[1] + h *
   qkv_strides[2] + d; out, dout likewise with out_strides. So q, k, v may be three parts of one packed
   buffer. lse is (B, H, T), without gaps; forward writes it for backward, NULL when there will be none.
   Gradients are written (=), not added. Outputs must not overlap inputs. Any B, T, H, D from 1 on. A call
   allocates its work memory and frees it, and keeps nothing: per head in flight (one to a thread) about 2
   T*D floats forward and 8 T*D backward, half of it with ATTENTION_BF16 on a CPU that multiplies bfloat16;
   nothing of size T*T. With glibc, mallopt(M_MMAP_THRESHOLD, ...) and M_TRIM_THRESHOLD keep large blocks
   from going back to the system and being faulted in again at each call. The same bits come out for any
   number of threads.

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
   ds_ij = a_ij (da_ij - sum_j a_ij da_ij), and sum_j a_ij exp(v_jd - o_id) = 1.) In matrix form, with V' =
   exp(V) and dO' = dO * exp(-O), it is standard attention's backward on V' and dO', with dV = dV' * V' and
   sum_d do_id in place of sum_d do_id o_id. So LASER costs what standard attention costs, plus T*D
   exponentials and logarithms, and only o and lse are kept from forward to backward.

   RANGE, or where a shift by the maximum went. An exponential exp(x) is computed as p * 2^k, p near 1, k an
   integer; shifting it by n log 2 is writing k - n for k, which changes no bit of p. All shifts here are
   such powers of two, and scaling sums by powers of two is exact: whatever shift keeps the numbers in
   range gives the same bits. So the running shift of the online softmax costs no accuracy, and a later
   token that moves a shift moves no earlier row.
   - Scores: row i is scaled by 2^-K_i, K_i = the running maximum of s_ij log2(e) rounded to an integer.
   - Values, shift = LASER_SHIFT_CAUSAL: column d of a head is scaled by 2^-n_d, n_d = v_0d log2(e) rounded:
     the one key that every row sees. While the values stay within 40 of v_0d, float32 holds every exp(v_jd)
     and every sum of them. From the tile of keys on where they do not, the column is "wild": it leaves the
     matrix products and is summed elementwise in numbers with an exponent of their own, rescaled as the
     running maximum over the keys moves. No visible contribution is lost whatever the later tokens are; |v|
     to 1e6. Backward does the same to columns wider than 64 or farther than 128 from zero, where o in
     float32 has too few digits left.
   - Values, shift = LASER_SHIFT_SEQUENCE, the paper's: n_d follows the column's maximum over the WHOLE
     sequence, later tokens included, and the sum is taken as it comes. What lies 2^-100 = exp(-69.3) below
     that maximum is lost: such an o_id stays at maximum - 69.3, depends on later tokens, and passes no
     gradient (the paper's formula has log 0 there).

   SMALL VALUES. Where |v| << 1, all exp(v) are nearly 1, and what tells them apart is lost when they are
   rounded to bfloat16. Since sum_j a_ij = 1, a center may be taken out of V' before it is rounded and put
   back after:
       sum_j a_ij V'_jd = c_d + sum_j a_ij (V'_jd - c_d)
       sum_d do'_id V'_jd - sum_d do_id = sum_d do'_id (V'_jd - c_d) - sum_d do_id (1 - c_d exp(-o_id))
   and what remains is as small as v and keeps its digits. Forward (bf16) takes c from the values of each
   tile of keys, so a tile that a row sees in part, the last, is summed in float32 without; backward from
   the column.

   PRECISION. ATTENTION_BF16 rounds the operands of the products to bfloat16: q, k, v or exp(v) - c, a and
   their gradients. Sums, exp, log, shifts and outputs are float32 in both. A row's a_ij are rounded before
   they are normalised, so that they still sum to one.

   READING. First the naive twin, the formulas as they stand. Then laser_rows, the forward over the keys of
   a panel of queries, and laser_backward_panel; scores lie key by key with the queries side by side in the
   lanes, so that maxima and sums of a row never cross lanes. attention_forward and attention_backward, at
   the end, list their steps. */
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
LASER_API size_t attention_memory(const AttentionShape *shape, int backward);
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
enum { LASER_W = 8, LASER_ROWS = 4, LASER_VECS = 2 };
#elif defined(__aarch64__)
enum { LASER_W = 4, LASER_ROWS = 8, LASER_VECS = 2 };
#else
enum { LASER_W = 4, LASER_ROWS = 4, LASER_VECS = 2 };
#endif
enum {
    LASER_LANES = LASER_W * LASER_VECS,
    LASER_KEYS = 64,     /* a tile of keys */
    LASER_SPAN = 128,    /* the keys that backward takes at a time */
    LASER_QUERIES = 128, /* a block of queries in backward */
    LASER_AHEAD = 12     /* rows of the caller's that are fetched ahead */
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

/* ---- Products ---- */

/* C (rows, columns) = [C +] [center weights^T +] A B, summed over depth: A(r, p) = a[r * a_row + p *
   a_depth], B's row p begins at b + p * ldb. With pair == 2 a float of A and B is two bfloat16 of one sum.
   */
typedef struct {
    float *c;
    const float *a, *b, *center, *weights;
    ptrdiff_t ldc, a_row, a_depth, ldb, rows, columns, depth;
    int accumulate;
    int triangle; /* A(r, p) is 0 for p < r + zeros, and need not be read there */
    ptrdiff_t zeros;
} LaserProduct;

/* ROWS rows and `vecs` vectors of C, in registers. */
LASER_INLINE void laser_kernel(int pair, int vecs, const LaserProduct *p, ptrdiff_t row, ptrdiff_t column,
                               ptrdiff_t first, ptrdiff_t a_row, ptrdiff_t a_depth) {
    const float *a = p->a + row * a_row + first * a_depth, *b = p->b + first * p->ldb + column;
    float *c = p->c + row * p->ldc + column;
    LaserVec sum[LASER_ROWS][LASER_VECS];
    LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++) sum[r][v] =
        p->accumulate ? laser_load(c + r * p->ldc + v * LASER_W) : laser_set(0);
    if (p->center)
        LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++)
            sum[r][v] += p->center[row + r] * laser_load(p->weights + column + v * LASER_W);
    _Pragma("GCC unroll 2") for (ptrdiff_t n = p->depth - first; n > 0; n--, a += a_depth, b += p->ldb) {
        LaserVec x[LASER_VECS];
        LASER_UNROLL for (int v = 0; v < vecs; v++) x[v] = laser_load(b + v * LASER_W);
        LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) {
            const LaserVec y = laser_set(a[r * a_row]);
            LASER_UNROLL for (int v = 0; v < vecs; v++) sum[r][v] =
                pair == 2 ? laser_dot(sum[r][v], y, x[v]) : sum[r][v] + y * x[v];
        }
    }
    LASER_UNROLL for (int r = 0; r < LASER_ROWS; r++) LASER_UNROLL for (int v = 0; v < vecs; v++)
        laser_store(c + r * p->ldc + v * LASER_W, sum[r][v]);
}

/* Whole vectors and whole ROWS: what C has beyond its rows and columns is written too. The strides that are
   1 are spelled out, for the kernel's addresses. */
LASER_INLINE void laser_product_of(int pair, const LaserProduct *p) {
    for (ptrdiff_t column = 0; column < p->columns; column += LASER_LANES)
        for (ptrdiff_t row = 0; row < p->rows; row += LASER_ROWS) {
            const ptrdiff_t first = p->triangle && row + p->zeros > 0 ? (row + p->zeros) / pair : 0;
            if (p->columns - column <= LASER_W)
                laser_kernel(pair, 1, p, row, column, first, p->a_row, p->a_depth);
            else if (p->a_row == 1)
                laser_kernel(pair, LASER_VECS, p, row, column, first, 1, p->a_depth);
            else
                laser_kernel(pair, LASER_VECS, p, row, column, first, p->a_row, 1);
        }
}

static void laser_product(int pair, LaserProduct p) {
    if (pair == 2)
        laser_product_of(2, &p);
    else
        laser_product_of(1, &p);
}

/* ---- A call: sizes and memory ---- */

/* The sizes of one call. With pair == 2 a float of a packed operand holds two bfloat16, neighbours in the
   dimension that the product sums over: "along" a row of D, `units` floats a row, or "across" two rows,
   `stride` floats for both. With pair == 1 both forms of a matrix are one and the same. */
typedef struct {
    const AttentionShape *shape;
    ptrdiff_t T, D, heads, threads, flight; /* flight: heads worked on at a time */
    ptrdiff_t parts;                        /* into which backward cuts the keys of a head */
    ptrdiff_t tiles, keys;                  /* tiles of KEYS keys; T rounded up to whole ones */
    ptrdiff_t panels, queries; /* panels of LANES queries; T rounded up to whole blocks of QUERIES */
    ptrdiff_t stride, units;   /* D rounded up for ROWS and W, and what that is in pairs */
    float scale, scale_log2e;
    int backward, laser, causal, bf16, pair;
} LaserCall;

/* A head: the caller's rows (at token 0), and what is packed of it. */
typedef struct {
    const float *q, *k, *v, *out, *dout, *lse;
    float *new_out, *new_lse, *dq, *dk, *dv;
    float *shift;                  /* (stride) forward n_d; backward the center m_d of exp(v) */
    float *floor;                  /* (stride) backward, paper's shift: the least o of a column */
    float *wild;                   /* (D + 1) backward: how many columns are wild, and which */
    float *wild_tiles;             /* (tiles, stride) forward: 1 where a tile of a column is wild */
    float *center;                 /* (tiles, stride) forward, bf16 LASER: what V' of a tile lies around */
    float *k_along, *k_across;     /* (keys, units), (keys / pair, stride) */
    float *v_along, *v_across;     /* the same of V or V' - center; backward; forward */
    float *q_panels, *g_panels;    /* (panels, units, LANES) along, transposed; g is dO' / sum of a row */
    float *q_across, *g_across;    /* (queries / pair, stride) */
    float *row_shift, *row_term;   /* (queries) K_i, and what is subtracted from dP */
    float *wild_g, *wild_exponent; /* (D, queries) do / sum of a wild column */
    float *dq_parts;               /* (parts, panels, stride, LANES) */
    void *wild_memory;             /* where wild_g lies; NULL before a head has wild columns */
} LaserHead;

/* One thread's buffers. */
typedef struct {
    float score[LASER_SPAN * LASER_LANES], slope[LASER_SPAN * LASER_LANES]; /* scores; dP */
    float weight[LASER_SPAN * LASER_LANES]; /* a, the right operand over keys */
    float power[LASER_SPAN * LASER_LANES], exponent[LASER_SPAN * LASER_LANES]; /* a as power * 2^exponent */
    float a_along[LASER_SPAN * LASER_QUERIES],
        ds_along[LASER_SPAN * LASER_QUERIES];           /* left operands over queries */
    float ds_across[LASER_SPAN * LASER_LANES];          /* right operand over keys */
    float row_shift[LASER_LANES], row_sum[LASER_LANES]; /* K_i; sum of a */
    float row_weight[LASER_LANES],
        tile_weight[LASER_LANES]; /* sum of a as rounded; what one tile adds to it */
    float *tile, *other;          /* (SPAN, stride) rows on the way to being packed */
    float *query;                 /* (units, LANES) */
    float *sum;                   /* (stride, LANES) o before it is normalised; dq */
    float *dk, *dv;               /* (SPAN, stride) */
    float *wild, *wild_from; /* (D + 1) how many columns are wild here, which; (stride) their first tile */
    float *wide, *wide_exponent; /* (D, LANES) their sums, wide * 2^wide_exponent */
    float *exact;                /* (KEYS, stride) V' of a tile in float32; of which tile: */
    const LaserHead *exact_head;
    ptrdiff_t exact_tile;
} LaserWork;

static ptrdiff_t laser_up(ptrdiff_t x, ptrdiff_t unit) { return (x + unit - 1) / unit * unit; }
static ptrdiff_t laser_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }

static LaserCall laser_sizes(const AttentionShape *s, int backward) {
    if (s->batch < 1 || s->seq_len < 1 || s->heads < 1 || s->head_dim < 1)
        LASER_FAIL("attention: batch, seq_len, heads and head_dim must be at least 1");
    LaserCall c = {.shape = s, .T = s->seq_len, .D = s->head_dim, .threads = 1, .backward = backward};
    c.heads = (ptrdiff_t)s->batch * s->heads;
    c.laser = s->kind == ATTENTION_LASER, c.causal = s->shift == LASER_SHIFT_CAUSAL;
    c.bf16 = s->precision == ATTENTION_BF16, c.pair = c.bf16 ? LASER_PAIR : 1;
    c.scale = (float)laser_scale(s), c.scale_log2e = (float)(laser_scale(s) * 1.4426950408889634);
    c.keys = laser_up(c.T, LASER_KEYS), c.tiles = c.keys / LASER_KEYS;
    c.queries = laser_up(c.T, LASER_QUERIES), c.panels = laser_up(c.T, LASER_LANES) / LASER_LANES;
    c.stride = laser_up(laser_up(c.D, LASER_ROWS), LASER_W);
    c.units = laser_up(c.stride / c.pair, LASER_W);
#ifdef _OPENMP
    c.threads = omp_get_max_threads();
#endif
    c.flight = laser_least(c.threads, c.heads);
    /* few heads: parts for the threads, T*D floats each; from the shape alone, for the same bits */
    c.parts = laser_least(laser_least(32 / c.heads, c.T / 256), 8);
    if (c.parts < 1) c.parts = 1;
    return c;
}

/* A struct and the arrays its pointers point to lie in one piece: offset of the pointer, floats of the
   array. */
typedef struct {
    size_t pointer;
    ptrdiff_t count;
} LaserPart;

/* Returns the floats of the whole piece; sets the pointers unless owner is NULL. */
static ptrdiff_t laser_carve(void *owner, size_t size, const LaserPart *parts, size_t count) {
    ptrdiff_t used = laser_up((ptrdiff_t)(size / sizeof(float)), 16);
    for (size_t i = 0; i < count; i++) {
        if (owner)
            *(float **)(void *)((char *)owner + parts[i].pointer) =
                parts[i].count ? (float *)owner + used : NULL;
        used += laser_up(parts[i].count, 16);
    }
    return used;
}

static ptrdiff_t laser_carve_head(const LaserCall *c, LaserHead *h) {
    const ptrdiff_t back = c->backward, front = !back, panels = c->panels * LASER_LANES;
    const ptrdiff_t centers = front && c->laser ? c->tiles * c->stride : 0;
    const ptrdiff_t key_rows = c->keys / c->pair * c->stride, query_rows = c->queries / c->pair * c->stride;
    const LaserPart parts[] = {{offsetof(LaserHead, shift), c->stride},
                               {offsetof(LaserHead, floor), back * c->stride},
                               {offsetof(LaserHead, wild), back * (c->D + 1)},
                               {offsetof(LaserHead, wild_tiles), centers},
                               {offsetof(LaserHead, center), centers},
                               {offsetof(LaserHead, k_along), c->keys * c->units},
                               {offsetof(LaserHead, k_across), c->pair == 2 ? back * key_rows : 0},
                               {offsetof(LaserHead, v_along), back * c->keys * c->units},
                               {offsetof(LaserHead, v_across), front * key_rows},
                               {offsetof(LaserHead, q_panels), back * panels * c->units},
                               {offsetof(LaserHead, g_panels), back * panels * c->units},
                               {offsetof(LaserHead, q_across), back * query_rows},
                               {offsetof(LaserHead, g_across), back * query_rows},
                               {offsetof(LaserHead, row_shift), back * c->queries},
                               {offsetof(LaserHead, row_term), back * c->queries},
                               {offsetof(LaserHead, dq_parts), back * c->parts * panels * c->stride}};
    const ptrdiff_t used = laser_carve(h, sizeof *h, parts, sizeof parts / sizeof *parts);
    if (h && c->pair == 1) h->k_across = h->k_along;
    return used;
}

static ptrdiff_t laser_carve_work(const LaserCall *c, LaserWork *w) {
    const LaserPart parts[] = {{offsetof(LaserWork, tile), LASER_SPAN * c->stride},
                               {offsetof(LaserWork, other), LASER_SPAN * c->stride},
                               {offsetof(LaserWork, query), LASER_LANES * c->units},
                               {offsetof(LaserWork, sum), LASER_LANES * c->stride},
                               {offsetof(LaserWork, dk), LASER_SPAN * c->stride},
                               {offsetof(LaserWork, dv), LASER_SPAN * c->stride},
                               {offsetof(LaserWork, wild), c->D + 1},
                               {offsetof(LaserWork, wild_from), c->stride},
                               {offsetof(LaserWork, wide), LASER_LANES * c->D},
                               {offsetof(LaserWork, wide_exponent), LASER_LANES * c->D},
                               {offsetof(LaserWork, exact), LASER_KEYS * c->stride}};
    return laser_carve(w, sizeof *w, parts, sizeof parts / sizeof *parts);
}

static float *laser_allocate(ptrdiff_t floats, void **memory) {
    *memory = LASER_MALLOC((size_t)floats * sizeof(float) + 64);
    if (!*memory) LASER_FAIL("attention: out of memory; use a smaller batch or a shorter sequence");
    return (float *)(((uintptr_t)*memory + 63) / 64 * 64);
}

LASER_DEFINE size_t attention_memory(const AttentionShape *shape, int backward) {
    const LaserCall c = laser_sizes(shape, backward);
    const ptrdiff_t floats = c.flight * laser_carve_head(&c, NULL) + c.threads * laser_carve_work(&c, NULL);
    return (size_t)floats * sizeof(float) + 64;
}

/* C (keys, LANES) = A B over d: A (keys, units) along, B a panel (units, LANES). */
static LaserProduct laser_over_d(const LaserCall *c, float *C, const float *A, const float *B,
                                 ptrdiff_t keys) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = keys, .columns = LASER_LANES};
    p.ldc = p.ldb = LASER_LANES, p.a_row = c->units, p.a_depth = 1,
    p.depth = laser_up(c->D, c->pair) / c->pair;
    return p;
}

/* C (D, LANES) = [C +] A^T B over keys: A (keys, stride) across, B (keys, LANES) across. */
static LaserProduct laser_over_keys(const LaserCall *c, float *C, const float *A, const float *B,
                                    ptrdiff_t keys, int accumulate) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = c->D, .columns = LASER_LANES, .accumulate = accumulate};
    p.ldc = p.ldb = LASER_LANES, p.a_row = 1, p.a_depth = c->stride,
    p.depth = laser_up(keys, c->pair) / c->pair;
    return p;
}

/* ---- Packing ---- */

/* Rows first .. first + count - 1 of a head, padded with zeros to whole vectors and rows: the caller's own
   where they need no padding, else a copy in `tile`. *row: floats from row to row, on entry the caller's.
   */
static const float *laser_view(const LaserCall *c, float *tile, const float *x, ptrdiff_t *row,
                               ptrdiff_t first, ptrdiff_t count) {
    x += first * *row;
    if (c->D == c->stride && first + count <= c->T) return x;
    for (ptrdiff_t r = 0; r < count; r++) {
        const ptrdiff_t inside = first + r < c->T ? c->D : 0;
        if (inside) memcpy(tile + r * c->stride, x + r * *row, (size_t)inside * sizeof *tile);
        memset(tile + r * c->stride + inside, 0, (size_t)(c->stride - inside) * sizeof *tile);
    }
    *row = c->stride;
    return tile;
}

/* Asks for a row of the caller's that comes up: rows may lie pages apart, where no hardware prefetch
   follows. */
LASER_INLINE void laser_fetch(const float *row, ptrdiff_t ahead, ptrdiff_t D, int write) {
    const uintptr_t at =
        (uintptr_t)row + (uintptr_t)(ahead * (ptrdiff_t)sizeof *row); /* may be past the last */
    for (ptrdiff_t d = 0; d < D; d += 16) {
        if (write)
            __builtin_prefetch((const float *)at + d, 1);
        else
            __builtin_prefetch((const float *)at + d, 0);
    }
}

/* A number as it goes into a product packed in float32. */
LASER_INLINE LaserVec laser_operand(const LaserCall *c, LaserVec x) {
    return c->bf16 && c->pair == 1 ? laser_round_bf16(x) : x;
}

static void laser_pack_along(const LaserCall *c, float *to, const float *from, ptrdiff_t row, int count,
                             float scale) {
    for (int r = 0; r < count; r++, to += c->units, from += row) {
        laser_fetch(from, LASER_AHEAD * row, c->D, 0);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec x = laser_load(from + d) * scale;
            if (c->pair == 2)
                laser_store_along(to + d / 2, x);
            else
                laser_store(to + d, laser_operand(c, x));
        }
        for (ptrdiff_t u = c->stride / c->pair; u < c->units; u++) to[u] = 0;
    }
}

static void laser_pack_across(const LaserCall *c, float *to, const float *from, ptrdiff_t row, int count,
                              float scale) {
    for (int r = 0; r < count; r += c->pair, to += c->stride, from += c->pair * row) {
        for (int p = 0; p < c->pair; p++) laser_fetch(from, (LASER_AHEAD + p) * row, c->D, 0);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec x = laser_load(from + d) * scale;
            laser_store(to + d, c->pair == 2 ? laser_across(x, laser_load(from + row + d) * scale)
                                             : laser_operand(c, x));
        }
    }
}

/* to (columns, to_row) = from (rows, from_row) transposed, and times `scale` unless the floats are pairs;
   rows and columns are multiples of W. */
LASER_INLINE void laser_transpose(float *to, ptrdiff_t to_row, const float *from, ptrdiff_t from_row,
                                  ptrdiff_t rows, ptrdiff_t columns, int pairs, float scale) {
    for (ptrdiff_t i = 0; i < rows; i += LASER_W)
        for (ptrdiff_t j = 0; j < columns; j += LASER_W) {
            LaserVec x[LASER_W], y[LASER_W];
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) {
                x[r] = laser_load(from + (i + r) * from_row + j);
                if (!pairs) x[r] *= scale;
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
    laser_pack_along(c, spare, from, row, LASER_LANES, scale);
    laser_transpose(to, LASER_LANES, spare, c->units, LASER_LANES, c->units, 1, 1);
}

/* A panel of results from its transpose, times `scale`, into the caller's rows; spoils `tile`. */
static void laser_write_panel(const LaserCall *c, float *out, ptrdiff_t row, ptrdiff_t query,
                              const float *transpose, float scale, float *tile) {
    const ptrdiff_t count = laser_least(LASER_LANES, c->T - query), columns = laser_up(c->D, LASER_W);
    out += query * row;
    for (ptrdiff_t i = 0; i < count; i++) laser_fetch(out, i * row, c->D, 1);
    if (c->D == columns && count == LASER_LANES) {
        laser_transpose(out, row, transpose, LASER_LANES, columns, LASER_LANES, 0, scale);
        return;
    }
    laser_transpose(tile, c->stride, transpose, LASER_LANES, columns, LASER_LANES, 0, scale);
    for (ptrdiff_t i = 0; i < count; i++)
        memcpy(out + i * row, tile + i * c->stride, (size_t)c->D * sizeof *out);
}

/* ---- Wild columns: sums of numbers with an exponent of their own ---- */

/* Weights 2^(score - K) of a tile as power * 2^exponent. */
static void laser_wide_weights(LaserWork *w, const float *row_shift, ptrdiff_t keys) {
    for (ptrdiff_t j = 0; j < keys; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            const LaserVec s = laser_load(w->score + j * LASER_LANES + x), K = laser_load(row_shift + x);
            const LaserInt seen = s > LASER_MASKED;
            LaserVec k, p = laser_exp2_split(laser_max(s - K, laser_set(-4e6f)), &k);
            laser_store(w->power + j * LASER_LANES + x, laser_select(seen, p, laser_set(0)));
            laser_store(w->exponent + j * LASER_LANES + x, laser_select(seen, k + K, laser_set(LASER_NONE)));
        }
}

/* exp(v) of one column of at most SPAN keys as power * 2^exponent. */
static void laser_wide_values(const LaserCall *c, const LaserHead *h, float *power, float *exponent,
                              ptrdiff_t key, ptrdiff_t keys, ptrdiff_t d) {
    for (ptrdiff_t j = 0; j < LASER_SPAN; j++)
        power[j] = j < keys ? h->v[(key + j) * c->shape->qkv_strides[1] + d] : 0;
    for (int j = 0; j < LASER_SPAN; j += LASER_W) {
        LaserVec k, p = laser_exp_split(laser_load(power + j), &k) + 1;
        laser_store(power + j, p);
        laser_store(exponent + j, k);
    }
}

/* The same of a column of a tile that is packed, as the products see it. */
static void laser_packed_values(const LaserCall *c, const LaserHead *h, float *power, float *exponent,
                                ptrdiff_t key, ptrdiff_t d) {
    for (ptrdiff_t j = 0; j < LASER_KEYS; j++) {
        uint32_t bits;
        memcpy(&bits, &h->v_across[(key + j) / c->pair * c->stride + d], sizeof bits);
        if (c->pair == 2) bits = j % 2 ? bits & 0xFFFF0000 : bits << 16;
        memcpy(&power[j], &bits, sizeof bits);
        exponent[j] = h->shift[d];
    }
}

/* (sum, e) += x * factor * 2^f: the same bits as sum += x * factor wherever float32 could hold it. */
LASER_INLINE void laser_wide_add(LaserVec *sum, LaserVec *e, LaserVec x, float factor, LaserVec f) {
    const LaserVec larger = laser_max(*e, f), scaled = x * laser_pow2(f - larger);
    *sum = laser_select(*e < larger, *sum * laser_pow2(*e - larger), *sum) + scaled * factor;
    *e = larger;
}

/* Adds a tile of keys to the sums of the columns that w->wild lists. In forward the tiles before a column's
   first wild one count with the numbers that the products use: so rows that see only those tiles stay as
   they are when a later token makes the column wild. */
static void laser_wide_sum(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                           ptrdiff_t keys, int diagonal) {
    const ptrdiff_t tile = key / LASER_KEYS;
    const int round = c->bf16 && !c->backward && !diagonal;
    for (int i = 0; i < (int)w->wild[0]; i++) {
        const ptrdiff_t d = (ptrdiff_t)w->wild[1 + i];
        const int packed = !c->backward && (float)tile < w->wild_from[d];
        const float center = packed && c->bf16 ? h->center[tile * c->stride + d] : 0;
        float power[LASER_SPAN], exponent[LASER_SPAN];
        if (packed)
            laser_packed_values(c, h, power, exponent, key, d);
        else
            laser_wide_values(c, h, power, exponent, key, keys, d);
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *at = w->wide + i * LASER_LANES + x, *at_exponent = w->wide_exponent + i * LASER_LANES + x;
            LaserVec sum = laser_load(at), e = laser_load(at_exponent);
            if (center != 0)
                laser_wide_add(&sum, &e, laser_load(w->tile_weight + x), center,
                               laser_load(w->row_shift + x) + h->shift[d]);
            for (ptrdiff_t j = 0; j < keys; j++) {
                const LaserVec a = laser_load(w->power + j * LASER_LANES + x);
                laser_wide_add(&sum, &e, round ? laser_round_bf16(a) : a, power[j],
                               laser_load(w->exponent + j * LASER_LANES + x) + exponent[j]);
            }
            laser_store(at, sum);
            laser_store(at_exponent, e);
        }
    }
}

/* ---- Forward ---- */

/* Step 1: which power of two scales exp(v) of each column. */
static void laser_shift_columns(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t piece) {
    (void)w, (void)piece;
    memset(h->shift, 0, (size_t)c->stride * sizeof(float));
    memcpy(h->shift, h->v, (size_t)c->D * sizeof(float));
    for (ptrdiff_t t = 1; !c->causal && t < c->T; t++)
        for (ptrdiff_t d = 0; d < c->D; d++) {
            const float v = h->v[t * c->shape->qkv_strides[1] + d];
            h->shift[d] = v > h->shift[d] ? v : h->shift[d];
        }
    for (ptrdiff_t d = 0; d < c->D; d++) {
        const double n = fmax(-2e6, fmin(2e6, h->shift[d])) * 1.4426950408889634;
        h->shift[d] = (float)(c->causal ? rint(n) : ceil(n));
    }
}

/* V' = exp(v) 2^-n of a tile into w->exact; the first time its center, and where it is wild. */
static void laser_exp_tile(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile, int first) {
    const ptrdiff_t keys = laser_least(LASER_KEYS, c->T - tile * LASER_KEYS), at = tile * c->stride;
    ptrdiff_t row = c->shape->qkv_strides[1];
    const float *v = laser_view(c, w->tile, h->v, &row, tile * LASER_KEYS, LASER_KEYS);
    w->exact_head = h, w->exact_tile = tile;
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        const LaserVec n = laser_load(h->shift + d);
        LaserVec low = laser_set(3e38f), high = laser_set(0), wild = laser_set(0);
        for (ptrdiff_t j = 0; j < LASER_KEYS; j++) {
            const LaserVec x = laser_load(v + j * row + d), y = x * LASER_LOG2E - n, e = laser_exp(x, n);
            laser_fetch(v, (j + LASER_AHEAD) * row + d, LASER_W, 0);
            laser_store(w->exact + j * c->stride + d, e);
            if (j >= keys) continue;
            low = laser_min(low, e), high = laser_max(high, e);
            wild = laser_select((y > 58) | (y < -58), laser_set(1), wild); /* 40 log 2 */
        }
        if (!first) continue;
        laser_store(h->center + at + d, laser_min((low + high) * 0.5f, low * 2.7f));
        laser_store(h->wild_tiles + at + d, c->causal ? wild : laser_set(0));
    }
}

/* Step 2: packs a tile of keys and values. */
static void laser_pack_keys(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    const ptrdiff_t key = tile * LASER_KEYS, token = c->shape->qkv_strides[1];
    ptrdiff_t row = token;
    const float *k = laser_view(c, w->tile, h->k, &row, key, LASER_KEYS), *v = w->exact;
    laser_pack_along(c, h->k_along + key * c->units, k, row, LASER_KEYS, 1);
    if (!c->laser) {
        row = token;
        v = laser_view(c, w->tile, h->v, &row, key, LASER_KEYS);
    } else {
        laser_exp_tile(c, h, w, tile, 1);
        row = c->stride;
    }
    if (c->laser && c->bf16) {
        for (ptrdiff_t i = 0; i < LASER_KEYS * c->stride; i += LASER_W)
            laser_store(w->tile + i,
                        laser_load(w->exact + i) - laser_load(h->center + tile * c->stride + i % c->stride));
        v = w->tile;
    }
    laser_pack_across(c, h->v_across + key / c->pair * c->stride, v, row, LASER_KEYS, 1);
}

/* Lists the columns that are wild among the keys up to a tile. */
static void laser_list_wild(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    w->wild[0] = 0;
    if (!c->laser) return;
    for (ptrdiff_t d = 0; d < c->stride; d++) w->wild_from[d] = (float)c->tiles;
    for (ptrdiff_t t = tile; t >= 0; t--)
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserInt wild = laser_load(h->wild_tiles + t * c->stride + d) > 0;
            laser_store(w->wild_from + d,
                        laser_select(wild, laser_set((float)t), laser_load(w->wild_from + d)));
        }
    for (ptrdiff_t d = 0; d < c->D; d++)
        if (w->wild_from[d] < (float)c->tiles) w->wild[1 + (int)w->wild[0]++] = (float)d;
}

/* Marks the scores of keys that a query does not see. */
static void laser_mask(float *score, ptrdiff_t keys, ptrdiff_t key, ptrdiff_t query) {
    LaserInt lane;
    memcpy(&lane, laser_lane, sizeof lane);
    for (ptrdiff_t j = query > key ? query - key : 0; j < keys; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *s = score + j * LASER_LANES + x;
            const LaserInt hidden = lane < (int32_t)(key + j - query - x);
            laser_store(s, laser_select(hidden, laser_set(LASER_MASKED), laser_load(s)));
        }
}

/* One step of the online softmax: moves the row shifts to a tile of scores, rescaling the sums. */
static void laser_move_shift(const LaserCall *c, LaserWork *w, ptrdiff_t keys, int rescale) {
    LaserVec top[LASER_VECS], odd[LASER_VECS];
    LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) top[x] = odd[x] = laser_load(w->score + x * LASER_W);
    for (ptrdiff_t j = keys % 2; j < keys; j += 2) LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
            top[x] = laser_max(top[x], laser_load(w->score + j * LASER_LANES + x * LASER_W));
            odd[x] = laser_max(odd[x], laser_load(w->score + (j + 1) * LASER_LANES + x * LASER_W));
        }
    for (int x = 0; x < LASER_VECS; x++) {
        const int at = x * LASER_W;
        top[x] = laser_max(top[x], odd[x]);
        const LaserVec old = laser_load(w->row_shift + at), big = (LaserVec)((LaserInt)top[x] & 0x7FFFFFFF);
        /* beyond 2^22 a float has no fraction worth rounding */
        const LaserVec K =
            laser_max(old, laser_select(big < 4e6f, (top[x] + LASER_ROUND) - LASER_ROUND, top[x]));
        if (!laser_any(K > old)) continue;
        const LaserVec scale = laser_pow2(old - K);
        laser_store(w->row_shift + at, K);
        laser_store(w->row_sum + at, laser_load(w->row_sum + at) * scale);
        laser_store(w->row_weight + at, laser_load(w->row_weight + at) * scale);
        for (ptrdiff_t d = 0; rescale && d < c->D; d++)
            laser_store(w->sum + d * LASER_LANES + at, laser_load(w->sum + d * LASER_LANES + at) * scale);
    }
}

/* Scores of a tile into weights, as the right operand of the product with V; their sums. */
LASER_INLINE void laser_weigh(LaserWork *w, ptrdiff_t keys, int pair, int round) {
    LaserVec sum[LASER_VECS], weight[LASER_VECS], K[LASER_VECS];
    LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
        sum[x] = weight[x] = laser_set(0);
        K[x] = laser_load(w->row_shift + x * LASER_W);
    }
    for (ptrdiff_t i = 0; keys % 2 && i < LASER_LANES; i++) w->score[keys * LASER_LANES + i] = LASER_MASKED;
    for (ptrdiff_t j = 0; j < keys; j += 2) LASER_UNROLL for (int x = 0; x < LASER_VECS; x++) {
            const float *s = w->score + j * LASER_LANES + x * LASER_W;
            float *to = w->weight + j / pair * LASER_LANES + x * LASER_W;
            LaserVec a = laser_exp2(laser_load(s) - K[x]), b = laser_exp2(laser_load(s + LASER_LANES) - K[x]);
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

/* Goes over the keys of a panel of queries: leaves K_i, the sums of the weights, the sums of the columns that
   w->wild lists, and in forward the sums of a V. q: the panel, packed. */
static void laser_rows(const LaserCall *c, const LaserHead *h, LaserWork *w, const float *q,
                       ptrdiff_t query) {
    const ptrdiff_t end = laser_least(query + LASER_LANES, c->T);
    const int wild = w->wild[0] > 0, centered = c->laser && c->bf16;
    for (int i = 0; i < LASER_LANES; i++)
        w->row_shift[i] = LASER_MASKED, w->row_sum[i] = w->row_weight[i] = 0;
    for (int i = 0; i < (int)w->wild[0] * LASER_LANES; i++) w->wide[i] = 0, w->wide_exponent[i] = LASER_NONE;
    for (ptrdiff_t key = 0; key < end; key += LASER_KEYS) {
        const ptrdiff_t keys = laser_least(LASER_KEYS, end - key);
        const int diagonal = key + LASER_KEYS > query + 1;
        /* What hangs on all values of a tile, as its center does, must not reach a row that does not see
           all of it: so bf16 LASER sums the last tile as it is, in float32. */
        const int exact = centered && diagonal && !c->backward;
        laser_product(c->pair, laser_over_d(c, w->score, h->k_along + key * c->units, q, keys));
        if (diagonal) laser_mask(w->score, keys, key, query);
        laser_move_shift(c, w, keys, !c->backward && key > 0);
        if (wild) laser_wide_weights(w, w->row_shift, keys);
        if (exact || !c->bf16)
            laser_weigh(w, keys, 1, 0);
        else
            laser_weigh(w, keys, LASER_PAIR, 1);
        if (wild) laser_wide_sum(c, h, w, key, keys, diagonal);
        if (c->backward) continue;
        const float *v = h->v_across + key / c->pair * c->stride;
        LaserProduct p = laser_over_keys(c, w->sum, v, w->weight, keys, key > 0);
        if (exact)
            p.a = w->exact, p.depth = keys;
        else if (centered)
            p.center = h->center + key / LASER_KEYS * c->stride, p.weights = w->tile_weight;
        laser_product(exact ? 1 : c->pair, p);
    }
}

/* o of a panel from its sums, in place: divided by the weights; LASER: the logarithm. */
static void laser_normalise(const LaserCall *c, const LaserHead *h, LaserWork *w) {
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec inverse = 1 / laser_load(w->row_weight + x), K = laser_load(w->row_shift + x);
        for (ptrdiff_t d = 0; d < c->D; d++) {
            float *o = w->sum + d * LASER_LANES + x;
            LaserVec value = laser_load(o) * inverse;
            if (c->laser && !c->causal) value = laser_max(value, laser_set(0x1p-100f));
            laser_store(o, c->laser ? laser_log(value, laser_set(h->shift[d])) : value);
        }
        for (int i = 0; i < (int)w->wild[0]; i++)
            laser_store(w->sum + (int)w->wild[1 + i] * LASER_LANES + x,
                        laser_log(laser_load(w->wide + i * LASER_LANES + x) * inverse,
                                  laser_load(w->wide_exponent + i * LASER_LANES + x) - K));
    }
}

static void laser_forward_panel(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t query) {
    const ptrdiff_t count = laser_least(LASER_LANES, c->T - query);
    ptrdiff_t row = c->shape->qkv_strides[1];
    const float *q = laser_view(c, w->tile, h->q, &row, query, LASER_LANES);
    laser_pack_panel(c, w->query, q, row, c->scale_log2e, w->other);
    laser_rows(c, h, w, w->query, query);
    laser_normalise(c, h, w);
    laser_write_panel(c, h->new_out, c->shape->out_strides[1], query, w->sum, 1, w->tile);
    for (int x = 0; x < LASER_LANES; x += LASER_W)
        laser_store(w->row_sum + x, laser_log(laser_load(w->row_sum + x), laser_load(w->row_shift + x)));
    if (h->new_lse) memcpy(h->new_lse + query, w->row_sum, (size_t)count * sizeof(float));
}

/* Step 3: the queries of the same tokens as a tile of keys. */
static void laser_forward_tile(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    if (c->laser && c->bf16 && (w->exact_head != h || w->exact_tile != tile))
        laser_exp_tile(c, h, w, tile, 0);
    laser_list_wild(c, h, w, tile);
    for (ptrdiff_t query = tile * LASER_KEYS; query < laser_least((tile + 1) * LASER_KEYS, c->T);
         query += LASER_LANES)
        laser_forward_panel(c, h, w, query);
}

/* ---- Backward ---- */

/* Step 1: the center m_d of exp(v) in each column, and which columns are wild; for the paper's shift the
   least o. */
static void laser_scan_columns(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t piece) {
    (void)piece;
    float *low = w->tile, *high = w->other;
    memset(h->shift, 0, (size_t)c->stride * sizeof(float));
    h->wild[0] = 0;
    if (!c->laser) return;
    memcpy(low, h->v, (size_t)c->D * sizeof(float)), memcpy(high, h->v, (size_t)c->D * sizeof(float));
    for (ptrdiff_t t = 1; t < c->T; t++) {
        const float *v = h->v + t * c->shape->qkv_strides[1];
        laser_fetch(v, LASER_AHEAD * c->shape->qkv_strides[1], c->D, 0);
        for (ptrdiff_t d = 0; d < c->D; d++) {
            low[d] = v[d] < low[d] ? v[d] : low[d];
            high[d] = v[d] > high[d] ? v[d] : high[d];
        }
    }
    for (ptrdiff_t d = 0; d < c->D; d++) {
        h->shift[d] = fminf(0.5f * low[d] + 0.5f * high[d], low[d] + 1);
        if (!c->causal) {
            const LaserVec n = laser_set((float)ceil(fmax(-2e6, fmin(2e6, high[d])) * 1.4426950408889634));
            h->floor[d] = laser_log(laser_set(0x1p-100f), n)[0];
            h->shift[d] = fmaxf(h->shift[d], high[d] - 69);
        } else if (!(high[d] - low[d] <= 64 && high[d] < 128 && low[d] > -128)) {
            h->wild[1 + (int)h->wild[0]++] = (float)d;
        }
    }
    if (h->wild[0] > 0 && !h->wild_memory) {
        h->wild_g = laser_allocate(2 * c->D * c->queries, &h->wild_memory);
        h->wild_exponent = h->wild_g + c->D * c->queries;
    }
}

/* Step 2: packs a tile of keys and values. */
static void laser_pack_keys_backward(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    const ptrdiff_t key = tile * LASER_KEYS, token = c->shape->qkv_strides[1];
    ptrdiff_t row = token;
    const float *k = laser_view(c, w->tile, h->k, &row, key, LASER_KEYS);
    laser_pack_along(c, h->k_along + key * c->units, k, row, LASER_KEYS, 1);
    if (c->pair == 2) laser_pack_across(c, h->k_across + key / 2 * c->stride, k, row, LASER_KEYS, 1);
    row = token;
    const float *v = laser_view(c, w->tile, h->v, &row, key, LASER_KEYS);
    for (int i = 0; c->laser && i < LASER_KEYS; i++) {
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            LaserVec expm1;
            laser_exp_expm1(laser_load(v + i * row + d) - laser_load(h->shift + d), &expm1);
            laser_store(w->tile + i * c->stride + d, expm1);
        }
        for (int n = 1; n <= (int)h->wild[0]; n++) w->tile[i * c->stride + (ptrdiff_t)h->wild[n]] = 0;
    }
    laser_pack_along(c, h->v_along + key * c->units, c->laser ? w->tile : v, c->laser ? c->stride : row,
                     LASER_KEYS, 1);
}

/* K_i and 1 / (sum of row i), into w->row_shift and w->row_sum: from lse, but where lse in float32 has too
   few digits left, or a column is wild, by summing again. q: the panel, packed. */
static void laser_row_sums(const LaserCall *c, const LaserHead *h, LaserWork *w, const float *q,
                           ptrdiff_t query) {
    int again = h->wild[0] > 0;
    memcpy(w->wild, h->wild, (size_t)(c->D + 1) * sizeof(float));
    for (int i = 0; i < LASER_LANES; i++) {
        w->row_sum[i] = query + i < c->T ? -h->lse[query + i] : 0;
        again |= fabsf(w->row_sum[i]) > 64;
    }
    if (again) laser_rows(c, h, w, q, query);
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        LaserVec k, sum = laser_load(w->row_sum + x);
        const LaserVec inverse = laser_exp_split(sum, &k) + 1; /* exp(-lse) = 1 / sum * 2^-K */
        laser_store(w->row_sum + x, again ? 1 / sum : inverse);
        if (!again) laser_store(w->row_shift + x, -k);
    }
}

/* Takes the wild columns out of dO (LANES, stride): leaves do / sum for them, and adds do to the row terms.
   */
static void laser_wild_gradient(const LaserCall *c, LaserHead *h, LaserWork *w, float *dout,
                                ptrdiff_t query) {
    for (int n = 0; n < (int)h->wild[0]; n++)
        for (int i = 0; i < LASER_LANES; i++) {
            float *g = dout + i * c->stride + (ptrdiff_t)h->wild[1 + n];
            h->wild_g[n * c->queries + query + i] = *g / w->wide[n * LASER_LANES + i];
            h->wild_exponent[n * c->queries + query + i] = w->wide_exponent[n * LASER_LANES + i];
            h->row_term[query + i] += *g;
            *g = 0;
        }
}

/* dO' / sum of a row in place of dO; returns the row term before it is divided by the sum: standard sum_d
   do o; LASER, V' being packed less its center: sum_d do (1 - exp(m - o)). */
static float laser_row_gradient(const LaserCall *c, const LaserHead *h, float *dout, const float *out,
                                float inverse) {
    LaserVec row = laser_set(0);
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        LaserVec g = laser_load(dout + d), o = laser_load(out + d), expm1;
        if (!c->laser) {
            row += g * o;
        } else {
            if (!c->causal)
                g = laser_select(o > laser_load(h->floor + d), g, laser_set(0)); /* none from the floor */
            const LaserVec exp = laser_exp_expm1(laser_load(h->shift + d) - o, &expm1);
            row -= g * expm1;
            g *= exp;
        }
        laser_store(dout + d, g * inverse);
    }
    float total = 0;
    for (int x = 0; x < LASER_W; x++) total += row[x];
    return total;
}

/* Step 3: packs a panel of queries and of gradients. */
static void laser_pack_queries(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES;
    float *q_panel = h->q_panels + query * c->units, *g_panel = h->g_panels + query * c->units;
    ptrdiff_t row = c->shape->qkv_strides[1], dout_row = c->shape->out_strides[1];
    const float *q = laser_view(c, w->tile, h->q, &row, query, LASER_LANES);
    laser_pack_panel(c, q_panel, q, row, c->scale_log2e, w->other);
    laser_pack_across(c, h->q_across + query / c->pair * c->stride, q, row, LASER_LANES, c->scale);
    laser_row_sums(c, h, w, q_panel, query);
    memcpy(h->row_shift + query, w->row_shift, LASER_LANES * sizeof(float));
    row = c->shape->out_strides[1];
    const float *out = laser_view(c, w->tile, h->out, &row, query, LASER_LANES);
    const float *dout = laser_view(c, w->other, h->dout, &dout_row, query, LASER_LANES);
    for (int i = 0; i < LASER_LANES; i++) {
        h->row_term[query + i] = 0;
        laser_fetch(out, (i + LASER_AHEAD) * row, c->D, 0);
        laser_fetch(dout, (i + LASER_AHEAD) * dout_row, c->D, 0);
        if (dout != w->other)
            memcpy(w->other + i * c->stride, dout + i * dout_row, (size_t)c->stride * sizeof *dout);
    }
    laser_wild_gradient(c, h, w, w->other, query);
    for (int i = 0; i < LASER_LANES; i++) {
        const float inverse = w->row_sum[i], rest = h->row_term[query + i];
        h->row_term[query + i] =
            inverse * (rest + laser_row_gradient(c, h, w->other + i * c->stride, out + i * row, inverse));
    }
    laser_pack_across(c, h->g_across + query / c->pair * c->stride, w->other, c->stride, LASER_LANES, 1);
    laser_pack_panel(c, g_panel, w->other, c->stride, 1, w->tile);
}

/* do_id p_ijd of the wild columns: summed over them into w->weight, for dS; over the queries into dv. */
static void laser_wide_gradient(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                                ptrdiff_t keys, ptrdiff_t query) {
    memset(w->weight, 0, LASER_SPAN * LASER_LANES * sizeof(float));
    for (int n = 0; n < (int)h->wild[0]; n++) {
        const float *do_sum = h->wild_g + n * c->queries + query,
                    *e = h->wild_exponent + n * c->queries + query;
        const ptrdiff_t d = (ptrdiff_t)h->wild[1 + n];
        float power[LASER_SPAN], exponent[LASER_SPAN];
        laser_wide_values(c, h, power, exponent, key, keys, d);
        for (ptrdiff_t j = 0; j < keys; j++) {
            LaserVec sum = laser_set(0);
            for (int i = 0; i < LASER_LANES; i += LASER_W) {
                const ptrdiff_t at = j * LASER_LANES + i;
                const LaserVec k = laser_load(w->exponent + at) + exponent[j] - laser_load(e + i);
                const LaserVec g = laser_load(do_sum + i) * (laser_load(w->power + at) * power[j]) *
                                   laser_pow2(laser_min(k, laser_set(64)));
                sum += g;
                laser_store(w->weight + at, laser_load(w->weight + at) + g);
            }
            for (int i = 0; i < LASER_W; i++) w->dv[j * c->stride + d] += sum[i];
        }
    }
}

/* Scores and dP of a panel into weights a and slopes dS = a (dP - term) [+ more], packed for the products
   that follow. */
LASER_INLINE void laser_slopes(const LaserHead *h, LaserWork *w, ptrdiff_t query, ptrdiff_t keys,
                               const float *more, int pair, int round) {
    const int lda = LASER_QUERIES / pair;
    for (ptrdiff_t x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec K = laser_load(h->row_shift + query + x), term = laser_load(h->row_term + query + x);
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            LaserVec a[2], ds[2];
            LASER_UNROLL for (int n = 0; n < 2; n++) {
                const ptrdiff_t from = (j + n) * LASER_LANES + x,
                                to = (j + n) * lda + (query % LASER_QUERIES + x) / pair;
                a[n] = laser_exp2(laser_load(w->score + from) - K);
                ds[n] = a[n] * (laser_load(w->slope + from) - term);
                if (more) ds[n] += laser_load(more + from);
                if (pair == 1 && round) a[n] = laser_round_bf16(a[n]), ds[n] = laser_round_bf16(ds[n]);
                (pair == 2 ? laser_store_along : laser_store)(w->a_along + to, a[n]);
                (pair == 2 ? laser_store_along : laser_store)(w->ds_along + to, ds[n]);
                if (pair == 1) laser_store(w->ds_across + from, ds[n]);
            }
            if (pair == 2) laser_store(w->ds_across + j / 2 * LASER_LANES + x, laser_across(ds[0], ds[1]));
        }
    }
}

/* One panel of queries against some keys: its columns of the weights and of dS, and its dq. */
static void laser_backward_panel(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                 ptrdiff_t key, ptrdiff_t keys, ptrdiff_t query, int accumulate) {
    const ptrdiff_t all = laser_up(keys, LASER_ROWS), lda = LASER_QUERIES / c->pair;
    keys = laser_least(keys, query + LASER_LANES - key);
    for (ptrdiff_t j = keys > 0 ? keys : 0; j < all; j++) /* keys that no query of the panel sees */
        for (ptrdiff_t i = j * lda + query % LASER_QUERIES / c->pair, x = 0; x < LASER_LANES / c->pair; x++)
            w->a_along[i + x] = w->ds_along[i + x] = 0;
    if (keys <= 0) return;
    const ptrdiff_t units = c->units;
    laser_product(c->pair,
                  laser_over_d(c, w->score, h->k_along + key * units, h->q_panels + query * units, keys));
    laser_product(c->pair,
                  laser_over_d(c, w->slope, h->v_along + key * units, h->g_panels + query * units, keys));
    for (ptrdiff_t i = keys * LASER_LANES; i < (keys + keys % 2) * LASER_LANES;
         i++) /* an odd key's neighbour */
        w->score[i] = LASER_MASKED, w->slope[i] = 0;
    if (key + keys > query + 1) laser_mask(w->score, keys, key, query);
    const int wild = h->wild[0] > 0;
    if (wild) {
        laser_wide_weights(w, h->row_shift + query, keys);
        laser_wide_gradient(c, h, w, key, keys, query);
    }
    if (query == 0 && key == 0) w->slope[0] = h->row_term[0], w->weight[0] = 0; /* row 0: one key, dS = 0 */
    if (c->bf16)
        laser_slopes(h, w, query, keys, wild ? w->weight : NULL, LASER_PAIR, 1);
    else
        laser_slopes(h, w, query, keys, wild ? w->weight : NULL, 1, 0);
    const float *k = h->k_across + key / c->pair * c->stride;
    laser_product(c->pair, laser_over_keys(c, dq, k, w->ds_across, keys, accumulate));
}

/* dk and dv of some keys from their sums. */
static void laser_write_keys(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                             ptrdiff_t keys) {
    const ptrdiff_t token = c->shape->qkv_strides[1];
    ptrdiff_t row = token;
    const float *v = laser_view(c, w->tile, h->v, &row, key, keys);
    for (ptrdiff_t i = 0; i < keys; i++) {
        float *dv = w->dv + i * c->stride, *dv_out = h->dv + (key + i) * token,
              *dk_out = h->dk + (key + i) * token;
        laser_fetch(dk_out, LASER_AHEAD * token, c->D, 1);
        laser_fetch(dv_out, LASER_AHEAD * token, c->D, 1);
        for (int n = 1; n <= (int)h->wild[0]; n++) w->wide[n] = dv[(ptrdiff_t)h->wild[n]];
        for (ptrdiff_t d = 0; c->laser && d < c->stride; d += LASER_W) { /* dv = dv' exp(v - m) */
            LaserVec expm1,
                exp = laser_exp_expm1(laser_load(v + i * row + d) - laser_load(h->shift + d), &expm1);
            laser_store(dv + d, laser_load(dv + d) * exp);
        }
        for (int n = 1; n <= (int)h->wild[0]; n++)
            dv[(ptrdiff_t)h->wild[n]] = w->wide[n]; /* whole as it is */
        memcpy(dk_out, w->dk + i * c->stride, (size_t)c->D * sizeof *dk_out);
        memcpy(dv_out, dv, (size_t)c->D * sizeof *dv_out);
    }
}

/* dk and dv of some keys, and what they add to dq (panels, stride, LANES). */
static void laser_backward_keys(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                ptrdiff_t key, ptrdiff_t keys, int accumulate) {
    memset(w->dk, 0, (size_t)(LASER_SPAN * c->stride) * sizeof(float));
    memset(w->dv, 0, (size_t)(LASER_SPAN * c->stride) * sizeof(float));
    for (ptrdiff_t first = key / LASER_QUERIES * LASER_QUERIES; first < c->T; first += LASER_QUERIES) {
        const ptrdiff_t end = laser_least(first + LASER_QUERIES, c->T);
        for (ptrdiff_t query = first; query < end; query += LASER_LANES)
            laser_backward_panel(c, h, w, dq + query * c->stride, key, keys, query, accumulate);
        LaserProduct p = {.c = w->dv, .a = w->a_along, .b = h->g_across + first / c->pair * c->stride};
        p.ldc = p.ldb = c->stride, p.rows = keys, p.columns = laser_up(c->D, LASER_W), p.accumulate = 1;
        p.a_row = LASER_QUERIES / c->pair, p.a_depth = 1,
        p.depth = laser_up(end - first, LASER_LANES) / c->pair;
        p.triangle = 1, p.zeros = key - first;
        laser_product(c->pair, p);
        p.c = w->dk, p.a = w->ds_along, p.b = h->q_across + first / c->pair * c->stride;
        laser_product(c->pair, p);
    }
    laser_write_keys(c, h, w, key, keys);
}

/* The first key of a part: parts are equal areas under the diagonal. */
static ptrdiff_t laser_part_begin(const LaserCall *c, ptrdiff_t part) {
    const double tile = (double)c->tiles * (1 - sqrt(1 - (double)part / (double)c->parts));
    return (ptrdiff_t)(tile + 0.5) * LASER_KEYS;
}

/* Step 4: the keys of one part of a head. */
static void laser_backward_part(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t part) {
    const ptrdiff_t first = laser_part_begin(c, part), end = laser_least(laser_part_begin(c, part + 1), c->T);
    float *dq = h->dq_parts + part * c->panels * c->stride * LASER_LANES;
    for (ptrdiff_t key = first; key < end; key += LASER_SPAN)
        laser_backward_keys(c, h, w, dq, key, laser_least(LASER_SPAN, end - key), key > first);
}

/* Step 5: dq of a panel: its parts, summed in order. */
static void laser_write_queries(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES;
    const float *sum = NULL;
    for (ptrdiff_t part = 0; part < c->parts; part++) {
        const ptrdiff_t first = laser_part_begin(c, part);
        if (first == laser_part_begin(c, part + 1) || first >= query + LASER_LANES) continue;
        const float *from = h->dq_parts + part * c->panels * c->stride * LASER_LANES + query * c->stride;
        for (ptrdiff_t i = 0; sum && i < c->D * LASER_LANES; i += LASER_W)
            laser_store(w->sum + i, laser_load(sum + i) + laser_load(from + i));
        sum = sum ? w->sum : from;
    }
    laser_write_panel(c, h->dq, c->shape->qkv_strides[1], query, sum, c->scale, w->tile);
}

/* ---- The two functions ---- */

LASER_INLINE LaserHead *laser_head(float *heads, ptrdiff_t size, ptrdiff_t i) {
    return (LaserHead *)(void *)(heads + i * size);
}

/* Makes h a head: where its arrays lie, and the caller's rows, which `all` has of head 0. */
static LaserHead *laser_take(const LaserCall *c, LaserHead *h, const LaserHead *all, ptrdiff_t head) {
    const ptrdiff_t b = head / c->shape->heads, n = head % c->shape->heads;
    const ptrdiff_t in = b * c->shape->qkv_strides[0] + n * c->shape->qkv_strides[2];
    const ptrdiff_t out = b * c->shape->out_strides[0] + n * c->shape->out_strides[2];
    laser_carve_head(c, h);
    h->q = all->q + in, h->k = all->k + in, h->v = all->v + in;
    if (c->backward) {
        h->out = all->out + out, h->dout = all->dout + out, h->lse = all->lse + head * c->T;
        h->dq = all->dq + in, h->dk = all->dk + in, h->dv = all->dv + in;
    } else {
        h->new_out = all->new_out + out, h->new_lse = all->new_lse ? all->new_lse + head * c->T : NULL;
    }
    return h;
}

LASER_INLINE int laser_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* What is done to a head, one step after the other; the pieces of a step (as many as `pieces` says) may run
   in any order. */
typedef struct {
    void (*run)(const LaserCall *, LaserHead *, LaserWork *, ptrdiff_t piece);
    ptrdiff_t pieces;
    int zip; /* piece i of the next step needs only the pieces up to i of this one */
} LaserStep;

/* Heads come in two lots: as many as the threads divide evenly, a whole head to a thread; then the rest, on
   which all threads work together, piece by piece. */
static void laser_run(const LaserCall *c, const LaserHead *all, const LaserStep *steps, int count) {
    void *memory;
    const ptrdiff_t head_size = laser_carve_head(c, NULL), work_size = laser_carve_work(c, NULL);
    const ptrdiff_t alone = c->heads - c->heads % c->threads, rest = c->heads - alone;
    float *heads = laser_allocate(c->flight * head_size + c->threads * work_size, &memory);
    for (ptrdiff_t i = 0; i < c->flight; i++) laser_head(heads, head_size, i)->wild_memory = NULL;
    LASER_OMP(omp parallel num_threads((int)c->threads)) {
        const int me = laser_thread();
        LaserWork *w = (LaserWork *)(void *)(heads + c->flight * head_size + me * work_size);
        laser_carve_work(c, w);
        LASER_OMP(omp for schedule(dynamic))
        for (ptrdiff_t head = 0; head < alone; head++) {
            LaserHead *h = laser_take(c, laser_head(heads, head_size, me), all, head);
            w->exact_head = NULL; /* what w->exact holds is another head's */
            for (int s = 0; s < count; s += 1 + steps[s].zip)
                for (ptrdiff_t i = 0; i < steps[s].pieces; i++) {
                    steps[s].run(c, h, w, i);
                    if (steps[s].zip) steps[s + 1].run(c, h, w, i);
                }
        }
        LASER_OMP(omp for schedule(static))
        for (ptrdiff_t i = 0; i < rest; i++) laser_take(c, laser_head(heads, head_size, i), all, alone + i);
        w->exact_head = NULL;
        for (int s = 0; s < count; s++) {
            LASER_OMP(omp for schedule(dynamic))
            for (ptrdiff_t i = rest * steps[s].pieces - 1; i >= 0; i--) /* the last are the longest */
                steps[s].run(c, laser_head(heads, head_size, i % rest), w, i / rest);
        }
    }
    for (ptrdiff_t i = 0; i < c->flight; i++) LASER_FREE(laser_head(heads, head_size, i)->wild_memory);
    LASER_FREE(memory);
}

LASER_DEFINE void attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                    const AttentionShape *shape) {
    const LaserCall c = laser_sizes(shape, 0);
    const LaserHead all = {.q = q, .k = k, .v = v, .new_out = out, .new_lse = lse};
    const LaserStep steps[] = {
        {laser_shift_columns, c.laser, 0}, {laser_pack_keys, c.tiles, 1}, {laser_forward_tile, c.tiles, 0}};
    laser_run(&c, &all, steps, sizeof steps / sizeof *steps);
}

LASER_DEFINE void attention_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                                     const float *k, const float *v, const float *out, const float *lse,
                                     const AttentionShape *shape) {
    const LaserCall c = laser_sizes(shape, 1);
    const LaserHead all = {
        .q = q, .k = k, .v = v, .out = out, .lse = lse, .dout = dout, .dq = dq, .dk = dk, .dv = dv};
    const LaserStep steps[] = {{laser_scan_columns, 1, 0},
                               {laser_pack_keys_backward, c.tiles, 0},
                               {laser_pack_queries, c.panels, 0},
                               {laser_backward_part, c.parts, 0},
                               {laser_write_queries, c.panels, 0}};
    laser_run(&c, &all, steps, sizeof steps / sizeof *steps);
}

#endif
