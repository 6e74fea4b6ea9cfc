/* laser.h 1.2: causal multi-head attention on the CPU, standard and LASER, forward and backward, in one header file.
   Copyright (c) 2026 The laser trainer authors. MIT License; the whole text stands at the end of this file.

   HOW TO USE IT. Exactly one C file defines LASER_IMPLEMENTATION before it includes this header: there the functions
   are compiled. Every other file, in C or C++, includes the header without defining it. The implementation itself is C:
   a C++ program links with the object file of that one C file. The implementation needs GCC or Clang, because it uses
   their vector extensions, and the math library (-lm). Compiled with -fopenmp it runs on all cores. The C file that
   compiles the functions may define, before the include:
       LASER_STATIC                       all functions become static, private to that file
       LASER_MALLOC(size), LASER_FREE(p)  how work memory is allocated and freed, in place of malloc and free
       LASER_FAIL(text)                   what happens when memory runs out or a shape is impossible. It must not
                                          return. Without it, the text is printed to stderr and exit(1) is called.

   WHAT IT COMPUTES, for every sequence b of the batch and every head h. The score of query i and key j <= i is
   s_ij = scale * q_i . k_j, its log-sum-exp over the keys is lse_i = log sum_j exp(s_ij), and the attention weight is
   a_ij = exp(s_ij - lse_i). With softcap = X above 0 the score is X tanh(scale * q_i . k_j / X) instead. All sums over
   j run over the keys j <= i, which is the causal mask. Then
       standard attention   o_id = sum_j a_ij v_jd
       LASER attention      o_id = log sum_j a_ij exp(v_jd)
   (Duvvuri and Dhillon, "LASER: Attention with Exponential Transformation", ICML 2025, arXiv:2411.03493.)

   THE FUNCTIONS
       laser_forward(out, lse, q, k, v, &shape)
       laser_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape)
       laser_forward_naive, laser_backward_naive   the same formulas in double, slow and short: to read, and to test by
       laser_memory(&shape, backward)              the bytes of work memory that such a call allocates and frees again
       LASER_VERSION                               the version of this header, as text

   Element (b, t, h, d) of q, k, v, dq, dk and dv is at
       b * qkv_strides[0] + t * qkv_strides[1] + h * qkv_strides[2] + d
   and that of out and dout likewise with out_strides. So q, k and v may be parts of one packed buffer. lse has the
   shape (B, H, T), without gaps: forward writes it and backward reads it. It may be NULL when there will be no
   backward. Gradients are written (=), not added to. Outputs must not overlap inputs. Every B, T, H, D from 1 on is
   allowed. The result has the same bits for any number of threads.

   Work memory has no array of size T*T. Each thread works on one head, for which forward needs about 2 T*D floats and
   backward 6 T*D. When there are few heads, threads share a head, and backward needs up to 13 T*D for it. bfloat16
   needs less on CPUs where two bfloat16 are stored in the place of one float (see LASER_PAIR). (With glibc, mallopt
   with M_MMAP_THRESHOLD and M_TRIM_THRESHOLD makes malloc keep this memory between calls; else the system clears it
   again for each call.)

   EXAMPLE (a test compiles and runs these lines)
   [example]
   #define LASER_IMPLEMENTATION
   #include "laser.h"
   #include <stdio.h>
   enum { B = 1, T = 3, H = 1, D = 2, C = H * D };
   int main(void) {
       const float q[B * T * C] = {0}, k[B * T * C] = {0}; // all scores are equal: each row averages what it sees
       const float v[B * T * C] = {0, 1, 2, 3, 4, -1}, dout[B * T * C] = {0, 0, 0, 0, 1, 1};
       float out[B * T * C], lse[B * H * T], dq[B * T * C], dk[B * T * C], dv[B * T * C];
       LaserShape shape = {.batch = B, .seq_len = T, .heads = H, .head_dim = D, .qkv_strides = {T * C, C, D},
                           .out_strides = {T * C, C, D}, .kind = LASER_KIND_LASER};
       laser_forward(out, lse, q, k, v, &shape);
       laser_backward(dq, dk, dv, dout, q, k, v, out, lse, &shape);
       for (int t = 0; t < T; t++)
           printf("out %.4f %.4f   dv %.4f %.4f\n", out[t * C], out[t * C + 1], dv[t * C], dv[t * C + 1]);
       return 0;
   }
   [end]

   BACKWARD. do, dv, ds and da are the derivatives of the loss with respect to o, v, s and a. First standard attention,
   o_id = sum_j a_ij v_jd. Its gradients are
       dv_jd = sum_i a_ij do_id
       ds_ij = a_ij (da_ij - r_i)   with da_ij = sum_d do_id v_jd   and r_i = sum_j a_ij da_ij = sum_d do_id o_id
   where the softmax turns da into ds. For LASER, let p_ijd = a_ij exp(v_jd - o_id), which lies in [0, 1] and sums to 1
   over j. The derivative of o_id = log sum_j a_ij exp(v_jd) with respect to v_jd is p_ijd, and with respect to a_ij it
   is exp(v_jd - o_id). So
       dv_jd = sum_i do_id p_ijd
       ds_ij = a_ij (da_ij - r_i)   with da_ij = sum_d do_id exp(v_jd - o_id)   and r_i = sum_j a_ij da_ij = sum_d do_id
   because sum_j a_ij exp(v_jd - o_id) = 1 for every d. In other words, the backward of standard attention becomes that
   of LASER by four changes: exp(v_jd) takes the place of v_jd, do_id exp(-o_id) that of do_id, dv_jd is multiplied by
   exp(v_jd) at the end, and sum_d do_id is subtracted in place of sum_d do_id o_id. So LASER costs about T*D
   exponentials and logarithms for each head more than standard attention, and, like it, keeps only o and lse for
   backward. With softcap, these ds_ij are multiplied by 1 - (s_ij / X)^2, the derivative of the cap.

   WORDS AND LETTERS of the fast path. A vector register holds W floats; the place of one float in it is a lane. A panel
   is a group of 8 to 32 consecutive queries (LASER_LANES), one in each lane. A tile is a group of 128 consecutive keys
   (LASER_TILE). The online softmax reads the keys of a row tile by tile, so it does not know the row's maximum at the
   start: it subtracts the largest score so far, and multiplies the sums so far by exp(old - new) when that grows.
       letter    meaning                                                                    kept in
       K_i       exponent of row i: exp(s_ij) is computed as exp(s_ij) 2^-K_i               row_shift
       row_sum   sum_j exp(s_ij) 2^-K_i, so a_ij = exp(s_ij) 2^-K_i / row_sum               row_sum; 1 / row_sum is kept
                                                                                            in row_inverse
       n_d       exponent of column d of the values, in forward                             LaserHead's shift, forward
       m_d       a number near the smallest value of column d, in backward                  LaserHead's shift, backward
       V'        what takes the place of V in the products. Standard: V. LASER, forward:    exact (V' itself) and
                 V'_jd = exp(v_jd) 2^-n_d. LASER, backward: V'_jd = exp(v_jd - m_d)         v (V' less its center)
       c_d       the center of column d, a constant that is subtracted from V' before       center in forward; the
                 the product: one for each tile in forward, always 1 in backward            number 1 in backward
       dO'       what takes the place of dO. Standard: dO. LASER: do_id exp(m_d - o_id)     g_panels, g_by_column
       dP_ij     sum_d dO'_id (V'_jd - c_d), with c_d = 0 for standard attention            dp
       term_i    what is subtracted from dP_ij: ds_ij = a_ij (dP_ij - term_i). Standard:    row_term
                 sum_d do_id o_id. LASER: sum_d do_id (1 - exp(m_d - o_id)), see SMALL VALUES

   RANGE: why no exponential overflows. Softmax usually subtracts the maximum before it takes an exponential. Here
   every exponential is computed as p * 2^k, with p near 1 and an integer k, and "subtracting n log 2" from its argument
   means writing k-n in place of k. The shifts K_i and n_d are such integers, so they multiply a sum by a power of two,
   which is exact. So any two shifts with which nothing overflows or becomes 0 give the same bits of o. It follows that
   the shift of a row may grow from one tile of keys to the next, as in the online softmax, without a rounding error. It
   also follows that earlier rows keep their bits when a later token changes a shift.
   - Scores. exp(s_ij) is multiplied by 2^-K_i, where K_i is the running maximum of s_ij log2(e), rounded to an integer.
   - Values, with shift = LASER_SHIFT_CAUSAL. exp(v_jd) is multiplied by 2^-n_d, where n_d is v_0d log2(e), rounded: key
     0 is the one key that every row sees. As long as the values of a column stay within 40 of v_0d, float32 can hold
     every exp(v_jd) 2^-n_d and every sum of them. From the first key on whose value does not, the column is "out of
     range". The rows that see such a key compute o_id + lse_i = log sum_j exp(s_ij + v_jd) for this column separately:
     a softmax of its own with its own running shift, without a matrix product. So no visible key's contribution is
     lost, whatever the later tokens are, for |v| up to 1e6. Backward
     treats a column separately, with all of its keys, for two reasons. If its values are farther than 128 from zero,
     o_id has a large rounding error, which becomes the relative error of exp(m_d - o_id). If they spread over more than
     64, exp(v_jd - m_d) can overflow.
   - Values, with shift = LASER_SHIFT_SEQUENCE, the shift of the paper. n_d is M log2(e), rounded up, where M is the
     largest v_jd of the column over the WHOLE sequence, including tokens that a row must not see. Where the weighted
     average sum_j a_ij exp(v_jd) is below about exp(M - 69.3), which is 2^-100 exp(M), it is lost: o_id is then set to
     about M - 69.3, depends on later tokens, and passes no gradient. (The paper's formula gives log 0 there.)

   SMALL VALUES. If |v| << 1, every exp(v) is nearly 1, and rounding to bfloat16 removes the digits in which they
   differ. Since sum_j a_ij = 1, a constant c_d, the "center" of the column, may be subtracted from V' before rounding
   and added back after the product. In forward
       sum_j a_ij V'_jd = c_d + sum_j a_ij (V'_jd - c_d)
   and in backward, where V'_jd = exp(v_jd - m_d), dO'_id = do_id exp(m_d - o_id) and c_d = 1,
       sum_d dO'_id V'_jd - sum_d do_id = sum_d dO'_id (V'_jd - 1) - sum_d do_id (1 - exp(m_d - o_id))
                                        = dP_ij - term_i
   The difference V'_jd - c_d is as small as the spread of v and keeps its digits. Forward with bfloat16 has one center
   for each column of each tile. It is computed from all keys of the tile. A row that sees only some of them must not
   use it, because a later token, through the center and the rounding, would then change the output of an earlier row.
   So the last tile of a row, which it may see in part, is summed in float32, without a center. Backward may use one m_d
   for a whole column, computed from all tokens: the outputs exist already, and the gradient does not depend on m_d.

   PRECISION. LASER_BF16 rounds the operands of the matrix products to bfloat16: q, k, v (LASER: V' - c_d)
   and the weights; in backward also dO' and dS. It does so on every CPU. Sums, exponentials, logarithms, shifts and
   outputs stay float32. On CPUs that multiply pairs of bfloat16 faster than float32 (AVX512-BF16 without AMX, such as
   Zen 4 and Zen 5) it is faster than LASER_FP32; elsewhere it is a little slower. The weights exp(s_ij) 2^-K_i of a row
   are rounded before they are divided by their sum, and the sum is that of the rounded weights, so the quotients still
   add up to 1.

   HOW TO READ THE CODE. Begin with the naive functions: they are the formulas above. Then read laser_rows, which goes
   through the keys of a panel of queries in forward, and laser_backward_tile, which goes through the queries that see a
   tile of keys in backward, with laser_backward_panel for each panel of them. Both keep the scores of
   one key with all queries of the panel side by side in the lanes of vectors, so that the maximum and the sum of a row
   never need an operation across lanes. laser_forward and laser_backward, at the end, list a call's steps. */
