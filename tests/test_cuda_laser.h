/* Tests of cuda/attention.cuh and of all its kernels against the naive functions of laser.h in float64: with sizes
   that are not multiples of tiles, and, for LASER's contract, with values for which a careless implementation
   overflows. */
#ifndef TESTS_TEST_CUDA_LASER_H
#define TESTS_TEST_CUDA_LASER_H

#include "../cuda/attention.cuh"
#include "test_cuda.h"

/* The inputs and the results of one call of attention, forward and backward. */
struct Problem {
    int B, T, H, D;
    AttentionKind kind;
    LaserShift shift;
    size_t A, qkv_size, out_size;
    Floats qkv, dout;             /* (B, T, 3, H, D), (B, T, H, D): inputs */
    Floats out, lse, dqkv;        /* (B, T, H, D), (B, H, T), (B, T, 3, H, D): results of run() */
    Floats rope_cos_sin;          /* (T, D/2, 2), or empty: without rope */
    Doubles out64, lse64, dqkv64; /* results of naive() */

    Problem(int B_, int T_, int H_, int D_, AttentionKind kind_, uint64_t seed, double spread)
        : B(B_), T(T_), H(H_), D(D_), kind(kind_), shift(LASER_SHIFT_CAUSAL), A((size_t)H_ * (size_t)D_),
          qkv_size(3 * A * (size_t)(B_ * T_)), out_size(A * (size_t)(B_ * T_)),
          qkv(normal_floats(qkv_size, spread, seed)), dout(normal_floats(out_size, 1, seed + 1)) {}

    /* An element of q, k or v (part 0, 1 or 2): token t of all B * T, column c of H * D. */
    float &at(int t, int part, int c) { return qkv[((size_t)t * 3 + (size_t)part) * A + (size_t)c]; }

    template <typename S> void run() {
        const AttentionSizes s = {B, T, H, D, (int64_t)(3 * A), (int64_t)A, 1 / sqrtf((float)D), kind, shift};
        Buffer<S> qkv_(qkv_size), dout_(out_size), out_(out_size), dqkv_(qkv_size);
        Buffer<float> lse_((size_t)(B * H * T)), rope_cos_sin_(rope_cos_sin.size());
        Buffer<uint16_t> low_bits(kind == ATTENTION_LASER ? out_size : 0);
        Buffer<LaserColumn> columns(attention_columns(s));
        Buffer<char> work(attention_work_size(s)), other_work(attention_work_size(s));
        upload(qkv_, qkv), upload(dout_, dout), upload(rope_cos_sin_, rope_cos_sin);
        poison(out_), poison(dqkv_), poison(lse_), poison(work), poison(other_work);
        S *q = qkv_.data, *dq = dqkv_.data;
        attention_forward(out_.data, low_bits.data, lse_.data, columns.data, q, q + A, q + 2 * A, work.data,
                          s, 0);
        /* In a model all layers share the scratch memory, so backward must not need what its own forward left there. */
        attention_backward(dq, dq + A, dq + 2 * A, dout_.data, q, q + A, q + 2 * A, out_.data, low_bits.data,
                           lse_.data, columns.data, rope_cos_sin.empty() ? nullptr : rope_cos_sin_.data,
                           other_work.data, s, 0);
        out = download(out_), lse = download(lse_), dqkv = download(dqkv_);
        if (sizeof(S) == 2 && kind == ATTENTION_LASER) add_low_bits(low_bits);
    }

    /* Adds to out, which has been rounded to bf16, the low bits that rounding cut off. */
    void add_low_bits(const Buffer<uint16_t> &low_bits) {
        std::vector<uint16_t> low(out_size);
        copy_to_host(low.data(), low_bits.data, out_size * sizeof(uint16_t), 0);
        for (size_t i = 0; i < out_size; i++) {
            uint32_t bits;
            memcpy(&bits, &out[i], sizeof bits);
            bits += (uint32_t)(int32_t)(int16_t)low[i];
            memcpy(&out[i], &bits, sizeof bits);
        }
    }

