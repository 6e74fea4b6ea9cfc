/* rng.h: random numbers without a state: the i-th number of a stream is a function of (seed, stream, i).

   So any thread or rank can ask for any number in any order, and initialising in parallel, resuming and sampling give
   the same bits for any number of threads. The function is the finaliser of splitmix64 (Steele, Lea & Flood, "Fast
   splittable pseudorandom number generators", 2014), applied once for each of the three inputs.

   rng_bits(seed, stream, i)        64 random bits
   rng_uniform(seed, stream, i)     uniform in [0, 1), a multiple of 2^-24
   rng_normal(seed, stream, i)      normal, mean 0, standard deviation 1 (Box-Muller)
   rng_permute(seed, stream, i, n)  the i-th element of a random permutation of 0, 1, ..., n - 1; 0 <= i < n. A Feistel
                                    network permutes the numbers below a power of 4 that is at least n; it is applied
                                    again as long as its result is not below n */
#ifndef GPT_MATH_RNG_H
#define GPT_MATH_RNG_H

#include <math.h>
#include <stdint.h>

/* Each use of random numbers has its own stream, so that no two uses see the same numbers. */
enum {
    RNG_STREAM_INIT = 1 << 16,
    RNG_STREAM_SHUFFLE = 2 << 16,
    RNG_STREAM_SAMPLE = 3 << 16,
    RNG_STREAM_TEST = 4 << 16,
    RNG_STREAM_INIT_VECTORS = 5 << 16
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
    double radius =
        sqrt(-2.0 * log(((double)(bits >> 32) + 1.0) * 0x1p-32)); /* the argument of log is never 0 */
    return (float)(radius * cos(6.283185307179586 * (double)(uint32_t)bits * 0x1p-32));
}

static inline uint64_t rng_permute(uint64_t seed, uint64_t stream, uint64_t i, uint64_t n) {
    int half = 1; /* bits: n is at most 2^(2 half) */
    while (half < 32 && (UINT64_C(1) << (2 * half)) < n) half++;
    const uint64_t mask = (UINT64_C(1) << half) - 1;
    do { /* the network permutes fewer than 4 n numbers, so this takes fewer than 4 turns on average */
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