#ifndef LASER_H
#define LASER_H

#include <stddef.h>

#define LASER_VERSION "1.2"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef LASER_STATIC
#define LASER_API static __attribute__((unused))
#else
#define LASER_API extern
#endif

typedef enum { LASER_KIND_STANDARD, LASER_KIND_LASER } LaserKind;
typedef enum { LASER_SHIFT_CAUSAL, LASER_SHIFT_SEQUENCE } LaserShift;
typedef enum { LASER_FP32, LASER_BF16 } LaserPrecision;

typedef struct {
    int batch, seq_len, heads, head_dim; /* B, T, H, D */
    /* How many elements lie between one sequence, token or head and the next: in q, k, v, dq, dk and dv; in out and
       dout. */
    ptrdiff_t qkv_strides[3];
    ptrdiff_t out_strides[3];
    float scale;   /* scores are scale * q . k; 0 means 1 / sqrt(D) */
    float softcap; /* X above 0: scores become X tanh(score / X); 0: they stay as they are */
    LaserKind kind;
    LaserShift shift; /* standard attention ignores it */
    LaserPrecision precision;
} LaserShape;

LASER_API void laser_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                             const LaserShape *shape);
LASER_API void laser_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                              const float *k, const float *v, const float *out, const float *lse,
                              const LaserShape *shape);
LASER_API void laser_forward_naive(double *out, double *lse, const double *q, const double *k,
                                   const double *v, const LaserShape *shape);
LASER_API void laser_backward_naive(double *dq, double *dk, double *dv, const double *dout, const double *q,
                                    const double *k, const double *v, const double *out, const double *lse,
                                    const LaserShape *shape);
LASER_API size_t laser_memory(const LaserShape *shape, int backward);

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

/* ---- The naive versions: the formulas of the manual in double, one row after the other ---- */

static void *laser_malloc(size_t size) {
    void *memory = LASER_MALLOC(size);
    if (!memory) LASER_FAIL("attention: out of memory; use a smaller batch or a shorter sequence");
    return memory;
}

/* Ends the program when a size is impossible or when kind, shift or precision is not in its enum. */
static void laser_check(const LaserShape *s) {
    if (s->batch < 1 || s->seq_len < 1 || s->heads < 1 || s->head_dim < 1)
        LASER_FAIL("attention: batch, seq_len, heads and head_dim must be at least 1");
    if (!(s->softcap >= 0 && s->softcap < 1e30f))
        LASER_FAIL("attention: softcap must be 0 or above, and below 1e30");
    if ((s->kind != LASER_KIND_STANDARD && s->kind != LASER_KIND_LASER) ||
        (s->shift != LASER_SHIFT_CAUSAL && s->shift != LASER_SHIFT_SEQUENCE) ||
        (s->precision != LASER_FP32 && s->precision != LASER_BF16))
        LASER_FAIL("attention: unknown kind, shift or precision; the enums of laser.h list those that exist");
}

static double laser_scale(const LaserShape *shape) {
    return shape->scale != 0 ? shape->scale : 1 / sqrt(shape->head_dim);
}

/* The position, in an array with these strides, of the first element of token t of a head. `head` counts the heads of
   all sequences: b * H + h. */
static ptrdiff_t laser_at(const LaserShape *shape, const ptrdiff_t strides[3], ptrdiff_t head, ptrdiff_t t) {
    return head / shape->heads * strides[0] + t * strides[1] + head % shape->heads * strides[2];
}

/* The score s_ij = scale * q_i . k_j, softly capped; q and k point to q_i and k_j. */
static double laser_naive_score(const double *q, const double *k, const LaserShape *shape) {
    double sum = 0;
    for (int d = 0; d < shape->head_dim; d++) sum += q[d] * k[d];
    const double score = sum * laser_scale(shape), cap = shape->softcap;
    return cap > 0 ? cap * tanh(score / cap) : score;
}

/* log sum_j exp(s_j + v_j) over `count` keys. s (count) holds the scores of one row. v is one column of the values,
   whose tokens are `token` elements apart; NULL stands for zeros. */
static double laser_log_sum_exp(const double *s, const double *v, ptrdiff_t token, ptrdiff_t count) {
    double maximum = -INFINITY, sum = 0;
    for (ptrdiff_t j = 0; j < count; j++) maximum = fmax(maximum, s[j] + (v ? v[j * token] : 0));
    for (ptrdiff_t j = 0; j < count; j++) sum += exp(s[j] + (v ? v[j * token] : 0) - maximum);
    return maximum + log(sum);
}

/* The smallest o that LASER returns for a column of V: the "floor". Only the paper's shift has one: it is 100 log 2
   below the column's maximum over the whole sequence, which is first rounded up to a multiple of log 2. */
static double laser_naive_floor(const double *v, const LaserShape *shape) {
    if (shape->kind == LASER_KIND_STANDARD || shape->shift == LASER_SHIFT_CAUSAL) return -INFINITY;
    double maximum = v[0];
    for (int t = 1; t < shape->seq_len; t++) maximum = fmax(maximum, v[t * shape->qkv_strides[1]]);
    return (ceil(maximum * 1.4426950408889634) - 100) * log(2);
}

LASER_API void laser_forward_naive(double *out, double *lse, const double *q, const double *k,
                                   const double *v, const LaserShape *shape) {
    laser_check(shape);
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
            if (shape->kind == LASER_KIND_LASER)
                o[d] = fmax(laser_log_sum_exp(s, column, token, i + 1) - row_lse,
                            laser_naive_floor(column, shape));
            else
                for (ptrdiff_t j = 0; j <= i; j++) o[d] += exp(s[j] - row_lse) * column[j * token];
        }
    }
    LASER_FREE(s);
}

LASER_API void laser_backward_naive(double *dq, double *dk, double *dv, const double *dout, const double *q,
                                    const double *k, const double *v, const double *out, const double *lse,
                                    const LaserShape *shape) {
    laser_check(shape);
    const ptrdiff_t T = shape->seq_len, D = shape->head_dim, token = shape->qkv_strides[1];
    double *g = laser_malloc((size_t)D * sizeof *g);
    for (ptrdiff_t row = 0; row < (ptrdiff_t)shape->batch * shape->heads * T; row++) {
        const ptrdiff_t head = laser_at(shape, shape->qkv_strides, row / T, 0), i = head + row % T * token;
        const ptrdiff_t at_out = laser_at(shape, shape->out_strides, row / T, row % T);
        const double *o = out + at_out;
        /* i and, below, j are where q_i and k_j begin in their arrays. Row i is the first that sees key i, so dk and dv
           begin at 0 here. At its floor, o does not depend on q, k or v, so it passes no gradient. */
        for (ptrdiff_t d = 0; d < D; d++) {
            dq[i + d] = dk[i + d] = dv[i + d] = 0;
            g[d] = o[d] > laser_naive_floor(v + head + d, shape) ? dout[at_out + d] : 0;
        }
        for (ptrdiff_t key = 0; key <= row % T; key++) {
            const ptrdiff_t j = head + key * token;
            const double score = laser_naive_score(q + i, k + j, shape), log_a = score - lse[row];
            const double capped = shape->softcap > 0 ? score / shape->softcap : 0; /* tanh(s / X) */
            double ds = 0;
            /* o[d] = sum over j of a * v[j + d]; LASER: o[d] = log of the sum of exp(log_a + v[j + d]) */
            for (ptrdiff_t d = 0; d < D; d++) {
                const double a = exp(log_a), x = v[j + d];
                const double p = shape->kind == LASER_KIND_LASER ? exp(log_a + x - o[d]) : a;
                dv[j + d] += g[d] * p;
                /* ds = a (da - r), a term for each d. Standard: do a (v - o). LASER: do (a exp(v - o) - a) */
                ds += g[d] * (shape->kind == LASER_KIND_LASER ? p - a : a * (x - o[d]));
            }
            /* s = X tanh(s' / X), whose derivative is 1 - tanh(s' / X)^2 */
            ds *= 1 - capped * capped;
            /* s' = scale * sum over d of q[i + d] * k[j + d] */
            for (ptrdiff_t d = 0; d < D; d++) {
                dq[i + d] += laser_scale(shape) * ds * k[j + d];
                dk[j + d] += laser_scale(shape) * ds * q[i + d];
            }
        }
    }
    LASER_FREE(g);
}

/* ---- Vectors, exponentials, logarithms ---- */

/* The sizes of the fast path. A vector has W floats. The innermost loop of a matrix product keeps the sums of ROWS x
   VECS vectors in registers. A panel is LANES = W * VECS queries, which lie side by side in VECS vectors. A tile is
   LASER_TILE keys. The functions below whose argument is named `panel` or `query` work on one panel of queries, of
   which `query` is the first; those with `tile` or `key` work on one tile of keys, of which `key` is the first.

   LASER_PS(max, a, b) is the instruction that computes the lane-by-lane maximum of a and b, LASER_PS(min, a, b) the
   minimum. INTERLEAVE_LOW and _HIGH are the lane numbers that interleave two vectors a and b: a0 b0 a1 b1 ... from
   their first halves, and the same from their second halves. */