    void naive() {
        LaserShape shape;
        memset(&shape, 0, sizeof shape);
        shape.batch = B, shape.seq_len = T, shape.heads = H, shape.head_dim = D,
        shape.kind = kind == ATTENTION_LASER ? LASER_KIND_LASER : LASER_KIND_STANDARD, shape.shift = shift;
        const ptrdiff_t a = (ptrdiff_t)A, qkv_strides[3] = {3 * a * T, 3 * a, D},
                        out_strides[3] = {a * T, a, D};
        memcpy(shape.qkv_strides, qkv_strides, sizeof qkv_strides),
            memcpy(shape.out_strides, out_strides, sizeof out_strides);
        const Doubles x = to_doubles(qkv), g = to_doubles(dout);
        out64.assign(out_size, 0), lse64.assign((size_t)(B * H * T), 0), dqkv64.assign(qkv_size, 0);
        laser_forward_naive(out64.data(), lse64.data(), &x[0], &x[A], &x[2 * A], &shape);
        laser_backward_naive(&dqkv64[0], &dqkv64[A], &dqkv64[2 * A], g.data(), &x[0], &x[A], &x[2 * A],
                             out64.data(), lse64.data(), &shape);
        for (size_t i = 0; i < qkv_size && !rope_cos_sin.empty();
             i++) { /* rope's backward of each pair (d, d + D/2) */
            const size_t half = (size_t)D / 2, d = i % (size_t)D, t = i / (3 * A) % (size_t)T;
            if (i / A % 3 == 2 || d >= half) continue;
            const double cosine = rope_cos_sin[t * (size_t)D + 2 * d],
                         sine = rope_cos_sin[t * (size_t)D + 2 * d + 1], left = dqkv64[i],
                         right = dqkv64[i + half];
            dqkv64[i] = left * cosine + right * sine, dqkv64[i + half] = right * cosine - left * sine;
        }
    }

    void use_rope() {
        rope_cos_sin.resize((size_t)(T * D));
        for (int t = 0; t < T; t++)
            for (int d = 0; d < D / 2; d++) {
                const double angle = t * pow(10000, -2.0 * d / D);
                rope_cos_sin[(size_t)(t * D + 2 * d)] = (float)cos(angle),
                                                  rope_cos_sin[(size_t)(t * D + 2 * d + 1)] =
                                                      (float)sin(angle);
            }
    }

    double gradient_error(size_t part) const {
        Floats got;
        Doubles want;
        for (size_t i = 0; i < qkv_size; i++)
            if (i / A % 3 == part) got.push_back(dqkv[i]), want.push_back(dqkv64[i]);
        return error_of(got, want);
    }

    template <typename S> void check(double bound, const char *what) {
        run<S>();
        naive();
        const double errors[5] = {error_of(out, out64), error_of(lse, lse64), gradient_error(0),
                                  gradient_error(1), gradient_error(2)};
        static const char *const names[] = {"out", "lse", "dq", "dk", "dv"};
        for (int i = 0; i < 5; i++) {
            if (T == 1 && (i == 2 || i == 3))
                continue; /* with one key, dq and dk are zero except for rounding */
            CHECK(errors[i] <= bound,
                  "%s (B %d T %d H %d D %d, kind %d, shift %d, %s): %s error %.3g, allowed %.3g", what, B, T,
                  H, D, (int)kind, (int)shift, type_name<S>(), names[i], errors[i], bound);
        }
    }
};

/* Calls test(D) for each head size that has kernels for tensor cores, once with the kernels that this GPU uses. For
   heads of 64, if these are the kernels for compute capability 9.0, it is called again with those of
   attention_mma.cuh. There heads of 128 have the same code with a longer loop, so they are not tested again. */
template <typename Test> static void for_each_kernel(Test test) {
#ifdef EMULATE_ASAN /* the sanitizer is slow, and other tests use heads of 128 with it */
    static const int head_dims[] = {32, 64};
#else
    static const int head_dims[] = {32, 64, 128};
#endif
    for (int D : head_dims)
        for (int without = 0; without < (D == 64 && hopper_is_available() ? 2 : 1); without++) {
            attention_without_hopper = without;
            test(D);
            attention_without_hopper = false;
        }
}

template <typename S> static void cuda_attention_sizes(double bound) {
    static const int sizes[][4] = {/* B T H D */ {1, 1, 1, 32},
                                   {2, 2, 1, 32},
                                   {1, 63, 2, 32},
                                   {1, 64, 1, 64},
                                   {2, 65, 1, 32},
                                   {1, 130, 2, 64},
                                   {1, 150, 1, 128},
                                   {1, 40, 2, 20},
                                   {2, 129, 1, 64},
                                   {1, 300, 2, 128}};
    for (size_t z = 0; z < sizeof sizes / sizeof *sizes; z++)
        for (int kind = 0; kind < 2; kind++)
            for (int shift = 0; shift <= kind; shift++) {
                Problem p(sizes[z][0], sizes[z][1], sizes[z][2], sizes[z][3], (AttentionKind)kind, z, 1);
                p.shift = (LaserShift)shift;
                if (z % 2) p.use_rope();
                p.check<S>(bound, p.rope_cos_sin.empty() ? "normal values" : "normal values, rope");
                if (sizeof(S) == 4 || p.D < 64 || !hopper_is_available()) continue;
                attention_without_hopper = true;
                p.check<S>(bound, "normal values, mma.sync");
                attention_without_hopper = false;
            }
}

