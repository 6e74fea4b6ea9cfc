/* matmul_isa.h: everything of matmul.h that depends on the processor's instruction set (ISA): vectors, the
   micro-kernels, and the choice between them.

   A micro-kernel computes one tile of the output, MR x NR elements whose sums stay in registers, from one panel of A
   and one panel of B, which are packed (matmul_pack.h) so that it reads both from front to back:

       panel of A: a[word][MR]     panel of B: b[word][NR]     sum[i][j] += a[word][i] * b[word][j]

   A word is 32 bits. Each kernel has one of these formats:

       MATMUL_FP32           one float
       MATMUL_FP32_ROUNDED   one float that was rounded to a bf16 value: bf16 products on processors without bf16
                             arithmetic
       MATMUL_BF16_PAIRS     two bf16 that are neighbours in k, the one of even k in the lower half; a multiply-add sums
                             both products

   The kernels, and what runs them:

       matmul_kernel_fp32           vectors, on any processor
       matmul_kernel_fp32_rounded   the same code; only the packing differs
       matmul_kernel_pairs          if the program is compiled for AMX, AMX's tile registers; else, if for AVX512-BF16
                                    or ARMv8.6, vectors with their bf16 instructions; else this kernel does not exist

   The AMX kernel needs the panel of A in another order: a[word / 16][MR][16], which is 16 words of the first row, 16 of
   the second, and so on, then the next 16 words of each row. So one instruction loads a tile register, 16 rows of 16
   words, from 1,024 adjacent bytes.

   matmul_kernel_for(dtype) chooses one. The loops of matmul.h call it through its entry `run`, and learn about the
   processor only from the other entries of MatmulKernel. Vectors are the vector types of GCC and clang, which compile
   for any processor. To add an instruction set, give its vector length and tile shape below and, if it multiplies pairs
   of bf16, its matmul_dot_pairs. The compiler must be allowed to fuse multiplications with additions (-std=gnu11, not
   c11, or -ffp-contract=fast): only then does the processor reach its full rate. */
#ifndef GPT_MATH_MATMUL_ISA_H
#define GPT_MATH_MATMUL_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "../base/processor.h"
#include "array.h"

#ifdef __clang__ /* without optimisation clang warns that loops were not unrolled */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

static inline int64_t matmul_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t matmul_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t matmul_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---------------------------------------------------------------------------------------------------------
   Vectors. LANES floats make a vector; a tile has MR rows of NV vectors, as many as the registers can hold. */

#if defined __AVX512F__ /* 32 registers: 28 for sums, 2 for B, 1 for A */
#define MATMUL_LANES 16
#define MATMUL_MR 14
#define MATMUL_NV 2
#elif defined __AVX__ /* 16 registers: 12 for sums, 2 for B, 1 for A */
#define MATMUL_LANES 8
#define MATMUL_MR 6
#define MATMUL_NV 2
#elif defined __aarch64__ /* 32 registers: 24 for sums, 3 for B, 2 for A */
#define MATMUL_LANES 4
#define MATMUL_MR 8
#define MATMUL_NV 3
#else /* any other processor, x86-64 with SSE2 among them: 16 registers */
#define MATMUL_LANES 4
#define MATMUL_MR 6
#define MATMUL_NV 2
#endif
#define MATMUL_NR (MATMUL_NV * MATMUL_LANES)

typedef float MatmulVector __attribute__((vector_size(4 * MATMUL_LANES), may_alias));
typedef uint32_t MatmulVectorBits __attribute__((vector_size(4 * MATMUL_LANES), may_alias));
typedef float MatmulUnalignedVector __attribute__((vector_size(4 * MATMUL_LANES), may_alias, aligned(2)));

#define MATMUL_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define MATMUL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MATMUL_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined __clang__ || __GNUC__ >= 12
#define MATMUL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MATMUL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (MatmulVectorBits){__VA_ARGS__})
#endif

/* MATMUL_SHUFFLE(a, b, ...) above makes a vector from lanes of a and b, whose numbers it takes as constants, one for
   each lane of the result: 0 to LANES - 1 are the lanes of a, LANES to 2 LANES - 1 those of b. MATMUL_EACH(f, x) writes
   such a list of constants: f(0, x), f(1, x), ..., f(LANES - 1, x). */
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

/* A vector with x in every lane. */
#define MATMUL_SAME(lane, x) x
MATMUL_INLINE MatmulVector matmul_splat(float x) { return (MatmulVector){MATMUL_EACH(MATMUL_SAME, x)}; }