#if defined(__AVX512F__)
enum { LASER_W = 16, LASER_ROWS = 8 };
#define LASER_PS(operation, a, b) (LaserVec) _mm512_##operation##_ps((__m512)(a), (__m512)(b))
#define LASER_STREAM(x, a) _mm512_stream_ps(x, (__m512)(a))
#define LASER_INTERLEAVE_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LASER_INTERLEAVE_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
enum { LASER_W = 8, LASER_ROWS = 4 };
#define LASER_PS(operation, a, b) (LaserVec) _mm256_##operation##_ps((__m256)(a), (__m256)(b))
#define LASER_STREAM(x, a) _mm256_stream_ps(x, (__m256)(a))
#define LASER_INTERLEAVE_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define LASER_INTERLEAVE_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#ifdef __aarch64__
enum { LASER_W = 4, LASER_ROWS = 8 };
#else
enum { LASER_W = 4, LASER_ROWS = 4 };
#endif
#define LASER_INTERLEAVE_LOW 0, 4, 1, 5
#define LASER_INTERLEAVE_HIGH 2, 6, 3, 7
#endif
enum {
    LASER_VECS = 2,
    LASER_LANES = LASER_W * LASER_VECS,
    LASER_TILE = 128, /* keys of a tile; backward also works through the queries in groups of this size */
    LASER_AHEAD = 8   /* while row i of the caller's arrays is in use, row i + LASER_AHEAD is prefetched */
};

typedef float LaserVec __attribute__((vector_size(4 * LASER_W)));
typedef int32_t LaserInt __attribute__((vector_size(4 * LASER_W)));
typedef float LaserUnaligned __attribute__((vector_size(4 * LASER_W), aligned(4), may_alias));

LASER_INLINE LaserVec laser_load(const float *x) { return *(const LaserUnaligned *)x; }
LASER_INLINE void laser_store(float *x, LaserVec a) { *(LaserUnaligned *)x = a; }
/* x in every lane. It is copied as bits, because x may hold two bfloat16 rather than a float. */
LASER_INLINE LaserVec laser_set(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (LaserVec)((LaserInt){0} + bits);
}
LASER_INLINE LaserVec laser_select(LaserInt mask, LaserVec a, LaserVec b) {
    return (LaserVec)((mask & (LaserInt)a) | (~mask & (LaserInt)b));
}

/* Operations for which one instruction exists that compilers do not find from the vector extensions. LASER_STREAM
   stores a vector to memory past the caches, so that the processor does not read the cache line first. */
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

