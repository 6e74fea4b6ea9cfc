/* matmul_pack.h: copies parts of a matrix into panels, in the order and format that a micro-kernel reads
   (matmul_isa.h).

   Packing serves three purposes. The micro-kernel reads memory from front to back, whatever the layout of the matrix
   is. A panel at the edge of the matrix is filled up with zeros, so that the micro-kernel needs no special cases. And
   bf16 products round their operands here, once, instead of at every use.

   matmul_panel_words(kernel, depth)                              how many words a panel of `depth` elements of k has
   matmul_panel_floats(kernel, depth, width)                      how many floats to reserve for such a panel of `width`
                                                                  rows or columns; depth is a multiple of LANES words
   matmul_pack_a(kernel, &operand, region, to, panel_floats)      packs panels of kernel->MR rows of A
   matmul_pack_b(kernel, &operand, region, to, panel_floats)      packs panels of MATMUL_NR columns of B
   matmul_pack_narrow(kernel, &operand, width, region, to, panel_floats)
                                                                  packs panels of `width` rows of A, at most
                                                                  kernel->MR, for matmul_narrow_kernel */
#ifndef GPT_MATH_MATMUL_PACK_H
#define GPT_MATH_MATMUL_PACK_H

#include "matmul_isa.h"

#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

/* An operand of out (M, N) = A (M, K) . B (K, N), as it is in memory. Its element (k, i), where i is a row of A or a
   column of B, is values[k + i * stride] when k_contiguous, else values[k * stride + i]. */
typedef struct {
    Array values;
    int64_t stride;
    bool k_contiguous;
} MatmulOperand;

/* What one call packs: the elements k to k + depth - 1 of the rows (of A; the columns, of B) i, i + 1, ..., into
   `panels` panels. The operand has `size` rows from i on; where the last panel would take more, it is filled up with
   zeros. */
typedef struct {
    int64_t k, depth, i, size, panels;
} MatmulRegion;

MATMUL_INLINE int matmul_k_per_word(MatmulFormat format) { return format == MATMUL_BF16_PAIRS ? 2 : 1; }

static inline int64_t matmul_panel_words(const MatmulKernel *kernel, int64_t depth) {
    const int64_t words = matmul_ceil_div(depth, matmul_k_per_word(kernel->format));
    return matmul_ceil_div(words, kernel->words_multiple) * kernel->words_multiple;
}

/* The functions below write whole vectors of LANES floats, also where the width of a panel is not a multiple of LANES.
   The last vector of a word then overwrites the beginning of the next word, so the order of writing matters: the groups
   of LANES rows of a panel are written from right to left, and the words from first to last. Thus what was overwritten
   is written again afterwards. Since no word follows the last one, each panel ends with LANES spare floats. */
static inline int64_t matmul_panel_floats(const MatmulKernel *kernel, int64_t depth, int64_t width) {
    return depth / matmul_k_per_word(kernel->format) * width + MATMUL_LANES;
}

/* The next three functions have the arguments source (the operand's dtype), format, width and amx, which are constants
   where they are called, so that the compiler removes the branches on them. */

/* Packs a region of an operand whose k is contiguous into panels of `width` rows, panel_floats apart. A vector is
   loaded along k, so it holds words of one row. LANES such vectors, of neighbouring rows, are transposed into the order
   of the panel, [word][width]. AMX's order, [word / 16][width][16], has the words of a row side by side, so nothing is
   transposed. */
