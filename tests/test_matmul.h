/* test_matmul.h: tests of the three products of matrices: against float64 at every kind of edge and in both
   precisions; the same bits for any number of threads; rounding to bf16; packed weights, bf16 inputs, and functions
   that finish a tile. */
#ifndef TESTS_TEST_MATMUL_H
#define TESTS_TEST_MATMUL_H

#include <sys/mman.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include "harness.h"
#include "../gpt/math/matmul.h"

/* matmul_naive's result in memory of its own, which the caller frees. */
static inline double *matmul_test_naive(const float *addend, const float *a, int64_t a_i, int64_t a_k,
                                        const float *b, int64_t b_k, int64_t b_j, int64_t M, int64_t N,
                                        int64_t K, Dtype dtype) {
    double *want = check_calloc((size_t)(M * N) * sizeof *want);
    matmul_naive(want, addend, a, a_i, a_k, b, b_k, b_j, M, N, K, dtype);
    return want;
}

enum { MATMUL_GUARD = 64 };

/* Room for n floats with marked floats before and after, which matmul_test_free checks. */
static inline float *matmul_test_output(int64_t n, const float *start) {
    float *room = check_calloc((size_t)(n + 2 * MATMUL_GUARD) * sizeof *room);
    for (int64_t i = 0; i < n + 2 * MATMUL_GUARD; i++) room[i] = 12345;
    if (start) memcpy(room + MATMUL_GUARD, start, (size_t)n * sizeof *room);
    return room + MATMUL_GUARD;
}

static inline void matmul_test_free(float *output, int64_t n) {
    for (int64_t i = 1; i <= MATMUL_GUARD; i++)
        CHECK(output[-i] == 12345 && output[n + i - 1] == 12345, "written %d floats outside of the output",
              (int)i);
    free(output - MATMUL_GUARD);
}

/* Checks the three products of one shape, each with every addend that it may have. About the bound: operands are
   rounded in the same way in both, and products of rounded operands are exact, so only the order and the rounding of
   float32 sums differ. */
static inline void matmul_test_shape(int64_t N, int64_t C, int64_t OC, Dtype dtype) {
    char what[128];
    const double bound = 1e-10;
    float *inp = test_normal((size_t)(N * C), 1, 1), *weight = test_normal((size_t)(OC * C), 1, 2);
    float *dout = test_normal((size_t)(N * OC), 1, 3);
    for (int addend = 0; addend < 3; addend++) { /* none, another matrix, the output itself */
        float *out = matmul_test_output(N * OC, dout);
        double *want = matmul_test_naive(addend ? dout : NULL, inp, C, 1, weight, 1, C, N, OC, C, dtype);
        matmul_forward(out, addend == 2 ? out : addend ? dout : NULL, inp, weight, N, C, OC, dtype);
        snprintf(what, sizeof what, "forward N %d C %d OC %d dtype %d addend %d", (int)N, (int)C, (int)OC,
                 dtype, addend);
        CHECK_NMSE(out, want, (size_t)(N * OC), bound, what);
        matmul_test_free(out, N * OC);
        free(want);

        float *dinp = matmul_test_output(N * C, inp);
        want = matmul_test_naive(addend ? inp : NULL, dout, OC, 1, weight, C, 1, N, C, OC, dtype);
        matmul_backward_input(dinp, addend == 2 ? dinp : addend ? inp : NULL, dout, weight, N, C, OC, dtype);
        memcpy(what, "backward", 8);
        CHECK_NMSE(dinp, want, (size_t)(N * C), bound, what);
        matmul_test_free(dinp, N * C);
        free(want);
    }
    float *dweight = matmul_test_output(OC * C, weight);
    double *want = matmul_test_naive(weight, dout, 1, OC, inp, C, 1, OC, C, N, dtype);
    matmul_backward_weight(dweight, dout, inp, N, C, OC, dtype);
    snprintf(what, sizeof what, "weight gradient N %d C %d OC %d dtype %d", (int)N, (int)C, (int)OC, dtype);
    CHECK_NMSE(dweight, want, (size_t)(OC * C), bound, what);
    matmul_test_free(dweight, OC * C);
    free(want), free(inp), free(weight), free(dout);
}