/* The operands of matrix products are float32 or bfloat16. LASER_PAIR says how many bfloat16 are stored in the place of
   one float. It is 2 where one instruction multiplies and adds pairs of bfloat16 faster than two instructions do
   float32: with AVX512-BF16, except on CPUs with AMX (whose macro clang 14 spells without an underscore). Elsewhere it
   is 1: a bfloat16 is then stored as the float32 of the same value. The instruction adds the two products of a pair to
   one sum, so both numbers of a pair must be neighbours in the dimension that the product sums over. Hence there are
   two forms of packing:
       by row      A pair holds two neighbours of one row. laser_store_by_row writes the W numbers of x as W / PAIR
                   floats.
       by column   A pair holds two numbers of one column, from two consecutive rows x and y. laser_store_by_column
                   writes both rows: with pairs as W floats at `to`; else x at `to` and y at to + row. It returns
                   z + x + y, where x and y are the rounded numbers. */
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && !defined(__AMX_BF16__) && !defined(__AMXBF16__)
enum { LASER_PAIR = 2 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) {
    return (LaserVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
LASER_INLINE __m256i laser_bf16(LaserVec x) { return (__m256i)_mm512_cvtneps_pbh((__m512)x); }
LASER_INLINE void laser_store_by_row(int bf16, float *to, LaserVec x) {
    bf16 ? _mm256_storeu_si256((void *)to, laser_bf16(x)) : laser_store(to, x);
}
LASER_INLINE LaserVec laser_store_by_column(int bf16, float *to, ptrdiff_t row, LaserVec x, LaserVec y,
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
    /* 0x3F80 is 1 in bfloat16: multiplying each pair by (1, 1) adds x + y to z */
    return laser_dot(z, pairs, (LaserVec)((LaserInt){0} + 0x3F803F80));
}
#else
enum { LASER_PAIR = 1 };
LASER_INLINE LaserVec laser_dot(LaserVec sum, LaserVec a, LaserVec b) { return sum + a * b; }
LASER_INLINE LaserVec laser_bf16(LaserVec x) { /* to nearest, ties to even; a NaN stays a NaN */
    const LaserInt bits = (LaserInt)x;
    const LaserVec rounded = (LaserVec)(bits + 0x7FFF + ((bits >> 16) & 1)),
                   quiet = (LaserVec)(bits | 0x400000);
    return (LaserVec)((LaserInt)laser_select(x == x, rounded, quiet) & ~0xFFFF);
}
LASER_INLINE void laser_store_by_row(int bf16, float *to, LaserVec x) {
    laser_store(to, bf16 ? laser_bf16(x) : x);
}
LASER_INLINE LaserVec laser_store_by_column(int bf16, float *to, ptrdiff_t row, LaserVec x, LaserVec y,
                                            LaserVec z) {
    if (bf16) x = laser_bf16(x), y = laser_bf16(y);
    laser_store(to, x), laser_store(to + row, y);
    return z + (x + y);
}
#endif

#define LASER_LOG2E 1.44269504f
/* log 2 is the sum of two floats. The first has nine bits, so its product with an integer below 2^15 is exact. */
#define LASER_LN2_HIGH 0.693359375f
#define LASER_LN2_LOW (-2.12194440e-4f)
#define LASER_ROUNDING 12582912.0f /* 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to an integer */
#define LASER_MASKED (-3e38f)      /* the score of a key that the row must not see */
#define LASER_NO_KEY 1e9f          /* larger than any key: "no key of this column is out of range" */

/* x rounded to an integer. Where |x| is near 2^22 or more it has at most one bit of fraction and is returned as it
   is. */
LASER_INLINE LaserVec laser_round(LaserVec x) {
    const LaserVec size = (LaserVec)((LaserInt)x & 0x7FFFFFFF);
    return laser_select(size < 4e6f, (x + LASER_ROUNDING) - LASER_ROUNDING, x);
}

/* 2^k for an integer k <= 127. It is 0 where k < -126. Adding LASER_ROUNDING = 1.5 * 2^23 to an integer leaves that
   integer in the lowest bits of the float. So the low bits of y are k + 127, and shifting them left by 23 puts them
   where a float keeps its exponent. */
LASER_INLINE LaserVec laser_pow2(LaserVec k) {
    const LaserVec y = laser_max(k, laser_set(-127)) + (LASER_ROUNDING + 127);
    return (LaserVec)((LaserInt)y << 23);
}

/* 2^r - 1 for |r| <= 1/2: a minimax polynomial found by the Remez algorithm. Its relative error is 3e-9 before
   rounding. */
LASER_INLINE LaserVec laser_exp2m1_poly(LaserVec r) {
    const LaserVec p = (1.559467818e-4f * r + 1.340664390e-3f) * r + 9.617692973e-3f;
    return (((p * r + 5.550310551e-2f) * r + 2.402265278e-1f) * r + 6.931472150e-1f) * r;
}

/* 2^x for x <= 127. It is 0 where x is far below -126. */
LASER_INLINE LaserVec laser_exp2(LaserVec x) {
#ifdef __AVX512F__
    const LaserVec k = (LaserVec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
    return (LaserVec)_mm512_scalef_ps((__m512)(laser_exp2m1_poly(x - k) + 1), (__m512)k);
#else
    x = laser_max(x, laser_set(-127));
    const LaserVec y = x + (LASER_ROUNDING + 127); /* its low bits are x, rounded to an integer, + 127 */
    const LaserVec r = x - (y - (LASER_ROUNDING + 127));
    return (laser_exp2m1_poly(r) + 1) * (LaserVec)((LaserInt)y << 23);
#endif
}

/* Computes exp(x) in two parts: exp(x) = (1 + result) * 2^k with an integer k. |x| is limited to 2e6. */
LASER_INLINE LaserVec laser_exp_split(LaserVec x, LaserVec *k) {
    x = laser_max(laser_min(x, laser_set(2e6f)), laser_set(-2e6f));
    *k = (x * LASER_LOG2E + LASER_ROUNDING) - LASER_ROUNDING;
    const LaserVec r = (x - *k * LASER_LN2_HIGH) - *k * LASER_LN2_LOW;
    return laser_exp2m1_poly(r * LASER_LOG2E);
}

/* exp(x) * 2^-n for an integer n. If less_one is not NULL it receives exp(x) * 2^-n - 1, without the loss of digits
   that a subtraction would bring. The result is p * 2^(k-n) with p near 1; the power of two becomes 0 where it would be
   below 2^-126, and is at most 2^127. */
LASER_INLINE LaserVec laser_exp(LaserVec x, LaserVec n, LaserVec *less_one) {
    LaserVec k;
    const LaserVec p = laser_exp_split(x, &k), power = laser_pow2(laser_min(k - n, laser_set(127)));
    /* here the processor can fuse "+ 1" with the last multiplication inside p, which saves a rounding */
    if (!less_one) return (p + 1) * power;
    *less_one = p * power + (power - 1);
    return p * power + power;
}

/* log(x * 2^n) for a normal float x > 0 and an integer n. For x = 0 it is finite and has no meaning. */
LASER_INLINE LaserVec laser_log(LaserVec x, LaserVec n) {
    const LaserInt e = ((LaserInt)x - 0x3F3504F3) >> 23; /* x = 2^e m, m in [sqrt(1/2), sqrt(2)) */
    const LaserVec f = (LaserVec)((LaserInt)x - (e << 23)) - 1, s = f / (f + 2), z = s * s;
    n += __builtin_convertvector(e, LaserVec);
    const LaserVec t = ((0.22222222f * z + 0.28571429f) * z + 0.4f) * z + 0.66666667f;
    /* log m = 2 atanh(s) = 2 s + s (2/3 z + 2/5 z^2 + ...), where 2 s = f - s f, and f is exact */
    return n * LASER_LN2_HIGH + (f + (n * LASER_LN2_LOW + s * (z * t - f)));
}

/* ---- Products ---- */

static ptrdiff_t laser_round_up(ptrdiff_t x, ptrdiff_t unit) { return (x + unit - 1) / unit * unit; }
static ptrdiff_t laser_least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static ptrdiff_t laser_most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* A matrix product C (rows, columns) = A (rows, depth) B (depth, columns). A(r, p) is a[r * a_row + p * a_depth], and
   row p of B begins at b + p * ldb; rows of C are ldc floats apart. With pair == 2 each float of A and B is two
   bfloat16, neighbours in depth, and depth counts floats. */
typedef struct {
    float *c;
    const float *a, *b;
    /* If accumulate is set, the product is added to what is already in C. If rescale (rows) is not NULL, row r of C is
       first multiplied by rescale[r]. */
    const float *rescale;
    /* If center (columns) is not NULL, weights[r] * center[column] is added as well; weights has the shape (rows). */
    const float *weights, *center;
    ptrdiff_t ldc, a_row, a_depth, ldb, rows, columns, depth;
    /* The causal mask: A(r, p) is taken as 0 where p < r + first or p > r + last (p is the index of a number, even when
       two numbers share a float). The kernel leaves out a p only if it is masked in all ROWS rows that it computes
       together. Where only some of these rows mask it, the caller must have stored 0 there. */
    ptrdiff_t first, last;
    int pair, accumulate;
} LaserProduct;

/* Computes ROWS rows and `vecs` vectors of C from `row` and `column` on, with all sums in registers. The callers
   pass constants for pair and vecs, and often for a_row or a_depth, so that the compiler unrolls the loops and computes
   addresses with fewer instructions. */
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

/* The whole product. It computes whole vectors and whole groups of ROWS rows, so C must have room for the last of them
   beyond its rows and columns. One of a_row and a_depth is 1. */
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

/* The sizes of one call, and the arrays of its caller. T, D, B and H are those of the manual. Matrices of tokens by D
   come in two forms:
       float32   A row takes `stride` floats: D, rounded up to whole vectors.
       packed    An operand of a matrix product, of which one float holds `pair` numbers, 1 or 2 (see LASER_PAIR). n
                 rows take n * `units` floats, where units = stride / pair. Packed by column with pair == 2, two rows
                 share 2 * units = stride floats. With pair == 1, packed by row and packed by column are the same. */
typedef struct {
    const LaserShape *shape;
    const float *q, *k, *v, *out, *dout, *lse;
    float *new_out, *new_lse, *dq, *dk, *dv;
    ptrdiff_t T, D, heads, threads; /* heads = B * H */
    ptrdiff_t heads_at_once;        /* how many heads are in work memory at the same time */
    ptrdiff_t tiles, rows;   /* how many tiles of keys hold T tokens, and how many tokens these tiles hold */
    ptrdiff_t panels;        /* how many panels of queries hold T tokens */
    ptrdiff_t stride, units; /* floats of a row of D numbers: in float32, and packed */
    ptrdiff_t in_token, out_token;  /* elements from one token to the next in q, k, v and in out, dout */
    ptrdiff_t head_size, work_size; /* how many floats the arrays of a LaserHead and a LaserWork need */
    size_t bytes;                   /* all work memory of the call */
    /* Backward divides the tiles of a head into `parts` parts, at most 8. Part n is the tiles part[n] to
       part[n + 1] - 1. */
    ptrdiff_t parts, part[9];
    float scale, scale_log2e;                /* the factor of the scores, and the same times log2(e) */
    float softcap_log2e;                     /* softcap times log2(e); 0: scores are not capped */
    int backward, laser, causal_shift, bf16; /* truth values: what the call computes */
    int pair;
} LaserCall;

/* One head that is worked on. The letters are those of the manual; shapes are in floats. Arrays that a call does not
   need have size 0. */
typedef struct __attribute__((aligned(64))) {
    /* The position of the head's first element in q, k and v, in out and dout, and in lse. */
    ptrdiff_t in, out, row;

    /* Only LASER uses the next five. */
    float *shift; /* (stride) forward: n_d. Backward: m_d. */
    float *floor; /* (stride) backward: the smallest o that the paper's shift allows */
    /* (stride) forward: the first key that is out of range in this column, or LASER_NO_KEY. Backward: 0 if the column
       is out of range, since then all of its keys are treated separately; else LASER_NO_KEY. */
    float *out_of_range_from;
    float *center; /* (tiles, stride) forward with bfloat16: c_d of each tile */
    float *exact;  /* (rows, stride) forward with bfloat16: V' in float32 */

    float *k_by_row;    /* (rows, units) K packed by row */
    float *k_by_column; /* (rows, units) backward: K packed by column */
    float *v;           /* (rows, units) forward: V' less its center, packed by column */

    /* Backward: Q and dO' / row_sum. As panels (all panels, units, LANES) they are packed by row, and each panel is
       transposed, so that its queries lie in lanes; here Q is multiplied by scale * log2(e), and dO' by scale. By
       column they are (rows, units). */
    float *q_panels, *g_panels, *q_by_column, *g_by_column;
    float *row_shift; /* (rows) backward: K_i */
    float *row_term;  /* (rows) backward: scale * term_i / row_sum */
    float *dq_parts;  /* (parts, rows, stride) backward: what each part of the keys adds to dq */

    /* (D, rows) backward, for columns d out of range, which have a softmax of their own over s_ij + v_jd: do_id divided
       by the sum of exp(s_ij + v_jd) 2^-shift, and that shift. NULL until a head needs them. */
    float *separate_gradient, *separate_shift;
    float first_out_of_range; /* the smallest number in out_of_range_from */
} LaserHead;

/* The buffers of one thread. The letters are those of the manual; "keys" are those of a tile, and LANES are the queries
   of a panel. */
typedef struct __attribute__((aligned(64))) {
    float score[LASER_TILE * LASER_LANES]; /* (keys, LANES) log2(e) s_ij */
    float dp[LASER_TILE * LASER_LANES];    /* (keys, LANES) backward: scale * dP_ij / row_sum */
    /* (keys, LANES) forward: exp(s_ij) 2^-K_i, packed by column. Backward: what columns out of range add to
       scale * dS_ij. */
    float weight[LASER_TILE * LASER_LANES];
    /* (keys, LANES) scale * dS_ij packed by column, to be summed over keys */
    float ds_by_column[LASER_TILE * LASER_LANES];
    /* (keys, a tile of queries) exp(s_ij) 2^-K_i and scale * dS_ij packed by row, to be summed over queries */
    float a_by_row[LASER_TILE * LASER_TILE], ds_by_row[LASER_TILE * LASER_TILE];

    /* One number for each query of a panel: */
    float row_shift[LASER_LANES]; /* K_i */
    float rescale[LASER_LANES]; /* 2^(old K_i - new K_i), by which the sums of earlier tiles are multiplied */
    float row_sum[LASER_LANES]; /* sum_j exp(s_ij) 2^-K_i: divided by it, the weights become a_ij */
    float rounded_sum[LASER_LANES]; /* the same sum, of the weights as rounded for the product with V' */
    float tile_sum[LASER_LANES];    /* what the present tile contributes to rounded_sum */
    float row_inverse[LASER_LANES]; /* 1 / row_sum */
    float row_lse[LASER_LANES];     /* lse_i */

    /* (TILE, stride) Rows that are being packed. While backward works on a tile of keys, `tile` holds the factors that
       turn dV' into dV. */
    float *tile, *other;
    float *query;   /* (units, LANES) forward: Q of a panel, as in q_panels */
    float *out;     /* (LANES, stride) forward: first sum_j exp(s_ij) 2^-K_i V'_jd of a panel, then o */
    float *dk, *dv; /* (TILE, stride) backward: the gradients of a tile of keys */
    float *v;       /* (TILE, units) backward: V' less its center, packed by row */
    /* (D, LANES) for columns d out of range: sum_j exp(s_ij + v_jd) 2^-shift, and that shift */
    float *separate_sum, *separate_shift;
} LaserWork;

/* Takes `count` floats from the memory m, behind the *used floats that were taken before, and returns where they begin.
   Where m is NULL it only counts them. */
static float *laser_cut(float *m, ptrdiff_t *used, ptrdiff_t count) {
    const ptrdiff_t at = *used;
    *used += laser_round_up(count, 16);
    return m ? m + at : NULL;
}

/* Prepares h for head number `head` of the caller's arrays and takes its arrays from the memory m. Returns how many
   floats they need. */
static ptrdiff_t laser_carve_head(const LaserCall *c, LaserHead *h, ptrdiff_t head, float *m) {
    const ptrdiff_t back = c->backward, centered = !back && c->laser && c->bf16;
    const ptrdiff_t packed = c->rows * c->units;
    ptrdiff_t used = 0;
    h->shift = laser_cut(m, &used, c->stride);
    h->out_of_range_from = laser_cut(m, &used, c->stride);
    h->floor = laser_cut(m, &used, back * c->stride);
    h->center = laser_cut(m, &used, centered * c->tiles * c->stride);
    h->exact = laser_cut(m, &used, centered * c->rows * c->stride);
    h->k_by_row = laser_cut(m, &used, packed);
    h->k_by_column = c->pair == 1 ? h->k_by_row : laser_cut(m, &used, back * packed);
    h->v = laser_cut(m, &used, !back * packed);
    h->q_panels = laser_cut(m, &used, back * packed);
    h->g_panels = laser_cut(m, &used, back * packed);
    h->q_by_column = laser_cut(m, &used, back * packed);
    h->g_by_column = laser_cut(m, &used, back * packed);
    h->row_shift = laser_cut(m, &used, back * c->rows);
    h->row_term = laser_cut(m, &used, back * c->rows);
    h->dq_parts = laser_cut(m, &used, back * c->parts * c->rows * c->stride);
    h->in = laser_at(c->shape, c->shape->qkv_strides, head, 0);
    h->out = laser_at(c->shape, c->shape->out_strides, head, 0);
    h->row = head * c->T, h->first_out_of_range = LASER_NO_KEY;
    return used;
}

/* Takes the buffers of a thread from the memory m. Returns how many floats they need. */
static ptrdiff_t laser_carve_work(const LaserCall *c, LaserWork *w, float *m) {
    ptrdiff_t used = 0;
    w->tile = laser_cut(m, &used, LASER_TILE * c->stride);
    w->other = laser_cut(m, &used, LASER_TILE * c->stride);
    w->query = laser_cut(m, &used, LASER_LANES * c->units);
    w->out = laser_cut(m, &used, LASER_LANES * c->stride);
    w->dk = laser_cut(m, &used, LASER_TILE * c->stride);
    w->dv = laser_cut(m, &used, LASER_TILE * c->stride);
    w->v = laser_cut(m, &used, c->backward * LASER_TILE * c->units);
    w->separate_sum = laser_cut(m, &used, c->D * LASER_LANES);
    w->separate_shift = laser_cut(m, &used, c->D * LASER_LANES);
    return used;
}

/* The sizes of a call of this shape. The caller's arrays are set by laser_forward and laser_backward. */
static LaserCall laser_call(const LaserShape *s, int backward) {
    laser_check(s);
    LaserCall c = {
        .shape = s, .T = s->seq_len, .D = s->head_dim, .threads = LASER_THREADS, .backward = backward};
    LaserHead head;
    LaserWork work;
    c.heads = (ptrdiff_t)s->batch * s->heads, c.heads_at_once = laser_least(c.threads, c.heads);
    c.laser = s->kind == LASER_KIND_LASER, c.causal_shift = s->shift == LASER_SHIFT_CAUSAL;
    c.bf16 = s->precision == LASER_BF16, c.pair = c.bf16 ? LASER_PAIR : 1;
    c.scale = (float)laser_scale(s), c.scale_log2e = (float)(laser_scale(s) * 1.4426950408889634);
    c.softcap_log2e = (float)(s->softcap * 1.4426950408889634);
    c.rows = laser_round_up(c.T, LASER_TILE), c.tiles = c.rows / LASER_TILE;
    c.panels = laser_round_up(c.T, LASER_LANES) / LASER_LANES;
    c.stride = laser_round_up(c.D, LASER_W * c.pair), c.units = c.stride / c.pair;
    c.in_token = s->qkv_strides[1], c.out_token = s->out_strides[1];
    /* When there are few heads, backward divides the keys of each into parts so that all threads have work: about 64
       parts in all, each with equally many pairs of a query and a key that it sees. The division depends on the shape
       alone, so the result has the same bits for any number of threads. */
    c.parts = laser_least(laser_least(64 / c.heads, c.T / 256), 8);
    c.parts += c.parts == 0;
    for (int i = 0; i <= c.parts; i++)
        c.part[i] = (ptrdiff_t)((double)c.tiles * (1 - sqrt(1 - (double)i / (double)c.parts)) + 0.5);
    c.head_size = laser_carve_head(&c, &head, 0, NULL), c.work_size = laser_carve_work(&c, &work, NULL);
    c.bytes = (size_t)c.heads_at_once * (sizeof head + (size_t)c.head_size * sizeof(float)) +
              (size_t)c.threads * (sizeof work + (size_t)c.work_size * sizeof(float)) + 64;
    return c;
}

LASER_API size_t laser_memory(const LaserShape *shape, int backward) {
    return laser_call(shape, backward).bytes;
}

/* C (n, LANES) = A B, summed over d: the dot products of n keys or values with the queries of a panel. A (n, units) is
   packed by row; B (units, LANES) is a panel, packed by row and transposed. */
static void laser_over_d(const LaserCall *c, float *C, const float *A, const float *B, ptrdiff_t n) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = n, .columns = LASER_LANES, .pair = c->pair};
    p.ldc = p.ldb = LASER_LANES, p.a_row = c->units, p.a_depth = 1, p.depth = (c->D + c->pair - 1) / c->pair;
    p.first = -n, p.last = c->D; /* no mask: every row sees the whole depth */
    laser_product(p);
}

/* Prepares the product C (LANES, D) = A^T B, or C + A^T B to `accumulate`, summed over tokens. A (tokens, LANES) and B
   (tokens, units) are packed by column. Tokens are counted from the first row of A and B. Query r of the panel is token
   r + diagonal, and row r of C sums over the tokens up to this one. */
static LaserProduct laser_over_tokens(const LaserCall *c, float *C, const float *A, const float *B,
                                      ptrdiff_t tokens, ptrdiff_t diagonal, int accumulate) {
    LaserProduct p = {.c = C, .a = A, .b = B, .rows = LASER_LANES, .columns = laser_round_up(c->D, LASER_W)};
    p.ldc = p.ldb = c->stride, p.a_row = 1, p.a_depth = LASER_LANES, p.depth = tokens / c->pair;
    p.pair = c->pair, p.accumulate = accumulate, p.first = -LASER_LANES, p.last = diagonal;
    return p;
}

/* ---- Packing ---- */

/* Rows of floats that can be read in whole vectors: beyond D they are zero. Row i begins at at + i * step. */
typedef struct {
    const float *at;
    ptrdiff_t step;
} LaserRows;

/* Prefetches the row that lies `ahead` floats after this one. The rows of a head may lie pages apart, where the
   hardware does not prefetch by itself. They go into the second-level cache, because rows a power of two apart share
   few places of the first-level cache and would evict each other there. */
LASER_INLINE void laser_prefetch(const LaserCall *c, const float *row, ptrdiff_t ahead) {
    const char *x = (const char *)((uintptr_t)row + (uintptr_t)ahead * sizeof *row);
    for (ptrdiff_t d = 0; d < c->D; d += 16) __builtin_prefetch(x + d * (ptrdiff_t)sizeof *row, 0, 2);
}

/* Rows first .. first + count - 1 of a caller's array x, whose rows are `step` floats apart. Where they can be read in
   whole vectors they are used in place; else they are copied to `copy`, with zeros beyond D and beyond T. */
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

/* Writes `rows` (count, stride) to rows first .. first + count - 1 of a caller's array, leaving out those from T on.
   Whole cache lines are stored past the caches, which would otherwise read from memory what is overwritten here. */
static void laser_write_rows(const LaserCall *c, float *x, ptrdiff_t step, ptrdiff_t first, ptrdiff_t count,
                             const float *rows) {
    for (ptrdiff_t t = first; t < laser_least(first + count, c->T); t++, rows += c->stride) {
        float *to = x + t * step;
        const ptrdiff_t lines = (uintptr_t)to % 64 ? 0 : c->D / 16 * 16;
        for (ptrdiff_t d = 0; d < lines; d += LASER_W) LASER_STREAM(to + d, laser_load(rows + d));
        for (ptrdiff_t d = lines; d < c->D; d++) to[d] = rows[d];
    }
}

/* Packs `count` rows, multiplied by `scale`, by row. */
static void laser_pack_by_row(const LaserCall *c, float *to, LaserRows x, ptrdiff_t count, float scale) {
    for (; count > 0; count--, x.at += x.step, to += c->units) {
        laser_prefetch(c, x.at, LASER_AHEAD * x.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W)
            laser_store_by_row(c->bf16, to + d / c->pair, laser_load(x.at + d) * scale);
    }
}

/* Packs `count` rows by column: an even number, since two rows make a pair. */
static void laser_pack_by_column(const LaserCall *c, float *to, LaserRows x, ptrdiff_t count) {
    for (; count > 0; count -= 2, x.at += 2 * x.step, to += c->pair == 2 ? c->stride : 2 * c->stride) {
        laser_prefetch(c, x.at, LASER_AHEAD * x.step), laser_prefetch(c, x.at + x.step, LASER_AHEAD * x.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec a = laser_load(x.at + d), b = laser_load(x.at + x.step + d);
            laser_store_by_column(c->bf16, to + d, c->stride, a, b, a);
        }
    }
}

/* Packs a panel of rows, multiplied by `scale`, by row and transposes it to (units, LANES). `spare` (LANES, units) is
   overwritten. */
static void laser_pack_panel(const LaserCall *c, float *to, LaserRows x, float scale, float *spare) {
    laser_pack_by_row(c, spare, x, LASER_LANES, scale);
    for (ptrdiff_t i = 0; i < LASER_LANES; i += LASER_W)
        for (ptrdiff_t u = 0; u < c->units; u += LASER_W) {
            LaserVec v[LASER_W], y[LASER_W];
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) v[r] = laser_load(spare + (i + r) * c->units + u);
            /* interleaving rows r and r + W/2, for all r < W/2, transposes the block when it is done log2(W) times */
            LASER_UNROLL for (int done = 1; done < LASER_W; done *= 2) {
                LASER_UNROLL for (int r = 0; r < LASER_W / 2; r++) {
                    y[2 * r] = LASER_SHUFFLE(v[r], v[r + LASER_W / 2], LASER_INTERLEAVE_LOW);
                    y[2 * r + 1] = LASER_SHUFFLE(v[r], v[r + LASER_W / 2], LASER_INTERLEAVE_HIGH);
                }
                LASER_UNROLL for (int r = 0; r < LASER_W; r++) v[r] = y[r];
            }
            LASER_UNROLL for (int r = 0; r < LASER_W; r++) laser_store(to + (u + r) * LASER_LANES + i, v[r]);
        }
}

