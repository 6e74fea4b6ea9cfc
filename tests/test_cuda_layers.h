/* Tests of the other kernels (cuda/layers.cuh, loss.cuh, optimizer.cuh, matmul.cuh) against float64, in float32 and
   in bf16, with sizes that are not multiples of blocks. An array to which a kernel adds has numbers in it before. */
#ifndef TESTS_TEST_CUDA_LAYERS_H
#define TESTS_TEST_CUDA_LAYERS_H

#include "../cuda/layers.cuh"
#include "../cuda/loss.cuh"
#include "../cuda/matmul.cuh"
#include "../cuda/optimizer.cuh"
#include "test_cuda.h"

template <typename S> static double cuda_bound() { return sizeof(S) == 2 ? 1e-5 : 1e-12; }

static std::vector<int32_t> test_tokens(size_t n, int V) {
    std::vector<int32_t> tokens(n);
    for (size_t i = 0; i < n; i++) /* half of the tokens are 3 */
        tokens[i] = i % 2 ? 3 : (int32_t)(rng_bits(5, RNG_STREAM_TEST, i) % (uint64_t)V);
    return tokens;
}

static void check_cuda(const Floats &got, const Doubles &want, double bound, const char *what) {
    const double error = error_of(got, want);
    CHECK(error <= bound, "%s: normalised mean squared error %.3g, allowed %.3g", what, error, bound);
}

/* An array of SplitFloats on the device. */
template <typename S> struct TestSplitFloats {
    Buffer<S> rounded;
    Buffer<int16_t> rest;
    explicit TestSplitFloats(const Floats &x) : rounded(x.size()), rest(x.size()) {
        Floats near = x;
        upload(rounded, near);
        std::vector<int16_t> rests(x.size());
        for (size_t i = 0; i < x.size(); i++) {
            const int64_t difference = (int64_t)bits_of(x[i]) - (int64_t)bits_of(near[i]);
            rests[i] = (int16_t)(difference > 32767 ? 32767 : difference);
        }
        copy_to_device(rest.data, rests.data(), rests.size() * sizeof(int16_t), 0);
        device_wait(0);
    }
    static uint32_t bits_of(float x) {
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    }
    SplitFloats<S> parts() const {
        return SplitFloats<S>{rounded.data, sizeof(S) == 2 ? rest.data : nullptr};
    }
    Floats values() const {
        Floats x = download(rounded);
        std::vector<int16_t> rests(x.size());
        copy_to_host(rests.data(), rest.data, x.size() * sizeof(int16_t), 0);
        for (size_t i = 0; i < x.size() && sizeof(S) == 2; i++) {
            const uint32_t bits = bits_of(x[i]) + (uint32_t)(int32_t)rests[i];
            memcpy(&x[i], &bits, sizeof bits);
        }
        return x;
    }
};

/* back = x, after it has been stored as SplitFloats and loaded again; W numbers a thread. */
template <typename S, int W>
__global__ void split_floats_kernel(SplitFloats<S> parts, float *back, const float *x) {
    const int64_t i = threadIdx.x * W;
    float y[W];
    load(y, x + i), store(parts, i, y);
    load(y, parts, i), store(back + i, y);
}

/* Every float32 keeps its bits, except ties that are rounded down, which lose their last bit. */
static void test_cuda_split_floats_are_exact(void) {
    const std::vector<uint32_t> odd = {0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00000001,
                                       0x3F808000, 0x3F818000, 0xBF808000, 0x3F807FFF, 0x3F808001, 0x7FC00000,
                                       0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001};
    enum { N = 4 * WARP_SIZE };
    Floats x = normal_floats(N, 1, 1);
    memcpy(x.data(), odd.data(), odd.size() * sizeof(float));
    Buffer<float> from(N), back(N);
    copy_to_device(from.data, x.data(), N * sizeof(float), 0);
    for (int wide = 0; wide < 2; wide++) {
        TestSplitFloats<bf16> split(Floats(N, 0.0f));
        if (wide)
            LAUNCH((split_floats_kernel<bf16, 4>), dim3(1), dim3(N / 4), 0, 0, split.parts(), back.data,
                   (const float *)from.data);
        else
            LAUNCH((split_floats_kernel<bf16, 1>), dim3(1), dim3(N), 0, 0, split.parts(), back.data,
                   (const float *)from.data);
        const Floats got = download(back), near = download(split.rounded), values = split.values();
        for (size_t i = 0; i < N; i++) {
            const uint32_t bits = split.bits_of(x[i]), tie = (bits & 0x1FFFF) == 0x8000;
            CHECK(isnan(x[i]) ? isnan(got[i]) : split.bits_of(got[i]) == bits - tie,
                  "%.9g (%08x) came back as %.9g (%08x)", x[i], bits, got[i], split.bits_of(got[i]));
            CHECK(isnan(x[i]) || (near[i] == host_float(host_round<bf16>(x[i])) && values[i] == got[i]),
                  "%.9g is %.9g as an operand of products, and %.9g with the rest", x[i], near[i], values[i]);
        }
    }
}

