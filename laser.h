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
#ifdef _OPENMP
#include <omp.h>
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

/* The register block: ROWS x VECS vectors of W floats; LANES queries side by side are the unit of everything
   below. A kernel keeps ROWS * VECS sums in registers. */
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
    LASER_KEYS = 8 * LASER_ROWS /* a tile of keys */,
    LASER_QUERIES = 64
};
_Static_assert(LASER_QUERIES % LASER_LANES == 0, "a block of queries is whole panels of LANES");

typedef float LaserVec __attribute__((vector_size(4 * LASER_W)));
typedef int32_t LaserInt __attribute__((vector_size(4 * LASER_W)));
typedef float LaserLoose __attribute__((vector_size(4 * LASER_W), aligned(4), may_alias)); /* unaligned */

LASER_INLINE LaserVec laser_load(const float *x) { return *(const LaserLoose *)x; }
LASER_INLINE void laser_store(float *x, LaserVec a) { *(LaserLoose *)x = a; }
LASER_INLINE LaserVec laser_set(float x) { return (LaserVec){0} + x; }
LASER_INLINE LaserVec laser_select(LaserInt mask, LaserVec a, LaserVec b) {
    return (LaserVec)((mask & (LaserInt)a) | (~mask & (LaserInt)b));
}
LASER_INLINE LaserVec laser_max(LaserVec a, LaserVec b) { return laser_select(a > b, a, b); }

#define LASER_LOG2E 1.44269504f
#define LASER_LN2_HIGH 0.693359375f /* nine bits: its product with an integer below 2^15 is exact */
#define LASER_LN2_LOW (-2.12194440e-4f)
#define LASER_ROUND 12582912.0f /* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer */
#define LASER_NONE (-1e9f)      /* the exponent of zero */
#define LASER_MASKED (-3e38f)   /* the score of a key that a row does not see */

/* 2^k for an integer k <= 127; 0 where k < -126. */
LASER_INLINE LaserVec laser_pow2(LaserVec k) {
    const LaserVec y = laser_max(k, laser_set(-127)) + (LASER_ROUND + 127); /* its low bits: k + 127 */
    return (LaserVec)((LaserInt)y << 23);
}

/* 2^x = result * 2^k, k an integer, result in [0.7, 1.42]; |x| < 2^22. */
LASER_INLINE LaserVec laser_exp2_split(LaserVec x, LaserVec *k) {
    *k = (x + LASER_ROUND) - LASER_ROUND;
    const LaserVec r = x - *k;
    LaserVec p = laser_set(1.535336188e-4f);
    p = p * r + 1.339887440e-3f;
    p = p * r + 9.618437357e-3f;
    p = p * r + 5.550332548e-2f;
    p = p * r + 2.402264791e-1f;
    p = p * r + 6.931472028e-1f;
    return p * r + 1.0f;
}

/* 2^x for x <= 127; 0 where x < -126.5. */
LASER_INLINE LaserVec laser_exp2(LaserVec x) {
    LaserVec k;
    const LaserVec p = laser_exp2_split(laser_max(x, laser_set(-127)), &k);
    return p * laser_pow2(k);
}

/* exp(x) = result * 2^k; |x| is cut to 2e6. */
LASER_INLINE LaserVec laser_exp_split(LaserVec x, LaserVec *k) {
    x = laser_max(laser_select(x < 2e6f, x, laser_set(2e6f)), laser_set(-2e6f));
    *k = (x * LASER_LOG2E + LASER_ROUND) - LASER_ROUND;
    const LaserVec r = (x - *k * LASER_LN2_HIGH) - *k * LASER_LN2_LOW;
    LaserVec none;
    const LaserVec p = laser_exp2_split(r * LASER_LOG2E, &none);
    return p * laser_pow2(none);
}

/* exp(x) * 2^-n, n an integer; the power of two it is scaled by is cut to 2^-127 (0) .. 2^127. */
LASER_INLINE LaserVec laser_exp_shifted(LaserVec x, LaserVec n) {
    LaserVec k;
    const LaserVec p = laser_exp_split(x, &k), shifted = k - n;
    return p * laser_pow2(laser_select(shifted < 127, shifted, laser_set(127)));
}

/* log(x * 2^n) for a normal x > 0 and an integer n; something finite for x = 0. */
LASER_INLINE LaserVec laser_log_shifted(LaserVec x, LaserVec n) {
    const LaserInt bits = (LaserInt)x,
                   e = (bits - 0x3F3504F3) >> 23; /* x = 2^e m, m in [sqrt(1/2), sqrt(2)) */
    const LaserVec m = (LaserVec)(bits - (e << 23)), f = m - 1, s = f / (f + 2), z = s * s;
    n += __builtin_convertvector(e, LaserVec);
    LaserVec t = laser_set(0.22222222f); /* log m = 2 atanh(s) = 2 s + 2/3 s^3 + 2/5 s^5 + ... */
    t = t * z + 0.28571429f;
    t = t * z + 0.4f;
    t = t * z + 0.66666667f;
    /* 2s = f - s f, with f exact: one rounding less than 2s */
    return n * LASER_LN2_HIGH + (f + (n * LASER_LN2_LOW + s * (z * t - f)));
}

