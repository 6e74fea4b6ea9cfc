/* matmul.h: the three matrix products of a linear layer, float32 or bf16 operands, float32 accumulation.

   matmul_forward         out (N, OC)     = addend + inp (N, C) . weight (OC, C)^T
   matmul_backward_input  dinp (N, C)     = addend + dout (N, OC) . weight (OC, C)
   matmul_backward_weight dweight (OC, C) += dout (N, OC)^T . inp (N, C)
       Matrices are row-major and contiguous, any sizes from 1. addend has the shape of the output, or is NULL
       for 0; it may be the output itself. No other overlap is allowed. MATMUL_BF16 rounds the operands to bf16
       (nearest even; infinities and NaNs stay) on the way in; products and sums are float32 either way.

   All functions may be called from several threads at once; each uses OpenMP inside unless it already runs
   in a parallel region. The result has the same bits for any number of threads: an element of the output is
   one ordered sum over k, cut into blocks whose size depends on K only.

   How it works, after Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008) and
   BLIS (Van Zee & van de Geijn, 2015). out (M, N) = A (M, K) . B (K, N) is cut into tiles of MR x NR that
   fit the registers. B is packed into panels of NR columns, A into panels of MR rows, both k-major, so that the
   micro-kernel reads both as streams:

       panel of A: [unit][MR]     panel of B: [unit][NR]     acc[i][j] += a[unit][i] * b[unit][j]

   A unit is 32 bits: a float, or with native bf16 dot products two bf16 neighbours in k. Everything that
   differs between machines (vector width, tile shape, multiply-add) is in the section "the machine".
   Threads share the packed B; each takes blocks of the output and packs the rows of A that its block needs. */
#ifndef GPT_MATMUL_H
#define GPT_MATMUL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif
#include "check.h"

#ifdef __clang__ /* without optimisation clang would warn that loops stay loops */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

typedef enum { MATMUL_FP32, MATMUL_BF16 } MatmulPrecision;

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, MatmulPrecision precision);
static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC,
                                         MatmulPrecision precision);
static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, MatmulPrecision precision);

static inline int64_t matmul_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t matmul_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t matmul_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---------------------------------------------------------------------------------------------------------
   The machine: vector width, tile shape, multiply-add. Nothing below this section knows an ISA. */

#if defined __AVX512F__ /* 32 registers: 28 sums, 2 of B, 1 of A */
#define MATMUL_LANES 16
#define MATMUL_MR 14
#define MATMUL_NV 2
#elif defined __AVX__ /* 16 registers: 12 sums, 2 of B, 1 of A */
#define MATMUL_LANES 8
#define MATMUL_MR 6
#define MATMUL_NV 2
#elif defined __aarch64__ /* 32 registers: 24 sums, 3 of B, 2 of A */
#define MATMUL_LANES 4
#define MATMUL_MR 8
#define MATMUL_NV 3
#else
#define MATMUL_LANES 4
#define MATMUL_MR 6
#define MATMUL_NV 2
#endif
#define MATMUL_NR (MATMUL_NV * MATMUL_LANES)

typedef float MatmulLanes __attribute__((vector_size(4 * MATMUL_LANES), may_alias));
typedef uint32_t MatmulBits __attribute__((vector_size(4 * MATMUL_LANES), may_alias));
typedef float MatmulAnyLanes __attribute__((vector_size(4 * MATMUL_LANES), may_alias, aligned(4)));

#if defined __clang__ || __GNUC__ >= 12
#define MATMUL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MATMUL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (MatmulBits){__VA_ARGS__})
#endif

/* f(0, x), f(1, x), ... for every lane: constants for splat and shuffles. */
#define MATMUL_EACH_4(f, l, x) f((l), x), f((l) + 1, x), f((l) + 2, x), f((l) + 3, x)
#define MATMUL_EACH_8(f, l, x) MATMUL_EACH_4(f, l, x), MATMUL_EACH_4(f, (l) + 4, x)
#define MATMUL_EACH_16(f, l, x) MATMUL_EACH_8(f, l, x), MATMUL_EACH_8(f, (l) + 8, x)
#if MATMUL_LANES == 16
#define MATMUL_EACH(f, x) MATMUL_EACH_16(f, 0, x)
#elif MATMUL_LANES == 8
#define MATMUL_EACH(f, x) MATMUL_EACH_8(f, 0, x)
#else
#define MATMUL_EACH(f, x) MATMUL_EACH_4(f, 0, x)
#endif