/* ---- Columns out of range: each is a softmax of its own, over s_ij + v_jd ---- */

/* Splits log2(e) v_jd, for the `keys` keys from `key` on in column d, into an integer and the rest. */
static void laser_separate_values(const LaserCall *c, const LaserHead *h, float *whole, float *rest,
                                  ptrdiff_t key, ptrdiff_t keys, ptrdiff_t d) {
    for (ptrdiff_t j = 0; j < keys; j++) {
        const ptrdiff_t t = laser_least(key + j, c->T - 1); /* beyond T no query sees the key */
        const double y = c->v[h->in + t * c->in_token + d] * 1.4426950408889634;
        whole[j] = (float)rint(y), rest[j] = (float)(y - rint(y));
    }
}

/* exp(s_ij + v_jd) 2^-shift of one key and W queries. `score` is log2(e) s_ij of each query; whole + rest is log2(e)
   v_jd. The integer parts of both and the shift are added first, so that the fractions lose no digits to large
   integers. */
LASER_INLINE LaserVec laser_separate_power(const float *score, float whole, float rest, LaserVec shift) {
    const LaserVec s = laser_load(score), k = laser_round(s);
    return laser_exp2(((k + whole) - shift) + ((s - k) + rest));
}

/* Adds a tile of keys to the separate sums of a panel of queries, in each column in which a key before row `end` is out
   of range. Where a term is larger than all before it, the running shift of the sum grows, and the sum is rescaled. */