/* x rounded to bfloat16, to nearest even. */
LASER_INLINE LaserVec laser_round_bf16(LaserVec x) {
    const LaserInt bits = (LaserInt)x;
    return (LaserVec)((bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF);
}

/* ---- The product kernel ---- */

/* C (ROWS, vecs * W) (+)= A B over `depth`; A(r, p) = a[r * a_row + p * a_depth], B's row p starts at b + p * ldb. */
LASER_INLINE void laser_kernel(float *c, size_t ldc, const float *a, size_t a_row, size_t a_depth,
                               const float *b, size_t ldb, int vecs, int depth, int accumulate) {
    LaserVec sum[LASER_ROWS][LASER_VECS] = {0};
    for (int p = 0; p < depth; p++, a += a_depth, b += ldb) {
        LaserVec x[LASER_VECS];
        for (int v = 0; v < vecs; v++) x[v] = laser_load(b + v * LASER_W);
        for (int r = 0; r < LASER_ROWS; r++)
            for (int v = 0; v < vecs; v++) sum[r][v] += a[(size_t)r * a_row] * x[v];
    }
    for (int r = 0; r < LASER_ROWS; r++)
        for (int v = 0; v < vecs; v++) {
            float *to = c + (size_t)r * ldc + v * LASER_W;
            laser_store(to, accumulate ? laser_load(to) + sum[r][v] : sum[r][v]);
        }
}

/* ---- A call: sizes and memory ---- */

/* What one call works with. A "head" is a (b, h) pair; heads are taken `flight` at a time, and slot
   head % flight is where a head's packed operands lie. Left operands are packed ROWS by ROWS, right
   operands LANES by LANES, in the order in which the kernel reads them; "dots" are summed over d. */
typedef struct {
    const AttentionShape *shape;
    const float *q, *k, *v, *out, *dout, *lse;
    float *new_out, *new_lse, *dq, *dk, *dv;
    int T, D, heads, threads, flight, parts;
    int tiles, panels, blocks; /* of KEYS keys, LANES queries, QUERIES queries */
    int rows, width,
        stride; /* D rounded up to ROWS and to W; floats from row to row of a tile being packed */
    float scale, scale_log2e;
    int laser, causal, bf16;
    float *shift;           /* (flight, width) n_d */
    float *wild;            /* (flight, D + 1) columns summed elementwise: how many, which */
    float *k_dots, *v_dots; /* (flight, tiles, KEYS / ROWS, D, ROWS) left operands over d */
    float *k_rows, *v_rows; /* (flight, tiles, KEYS, rows) left operands over keys */
    float *q_dots, *g_dots; /* (flight, panels, D, LANES) right operands over d; g is dO' / sum of a row */
    float *q_rows, *g_rows; /* (flight, blocks, QUERIES, width) right operands over queries */
    float *row_shift, *row_term; /* (flight, blocks * QUERIES) K_i, and what is subtracted from dP */
    float *wild_g,
        *wild_shift; /* (flight, D, blocks * QUERIES) of wild columns: do / sum, and -its exponent */
    float *dq_parts; /* (flight, parts, panels, rows, LANES) */
    float *work;     /* (threads, work_size) */
    size_t work_size;
} LaserCall;

/* One thread's buffers, each a tile. */
typedef struct {
    float *tile, *other;         /* (max(KEYS, QUERIES), stride) rows being packed */
    float *query;                /* (D, LANES) */
    float *score, *slope;        /* (KEYS, QUERIES) s, then a; dP, then dS. Forward: (KEYS, LANES) of it */
    float *sum;                  /* (rows, LANES) o before it is normalised */
    float *power, *exponent;     /* (KEYS, LANES) a = power * 2^exponent, for the wild columns */
    float *wide, *wide_exponent; /* (D, LANES) sums of the wild columns: wide * 2^wide_exponent */
    float *dk, *dv;              /* (KEYS, width) */
    float *row_shift, *row_sum, *row_weight; /* (LANES) K_i; sum of a; the same of a as rounded */
} LaserWork;

static size_t laser_round_up(size_t x, size_t unit) { return (x + unit - 1) / unit * unit; }

/* Points each pointer of the table at its part of one allocation; returns what to free. */
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

static size_t laser_work(const LaserCall *c, LaserWork *w, float *memory) {
    const size_t D = (size_t)c->D, rows = LASER_KEYS > LASER_QUERIES ? LASER_KEYS : LASER_QUERIES;
    const LaserPart parts[] = {{&w->tile, rows * (size_t)c->stride},
                               {&w->other, rows * (size_t)c->stride},
                               {&w->query, D * LASER_LANES},
                               {&w->score, LASER_KEYS * LASER_QUERIES},
                               {&w->slope, LASER_KEYS * LASER_QUERIES},
                               {&w->sum, (size_t)c->rows * LASER_LANES},
                               {&w->power, LASER_KEYS * LASER_LANES},
                               {&w->exponent, LASER_KEYS * LASER_LANES},
                               {&w->wide, D * LASER_LANES},
                               {&w->wide_exponent, D * LASER_LANES},
                               {&w->dk, LASER_KEYS * (size_t)c->width},
                               {&w->dv, LASER_KEYS * (size_t)c->width},
                               {&w->row_shift, LASER_LANES},
                               {&w->row_sum, LASER_LANES},
                               {&w->row_weight, LASER_LANES}};
    return laser_carve(parts, sizeof parts / sizeof *parts, memory);
}

static void *laser_begin(LaserCall *c, int backward) {
    const AttentionShape *s = c->shape;
    if (s->batch < 1 || s->seq_len < 1 || s->heads < 1 || s->head_dim < 1)
        LASER_FAIL("attention: batch, seq_len, heads and head_dim must be at least 1");
    c->T = s->seq_len, c->D = s->head_dim, c->heads = s->batch * s->heads;
    c->tiles = (c->T + LASER_KEYS - 1) / LASER_KEYS;
    c->blocks = (c->T + LASER_QUERIES - 1) / LASER_QUERIES;
    c->panels = c->blocks * (LASER_QUERIES / LASER_LANES);
    c->rows = (int)laser_round_up((size_t)c->D, LASER_ROWS);
    c->width = (int)laser_round_up((size_t)c->D, LASER_W);
    c->stride = c->rows > c->width ? (int)laser_round_up((size_t)c->rows, LASER_W) : c->width;
    c->scale = (float)laser_scale(s), c->scale_log2e = (float)(laser_scale(s) * 1.4426950408889634);
    c->laser = s->kind == ATTENTION_LASER, c->causal = s->shift == LASER_SHIFT_CAUSAL;
    c->bf16 = s->precision == ATTENTION_BF16;
#ifdef _OPENMP
    c->threads = omp_get_max_threads();
#else
    c->threads = 1;
#endif
    /* Few heads: their keys are cut into parts, a number that follows from the shape alone. */
    c->parts = 32 / c->heads < c->T / 256 ? 32 / c->heads : c->T / 256;
    if (c->parts < 1) c->parts = 1;
    c->flight = c->heads % c->threads == 0 || c->parts > 1 ? c->threads : 4 * c->threads;
    if (c->flight > c->heads) c->flight = c->heads;

    LaserWork none;
    c->work_size = laser_work(c, &none, NULL);
    const size_t D = (size_t)c->D, F = (size_t)c->flight, B = backward ? F : 0;
    const size_t keys = (size_t)c->tiles * LASER_KEYS, queries = (size_t)c->blocks * LASER_QUERIES;
    const LaserPart parts[] = {{&c->shift, F * (size_t)c->width},
                               {&c->wild, F * (D + 1)},
                               {&c->k_dots, F * keys * D},
                               {&c->v_rows, (F - B) * keys * (size_t)c->rows},
                               {&c->v_dots, B * keys * D},
                               {&c->k_rows, B * keys * (size_t)c->rows},
                               {&c->q_dots, B * queries * D},
                               {&c->g_dots, B * queries * D},
                               {&c->q_rows, B * queries * (size_t)c->width},
                               {&c->g_rows, B * queries * (size_t)c->width},
                               {&c->row_shift, B * queries},
                               {&c->row_term, B * queries},
                               {&c->dq_parts, B * (size_t)c->parts * queries * (size_t)c->rows},
                               {&c->work, (size_t)c->threads * c->work_size}};
    const size_t count = sizeof parts / sizeof *parts;
    void *memory = laser_allocate(laser_carve(parts, count, NULL));
    laser_carve(parts, count, laser_aligned(memory));
    return memory;
}

static ptrdiff_t laser_at(const LaserCall *c, const ptrdiff_t *strides, int head, int t) {
    return head / c->shape->heads * strides[0] + t * strides[1] + head % c->shape->heads * strides[2];
}

/* ---- Packing ---- */

/* Copies rows first .. first + count - 1 of a head into a tile, zeros around them. */
static void laser_tile(const LaserCall *c, float *tile, const float *x, const ptrdiff_t *strides, int head,
                       int first, int count) {
    for (int r = 0; r < count; r++, tile += c->stride) {
        const int inside = first + r < c->T ? c->D : 0;
        if (inside) memcpy(tile, x + laser_at(c, strides, head, first + r), (size_t)c->D * sizeof *tile);
        memset(tile + inside, 0, (size_t)(c->stride - inside) * sizeof *tile);
    }
}

static void laser_tile_scale(const LaserCall *c, float *tile, int count, float scale) {
    for (int i = 0; i < count * c->stride; i += LASER_W) {
        LaserVec x = laser_load(tile + i) * scale;
        laser_store(tile + i, c->bf16 ? laser_round_bf16(x) : x);
    }
}

/* V' = exp(v) * 2^-n, 0 in wild columns. */
static void laser_tile_exp(const LaserCall *c, float *tile, int slot) {
    const float *shift = c->shift + (size_t)slot * (size_t)c->width;
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    for (int d = 0; d < c->width; d += LASER_W) {
        const LaserVec n = laser_load(shift + d);
        for (int r = 0; r < LASER_KEYS; r++)
            laser_store(tile + r * c->stride + d, laser_exp_shifted(laser_load(tile + r * c->stride + d), n));
    }
    for (int i = 1; i <= (int)wild[0]; i++)
        for (int r = 0; r < LASER_KEYS; r++) tile[r * c->stride + (int)wild[i]] = 0;
}

static void laser_pack_dots(const LaserCall *c, float *to, const float *tile, int count, int group) {
    for (int first = 0; first < count; first += group)
        for (int d = 0; d < c->D; d++)
            for (int r = 0; r < group; r++) *to++ = tile[(first + r) * c->stride + d];
}

static void laser_pack_rows(const LaserCall *c, float *to, const float *tile, int count, int width) {
    for (int r = 0; r < count; r++) memcpy(to + r * width, tile + r * c->stride, (size_t)width * sizeof *to);
}

/* The columns of a head: the shift of each, and which are wild. */
static void laser_scan_columns(const LaserCall *c, int slot, int head, LaserWork *w) {
    float *shift = c->shift + (size_t)slot * (size_t)c->width,
          *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    float *low = w->tile, *high = w->other;
    const float *v = c->v + laser_at(c, c->shape->qkv_strides, head, 0);
    for (int d = 0; d < c->D; d++) low[d] = high[d] = v[d];
    for (int t = 1; t < c->T; t++) {
        v += c->shape->qkv_strides[1];
        for (int d = 0; d < c->D; d++) {
            low[d] = v[d] < low[d] ? v[d] : low[d];
            high[d] = v[d] > high[d] ? v[d] : high[d];
        }
    }
    memset(shift, 0, (size_t)c->width * sizeof *shift);
    wild[0] = 0;
    for (int d = 0; d < c->D; d++) {
        const float middle = 0.5f * low[d] + 0.5f * high[d];
        if (!c->causal)
            shift[d] = (float)ceil((double)high[d] * 1.4426950408889634);
        else if (high[d] - low[d] <= 64 && fabsf(middle) <= 96)
            shift[d] = rintf(middle * LASER_LOG2E);
        else
            wild[1 + (int)wild[0]++] = (float)d;
    }
}

static void laser_pack_keys(const LaserCall *c, int slot, int head, int tile, LaserWork *w, int backward) {
    const size_t at = (size_t)slot * (size_t)c->tiles + (size_t)tile;
    const size_t dots = at * LASER_KEYS * (size_t)c->D, rows = at * LASER_KEYS * (size_t)c->rows;
    laser_tile(c, w->tile, c->k, c->shape->qkv_strides, head, tile * LASER_KEYS, LASER_KEYS);
    laser_tile_scale(c, w->tile, LASER_KEYS, 1);
    laser_pack_dots(c, c->k_dots + dots, w->tile, LASER_KEYS, LASER_ROWS);
    if (backward) laser_pack_rows(c, c->k_rows + rows, w->tile, LASER_KEYS, c->rows);
    laser_tile(c, w->tile, c->v, c->shape->qkv_strides, head, tile * LASER_KEYS, LASER_KEYS);
    if (c->laser) laser_tile_exp(c, w->tile, slot);
    laser_tile_scale(c, w->tile, LASER_KEYS, 1);
    if (backward)
        laser_pack_dots(c, c->v_dots + dots, w->tile, LASER_KEYS, LASER_ROWS);
    else
        laser_pack_rows(c, c->v_rows + rows, w->tile, LASER_KEYS, c->rows);
}

/* ---- Products of tiles ---- */

/* C (rows, LANES) (+)= A B; A packed ROWS by ROWS: (rows / ROWS, depth, ROWS); B (depth, LANES). */
static void laser_product_dots(float *C, size_t ldc, const float *A, const float *B, int rows, int depth) {
    for (int r = 0; r < rows; r += LASER_ROWS)
        laser_kernel(C + (size_t)r * ldc, ldc, A + (size_t)r * (size_t)depth, 1, LASER_ROWS, B, LASER_LANES,
                     LASER_VECS, depth, 0);
}

/* C (rows, LANES) (+)= A^T B; A (depth, rows), B (depth, ldb). */
static void laser_product_keys(float *C, const float *A, const float *B, size_t ldb, int rows, int depth,
                               int accumulate) {
    for (int r = 0; r < rows; r += LASER_ROWS)
        laser_kernel(C + (size_t)r * LASER_LANES, LASER_LANES, A + r, 1, (size_t)rows, B, ldb, LASER_VECS,
                     depth, accumulate);
}

/* C (rows, width) += A B; A (rows, QUERIES), B (QUERIES, width). A(r, p) is 0 for p < r + zeros. */
static void laser_product_queries(float *C, const float *A, const float *B, int rows, int width, int zeros) {
    for (int v = 0; v < width; v += LASER_LANES)
        for (int r = 0; r < rows; r += LASER_ROWS) {
            const int first = r + zeros > 0 ? r + zeros : 0;
            if (first >= LASER_QUERIES) break;
            float *c = C + (size_t)r * (size_t)width + v;
            const float *a = A + r * LASER_QUERIES + first, *b = B + (size_t)first * (size_t)width + v;
            if (width - v >= LASER_LANES)
                laser_kernel(c, (size_t)width, a, LASER_QUERIES, 1, b, (size_t)width, LASER_VECS,
                             LASER_QUERIES - first, 1);
            else
                for (int x = 0; x < width - v; x += LASER_W)
                    laser_kernel(c + x, (size_t)width, a, LASER_QUERIES, 1, b + x, (size_t)width, 1,
                                 LASER_QUERIES - first, 1);
        }
}

/* ---- Wild columns: sums of numbers with an exponent of their own ---- */

/* Splits the weights of a tile into power * 2^exponent. */
static void laser_wide_weights(LaserWork *w, const float *score, size_t ldc, const float *row_shift,
                               int keys) {
    for (int j = 0; j < keys; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            const LaserVec s = laser_load(score + (size_t)j * ldc + x), K = laser_load(row_shift + x);
            const LaserInt seen = s > LASER_MASKED;
            LaserVec k, p = laser_exp2_split(laser_max(s - K, laser_set(-4e6f)), &k);
            laser_store(w->power + j * LASER_LANES + x, laser_select(seen, p, laser_set(0)));
            laser_store(w->exponent + j * LASER_LANES + x, laser_select(seen, k + K, laser_set(LASER_NONE)));
        }
}

/* exp(v) of one column of a tile of keys as power * 2^exponent. */
static void laser_wide_values(const LaserCall *c, float *power, float *exponent, int head, int first,
                              int keys, int d) {
    const float *v = c->v + laser_at(c, c->shape->qkv_strides, head, first) + d;
    for (int j = 0; j < LASER_KEYS; j++) power[j] = j < keys ? v[j * c->shape->qkv_strides[1]] : 0;
    for (int j = 0; j < LASER_KEYS; j += LASER_W) {
        LaserVec k, p = laser_exp_split(laser_load(power + j), &k);
        laser_store(power + j, c->bf16 ? laser_round_bf16(p) : p);
        laser_store(exponent + j, k);
    }
}

/* (sum, e) += (x, f), all * 2^their exponents; the same bits as sum += x where float32 could hold it. */
LASER_INLINE void laser_wide_add(LaserVec *sum, LaserVec *e, LaserVec x, LaserVec f, LaserVec factor) {
    const LaserVec larger = laser_max(*e, f), scaled = x * laser_pow2(f - larger);
    *sum = laser_select(*e < larger, *sum * laser_pow2(*e - larger), *sum) + scaled * factor;
    *e = larger;
}

/* Adds a tile of keys to the sums of the wild columns. */
static void laser_wide_sum(const LaserCall *c, LaserWork *w, int slot, int head, int first, int keys) {
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    for (int i = 0; i < (int)wild[0]; i++) {
        float power[LASER_KEYS], exponent[LASER_KEYS];
        laser_wide_values(c, power, exponent, head, first, keys, (int)wild[1 + i]);
        for (int x = i * LASER_LANES, lane = 0; lane < LASER_LANES; x += LASER_W, lane += LASER_W) {
            LaserVec sum = laser_set(0), e = laser_set(LASER_NONE);
            for (int j = 0; j < keys; j++) {
                LaserVec a = laser_load(w->power + j * LASER_LANES + lane);
                if (c->bf16) a = laser_round_bf16(a);
                laser_wide_add(&sum, &e, a, laser_load(w->exponent + j * LASER_LANES + lane) + exponent[j],
                               laser_set(power[j]));
            }
            LaserVec total = laser_load(w->wide + x), E = laser_load(w->wide_exponent + x);
            laser_wide_add(&total, &E, sum, e, laser_set(1));
            laser_store(w->wide + x, total);
            laser_store(w->wide_exponent + x, E);
        }
    }
}

/* ---- Forward ---- */

/* Scores of keys that a query does not see. */
static void laser_mask(float *score, size_t ldc, int keys, int key, int query) {
    for (int j = 0; j < keys; j++)
        for (int i = 0; i < LASER_LANES && query + i < key + j; i++)
            score[(size_t)j * ldc + i] = LASER_MASKED;
}

/* One online-softmax step over a tile of scores: moves the row shifts, turns the scores into weights. */
static void laser_softmax(const LaserCall *c, LaserWork *w, int keys, int rescale) {
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        LaserVec top = laser_load(w->score + x);
        for (int j = 1; j < keys; j++) top = laser_max(top, laser_load(w->score + j * LASER_LANES + x));
        /* beyond 2^22 a float has no fraction worth rounding */
        const LaserInt small = (top < 4e6f) & (top > -4e6f);
        const LaserVec old = laser_load(w->row_shift + x);
        const LaserVec K = laser_max(old, laser_select(small, (top + LASER_ROUND) - LASER_ROUND, top));
        const LaserVec move = laser_pow2(old - K);
        LaserVec sum = laser_load(w->row_sum + x) * move, weight = laser_load(w->row_weight + x) * move;
        if (rescale)
            for (int d = 0; d < c->rows; d++)
                laser_store(w->sum + d * LASER_LANES + x, laser_load(w->sum + d * LASER_LANES + x) * move);
        laser_store(w->row_shift + x, K);
        for (int j = 0; j < keys; j++) {
            float *s = w->score + j * LASER_LANES + x;
            LaserVec a = laser_exp2(laser_load(s) - K);
            sum += a;
            if (c->bf16) a = laser_round_bf16(a);
            weight += a;
            laser_store(s, a);
        }
        laser_store(w->row_sum + x, sum);
        laser_store(w->row_weight + x, weight);
    }
}

