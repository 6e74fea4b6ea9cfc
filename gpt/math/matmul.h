/* matmul.h: the three matrix products of a linear layer, float32 or bf16 operands, float32 accumulation.

   matmul_forward         out (N, OC)     = addend + inp (N, C) . weight (OC, C)^T
   matmul_backward_input  dinp (N, C)     = addend + dout (N, OC) . weight (OC, C)
   matmul_backward_weight dweight (OC, C) += dout (N, OC)^T . inp (N, C)
       Matrices are row-major and contiguous, of any size. addend has the shape of the output, or is NULL
       for 0; it may be the output itself. No other overlap is allowed. DTYPE_BF16 rounds the operands to bf16
       (nearest even; infinities and NaNs stay) on the way in; products and sums are float32 either way.

   The same three for the weight of a layer, with the same sums to the bit:

   Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
   linear_pack(&w)            optional: keeps the weight in the form both products read it in; once after every
                              change of its values. The first call allocates linear_packed_bytes(C, OC, dtype);
                              linear_free(&w) gives them back. Worth it for bf16, whose packing also rounds.
   linear_forward(to, inp, &w, N)
   linear_backward_input(to, dout, &w, N)
   linear_backward_weight(dweight, dout, inp, &w, N)
                              operands are floats or bf16 (array.h). `to` is {out, addend, finish, context}: out
                              takes floats or bf16; finish is called once for every finished tile while it is in the
                              first-level cache, from many threads at once, and may read it, change it, write something
                              else from it. With out.data NULL nothing else is written:

       static void keep_relu(void *context, const MatmulTile *t) { // context: Array hidden (N, OC)
           for (int i = 0; i < t->rows; i++) {
               float *row = t->values + i * t->stride;
               for (int j = 0; j < t->columns; j++) row[j] = fmaxf(row[j], 0);
               array_write(*(Array *)context, (t->row + i) * OC + t->column, row, t->columns);
           }
       }
       linear_forward((MatmulOutput){.finish = keep_relu, .context = &hidden}, x, &w1, N);

   All functions may be called from several threads at once; each uses OpenMP inside unless it already runs
   in a parallel region. The result has the same bits for any number of threads: an element of the output is
   one ordered sum over k, cut into blocks whose size depends on K only. Memory running out ends the program.

   How it works, after Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008) and
   BLIS (Van Zee & van de Geijn, 2015). out (M, N) = A (M, K) . B (K, N) is cut into tiles of MR x NR that
   fit the registers. A is packed into panels of MR rows, B into panels of NR columns, both k-major, so that the
   micro-kernel reads both as streams:

       panel of A: [unit][MR]     panel of B: [unit][NR]     acc[i][j] += a[unit][i] * b[unit][j]

   A unit is 32 bits: a float, or with native bf16 dot products two bf16 neighbours in k. Everything that
   differs between machines (vector width, tile shape, multiply-add) is in the section "the machine".
   For each k-block all threads pack the smaller operand together; then each takes blocks of the larger one,
   packs a block into its second-level cache and meets it with the shared panels, all of them or, where threads
   are many, a part. Multiply-adds reach their full rate only when contracted (-std=gnu11, not c11, or
   -ffp-contract=fast). */
#ifndef GPT_MATH_MATMUL_H
#define GPT_MATH_MATMUL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "../base/check.h"
#include "../base/memory.h"
#include "../base/processor.h"
#include "../base/threads.h"
#include "array.h"

#ifdef __clang__ /* without optimisation clang would warn that loops stay loops */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, Dtype dtype);
static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC, Dtype dtype);
static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, Dtype dtype);

static inline int64_t matmul_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t matmul_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t matmul_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* A part of the output whose sums are complete: element (i, j) of it, values[i * stride + j], is element
   (row + i, column + j) of the output. */
typedef struct {
    float *values;
    int64_t stride, row, column;
    int rows, columns;
} MatmulTile;
typedef void MatmulFinish(void *context, const MatmulTile *tile);

typedef struct {
    Array out; /* floats, or bf16 to which the sums are rounded; data NULL: only finish sees the sums */
    const float *addend;  /* NULL: 0 */
    MatmulFinish *finish; /* NULL: nothing; called once for each tile, from several threads at once */
    void *context;
} MatmulOutput;

enum { MATMUL_TILE = 32 * 32 }; /* the most elements of a tile */

typedef struct MatmulWorkspace MatmulWorkspace;
typedef struct {
    const float *values; /* (OC, C), the caller's */
    int64_t C, OC;
    Dtype dtype;
    const float *forward,
        *backward; /* packed for each product, or NULL: then each product packs what it needs */
    MatmulWorkspace *memory;
} Linear;