static void laser_separate_sums(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                                ptrdiff_t keys, ptrdiff_t end) {
    float whole[LASER_TILE], rest[LASER_TILE];
    for (ptrdiff_t d = 0; d < c->D; d++) {
        if (h->out_of_range_from[d] >= (float)end) continue;
        laser_separate_values(c, h, whole, rest, key, keys, d);
        for (int x = 0; x < LASER_LANES; x += LASER_W) {
            float *at = w->separate_sum + d * LASER_LANES + x,
                  *at_shift = w->separate_shift + d * LASER_LANES + x;
            const float *score = w->score + x;
            const LaserVec old = laser_load(at_shift);
            LaserVec shift = old;
            for (ptrdiff_t j = 0; j < keys; j++)
                shift = laser_max(shift, laser_round(laser_load(score + j * LASER_LANES)) + whole[j]);
            LaserVec sum = laser_load(at) * laser_pow2(old - shift);
            for (ptrdiff_t j = 0; j < keys; j++)
                sum += laser_separate_power(score + j * LASER_LANES, whole[j], rest[j], shift);
            laser_store(at, sum), laser_store(at_shift, shift);
        }
    }
}

/* ---- Steps 1 and 2 of forward and of backward: the columns of V; keys and values ---- */

/* Step 1, only LASER: finds n_d of each column of V in forward; in backward m_d, the floor, and whether the column is
   out of range. It reads the keys from `first` on. This step is not divided among threads, so `first` is 0. */
static void laser_scan_columns(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t first) {
    const ptrdiff_t end = c->backward || !c->causal_shift ? c->T : 1;
    float *low = w->other, *high = low + c->stride;
    for (ptrdiff_t d = 0; d < c->stride; d++) low[d] = 3e38f, high[d] = -3e38f;
    for (ptrdiff_t t = first; t < end; t++) {
        const LaserRows x = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, t, 1);
        laser_prefetch(c, x.at, LASER_AHEAD * c->in_token);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserVec y = laser_load(x.at + d);
            laser_store(low + d, laser_min(laser_load(low + d), y));
            laser_store(high + d, laser_max(laser_load(high + d), y));
        }
    }
    const float *v = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, first, 1).at;
    for (ptrdiff_t d = 0; d < c->stride; d++) {
        const double n = fmax(-2e6, fmin(2e6, c->causal_shift ? v[d] : high[d])) * 1.4426950408889634;
        h->shift[d] = (float)(c->causal_shift ? rint(n) : ceil(n)), h->out_of_range_from[d] = LASER_NO_KEY;
        if (!c->backward) continue;
        h->floor[d] = c->causal_shift ? -3e38f : laser_log(laser_set(0x1p-100f), laser_set(h->shift[d]))[0];
        /* m_d is halfway between the column's smallest and largest value, but at most 1 above the smallest. So V' =
           exp(v - m_d) is at least 1/e, V' - 1 is not close to -1, and rounding V' - 1 to bfloat16 does not remove the
           digits in which small V' differ. With the paper's shift m_d is also at least high - 69, so that no V' is
           above exp(69), about 2^100; smaller values are below the floor, where no gradient passes. */
        h->shift[d] = fminf(0.5f * low[d] + 0.5f * high[d], low[d] + 1);
        if (!c->causal_shift) h->shift[d] = fmaxf(h->shift[d], high[d] - 69);
        const int in_range = !c->causal_shift || (high[d] - low[d] <= 64 && high[d] < 128 && low[d] > -128);
        if (in_range) continue;
        h->shift[d] = -1e30f; /* makes exp(m_d - o_id) 0: the column takes no part in the products */
        h->out_of_range_from[d] = h->first_out_of_range = 0;
    }
    if (h->first_out_of_range > 0 || h->separate_gradient) return;
    h->separate_gradient = laser_malloc(2 * (size_t)(c->D * c->rows) * sizeof(float));
    h->separate_shift = h->separate_gradient + c->D * c->rows;
}

/* Computes V'_jd = exp(v_jd) 2^-n_d of a tile of keys, in w->tile. With bfloat16 it also finds the tile's centers,
   copies V' to h->exact, and subtracts the centers in w->tile. For each column it records in h->out_of_range_from the
   first key that is out of range. */
static LaserRows laser_exp_tile(const LaserCall *c, LaserHead *h, LaserWork *w, LaserRows v, ptrdiff_t tile) {
    for (ptrdiff_t j = 0; j < LASER_TILE; j++) laser_prefetch(c, v.at + j * v.step, 0);
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        const LaserVec n = laser_load(h->shift + d);
        LaserVec low = laser_set(3e38f), high = laser_set(0), outside = laser_set(LASER_NO_KEY);
        for (ptrdiff_t j = LASER_TILE - 1; j >= 0; j--) {
            const LaserVec x = laser_load(v.at + j * v.step + d), y = x * LASER_LOG2E - n;
            const LaserVec e = laser_exp(x, n, NULL);
            const LaserInt far = (y > 58) | (y < -58); /* 58 is 40 log2(e) */
            if (c->causal_shift)
                outside = laser_select(far, laser_set((float)(tile * LASER_TILE + j)), outside);
            low = laser_min(low, e), high = laser_max(high, e);
            laser_store(w->tile + j * c->stride + d, e);
        }
        for (int i = 0; i < LASER_W; i++)
            if (outside[i] < LASER_NO_KEY) LASER_OMP(omp critical(laser)) {
                    h->out_of_range_from[d + i] = fminf(h->out_of_range_from[d + i], outside[i]);
                    h->first_out_of_range = fminf(h->first_out_of_range, outside[i]);
                }
        if (!c->bf16) continue;
        /* The center is halfway between the tile's smallest and largest V', but at most 2.7 times the smallest. A
           larger one would leave rounding errors in V' - center that are large against the small V', on which a row may
           put all its weight. */
        const LaserVec center = laser_min((low + high) * 0.5f, low * 2.7f);
        laser_store(h->center + tile * c->stride + d, center);
        for (ptrdiff_t at = d; at < LASER_TILE * c->stride; at += c->stride) {
            laser_store(h->exact + tile * LASER_TILE * c->stride + at, laser_load(w->tile + at));
            laser_store(w->tile + at, laser_load(w->tile + at) - center);
        }
    }
    return (LaserRows){w->tile, c->stride};
}

/* Step 2: packs a tile of keys, and in forward also the values of these keys. */
static void laser_pack_keys(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t tile) {
    const ptrdiff_t key = tile * LASER_TILE, packed = key * c->units;
    LaserRows x = laser_read_rows(c, w->tile, c->k + h->in, c->in_token, key, LASER_TILE);
    laser_pack_by_row(c, h->k_by_row + packed, x, LASER_TILE, 1);
    if (c->backward && c->pair == 2) laser_pack_by_column(c, h->k_by_column + packed, x, LASER_TILE);
    if (c->backward) return;
    x = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, key, LASER_TILE);
    if (c->laser) x = laser_exp_tile(c, h, w, x, tile);
    laser_pack_by_column(c, h->v + packed, x, LASER_TILE);
}

/* ---- Forward ---- */

/* The causal mask: sets the score of each key that comes after its query to LASER_MASKED, whose exponential is 0. The
   scores (keys, LANES) are those of the keys from `key` on and the panel that begins with `query`. */
static void laser_mask(float *score, ptrdiff_t key, ptrdiff_t keys, ptrdiff_t query) {
    for (ptrdiff_t j = query > key ? query - key : 0; j < keys; j++)
        for (ptrdiff_t i = 0; i < LASER_LANES && query + i < key + j; i++)
            score[j * LASER_LANES + i] = LASER_MASKED;
}

/* One step of the online softmax, with a tile of scores: updates K_i of each row, rescales row_sum and rounded_sum of
   the earlier tiles, turns the scores into the weights exp(s_ij) 2^-K_i that the product with V' takes, and adds these
   weights to the sums. */
LASER_INLINE void laser_softmax_step(LaserWork *w, ptrdiff_t keys, int bf16) {
    const int pair = bf16 ? LASER_PAIR : 1;
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        /* The maxima of even and of odd keys are computed separately, so that the processor computes two at a time. */
        LaserVec top = laser_load(w->score + x), odd = top;
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            top = laser_max(top, laser_load(w->score + j * LASER_LANES + x));
            odd = laser_max(odd, laser_load(w->score + (j + 1) * LASER_LANES + x));
        }
        const LaserVec old = laser_load(w->row_shift + x);
        const LaserVec K = laser_max(old, laser_round(laser_max(top, odd))), scale = laser_pow2(old - K);
        LaserVec sum = laser_set(0), weight = sum;
        for (ptrdiff_t j = 0; j < keys; j += 2) {
            const float *s = w->score + j * LASER_LANES + x;
            const LaserVec a = laser_exp2(laser_load(s) - K), b = laser_exp2(laser_load(s + LASER_LANES) - K);
            float *to = w->weight + j / pair * LASER_LANES + x;
            sum += a + b, weight = laser_store_by_column(bf16, to, LASER_LANES, a, b, weight);
        }
        laser_store(w->row_shift + x, K), laser_store(w->rescale + x, scale);
        laser_store(w->tile_sum + x, weight);
        laser_store(w->row_sum + x, laser_load(w->row_sum + x) * scale + sum);
        laser_store(w->rounded_sum + x, laser_load(w->rounded_sum + x) * scale + weight);
    }
}

/* With softcap = X: log2(e) s_ij in `score` (keys, LANES) becomes log2(e) X tanh(s_ij / X). With y = exp(2 x) - 1,
   tanh(x) is y / (y + 2), which loses no digits of a small x. tanh is 1 in float32 for x above 10. */
static void laser_cap(const LaserCall *c, float *score, ptrdiff_t keys) {
    const LaserVec cap = laser_set(c->softcap_log2e);
    for (ptrdiff_t at = 0; at < keys * LASER_LANES; at += LASER_W) {
        LaserVec y, x = laser_load(score + at) / cap;
        x = laser_max(laser_min(x, laser_set(10)), laser_set(-10));
        laser_exp(x + x, laser_set(0), &y);
        laser_store(score + at, cap * (y / (y + 2)));
    }
}