static void test_cuda_attention_bf16_matches_float64(void) { cuda_attention_sizes<bf16>(1e-4); }
static void test_cuda_attention_fp32_matches_float64(void) { cuda_attention_sizes<float>(1e-10); }

static bool floats_finite(const Floats &x) {
    for (float y : x)
        if (!isfinite(y)) return false;
    return true;
}

/* Each block computes many pieces of work, and both forward kernels are used: that for long sequences and that for
   short ones. */
static void test_cuda_attention_of_many_tiles_matches_float64(void) {
    const int most = hopper_pingpong_max_tokens, blocks = hopper_max_blocks;
    hopper_max_blocks = 2;
    for (int kind = 0; kind < 2; kind++)
        for (int D = 64; D <= 128; D += 64)
            for (int pingpong = 0; pingpong < 2; pingpong++) {
                Problem p(1, 300, D == 64 ? 4 : 2, D, (AttentionKind)kind, 14, 1);
                hopper_pingpong_max_tokens = pingpong ? most : 0;
                p.check<bf16>(1e-4, pingpong ? "many tiles" : "many tiles, without PINGPONG");
            }
    hopper_pingpong_max_tokens = most, hopper_max_blocks = blocks;
}

/* Values up to 1e4: all equal, of mixed signs, rising, falling, and with large scores. */
template <typename S> static void cuda_attention_finite(int D) {
    enum { T = 90, H = 1 };
    for (int pattern = 0; pattern < 6; pattern++)
        for (int shift = 0; shift < 2; shift++) {
            Problem p(1, T, H, D, ATTENTION_LASER, 7, 1);
            p.shift = (LaserShift)shift;
            for (int t = 0; t < T; t++)
                for (int c = 0; c < D * H; c++) {
                    const float sign = (t * 7 + c) % 3 ? 1.0f : -1.0f;
                    float &v = p.at(t, 2, c);
                    v = pattern == 0   ? 1e4f
                        : pattern == 1 ? sign * 1e4f
                        : pattern == 2 ? (float)t * 200 - 1e4f
                        : pattern == 3 ? 1e4f - (float)t * 200
                        : pattern == 4 ? v * 40
                                       : sign * 1e4f;
                    if (pattern == 5) p.at(t, 0, c) *= 300, p.at(t, 1, c) *= 300;
                }
            p.run<S>();
            p.naive();
            CHECK(floats_finite(p.out) && floats_finite(p.lse) && floats_finite(p.dqkv),
                  "pattern %d shift %d, %s gives a NaN or an infinity", pattern, shift, type_name<S>());
            const double bound = sizeof(S) == 2 ? 1e-4 : 1e-10, error = error_of(p.out, p.out64);
            CHECK(error <= bound, "pattern %d shift %d, %s: out error %.3g, allowed %.3g", pattern, shift,
                  type_name<S>(), error, bound);
        }
}

static void test_cuda_laser_stays_finite(void) {
    for_each_kernel(cuda_attention_finite<bf16>), cuda_attention_finite<float>(32);
}

/* Some columns are out of range and others are not, and some rows see only values within the window. The gradients
   must match too, also those of q and k before rope. */
static void test_cuda_laser_columns_out_of_range_match_float64(void) {
    for (int T = 20; T <= 140; T += 60)
        for (int shift = 0; shift < 2; shift++) {
            auto problem = [&](int D) {
                Problem p(2, T, 2, D, ATTENTION_LASER, 8, 1);
                p.shift = (LaserShift)shift;
                for (int t = 0; t < 2 * T; t++)
                    for (int c = 0; c < 2 * D; c += 3) p.at(t, 2, c) += (float)((t * 37 + c) % 11) * 30 - 150;
                if (T == 80) p.use_rope();
                return p;
            };
            for_each_kernel([&](int D) { problem(D).check<bf16>(1e-4, "columns 300 wide"); });
            problem(32).check<float>(shift ? 1e-8 : 1e-10, "columns 300 wide");
        }
}