/* Goes over the keys of a panel of queries: leaves K_i, the sums of the weights, the wild columns' sums, and
   with_values the sums of a V. q: the panel, packed. */
static void laser_rows(const LaserCall *c, LaserWork *w, const float *q, int slot, int head, int panel,
                       int with_values) {
    const int query = panel * LASER_LANES, end = query + LASER_LANES < c->T ? query + LASER_LANES : c->T;
    const int wild = c->laser && c->wild[(size_t)slot * (size_t)(c->D + 1)] > 0;
    memset(w->row_sum, 0, LASER_LANES * sizeof(float));
    memset(w->row_weight, 0, LASER_LANES * sizeof(float));
    for (int i = 0; i < LASER_LANES; i++) w->row_shift[i] = LASER_MASKED;
    for (int i = 0; wild && i < c->D * LASER_LANES; i++) w->wide[i] = 0, w->wide_exponent[i] = LASER_NONE;
    for (int key = 0; key < end; key += LASER_KEYS) {
        const int keys = end - key < LASER_KEYS ? end - key : LASER_KEYS;
        const size_t at = ((size_t)slot * (size_t)c->tiles) * LASER_KEYS + (size_t)key;
        laser_product_dots(w->score, LASER_LANES, c->k_dots + at * (size_t)c->D, q, keys, c->D);
        if (key + keys - 1 > query) laser_mask(w->score, LASER_LANES, keys, key, query);
        if (wild) memcpy(w->slope, w->score, LASER_KEYS * LASER_LANES * sizeof(float));
        laser_softmax(c, w, keys, with_values && key > 0);
        if (wild) {
            laser_wide_weights(w, w->slope, LASER_LANES, w->row_shift, keys);
            laser_wide_sum(c, w, slot, head, key, keys);
        }
        if (with_values)
            laser_product_keys(w->sum, c->v_rows + at * (size_t)c->rows, w->score, LASER_LANES, c->rows, keys,
                               key > 0);
    }
}