/* A wrong product of matrices would make every layer wrong. */
static void test_matmul_matches_float64(void) {
    static const int shapes[][3] = {{1, 1, 1},    {1, 1, 40},    {3, 5, 7},      {1, 100, 33},
                                    {65, 33, 17}, {57, 70, 129}, {130, 256, 70}, {15, 31, 1},
                                    {2, 1100, 3}, {14, 64, 32},  {28, 1, 97},    {1030, 8, 5},
                                    {7, 2, 1100}, {9, 2100, 40}, {200, 64, 300}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        matmul_test_shape(shapes[i][0], shapes[i][1], shapes[i][2], DTYPE_FP32);
        matmul_test_shape(shapes[i][0], shapes[i][1], shapes[i][2], DTYPE_BF16);
    }
}

/* Every height and width of the last tile, with odd and even K: a kernel that reads or writes beyond the edge of a
   matrix would be found only by users with such sizes. */
static void test_matmul_every_edge(void) {
    static const int depths[] = {1, 2, 3, MATMUL_LANES + 1, 2 * MATMUL_LANES + 3};
    for (int M = 1; M <= 2 * MATMUL_MR + 1; M++)
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            int N = (M * 7) % (2 * MATMUL_NR) + 1;
            matmul_test_shape(M, depths[d], N, d % 2 ? DTYPE_FP32 : DTYPE_BF16);
            matmul_test_shape(M, N, depths[d], d % 2 ? DTYPE_BF16 : DTYPE_FP32);
        }
}

/* Without rows nothing may be written. Without an inner dimension the sums are empty, which is 0. */
static void test_matmul_empty(void) {
    float x[6] = {1, 2, 3, 4, 5, 6}, out[6] = {7, 7, 7, 7, 7, 7};
    for (int p = 0; p < 2; p++) {
        const Dtype dtype = p ? DTYPE_BF16 : DTYPE_FP32;
        matmul_forward(out, NULL, x, x, 0, 2, 3, dtype);
        matmul_backward_input(out, NULL, x, x, 0, 2, 3, dtype);
        matmul_backward_weight(out, x, x, 0, 2, 3, dtype);
        for (int i = 0; i < 6; i++) CHECK(out[i] == 7, "out[%d] is %g", i, (double)out[i]);
        matmul_forward(out, x, x, x, 2, 0, 3, dtype);
        for (int i = 0; i < 6; i++) CHECK(out[i] == x[i], "out[%d] is %g", i, (double)out[i]), out[i] = 7;
    }
}

/* Matrices with more panels than one shared block holds, and with several blocks of k, compared at scattered
   elements: small tests never reach these loops. */
static void test_matmul_large(void) {
    static const int64_t shapes[][3] = {{4500, 3, 4600}, {300, 2500, 290}, {40, 5, 9000}};
    for (int s = 0; s < 3; s++)
        for (int p = 0; p < 2; p++) {
            const int64_t N = shapes[s][0], C = shapes[s][1], OC = shapes[s][2];
            const Dtype dtype = p ? DTYPE_BF16 : DTYPE_FP32;
            float *inp = test_normal((size_t)(N * C), 1, 4), *weight = test_normal((size_t)(OC * C), 1, 5);
            float *out = check_calloc((size_t)(N * OC) * sizeof *out);
            matmul_forward(out, NULL, inp, weight, N, C, OC, dtype);
            float got[500];
            double want[500];
            for (int e = 0; e < 500; e++) {
                int64_t i = (int64_t)rng_permute(6, RNG_STREAM_TEST, (uint64_t)e, (uint64_t)(N * OC));
                got[e] = out[i];
                want[e] = 0;
                for (int64_t k = 0; k < C; k++)
                    want[e] += (double)array_rounded(inp[i / OC * C + k], dtype) *
                               array_rounded(weight[i % OC * C + k], dtype);
            }
            CHECK_NMSE(got, want, 500, 1e-12, "scattered elements of a large product");
            free(inp), free(weight), free(out);
        }
}