static inline void linear_pack(Linear *w);
static inline void linear_free(Linear *w);
static inline void linear_forward(MatmulOutput to, Array inp, const Linear *w, int64_t N);
static inline void linear_backward_input(MatmulOutput to, Array dout, const Linear *w, int64_t N);
static inline void linear_backward_weight(float *dweight, Array dout, Array inp, const Linear *w, int64_t N);

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
typedef float MatmulAnyLanes __attribute__((vector_size(4 * MATMUL_LANES), may_alias, aligned(2)));

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

/* What to fetch from memory during a tile: the next floats that will be needed, so many lines of 16 in every turn. */
enum { MATMUL_TURN = 16 /* units */ };
typedef struct {
    const float *next;
    int lines;
} MatmulFetch;

/* The micro-kernel: `rows` <= MR rows of one tile, out = add (NULL: 0) + panel of A . panel of B. The first
   `valid` rows are written. `rows` and `pairs` are constants where it is called. */
MATMUL_INLINE void matmul_kernel(const int rows, const bool pairs, int64_t units, const float *a,
                                 const float *b, int valid, MatmulFetch fetch, float *out, int64_t stride,
                                 const float *add) {
    MatmulLanes acc[MATMUL_MR][MATMUL_NV];
    MATMUL_UNROLL
    for (int i = 0; i < rows; i++) {
        MATMUL_UNROLL
        for (int j = 0; j < MATMUL_NV; j++) acc[i][j] = matmul_splat(0);
    }
    for (int64_t unit = 0, end = 0; unit < units;) {
        const int64_t turn = end / MATMUL_TURN; /* a row of `add` and `out` in each of the first turns */
        if (turn < valid)
            for (int j = 0; j < MATMUL_NR; j += 16) {
                if (add) __builtin_prefetch(add + turn * stride + j);
                __builtin_prefetch(out + turn * stride + j, 1);
            }
        for (int l = 0; l < fetch.lines; l++, fetch.next += 16) __builtin_prefetch(fetch.next, 0, 2);
        for (end = matmul_min(end + MATMUL_TURN, units); unit < end; unit++, a += MATMUL_MR, b += MATMUL_NR) {
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
                if (add) acc[i][j] += *(const MatmulAnyLanes *)(add + i * stride + j * MATMUL_LANES);
                *(MatmulAnyLanes *)(out + i * stride + j * MATMUL_LANES) = acc[i][j];
            }
        }
    }
}

/* The kernel for so many rows, or the next larger one. */
static inline void matmul_kernel_for(int rows, bool pairs, int64_t units, const float *a, const float *b,
                                     MatmulFetch fetch, float *out, int64_t stride, const float *add) {
#define MATMUL_KERNEL_UP_TO(n)                                                                               \
    if (rows <= (n)) {                                                                                       \
        if (pairs)                                                                                           \
            matmul_kernel(n, true, units, a, b, rows, fetch, out, stride, add);                              \
        else                                                                                                 \
            matmul_kernel(n, false, units, a, b, rows, fetch, out, stride, add);                             \
        return;                                                                                              \
    }
    MATMUL_KERNEL_UP_TO(1)
    MATMUL_KERNEL_UP_TO(2)
    MATMUL_KERNEL_UP_TO(4)
#if MATMUL_MR > 8
    MATMUL_KERNEL_UP_TO(8)
#endif
    MATMUL_KERNEL_UP_TO(MATMUL_MR)
}

/* Tile registers (AMX): with them a unit is a pair, and a panel of A is MATMUL_TILE_ROWS rows in pieces of 16 units,
   [unit / 16][row][16], so that a register of 16 rows is loaded from 1,024 bytes in a row. */
#if HAVE_AMX && MATMUL_LANES == 16
#define MATMUL_TILES 1
enum { MATMUL_TILE_ROWS = 32 };

/* out (32, 32) = add (NULL: 0) + panel of A . panel of B in four registers of sums. */
static inline void matmul_kernel_tiles(int64_t units, const float *a, const float *b, MatmulFetch fetch,
                                       float *out, int64_t stride, const float *add) {
    const size_t row = (size_t)stride * sizeof *out;
    __asm__ volatile("" ::: "memory"); /* the intrinsics do not tell the compiler that they read memory */
    if (add) {
        _tile_loadd(0, add, row);
        _tile_loadd(1, add + 16, row);
        _tile_loadd(2, add + 16 * stride, row);
        _tile_loadd(3, add + 16 * stride + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t unit = 0; unit < units; unit += 16, a += 16 * MATMUL_TILE_ROWS, b += 16 * MATMUL_NR) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, MATMUL_NR * sizeof *b);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + 16, MATMUL_NR * sizeof *b);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * 16, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        for (int l = 0; l < fetch.lines; l++, fetch.next += 16) __builtin_prefetch(fetch.next, 0, 2);
    }
    _tile_stored(0, out, row);
    _tile_stored(1, out + 16, row);
    _tile_stored(2, out + 16 * stride, row);
    _tile_stored(3, out + 16 * stride + 16, row);
}
#else
#define MATMUL_TILES 0
enum { MATMUL_TILE_ROWS = MATMUL_MR };
static inline void matmul_kernel_tiles(int64_t units, const float *a, const float *b, MatmulFetch fetch,
                                       float *out, int64_t stride, const float *add) {
    (void)units, (void)a, (void)b, (void)fetch, (void)out, (void)stride, (void)add;
}
#endif

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

