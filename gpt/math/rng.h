/* rng.h: counter-based random numbers: the i-th number of a stream is a function of (seed, stream, i).

   Nothing is stored, so any thread or rank can ask for any number in any order: initialising in parallel,
   resuming and sampling give the same bits on any number of threads. The mixer is splitmix64's finaliser
   (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014), applied once per input word.

   rng_bits(seed, stream, i)     64 random bits
   rng_uniform(seed, stream, i)  in [0, 1), 24 bits
   rng_normal(seed, stream, i)   mean 0, deviation 1 (Box-Muller)
   rng_permute(seed, stream, i, n)  the i-th element of a permutation of 0..n-1 (a Feistel network,
                                 walked until it lands inside n); 0 <= i < n */
#ifndef GPT_MATH_RNG_H
#define GPT_MATH_RNG_H

#include <math.h>
#include <stdint.h>

/* The streams of one seed, one per use, so that no two uses see the same numbers. */
enum {
    RNG_STREAM_INIT = 1 << 16,
    RNG_STREAM_SHUFFLE = 2 << 16,
    RNG_STREAM_SAMPLE = 3 << 16,
    RNG_STREAM_TEST = 4 << 16
};

static inline uint64_t rng_mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline uint64_t rng_bits(uint64_t seed, uint64_t stream, uint64_t i) {
    return rng_mix(rng_mix(rng_mix(seed) ^ stream) ^ i);
}

static inline float rng_uniform(uint64_t seed, uint64_t stream, uint64_t i) {
    return (float)(rng_bits(seed, stream, i) >> 40) * 0x1p-24f;
}

static inline float rng_normal(uint64_t seed, uint64_t stream, uint64_t i) {
    uint64_t bits = rng_bits(seed, stream, i);
    double radius = sqrt(-2.0 * log(((double)(bits >> 32) + 1.0) * 0x1p-32)); /* the argument is never 0 */
    return (float)(radius * cos(6.283185307179586 * (double)(uint32_t)bits * 0x1p-32));
}

static inline uint64_t rng_permute(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n) {
    int half = 1; /* two halves of `half` bits each cover n */
    while (half < 32 && (UINT64_C(1) << (2 * half)) < n) half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do { /* a permutation of 2^(2*half) >= n numbers; at most 4n of them, so 4 walks on average at worst */
        uint64_t left = i >> half, right = i & mask;
        for (int round = 0; round < 6; round++) {
            uint64_t next = left ^ (rng_bits(seed, stream + ((uint64_t)round << 48), right) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

#endif