/* Rows that lie 2^30 floats apart have offsets far beyond 32 bits. The memory is only reserved, not used. */
static void test_matmul_far_rows(void) {
    enum { ROWS = 5, K = 3 };
    const int64_t far = (int64_t)1 << 30;
    const size_t bytes = (size_t)(ROWS * far) * sizeof(float);
    float *a = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a == MAP_FAILED) {
        printf("    (no address space for a test of 20 GiB of reserved memory)\n");
        return;
    }
    float b[K * 2] = {1, 2, 3, 4, 5, 6}, out[ROWS * 2] = {0};
    double want[ROWS * 2] = {0};
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < K; k++) {
            a[i * far + k] = (float)(i + 2 * k);
            for (int j = 0; j < 2; j++) want[i * 2 + j] += (i + 2 * k) * b[k * 2 + j];
        }
    MatmulProduct product = {.to.out = array_of_floats(out),
                             .a.operand = {array_of_floats(a), far, true},
                             .b.operand = {array_of_floats(b), 2, false}};
    matmul_plan(&product, ROWS, 2, K, DTYPE_FP32);
    matmul_compute(&product);
    CHECK_NMSE(out, want, ROWS * 2, 0, "rows 4 GiB apart");

    float rows[K * ROWS]; /* the other way: k far apart */
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < K; k++) rows[k * ROWS + i] = a[k * far + i] = (float)(3 * i - k);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < 2; j++) {
            want[i * 2 + j] = 0;
            for (int k = 0; k < K; k++) want[i * 2 + j] += rows[k * ROWS + i] * b[k * 2 + j];
        }
    product.a.operand = (MatmulOperand){array_of_floats(a), far, false};
    matmul_compute(&product);
    CHECK_NMSE(out, want, ROWS * 2, 0, "k 4 GiB apart");
    munmap(a, bytes);
}

/* The gradients of several micro-steps must add up: otherwise only the last micro-step would be learned from. */
static void test_matmul_accumulates(void) {
    enum { N = 37, C = 45, OC = 50 };
    float *inp = test_normal(N * C, 1, 7), *dout = test_normal(N * OC, 1, 8), dweight[OC * C] = {0},
          whole[OC * C] = {0};
    matmul_backward_weight(whole, dout, inp, N, C, OC, DTYPE_FP32);
    matmul_backward_weight(dweight, dout, inp, 20, C, OC, DTYPE_FP32);
    matmul_backward_weight(dweight, dout + 20 * OC, inp + 20 * C, N - 20, C, OC, DTYPE_FP32);
    double *want = test_to_double(whole, OC * C);
    CHECK_NMSE(dweight, want, OC * C, 1e-12, "two micro-batches");
    free(want), free(inp), free(dout);
}

/* Rounding to bf16 is compared with the nearest neighbour in float64, for every upper half of a float and the lower
   halves around a tie. A rounding that always goes in one direction would let small updates vanish. */