/* o of a panel from its sums, in place: divided by the weights; LASER: the logarithm. */
static void laser_normalise(const LaserCall *c, LaserWork *w, int slot) {
    const float *shift = c->shift + (size_t)slot * (size_t)c->width;
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec inverse = 1 / laser_load(w->row_weight + x), K = laser_load(w->row_shift + x);
        for (int d = 0; d < c->D; d++) {
            float *o = w->sum + d * LASER_LANES + x;
            LaserVec value = laser_load(o) * inverse;
            if (c->laser) {
                if (!c->causal) value = laser_max(value, laser_set(0x1p-100f));
                value = laser_log_shifted(value, laser_set(shift[d]));
            }
            laser_store(o, value);
        }
        for (int i = 0; c->laser && i < (int)wild[0]; i++)
            laser_store(w->sum + (int)wild[1 + i] * LASER_LANES + x,
                        laser_log_shifted(laser_load(w->wide + i * LASER_LANES + x) * inverse,
                                          laser_load(w->wide_exponent + i * LASER_LANES + x) - K));
    }
}

static void laser_forward_panel(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const int query = panel * LASER_LANES;
    laser_tile(c, w->tile, c->q, c->shape->qkv_strides, head, query, LASER_LANES);
    laser_tile_scale(c, w->tile, LASER_LANES, c->scale_log2e);
    laser_pack_dots(c, w->query, w->tile, LASER_LANES, LASER_LANES);
    laser_rows(c, w, w->query, slot, head, panel, 1);
    laser_normalise(c, w, slot);
    for (int i = 0; i < LASER_LANES && query + i < c->T; i++) {
        float *o = c->new_out + laser_at(c, c->shape->out_strides, head, query + i);
        for (int d = 0; d < c->D; d++) o[d] = w->sum[d * LASER_LANES + i];
    }
    for (int x = 0; x < LASER_LANES; x += LASER_W)
        laser_store(w->row_sum + x,
                    laser_log_shifted(laser_load(w->row_sum + x), laser_load(w->row_shift + x)));
    for (int i = 0; c->new_lse && i < LASER_LANES && query + i < c->T; i++)
        c->new_lse[(size_t)head * (size_t)c->T + (size_t)(query + i)] = w->row_sum[i];
}

