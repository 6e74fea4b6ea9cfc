/* choice.cuh: chooses the fastest of several algorithms that compute the same bits.

   cuBLASLt offers a dozen algorithms for a matrix product, and the best of them needs a tenth less time than the
   first in its list. Only timing tells which is the best. Times are noisy, so two runs may choose differently, and
   yet the bits of a run must not depend on the choice. So an algorithm is timed only if its results equal, bit for
   bit, those of a reference algorithm. The reference is chosen without timing and is the same in every run on the
   machine. So no choice need be stored, and all ranks get the same bits.

   choose_candidate(count, reference, prepare, bits, time)   chooses one of the candidates 0..count-1; the comment at
                                              the function says what its caller has to provide
   choice_operand(x, ...)                     fills an operand of the products that are compared
   fingerprint(scratch, x, bytes, stream)     64 bits that depend on every bit of x and on its position

   Why random operands are evidence enough: the bits of a product are decided by the order in which each result's sum
   over k is taken, by the digits that the tensor core's instruction keeps of it, and by the formula and roundings of
   the epilogue. An algorithm does all of these in the same way whatever the numbers are. Where two algorithms differ
   in the order or in the digits kept, at least a third of the float32 results differ, but only one in ten thousand of
   the results rounded to bf16. So there are two sets of operands: ordinary numbers, which test the epilogue; and
   numbers whose sums cancel, so that the results consist of rounding errors alone and a third of them differ in bf16
   too. Each set has the product's own size, so millions of results are compared. The first set is used again at the
   end, to find algorithms that do not repeat their own bits. The chance that two different results have the same
   fingerprint of 64 bits is negligible. */
#ifndef CUDA_CHOICE_CUH
#define CUDA_CHOICE_CUH

#include <algorithm>
#include <vector>
#include "device.h"

enum { CHOICE_CHECKS = 3, CHOICE_ROUNDS = 5 };

struct Choice {
    int candidate;
    int equal; /* how many candidates have the reference's bits, itself included; 0: there was no memory to try */
    double seconds, first_seconds; /* the medians of the chosen one and of candidate 0; NAN: not timed */
};

/* Returns the fastest of the candidates that give the reference's bits; among those within 1 % of it the earliest, so
   that most runs choose the same one. Returns the reference itself where it does not repeat its own bits, or where
   nothing can be tried.
   prepare(set)            prepares the operands of set 0 or 1; false: there is no memory for them
   bits(i, &fingerprint)   runs candidate i on the latest operands and gives the fingerprint of its results; false: it
                           does not run
   time(which, seconds)    times each of the candidates in `which` and writes the times to `seconds`. Each candidate
                           is timed once before any is timed again, so that a falling clock rate slows all of them
                           down. The first round is not counted
   Candidate 0 is timed even where its bits differ, to show what the choice has gained. */
template <typename Prepare, typename Bits, typename Time>
Choice choose_candidate(int count, int reference, Prepare prepare, Bits bits, Time time) {
    Choice choice = {reference, 0, NAN, NAN};
    std::vector<char> runs((size_t)count, true), equal((size_t)count, true);
    uint64_t want[CHOICE_CHECKS];
    for (int check = 0; check < CHOICE_CHECKS; check++) {
        if (!prepare(check % 2) || !bits(reference, &want[check])) return choice;
        for (int i = 0; i < count; i++) {
            if (i == reference || !runs[(size_t)i] || !equal[(size_t)i]) continue;
            uint64_t got = 0;
            runs[(size_t)i] = bits(i, &got);
            equal[(size_t)i] = runs[(size_t)i] && got == want[check];
        }
    }
    choice.equal = 1;
    if (want[0] != want[2]) return choice;
    choice.equal = (int)std::count(equal.begin(), equal.end(), true);

    std::vector<int> which;
    for (int i = 0; i < count; i++)
        if (equal[(size_t)i] || (i == 0 && runs[0])) which.push_back(i);
    std::vector<double> rounds[CHOICE_ROUNDS], medians, warm_up(which.size());
    time(which, warm_up.data());
    for (std::vector<double> &seconds : rounds) {
        seconds.resize(which.size());
        time(which, seconds.data());
    }
    double least = INFINITY;
    for (size_t w = 0; w < which.size(); w++) {
        double sorted[CHOICE_ROUNDS];
        for (int r = 0; r < CHOICE_ROUNDS; r++) sorted[r] = rounds[r][w];
        std::sort(sorted, sorted + CHOICE_ROUNDS);
        medians.push_back(sorted[CHOICE_ROUNDS / 2]);
        if (equal[(size_t)which[w]]) least = std::min(least, medians[w]);
    }
    for (size_t w = which.size(); w-- > 0;) {
        if (which[w] == 0) choice.first_seconds = medians[w];
        if (equal[(size_t)which[w]] && medians[w] <= 1.01 * least)
            choice.candidate = which[w], choice.seconds = medians[w];
    }
    return choice;
}

/* ---- operands and fingerprints ---- */

enum { FINGERPRINT_BLOCKS = 1024, FINGERPRINT_THREADS = 256 };