#ifdef __clang__
#define MATMUL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MATMUL_UNROLL _Pragma("GCC unroll 16")
#endif
#define MATMUL_INLINE static inline __attribute__((always_inline))

#define MATMUL_SAME(lane, x) x
MATMUL_INLINE MatmulLanes matmul_splat(float x) { return (MatmulLanes){MATMUL_EACH(MATMUL_SAME, x)}; }

/* Each float rounded to the nearest bf16, ties to even, in the upper half of its 32 bits; a NaN stays one. */
MATMUL_INLINE MatmulBits matmul_round_lanes(MatmulLanes x) {
    MatmulBits bits = (MatmulBits)x;
    MatmulBits rounded = bits + 0x7fff + (bits >> 16 & 1);
    MatmulBits is_nan = (MatmulBits)((bits & 0x7fffffff) > 0x7f800000);
    return ((is_nan & (bits | 0x400000)) | (~is_nan & rounded)) & 0xffff0000;
}

/* With native bf16 dot products (MATMUL_PAIRS) a unit holds two bf16, the even k in its lower half:
   matmul_dot_pairs             acc += a.even * b.even + a.odd * b.odd in every lane
   matmul_pairs_in_a_row        units of 2 * MATMUL_LANES neighbours in k
   matmul_pairs_of_two_rows     units of MATMUL_LANES neighbours across k, one vector for even k, one for odd */
