/* Tests of the choice between algorithms (cuda/choice.cuh): the rule is tested with invented candidates, fingerprints
   with random numbers. On a GPU also: the algorithm that was chosen for a product gives the same bits as the
   reference. */
#ifndef TESTS_TEST_CUDA_MATMUL_H
#define TESTS_TEST_CUDA_MATMUL_H

#include "../cuda/matmul.cuh"
#include "test_cuda.h"

/* Invented candidates, whose bits and times the test sets. */
struct InventedCandidates {
    std::vector<uint64_t> bits; /* of each candidate; 0: it does not run */
    std::vector<double> seconds;
    int room = 2;       /* how many times operands can be prepared, besides the first time */
    bool noisy = false; /* times differ from round to round; their median is `seconds` */
    int unstable = -1;  /* the number of a candidate that has other bits the third time */
    int set = -1, prepared = 0, round = 0, runs = 0;

    Choice choose(int reference) {
        return choose_candidate(
            (int)bits.size(), reference,
            [&](int next) {
                set = next;
                return prepared++ < room + 1;
            },
            [&](int i, uint64_t *got) {
                runs++;
                *got = bits[(size_t)i] + 1000u * (uint64_t)set + (i == unstable && prepared == 3);
                return bits[(size_t)i] != 0;
            },
            [&](const std::vector<int> &which, double *times) {
                const double clock = !noisy       ? 1
                                     : round < 3  ? 0.5 + 0.1 * round
                                     : round == 3 ? 1
                                                  : 1.0 + round;
                for (size_t w = 0; w < which.size(); w++) {
                    CHECK(bits[(size_t)which[w]] != 0, "candidate %d does not run, and is timed", which[w]);
                    times[w] = clock * seconds[(size_t)which[w]];
                }
                round++;
            });
    }
};

static void test_cuda_choice_takes_the_fastest_of_equal_bits(void) {
    InventedCandidates all = {{7, 7, 7, 7}, {4, 3, 2, 5}};
    Choice choice = all.choose(0);
    CHECK(choice.candidate == 2 && choice.equal == 4, "%d of %d", choice.candidate, choice.equal);
    CHECK(choice.seconds == 2 && choice.first_seconds == 4, "%g, first %g", choice.seconds,
          choice.first_seconds);
    CHECK(all.round == CHOICE_ROUNDS + 1 && all.runs == 12, "%d rounds, %d runs", all.round, all.runs);

    InventedCandidates other = {{8, 7, 9, 7},
                                {4, 3, 1, 2.5}}; /* the fastest has other bits, and so has the first */
    choice = other.choose(1);
    CHECK(choice.candidate == 3 && choice.equal == 2, "%d of %d", choice.candidate, choice.equal);
    CHECK(choice.first_seconds == 4, "the first is timed for comparison: %g", choice.first_seconds);

    InventedCandidates tie = {{7, 7, 7}, {2.01, 1.999, 1.995}};
    CHECK(tie.choose(2).candidate == 0, "within 1 %% the earliest");
    InventedCandidates no_tie = {{7, 7, 7}, {2.03, 1.999, 1.995}};
    CHECK(no_tie.choose(2).candidate == 1, "2 %% are no tie");

    InventedCandidates noisy = {{7, 7, 7}, {4, 3, 3.5}, 2, true};
    choice = noisy.choose(0);
    CHECK(choice.candidate == 1 && choice.seconds == 3, "%d, %g s: the median is the fourth of seven",
          choice.candidate, choice.seconds);
}