/* The n elements of x from number `at` on, as floats, one in each lane. If n is below LANES, the other lanes are 0 and
   nothing is read for them; if it is above, only LANES elements are read. */
MATMUL_INLINE MatmulVector matmul_load(Array x, int64_t at, int64_t n) {
    typedef uint16_t Bf16Vector __attribute__((vector_size(2 * MATMUL_LANES), may_alias, aligned(2)));
    if (n <= 0) return matmul_splat(0);
    if (x.dtype == DTYPE_BF16) {
        Bf16Vector values = {0};
        const uint16_t *from = (const uint16_t *)x.data + at;
        if (n >= MATMUL_LANES)
            values = *(const Bf16Vector *)from;
        else
            memcpy(&values, from, (size_t)n * sizeof *from);
        return (MatmulVector)(__builtin_convertvector(values, MatmulVectorBits) << 16);
    }
    const float *from = (const float *)x.data + at;
    if (n >= MATMUL_LANES) return *(const MatmulUnalignedVector *)from;
    MatmulVector lanes = matmul_splat(0);
    memcpy(&lanes, from, (size_t)n * sizeof *from);
    return lanes;
}

/* matmul_transpose transposes the LANES vectors x[LANES], taken as the rows of a square matrix: lane l of row i becomes
   lane i of row l. It does so in one step for each bit s = 1, 2, 4, ... of the row and lane numbers. Step s works on
   every pair of rows i and i + s where bit s of i is 0: it exchanges lane l + s of row i with lane l of row i + s, for
   every l whose bit s is 0. After all steps every element has the bits of its row and lane numbers exchanged.
   MATMUL_LOW and MATMUL_HIGH give the shuffles that make the new row i and the new row i + s. */
#define MATMUL_LOW(lane, s) ((lane) & (s) ? MATMUL_LANES + (lane) - (s) : (lane))
#define MATMUL_HIGH(lane, s) ((lane) & (s) ? MATMUL_LANES + (lane) : (lane) + (s))
#define MATMUL_EXCHANGE(s)                                                                                   \
    MATMUL_UNROLL                                                                                            \
    for (int i = 0; i < MATMUL_LANES; i++)                                                                   \
        if (!(i & (s))) {                                                                                    \
            MatmulVector low = MATMUL_SHUFFLE(x[i], x[i + (s)], MATMUL_EACH(MATMUL_LOW, s));                 \
            x[i + (s)] = MATMUL_SHUFFLE(x[i], x[i + (s)], MATMUL_EACH(MATMUL_HIGH, s));                      \
            x[i] = low;                                                                                      \
        }
MATMUL_INLINE void matmul_transpose(MatmulVector *x) {
    MATMUL_EXCHANGE(1)
    MATMUL_EXCHANGE(2)
#if MATMUL_LANES >= 8
    MATMUL_EXCHANGE(4)
#endif
#if MATMUL_LANES >= 16
    MATMUL_EXCHANGE(8)
#endif
}

/* ---------------------------------------------------------------------------------------------------------
   bf16 in vectors. */

/* Each float rounded to bf16, in the upper half of its lane; the lower half is 0. The bits are those of array.h's
   bf16_from_float. */
MATMUL_INLINE MatmulVectorBits matmul_round_to_bf16(MatmulVector x) {
    MatmulVectorBits bits = (MatmulVectorBits)x;
    MatmulVectorBits rounded = bits + 0x7fff + (bits >> 16 & 1);
    MatmulVectorBits is_nan = (MatmulVectorBits)((bits & 0x7fffffff) > 0x7f800000);
    return ((is_nan & (bits | 0x400000)) | (~is_nan & rounded)) & 0xffff0000;
}

/* Packing makes words of the format MATMUL_BF16_PAIRS from floats in two ways:
   matmul_pairs_of_two_rows(even, odd)   the vectors hold two neighbouring k: word l is the pair even[l], odd[l]
   matmul_pairs_in_a_row(x, next)        the vectors hold 2 LANES consecutive k, x and then next: word l is the pair of
                                         elements 2l and 2l + 1
   matmul_dot_pairs(sum, a, b) is sum + a.even * b.even + a.odd * b.odd in every lane. */