/* One key in the middle of a tile is outside the window: the rows before it are computed on tensor cores, the others
   not. */
static void test_cuda_laser_late_key_out_of_range_matches_float64(void) {
    for (int key = 1; key < 140; key += 46)
        for_each_kernel([&](int D) {
            Problem p(1, 140, 1, D, ATTENTION_LASER, 9, 1);
            p.at(key, 2, 3) = 500, p.at(key, 2, 7) = -500;
            p.check<bf16>(1e-4, "one value of 500");
        });
}

/* Values so small that exp(v), rounded to bf16, would be 1 or nearly 1: results must keep their digits. */
static void test_cuda_laser_small_values_match_float64(void) {
    for (int shift = 0; shift < 2; shift++) {
        auto problem = [&](int D) {
            Problem p(1, 140, 2, D, ATTENTION_LASER, 11, 1);
            p.shift = (LaserShift)shift;
            for (int t = 0; t < 140; t++)
                for (int c = 0; c < 2 * D; c++) p.at(t, 2, c) *= 0.05f;
            return p;
        };
        for_each_kernel([&](int D) { problem(D).check<bf16>(1e-4, "values of 0.05"); });
        problem(32).check<float>(2e-10, "values of 0.05");
    }
}

/* The values of each column are near 300 or -300, and within the window around their first value. */
static void test_cuda_laser_values_far_from_zero_match_float64(void) {
    auto problem = [](int D) {
        Problem p(1, 100, 1, D, ATTENTION_LASER, 12, 1);
        for (int t = 0; t < 100; t++)
            for (int c = 0; c < D; c++) p.at(t, 2, c) = p.at(t, 2, c) * 5 + (c % 2 ? 300.0f : -300.0f);
        return p;
    };
    for_each_kernel([&](int D) { problem(D).check<bf16>(1e-4, "values around 300"); });
    problem(64).check<float>(1e-9, "values around 300");
}

template <typename S> static void cuda_row_zero(int D, float allowed) {
    Problem p(2, 77, 2, D, ATTENTION_LASER, 9, 3);
    p.at(50, 2, 4) = 1e4f;
    p.run<S>();
    for (int b = 0; b < 2; b++)
        for (int c = 0; c < 2 * D; c++) {
            const float v0 = p.at(b * 77, 2, c), o0 = p.out[(size_t)b * 77 * p.A + (size_t)c];
            CHECK(fabsf(o0 - v0) <= allowed * (1 + fabsf(v0)), "%s D %d column %d: %.8g, v0 %.8g",
                  type_name<S>(), D, c, o0, v0);
        }
}

static void test_cuda_laser_row_zero_returns_v0(void) {
    for_each_kernel([](int D) { cuda_row_zero<bf16>(D, 1e-5f); });
    cuda_row_zero<float>(32, 2e-6f);
}

/* Row t must keep its bits when tokens after t change, also to values of 1e4. */
template <typename S> static void cuda_rows_do_not_see_the_future(int D) {
    enum { T = 140, H = 2 };
    for (int kind = 0; kind < 2; kind++) {
        Problem p(1, T, H, D, (AttentionKind)kind, 10, 1);
        p.run<S>();
        const Floats before = p.out;
        for (int changed = 0; changed < 3; changed++) {
            const int t = changed == 0 ? T - 1 : changed == 1 ? 64 : 31;
            for (int part = 0; part < 3; part++)
                for (int c = 0; c < H * D; c++) p.at(t, part, c) = part == 2 ? 1e4f : 5.0f;
            p.run<S>();
            for (size_t i = 0; i < (size_t)t * p.A; i++)
                CHECK(p.out[i] == before[i], "kind %d, %s: token %d changed row %zu from %.8g to %.8g", kind,
                      type_name<S>(), t, i / p.A, before[i], p.out[i]);
        }
    }
}

static void test_cuda_attention_rows_do_not_see_the_future(void) {
    for_each_kernel(cuda_rows_do_not_see_the_future<bf16>);
    cuda_rows_do_not_see_the_future<float>(32);
}

/* A NaN in q, k or v must reach the output; LASER's logarithm once replaced it by its least number. The rows before
   its token must stay finite, except with the paper's shift, which depends on the whole sequence. */