template <typename S> static void cuda_embedding() {
    enum { B = 3, T = 21, N = B * T, C = 150, V = 40 };
    Input<float> embed(normal_floats(V * C, 1, 1)), position(normal_floats(T * C, 1, 2)),
        dembed(normal_floats(V * C, 1, 4)), dposition(normal_floats(T * C, 1, 5));
    const TestSplitFloats<S> dout(normal_floats(N * C, 1, 3));
    const Floats dout_x = dout.values();
    const std::vector<int32_t> tokens = test_tokens(N, V);
    Buffer<int32_t> ids(N), place(N), first(N + 1);
    Buffer<float> out(N * C);
    copy_to_device(ids.data, tokens.data(), N * sizeof(int32_t), 0);
    Doubles want(N * C), dwant = to_doubles(dembed.x), pwant = to_doubles(dposition.x);
    for (size_t i = 0; i < N * C; i++) {
        const size_t row = (size_t)tokens[i / C] * C + i % C, place_row = i % (T * C);
        want[i] = (double)embed.x[row] + position.x[place_row];
        dwant[row] += dout_x[i], pwant[place_row] += dout_x[i];
    }
    embedding_forward(out.data, ids.data, embed.data, position.data, N, T, C, 0);
    check_cuda(download(out), want, 1e-12, "out");
    std::vector<int32_t> host_place(N), host_first(N + 1), count(V);
    TokenBuckets buckets = {host_place.data(), host_first.data(), 0};
    token_buckets(&buckets, tokens.data(), N, V, count.data());
    copy_to_device(place.data, host_place.data(), N * sizeof(int32_t), 0);
    copy_to_device(first.data, host_first.data(), (N + 1) * sizeof(int32_t), 0);
    buckets.place = place.data, buckets.first = first.data;
    embedding_backward(dembed.data, dout.parts(), ids.data, buckets, C, 0);
    check_cuda(download(dembed), dwant, 1e-12, "dembed");
    position_backward(dposition.data, dout.parts(), B, T, C, true, 0);
    check_cuda(download(dposition), pwant, 1e-12, "dposition");
    position_backward(dposition.data, dout.parts(), B, T, C, false, 0);
    for (size_t i = 0; i < T * C; i++) pwant[i] -= dposition.x[i];
    check_cuda(download(dposition), pwant, 1e-12, "dposition, written");
}

static void test_cuda_embedding_matches_float64(void) { cuda_embedding<float>(), cuda_embedding<bf16>(); }