#if defined __AVX512BF16__
#include <immintrin.h>
#define MATMUL_PAIRS 1
MATMUL_INLINE MatmulLanes matmul_dot_pairs(MatmulLanes acc, MatmulLanes a, MatmulLanes b) {
    return (MatmulLanes)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
}
MATMUL_INLINE MatmulLanes matmul_pairs_in_a_row(MatmulLanes x, MatmulLanes next) {
    return (MatmulLanes)_mm512_cvtne2ps_pbh((__m512)next, (__m512)x);
}
MATMUL_INLINE MatmulLanes matmul_pairs_of_two_rows(MatmulLanes even, MatmulLanes odd) {
    const MatmulBits order = (MatmulBits){
        0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005, 0x00160006, 0x00170007,
        0x00180008, 0x00190009, 0x001a000a, 0x001b000b, 0x001c000c, 0x001d000d, 0x001e000e, 0x001f000f};
    return (MatmulLanes)_mm512_permutexvar_epi16((__m512i)order,
                                                 (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
}
#elif defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC && !defined __ARM_BIG_ENDIAN
#include <arm_neon.h>
#define MATMUL_PAIRS 1
#define MATMUL_EVEN(lane, x) (2 * (lane))
#define MATMUL_ODD(lane, x) (2 * (lane) + 1)
MATMUL_INLINE MatmulLanes matmul_dot_pairs(MatmulLanes acc, MatmulLanes a, MatmulLanes b) {
    return (MatmulLanes)vbfdotq_f32((float32x4_t)acc, (bfloat16x8_t)a, (bfloat16x8_t)b);
}
MATMUL_INLINE MatmulLanes matmul_pairs_of_two_rows(MatmulLanes even, MatmulLanes odd) {
    return (MatmulLanes)(matmul_round_lanes(even) >> 16 | matmul_round_lanes(odd));
}
MATMUL_INLINE MatmulLanes matmul_pairs_in_a_row(MatmulLanes x, MatmulLanes next) {
    return matmul_pairs_of_two_rows(MATMUL_SHUFFLE(x, next, MATMUL_EACH(MATMUL_EVEN, 0)),
                                    MATMUL_SHUFFLE(x, next, MATMUL_EACH(MATMUL_ODD, 0)));
}
#else
#define MATMUL_PAIRS                                                                                         \
    0 /* bf16 operands become floats that bf16 can hold, and the float32 kernel does the rest */
MATMUL_INLINE MatmulLanes matmul_dot_pairs(MatmulLanes acc, MatmulLanes a, MatmulLanes b) {
    return acc + a * b;
}
MATMUL_INLINE MatmulLanes matmul_pairs_of_two_rows(MatmulLanes even, MatmulLanes odd) {
    (void)odd;
    return even;
}
MATMUL_INLINE MatmulLanes matmul_pairs_in_a_row(MatmulLanes x, MatmulLanes next) {
    (void)next;
    return x;
}
#endif

/* The micro-kernel: `rows` <= MR rows of one tile, out = add (NULL: 0) + panel of A . panel of B. The first
   `valid` rows are written. `rows` and `pairs` are constants where it is called. */
MATMUL_INLINE void matmul_kernel(const int rows, const bool pairs, int64_t units, const float *a,
                                 const float *b, int valid, float *out, int64_t out_stride, const float *add,
                                 int64_t add_stride) {
    MatmulLanes acc[MATMUL_MR][MATMUL_NV];
    MATMUL_UNROLL
    for (int i = 0; i < rows; i++) {
        MATMUL_UNROLL
        for (int j = 0; j < MATMUL_NV; j++) acc[i][j] = matmul_splat(0);
    }
    for (int64_t unit = 0, end = 0; unit < units;) {
        const int64_t turn = end / 16; /* a row of `add` is fetched every 16 units, in time for the end */
        if (add && turn < valid)
            for (int j = 0; j < MATMUL_NR; j += 16) __builtin_prefetch(add + turn * add_stride + j, 1);
        for (end = matmul_min(end + 16, units); unit < end; unit++, a += MATMUL_MR, b += MATMUL_NR) {
            MatmulLanes column[MATMUL_NV];
            MATMUL_UNROLL
            for (int j = 0; j < MATMUL_NV; j++) column[j] = *(const MatmulLanes *)(b + j * MATMUL_LANES);
            MATMUL_UNROLL
            for (int i = 0; i < rows; i++) {
                MatmulLanes row = matmul_splat(a[i]);
                MATMUL_UNROLL
                for (int j = 0; j < MATMUL_NV; j++) {
                    if (pairs)
                        acc[i][j] = matmul_dot_pairs(acc[i][j], row, column[j]);
                    else
                        acc[i][j] += row * column[j];
                }
            }
        }
    }
    MATMUL_UNROLL
    for (int i = 0; i < rows; i++) {
        if (i < valid) {
            MATMUL_UNROLL
            for (int j = 0; j < MATMUL_NV; j++) {
                if (add) acc[i][j] += *(const MatmulAnyLanes *)(add + i * add_stride + j * MATMUL_LANES);
                *(MatmulAnyLanes *)(out + i * out_stride + j * MATMUL_LANES) = acc[i][j];
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------
   Packing. */

/* Where an operand lies: element (k, i), i counting rows of A or columns of B, is data[k + i * stride] when k is
   contiguous, data[k * stride + i] when not. */
typedef struct {
    const void *data; /* float, or uint16_t holding bf16 */
    int64_t stride;
    bool k_contiguous, is_bf16;
} MatmulOperand;

typedef enum { MATMUL_UNIT_FLOAT, MATMUL_UNIT_ROUNDED, MATMUL_UNIT_PAIR } MatmulUnit;

/* MATMUL_LANES floats from element `at` on, 0 from the n-th on. */
MATMUL_INLINE MatmulLanes matmul_load(const void *data, bool is_bf16, int64_t at, int64_t n) {
    typedef uint16_t Half __attribute__((vector_size(2 * MATMUL_LANES), may_alias, aligned(2)));
    if (n <= 0) return matmul_splat(0);
    if (is_bf16) {
        Half half = {0};
        const uint16_t *from = (const uint16_t *)data + at;
        if (n >= MATMUL_LANES)
            half = *(const Half *)from;
        else
            memcpy(&half, from, (size_t)n * sizeof *from);
        return (MatmulLanes)(__builtin_convertvector(half, MatmulBits) << 16);
    }
    const float *from = (const float *)data + at;
    if (n >= MATMUL_LANES) return *(const MatmulAnyLanes *)from;
    MatmulLanes lanes = matmul_splat(0);
    memcpy(&lanes, from, (size_t)n * sizeof *from);
    return lanes;
}

/* x[i] lane l  ->  x[l] lane i. At step s the lanes with bit s of rows without bit s trade places with the
   lanes without of rows with. */
#define MATMUL_LOW(lane, s) ((lane) & (s) ? MATMUL_LANES + (lane) - (s) : (lane))
#define MATMUL_HIGH(lane, s) ((lane) & (s) ? MATMUL_LANES + (lane) : (lane) + (s))
#define MATMUL_TRADE(s)                                                                                      \
    MATMUL_UNROLL                                                                                            \
    for (int i = 0; i < MATMUL_LANES; i++)                                                                   \
        if (!(i & (s))) {                                                                                    \
            MatmulLanes low = MATMUL_SHUFFLE(x[i], x[i + (s)], MATMUL_EACH(MATMUL_LOW, s));                  \
            x[i + (s)] = MATMUL_SHUFFLE(x[i], x[i + (s)], MATMUL_EACH(MATMUL_HIGH, s));                      \
            x[i] = low;                                                                                      \
        }
MATMUL_INLINE void matmul_transpose(MatmulLanes *x) {
    MATMUL_TRADE(1)
    MATMUL_TRADE(2)
#if MATMUL_LANES >= 8
    MATMUL_TRADE(4)
#endif
#if MATMUL_LANES >= 16
    MATMUL_TRADE(8)
#endif
}

/* Two ways to pack `count` rows (of A; columns of B) of x from i on, `depth` elements in k from k on, into panels
   of `width`, `panel` floats apart; what lies beyond is 0. A vector of units may reach over the panel's width
   into the next unit, which is why units are written upward, and why a panel has MATMUL_LANES spare floats at
   its end. The arguments from is_bf16 to width are constants where these are called. */

/* k is contiguous: a vector holds units of one row; transpose as many rows as it has lanes. */
MATMUL_INLINE void matmul_pack_along_k(const MatmulOperand *x, const bool is_bf16, const MatmulUnit unit,
                                       const int width, float *to, int64_t panel, int64_t k, int64_t i,
                                       int64_t depth, int64_t count) {
    const int per_unit = unit == MATMUL_UNIT_PAIR ? 2 : 1, size = is_bf16 ? 2 : 4;
    for (; count > 0; count -= width, i += width, to += panel)
        for (int group = (width - 1) / MATMUL_LANES * MATMUL_LANES; group >= 0; group -= MATMUL_LANES)
            for (int64_t d = 0; d < depth; d += per_unit * MATMUL_LANES) {
                MatmulLanes lanes[MATMUL_LANES];
                const int64_t left = depth - d, rows = matmul_min(count, width) - group;
                MATMUL_UNROLL
                for (int l = 0; l < MATMUL_LANES; l++) {
                    const int64_t at = k + d + (i + group + l) * x->stride;
                    if (l < rows)
                        for (int line = 0; line < (is_bf16 ? 1 : per_unit); line++)
                            __builtin_prefetch((const char *)x->data + at * size + 256 + line * 64);
                    if (l >= rows)
                        lanes[l] = matmul_splat(0);
                    else if (unit == MATMUL_UNIT_PAIR && is_bf16 && left >= 2 * MATMUL_LANES)
                        lanes[l] = *(const MatmulAnyLanes *)((const uint16_t *)x->data + at);
                    else if (unit == MATMUL_UNIT_PAIR)
                        lanes[l] = matmul_pairs_in_a_row(
                            matmul_load(x->data, is_bf16, at, left),
                            matmul_load(x->data, is_bf16, at + MATMUL_LANES, left - MATMUL_LANES));
                    else
                        lanes[l] = matmul_load(x->data, is_bf16, at, left);
                    if (unit == MATMUL_UNIT_ROUNDED) lanes[l] = (MatmulLanes)matmul_round_lanes(lanes[l]);
                }
                matmul_transpose(lanes);
                float *from = to + d / per_unit * width + group;
                MATMUL_UNROLL
                for (int l = 0; l < MATMUL_LANES; l++) *(MatmulAnyLanes *)(from + l * width) = lanes[l];
            }
}

/* k is not contiguous: a vector holds the same unit of neighbouring rows, as the panel does. */
MATMUL_INLINE void matmul_pack_across_k(const MatmulOperand *x, const bool is_bf16, const MatmulUnit unit,
                                        const int width, float *to, int64_t panel, int64_t k, int64_t i,
                                        int64_t depth, int64_t count) {
    const int per_unit = unit == MATMUL_UNIT_PAIR ? 2 : 1;
    enum {
        UNITS = 2,
        AHEAD = 16
    }; /* rows lie on pages of their own, where the hardware does not fetch ahead */
    const int64_t size = is_bf16 ? 2 : 4;
    for (int64_t d = 0; d < depth; d += UNITS * per_unit, to += UNITS * width) {
        const int64_t row = k + d, left_k = matmul_min(UNITS * per_unit, depth - d);
        for (int64_t e = AHEAD; e < matmul_min(AHEAD + UNITS * per_unit, depth - d); e++) {
            const char *from = (const char *)x->data + ((row + e) * x->stride + i) * size;
            for (int64_t at = 0; at < count * size; at += 64) __builtin_prefetch(from + at);
        }
        float *panel_to = to;
        for (int64_t done = 0; done < count; done += width, panel_to += panel)
            for (int64_t e = 0; e < left_k; e += per_unit)
                for (int group = (width - 1) / MATMUL_LANES * MATMUL_LANES; group >= 0;
                     group -= MATMUL_LANES) {
                    const int64_t at = (row + e) * x->stride + i + done + group, left = count - done - group;
                    MatmulLanes lanes = matmul_load(x->data, is_bf16, at, left);
                    if (unit == MATMUL_UNIT_PAIR)
                        lanes = matmul_pairs_of_two_rows(
                            lanes, matmul_load(x->data, is_bf16, at + x->stride, e + 1 < left_k ? left : 0));
                    if (unit == MATMUL_UNIT_ROUNDED) lanes = (MatmulLanes)matmul_round_lanes(lanes);
                    *(MatmulAnyLanes *)(panel_to + e / per_unit * width + group) = lanes;
                }
    }
}

MATMUL_INLINE void matmul_pack(const MatmulOperand *x, MatmulUnit unit, const int width, float *to,
                               int64_t panel, int64_t k, int64_t i, int64_t depth, int64_t count) {
    if (unit == MATMUL_UNIT_ROUNDED && x->is_bf16) unit = MATMUL_UNIT_FLOAT;
/* (k contiguous, bf16 source, unit) */
#define MATMUL_PACK_CASE(c, h, u)                                                                            \
    if (x->k_contiguous == (c) && x->is_bf16 == (h) && unit == (u)) {                                        \
        if (c)                                                                                               \
            matmul_pack_along_k(x, h, u, width, to, panel, k, i, depth, count);                              \
        else                                                                                                 \
            matmul_pack_across_k(x, h, u, width, to, panel, k, i, depth, count);                             \
    }
    MATMUL_PACK_CASE(true, false, MATMUL_UNIT_FLOAT)
    MATMUL_PACK_CASE(false, false, MATMUL_UNIT_FLOAT)
    MATMUL_PACK_CASE(true, true, MATMUL_UNIT_FLOAT)
    MATMUL_PACK_CASE(false, true, MATMUL_UNIT_FLOAT)
#if MATMUL_PAIRS
    MATMUL_PACK_CASE(true, false, MATMUL_UNIT_PAIR)
    MATMUL_PACK_CASE(false, false, MATMUL_UNIT_PAIR)
    MATMUL_PACK_CASE(true, true, MATMUL_UNIT_PAIR)
    MATMUL_PACK_CASE(false, true, MATMUL_UNIT_PAIR)
#else
    MATMUL_PACK_CASE(true, false, MATMUL_UNIT_ROUNDED)
    MATMUL_PACK_CASE(false, false, MATMUL_UNIT_ROUNDED)
#endif
}

static inline void matmul_pack_a(const MatmulOperand *x, MatmulUnit unit, float *to, int64_t panel, int64_t k,
                                 int64_t i, int64_t depth, int64_t count) {
    matmul_pack(x, unit, MATMUL_MR, to, panel, k, i, depth, count);
}

static inline void matmul_pack_b(const MatmulOperand *x, MatmulUnit unit, float *to, int64_t panel, int64_t k,
                                 int64_t i, int64_t depth, int64_t count) {
    matmul_pack(x, unit, MATMUL_NR, to, panel, k, i, depth, count);
}

/* ---------------------------------------------------------------------------------------------------------
   Loops and threads. */

enum {
    MATMUL_UNITS = 1024,    /* depth of a k-block in units */
    MATMUL_OWN = 160 << 10, /* floats packed by a thread for itself: they stay in the second-level cache */
    MATMUL_SHARED = 4 << 20 /* floats packed for all threads */
};

/* out (M, N) = add (M, N; NULL: 0) + A (M, K) . B (K, N) */
typedef struct {
    int64_t M, N, K;
    MatmulOperand a, b;
    float *out;
    const float *add;
    MatmulUnit unit;
    int64_t depth;            /* of a k-block in elements; the last may be less deep */
    int64_t k_blocks;         /* depend on K only */
    int64_t a_panel, b_panel; /* floats from one panel to the next */
} MatmulJob;

/* One memory block is kept between calls, since page faults on fresh memory cost as much as a small product.
   Who takes it owns it; a second caller at the same time finds none and allocates. */
typedef struct {
    size_t bytes;
    char pad[64 - sizeof(size_t)];
    float data[];
} MatmulWorkspace;
static _Atomic(MatmulWorkspace *) matmul_spare;

static inline MatmulWorkspace *matmul_workspace_take(int64_t floats) {
    size_t bytes = sizeof(MatmulWorkspace) + (size_t)floats * sizeof(float);
    MatmulWorkspace *workspace = atomic_exchange(&matmul_spare, NULL);
    if (workspace && workspace->bytes >= bytes) return workspace;
    free(workspace);
    const size_t huge = (size_t)2 << 20;
    bytes = (bytes + huge - 1) / huge * huge;
    workspace = aligned_alloc(huge, bytes);
    if (!workspace) die("cannot allocate %.1f MiB of work memory for a matrix product", bytes / 1048576.0);
#if defined __linux__ && defined MADV_HUGEPAGE
    madvise(workspace, bytes, MADV_HUGEPAGE);
#endif
    workspace->bytes = bytes;
    return workspace;
}

static inline void matmul_workspace_give(MatmulWorkspace *workspace) {
    free(atomic_exchange(&matmul_spare, workspace));
}

/* One tile at (row, column) of out, whole or cut off by its edge. */
static inline void matmul_tile(const MatmulJob *job, int64_t units, const float *a, const float *b,
                               int64_t row, int64_t column, const float *add) {
    const int rows = (int)matmul_min(MATMUL_MR, job->M - row);
    const int columns = (int)matmul_min(MATMUL_NR, job->N - column);
    const bool pairs = job->unit == MATMUL_UNIT_PAIR;
    float edge[MATMUL_MR * MATMUL_NR];
    float *out = job->out + row * job->N + column, *to = columns == MATMUL_NR ? out : edge;
    const int64_t to_stride = columns == MATMUL_NR ? job->N : MATMUL_NR;
    if (add) add += row * job->N + column;
    const float *kernel_add = columns == MATMUL_NR ? add : NULL;
#define MATMUL_KERNEL_CASE(r)                                                                                \
    else if (rows <= (r) && pairs)                                                                           \
        matmul_kernel(r, true, units, a, b, rows, to, to_stride, kernel_add, job->N);                        \
    else if (rows <= (r)) matmul_kernel(r, false, units, a, b, rows, to, to_stride, kernel_add, job->N);
    if (rows <= 0) return;
    MATMUL_KERNEL_CASE(1)
    MATMUL_KERNEL_CASE(2)
    MATMUL_KERNEL_CASE(4)
#if MATMUL_MR > 8
    MATMUL_KERNEL_CASE(8)
#endif
    MATMUL_KERNEL_CASE(MATMUL_MR)
    if (columns == MATMUL_NR) return;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            out[i * job->N + j] = (add ? add[i * job->N + j] : 0) + edge[i * MATMUL_NR + j];
}

/* Threads share one packed operand and pack the other themselves, a block at a time, just before use. */
typedef struct {
    bool share_a;
    int64_t first, last; /* panels of the shared operand that are packed, for k-blocks from `block` on */
    int64_t block, last_block;
    const float *packed;
} MatmulShared;

/* The tiles of own panels [own, own_end) and shared panels [from, to), over the shared k-blocks. */
static inline void matmul_block(const MatmulJob *job, const MatmulShared *shared, int64_t own,
                                int64_t own_end, int64_t from, int64_t to, float *packed) {
    const int64_t per_unit = job->unit == MATMUL_UNIT_PAIR ? 2 : 1;
    const int64_t own_panel = shared->share_a ? job->b_panel : job->a_panel;
    const int64_t shared_panel = shared->share_a ? job->a_panel : job->b_panel;
    const float *common = shared->packed;
    for (int64_t block = shared->block; block < shared->last_block; block++) {
        const int64_t k = block * job->depth, depth = matmul_min(job->depth, job->K - k);
        const int64_t units = matmul_ceil(depth, per_unit);
        const float *add = block ? job->out : job->add;
        if (shared->share_a) {
            matmul_pack_b(&job->b, job->unit, packed, own_panel, k, own * MATMUL_NR, depth,
                          matmul_min(own_end * MATMUL_NR, job->N) - own * MATMUL_NR);
            for (int64_t r = from; r < to; r++)
                for (int64_t c = own; c < own_end; c++)
                    matmul_tile(job, units, common + (r - shared->first) * shared_panel,
                                packed + (c - own) * own_panel, r * MATMUL_MR, c * MATMUL_NR, add);
        } else {
            matmul_pack_a(&job->a, job->unit, packed, own_panel, k, own * MATMUL_MR, depth,
                          matmul_min(own_end * MATMUL_MR, job->M) - own * MATMUL_MR);
            for (int64_t c = from; c < to; c++)
                for (int64_t r = own; r < own_end; r++)
                    matmul_tile(job, units, packed + (r - own) * own_panel,
                                common + (c - shared->first) * shared_panel, r * MATMUL_MR, c * MATMUL_NR,
                                add);
        }
        common += (shared->last - shared->first) * shared_panel;
    }
}

static inline int matmul_threads(double flops) {
#ifdef _OPENMP
    if (omp_in_parallel()) return 1;
    int64_t useful = 1 + (int64_t)(flops / 2e6); /* less than that is not worth waking a thread for */
    return (int)matmul_min(omp_get_max_threads(), useful);
#else
    (void)flops;
    return 1;
#endif
}

static inline int matmul_thread(void) {
#ifdef _OPENMP
    return omp_in_parallel() && omp_get_level() == 1 ? omp_get_thread_num() : 0;
#else
    return 0;
#endif
}

static inline void matmul_run(MatmulJob *job, MatmulPrecision precision) {
    job->unit = precision == MATMUL_FP32 ? MATMUL_UNIT_FLOAT
                : MATMUL_PAIRS           ? MATMUL_UNIT_PAIR
                                         : MATMUL_UNIT_ROUNDED;
    const int64_t per_unit = job->unit == MATMUL_UNIT_PAIR ? 2 : 1, step = per_unit * MATMUL_LANES;
    job->k_blocks = matmul_max(1, matmul_ceil(job->K, MATMUL_UNITS * per_unit));
    job->depth = matmul_ceil(matmul_ceil(job->K, job->k_blocks), step) * step;
    job->a_panel = job->depth / per_unit * MATMUL_MR + MATMUL_LANES;
    job->b_panel = job->depth / per_unit * MATMUL_NR + MATMUL_LANES;

    /* The smaller operand is shared, in groups that stay in the last-level cache. */
    const int threads = matmul_threads(2.0 * (double)job->M * (double)job->N * (double)job->K);
    const bool share_a = job->M < job->N;
    const int64_t a_panels = matmul_ceil(job->M, MATMUL_MR), b_panels = matmul_ceil(job->N, MATMUL_NR);
    const int64_t panels = share_a ? a_panels : b_panels, own_panels = share_a ? b_panels : a_panels;
    const int64_t panel = share_a ? job->a_panel : job->b_panel,
                  own_panel = share_a ? job->b_panel : job->a_panel;
    const int64_t width = share_a ? MATMUL_MR : MATMUL_NR, rows = share_a ? job->M : job->N;
    const int64_t group = matmul_min(panels, matmul_max(1, MATMUL_SHARED / panel));
    const int64_t chunk = 256 / width; /* panels packed by one thread at a time */
    /* The own side is cut into blocks of even size; the shared side too when the threads need more. */
    int64_t blocks = matmul_ceil(own_panels, matmul_max(1, MATMUL_OWN / own_panel));
    blocks = matmul_min(own_panels, matmul_ceil(blocks, threads) * threads);
    const int64_t splits = matmul_min(group, blocks < threads ? matmul_ceil(2 * threads, blocks) : 1);
    const int64_t own_floats = matmul_ceil(matmul_ceil(own_panels, blocks) * own_panel, 1024) * 1024;
    MatmulWorkspace *workspace = matmul_workspace_take(group * panel + threads * own_floats + 1024);
    float *packed = workspace->data, *own_packed = packed + matmul_ceil(group * panel, 1024) * 1024;

#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t k = 0; k < job->k_blocks; k++)
        for (int64_t first = 0; first < panels; first += group) {
            const int64_t last = matmul_min(panels, first + group),
                          depth = matmul_min(job->depth, job->K - k * job->depth);
            const MatmulShared shared = {share_a, first, last, k, k + 1, packed};
#pragma omp for schedule(dynamic, 1)
            for (int64_t p = first; p < last; p += chunk)
                (share_a ? matmul_pack_a : matmul_pack_b)(
                    share_a ? &job->a : &job->b, job->unit, packed + (p - first) * panel, panel,
                    k * job->depth, p * width, depth,
                    matmul_min(matmul_min(p + chunk, last) * width, rows) - p * width);
#pragma omp for collapse(2) schedule(dynamic, 1)
            for (int64_t o = 0; o < blocks; o++)
                for (int64_t s = 0; s < splits; s++)
                    matmul_block(job, &shared, o * own_panels / blocks, (o + 1) * own_panels / blocks,
                                 first + s * (last - first) / splits,
                                 first + (s + 1) * (last - first) / splits,
                                 own_packed + matmul_thread() * own_floats);
        }
    matmul_workspace_give(workspace);
}

/* ---------------------------------------------------------------------------------------------------------
   The three products. */

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, MatmulPrecision precision) {
    MatmulJob job = {.M = N, .N = OC, .K = C, .out = out, .add = addend};
    job.a = (MatmulOperand){inp, C, true, false};
    job.b = (MatmulOperand){weight, C, true, false};
    matmul_run(&job, precision);
}

static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC,
                                         MatmulPrecision precision) {
    MatmulJob job = {.M = N, .N = C, .K = OC, .out = dinp, .add = addend};
    job.a = (MatmulOperand){dout, OC, true, false};
    job.b = (MatmulOperand){weight, C, false, false};
    matmul_run(&job, precision);
}

static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, MatmulPrecision precision) {
    MatmulJob job = {.M = OC, .N = C, .K = N, .out = dweight, .add = dweight};
    job.a = (MatmulOperand){dout, OC, false, false};
    job.b = (MatmulOperand){inp, C, false, false};
    matmul_run(&job, precision);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif
#endif