static void test_cuda_laser_shows_nan(void) {
    enum { T = 140, TOKEN = 70, COLUMN = 5 };
    for (int shift = 0; shift < 2; shift++)
        for (int part = 0; part < 3; part++)
            for_each_kernel([&](int D) {
                Problem p(1, T, 1, D, ATTENTION_LASER, 15, 1);
                p.shift = (LaserShift)shift;
                p.at(TOKEN, part, COLUMN) = NAN;
                p.run<bf16>();
                const float at = p.out[(size_t)(TOKEN * D + COLUMN)];
                CHECK(!isfinite(at), "D %d shift %d, NaN in part %d: %g", D, shift, part, at);
                for (size_t i = 0; i < (size_t)(TOKEN * D) && shift == 0; i++)
                    CHECK(isfinite(p.out[i]), "D %d, NaN in part %d: row %zu is %g", D, part, i / (size_t)D,
                          p.out[i]);
            });
}

/* Scores of +-1e4: in most rows one key has all the weight. */
static void test_cuda_attention_large_scores_match_float64(void) {
    for (int kind = 0; kind < 2; kind++)
        for_each_kernel([&](int D) {
            Problem p(1, 90, 2, D, (AttentionKind)kind, 12, 1);
            for (int t = 0; t < 90; t++)
                for (int c = 0; c < 4 * D; c++) p.at(t, c / (2 * D), c % (2 * D)) *= 100;
            p.run<bf16>();
            p.naive();
            const double errors[2] = {error_of(p.out, p.out64), p.gradient_error(2)};
            CHECK(errors[0] <= 1e-4 && errors[1] <= 1e-4, "kind %d D %d: out error %.3g, dv error %.3g", kind,
                  D, errors[0], errors[1]);
        });
}

#ifndef __CUDACC__
/* Because the chunks of a tile are permuted, no two rows of an ldmatrix are in the same bank. */
static void test_cuda_tiles_have_no_bank_conflicts(void) {
    for (int D = 32; D <= 128; D *= 2) {
        Problem p(1, 70, 1, D, ATTENTION_LASER, 13, 1);
        emulate::state.bank_conflicts = 0;
        attention_without_hopper = true;
        p.run<bf16>();
        attention_without_hopper = false;
        CHECK(emulate::state.bank_conflicts == 0, "D %d: %ld rows collide", D, emulate::state.bank_conflicts);
    }
}
#define CUDA_EMULATED_LASER_TESTS(TEST) TEST(cuda_tiles_have_no_bank_conflicts)
#else
#define CUDA_EMULATED_LASER_TESTS(TEST)
#endif

static void attention_of_a_kind_without_kernels(void *) {
    attention_work_size({1, 1, 1, 1, 3, 1, 1, ATTENTION_KIND_COUNT, LASER_SHIFT_CAUSAL});
}

/* The trainer calls attention_is_available at its start. A program that does not call it must end with an error and not
   compute another kind of attention. */
static void test_cuda_attention_without_kernels_is_refused(void) {
    char output[512];
    CHECK(attention_is_available(ATTENTION_STANDARD) && attention_is_available(ATTENTION_LASER),
          "standard or laser has no row in the table of cuda/attention.cuh");
    CHECK(!attention_is_available(ATTENTION_KIND_COUNT), "a kind that does not exist has a row");
    const int code = test_death(attention_of_a_kind_without_kernels, nullptr, output, sizeof output);
    CHECK(code == 1 && strstr(output, "has no row in cuda/attention.cuh"), "exit %d: %s", code, output);
}

#define CUDA_LASER_TESTS(TEST)                                                                               \
    TEST(cuda_attention_bf16_matches_float64)                                                                \
    TEST(cuda_attention_fp32_matches_float64)                                                                \
    TEST(cuda_attention_of_many_tiles_matches_float64)                                                       \
    TEST(cuda_laser_stays_finite)                                                                            \
    TEST(cuda_laser_columns_out_of_range_match_float64)                                                      \
    TEST(cuda_laser_late_key_out_of_range_matches_float64)                                                   \
    TEST(cuda_laser_small_values_match_float64)                                                              \
    TEST(cuda_laser_values_far_from_zero_match_float64)                                                      \
    TEST(cuda_laser_row_zero_returns_v0)                                                                     \
    TEST(cuda_attention_rows_do_not_see_the_future)                                                          \
    TEST(cuda_laser_shows_nan)                                                                               \
    TEST(cuda_attention_large_scores_match_float64)                                                          \
    TEST(cuda_attention_without_kernels_is_refused)                                                          \
    CUDA_EMULATED_LASER_TESTS(TEST)

#endif