#if defined __AVX512BF16__
#include <immintrin.h>
#define MATMUL_HAS_PAIRS 1
MATMUL_INLINE MatmulVector matmul_pairs_of_two_rows(MatmulVector even, MatmulVector odd) {
    const MatmulVectorBits order = (MatmulVectorBits){
        0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005, 0x00160006, 0x00170007,
        0x00180008, 0x00190009, 0x001a000a, 0x001b000b, 0x001c000c, 0x001d000d, 0x001e000e, 0x001f000f};
    return (MatmulVector)_mm512_permutexvar_epi16((__m512i)order,
                                                  (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
}
MATMUL_INLINE MatmulVector matmul_pairs_in_a_row(MatmulVector x, MatmulVector next) {
    return (MatmulVector)_mm512_cvtne2ps_pbh((__m512)next, (__m512)x);
}
MATMUL_INLINE MatmulVector matmul_dot_pairs(MatmulVector sum, MatmulVector a, MatmulVector b) {
    return (MatmulVector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#else
#define MATMUL_EVEN(lane, x) (2 * (lane))
#define MATMUL_ODD(lane, x) (2 * (lane) + 1)
MATMUL_INLINE MatmulVector matmul_pairs_of_two_rows(MatmulVector even, MatmulVector odd) {
    return (MatmulVector)(matmul_round_to_bf16(even) >> 16 | matmul_round_to_bf16(odd));
}
MATMUL_INLINE MatmulVector matmul_pairs_in_a_row(MatmulVector x, MatmulVector next) {
    return matmul_pairs_of_two_rows(MATMUL_SHUFFLE(x, next, MATMUL_EACH(MATMUL_EVEN, 0)),
                                    MATMUL_SHUFFLE(x, next, MATMUL_EACH(MATMUL_ODD, 0)));
}
#if defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC && !defined __ARM_BIG_ENDIAN
#include <arm_neon.h>
#define MATMUL_HAS_PAIRS 1
MATMUL_INLINE MatmulVector matmul_dot_pairs(MatmulVector sum, MatmulVector a, MatmulVector b) {
    return (MatmulVector)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)a, (bfloat16x8_t)b);
}
#else
#define MATMUL_HAS_PAIRS 0
#endif
#endif

/* ---------------------------------------------------------------------------------------------------------
   Micro-kernels. */

typedef enum { MATMUL_FP32, MATMUL_FP32_ROUNDED, MATMUL_BF16_PAIRS } MatmulFormat;

/* While it computes, a micro-kernel prefetches what will be needed after its tile. Each time it has gone through
   MATMUL_PREFETCH_WORDS words of its panels, it prefetches the next `lines` cache lines, of 16 floats each; the first
   of all begins at `next`. */
enum { MATMUL_PREFETCH_WORDS = 16 };
typedef struct {
    const float *next;
    int lines;
} MatmulPrefetch;

/* Every micro-kernel computes out = addend + panel of A . panel of B, over `words` words; addend NULL stands for zeros.
   Only the first `rows` rows of the tile (1 to MR) are read from addend and written to out, with NR columns each; a
   kernel with whole_tiles reads and writes all MR. The rows of addend and out are `stride` floats apart.
   matmul_micro_kernel, at the end of this section, calls the one that a product uses. */

/* What the loops and the packing must know of a micro-kernel. */
typedef struct {
    MatmulFormat format;
    int MR;             /* rows of a tile and of a panel of A; tiles of all kernels have NR columns */
    int words_multiple; /* a panel is filled up with zeros to a number of words that is a multiple of this */
    bool whole_tiles;   /* all MR rows of a tile are read and written, whatever `rows` is */
    bool is_amx;        /* panels of A are in AMX's order */
} MatmulKernel;

MATMUL_INLINE MatmulVector matmul_multiply_add(const bool pairs, MatmulVector sum, MatmulVector a,
                                               MatmulVector b) {
#if MATMUL_HAS_PAIRS
    if (pairs) return matmul_dot_pairs(sum, a, b);
#else
    (void)pairs;
#endif
    return sum + a * b;
}

/* The vector kernel for a tile of `rows` rows. The sums begin at 0 and the addend is added at the end, all in float32.
   It computes `computed_rows` rows, at least `rows` and at most MR, of a panel of A of `width` rows. These two numbers
   and `pairs` are constants where it is called, so that the compiler keeps the sums in registers. */
MATMUL_INLINE void matmul_vector_kernel(const int computed_rows, const int width, const bool pairs, int rows,
                                        int64_t words, const float *a, const float *b,
                                        MatmulPrefetch prefetch, float *out, int64_t stride,
                                        const float *addend) {
    MatmulVector sum[MATMUL_MR][MATMUL_NV];
    MATMUL_UNROLL
    for (int i = 0; i < computed_rows; i++) {
        MATMUL_UNROLL
        for (int j = 0; j < MATMUL_NV; j++) sum[i][j] = matmul_splat(0);
    }
    for (int64_t word = 0, end = 0; word < words;) {
        /* the rows of addend and out, which the end of this function reads and writes, are prefetched one by one */
        const int64_t row = end / MATMUL_PREFETCH_WORDS;
        if (row < rows)
            for (int j = 0; j < MATMUL_NR; j += 16) {
                if (addend) __builtin_prefetch(addend + row * stride + j);
                __builtin_prefetch(out + row * stride + j, 1);
            }
        for (int l = 0; l < prefetch.lines; l++, prefetch.next += 16) __builtin_prefetch(prefetch.next, 0, 2);
        for (end = matmul_min(end + MATMUL_PREFETCH_WORDS, words); word < end;
             word++, a += width, b += MATMUL_NR) {
            MatmulVector from_b[MATMUL_NV];
            MATMUL_UNROLL
            for (int j = 0; j < MATMUL_NV; j++) from_b[j] = *(const MatmulVector *)(b + j * MATMUL_LANES);
            MATMUL_UNROLL
            for (int i = 0; i < computed_rows; i++) {
                MatmulVector from_a = matmul_splat(a[i]);
                MATMUL_UNROLL
                for (int j = 0; j < MATMUL_NV; j++)
                    sum[i][j] = matmul_multiply_add(pairs, sum[i][j], from_a, from_b[j]);
            }
        }
    }
    MATMUL_UNROLL
    for (int i = 0; i < computed_rows; i++) {
        if (i < rows) {
            MATMUL_UNROLL
            for (int j = 0; j < MATMUL_NV; j++) {
                const int64_t at = i * stride + j * MATMUL_LANES;
                if (addend) sum[i][j] += *(const MatmulUnalignedVector *)(addend + at);
                *(MatmulUnalignedVector *)(out + at) = sum[i][j];
            }
        }
    }
}

/* How many rows the vector kernel computes for a tile of `rows` rows. For a tile of few rows, as when a single token is
   sampled, computing all MR would waste time. So it is the smallest sufficient number among 1, 2, 4, 8 and MR. */
static inline int matmul_computed_rows(int rows) {
    const int power = rows <= 1 ? 1 : rows <= 2 ? 2 : rows <= 4 ? 4 : 8;
    return rows <= power && power < MATMUL_MR ? power : MATMUL_MR;
}

/* Computes a tile of `rows` rows. The panel of A has MR rows or, if it is narrow, matmul_computed_rows(rows). */
MATMUL_INLINE void matmul_vector_kernel_for_rows(const bool narrow, const bool pairs, int rows, int64_t words,
                                                 const float *a, const float *b, MatmulPrefetch prefetch,
                                                 float *out, int64_t stride, const float *addend) {
#define MATMUL_KERNEL_CASE(n)                                                                                \
    case n:                                                                                                  \
        matmul_vector_kernel(n, narrow ? n : MATMUL_MR, pairs, rows, words, a, b, prefetch, out, stride,     \
                             addend);                                                                        \
        return;
    switch (matmul_computed_rows(rows)) {
        MATMUL_KERNEL_CASE(1)
        MATMUL_KERNEL_CASE(2)
        MATMUL_KERNEL_CASE(4)
#if MATMUL_MR > 8
        MATMUL_KERNEL_CASE(8)
#endif
        MATMUL_KERNEL_CASE(MATMUL_MR)
    }
#undef MATMUL_KERNEL_CASE
}

static const MatmulKernel matmul_kernel_fp32 = {MATMUL_FP32, MATMUL_MR, 1, false, false};
static const MatmulKernel matmul_kernel_fp32_rounded = {MATMUL_FP32_ROUNDED, MATMUL_MR, 1, false, false};

/* The best kernel for pairs of bf16 that the compiler may use, and MATMUL_PAIRS_MR, the rows of its tiles. */
#if HAVE_AMX && MATMUL_HAS_PAIRS && MATMUL_LANES == 16
#define MATMUL_HAS_AMX 1
enum { MATMUL_PAIRS_MR = 32 };

/* The 32 x 32 sums are in the tile registers 0 to 3, of 16 x 16 each: 0 and 1 hold the upper half, 2 and 3 the lower.
   Registers 4 and 5 hold words of A, 6 and 7 words of B. All 32 rows are computed, whatever `rows` is. */
static inline void matmul_run_amx(int rows, int64_t words, const float *a, const float *b,
                                  MatmulPrefetch prefetch, float *out, int64_t stride, const float *addend) {
    const size_t row = (size_t)stride * sizeof *out;
    (void)rows;
    __asm__ volatile("" ::: "memory"); /* the intrinsics do not tell the compiler that they read memory */
    if (addend) {
        _tile_loadd(0, addend, row);
        _tile_loadd(1, addend + 16, row);
        _tile_loadd(2, addend + 16 * stride, row);
        _tile_loadd(3, addend + 16 * stride + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t word = 0; word < words; word += 16, a += 16 * MATMUL_PAIRS_MR, b += 16 * MATMUL_NR) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, MATMUL_NR * sizeof *b);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + 16, MATMUL_NR * sizeof *b);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * 16, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        for (int l = 0; l < prefetch.lines; l++, prefetch.next += 16) __builtin_prefetch(prefetch.next, 0, 2);
    }
    _tile_stored(0, out, row);
    _tile_stored(1, out + 16, row);
    _tile_stored(2, out + 16 * stride, row);
    _tile_stored(3, out + 16 * stride + 16, row);
}
static const MatmulKernel matmul_kernel_pairs = {MATMUL_BF16_PAIRS, MATMUL_PAIRS_MR, 16, true, true};
#else
#define MATMUL_HAS_AMX 0
enum { MATMUL_PAIRS_MR = MATMUL_MR };
#if MATMUL_HAS_PAIRS
static const MatmulKernel matmul_kernel_pairs = {MATMUL_BF16_PAIRS, MATMUL_MR, 1, false, false};
#endif
#endif