LASER_INLINE int laser_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static int laser_min(int a, int b) { return a < b ? a : b; }

LASER_DEFINE void attention_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                                    const AttentionShape *shape) {
    LaserCall call = {.shape = shape, .q = q, .k = k, .v = v, .new_out = out, .new_lse = lse};
    LaserCall *c = &call;
    void *memory = laser_begin(c, 0);
#pragma omp parallel num_threads(c->threads)
    {
        LaserWork w;
        laser_work(c, &w, c->work + (size_t)laser_thread() * c->work_size);
        for (int head = 0; head < c->heads; head += c->flight) {
            const int n = laser_min(c->flight, c->heads - head);
#pragma omp for schedule(static)
            for (int s = 0; s < n; s++)
                if (c->laser) laser_scan_columns(c, s, head + s, &w);
#pragma omp for schedule(static)
            for (int i = 0; i < n * c->tiles; i++)
                laser_pack_keys(c, i / c->tiles, head + i / c->tiles, i % c->tiles, &w, 0);
#pragma omp for schedule(dynamic)
            for (int i = 0; i < n * c->panels; i++) /* the longest rows first */
                laser_forward_panel(c, &w, i % n, head + i % n, c->panels - 1 - i / n);
        }
    }
    LASER_FREE(memory);
}