/* The finalizer of splitmix64: changing one bit of x changes about half of the result's bits, and different x give
   different results. */
__device__ __forceinline__ uint64_t fingerprint_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

template <typename F>
__global__ void choice_operand_kernel(F *x, int64_t n, int64_t k, int64_t row, bool k_first, float size,
                                      float mirror, uint32_t seed) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const int64_t at = k_first ? i % row : i / row, half = k / 2, step = k_first ? 1 : row;
    const bool second = mirror != 0 && at >= half;
    const uint64_t bits = fingerprint_mix((uint64_t)(second ? i - half * step : i) + ((uint64_t)seed << 40));
    x[i] = from_float<F>((second ? mirror : 1) * size * ((float)(bits >> 40) * 0x1p-23f - 1));
}

/* Fills x, an operand of a product with sums over k, with numbers between -size and size. x is (others, k) in memory
   where k_first, else (k, others). mirror: if it is not 0, the numbers of the second half of k are those of the first
   half times mirror. A sum over k of an operand with mirror 1 times one with mirror -1 is zero but for its rounding
   errors. */
template <typename F>
void choice_operand(F *x, int64_t others, int64_t k, bool k_first, float size, float mirror, uint32_t seed,
                    cudaStream_t stream) {
    LAUNCH(choice_operand_kernel<F>, dim3(blocks_for(others * k, FINGERPRINT_THREADS)),
           dim3(FINGERPRINT_THREADS), 0, stream, x, others * k, k, k_first ? k : others, k_first, size,
           mirror, seed);
}

/* partial (blocks) = for each block the sum over its words of x, each mixed with its position. The sums are of
   integers, so every order gives the same result. */
template <typename Word> __global__ void fingerprint_kernel(uint64_t *partial, const Word *x, int64_t words) {
    uint64_t *sums = shared_memory<uint64_t>();
    uint64_t sum = 0;
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += step)
        sum += fingerprint_mix((uint64_t)(i + 1) << 32 | x[i]);
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

/* Returns the fingerprint of x, for which the host waits. scratch (FINGERPRINT_BLOCKS) is device memory; x is aligned
   as an array of float or of bf16 is. */
static inline uint64_t fingerprint(uint64_t *scratch, const void *x, size_t bytes, cudaStream_t stream) {
    uint64_t partial[FINGERPRINT_BLOCKS], sum = 0;
    const bool wide = ((uintptr_t)x | bytes) % sizeof(uint32_t) == 0;
    const int64_t words = (int64_t)(bytes / (wide ? sizeof(uint32_t) : sizeof(uint16_t)));
    const unsigned blocks = std::min(blocks_for(words, FINGERPRINT_THREADS), (unsigned)FINGERPRINT_BLOCKS);
    const size_t shared = FINGERPRINT_THREADS * sizeof(uint64_t);
    if (wide)
        LAUNCH(fingerprint_kernel<uint32_t>, dim3(blocks), dim3(FINGERPRINT_THREADS), shared, stream, scratch,
               (const uint32_t *)x, words);
    else
        LAUNCH(fingerprint_kernel<uint16_t>, dim3(blocks), dim3(FINGERPRINT_THREADS), shared, stream, scratch,
               (const uint16_t *)x, words);
    copy_to_host(partial, scratch, blocks * sizeof *partial, stream);
    for (unsigned i = 0; i < blocks; i++) sum += partial[i];
    return sum;
}

/* ---- the choices that were made ---- */

struct ProductTiming {
    const char *name;     /* of the function that computes it */
    const char *epilogue; /* "", "+=", "+ c", "gelu" or its slope, "dgelu" */
    int64_t m, n, k;      /* in cuBLASLt's column-major terms: results (m, n), sums over k */
    int candidates;
    int splits;    /* number of parts into which the chosen algorithm cuts the sum over k */
    int64_t calls; /* since the last matmul_count_calls() */
    Choice choice;
};
struct ProductTimings {
    std::vector<ProductTiming> products; /* those that were worth timing */
    double seconds;                      /* that all timing took */
};

/* Writes one line on the timings to `text` and returns it: what they gained, and how many found no memory. The line
   is empty when there is nothing to say. */
static inline const char *timings_note(char text[160], const ProductTimings &t) {
    int timed = 0, without_room = 0;
    double first = 0, chosen = 0;
    for (const ProductTiming &p : t.products) {
        if (p.calls == 0) continue;
        without_room += p.choice.equal == 0;
        if (!(p.choice.seconds > 0)) continue;
        timed++;
        chosen += (double)p.calls * p.choice.seconds;
        first += (double)p.calls * (p.choice.first_seconds > 0 ? p.choice.first_seconds : p.choice.seconds);
    }
    int used = 0;
    text[0] = '\0';
    if (timed > 0)
        used = snprintf(
            text, 160, "products: %d shapes timed in %.1f s; %.0f %% less time than cuBLASLt's first answers",
            timed, t.seconds, 100 * (1 - chosen / first));
    if (without_room > 0)
        snprintf(text + used, (size_t)(160 - used), "%s no room to time %d%s",
                 used ? ";" : "products:", without_room, used ? " more" : " shapes");
    return text;
}

#endif