/* Goes through all keys that a panel of queries sees, tile by tile; q (units, LANES) is the packed panel. It leaves in
   w: K_i and row_sum; the separate sums of the columns out of range; and in forward rounded_sum and, in w->out, the
   sums over j of exp(s_ij) 2^-K_i V'_jd, which are not yet divided by rounded_sum. */
static void laser_rows(const LaserCall *c, const LaserHead *h, LaserWork *w, const float *q,
                       ptrdiff_t query) {
    const ptrdiff_t end = query + LASER_LANES;
    for (int i = 0; i < LASER_LANES; i++)
        w->row_shift[i] = LASER_MASKED, w->row_sum[i] = w->rounded_sum[i] = 0;
    for (ptrdiff_t i = 0; h->first_out_of_range < (float)end && i < c->D * LASER_LANES; i++)
        w->separate_sum[i] = 0, w->separate_shift[i] = LASER_MASKED;
    const int centered = c->laser && c->bf16 && !c->backward;
    for (ptrdiff_t key = 0; key < end; key += LASER_TILE) {
        /* The center of a tile depends on all of its values, so rows that see only some of them must not use it: later
           tokens would change them. LASER with bfloat16 therefore sums the last tile of a panel in float32, without a
           center. */
        const ptrdiff_t keys = laser_least(LASER_TILE, end - key), diagonal = query - key;
        const int exact = centered && key + LASER_TILE >= end;
        laser_over_d(c, w->score, h->k_by_row + key * c->units, q, keys);
        if (c->softcap_log2e > 0) laser_cap(c, w->score, keys);
        laser_mask(w->score, key, keys, query);
        if (h->first_out_of_range < (float)end) laser_separate_sums(c, h, w, key, keys, end);
        exact || !c->bf16 ? laser_softmax_step(w, keys, 0) : laser_softmax_step(w, keys, 1);
        if (c->backward) continue;
        const float *v = h->v + key * c->units;
        LaserProduct p = laser_over_tokens(c, w->out, w->weight, v, keys, diagonal, key > 0);
        p.rescale = key > 0 ? w->rescale : NULL;
        if (exact)
            p.b = h->exact + key * c->stride, p.depth = keys, p.pair = 1;
        else if (centered)
            p.center = h->center + key / LASER_TILE * c->stride, p.weights = w->tile_sum;
        laser_product(p);
    }
}

/* Turns the sums of a panel in w->out into o, in place: divides them by rounded_sum, and for LASER takes the logarithm.
   Then it overwrites the columns out of range, in the rows that see such a key, with o computed from their separate
   sums: o_id = log sum_j exp(s_ij + v_jd) - log sum_j exp(s_ij). */
static void laser_normalise(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t query) {
    for (ptrdiff_t i = 0; i < LASER_LANES; i++) {
        const float inverse = 1 / w->rounded_sum[i];
        for (ptrdiff_t d = 0; d < c->D; d += LASER_W) {
            float *o = w->out + i * c->stride + d;
            LaserVec value = laser_load(o) * inverse;
            if (c->laser && !c->causal_shift) value = laser_max(value, laser_set(0x1p-100f));
            laser_store(o, c->laser ? laser_log(value, laser_load(h->shift + d)) : value);
        }
    }
    for (ptrdiff_t d = 0; h->first_out_of_range < (float)(query + LASER_LANES) && d < c->D; d++)
        for (ptrdiff_t x = 0; x < LASER_LANES; x += LASER_W) {
            const LaserVec sum =
                laser_load(w->separate_sum + d * LASER_LANES + x) / laser_load(w->row_sum + x);
            const LaserVec shift = laser_load(w->separate_shift + d * LASER_LANES + x);
            const LaserVec value = laser_log(sum, shift - laser_load(w->row_shift + x));
            for (ptrdiff_t i = 0; i < LASER_W; i++)
                if ((float)(query + x + i) >= h->out_of_range_from[d])
                    w->out[(x + i) * c->stride + d] = value[i];
        }
}

/* Step 3 of forward: o and lse of a panel of queries. */
static void laser_forward_panel(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES, count = laser_least(LASER_LANES, c->T - query);
    const LaserRows q = laser_read_rows(c, w->tile, c->q + h->in, c->in_token, query, LASER_LANES);
    laser_pack_panel(c, w->query, q, c->scale_log2e, w->other);
    laser_rows(c, h, w, w->query, query);
    laser_normalise(c, h, w, query);
    laser_write_rows(c, c->new_out + h->out, c->out_token, query, LASER_LANES, w->out);
    for (int x = 0; x < LASER_LANES; x += LASER_W)
        laser_store(w->row_lse + x, laser_log(laser_load(w->row_sum + x), laser_load(w->row_shift + x)));
    if (c->new_lse) memcpy(c->new_lse + h->row + query, w->row_lse, (size_t)count * sizeof(float));
}

/* ---- Backward ---- */

/* Finds K_i and 1 / row_sum of a panel, and writes them to w->row_shift and w->row_inverse. Both follow from lse. But
   the keys are summed again where |lse| is so large that float32 leaves it too few digits, and where a column is out of
   range, because that column's separate sums are needed too. */
static void laser_invert_row_sums(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t query) {
    int again = h->first_out_of_range == 0;
    for (int i = 0; i < LASER_LANES; i++) {
        w->row_lse[i] = query + i < c->T ? c->lse[h->row + query + i] : 0;
        again |= fabsf(w->row_lse[i]) > 64;
    }
    if (again) laser_rows(c, h, w, h->q_panels + query * c->units, query);
    for (int x = 0; x < LASER_LANES; x += LASER_W) {
        LaserVec k;
        /* sum_j exp(s_ij) = row_sum * 2^K_i, so exp(-lse_i) = (1 / row_sum) * 2^-K_i. laser_exp_split gives
           exp(-lse_i) as a factor near 1 times 2^k; so K_i = -k, and 1 / row_sum is that factor. */
        const LaserVec inverse = laser_exp_split(-laser_load(w->row_lse + x), &k) + 1;
        laser_store(w->row_inverse + x, again ? 1 / laser_load(w->row_sum + x) : inverse);
        if (!again) laser_store(w->row_shift + x, -k);
    }
}

/* Writes dO' / row_sum of one row to `to`, where `inverse` is 1 / row_sum, and returns term_i, which the caller divides
   by row_sum: for standard attention sum_d do_id o_id, for LASER sum_d do_id (1 - exp(m_d - o_id)). In columns out of
   range exp(m_d - o_id) is 0, so they contribute do_id to the term and nothing to dO'. */
static float laser_row_gradient(const LaserCall *c, const LaserHead *h, float *to, const float *dout,
                                const float *out, float inverse) {
    LaserVec row = laser_set(0);
    for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
        LaserVec g = laser_load(dout + d), o = laser_load(out + d), expm1;
        if (!c->laser) {
            row += g * o;
        } else {
            /* an o that the paper's shift raised to the floor passes no gradient */
            g = laser_select(o > laser_load(h->floor + d), g, laser_set(0));
            const LaserVec exp = laser_exp(laser_load(h->shift + d) - o, laser_set(0), &expm1);
            row -= g * expm1, g *= exp;
        }
        laser_store(to + d, g * inverse);
    }
    float total = 0;
    for (int x = 0; x < LASER_W; x++) total += row[x];
    return total;
}

/* Step 3 of backward: packs Q and dO' / row_sum of a panel. Since s_ij = scale * q_i . k_j, dq and dk need scale *
   ds_ij = scale * a_ij (dP_ij - term_i). To save the multiplications, `scale` goes into g_panels, from which dP is
   computed, and into row_term; g_by_column, from which dv is computed, stays without it. */
static void laser_pack_queries(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t panel) {
    const ptrdiff_t query = panel * LASER_LANES, packed = query * c->units;
    const LaserRows q = laser_read_rows(c, w->tile, c->q + h->in, c->in_token, query, LASER_LANES);
    laser_pack_panel(c, h->q_panels + packed, q, c->scale_log2e, w->other);
    laser_pack_by_column(c, h->q_by_column + packed, q, LASER_LANES);
    laser_invert_row_sums(c, h, w, query);
    memcpy(h->row_shift + query, w->row_shift, LASER_LANES * sizeof(float));
    const LaserRows out = laser_read_rows(c, w->tile, c->out + h->out, c->out_token, query, LASER_LANES);
    const LaserRows dout = laser_read_rows(c, w->other, c->dout + h->out, c->out_token, query, LASER_LANES);
    for (int i = 0; i < LASER_LANES; i++) {
        const float *g = dout.at + i * dout.step, *o = out.at + i * out.step;
        laser_prefetch(c, g, LASER_AHEAD * dout.step), laser_prefetch(c, o, LASER_AHEAD * out.step);
        for (ptrdiff_t d = 0; h->first_out_of_range == 0 && d < c->D; d++) {
            h->separate_gradient[d * c->rows + query + i] = g[d] / w->separate_sum[d * LASER_LANES + i];
            h->separate_shift[d * c->rows + query + i] = w->separate_shift[d * LASER_LANES + i];
        }
        const float row = laser_row_gradient(c, h, w->other + i * c->stride, g, o, w->row_inverse[i]);
        h->row_term[query + i] = row * w->row_inverse[i] * c->scale;
    }
    const LaserRows g = {w->other, c->stride};
    laser_pack_by_column(c, h->g_by_column + packed, g, LASER_LANES);
    laser_pack_panel(c, h->g_panels + packed, g, c->scale, w->tile);
}

/* Computes do_id p_ijd of the columns out of range, for a tile of keys and a panel of queries. Summed over these
   columns and multiplied by scale they go into w->weight (keys, LANES), which is added to dS; summed over the queries
   they are added to dv. */
static void laser_separate_gradient(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key,
                                    ptrdiff_t keys, ptrdiff_t query) {
    float whole[LASER_TILE], rest[LASER_TILE];
    memset(w->weight, 0, sizeof w->weight);
    for (ptrdiff_t d = 0; d < c->D; d++) {
        if (h->out_of_range_from[d] > 0) continue;
        laser_separate_values(c, h, whole, rest, key, keys, d);
        for (ptrdiff_t j = 0; j < keys; j++)
            for (int x = 0; x < LASER_LANES; x += LASER_W) {
                const ptrdiff_t at = j * LASER_LANES + x, row = d * c->rows + query + x;
                const LaserVec shift = laser_load(h->separate_shift + row);
                const LaserVec p = laser_separate_power(w->score + at, whole[j], rest[j], shift);
                const LaserVec g = laser_load(h->separate_gradient + row) * p;
                laser_store(w->weight + at, laser_load(w->weight + at) + g * c->scale);
                for (int i = 0; i < LASER_W; i++) w->dv[j * c->stride + d] += g[i];
            }
    }
}