/* ---- Backward ---- */

/* Where lse and out in float32 have too few digits left for the weights, the sums are computed again. */
static int laser_needs_rows(const LaserCall *c, int slot, int head, int query) {
    if (c->laser && c->wild[(size_t)slot * (size_t)(c->D + 1)] > 0) return 1;
    for (int i = query; i < query + LASER_LANES && i < c->T; i++)
        if (fabsf(c->lse[(size_t)head * (size_t)c->T + (size_t)i]) > 64) return 1;
    return 0;
}

/* K_i and 1 / (sum of row i), into w->row_shift and w->row_sum. q: the panel, packed. */
static void laser_row_sums(const LaserCall *c, LaserWork *w, const float *q, int slot, int head, int panel) {
    const int query = panel * LASER_LANES;
    if (laser_needs_rows(c, slot, head, query)) {
        laser_rows(c, w, q, slot, head, panel, 0);
        for (int x = 0; x < LASER_LANES; x += LASER_W)
            laser_store(w->row_sum + x, 1 / laser_load(w->row_sum + x));
        return;
    }
    for (int i = 0; i < LASER_LANES; i++)
        w->row_sum[i] = query + i < c->T ? -c->lse[(size_t)head * (size_t)c->T + (size_t)(query + i)] : 0;
    for (int x = 0; x < LASER_LANES; x += LASER_W) { /* exp(-lse) = 1 / sum * 2^-K */
        LaserVec k, inverse = laser_exp_split(laser_load(w->row_sum + x), &k);
        laser_store(w->row_sum + x, inverse);
        laser_store(w->row_shift + x, -k);
    }
}

/* What the wild columns' part of dS needs of a panel: do / sum as power * 2^exponent; they leave dO. */
static void laser_wild_gradient(const LaserCall *c, LaserWork *w, int slot, int query, float *dout) {
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    const size_t queries = (size_t)c->blocks * LASER_QUERIES;
    for (int n = 0; n < (int)wild[0]; n++) {
        const size_t at = ((size_t)slot * (size_t)c->D + (size_t)n) * queries + (size_t)query;
        for (int i = 0; i < LASER_LANES; i++) {
            float *g = dout + i * c->stride + (int)wild[1 + n];
            c->wild_g[at + (size_t)i] = *g / w->wide[n * LASER_LANES + i];
            c->wild_shift[at + (size_t)i] = w->wide_exponent[n * LASER_LANES + i];
            *g = 0;
        }
    }
}

/* The row terms sum_d do_id (standard: do_id o_id) / sum_i, and dO' / sum_i in place of dO. */
static void laser_panel_gradient(const LaserCall *c, LaserWork *w, int slot, int query, float *term) {
    const float *shift = c->shift + (size_t)slot * (size_t)c->width;
    float *dout = w->other, *out = w->tile;
    for (int i = 0; i < LASER_LANES; i++) {
        LaserVec row = laser_set(0);
        for (int d = 0; d < c->width; d += LASER_W) {
            LaserVec g = laser_load(dout + i * c->stride + d), o = laser_load(out + i * c->stride + d);
            if (c->laser && !c->causal) /* where o stays at its floor there is no gradient */
                g = laser_select(o > laser_log_shifted(laser_set(0x1p-100f), laser_load(shift + d)), g,
                                 laser_set(0));
            laser_store(dout + i * c->stride + d, g);
            row += c->laser ? g : g * o;
        }
        float total = 0;
        for (int x = 0; x < LASER_W; x++) total += row[x];
        term[i] = total * w->row_sum[i];
    }
    if (c->laser) laser_wild_gradient(c, w, slot, query, dout);
    for (int i = 0; i < LASER_LANES; i++)
        for (int d = 0; d < c->width; d += LASER_W) {
            LaserVec g = laser_load(dout + i * c->stride + d) * w->row_sum[i];
            if (c->laser)
                g *= laser_exp_shifted(-laser_load(out + i * c->stride + d), -laser_load(shift + d));
            laser_store(dout + i * c->stride + d, c->bf16 ? laser_round_bf16(g) : g);
        }
}