static void test_cuda_choice_survives_candidates_that_fail(void) {
    InventedCandidates failing = {{0, 7, 0, 7}, {1, 3, 1, 2}};
    Choice choice = failing.choose(1);
    CHECK(choice.candidate == 3 && choice.equal == 2, "%d of %d", choice.candidate, choice.equal);
    CHECK(isnan(choice.first_seconds), "the first does not run, and took %g", choice.first_seconds);

    InventedCandidates unstable = {{7, 7, 7}, {3, 1, 2}};
    unstable.unstable = 1; /* the fastest does not repeat its bits */
    choice = unstable.choose(0);
    CHECK(choice.candidate == 2 && choice.equal == 2, "%d of %d", choice.candidate, choice.equal);

    InventedCandidates doubtful = {{7, 7, 7}, {3, 1, 2}};
    doubtful.unstable = 0; /* the reference does not repeat its bits, so no comparison means anything */
    choice = doubtful.choose(0);
    CHECK(choice.candidate == 0 && isnan(choice.seconds) && doubtful.round == 0, "%d, %g s in %d rounds",
          choice.candidate, choice.seconds, doubtful.round);

    for (int room = -1; room < 2; room++) {
        InventedCandidates poor = {{8, 7, 7}, {3, 2, 1}};
        poor.room = room;
        choice = poor.choose(1);
        CHECK(choice.candidate == 1 && choice.equal == 0 && poor.round == 0,
              "no memory after %d: %d of %d in %d rounds", room + 1, choice.candidate, choice.equal,
              poor.round);
    }
    InventedCandidates alone = {{7}, {3}};
    choice = alone.choose(0);
    CHECK(choice.candidate == 0 && choice.equal == 1 && choice.seconds == 3, "%d, %g s", choice.candidate,
          choice.seconds);
    InventedCandidates broken = {{7, 0}, {3, 2}};
    choice = broken.choose(1); /* the product itself will report that the reference does not run */
    CHECK(choice.candidate == 1 && choice.equal == 0, "%d of %d", choice.candidate, choice.equal);
}

template <typename F> static uint64_t fingerprint_of(const Buffer<F> &x, const Buffer<uint64_t> &scratch) {
    return fingerprint(scratch.data, x.data, x.n * sizeof(F), 0);
}

template <typename F> static void cuda_fingerprint(size_t n) {
    Buffer<uint64_t> scratch(FINGERPRINT_BLOCKS);
    Input<F> x(normal_floats(n, 1, 1));
    const uint64_t print = fingerprint_of(x, scratch);
    CHECK(fingerprint_of(x, scratch) == print, "%s %zu: not the same twice", type_name<F>(), n);
    std::vector<unsigned char> stored(n * sizeof(F));
    copy_to_host(stored.data(), x.data, stored.size(), 0);
    for (size_t bit = 0; bit < 8 * stored.size(); bit += stored.size() / 3 * 8 + 5) {
        std::vector<unsigned char> changed = stored;
        changed[bit / 8] = (unsigned char)(changed[bit / 8] ^ 1u << bit % 8);
        copy_to_device(x.data, changed.data(), changed.size(), 0);
        CHECK(fingerprint_of(x, scratch) != print, "%s %zu: the fingerprint does not depend on bit %zu",
              type_name<F>(), n, bit);
    }
    std::vector<unsigned char> exchanged = stored;
    std::swap_ranges(exchanged.begin(), exchanged.begin() + sizeof(F), exchanged.end() - sizeof(F));
    copy_to_device(x.data, exchanged.data(), exchanged.size(), 0);
    CHECK(n == 1 || fingerprint_of(x, scratch) != print,
          "%s %zu: the fingerprint is the same when the first and last are exchanged", type_name<F>(), n);
    device_wait(0);
}

static void test_cuda_fingerprint_depends_on_bits_and_positions(void) {
    cuda_fingerprint<float>(1), cuda_fingerprint<float>(300001), cuda_fingerprint<bf16>(7),
        cuda_fingerprint<bf16>(4002), cuda_fingerprint<bf16>(4003);
}

/* Returns how many of the 1600 results (40, 40), rounded to S, differ between two orders of the sum over k. */
template <typename S> static int count_differences(float mirror) {
    enum { N = 40, K = 66 };
    Buffer<bf16> a(N * K), b(K * N);
    choice_operand(a.data, N, K, true, 1, mirror, 1, 0);
    choice_operand(b.data, N, K, false, 0.5f, -mirror, 2, 0);
    const Floats x = download(a), y = download(b);
    int different = 0;
    for (int i = 0; i < N * N; i++) {
        double exact = 0;
        float there = 0, back = 0;
        for (int k = 0; k < K; k++) {
            exact += (double)x[(size_t)(i / N * K + k)] * y[(size_t)(k * N + i % N)];
            there += x[(size_t)(i / N * K + k)] * y[(size_t)(k * N + i % N)];
            back += x[(size_t)(i / N * K + K - 1 - k)] * y[(size_t)((K - 1 - k) * N + i % N)];
        }
        CHECK(mirror == 0 || exact == 0, "result %d does not cancel: %g", i, exact);
        different += host_float(host_round<S>(there)) != host_float(host_round<S>(back));
    }
    return different;
}

