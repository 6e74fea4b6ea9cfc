/* Tests of cuda/emulate.h and cuda/mma.cuh themselves: what a GPU would get wrong in silence ends a test with a message
   that names kernel, block and thread; and a product made of fragments is the product. */
#ifndef TESTS_TEST_CUDA_EMULATE_H
#define TESTS_TEST_CUDA_EMULATE_H

#include "../cuda/mma.cuh"
#include "test_cuda.h"

/* C (16, 32) = A (16, 64) B^T, B (32, 64): by fragments, as attention's scores; then C2 (16, 64) = C B. */
template <int D> __global__ void fragments_kernel(float *c_out, float *c2_out, const bf16 *a, const bf16 *b) {
    bf16 *a_tile = shared_memory<bf16>(), *b_tile = a_tile + 16 * D;
    load_tile<D, 16, WARP_SIZE>(a_tile, a, D, 16);
    load_tile<D, 32, WARP_SIZE>(b_tile, b, D, 32);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    float c[4][4] = {}, c2[D / 8][4] = {};
    uint32_t rounded[4][2];
    product_over_d<D>(c, a_tile, 0, b_tile, 0);
    for (int n = 0; n < 4; n++)
        for (int r = 0; r < 2; r++) rounded[n][r] = pack_bf16(c[n][2 * r], c[n][2 * r + 1]);
    product_over_rows<D>(c2, rounded, b_tile, 0);
    const int g = lane_of_warp() / 4, t = lane_of_warp() % 4;
    for (int n = 0; n < 4; n++)
        for (int e = 0; e < 4; e++) c_out[(g + e / 2 * 8) * 32 + n * 8 + 2 * t + e % 2] = c[n][e];
    for (int n = 0; n < D / 8; n++)
        for (int e = 0; e < 4; e++) c2_out[(g + e / 2 * 8) * D + n * 8 + 2 * t + e % 2] = c2[n][e];
}

template <int D> static void check_fragments() {
    Buffer<bf16> a(16 * D), b(32 * D);
    Buffer<float> c(16 * 32), c2(16 * D);
    Floats x = normal_floats(16 * D, 1, 1), y = normal_floats(32 * D, 1, 2);
    upload(a, x), upload(b, y);
    LAUNCH(fragments_kernel<D>, dim3(1), dim3(WARP_SIZE), 48 * D * sizeof(bf16), 0, c.data, c2.data, a.data,
           b.data);
    Doubles want(16 * 32, 0), want2(16 * D, 0);
    for (int i = 0; i < 16; i++)
        for (int n = 0; n < 32; n++)
            for (int d = 0; d < D; d++) want[i * 32 + n] += (double)x[i * D + d] * y[n * D + d];
    const Floats got = download(c);
    for (int i = 0; i < 16; i++)
        for (int n = 0; n < 32; n++)
            for (int d = 0; d < D; d++)
                want2[i * D + d] += (double)host_float(host_round<bf16>(got[i * 32 + n])) * y[n * D + d];
    CHECK(error_of(got, want) < 1e-12, "D %d: error %.3g over D", D, error_of(got, want));
    CHECK(error_of(download(c2), want2) < 1e-12, "D %d: error %.3g over rows", D,
          error_of(download(c2), want2));
}

static void test_cuda_fragments_make_a_product(void) {
    check_fragments<16>(), check_fragments<32>(), check_fragments<64>(), check_fragments<128>();
}

#ifndef __CUDACC__
template <int FAULT> void faulty_kernel(float *x) {
    float *shared = shared_memory<float>();
    const int i = (int)threadIdx.x;
    if (FAULT == 0) { /* a barrier that one thread does not reach */
        if (i != 37) __syncthreads();
    } else if (FAULT == 1) { /* a shuffle in one half of a warp */
        if (i < 16) x[i] = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
    } else if (FAULT == 2) { /* half of a warp is at another operation */
        x[i] = i % 2 ? __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 2) : (float)__any_sync(0xFFFFFFFFu, true);
    } else if (FAULT == 3) { /* a copy that nobody waits for */
        cp_async_16(shared, x, true);
        cp_async_commit();
    } else if (FAULT == 4) {
        cp_async_16(shared + 1, x, true);
    } else if (FAULT == 5) { /* no barrier between a write and another warp's read */
        shared[i] = (float)i;
        x[i] = shared[(i + 32) % 64];
    } else if (FAULT == 6) { /* reads a copy before waiting for it */
        if (i == 0) cp_async_16(shared, x, true);
        cp_async_commit();
        x[i] = shared[0];
        cp_async_wait<0>();
    }
}