/* Packs a panel of queries and gradients for the tiles of keys below it. */
static void laser_pack_queries(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const int query = panel * LASER_LANES;
    const size_t at = (size_t)slot * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
    const size_t dots = at * (size_t)c->D, rows = at * (size_t)c->width;
    laser_tile(c, w->tile, c->q, c->shape->qkv_strides, head, query, LASER_LANES);
    laser_tile_scale(c, w->tile, LASER_LANES, c->scale_log2e);
    laser_pack_dots(c, c->q_dots + dots, w->tile, LASER_LANES, LASER_LANES);
    laser_pack_rows(c, c->q_rows + rows, w->tile, LASER_LANES, c->width);
    laser_row_sums(c, w, c->q_dots + dots, slot, head, panel);
    memcpy(c->row_shift + at, w->row_shift, LASER_LANES * sizeof(float));
    laser_tile(c, w->tile, c->out, c->shape->out_strides, head, query, LASER_LANES);
    laser_tile(c, w->other, c->dout, c->shape->out_strides, head, query, LASER_LANES);
    laser_panel_gradient(c, w, slot, query, c->row_term + at);
    laser_pack_dots(c, c->g_dots + dots, w->other, LASER_LANES, LASER_LANES);
    laser_pack_rows(c, c->g_rows + rows, w->other, LASER_LANES, c->width);
}

/* The wild columns' do_id p_ijd of a tile: added to dS and, summed over the queries, to dv. */
static void laser_wide_gradient(const LaserCall *c, LaserWork *w, float *slope, int slot, int head, int key,
                                int keys, int query) {
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    for (int n = 0; n < (int)wild[0]; n++) {
        const size_t at =
            ((size_t)slot * (size_t)c->D + (size_t)n) * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
        float power[LASER_KEYS], exponent[LASER_KEYS];
        laser_wide_values(c, power, exponent, head, key, keys, (int)wild[1 + n]);
        for (int j = 0; j < keys; j++) {
            LaserVec sum = laser_set(0);
            for (int x = 0; x < LASER_LANES; x += LASER_W) {
                const LaserVec k = laser_load(w->exponent + j * LASER_LANES + x) + exponent[j] -
                                   laser_load(c->wild_shift + at + x);
                const LaserVec g = laser_load(c->wild_g + at + x) *
                                   (laser_load(w->power + j * LASER_LANES + x) * power[j]) *
                                   laser_pow2(laser_select(k < 64, k, laser_set(64)));
                sum += g;
                laser_store(slope + j * LASER_QUERIES + x, laser_load(slope + j * LASER_QUERIES + x) + g);
            }
            for (int x = 0; x < LASER_W; x++) w->dv[j * c->width + (int)wild[1 + n]] += sum[x];
        }
    }
}

/* Scores into weights, dP into dS. */
static void laser_slopes(const LaserCall *c, float *score, float *slope, int keys, size_t at) {
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        const LaserVec K = laser_load(c->row_shift + at + x), term = laser_load(c->row_term + at + x);
        for (int j = 0; j < keys; j++) {
            const LaserVec a = laser_exp2(laser_load(score + j * LASER_QUERIES + x) - K);
            laser_store(score + j * LASER_QUERIES + x, a);
            laser_store(slope + j * LASER_QUERIES + x,
                        a * (laser_load(slope + j * LASER_QUERIES + x) - term));
        }
    }
}

/* One panel of queries against one tile of keys: its columns of the weights and of dS, and its dq. */
static void laser_backward_panel(const LaserCall *c, LaserWork *w, int slot, int head, int part, int key,
                                 int panel, int accumulate) {
    const int query = panel * LASER_LANES, offset = query % LASER_QUERIES;
    const int keys = laser_min(laser_min(LASER_KEYS, c->T - key), query + LASER_LANES - key);
    float *score = w->score + offset, *slope = w->slope + offset;
    for (int j = keys > 0 ? keys : 0; j < LASER_KEYS; j++) { /* keys that no query of the panel sees */
        memset(score + j * LASER_QUERIES, 0, LASER_LANES * sizeof(float));
        memset(slope + j * LASER_QUERIES, 0, LASER_LANES * sizeof(float));
    }
    if (keys <= 0) return;
    const size_t at = (size_t)slot * (size_t)c->blocks * LASER_QUERIES + (size_t)query;
    const size_t tile = (size_t)slot * (size_t)c->tiles * LASER_KEYS + (size_t)key;
    const int padded = (int)laser_round_up((size_t)keys, LASER_ROWS);
    (void)padded;
    laser_product_dots(score, LASER_QUERIES, c->k_dots + tile * (size_t)c->D, c->q_dots + at * (size_t)c->D,
                       keys, c->D);
    laser_product_dots(slope, LASER_QUERIES, c->v_dots + tile * (size_t)c->D, c->g_dots + at * (size_t)c->D,
                       keys, c->D);
    if (key + keys - 1 > query) laser_mask(score, LASER_QUERIES, keys, key, query);
    const int wild = c->laser && c->wild[(size_t)slot * (size_t)(c->D + 1)] > 0;
    if (wild) laser_wide_weights(w, score, LASER_QUERIES, c->row_shift + at, keys);
    laser_slopes(c, score, slope, keys, at);
    if (wild) laser_wide_gradient(c, w, slope, slot, head, key, keys, query);
    for (int j = 0; j < LASER_KEYS; j++)
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *a = score + j * LASER_QUERIES + x, *b = slope + j * LASER_QUERIES + x;
            if (j >= keys) laser_store(a, laser_set(0)), laser_store(b, laser_set(0));
            if (c->bf16)
                laser_store(a, laser_round_bf16(laser_load(a))),
                    laser_store(b, laser_round_bf16(laser_load(b)));
        }
    const size_t panels = (size_t)c->panels,
                 to = ((size_t)slot * (size_t)c->parts + (size_t)part) * panels + (size_t)panel;
    laser_product_keys(c->dq_parts + to * (size_t)c->rows * LASER_LANES, c->k_rows + tile * (size_t)c->rows,
                       slope, LASER_QUERIES, c->rows, keys, accumulate);
}