static void test_matmul_rounds_to_nearest_even(void) {
    static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { COUNT = 6 * 65536 };
    float *x = check_calloc(COUNT * sizeof *x), *out = check_calloc(COUNT * sizeof *out), one = 1;
    float *dweight = check_calloc(COUNT * sizeof *dweight);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t bits = (i / 6) << 16 | lows[i % 6], down = bits & 0xffff0000, up = down + 0x10000;
        memcpy(&x[i], &bits, 4);
        float got = float_from_bf16(bf16_from_float(x[i])), below, above;
        memcpy(&below, &down, 4), memcpy(&above, &up, 4);
        if (isnan(x[i])) {
            CHECK(isnan(got), "NaN %08x became %g", bits, (double)got);
        } else if (isinf(x[i])) {
            CHECK(got == x[i], "infinity became %g", (double)got);
        } else { /* beyond the largest bf16 its neighbour is 2^128, which rounds to infinity */
            double high = isinf(above) ? copysign(0x1p128, above) : above;
            double to_low = fabs((double)x[i] - below), to_high = fabs(high - (double)x[i]);
            float want = to_low < to_high || (to_low == to_high && !(down >> 16 & 1)) ? below : above;
            CHECK(got == want && signbit(got) == signbit(x[i]), "%a rounds to %a, not %a", (double)x[i],
                  (double)want, (double)got);
        }
    }
    matmul_forward(out, NULL, x, &one, COUNT, 1, 1, DTYPE_BF16);
    matmul_backward_weight(dweight, x, &one, 1, 1, COUNT, DTYPE_BF16);
    for (uint32_t i = 0; i < COUNT; i++) {
        float want = float_from_bf16(bf16_from_float(x[i]));
        for (int way = 0; way < 2; way++) {
            float got = way ? dweight[i] : out[i];
            bool tiny = fabsf(x[i]) < 0x1p-126f; /* native products may take numbers below this as 0 */
            CHECK(got == want || (isnan(got) && isnan(want)) || (tiny && got == 0),
                  "%a packed as %a instead of %a", (double)x[i], (double)got, (double)want);
        }
    }
    free(x), free(out), free(dweight);
}

/* array.h, the vectors of the products and laser.h each round to bf16. They must give the same bits, also of a NaN
   (its upper half with the quiet bit set); otherwise results would depend on the CPU. Instructions that round may
   treat numbers below 2^-126 as 0. */
static void test_bf16_rounding_has_the_same_bits_everywhere(void) {
    static const uint32_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { LANES = 16 }; /* of the longest vector */
    for (uint32_t upper = 0; upper < 65536; upper++)
        for (int l = 0; l < 6; l++) {
            const uint32_t bits = upper << 16 | lows[l], sign = upper & 0x8000;
            const bool nan = (bits & 0x7fffffff) > 0x7f800000, tiny = (bits & 0x7fffffff) < 0x00800000;
            float x[LANES];
            for (int i = 0; i < LANES; i++) memcpy(&x[i], &bits, sizeof bits);
            const uint16_t want = bf16_from_float(x[0]);
            CHECK(!nan || want == (upper | 0x40), "NaN %08x becomes %04x", bits, want);

            MatmulVector from;
            memcpy(&from, x, sizeof from);
            const MatmulVectorBits lanes = matmul_round_to_bf16(from);
            CHECK(lanes[0] == (uint32_t)want << 16, "matmul.h rounds %08x to %08x", bits, lanes[0]);
            const uint32_t pair = ((MatmulVectorBits)matmul_pairs_of_two_rows(from, from))[0];
            CHECK(pair == (want | (uint32_t)want << 16) || (tiny && pair == (sign | sign << 16)),
                  "packing rounds %08x to %08x", bits, pair);

            LaserVec laser;
            memcpy(&laser, x, sizeof laser);
            /* bf16, or floats that bf16 can hold. */
            const __typeof__(laser_bf16(laser)) rounded = laser_bf16(laser);
            uint16_t got[2];
            memcpy(got, &rounded, sizeof got);
            const uint16_t first = sizeof rounded == sizeof laser ? got[1] : got[0];
            CHECK(first == want || (tiny && first == sign), "laser.h rounds %08x to %04x", bits, first);
        }
}

/* An infinity or NaN must reach the elements of which it is a factor, and no other, in spite of padding: the
   diagnosis of a diverged run would otherwise name the wrong tensor. */