/* Pairs are what tile registers hold: where there are any, all products of pairs use them. */
MATMUL_INLINE bool matmul_in_tiles(MatmulUnit unit) { return MATMUL_TILES && unit == MATMUL_UNIT_PAIR; }

/* The units of so many elements in k, with those of zeros that tile registers need to be full. */
MATMUL_INLINE int64_t matmul_whole_units(MatmulUnit unit, int64_t depth) {
    const int64_t units = unit == MATMUL_UNIT_PAIR ? (depth + 1) / 2 : depth;
    return matmul_in_tiles(unit) ? matmul_ceil(units, 16) * 16 : units;
}

/* Two ways to pack `panels` panels of `width` rows (of A; columns of B) of x from row i on, `depth` elements in k
   from k on; panels are `panel` floats apart. x has `count` rows from i on: what lies beyond is 0. A vector of
   units may reach over the panel's width into the next unit, which is why units are written upward, and why a
   panel has MATMUL_LANES spare floats at its end. The arguments from is_bf16 to width are constants where these
   are called; `tiles` asks for the order of tile registers. */

/* k is contiguous: a vector holds units of one row; transpose as many rows as it has lanes. */
MATMUL_INLINE void matmul_pack_along_k(const MatmulOperand *x, const bool is_bf16, const MatmulUnit unit,
                                       const int width, const bool tiles, float *to, int64_t panel, int64_t k,
                                       int64_t i, int64_t depth, int64_t count, int64_t panels) {
    const int per_unit = unit == MATMUL_UNIT_PAIR ? 2 : 1, size = is_bf16 ? 2 : 4;
    for (; panels > 0; panels--, count -= width, i += width, to += panel)
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
                if (!tiles) matmul_transpose(lanes);
                float *from = to + d / per_unit * width + group * (tiles ? MATMUL_LANES : 1);
                MATMUL_UNROLL
                for (int l = 0; l < MATMUL_LANES; l++)
                    *(MatmulAnyLanes *)(from + l * (tiles ? MATMUL_LANES : width)) = lanes[l];
            }
}

/* Units in the order of a panel, [16 units][width], to the order of tile registers, [width][16 units]. */
MATMUL_INLINE void matmul_turn_tiles(float *panel, int64_t units, const int width) {
    for (float *piece = panel; piece < panel + units * width; piece += MATMUL_LANES * width) {
        MatmulLanes rows[MATMUL_TILE_ROWS / MATMUL_LANES + 1][MATMUL_LANES];
        for (int group = 0; group < width / MATMUL_LANES; group++)
            for (int l = 0; l < MATMUL_LANES; l++)
                rows[group][l] = *(const MatmulLanes *)(piece + l * width + group * MATMUL_LANES);
        for (int group = 0; group < width / MATMUL_LANES; group++) {
            matmul_transpose(rows[group]);
            for (int l = 0; l < MATMUL_LANES; l++)
                *(MatmulLanes *)(piece + (group * MATMUL_LANES + l) * MATMUL_LANES) = rows[group][l];
        }
    }
}