/* Runs the micro-kernel of a product. The kernels are called by name and not through a pointer, so that the compiler
   makes them a part of the loops around them; with a pointer a step of the demo in bf16 takes one per cent longer. */
MATMUL_INLINE void matmul_micro_kernel(const MatmulKernel *kernel, int rows, int64_t words, const float *a,
                                       const float *b, MatmulPrefetch prefetch, float *out, int64_t stride,
                                       const float *addend) {
#if MATMUL_HAS_AMX
    if (kernel->is_amx) {
        matmul_run_amx(rows, words, a, b, prefetch, out, stride, addend);
        return;
    }
#endif
    if (kernel->format == MATMUL_BF16_PAIRS)
        matmul_vector_kernel_for_rows(false, true, rows, words, a, b, prefetch, out, stride, addend);
    else
        matmul_vector_kernel_for_rows(false, false, rows, words, a, b, prefetch, out, stride, addend);
}

/* The same for a narrow panel of A, by vectors: for a product whose output has no more rows than one panel. */
MATMUL_INLINE void matmul_narrow_kernel(const MatmulKernel *kernel, int rows, int64_t words, const float *a,
                                        const float *b, float *out, int64_t stride, const float *addend) {
    const MatmulPrefetch none = {NULL, 0};
    if (kernel->format == MATMUL_BF16_PAIRS)
        matmul_vector_kernel_for_rows(true, true, rows, words, a, b, none, out, stride, addend);
    else
        matmul_vector_kernel_for_rows(true, false, rows, words, a, b, none, out, stride, addend);
}