static void test_matmul_keeps_infinities_apart(void) {
    enum { N = 17, C = 5, OC = 35 };
    for (int p = 0; p < 2; p++) {
        float *inp = test_normal(N * C, 1, 9), *weight = test_normal(OC * C, 1, 10), out[N * OC];
        inp[3 * C + 4] = INFINITY;
        weight[34 * C + 4] = NAN;
        matmul_forward(out, NULL, inp, weight, N, C, OC, p ? DTYPE_BF16 : DTYPE_FP32);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < OC; j++) {
                float got = out[i * OC + j];
                CHECK(j == 34  ? isnan(got)
                      : i == 3 ? isinf(got)
                               : isfinite(got),
                      "out[%d][%d] is %g", i, j, (double)got);
            }
        free(inp), free(weight);
    }
}

static inline void matmul_test_all(float *out, float *dinp, float *dweight, const float *inp,
                                   const float *weight, const float *dout, int64_t N, int64_t C, int64_t OC,
                                   Dtype dtype) {
    memset(dweight, 0, (size_t)(OC * C) * sizeof *dweight);
    matmul_forward(out, dout, inp, weight, N, C, OC, dtype);
    matmul_backward_input(dinp, NULL, dout, weight, N, C, OC, dtype);
    matmul_backward_weight(dweight, dout, inp, N, C, OC, dtype);
}

/* The same run with another number of threads must give the same bits. */
static void test_matmul_same_bits_for_any_threads(void) {
    static const int64_t shapes[][3] = {{150, 700, 190}, {5, 600, 400}, {1100, 40, 33}, {300, 520, 380}};
    for (int s = 0; s < (int)(sizeof shapes / sizeof *shapes); s++)
        for (int p = 0; p < 2; p++) {
            const int64_t N = shapes[s][0], C = shapes[s][1], OC = shapes[s][2];
            const size_t size = (size_t)(N * OC + N * C + OC * C);
            float *inp = test_normal((size_t)(N * C), 1, 11), *weight = test_normal((size_t)(OC * C), 1, 12);
            float *dout = test_normal((size_t)(N * OC), 1, 13);
            float *got = check_calloc(size * sizeof *got), *first = check_calloc(size * sizeof *first);
            for (int threads = 1; threads <= 40; threads += threads < 5 ? 1 : 7) {
#ifdef _OPENMP
                int before = omp_get_max_threads();
                omp_set_num_threads(threads);
#endif
                memset(got, 0, size * sizeof *got);
                matmul_test_all(got, got + N * OC, got + N * OC + N * C, inp, weight, dout, N, C, OC,
                                p ? DTYPE_BF16 : DTYPE_FP32);
#ifdef _OPENMP
                omp_set_num_threads(before);
#endif
                if (threads == 1) memcpy(first, got, size * sizeof *got);
                CHECK(memcmp(first, got, size * sizeof *got) == 0,
                      "%d threads give other bits than 1 (shape %d)", threads, s);
            }
            free(inp), free(weight), free(dout), free(got), free(first);
        }
}

/* Several threads may each call products of their own, as a program that uses this header does. They must not write
   into each other's work memory. */
static void test_matmul_from_several_threads(void) {
    enum { N = 40, C = 50, OC = 60, CALLS = 24 };
    float *inp = test_normal(N * C, 1, 14), *weight = test_normal(OC * C, 1, 15), want[N * OC];
    float *out = check_calloc(CALLS * N * OC * sizeof *out);
    matmul_forward(want, NULL, inp, weight, N, C, OC, DTYPE_FP32);
#pragma omp parallel for num_threads(4) schedule(dynamic, 1)
    for (int i = 0; i < CALLS; i++) matmul_forward(out + i * N * OC, NULL, inp, weight, N, C, OC, DTYPE_FP32);
    for (int i = 0; i < CALLS; i++)
        CHECK(memcmp(out + i * N * OC, want, sizeof want) == 0, "call %d differs", i);
    free(inp), free(weight), free(out);
}

/* A finish function that copies what it sees, counts how often, and writes into the tile. */
typedef struct {
    float *copy;
    int *seen;
    int64_t columns;
} MatmulTestCopy;