/* dk and dv of one tile of keys, and its part of dq. */
static void laser_backward_keys(const LaserCall *c, LaserWork *w, int slot, int head, int part, int tile,
                                int accumulate) {
    const int key = tile * LASER_KEYS, keys = laser_min(LASER_KEYS, c->T - key),
              in_block = LASER_QUERIES / LASER_LANES;
    memset(w->dk, 0, LASER_KEYS * (size_t)c->width * sizeof(float));
    memset(w->dv, 0, LASER_KEYS * (size_t)c->width * sizeof(float));
    for (int block = key / LASER_QUERIES; block < c->blocks; block++) {
        for (int p = 0; p < in_block; p++)
            laser_backward_panel(c, w, slot, head, part, key, block * in_block + p, accumulate);
        const int zeros = key - block * LASER_QUERIES;
        const size_t rows =
            ((size_t)slot * (size_t)c->blocks + (size_t)block) * LASER_QUERIES * (size_t)c->width;
        laser_product_queries(w->dv, w->score, c->g_rows + rows, keys, c->width, zeros);
        laser_product_queries(w->dk, w->slope, c->q_rows + rows, keys, c->width, zeros);
    }
    const float *wild = c->wild + (size_t)slot * (size_t)(c->D + 1);
    if (c->laser) {
        laser_tile(c, w->tile, c->v, c->shape->qkv_strides, head, key, LASER_KEYS);
        laser_tile_exp(c, w->tile, slot);
        for (int i = 1; i <= (int)wild[0]; i++)
            for (int r = 0; r < keys; r++) w->tile[r * c->stride + (int)wild[i]] = 1;
    }
    for (int r = 0; r < keys; r++) {
        const ptrdiff_t at = laser_at(c, c->shape->qkv_strides, head, key + r);
        for (int d = 0; d < c->D; d++) {
            c->dk[at + d] = w->dk[r * c->width + d] * 0.693147181f; /* q is packed times log2(e) */
            c->dv[at + d] = w->dv[r * c->width + d] * (c->laser ? w->tile[r * c->stride + d] : 1);
        }
    }
}

/* The first tile of a part: equal areas under the diagonal. */
static int laser_part_begin(const LaserCall *c, int part) {
    return (int)(c->tiles * (1 - sqrt(1 - (double)part / c->parts)) + 0.5);
}

/* dq of a panel: its parts, summed in order. */
static void laser_backward_queries(const LaserCall *c, LaserWork *w, int slot, int head, int panel) {
    const size_t size = (size_t)c->rows * LASER_LANES;
    const int query = panel * LASER_LANES;
    memset(w->sum, 0, size * sizeof(float));
    for (int part = 0; part < c->parts; part++) {
        const int first = laser_part_begin(c, part), last = laser_part_begin(c, part + 1);
        if (first == last || first * LASER_KEYS >= query + LASER_LANES) continue;
        const float *from =
            c->dq_parts +
            (((size_t)slot * (size_t)c->parts + (size_t)part) * (size_t)c->panels + (size_t)panel) * size;
        for (size_t i = 0; i < size; i++) w->sum[i] += from[i];
    }
    for (int i = 0; i < LASER_LANES && query + i < c->T; i++) {
        float *dq = c->dq + laser_at(c, c->shape->qkv_strides, head, query + i);
        for (int d = 0; d < c->D; d++) dq[d] = c->scale * w->sum[d * LASER_LANES + i];
    }
}

/* Room for the wild columns of the heads in flight, should there be any. */
static void laser_make_wild(LaserCall *c, void **memory, int n) {
    const size_t size = (size_t)c->flight * (size_t)c->D * (size_t)c->blocks * LASER_QUERIES;
    int any = 0;
    for (int s = 0; c->laser && s < n; s++) any |= c->wild[s * (c->D + 1)] > 0;
    if (!any || *memory) return;
    *memory = laser_allocate(2 * size);
    c->wild_g = laser_aligned(*memory), c->wild_shift = c->wild_g + size;
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
                      .dv = dv};
    LaserCall *c = &call;
    void *memory = laser_begin(c, 1), *wild = NULL;
#pragma omp parallel num_threads(c->threads)
    {
        LaserWork w;
        laser_work(c, &w, c->work + (size_t)laser_thread() * c->work_size);
        for (int head = 0; head < c->heads; head += c->flight) {
            const int n = laser_min(c->flight, c->heads - head);
#pragma omp for schedule(static)
            for (int s = 0; s < n; s++)
                if (c->laser) laser_scan_columns(c, s, head + s, &w);
#pragma omp single
            laser_make_wild(c, &wild, n);
#pragma omp for schedule(static)
            for (int i = 0; i < n * c->tiles; i++)
                laser_pack_keys(c, i / c->tiles, head + i / c->tiles, i % c->tiles, &w, 1);
#pragma omp for schedule(dynamic)
            for (int i = 0; i < n * c->panels; i++) laser_pack_queries(c, &w, i % n, head + i % n, i / n);
#pragma omp for schedule(dynamic)
            for (int i = 0; i < n * c->parts; i++) {
                const int part = i / n, first = laser_part_begin(c, part),
                          last = laser_part_begin(c, part + 1);
                for (int tile = first; tile < last; tile++)
                    laser_backward_keys(c, &w, i % n, head + i % n, part, tile, tile > first);
            }
#pragma omp for schedule(static)
            for (int i = 0; i < n * c->panels; i++) laser_backward_queries(c, &w, i % n, head + i % n, i / n);
        }
    }
    LASER_FREE(memory);
    LASER_FREE(wild);
}

#endif