/* Two norms of the same x: the first adds to dx and dweight, the second writes them. */
template <typename S> static void cuda_rmsnorm(int64_t N, int C) {
    const size_t n = (size_t)(N * C);
    Input<float> x(normal_floats(n, 2, 1)), weight(normal_floats((size_t)C, 1, 2));
    const TestSplitFloats<S> dx(normal_floats(n, 1, 4)), dx_alone(Floats(n, NAN));
    const Floats dx_before = dx.values();
    Input<float> dweight(normal_floats((size_t)C, 1, 5));
    Input<S> dout(normal_floats(n, 1, 3));
    Buffer<S> out(n);
    Buffer<float> rstd((size_t)N), partial((size_t)(2 * rmsnorm_chunks(N) * C)), dweight_alone((size_t)C);
    Doubles want(n), dwant = to_doubles(dx_before), wwant = to_doubles(dweight.x), wwant_alone((size_t)C);
    for (int64_t t = 0; t < N; t++) {
        const size_t row = (size_t)(t * C);
        double squares = 0, dot = 0;
        for (int c = 0; c < C; c++) squares += (double)x.x[row + c] * x.x[row + c];
        const double r = 1 / sqrt(squares / C + 1e-6);
        for (int c = 0; c < C; c++) dot += (double)dout.x[row + c] * weight.x[c] * x.x[row + c];
        for (int c = 0; c < C; c++) {
            want[row + c] = x.x[row + c] * r * weight.x[c];
            dwant[row + c] += r * ((double)dout.x[row + c] * weight.x[c] - x.x[row + c] * r * r * dot / C);
            wwant_alone[c] += (double)dout.x[row + c] * x.x[row + c] * r;
        }
    }
    for (int c = 0; c < C; c++) wwant[c] += wwant_alone[c];
    rmsnorm_forward(out.data, rstd.data, x.data, weight.data, N, C, 0);
    float *second = partial.data + rmsnorm_chunks(N) * C;
    rmsnorm_backward(dx.parts(), partial.data, dout.data, x.data, rstd.data, weight.data, N, C, true, 0);
    rmsnorm_backward(dx_alone.parts(), second, dout.data, x.data, rstd.data, weight.data, N, C, false, 0);
    rmsnorm_backward_weight(dweight.data, nullptr, partial.data, N, C, true, 0);
    check_cuda(download(out), want, cuda_bound<S>(), "out");
    check_cuda(dx.values(), dwant, 1e-12, "dx");
    check_cuda(download(dx.rounded), dwant, cuda_bound<S>(), "dx as operand");
    Floats added = dx_alone.values();
    for (size_t i = 0; i < n; i++) added[i] += dx_before[i];
    check_cuda(added, dwant, 1e-12, "dx, written");
    check_cuda(download(dweight), wwant, 1e-12, "dweight");
    rmsnorm_backward_weight(dweight.data, dweight_alone.data, partial.data, N, C, false, 0);
    check_cuda(download(dweight), wwant_alone, 1e-12, "dweight, written");
    CHECK(download(dweight) == download(dweight_alone), "N %d C %d: two norms at once differ", (int)N, C);
}

/* Rows that fit into registers, for each number of pieces a lane, full and not full; rows that do not fit, because
   their length is not a multiple of 4 or too large; more tokens than a block has warps, and more than all blocks
   compute at a time. */
static void test_cuda_rmsnorm_matches_float64(void) {
    cuda_rmsnorm<float>(1, 1), cuda_rmsnorm<float>(131, 77), cuda_rmsnorm<bf16>(65, 300);
    cuda_rmsnorm<float>(9, 1100), cuda_rmsnorm<bf16>(70, 51), cuda_rmsnorm<bf16>(37, 1024);
    cuda_rmsnorm<float>(18, 1024), cuda_rmsnorm<bf16>(3, 2048), cuda_rmsnorm<float>(5, 2044);
    cuda_rmsnorm<bf16>(5, 2052), cuda_rmsnorm<float>(6, 2049), cuda_rmsnorm<bf16>(9000, 4);
}

template <typename S, int D> static void cuda_rope() {
    enum { B = 2, T = 9, N = B * T, H = 3, A = H * D };
    Input<S> qkv(normal_floats(N * 3 * A, 1, 1));
    Floats angles(T * D);
    for (int i = 0; i < T * D; i += 2) angles[i] = cosf((float)i), angles[i + 1] = sinf((float)i);
    Input<float> rope_cos_sin(angles);
    Doubles want = to_doubles(qkv.x);
    for (int n = 0; n < N; n++)
        for (int head = 0; head < 2 * H; head++)
            for (int d = 0; d < D / 2; d++) {
                double *x = &want[n * 3 * A + head * D], a = x[d], b = x[d + D / 2];
                const double cosine = rope_cos_sin.x[n % T * D + 2 * d],
                             sine = rope_cos_sin.x[n % T * D + 2 * d + 1];
                x[d] = a * cosine - b * sine, x[d + D / 2] = b * cosine + a * sine;
            }
    rope_rotate(qkv.data, rope_cos_sin.data, 1, N, T, H, D, 0);
    check_cuda(download(qkv), want, cuda_bound<S>(), "rotated");
    upload(qkv, qkv.x);
    rope_rotate_by<S, 1>(qkv.data, rope_cos_sin.data, 1, N, T, H, D, 0, 4 * A);
    check_cuda(download(qkv), want, cuda_bound<S>(), "rotated pair by pair, four tokens a launch");
    rope_rotate(qkv.data, rope_cos_sin.data, -1, N, T, H, D, 0);
    check_cuda(download(qkv), to_doubles(qkv.x), 2 * cuda_bound<S>(), "rotated back");
}