static void matmul_test_copy(void *context, const MatmulTile *tile) {
    MatmulTestCopy *copy = context;
    for (int i = 0; i < tile->rows; i++)
        for (int j = 0; j < tile->columns; j++) {
            const int64_t at = (tile->row + i) * copy->columns + tile->column + j;
            copy->copy[at] = tile->values[i * tile->stride + j];
            copy->seen[at]++;
            tile->values[i * tile->stride + j] *= 2;
        }
}

/* Packed weights must give the bits of the plain products, every tile must be finished once, and what the finish
   function writes must stay. */
static void test_matmul_packed_weights(void) {
    static const int64_t shapes[][3] = {{30, 40, 50}, {15, 2100, 33}, {1, 7, 3},      {100, 65, 1200},
                                        {1, 2100, 9}, {2, 33, 300},   {3, 1200, 700}, {6, 9, 64},
                                        {8, 65, 31},  {14, 1030, 97}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int p = 0; p < 2; p++) {
            const int64_t N = shapes[s][0], C = shapes[s][1], OC = shapes[s][2];
            const Dtype dtype = p ? DTYPE_BF16 : DTYPE_FP32;
            float *inp = test_normal((size_t)(N * C), 1, 16), *weight = test_normal((size_t)(OC * C), 1, 17);
            float *dout = test_normal((size_t)(N * OC), 1, 18);
            Linear packed = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
            linear_pack(&packed);
            CHECK((int64_t)packed.memory->bytes == linear_packed_bytes(C, OC, dtype), "%lld bytes",
                  (long long)packed.memory->bytes);
            for (int backward = 0; backward < 2; backward++) {
                const int64_t columns = backward ? C : OC, n = N * columns;
                float *want = check_calloc((size_t)n * sizeof *want), *got = matmul_test_output(n, NULL);
                MatmulTestCopy copy = {check_calloc((size_t)n * sizeof(float)),
                                       check_calloc((size_t)n * sizeof(int)), columns};
                for (int way = 0; way < 3; way++) { /* into memory; finish only; both */
                    const float *addend = way == 1 ? NULL : backward ? inp : dout;
                    const MatmulOutput to = {array_of_floats(way == 1 ? NULL : got), addend,
                                             way ? matmul_test_copy : NULL, &copy};
                    if (backward) {
                        matmul_backward_input(want, addend, dout, weight, N, C, OC, dtype);
                        linear_backward_input(to, array_of_floats(dout), &packed, N);
                    } else {
                        matmul_forward(want, addend, inp, weight, N, C, OC, dtype);
                        linear_forward(to, array_of_floats(inp), &packed, N);
                    }
                    for (int64_t i = 0; i < n; i++) {
                        CHECK(way == 1 || got[i] == want[i] * (way == 2 ? 2 : 1),
                              "way %d: element %d is %g, not %g", way, (int)i, (double)got[i],
                              (double)want[i]);
                        CHECK(way == 0 || (copy.copy[i] == want[i] && copy.seen[i] == way),
                              "way %d: finish saw element %d %d times as %g, not %g", way, (int)i,
                              copy.seen[i], (double)copy.copy[i], (double)want[i]);
                    }
                }
                free(want), free(copy.copy), free(copy.seen);
                matmul_test_free(got, n);
            }
            linear_free(&packed);
            CHECK(!packed.memory, "memory of a freed weight is %p", (void *)packed.memory);
            free(inp), free(weight), free(dout);
        }
}

/* Operands stored as bf16 must give the bits of float operands with the same values, in every product: storage must
   not change the result. */