/* k is not contiguous: a vector holds the same unit of neighbouring rows, as the panel does. */
MATMUL_INLINE void matmul_pack_across_k(const MatmulOperand *x, const bool is_bf16, const MatmulUnit unit,
                                        const int width, const bool tiles, float *to, int64_t panel,
                                        int64_t k, int64_t i, int64_t depth, int64_t count, int64_t panels) {
    const int per_unit = unit == MATMUL_UNIT_PAIR ? 2 : 1;
    enum { STEP = 2, AHEAD = 24 }; /* each row is on a page of its own: the hardware fetches little ahead */
    const int64_t size = is_bf16 ? 2 : 4, wide = matmul_min(count, panels * width);
    const int64_t whole = matmul_whole_units(unit, depth) * per_unit;
    float *const first_panel = to;
    for (int64_t d = 0; d < whole; d += STEP, to += STEP / per_unit * width) {
        const int64_t row = k + d, left_k = matmul_min(STEP, whole - d);
        for (int64_t e = AHEAD; e < matmul_min(AHEAD + STEP, depth - d); e++) {
            const char *from = (const char *)x->data + ((row + e) * x->stride + i) * size;
            for (int64_t at = 0; at < wide * size; at += 64) __builtin_prefetch(from + at);
        }
        float *panel_to = to;
        for (int64_t done = 0; done < wide; done += width, panel_to += panel)
            for (int64_t e = 0; e < left_k; e += per_unit)
                for (int group = (width - 1) / MATMUL_LANES * MATMUL_LANES; group >= 0;
                     group -= MATMUL_LANES) {
                    const int64_t at = (row + e) * x->stride + i + done + group, left = count - done - group;
                    MatmulLanes lanes = matmul_load(x->data, is_bf16, at, d + e < depth ? left : 0), odd;
                    if (unit == MATMUL_UNIT_PAIR) {
                        odd = matmul_load(x->data, is_bf16, at + x->stride, d + e + 1 < depth ? left : 0);
                        lanes = is_bf16 ? (MatmulLanes)((MatmulBits)lanes >> 16 | (MatmulBits)odd)
                                        : matmul_pairs_of_two_rows(lanes, odd);
                    }
                    if (unit == MATMUL_UNIT_ROUNDED) lanes = (MatmulLanes)matmul_round_lanes(lanes);
                    *(MatmulAnyLanes *)(panel_to + e / per_unit * width + group) = lanes;
                }
    }
    for (int64_t p = 0; p < panels && tiles; p++)
        matmul_turn_tiles(first_panel + p * panel, whole / per_unit, width);
}