/* The kernel for products in this dtype. A program must ask Linux for permission to use AMX. Where it is refused, the
   fp32_rounded kernel is used: processors with AMX multiply vectors of floats as fast as vectors of bf16 pairs, so a
   kernel for these would gain nothing. */
static inline const MatmulKernel *matmul_kernel_for(Dtype dtype) {
    if (dtype != DTYPE_BF16) return &matmul_kernel_fp32;
#if MATMUL_HAS_PAIRS
    if (!MATMUL_HAS_AMX || amx_allowed()) return &matmul_kernel_pairs;
#endif
    return &matmul_kernel_fp32_rounded;
}

/* How large the blocks of matmul.h may be, for the usual cache sizes of processors with these instructions. */
enum {
    MATMUL_KC_WORDS = MATMUL_HAS_AMX ? 1024 : 512, /* words of a panel */
    /* floats of a thread's private block, which is to stay in the second-level cache */
    MATMUL_PRIVATE_FLOATS = (MATMUL_HAS_AMX ? 128 : 100) << 10,
    /* floats of the shared block, which is to stay in the last-level cache */
    MATMUL_SHARED_FLOATS = 2 << 20
};

/* What each thread does before its first and after its last micro-kernel. */
static inline void matmul_kernel_begin(const MatmulKernel *kernel) {
    if (kernel->is_amx) amx_begin();
}
static inline void matmul_kernel_end(const MatmulKernel *kernel) {
    if (kernel->is_amx) amx_end();
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif
#endif