static void test_matmul_bf16_inputs(void) {
    enum { N = 70, C = 45, OC = 99 };
    for (int p = 0; p < 2; p++) {
        const Dtype dtype = p ? DTYPE_BF16 : DTYPE_FP32;
        float *inp = test_normal(N * C, 1, 19), *weight = test_normal(OC * C, 1, 20),
              *dout = test_normal(N * OC, 1, 21);
        uint16_t inp_bf16[N * C], dout_bf16[N * OC];
        array_write(array_of_bf16(inp_bf16), 0, inp, N * C);
        array_write(array_of_bf16(dout_bf16), 0, dout, N * OC);
        for (int i = 0; i < N * C; i++) inp[i] = float_from_bf16(inp_bf16[i]);
        for (int i = 0; i < N * OC; i++) dout[i] = float_from_bf16(dout_bf16[i]);
        static float want[N * OC + N * C + OC * C], got[N * OC + N * C + OC * C];
        matmul_test_all(want, want + N * OC, want + N * OC + N * C, inp, weight, dout, N, C, OC, dtype);
        const Array inp_values = array_of_bf16(inp_bf16), dout_values = array_of_bf16(dout_bf16);
        Linear packed = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
        linear_pack(&packed);
        memset(got, 0, sizeof got);
        linear_forward((MatmulOutput){.out = array_of_floats(got), .addend = dout}, inp_values, &packed, N);
        linear_backward_input((MatmulOutput){.out = array_of_floats(got + N * OC)}, dout_values, &packed, N);
        linear_backward_weight(got + N * OC + N * C, dout_values, inp_values, &packed, N);
        for (int i = 0; i < N * OC + N * C + OC * C; i++)
            CHECK(got[i] == want[i], "dtype %d, element %d is %g, not %g", p, i, (double)got[i],
                  (double)want[i]);
        linear_free(&packed);
        free(inp), free(weight), free(dout);
    }
}

/* A product of few rows takes another path when its weight is packed. It must give the bits of the plain product, for
   operands and outputs of either type and any number of threads, and write no row too many. */
static void test_matmul_packed_few_rows(void) {
    enum { C = 1100, OC = 333, MOST = 17 };
    float *inp = test_normal(MOST * C, 1, 24), *weight = test_normal(OC * C, 1, 25), want[MOST * OC];
    uint16_t *inp_bf16 = check_calloc(MOST * C * sizeof *inp_bf16), got_bf16[MOST * OC];
    array_write(array_of_bf16(inp_bf16), 0, inp, MOST * C);
    for (int i = 0; i < 2 * MOST; i++) {
        const int N = 1 + i / 2;
        const Dtype dtype = i % 2 ? DTYPE_BF16 : DTYPE_FP32;
        const Array x = i % 2 ? array_of_bf16(inp_bf16) : array_of_floats(inp);
        const Linear plain = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
        Linear packed = plain;
        linear_pack_forward(&packed);
        linear_forward((MatmulOutput){.out = array_of_floats(want)}, x, &plain, N);
        for (int threads = 1; threads <= 5; threads += 2) {
            float *got = matmul_test_output(N * OC, NULL);
#ifdef _OPENMP
            const int before = omp_get_max_threads();
            omp_set_num_threads(threads);
#endif
            linear_forward((MatmulOutput){.out = array_of_floats(got)}, x, &packed, N);
            linear_forward((MatmulOutput){.out = array_of_bf16(got_bf16)}, x, &packed, N);
#ifdef _OPENMP
            omp_set_num_threads(before);
#endif
            CHECK(memcmp(got, want, (size_t)(N * OC) * sizeof *got) == 0, "%d rows, dtype %d, %d threads", N,
                  dtype, threads);
            for (int j = 0; j < N * OC; j++)
                CHECK(got_bf16[j] == bf16_from_float(want[j]), "%d rows, dtype %d: element %d is %g, not %g",
                      N, dtype, j, (double)float_from_bf16(got_bf16[j]), (double)want[j]);
            matmul_test_free(got, N * OC);
        }
        linear_free(&packed);
    }
    free(inp), free(weight), free(inp_bf16);
}

/* Threads that take the pieces of a partition one after the other must seldom be idle, or a step takes longer than
   it needs. A piece takes the time of its tiles here. The numbers of panels are those of the products of c4-301m's
   layers for 1,024 tokens and for 8,192, and of a part of the logits. */