#ifdef EMULATE_ASAN
template <int FAULT> void outside_kernel(float *x) {
    if (threadIdx.x == 63) (FAULT ? shared_memory<float>() : x)[threadIdx.x + 1] = 1;
}

static void launch_outside(void *argument) {
    Buffer<float> x(64);
    void (*const kernels[])(float *) = {outside_kernel<0>, outside_kernel<1>};
    LAUNCH(kernels[*(int *)argument], dim3(1), dim3(64), 64 * sizeof(float), 0, x.data);
}

/* One element beyond global and beyond shared memory. */
static void test_cuda_emulator_finds_accesses_outside(void) {
    for (int shared = 0; shared < 2; shared++) {
        char output[1000];
        const int code = test_death(launch_outside, &shared, output, sizeof output);
        CHECK(code != 0 && strstr(output, "heap-buffer-overflow"), "shared %d: exit code %d: %s", shared,
              code, output);
    }
}
#define CUDA_SANITIZED_TESTS(TEST) TEST(cuda_emulator_finds_accesses_outside)
#else
#define CUDA_SANITIZED_TESTS(TEST)
#endif

static void launch_faulty(void *argument) {
    Buffer<float> x(64);
    void (*const kernels[])(float *) = {faulty_kernel<0>, faulty_kernel<1>, faulty_kernel<2>,
                                        faulty_kernel<3>, faulty_kernel<4>};
    LAUNCH(kernels[*(int *)argument], dim3(2), dim3(64), 256, 0, x.data);
}

static void test_cuda_emulator_finds_faults(void) {
    static const char *const expected[] = {
        "waits at __syncthreads for ever: thread 37 has ended", "waits at __shfl_xor_sync for ever: thread",
        "while others of its warp are at", "ended without waiting for its cp.async", "no multiples of 16"};
    for (int fault = 0; fault < 5; fault++) {
        char output[1000];
        const int code = test_death(launch_faulty, &fault, output, sizeof output);
        CHECK(code == 1 && strstr(output, expected[fault]) && strstr(output, "kernel") &&
                  strstr(output, "block (0, 0, 0)"),
              "fault %d: exit code %d, expected '%s': %s", fault, code, expected[fault], output);
    }
}

/* Two copies from one piece of pinned memory, with the wait between them that they need, or without. */
static void send_twice(void *waits) {
    Buffer<float> to(8);
    float *from = (float *)pinned_malloc(8 * sizeof(float));
    cudaEvent_t copied = event_create();
    for (int turn = 0; turn < 2; turn++) {
        if (*(bool *)waits) event_wait(copied);
        for (int i = 0; i < 8; i++) from[i] = (float)(turn + i);
        copy_to_device(to.data, from, 8 * sizeof(float), 0);
        event_record(copied, 0);
    }
    device_wait(0);
    event_destroy(copied), pinned_free(from);
}

static void test_cuda_emulator_finds_changed_pinned_memory(void) {
    char output[1000];
    bool waits = true;
    int code = test_death(send_twice, &waits, output, sizeof output);
    CHECK(code == 0, "with a wait: exit code %d: %s", code, output);
    waits = false;
    code = test_death(send_twice, &waits, output, sizeof output);
    CHECK(code == 1 && strstr(output, "before their copy was waited for"), "without: exit code %d: %s", code,
          output);
}

/* Mistakes that give numbers on a GPU, right or wrong by luck, give NaN here. */
static void test_cuda_emulator_is_unkind(void) {
    Buffer<float> x(64);
    LAUNCH(faulty_kernel<5>, dim3(1), dim3(64), 256, 0, x.data);
    int missing = 0;
    for (float y : download(x)) missing += isnan(y);
    CHECK(missing == 32, "%d of 64 reads were too early, expected those of the warp that ran first", missing);
    Floats ones(64, 1.0f);
    upload(x, ones);
    LAUNCH(faulty_kernel<6>, dim3(1), dim3(64), 256, 0, x.data);
    CHECK(isnan(download(x)[5]), "a copy was there before it was waited for: %g", download(x)[5]);
}
#define CUDA_EMULATED_TESTS(TEST)                                                                            \
    TEST(cuda_emulator_finds_faults)                                                                         \
    TEST(cuda_emulator_finds_changed_pinned_memory) TEST(cuda_emulator_is_unkind) CUDA_SANITIZED_TESTS(TEST)
#else
#define CUDA_EMULATED_TESTS(TEST)
#endif

#define CUDA_EMULATE_TESTS(TEST) TEST(cuda_fragments_make_a_product) CUDA_EMULATED_TESTS(TEST)

#endif