static void test_cuda_choice_operands_show_the_order_of_sums(void) {
    int n = count_differences<float>(0);
    CHECK(n > 400, "ordinary sums, float32: %d of 1600", n);
    n = count_differences<bf16>(0);
    CHECK(n < 50, "ordinary sums, bf16: %d of 1600; then the sums that cancel are not needed", n);
    n = count_differences<bf16>(1);
    CHECK(n > 300, "sums that cancel, bf16: %d of 1600", n);
}

static ProductTiming invented_timing(int64_t calls, int equal, double seconds, double first) {
    return {"matmul_forward", "", 8, 8, 8, 3, 1, calls, {0, equal, seconds, first}};
}

static void test_cuda_timings_give_one_line(void) {
    char text[160];
    CHECK(!*timings_note(text, {{}, 0}), "nothing was timed: %s", text);
    ProductTimings t = {
        {invented_timing(3, 5, 1, 2), invented_timing(1, 4, 3, 4), invented_timing(0, 4, 1, 99)}, 1.25};
    timings_note(text, t); /* weighted by calls, 6 s in place of 10 s; the third has no calls */
    CHECK(strcmp(text, "products: 2 shapes timed in 1.2 s; 40 % less time than cuBLASLt's first answers") ==
              0,
          "%s", text);
    t.products.push_back(invented_timing(1, 0, NAN, NAN));
    CHECK(strstr(timings_note(text, t), "answers; no room to time 1 more"), "%s", text);
    t.products = {invented_timing(1, 0, NAN, NAN)};
    CHECK(strcmp(timings_note(text, t), "products: no room to time 1 shapes") == 0, "%s", text);
}

#ifdef __CUDACC__
/* The products of a linear layer on a GPU, with and without gelu. */
template <typename S> struct LayerProducts {
    enum { N = 1024, K = 512, M = 768 };
    Input<S> x, w, dout, argument;
    Input<float> residual, gradient;
    LayerProducts()
        : x(normal_floats(N * K, 1, 1)), w(normal_floats(M * K, 0.05, 2)), dout(normal_floats(N * M, 1, 3)),
          argument(normal_floats(N * K, 1, 4)), residual(normal_floats(N * M, 1, 5)),
          gradient(normal_floats(M * K, 1, 6)) {}

    /* Computes all products and returns their results, in the order of names in check(). */
    std::vector<Floats> all() {
        std::vector<Floats> results;
        Buffer<S> out(N * M), up(N * M), dx(N * K);
        Buffer<float> sum(N * M);
        Input<float> dw(gradient.x);
        matmul_forward(out.data, (const S *)nullptr, x.data, w.data, N, K, M, 0);
        results.push_back(download(out));
        matmul_forward(sum.data, (const float *)residual.data, x.data, w.data, N, K, M, 0);
        results.push_back(download(sum));
        matmul_forward(sum.data, (const float *)nullptr, x.data, w.data, N, K, M, 0);
        results.push_back(download(sum));
        matmul_backward_input(dx.data, dout.data, w.data, N, K, M, 0);
        results.push_back(download(dx));
        matmul_backward_weight(dw.data, dout.data, x.data, N, K, M, true, 0);
        results.push_back(download(dw));
        matmul_gelu_forward(out.data, up.data, x.data, w.data, N, K, M, 0);
        results.push_back(download(out)), results.push_back(download(up));
        matmul_gelu_backward_input(dx.data, argument.data, dout.data, w.data, N, K, M, 0);
        results.push_back(download(dx));
        matmul_forward(out.data, (const S *)nullptr, x.data + 8, w.data, N - 1, K, M,
                       0); /* at a multiple of 16 bytes that is not one of 256 */
        results.push_back(download(out));
        return results;
    }
    /* Compares the first four rows of each result with float64; of the gradient of the weights, the first four
       columns. */
    void check(const std::vector<Floats> &got) const {
        const char *const names[] = {"out", "out + residual", "float32 out", "dx",
                                     "dw",  "hidden",         "up",          "dup"};
        auto up_at = [&](size_t n, size_t m) {
            double sum = 0;
            for (size_t k = 0; k < K; k++) sum += (double)x.x[n * K + k] * w.x[m * K + k];
            return sum;
        };
        auto gelu = [](double y) {
            return 0.5 * y * (1 + tanh(0.7978845608028654 * (y + 0.044715 * y * y * y)));
        };
        Doubles want[8];
        Floats part[8];
        for (size_t n = 0; n < 4; n++)
            for (size_t m = 0; m < M; m++) {
                const double sum = up_at(n, m);
                const double values[] = {sum, sum + residual.x[n * M + m], sum, 0, 0, gelu(sum), sum};
                for (int r : {0, 1, 2, 5, 6}) {
                    want[r].push_back(values[r]);
                    part[r].push_back(got[(size_t)r][n * M + m]);
                }
            }
        for (size_t n = 0; n < 4; n++)
            for (size_t k = 0; k < K; k++) {
                double sum = 0, at = argument.x[n * K + k], h = 1e-6;
                for (size_t m = 0; m < M; m++) sum += (double)dout.x[n * M + m] * w.x[m * K + k];
                want[3].push_back(sum), part[3].push_back(got[3][n * K + k]);
                want[7].push_back(sum * (gelu(at + h) - gelu(at - h)) / (2 * h));
                part[7].push_back(got[7][n * K + k]);
            }
        for (size_t m = 0; m < M; m++)
            for (size_t k = 0; k < 4; k++) {
                double sum = gradient.x[m * K + k];
                for (size_t n = 0; n < N; n++) sum += (double)dout.x[n * M + m] * x.x[n * K + k];
                want[4].push_back(sum), part[4].push_back(got[4][m * K + k]);
            }
        for (int r = 0; r < 8; r++) {
            const bool rounded = r != 1 && r != 2 && r != 4;
            const double error = error_of(part[r], want[r]);
            CHECK(error <= (rounded ? 1e-5 : 1e-11), "%s: normalised mean squared error %.3g", names[r],
                  error);
        }
    }
};