static void test_matmul_partition_is_even(void) {
    const int64_t sides[][2] = {{74, 32}, {147, 32}, {64, 74},   {220, 32},
                                {74, 96}, {586, 32}, {10, 1000}, {2286, 32}};
    enum { MC = 14, THREADS = 128 };
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++)
        for (int threads = 1; threads <= THREADS; threads++) {
            const int64_t private_panels = sides[i][0], shared_panels = sides[i][1];
            const MatmulPartition p = matmul_partition(private_panels, shared_panels, MC, threads);
            double busy[THREADS] = {0}, longest = 0, all = (double)(private_panels * shared_panels);
            int64_t tiles = 0;
            for (int64_t piece = 0; piece < p.private_blocks * p.shared_parts; piece++) {
                const int64_t block = piece / p.shared_parts, part = piece % p.shared_parts;
                const int64_t rows = matmul_part_begin(private_panels, p.private_blocks, block + 1) -
                                     matmul_part_begin(private_panels, p.private_blocks, block);
                const int64_t columns = matmul_part_begin(shared_panels, p.shared_parts, part + 1) -
                                        matmul_part_begin(shared_panels, p.shared_parts, part);
                int next = 0;
                for (int t = 1; t < threads; t++) next = busy[t] < busy[next] ? t : next;
                busy[next] += (double)rows * ((double)columns + 0.5);
                longest = fmax(longest, busy[next]), tiles += rows * columns;
                CHECK(rows >= 1 && rows <= MC && columns >= 1, "%d x %d panels", (int)rows, (int)columns);
            }
            CHECK(tiles == private_panels * shared_panels, "the pieces have %d tiles of %d", (int)tiles,
                  (int)(private_panels * shared_panels));
            const double busy_part = all / (longest * threads), want = threads <= 2    ? 0.96
                                                                       : threads <= 16 ? 0.87
                                                                                       : 0.75;
            CHECK(busy_part >= want, "%d x %d panels keep %d threads busy for %.2f of the time",
                  (int)private_panels, (int)shared_panels, threads, busy_part);
        }
}

/* Sums over several blocks of k that are stored as bf16 must be rounded once, at the end. */
static void test_matmul_bf16_outputs(void) {
    enum { N = 45, C = 4500, OC = 37 };
    for (int p = 0; p < 2; p++) {
        const Dtype dtype = p ? DTYPE_BF16 : DTYPE_FP32;
        float *inp = test_normal(N * C, 1, 22), *weight = test_normal(OC * C, 1, 23), want[N * OC];
        uint16_t got[N * OC];
        const Linear w = {.values = weight, .C = C, .OC = OC, .dtype = dtype};
        linear_forward((MatmulOutput){.out = array_of_floats(want)}, array_of_floats(inp), &w, N);
        linear_forward((MatmulOutput){.out = array_of_bf16(got)}, array_of_floats(inp), &w, N);
        for (int i = 0; i < N * OC; i++)
            CHECK(got[i] == bf16_from_float(want[i]), "dtype %d, element %d is %g, not %g", p, i,
                  (double)float_from_bf16(got[i]), (double)want[i]);
        free(inp), free(weight);
    }
}

#define MATMUL_TESTS(TEST)                                                                                   \
    TEST(matmul_matches_float64)                                                                             \
    TEST(matmul_every_edge)                                                                                  \
    TEST(matmul_empty)                                                                                       \
    TEST(matmul_large)                                                                                       \
    TEST(matmul_far_rows)                                                                                    \
    TEST(matmul_accumulates)                                                                                 \
    TEST(matmul_rounds_to_nearest_even)                                                                      \
    TEST(bf16_rounding_has_the_same_bits_everywhere)                                                         \
    TEST(matmul_keeps_infinities_apart)                                                                      \
    TEST(matmul_same_bits_for_any_threads)                                                                   \
    TEST(matmul_from_several_threads)                                                                        \
    TEST(matmul_packed_weights)                                                                              \
    TEST(matmul_packed_few_rows)                                                                             \
    TEST(matmul_partition_is_even)                                                                           \
    TEST(matmul_bf16_inputs)                                                                                 \
    TEST(matmul_bf16_outputs)

#endif
