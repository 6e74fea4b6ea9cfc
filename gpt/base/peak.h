/* peak.h: the highest rate of arithmetic that this process can reach on its processors.

   processor_peak_flops(bf16)   floating-point operations a second of all OpenMP threads together, in a loop of nothing
                                but fused multiply-adds of float32, or dot products of bfloat16. MFU, model FLOPs
                                utilisation, is the rate of training as a fraction of this one. Measuring takes about
                                0.1 s, at most a second */
#ifndef GPT_BASE_PEAK_H
#define GPT_BASE_PEAK_H

#include <math.h>
#include <stdbool.h>
#include "clock.h"
#include "processor.h"
#include "threads.h"

/* The result of a multiply-add is there only after several cycles, but the next one can begin at once if it does not
   need that result. So the loop adds to PEAK_SUMS vectors in turn: enough for the processor never to wait, and few
   enough for all of them to stay in registers. */
#if defined(__AVX512F__)
enum { PEAK_LANES = 16, PEAK_SUMS = 20 };
#elif defined(__AVX__)
enum { PEAK_LANES = 8, PEAK_SUMS = 12 };
#else
enum { PEAK_LANES = 4, PEAK_SUMS = 12 };
#endif
typedef float PeakVector __attribute__((vector_size(PEAK_LANES * sizeof(float))));

#ifdef __clang__
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 20")
#endif

/* The loop of one thread on AMX tile registers; returns how many floating-point operations it did. The values do not
   matter, so all are zero. A round multiplies 4 pairs of tiles. Each product adds to 16 x 16 sums the dot product of 32
   bfloat16 values with 32 others, which is 32 multiplications and 32 additions. */
static inline double peak_tiles(long rounds) {
#if HAVE_AMX
    amx_begin();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long round = 0; round < rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    amx_end();
#endif
    return (double)rounds * 4 * (16 * 16) * 32 * 2;
}

/* The loop of one thread; returns how many floating-point operations it did. A multiply-add of float32 is 2 operations
   in each lane of a vector; a dot product of two bfloat16 values with two others is 4. The result of the loop is added
   to `sink`, so that the compiler cannot remove the loop. */
static inline double peak_loop(bool bf16, long rounds, float *sink) {
    if (bf16 && amx_allowed()) {
        *sink += 1;
        return peak_tiles(rounds / 4);
    }
    PeakVector sum[PEAK_SUMS], factor, addend;
    for (int lane = 0; lane < PEAK_LANES; lane++) factor[lane] = 0.999f, addend[lane] = 1e-3f;
    for (int i = 0; i < PEAK_SUMS; i++) sum[i] = factor * (float)i;
#if defined(__AVX512BF16__) && !HAVE_AMX
    if (bf16) {
        __m512bh a = _mm512_cvtne2ps_pbh(factor, addend), b = _mm512_cvtne2ps_pbh(addend, factor);
        for (long round = 0; round < rounds; round++) {
            PEAK_UNROLL
            for (int i = 0; i < PEAK_SUMS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
        }
    } else
#endif
        for (long round = 0; round < rounds; round++) {
            PEAK_UNROLL
            for (int i = 0; i < PEAK_SUMS; i++) sum[i] = sum[i] * factor + addend;
        }
    for (int i = 1; i < PEAK_SUMS; i++) sum[0] += sum[i];
    *sink += sum[0][0];
#if defined(__AVX512BF16__) && !HAVE_AMX
    if (bf16) return (double)rounds * PEAK_SUMS * PEAK_LANES * 4;
#endif
    (void)bf16;
    return (double)rounds * PEAK_SUMS * PEAK_LANES * 2;
}

/* The rate of `threads` threads together, measured once. */
static inline double peak_once(bool bf16, int threads) {
    double operations = 0, start = seconds_now();
    float sink = 0;
    (void)threads; /* is not read without OpenMP */
#pragma omp parallel num_threads(threads) reduction(+ : operations, sink)
    operations += peak_loop(bf16, 500000, &sink);
    return sink != 0 ? operations / (seconds_now() - start) : 0;
}

/* Threads that have just started may share a core for a while, and other programs may take a core for a moment. So the
   rate of all threads together is measured again until it is 95 % of their number times the rate of a single thread,
   but for no longer than a second. The highest rate measured counts. */
static inline double processor_peak_flops(bool bf16) {
    const int threads = threads_count();
    const double start = seconds_now();
    double one = 0, all = 0;
    for (int repeat = 0; repeat < 3; repeat++) one = fmax(one, peak_once(bf16, 1));
    do all = fmax(all, peak_once(bf16, threads));
    while (all < 0.95 * threads * one && seconds_now() - start < 1);
    return all;
}

#endif