static void test_cuda_rope_matches_float64(void) {
    cuda_rope<float, 10>(), cuda_rope<bf16, 10>(), cuda_rope<float, 24>(), cuda_rope<bf16, 24>();
    cuda_rope<float, 16>(), cuda_rope<bf16, 16>(), cuda_rope<float, 128>(), cuda_rope<bf16, 128>();
}

/* The activation of x (and of the factor u with swiglu), in double. */
static double activation_double(double x, double u, int kind) {
    if (kind == GPU_RELU) return x > 0 ? x : 0;
    if (kind == GPU_SWIGLU) return x / (1 + exp(-x)) * u;
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

template <typename S> static void cuda_activation(int kind, int F) {
    const int N = 37, U = kind == GPU_SWIGLU ? 2 * F : F;
    Input<S> up(normal_floats((size_t)(N * U), 2, 1)), dhidden(normal_floats((size_t)(N * F), 1, 2));
    Buffer<S> hidden((size_t)(N * F)), dup((size_t)(N * U));
    Doubles want((size_t)(N * F)), dwant((size_t)(N * U));
    for (int i = 0; i < N * F; i++) {
        const size_t at = (size_t)(i / F * U + i % F);
        const double x = up.x[at], u = kind == GPU_SWIGLU ? up.x[at + F] : 0, h = 1e-6;
        want[i] = activation_double(x, u, kind);
        dwant[at] =
            dhidden.x[i] * (activation_double(x + h, u, kind) - activation_double(x - h, u, kind)) / (2 * h);
        if (kind == GPU_SWIGLU) dwant[at + F] = dhidden.x[i] * x / (1 + exp(-x));
    }
    activation_forward(hidden.data, up.data, N, F, kind, 0);
    activation_backward(dup.data, dhidden.data, up.data, N, F, kind, 0);
    check_cuda(download(hidden), want, cuda_bound<S>(), "hidden");
    check_cuda(download(dup), dwant, cuda_bound<S>(), "dup");
}

static void test_cuda_activations_match_float64(void) {
    for (int kind = GPU_GELU; kind <= GPU_SWIGLU; kind++)
        for (int F = 45; F <= 48; F += 3) cuda_activation<float>(kind, F), cuda_activation<bf16>(kind, F);
}

template <typename S> static void cuda_loss(int V) {
    enum { N = 5 };
    Input<float> logits(normal_floats((size_t)(N * V), 6, 1));
    Buffer<float> losses(N);
    Buffer<S> dlogits((size_t)(N * V));
    Buffer<int32_t> targets(N);
    const std::vector<int32_t> ids = {0, V - 1, V / 2, V / 3, 0};
    copy_to_device(targets.data, ids.data(), N * sizeof(int32_t), 0);
    Doubles want(N), dwant((size_t)(N * V));
    const float scale = 0.125f;
    for (int n = 0; n < N; n++) {
        const float *row = &logits.x[(size_t)n * V];
        double sum = 0;
        for (int v = 0; v < V; v++) sum += exp((double)row[v]);
        want[n] = log(sum) - row[ids[n]];
        for (int v = 0; v < V; v++)
            dwant[(size_t)n * V + v] = scale * (exp((double)row[v]) / sum - (v == ids[n]));
    }
    cross_entropy(losses.data, dlogits.data, logits.data, targets.data, scale, N, V, 0);
    check_cuda(download(losses), want, 1e-12, "losses");
    check_cuda(download(dlogits), dwant, cuda_bound<S>(), "dlogits");
    Buffer<float> only(N);
    cross_entropy(only.data, (S *)nullptr, logits.data, targets.data, 0, N, V,
                  0); /* validation writes no gradient */
    CHECK(download(only) == download(losses), "V %d: losses differ without their gradient", V);
}

/* Rows that fit into a block's registers, and rows that do not: short, long, or with a length that is not a multiple
   of 4. */
static void test_cuda_cross_entropy_matches_float64(void) {
    cuda_loss<float>(2), cuda_loss<float>(1001), cuda_loss<bf16>(777), cuda_loss<float>(3000),
        cuda_loss<bf16>(64);
    cuda_loss<bf16>(32000), cuda_loss<float>(4100), cuda_loss<float>(32768), cuda_loss<bf16>(32772);
}

/* Arrays of several lengths, which begin at an aligned address or one number later. */
static void test_cuda_sums_match_float64(void) {
    for (size_t n = 1; n < 200000; n = n * 19 + 1)
        for (size_t skipped = 0; skipped < 2; skipped++) {
            Input<float> x(normal_floats(n + skipped, 3, 1));
            const float *from = x.data + skipped;
            Buffer<double> result(1), partial((size_t)sum_chunks((int64_t)n));
            double sum = 0, squares = 0, got;
            for (size_t i = skipped; i < n + skipped; i++) sum += x.x[i], squares += (double)x.x[i] * x.x[i];
            sum_device(result.data, partial.data, from, (int64_t)n, true, false, 0);
            copy_to_host(&got, result.data, sizeof got, 0);
            CHECK(fabs(got - squares) <= 1e-12 * squares, "n %zu: squares %.17g, expected %.17g", n, got,
                  squares);
            sum_device(result.data, partial.data, from, (int64_t)n, false, true, 0);
            copy_to_host(&got, result.data, sizeof got, 0);
            CHECK(fabs(got - squares - sum) <= 1e-12 * squares, "n %zu: sum %.17g, added to %.17g, is %.17g",
                  n, sum, squares, got);
        }
}

static void cuda_adamw(size_t N) {
    const double lr = 0.01, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, clip = 0.5;
    Input<float> parameter(normal_floats(N, 1, 1)), gradient(normal_floats(N, 1, 2)), mean(Floats(N, 0)),
        square(Floats(N, 0));
    Buffer<bf16> operand(N);
    Doubles p = to_doubles(parameter.x), m(N, 0), v(N, 0);
    for (int64_t step = 1; step <= 3; step++) {
        adamw_update(parameter.data, operand.data, gradient.data, mean.data, square.data, (int64_t)N,
                     adamw_step({lr, beta1, beta2, eps, decay, clip, step, false}), 0);
        for (size_t i = 0; i < N; i++) {
            const double g = clip * gradient.x[i];
            m[i] = beta1 * m[i] + (1 - beta1) * g, v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            p[i] -= lr * decay * p[i] + lr * (m[i] / (1 - pow(beta1, (double)step))) /
                                            (sqrt(v[i] / (1 - pow(beta2, (double)step))) + eps);
        }
    }
    check_cuda(download(parameter), p, 1e-12, "parameter");
    check_cuda(download(mean), m, 1e-12, "mean");
    check_cuda(download(square), v, 1e-12, "square");
    check_cuda(download(operand), p, 1e-5, "parameter as operand");
}

static void test_cuda_adamw_matches_float64(void) { cuda_adamw(1000), cuda_adamw(333); }

template <typename S> static void cuda_matmul(int64_t N, int64_t K, int64_t M) {
    Input<S> x(normal_floats((size_t)(N * K), 1, 1)), w(normal_floats((size_t)(M * K), 1, 2)),
        dout(normal_floats((size_t)(N * M), 1, 3));
    Input<float> residual(normal_floats((size_t)(N * M), 1, 4)), dw(normal_floats((size_t)(M * K), 1, 5));
    Buffer<float> out((size_t)(N * M));
    Buffer<S> plain((size_t)(N * M)), dx((size_t)(N * K));
    Floats nans((size_t)(M * K), NAN);
    Doubles want((size_t)(N * M)), dxwant((size_t)(N * K)), dwwant = to_doubles(dw.x);
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) {
                want[(size_t)(n * M + m)] += (double)x.x[(size_t)(n * K + k)] * w.x[(size_t)(m * K + k)];
                dxwant[(size_t)(n * K + k)] += (double)dout.x[(size_t)(n * M + m)] * w.x[(size_t)(m * K + k)];
                dwwant[(size_t)(m * K + k)] += (double)dout.x[(size_t)(n * M + m)] * x.x[(size_t)(n * K + k)];
            }
    matmul_forward(plain.data, (const S *)nullptr, x.data, w.data, N, K, M, 0);
    check_cuda(download(plain), want, cuda_bound<S>(), "out");
    for (size_t i = 0; i < want.size(); i++) want[i] += residual.x[i];
    matmul_forward(out.data, (const float *)residual.data, x.data, w.data, N, K, M, 0);
    check_cuda(download(out), want, 1e-12, "out + residual");
    matmul_backward_input(dx.data, dout.data, w.data, N, K, M, 0);
    check_cuda(download(dx), dxwant, cuda_bound<S>(), "dx");
    matmul_backward_weight(dw.data, dout.data, x.data, N, K, M, true, 0);
    check_cuda(download(dw), dwwant, 1e-12, "dw");
    for (size_t i = 0; i < dwwant.size(); i++) dwwant[i] -= dw.x[i];
    upload(dw, nans);
    matmul_backward_weight(dw.data, dout.data, x.data, N, K, M, false, 0);
    check_cuda(download(dw), dwwant, 1e-12, "dw, written");
}

