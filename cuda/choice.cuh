/* choice.cuh: the fastest of several ways to compute the same bits.

   cuBLASLt offers a dozen algorithms for a product, and the best of them needs a tenth less time than the first that it
   names. Only a clock tells which; clocks are noisy, so two runs may choose differently, and yet a run's bits must not hang on
   it. So only candidates that give, bit for bit, what a reference gives are timed, and the reference is no matter of time:
   the same in every run on the machine. Nothing need be stored, and all ranks agree.

   choose_candidate(count, reference, prepare, bits, time)   one of the candidates 0..count-1; what it asks of its caller is
                                              said there
   choice_operand(x, ...)                     numbers to compare with
   fingerprint(scratch, x, bytes, stream)     64 bits that tell of every bit of x and of its place

   Why random operands are evidence enough: a product's bits are decided by the order in which each result's sum over k is
   taken, by what the tensor core's instruction keeps of it, and by the formula and roundings of the epilogue. Those are fixed
   in an algorithm, whatever the numbers. Where two differ in the first ones, a third of the float32 results or more differ, but of
   those that are rounded to bf16 only one in ten thousand. So there are two sets of operands: ordinary ones, for the epilogue;
   and ones whose sums cancel, of which nothing is left but roundings, so that a third tells of the order in bf16 too. Each
   is of the product's own size, millions of results. The first set comes again at last, for algorithms that do not repeat
   themselves. That two fingerprints of 64 bits are equal by chance nobody will live to see. */
#ifndef CUDA_CHOICE_CUH
#define CUDA_CHOICE_CUH

#include <algorithm>
#include <vector>
#include "device.h"

enum { CHOICE_CHECKS = 3, CHOICE_ROUNDS = 5 };

struct Choice {
    int candidate;
    int equal; /* candidates with the reference's bits, itself one; 0: there was no room to try */
    double seconds, first_seconds; /* the medians of the chosen one and of candidate 0; NAN: not timed */
};

/* The fastest of the candidates that give the reference's bits; within 1 % the earliest, so that the same one is taken more
   often than not. The reference itself where it does not repeat its own bits, or nothing can be tried.
   prepare(set)            makes ready the operands of this set, 0 or 1; false: there is no room for them
   bits(i, &fingerprint)   of candidate i's results from the latest operands; false: it does not run
   time(which, seconds)    times each of the candidates `which` and puts its time there. All take their turn before one is
                           timed again, so that a clock that slows down slows them all. The first round is not counted
   Candidate 0 is timed even where its bits are others: to tell what the choice has brought. */
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

/* The finalizer of splitmix64: each bit of x changes half of the result's. Different x give different results. */
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

/* x: an operand of a product with sums over k, in memory (others, k) where k_first, else (k, others): numbers between -size
   and size. mirror, not 0: those of the second half of k are those of the first, times this. A sum over k of one operand with
   mirror 1 and one with -1 adds up to nothing, but for what is rounded on the way. */
template <typename F>
void choice_operand(F *x, int64_t others, int64_t k, bool k_first, float size, float mirror, uint32_t seed,
                    cudaStream_t stream) {
    LAUNCH(choice_operand_kernel<F>, dim3(blocks_for(others * k, FINGERPRINT_THREADS)),
           dim3(FINGERPRINT_THREADS), 0, stream, x, others * k, k, k_first ? k : others, k_first, size,
           mirror, seed);
}

/* partial (blocks) = sums over the words of x, each mixed with its place. Whole numbers, so any order gives the same. */
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

/* scratch (FINGERPRINT_BLOCKS); the host waits. x lies as floats or bf16 do. */
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

/* ---- what was chosen ---- */

struct ProductTiming {
    const char *name;     /* of the function */
    const char *epilogue; /* "", "+=", "+ c", "gelu" or its slope, "dgelu" */
    int64_t m, n, k;      /* column by column, as cuBLASLt counts: results (m, n), sums over k */
    int candidates;
    int splits;    /* parts of the sum over k, in the chosen one */
    int64_t calls; /* since matmul_count_calls */
    Choice choice;
};
struct ProductTimings {
    std::vector<ProductTiming> products; /* those that were worth it */
    double seconds;                      /* what it took */
};

/* One line, or nothing when no product has been timed. */
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