MATMUL_INLINE void matmul_pack(const MatmulOperand *x, MatmulUnit unit, const int width, const bool tiles,
                               float *to, int64_t panel, int64_t k, int64_t i, int64_t depth, int64_t count,
                               int64_t panels) {
    if (unit == MATMUL_UNIT_ROUNDED && x->is_bf16) unit = MATMUL_UNIT_FLOAT;
/* (k contiguous, bf16 source, unit) */
#define MATMUL_PACK_CASE(c, h, u)                                                                            \
    if (x->k_contiguous == (c) && x->is_bf16 == (h) && unit == (u)) {                                        \
        if (c)                                                                                               \
            matmul_pack_along_k(x, h, u, width, tiles, to, panel, k, i, depth, count, panels);               \
        else                                                                                                 \
            matmul_pack_across_k(x, h, u, width, tiles, to, panel, k, i, depth, count, panels);              \
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
#endif
#if !MATMUL_PAIRS || MATMUL_TILES
    MATMUL_PACK_CASE(true, false, MATMUL_UNIT_ROUNDED)
    MATMUL_PACK_CASE(false, false, MATMUL_UNIT_ROUNDED)
#endif
}

static inline void matmul_pack_a(const MatmulOperand *x, MatmulUnit unit, float *to, int64_t panel, int64_t k,
                                 int64_t i, int64_t depth, int64_t count, int64_t panels) {
    if (matmul_in_tiles(unit))
        matmul_pack(x, unit, MATMUL_TILE_ROWS, true, to, panel, k, i, depth, count, panels);
    else
        matmul_pack(x, unit, MATMUL_MR, false, to, panel, k, i, depth, count, panels);
}

static inline void matmul_pack_b(const MatmulOperand *x, MatmulUnit unit, float *to, int64_t panel, int64_t k,
                                 int64_t i, int64_t depth, int64_t count, int64_t panels) {
    matmul_pack(x, unit, MATMUL_NR, false, to, panel, k, i, depth, count, panels);
}

/* ---------------------------------------------------------------------------------------------------------
   Loops and threads. */

enum {
    MATMUL_UNITS = MATMUL_TILES ? 1024 : 512,      /* depth of a k-block in units */
    MATMUL_OWN = (MATMUL_TILES ? 128 : 100) << 10, /* floats packed by a thread for itself: they stay in the
                                                           second-level cache */
    MATMUL_SHARED = 2 << 20                        /* floats packed for all threads */
};

/* One operand as the loops see it. */
typedef struct {
    MatmulOperand operand;
    int width;             /* of a panel: MR rows of A or NR columns of B */
    int64_t count, panels; /* rows of A or columns of B; panels that hold them */
    int64_t panel;         /* floats from one panel to the next */
} MatmulSide;

/* out (M, N) = add (M, N; NULL: 0) + A (M, K) . B (K, N) */
typedef struct {
    int64_t K;
    MatmulSide a, b;
    const float *packed_b; /* all of B, [k-block][panel], or NULL */
    MatmulOutput to;
    MatmulUnit unit;
    int64_t depth, k_blocks; /* elements of a k-block (the last may be less deep): depend on K only */
} MatmulJob;

/* One memory block is kept between calls, since page faults on fresh memory cost as much as a small product.
   Who takes it owns it; a second caller at the same time finds none and allocates. */
struct MatmulWorkspace {
    size_t bytes;
    char pad[64 - sizeof(size_t)];
    float data[];
};
static _Atomic(MatmulWorkspace *) matmul_spare;

/* Bytes of a block for so many floats: whole huge pages. */
static inline size_t matmul_workspace_size(int64_t floats) {
    const size_t bytes = sizeof(MatmulWorkspace) + (size_t)floats * sizeof(float);
    return (bytes + MEMORY_HUGE_PAGE - 1) / MEMORY_HUGE_PAGE * MEMORY_HUGE_PAGE;
}

static inline MatmulWorkspace *matmul_workspace_new(int64_t floats) {
    const size_t bytes = matmul_workspace_size(floats);
    MatmulWorkspace *workspace = memory_reserve(bytes);
    workspace->bytes = bytes;
    return workspace;
}

static inline MatmulWorkspace *matmul_workspace_take(int64_t floats) {
    MatmulWorkspace *workspace = atomic_exchange(&matmul_spare, NULL);
    if (workspace && workspace->bytes >= matmul_workspace_size(floats)) return workspace;
    free(workspace);
    return matmul_workspace_new(floats);
}

static inline void matmul_workspace_give(MatmulWorkspace *workspace) {
    free(atomic_exchange(&matmul_spare, workspace));
}

/* Packs panels [first, last) of one side for one k-block. */
static inline void matmul_pack_panels(const MatmulJob *job, bool b, float *to, int64_t block, int64_t first,
                                      int64_t last) {
    const MatmulSide *side = b ? &job->b : &job->a;
    const int64_t k = block * job->depth, i = first * side->width;
    const int64_t depth = matmul_min(job->depth, job->K - k);
    (b ? matmul_pack_b : matmul_pack_a)(&side->operand, job->unit, to, side->panel, k, i, depth,
                                        side->count - i, last - first);
}

/* What the threads share: packed panels [first, last) of one side for k-blocks [block, last_block). */
typedef struct {
    bool is_a;
    int64_t first, last, block, last_block;
    const float *packed; /* [k-block][panel] */
} MatmulShared;

/* The tile of panels r of A and c of B over the shared k-blocks; a and b are their first panels, and the next
   k-block's lie a_step and b_step floats on. At the edges, or when nobody wants the floats in memory, the tile is
   summed in `scratch`. */
static inline void matmul_tile(const MatmulJob *job, const MatmulShared *shared, int64_t r, int64_t c,
                               const float *a, int64_t a_step, const float *b, int64_t b_step,
                               MatmulFetch fetch) {
    _Static_assert(MATMUL_MR * MATMUL_NR <= MATMUL_TILE && MATMUL_TILE_ROWS * MATMUL_NR <= MATMUL_TILE, "");
    const bool pairs = job->unit == MATMUL_UNIT_PAIR, tiles = matmul_in_tiles(job->unit);
    const int64_t row = r * job->a.width, column = c * MATMUL_NR, stride = job->b.count;
    const int rows = (int)matmul_min(job->a.width, job->a.count - row);
    const int columns = (int)matmul_min(MATMUL_NR, stride - column);
    float *const floats = job->to.out.dtype == DTYPE_BF16 ? NULL : job->to.out.data;
    const bool direct = floats && columns == MATMUL_NR && (rows == job->a.width || !tiles);
    float scratch[MATMUL_TILE] __attribute__((aligned(64)));
    float *out = floats ? floats + row * stride + column : NULL, *to = direct ? out : scratch;
    const float *add = shared->block ? out : job->to.addend ? job->to.addend + row * stride + column : NULL;
    const int64_t to_stride = direct ? stride : MATMUL_NR;
    if (!direct && add) {
        for (int i = 0; i < rows; i++) memcpy(scratch + i * MATMUL_NR, add + i * stride, (size_t)columns * 4);
        add = scratch;
    }
    for (int64_t block = shared->block; block < shared->last_block; block++) {
        const int64_t depth = matmul_min(job->depth, job->K - block * job->depth);
        const int64_t units = matmul_whole_units(job->unit, depth);
        if (tiles)
            matmul_kernel_tiles(units, a, b, fetch, to, to_stride, add);
        else
            matmul_kernel_for(rows, pairs, units, a, b, fetch, to, to_stride, add);
        add = to, a += a_step, b += b_step;
    }
    if (job->to.finish && shared->last_block == job->k_blocks)
        job->to.finish(job->to.context, &(MatmulTile){to, to_stride, row, column, rows, columns});
    for (int i = 0; i < rows && !direct && job->to.out.data; i++)
        array_write(job->to.out, (row + i) * stride + column, scratch + i * MATMUL_NR, columns);
}

/* All tiles of own panels [own, own_end), which are packed here into `packed`, and shared panels [from, to). */
static inline void matmul_block(const MatmulJob *job, const MatmulShared *shared, int64_t own,
                                int64_t own_end, int64_t from, int64_t to, float *packed) {
    if (from == to) return; /* of a smaller last group not every thread has a part */
    const int64_t own_panel = (shared->is_a ? &job->b : &job->a)->panel;
    const int64_t panel = (shared->is_a ? &job->a : &job->b)->panel;
    const int64_t own_step = (own_end - own) * own_panel, step = (shared->last - shared->first) * panel;
    for (int64_t block = shared->block; block < shared->last_block; block++)
        matmul_pack_panels(job, shared->is_a, packed + (block - shared->block) * own_step, block, own,
                           own_end);
    /* While the own panels meet one shared panel, the next is fetched into the second-level cache, a share each. */
    const int64_t turns = matmul_ceil(panel, MATMUL_TURN * (shared->is_a ? MATMUL_MR : MATMUL_NR));
    const int lines = (int)matmul_min(4, matmul_ceil(panel, 16 * turns * (own_end - own)));
    for (int64_t s = from; s < to; s++)
        for (int64_t o = own; o < own_end; o++) {
            const float *own_at = packed + (o - own) * own_panel;
            const float *at = shared->packed + (s - shared->first) * panel;
            const MatmulFetch fetch = {at + panel + (o - own) * turns * lines * 16, s + 1 < to ? lines : 0};
            if (shared->is_a)
                matmul_tile(job, shared, s, o, at, step, own_at, own_step, fetch);
            else
                matmul_tile(job, shared, o, s, own_at, own_step, at, step, fetch);
        }
}

/* Where part `part` begins when n things are cut into so many: the larger parts first, so that threads who take one
   after the other end together. */
static inline int64_t matmul_cut(int64_t n, int64_t parts, int64_t part) {
    return part * (n / parts) + matmul_min(part, n % parts);
}

/* How the tiles of own and shared panels are dealt to the threads: blocks of the own, each with `splits` parts of the
   shared, are the pieces that threads take one after the other. */
typedef struct {
    int64_t blocks, splits;
} MatmulDeal;

/* The deal whose busiest thread has least to do. A piece of own x shared panels takes the time of so many tiles; of half a
   tile for packing each own panel, which every piece does for itself; and of a quarter for bringing in each shared one. A
   block has at most `most` panels. Splits are powers of two, to have few to try: blocks can be of any number. */
static inline MatmulDeal matmul_deal(int64_t own, int64_t shared, int64_t most, int threads) {
    const int64_t least = matmul_ceil(own, most);
    MatmulDeal best = {least, 1};
    int64_t best_time = INT64_MAX; /* in quarters of a tile's */
    for (int64_t splits = 1; splits <= matmul_min(shared, 2 * threads); splits *= 2)
        for (int64_t blocks = least; blocks <= matmul_min(own, least + 2 * threads); blocks++) {
            const int64_t pieces = matmul_ceil(blocks * splits, threads), part = matmul_ceil(shared, splits);
            const int64_t panels = pieces * (own / blocks) + matmul_ceil(own % blocks * splits, threads);
            const int64_t time = panels * (4 * part + 2) + pieces * part;
            if (time < best_time) best = (MatmulDeal){blocks, splits}, best_time = time;
        }
    return best;
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
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline void matmul_plan_side(MatmulSide *side, const MatmulJob *job, int width, int64_t count) {
    side->width = width;
    side->count = count;
    side->panels = matmul_ceil(count, width);
    side->panel = (job->unit == MATMUL_UNIT_PAIR ? job->depth / 2 : job->depth) * width + MATMUL_LANES;
}

static inline void matmul_plan(MatmulJob *job, int64_t M, int64_t N, int64_t K, Dtype dtype) {
    job->unit = dtype != DTYPE_BF16                                ? MATMUL_UNIT_FLOAT
                : MATMUL_PAIRS && (!MATMUL_TILES || amx_allowed()) ? MATMUL_UNIT_PAIR
                                                                   : MATMUL_UNIT_ROUNDED;
    const bool tiles = matmul_in_tiles(job->unit);
    const int64_t per_unit = job->unit == MATMUL_UNIT_PAIR ? 2 : 1, step = per_unit * MATMUL_LANES;
    job->K = K;
    job->k_blocks = matmul_max(1, matmul_ceil(K, MATMUL_UNITS * per_unit));
    job->depth = matmul_max(1, matmul_ceil(matmul_ceil(K, job->k_blocks), step)) * step;
    job->k_blocks = matmul_max(1, matmul_ceil(K, job->depth));
    matmul_plan_side(&job->a, job, tiles ? MATMUL_TILE_ROWS : MATMUL_MR, M);
    matmul_plan_side(&job->b, job, MATMUL_NR, N);
}

/* How the loops of a job go. */
typedef struct {
    const MatmulSide *shared, *own;
    int threads;
    int64_t group, group_blocks; /* shared panels, and k-blocks of them, that are packed and met at a time */
    int64_t chunk;               /* panels that one thread packs at a time: long rows, but work for all */
    int64_t shared_floats, own_floats;
    MatmulDeal deal;
} MatmulSchedule;

static inline MatmulSchedule matmul_schedule(const MatmulJob *job) {
    const int64_t M = job->a.count, N = job->b.count;
    const bool share_a = !job->packed_b && M < N; /* the smaller side */
    MatmulSchedule s = {.shared = share_a ? &job->a : &job->b, .own = share_a ? &job->b : &job->a};
    s.threads = matmul_threads(2.0 * (double)M * (double)N * (double)job->K);
    /* In even groups of panels that stay in the last-level cache, one k-block after the other; the sums wait in out. */
    const int64_t panels = s.shared->panels, room = matmul_max(1, MATMUL_SHARED / s.shared->panel);
    s.group = job->packed_b ? panels : matmul_ceil(panels, matmul_ceil(panels, room));
    s.group_blocks = job->to.out.data && job->to.out.dtype != DTYPE_BF16 ? 1 : job->k_blocks;
    s.chunk = matmul_max(1, matmul_min(256 / s.shared->width, s.group * s.group_blocks / (4 * s.threads)));
    const int64_t own_panel = s.group_blocks * s.own->panel;
    s.deal = matmul_deal(s.own->panels, s.group, matmul_max(1, MATMUL_OWN / own_panel), s.threads);
    s.own_floats = matmul_ceil(matmul_ceil(s.own->panels, s.deal.blocks) * own_panel, 1024) * 1024;
    if (!job->packed_b)
        s.shared_floats = matmul_ceil(s.group * s.group_blocks * s.shared->panel, 1024) * 1024;
    return s;
}

/* Packs groups of the shared side (unless it came packed), and deals blocks of the own side to the threads. */
static inline void matmul_run(const MatmulJob *job) {
    if (job->a.count <= 0 || job->b.count <= 0) return;
    const MatmulSchedule m = matmul_schedule(job);
    const MatmulSide *const side = m.shared;
    const bool tiles = matmul_in_tiles(job->unit), share_a = side == &job->a;
    MatmulWorkspace *workspace = matmul_workspace_take(m.shared_floats + m.threads * m.own_floats);
    float *const packed = workspace->data; /* the group: [k-block][panel] */

#pragma omp parallel num_threads(m.threads) if (m.threads > 1)
    {
        float *const own = workspace->data + m.shared_floats + matmul_thread() * m.own_floats;
        if (tiles) amx_begin();
        for (int64_t block = 0; block < job->k_blocks; block += m.group_blocks)
            for (int64_t first = 0; first < side->panels; first += m.group) {
                const int64_t last = matmul_min(side->panels, first + m.group), width = last - first;
                const int64_t last_block = matmul_min(job->k_blocks, block + m.group_blocks);
                MatmulShared shared = {share_a, first, last, block, last_block, packed};
                if (job->packed_b) {
                    shared.packed = job->packed_b + block * side->panels * side->panel;
                } else {
#pragma omp for collapse(2) schedule(dynamic, 1)
                    for (int64_t b = block; b < last_block; b++)
                        for (int64_t p = first; p < last; p += m.chunk)
                            matmul_pack_panels(job, !share_a,
                                               packed + ((b - block) * width + p - first) * side->panel, b, p,
                                               matmul_min(p + m.chunk, last));
                }
#pragma omp for collapse(2) schedule(dynamic, 1)
                for (int64_t o = 0; o < m.deal.blocks; o++)
                    for (int64_t s = 0; s < m.deal.splits; s++)
                        matmul_block(job, &shared, matmul_cut(m.own->panels, m.deal.blocks, o),
                                     matmul_cut(m.own->panels, m.deal.blocks, o + 1),
                                     first + matmul_cut(width, m.deal.splits, s),
                                     first + matmul_cut(width, m.deal.splits, s + 1), own);
            }
        if (tiles) amx_end();
    }
    matmul_workspace_give(workspace);
}

/* ---------------------------------------------------------------------------------------------------------
   The products. */

/* Floats that all of B takes up when it is packed for this job. */
static inline int64_t matmul_packed_floats(const MatmulJob *job) {
    return matmul_ceil(job->k_blocks * job->b.panels * job->b.panel, 16) * 16;
}

/* The size of a packed weight in bytes, both directions. */
static inline int64_t linear_packed_bytes(int64_t C, int64_t OC, Dtype dtype) {
    MatmulJob forward = {0}, backward = {0};
    matmul_plan(&forward, 1, OC, C, dtype);
    matmul_plan(&backward, 1, C, OC, dtype);
    return (int64_t)matmul_workspace_size(matmul_packed_floats(&forward) + matmul_packed_floats(&backward));
}

static inline void linear_pack(Linear *w) {
    MatmulJob jobs[2] = {{.b.operand = {w->values, w->C, true, false}},
                         {.b.operand = {w->values, w->C, false, false}}};
    matmul_plan(&jobs[0], 1, w->OC, w->C, w->dtype);
    matmul_plan(&jobs[1], 1, w->C, w->OC, w->dtype);
    const int64_t forward_floats = matmul_packed_floats(&jobs[0]);
    if (!w->memory) w->memory = matmul_workspace_new(forward_floats + matmul_packed_floats(&jobs[1]));
    float *const to[2] = {w->memory->data, w->memory->data + forward_floats};
    w->forward = to[0], w->backward = to[1];
    const int chunk = 8;
#pragma omp parallel if (w->C * w->OC > 100000)
    for (int direction = 0; direction < 2; direction++) {
        const MatmulJob *job = &jobs[direction];
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
        for (int64_t block = 0; block < job->k_blocks; block++)
            for (int64_t p = 0; p < job->b.panels; p += chunk)
                matmul_pack_panels(job, true, to[direction] + (block * job->b.panels + p) * job->b.panel,
                                   block, p, matmul_min(p + chunk, job->b.panels));
    }
}

static inline void linear_free(Linear *w) {
    free(w->memory);
    w->memory = NULL, w->forward = NULL, w->backward = NULL;
}

static inline void linear_forward(MatmulOutput to, Array inp, const Linear *w, int64_t N) {
    MatmulJob job = {.to = to,
                     .packed_b = w->forward,
                     .a.operand = {inp.data, w->C, true, inp.dtype == DTYPE_BF16},
                     .b.operand = {w->values, w->C, true, false}};
    matmul_plan(&job, N, w->OC, w->C, w->dtype);
    matmul_run(&job);
}

static inline void linear_backward_input(MatmulOutput to, Array dout, const Linear *w, int64_t N) {
    MatmulJob job = {.to = to,
                     .packed_b = w->backward,
                     .a.operand = {dout.data, w->OC, true, dout.dtype == DTYPE_BF16},
                     .b.operand = {w->values, w->C, false, false}};
    matmul_plan(&job, N, w->C, w->OC, w->dtype);
    matmul_run(&job);
}

static inline void linear_backward_weight(float *dweight, Array dout, Array inp, const Linear *w, int64_t N) {
    MatmulJob job = {.to = {array_of_floats(dweight), dweight, NULL, NULL},
                     .a.operand = {dout.data, w->OC, false, dout.dtype == DTYPE_BF16},
                     .b.operand = {inp.data, w->C, false, inp.dtype == DTYPE_BF16}};
    matmul_plan(&job, w->OC, w->C, N, w->dtype);
    matmul_run(&job);
}

static inline void matmul_forward(float *out, const float *addend, const float *inp, const float *weight,
                                  int64_t N, int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
    linear_forward((MatmulOutput){array_of_floats(out), addend, NULL, NULL}, array_of_floats(inp), &w, N);
}

static inline void matmul_backward_input(float *dinp, const float *addend, const float *dout,
                                         const float *weight, int64_t N, int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
    linear_backward_input((MatmulOutput){array_of_floats(dinp), addend, NULL, NULL}, array_of_floats(dout),
                          &w, N);
}

static inline void matmul_backward_weight(float *dweight, const float *dout, const float *inp, int64_t N,
                                          int64_t C, int64_t OC, Dtype dtype) {
    const Linear w = {.C = C, .OC = OC, .dtype = dtype};
    linear_backward_weight(dweight, array_of_floats(dout), array_of_floats(inp), &w, N);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif
#endif