/* Sizes for bf16 are multiples of 8, as cuBLASLt requires; sizes for float32 are any. */
static void test_cuda_matmul_matches_float64(void) {
    cuda_matmul<float>(7, 5, 3), cuda_matmul<float>(64, 48, 80), cuda_matmul<bf16>(40, 64, 24);
}

/* Forward and backward against float64, and against a product and a kernel of gelu. */
template <typename S> static void cuda_gelu_products(int64_t N, int64_t K, int64_t M) {
    const size_t NM = (size_t)(N * M), NK = (size_t)(N * K);
    Input<S> x(normal_floats(NK, 1, 1)), w(normal_floats((size_t)(M * K), 0.2, 2)),
        dout(normal_floats(NM, 1, 3)), argument(normal_floats(NK, 1, 4));
    Buffer<S> hidden(NM), up(NM), up_alone(NM), hidden_alone(NM), dup(NK), dhidden(NK), dup_alone(NK);
    Doubles sum(NM), want(NM), dwant(NK);
    for (size_t i = 0; i < NM; i++) {
        for (int64_t k = 0; k < K; k++)
            sum[i] += (double)x.x[i / (size_t)M * (size_t)K + (size_t)k] *
                      w.x[i % (size_t)M * (size_t)K + (size_t)k];
        want[i] = activation_double(sum[i], 0, GPU_GELU);
    }
    for (size_t i = 0; i < NK; i++) {
        const double at = argument.x[i], h = 1e-6;
        for (int64_t m = 0; m < M; m++)
            dwant[i] += (double)dout.x[i / (size_t)K * (size_t)M + (size_t)m] *
                        w.x[(size_t)m * (size_t)K + i % (size_t)K];
        dwant[i] *=
            (activation_double(at + h, 0, GPU_GELU) - activation_double(at - h, 0, GPU_GELU)) / (2 * h);
    }
    matmul_gelu_forward(hidden.data, up.data, x.data, w.data, N, K, M, 0);
    check_cuda(download(up), sum, cuda_bound<S>(), "up");
    check_cuda(download(hidden), want, cuda_bound<S>(), "hidden");
    matmul_forward(up_alone.data, (const S *)nullptr, x.data, w.data, N, K, M, 0);
    activation_forward(hidden_alone.data, up_alone.data, N, (int)M, GPU_GELU, 0);
    check_cuda(download(hidden), to_doubles(download(hidden_alone)), cuda_bound<S>(), "hidden, apart");
    matmul_gelu_backward_input(dup.data, argument.data, dout.data, w.data, N, K, M, 0);
    check_cuda(download(dup), dwant, cuda_bound<S>(), "dup");
    matmul_backward_input(dhidden.data, dout.data, w.data, N, K, M, 0);
    activation_backward(dup_alone.data, dhidden.data, argument.data, N, (int)K, GPU_GELU, 0);
    check_cuda(download(dup), to_doubles(download(dup_alone)), cuda_bound<S>(), "dup, apart");
}

static void test_cuda_gelu_products_match_float64(void) {
    cuda_gelu_products<bf16>(37, 40, 48), cuda_gelu_products<bf16>(128, 64, 16);
    CHECK(matmul_has_gelu(40, 48) && !matmul_has_gelu(44, 48) && !matmul_has_gelu(48, 44),
          "both sizes must be multiples of 8");
}

#define CUDA_LAYERS_TESTS(TEST)                                                                              \
    TEST(cuda_split_floats_are_exact)                                                                        \
    TEST(cuda_embedding_matches_float64)                                                                     \
    TEST(cuda_rmsnorm_matches_float64)                                                                       \
    TEST(cuda_rope_matches_float64)                                                                          \
    TEST(cuda_activations_match_float64)                                                                     \
    TEST(cuda_cross_entropy_matches_float64)                                                                 \
    TEST(cuda_sums_match_float64)                                                                            \
    TEST(cuda_adamw_matches_float64)                                                                         \
    TEST(cuda_matmul_matches_float64)                                                                        \
    TEST(cuda_gelu_products_match_float64)

#endif