static void test_cuda_timed_products_keep_their_bits(void) {
    const MatmulTuning before = matmul_tuning;
    const size_t known = matmul_timings().products.size();
    LayerProducts<bf16> layer;
    matmul_tuning.wanted = false;
    const std::vector<Floats> reference = layer.all();
    layer.check(reference);
    CHECK(matmul_timings().products.size() == known, "timed, although matmul_tuning.wanted is false");
    matmul_tuning = {true, 0, 0};
    const std::vector<Floats> timed = layer.all();
    const ProductTimings timings = matmul_timings();
    matmul_tuning = before;
    CHECK(timings.products.size() == known + 8, "%zu shapes timed", timings.products.size() - known);
    for (size_t r = 0; r < timed.size(); r++)
        CHECK(memcmp(timed[r].data(), reference[r].data(), timed[r].size() * sizeof(float)) == 0,
              "result %zu has other bits once its product is timed", r);
    for (size_t i = known; i < timings.products.size(); i++) {
        const ProductTiming &p = timings.products[i];
        CHECK(p.choice.equal >= 1 && p.choice.seconds > 0, "%s %s: %d candidates with its bits, %g s", p.name,
              p.epilogue, p.choice.equal, p.choice.seconds);
    }
}

static void test_cuda_products_without_room_are_not_timed(void) {
    const MatmulTuning before = matmul_tuning;
    const size_t known = matmul_timings().products.size();
    enum { N = 512, K = 256 };
    Input<bf16> x(normal_floats(N * K, 1, 1)), w(normal_floats(K * K, 1, 2));
    Buffer<bf16> out(N * K);
    matmul_tuning = {true, 0, SIZE_MAX / 2};
    matmul_forward(out.data, (const bf16 *)nullptr, x.data, w.data, N, K, K, 0);
    matmul_tuning = before;
    const ProductTimings timings = matmul_timings();
    CHECK(timings.products.size() == known + 1 && timings.products.back().choice.equal == 0,
          "%zu products, of which the last has %d equal candidates", timings.products.size(),
          timings.products.back().choice.equal);
}
#define CUDA_MATMUL_GPU_TESTS(TEST)                                                                          \
    TEST(cuda_timed_products_keep_their_bits)                                                                \
    TEST(cuda_products_without_room_are_not_timed)
#else
#define CUDA_MATMUL_GPU_TESTS(TEST)
#endif

#define CUDA_MATMUL_TESTS(TEST)                                                                              \
    TEST(cuda_choice_takes_the_fastest_of_equal_bits)                                                        \
    TEST(cuda_choice_survives_candidates_that_fail)                                                          \
    TEST(cuda_fingerprint_depends_on_bits_and_positions)                                                     \
    TEST(cuda_choice_operands_show_the_order_of_sums)                                                        \
    TEST(cuda_timings_give_one_line)                                                                         \
    CUDA_MATMUL_GPU_TESTS(TEST)

#endif