/* Turns the scores and dP of a panel into the weights exp(s_ij) 2^-K_i and scale * dS = weight * (dp - row_term),
   packed for the products that follow. These weights are not divided by row_sum: dp, row_term and dO' (in
   g_by_column) have been divided instead, so that dS and dv come out right. `more`
   (keys, LANES), unless NULL, is what the columns out of range add to dS. */
LASER_INLINE void laser_score_gradients(const LaserHead *h, LaserWork *w, ptrdiff_t query, ptrdiff_t keys,
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
                ds[n] = a * (laser_load(w->dp + from) - term);
                if (more) ds[n] += laser_load(more + from);
                laser_store_by_row(bf16, w->a_by_row + to, a);
                laser_store_by_row(bf16, w->ds_by_row + to, ds[n]);
            }
            float *to = w->ds_by_column + j / pair * LASER_LANES + x;
            laser_store_by_column(bf16, to, LASER_LANES, ds[0], ds[1], ds[0]);
        }
    }
}

/* With softcap: multiplies what will be the gradients of the capped scores by the derivative of the cap, 1 - tanh^2, so
   that they become those of the scores before it. ds_ij = weight * (dp - row_term) + more, so dp becomes the number
   with which this is the product, and `more`, in w->weight, is multiplied. A masked score, which is far below -X,
   counts as -X, where the derivative is 0. */
static void laser_cap_gradients(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t query,
                                ptrdiff_t keys) {
    for (ptrdiff_t at = 0; at < keys * LASER_LANES; at += LASER_W) {
        const LaserVec term = laser_load(h->row_term + query + at % LASER_LANES);
        const LaserVec y = laser_max(laser_load(w->score + at) / c->softcap_log2e, laser_set(-1));
        const LaserVec slope = 1 - y * y;
        laser_store(w->dp + at, (laser_load(w->dp + at) - term) * slope + term);
        if (h->first_out_of_range == 0) laser_store(w->weight + at, laser_load(w->weight + at) * slope);
    }
}

/* One panel of queries and the keys of one tile that it sees: computes their weights and dS, for dk and dv, and writes
   to dq (LANES, stride), or adds to it if `accumulate` is set, what these keys contribute to the panel's dq. */
static void laser_backward_panel(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                 ptrdiff_t key, ptrdiff_t query, int accumulate) {
    const ptrdiff_t keys = laser_least(LASER_TILE, query + LASER_LANES - key);
    const ptrdiff_t k = key * c->units, q = query * c->units;
    laser_over_d(c, w->score, h->k_by_row + k, h->q_panels + q, keys);
    laser_over_d(c, w->dp, w->v, h->g_panels + q, keys);
    if (c->softcap_log2e > 0) laser_cap(c, w->score, keys);
    laser_mask(w->score, key, keys, query);
    if (h->first_out_of_range == 0) laser_separate_gradient(c, h, w, key, keys, query);
    if (c->softcap_log2e > 0) laser_cap_gradients(c, h, w, query, keys);
    /* row 0 sees only key 0, whose weight is 1 whatever the score is, so its dS must be 0 */
    if (query == 0 && key == 0) w->dp[0] = h->row_term[0], w->weight[0] = 0;
    const float *more = h->first_out_of_range == 0 ? w->weight : NULL;
    c->bf16 ? laser_score_gradients(h, w, query, keys, more, 1)
            : laser_score_gradients(h, w, query, keys, more, 0);
    laser_product(
        laser_over_tokens(c, dq, w->ds_by_column, h->k_by_column + k, keys, query - key, accumulate));
}

/* Packs a tile of values for backward, in w->v. With LASER these are V' - 1 = exp(v_jd - m_d) - 1, and 0 in columns out
   of range, which take no part in the products. It leaves in w->tile the factor that turns dV' into dV: exp(v_jd -
   m_d), and 1 in columns out of range. */
static void laser_pack_values(const LaserCall *c, const LaserHead *h, LaserWork *w, ptrdiff_t key) {
    const LaserRows v = laser_read_rows(c, w->tile, c->v + h->in, c->in_token, key, LASER_TILE);
    if (!c->laser) laser_pack_by_row(c, w->v, v, LASER_TILE, 1);
    for (ptrdiff_t j = 0; c->laser && j < LASER_TILE; j++) {
        laser_prefetch(c, v.at + j * v.step, LASER_AHEAD * v.step);
        for (ptrdiff_t d = 0; d < c->stride; d += LASER_W) {
            const LaserInt in_range = laser_load(h->out_of_range_from + d) > 0;
            LaserVec expm1, x = laser_load(v.at + j * v.step + d) - laser_load(h->shift + d);
            x = laser_exp(x, laser_set(0), &expm1);
            laser_store(w->tile + j * c->stride + d, laser_select(in_range, x, laser_set(1)));
            laser_store_by_row(c->bf16, w->v + j * c->units + d / c->pair,
                               laser_select(in_range, expm1, laser_set(0)));
        }
    }
}

/* Computes dk and dv of a tile of keys from all queries that see it, and writes to dq (rows, stride), or adds to it if
   `accumulate` is set, what the tile contributes to dq. */
static void laser_backward_tile(const LaserCall *c, const LaserHead *h, LaserWork *w, float *dq,
                                ptrdiff_t key, int accumulate) {
    const ptrdiff_t keys = laser_least(LASER_TILE, c->T - key);
    laser_pack_values(c, h, w, key);
    memset(w->dv, 0, (size_t)(LASER_TILE * c->stride) * sizeof(float));
    for (ptrdiff_t first = key; first < c->T; first += LASER_TILE) {
        const ptrdiff_t end = laser_least(first + LASER_TILE, c->panels * LASER_LANES);
        for (ptrdiff_t query = first; query < end; query += LASER_LANES)
            laser_backward_panel(c, h, w, dq + query * c->stride, key, query, accumulate);
        LaserProduct p = laser_over_tokens(c, w->dv, w->a_by_row, h->g_by_column + first * c->units,
                                           end - first, LASER_TILE, 1);
        p.rows = keys, p.a_row = LASER_TILE / c->pair, p.a_depth = 1, p.first = key - first;
        laser_product(p); /* dv += a^T . dO' */
        p.c = w->dk, p.a = w->ds_by_row, p.b = h->q_by_column + first * c->units, p.accumulate = first > key;
        laser_product(p); /* dk += dS^T . q */
    }
    for (ptrdiff_t i = 0; c->laser && i < keys * c->stride; i += LASER_W) /* dv = dv * exp(v - m) */
        laser_store(w->dv + i, laser_load(w->dv + i) * laser_load(w->tile + i));
    laser_write_rows(c, c->dk + h->in, c->in_token, key, keys, w->dk);
    laser_write_rows(c, c->dv + h->in, c->in_token, key, keys, w->dv);
}

/* Step 4 of backward: the keys of one part of a head. Each part has a dq of its own, since threads may work on several
   parts of a head at the same time. */
static void laser_backward_part(const LaserCall *c, LaserHead *h, LaserWork *w, ptrdiff_t part) {
    float *dq = h->dq_parts + part * c->rows * c->stride;
    for (ptrdiff_t tile = c->part[part]; tile < c->part[part + 1]; tile++)
        laser_backward_tile(c, h, w, dq, tile * LASER_TILE, tile > c->part[part]);
}

/* Step 5 of backward: writes dq of a panel of queries: the sum over the parts, always in the same order, so that it has
   the same bits for any number of threads. Parts whose keys all come after the panel contribute nothing. */
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

/* ---- Forward and backward: the steps of a call ---- */

/* One step of the work on a head: run is called for the pieces 0 to pieces - 1. The steps of a head run one after the
   other; the pieces of a step may run in any order and at the same time. A piece is a tile, a panel or a part. */
typedef struct {
    void (*run)(const LaserCall *, LaserHead *, LaserWork *, ptrdiff_t piece);
    ptrdiff_t pieces;
} LaserStep;

/* Runs all steps for all heads. First each thread takes whole heads, as many as can be divided evenly among the
   threads; then all threads work together on the heads that remain, piece by piece. */
static void laser_run(const LaserCall *c, const LaserStep *steps, int count) {
    const ptrdiff_t alone = c->heads - c->heads % c->threads, rest = c->heads - alone;
    void *memory = laser_malloc(c->bytes);
    LaserHead *heads = (void *)(((uintptr_t)memory + 63) / 64 * 64);
    LaserWork *works = (void *)(heads + c->heads_at_once);
    float *arrays = (void *)(works + c->threads);
    for (ptrdiff_t i = 0; i < c->heads_at_once; i++) heads[i].separate_gradient = NULL;
    LASER_OMP(omp parallel num_threads((int)c->threads)) {
        const ptrdiff_t me = LASER_THREAD;
        LaserWork *w = &works[me];
        laser_carve_work(c, w, arrays + c->heads_at_once * c->head_size + me * c->work_size);
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
            /* The last pieces take longest, as late queries see the most keys; so they are begun first. */
            LASER_OMP(omp for schedule(dynamic))
            for (ptrdiff_t i = rest * steps[s].pieces - 1; i >= 0; i--)
                steps[s].run(c, &heads[i % rest], w, i / rest);
        }
#ifdef __AVX__
        _mm_sfence(); /* makes streamed stores visible to the other threads */
#endif
    }
    for (ptrdiff_t i = 0; i < c->heads_at_once; i++) LASER_FREE(heads[i].separate_gradient);
    LASER_FREE(memory);
}

LASER_API void laser_forward(float *out, float *lse, const float *q, const float *k, const float *v,
                             const LaserShape *shape) {
    LaserCall c = laser_call(shape, 0);
    c.q = q, c.k = k, c.v = v, c.new_out = out, c.new_lse = lse;
    const LaserStep steps[] = {
        {laser_scan_columns, c.laser}, {laser_pack_keys, c.tiles}, {laser_forward_panel, c.panels}};
    laser_run(&c, steps, sizeof steps / sizeof *steps);
}

LASER_API void laser_backward(float *dq, float *dk, float *dv, const float *dout, const float *q,
                              const float *k, const float *v, const float *out, const float *lse,
                              const LaserShape *shape) {
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

/*
MIT License

Copyright (c) 2026 The laser trainer authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
*/