MATMUL_INLINE void matmul_pack_along_k(const MatmulOperand *x, const Dtype source, const MatmulFormat format,
                                       const int width, const bool amx, MatmulRegion r, float *to,
                                       int64_t panel_floats) {
    const int k_per_word = matmul_k_per_word(format), size = source == DTYPE_BF16 ? 2 : 4;
    const bool pairs = format == MATMUL_BF16_PAIRS;
    const Array values = {x->values.data, source};
    for (; r.panels > 0; r.panels--, r.size -= width, r.i += width, to += panel_floats)
        for (int group = (width - 1) / MATMUL_LANES * MATMUL_LANES; group >= 0; group -= MATMUL_LANES)
            for (int64_t d = 0; d < r.depth; d += k_per_word * MATMUL_LANES) {
                MatmulVector rows[MATMUL_LANES];
                const int64_t left = r.depth - d, valid_rows = matmul_min(r.size, width) - group;
                MATMUL_UNROLL
                for (int l = 0; l < MATMUL_LANES; l++) {
                    const int64_t at = r.k + d + (r.i + group + l) * x->stride;
                    if (l < valid_rows)
                        for (int line = 0; line < (source == DTYPE_BF16 ? 1 : k_per_word); line++)
                            __builtin_prefetch((const char *)values.data + at * size + 256 + line * 64);
                    if (l >= valid_rows)
                        rows[l] = matmul_splat(0);
                    else if (pairs && source == DTYPE_BF16 && left >= 2 * MATMUL_LANES)
                        rows[l] = *(const MatmulUnalignedVector *)((const uint16_t *)values.data + at);
                    else if (pairs)
                        rows[l] = matmul_pairs_in_a_row(
                            matmul_load(values, at, left),
                            matmul_load(values, at + MATMUL_LANES, left - MATMUL_LANES));
                    else
                        rows[l] = matmul_load(values, at, left);
                    if (format == MATMUL_FP32_ROUNDED) rows[l] = (MatmulVector)matmul_round_to_bf16(rows[l]);
                }
                if (!amx) matmul_transpose(rows);
                float *first = to + d / k_per_word * width + group * (amx ? MATMUL_LANES : 1);
                MATMUL_UNROLL
                for (int l = 0; l < MATMUL_LANES; l++)
                    *(MatmulUnalignedVector *)(first + l * (amx ? MATMUL_LANES : width)) = rows[l];
            }
}

/* Brings a panel from the order [word][width] into AMX's, [word / 16][width][16], in place. */
MATMUL_INLINE void matmul_reorder_for_amx(float *panel, int64_t words, const int width) {
    for (float *piece = panel; piece < panel + words * width; piece += MATMUL_LANES * width) {
        MatmulVector rows[MATMUL_PAIRS_MR / MATMUL_LANES + 1][MATMUL_LANES];
        for (int group = 0; group < width / MATMUL_LANES; group++)
            for (int l = 0; l < MATMUL_LANES; l++)
                rows[group][l] = *(const MatmulVector *)(piece + l * width + group * MATMUL_LANES);
        for (int group = 0; group < width / MATMUL_LANES; group++) {
            matmul_transpose(rows[group]);
            for (int l = 0; l < MATMUL_LANES; l++)
                *(MatmulVector *)(piece + (group * MATMUL_LANES + l) * MATMUL_LANES) = rows[group][l];
        }
    }
}

/* The same for an operand whose k is not contiguous. A vector is loaded along the rows, so it holds one k of
   neighbouring rows, which is the order of the panel. Consecutive k lie far apart in memory, and there processors
   prefetch little by themselves; so when this function packs element k of the rows, it prefetches element k + AHEAD.
   `words` is how many words each panel has, zeros included. */
MATMUL_INLINE void matmul_pack_across_k(const MatmulOperand *x, const Dtype source, const MatmulFormat format,
                                        const int width, const bool amx, MatmulRegion r, float *to,
                                        int64_t panel_floats, int64_t words) {
    const int k_per_word = matmul_k_per_word(format);
    enum { STEP = 2, AHEAD = 24 };
    const int64_t size = source == DTYPE_BF16 ? 2 : 4, wide = matmul_min(r.size, r.panels * width);
    const int64_t padded_depth = words * k_per_word;
    const Array values = {x->values.data, source};
    float *const first_panel = to;
    for (int64_t d = 0; d < padded_depth; d += STEP, to += STEP / k_per_word * width) {
        const int64_t k = r.k + d, left_k = matmul_min(STEP, padded_depth - d);
        for (int64_t e = AHEAD; e < matmul_min(AHEAD + STEP, r.depth - d); e++) {
            const char *from = (const char *)values.data + ((k + e) * x->stride + r.i) * size;
            for (int64_t at = 0; at < wide * size; at += 64) __builtin_prefetch(from + at);
        }
        float *panel = to;
        for (int64_t done = 0; done < wide; done += width, panel += panel_floats)
            for (int64_t e = 0; e < left_k; e += k_per_word)
                for (int group = (width - 1) / MATMUL_LANES * MATMUL_LANES; group >= 0;
                     group -= MATMUL_LANES) {
                    const int64_t at = (k + e) * x->stride + r.i + done + group, left = r.size - done - group;
                    MatmulVector row = matmul_load(values, at, d + e < r.depth ? left : 0), odd;
                    if (format == MATMUL_BF16_PAIRS) {
                        odd = matmul_load(values, at + x->stride, d + e + 1 < r.depth ? left : 0);
                        row = source == DTYPE_BF16
                                  ? (MatmulVector)((MatmulVectorBits)row >> 16 | (MatmulVectorBits)odd)
                                  : matmul_pairs_of_two_rows(row, odd);
                    }
                    if (format == MATMUL_FP32_ROUNDED) row = (MatmulVector)matmul_round_to_bf16(row);
                    *(MatmulUnalignedVector *)(panel + e / k_per_word * width + group) = row;
                }
    }
    for (int64_t p = 0; p < r.panels && amx; p++)
        matmul_reorder_for_amx(first_panel + p * panel_floats, words, width);
}

/* Calls matmul_pack_along_k or matmul_pack_across_k with its constants. Where the kernel wants MATMUL_FP32_ROUNDED but
   the values are stored as bf16, nothing needs rounding, so they are packed as MATMUL_FP32. */
MATMUL_INLINE void matmul_pack(const MatmulKernel *kernel, const MatmulOperand *x, const int width,
                               const bool amx, MatmulRegion region, float *to, int64_t panel_floats) {
    const bool is_bf16 = x->values.dtype == DTYPE_BF16;
    const MatmulFormat format =
        is_bf16 && kernel->format == MATMUL_FP32_ROUNDED ? MATMUL_FP32 : kernel->format;
    const int64_t words = matmul_panel_words(kernel, region.depth);
#define MATMUL_PACK_CASE(source, f)                                                                          \
    if (is_bf16 == ((source) == DTYPE_BF16) && format == (f)) {                                              \
        if (x->k_contiguous)                                                                                 \
            matmul_pack_along_k(x, source, f, width, amx, region, to, panel_floats);                         \
        else                                                                                                 \
            matmul_pack_across_k(x, source, f, width, amx, region, to, panel_floats, words);                 \
    }
    MATMUL_PACK_CASE(DTYPE_FP32, MATMUL_FP32)
    MATMUL_PACK_CASE(DTYPE_BF16, MATMUL_FP32)
#if MATMUL_HAS_PAIRS
    MATMUL_PACK_CASE(DTYPE_FP32, MATMUL_BF16_PAIRS)
    MATMUL_PACK_CASE(DTYPE_BF16, MATMUL_BF16_PAIRS)
#endif
#if !MATMUL_HAS_PAIRS || MATMUL_HAS_AMX
    MATMUL_PACK_CASE(DTYPE_FP32, MATMUL_FP32_ROUNDED)
#endif
}

static inline void matmul_pack_a(const MatmulKernel *kernel, const MatmulOperand *x, MatmulRegion region,
                                 float *to, int64_t panel_floats) {
    if (MATMUL_HAS_AMX && kernel->is_amx)
        matmul_pack(kernel, x, MATMUL_PAIRS_MR, true, region, to, panel_floats);
    else
        matmul_pack(kernel, x, MATMUL_MR, false, region, to, panel_floats);
}

static inline void matmul_pack_b(const MatmulKernel *kernel, const MatmulOperand *x, MatmulRegion region,
                                 float *to, int64_t panel_floats) {
    matmul_pack(kernel, x, MATMUL_NR, false, region, to, panel_floats);
}

static inline void matmul_pack_narrow(const MatmulKernel *kernel, const MatmulOperand *x, int width,
                                      MatmulRegion region, float *to, int64_t panel_floats) {
    matmul_pack(kernel, x, width, false, region, to, panel_floats);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif
#endif
