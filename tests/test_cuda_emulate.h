/* Tests of cuda/emulate.h, cuda/mma.cuh and cuda/hopper.cuh. Mistakes of a kernel that a GPU would not report must
   end the program with a message that names kernel, block and thread, or must give NaN. A product computed from
   fragments or from tiles in shared memory must equal the matrix product. The tests of compute capability 9.0 check
   layouts, descriptors, the swizzle of tiles, and what is loaded past the end. They also run on a GPU of that compute
   capability, so they show that the emulator does what the hardware does. */
#ifndef TESTS_TEST_CUDA_EMULATE_H
#define TESTS_TEST_CUDA_EMULATE_H

#include "../cuda/hopper.cuh"
#include "../cuda/mma.cuh"
#include "test_cuda.h"

/* C (16, 32) = A B^T, where A is (16, D) and B is (32, D), by fragments, as attention computes its scores. Then C2
   (16, D) = C B, where C has been rounded to bf16. */
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

/* ---- compute capability 9.0: what the hardware does ---- */

static bool hopper_to_test() {
    if (!hopper_is_available()) test_not_run("no GPU of compute capability 9.0, or no code for sm_90a");
    return hopper_is_available();
}

/* C (64, N) = A B, where A is (64, 128), B is (128, N) and N = 2 R. B is loaded by tensor_load; A is stored by the
   threads themselves or is in registers. In memory a transposed operand has a row for each of the 128 k: A is (128,
   64), B is (128, N). Otherwise A is (64, 128) and B is (N, 128). `c` is NaN at the begin, which must not matter to a
   product that does not add. */
enum { DEPTH = 128 };
template <int R, int TRANSPOSE_A, int TRANSPOSE_B, bool REGISTERS>
__global__ void __launch_bounds__(128)
    wgmma_kernel(float *c_out, const bf16 *a, const __grid_constant__ TensorMap b_map) {
#ifdef HOPPER_CODE
    const int N = 2 * R, t = (int)threadIdx.x;
    const int a_rows = TRANSPOSE_A ? DEPTH : 64, a_columns = TRANSPOSE_A ? 64 : DEPTH;
    const int b_rows = TRANSPOSE_B ? DEPTH : N, b_columns = TRANSPOSE_B ? N : DEPTH;
    unsigned char *a_tiles = shared_memory<unsigned char>(), *b_tiles = a_tiles + 64 * DEPTH * 2;
    SharedBarrier *loaded = (SharedBarrier *)(b_tiles + N * DEPTH * 2);
    if (t == 0) {
        barrier_init(loaded, 1), barrier_init_done();
        barrier_expect(loaded, N * DEPTH * 2);
        for (int column = 0; column < b_columns; column += 64)
            tensor_load(b_tiles + column * b_rows * 2, &b_map, column, 0, 0, loaded);
    }
    for (int i = t; i < a_rows * a_columns; i += 128) {
        const int row = i / a_columns, column = i % a_columns;
        *(bf16 *)(a_tiles + column / 64 * a_rows * 128 +
                  swizzle_128((uint32_t)(row * 128 + column % 64 * 2))) = a[i];
    }
    fence_async_proxy();
    __syncthreads();
    barrier_wait(loaded, 0);
    float c[R];
    uint32_t pairs[DEPTH / 4]; /* four registers for each 16 columns of A */
#pragma unroll
    for (int i = 0; i < R; i++) c[i] = bits_to_float(0x7FC00000u);
#pragma unroll
    for (int i = 0; i < DEPTH / 4 && REGISTERS; i++) {
        const bf16 *at = a + (t / 32 * 16 + t % 32 / 4 + i % 2 * 8) * DEPTH + t % 4 * 2 + i / 2 * 8;
        pairs[i] = pack_bf16(to_float(at[0]), to_float(at[1]));
    }
    fence_registers(c);
    if (REGISTERS) fence_registers(pairs);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        const uint64_t b_tile =
            wgmma_descriptor(b_tiles + (TRANSPOSE_B ? k * 128 : k / 64 * b_rows * 128 + k % 64 * 2),
                             TRANSPOSE_B ? DEPTH * 128 : 0);
        if constexpr (REGISTERS)
            wgmma_from_registers<TRANSPOSE_B>(c, pairs[k / 4], pairs[k / 4 + 1], pairs[k / 4 + 2],
                                              pairs[k / 4 + 3], b_tile, k > 0);
        else
            wgmma_from_shared<TRANSPOSE_A, TRANSPOSE_B>(
                c,
                wgmma_descriptor(a_tiles + (TRANSPOSE_A ? k * 128 : k / 64 * a_rows * 128 + k % 64 * 2), 0),
                b_tile, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    fence_registers(c);
    for (int i = 0; i < R; i++)
        c_out[(t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + t % 4 * 2 + i % 2] = c[i];
#endif
}

template <int R, int TRANSPOSE_A, int TRANSPOSE_B, bool REGISTERS> static void check_wgmma() {
    const int N = 2 * R;
    Input<bf16> a(normal_floats(64 * DEPTH, 1, 1)), b(normal_floats(N * DEPTH, 1, 2));
    Buffer<float> c(64 * N);
    const TensorMap b_map =
        TRANSPOSE_B ? tensor_map(b.data, N, N, DEPTH, 1, DEPTH) : tensor_map(b.data, DEPTH, DEPTH, N, 1, N);
    LAUNCH((wgmma_kernel<R, TRANSPOSE_A, TRANSPOSE_B, REGISTERS>), dim3(1), dim3(128),
           (size_t)(64 + N) * DEPTH * 2 + 64, 0, c.data, a.data, b_map);
    Doubles want(64 * (size_t)N, 0);
    for (int i = 0; i < 64; i++)
        for (int n = 0; n < N; n++)
            for (int k = 0; k < DEPTH; k++)
                want[(size_t)(i * N + n)] += (double)a.x[(size_t)(TRANSPOSE_A ? k * 64 + i : i * DEPTH + k)] *
                                             b.x[(size_t)(TRANSPOSE_B ? k * N + n : n * DEPTH + k)];
    const double error = error_of(download(c), want);
    CHECK(error < 1e-12, "N %d, A %s%s, B%s: error %.3g", N, REGISTERS ? "in registers" : "in shared memory",
          TRANSPOSE_A ? " transposed" : "", TRANSPOSE_B ? " transposed" : "", error);
}

static void test_cuda_wgmma_makes_a_product(void) {
    if (!hopper_to_test()) return;
    check_wgmma<32, 0, 0, false>(), check_wgmma<64, 0, 0, false>(), check_wgmma<128, 0, 0, false>();
    check_wgmma<32, 0, 1, false>(), check_wgmma<64, 0, 1, false>(), check_wgmma<128, 0, 1, false>();
    check_wgmma<32, 1, 0, false>(), check_wgmma<64, 1, 0, false>();
    check_wgmma<32, 1, 1, false>(), check_wgmma<64, 1, 1, false>();
    check_wgmma<32, 0, 0, true>(), check_wgmma<64, 0, 0, true>();
    check_wgmma<32, 0, 1, true>(), check_wgmma<64, 0, 1, true>(), check_wgmma<128, 0, 1, true>();
}

/* Copies a tile (64, 64) to shared memory and from there to another array. The threads also copy it to image (64,
   64). */
__global__ void tile_kernel(bf16 *image, const __grid_constant__ TensorMap from,
                            const __grid_constant__ TensorMap to, int column, int row, int batch) {
#ifdef HOPPER_CODE
    unsigned char *tile = shared_memory<unsigned char>();
    SharedBarrier *loaded = (SharedBarrier *)(tile + 8192);
    if (threadIdx.x == 0) {
        barrier_init(loaded, 1), barrier_init_done();
        barrier_expect(loaded, 8192);
        tensor_load(tile, &from, column, row, batch, loaded);
    }
    __syncthreads();
    barrier_wait(loaded, 0);
    for (int i = (int)threadIdx.x; i < 64 * 64; i += (int)blockDim.x)
        image[i] = *(bf16 *)(tile + swizzle_128((uint32_t)i * 2));
    if (threadIdx.x == 0) {
        tensor_store(&to, column, row, batch, tile);
        bulk_commit(), bulk_wait_read();
    }
#endif
}

/* Tiles in the middle, past the last row of a batch (where the rows of the next batch follow), and past the last
   column. */
static void test_cuda_tensor_copies_stop_at_the_end(void) {
    if (!hopper_to_test()) return;
    const int columns = 136, stride = 144, rows = 100, batches = 3;
    const int places[][3] = {{64, 0, 1}, {0, 64, 1}, {128, 32, 0}, {128, 96, 2}};
    Input<bf16> from(normal_floats((size_t)batches * rows * stride, 1, 1));
    for (const auto &place : places) {
        Input<bf16> to(Floats(from.x.size(), 7.0f));
        Buffer<bf16> image(64 * 64);
        LAUNCH(tile_kernel, dim3(1), dim3(64), 8192 + 64, 0, image.data,
               tensor_map(from.data, columns, stride, rows, batches, 64),
               tensor_map(to.data, columns, stride, rows, batches, 64), place[0], place[1], place[2]);
        const Floats tile = download(image), stored = download(to);
        Floats want = to.x;
        int wrong = 0;
        for (int r = 0; r < 64; r++)
            for (int c = 0; c < 64; c++) {
                const bool inside = place[1] + r < rows && place[0] + c < columns;
                const size_t at = (size_t)((place[2] * rows + place[1] + r) * stride + place[0] + c);
                wrong += tile[(size_t)(r * 64 + c)] != (inside ? from.x[at] : 0);
                if (inside) want[at] = from.x[at];
            }
        CHECK(wrong == 0, "column %d row %d: %d elements of the tile are wrong", place[0], place[1], wrong);
        CHECK(stored == want, "column %d row %d: what was stored differs", place[0], place[1]);
    }
}

/* Two loads in one phase of a barrier, then in the next phase the same with exchanged destinations. */
__global__ void bulk_kernel(float *y, const float *x, int n) {
#ifdef HOPPER_CODE
    float *both = shared_memory<float>();
    SharedBarrier *loaded = (SharedBarrier *)(both + 2 * n);
    if (threadIdx.x == 0) barrier_init(loaded, 1), barrier_init_done();
    __syncthreads();
    for (int phase = 0; phase < 2; phase++) {
        if (threadIdx.x == 0) {
            barrier_expect(loaded, (uint32_t)n * 8);
            bulk_load(both + phase * n, x, (uint32_t)n * 4, loaded);
            bulk_load(both + (1 - phase) * n, x + n, (uint32_t)n * 4, loaded);
        }
        barrier_wait(loaded, (uint32_t)phase % 2);
        for (int i = (int)threadIdx.x; i < 2 * n; i += (int)blockDim.x) y[phase * 2 * n + i] = both[i];
        __syncthreads();
    }
#endif
}

static void test_cuda_bulk_loads_bytes(void) {
    if (!hopper_to_test()) return;
    const size_t n = 52;
    Input<float> x(normal_floats(2 * n, 1, 1));
    Buffer<float> y(4 * n);
    LAUNCH(bulk_kernel, dim3(1), dim3(64), n * 8 + 8, 0, y.data, x.data, (int)n);
    Floats want = x.x;
    want.insert(want.end(), x.x.begin() + n, x.x.end());
    want.insert(want.end(), x.x.begin(), x.x.begin() + n);
    CHECK(download(y) == want, "the loaded bytes are at the wrong place");
}

/* A pipeline with a producer and two consumers. Warpgroup 0 loads B (64, 64 * STEPS) through two stages. Each of the
   two other warpgroups puts its 64 rows of A (128, 64 * STEPS) into shared memory, computes its 64 rows of C = A B^T,
   and stores them through shared memory. FAULT: one of the mistakes that the emulator has to find. */
enum {
    NO_FAULT,
    NO_WGMMA_WAIT,
    NO_WGMMA_FENCE,
    NO_PROXY_FENCE,
    PROXY_FENCE_OF_READER,
    PROXY_FENCE_TOO_EARLY,
    REFILLED_TOO_EARLY,
    NO_BARRIER_WAIT,
    STORED_TOO_EARLY,
    NO_RELEASE,
    TOO_FEW_BYTES,
    TOO_MANY_BYTES,
    TOO_MANY_ARRIVALS,
    NOT_INITIALISED,
    INIT_NOT_DONE,
    WRITTEN_OVER,
    NOT_ALL_AT_WGMMA,
    OTHER_DESCRIPTOR,
    ACCUMULATOR_WRITTEN,
    A_REGISTER_WRITTEN,
    WGMMA_AT_THE_END,
    STORE_AT_THE_END,
    LOAD_AT_THE_END,
    NAMED_BARRIER_COUNTS,
    PAST_THE_END
};
enum { STEPS = 5, CONSUMER = STEPS * 8192 + 8192, PIPELINE_BYTES = 2 * CONSUMER + 2 * 8192 + 4 * 8 };
template <int FAULT>
__global__ void __launch_bounds__(384, 1)
    pipeline_kernel(const bf16 *a, const __grid_constant__ TensorMap b_map,
                    const __grid_constant__ TensorMap c_map) {
#ifdef HOPPER_CODE
    const int thread = (int)threadIdx.x, t = thread % 128, consumer = thread / 128 - 1;
    unsigned char *b_tiles = shared_memory<unsigned char>();
    unsigned char *a_tiles = b_tiles + 2 * 8192 + consumer * CONSUMER, *c_tile = a_tiles + STEPS * 8192;
    SharedBarrier *full = (SharedBarrier *)(b_tiles + 2 * 8192 + 2 * CONSUMER), *empty = full + 2;
    if (thread == 0) {
        for (int i = 0; i < 2 && FAULT != NOT_INITIALISED; i++)
            barrier_init(&full[i], 1), barrier_init(&empty[i], 8);
        if (FAULT != INIT_NOT_DONE) barrier_init_done();
    }
    __syncthreads();
    if (consumer < 0) {
        registers_decrease<40>();
        for (int i = 0; i < STEPS + (FAULT == LOAD_AT_THE_END) && t == 0; i++) {
            barrier_wait(&empty[i % 2], (uint32_t)(i / 2 + 1) % 2);
            barrier_expect(&full[i % 2], FAULT == TOO_FEW_BYTES    ? 4096
                                         : FAULT == TOO_MANY_BYTES ? 16384
                                                                   : 8192);
            tensor_load(b_tiles + i % 2 * 8192, &b_map, i * 64, 0, 0, &full[i % 2]);
            if (FAULT == TOO_MANY_ARRIVALS) barrier_arrive(&full[i % 2]);
        }
        return;
    }
    registers_increase<232>();
    if (FAULT == PROXY_FENCE_TOO_EARLY) fence_async_proxy();
    for (int i = t; i < 64 * 64 * STEPS; i += 128) {
        const int row = i / (64 * STEPS), column = i % (64 * STEPS);
        *(bf16 *)(a_tiles + column / 64 * 8192 + swizzle_128((uint32_t)(row * 128 + column % 64 * 2))) =
            a[consumer * 64 * 64 * STEPS + i];
    }
    if (FAULT != NO_PROXY_FENCE && FAULT != PROXY_FENCE_OF_READER && FAULT != PROXY_FENCE_TOO_EARLY)
        fence_async_proxy();
    if (FAULT == WRITTEN_OVER && thread == 128) ((uint32_t *)(void *)full)[1] = 0;
    if (FAULT == PAST_THE_END && thread == 205)
        a_tiles[0] = ((volatile unsigned char *)b_tiles)[PIPELINE_BYTES];
    named_barrier_sync(1 + consumer, FAULT == NAMED_BARRIER_COUNTS && t >= 64 ? 256 : 128);
    if (FAULT == PROXY_FENCE_OF_READER && t < 32)
        fence_async_proxy(); /* publishes the writes of this warp only */
    float c[32];
    uint32_t zeros[4] = {0, 0, 0, 0};
    for (int i = 0; i < STEPS; i++) {
        if (FAULT != NO_BARRIER_WAIT) barrier_wait(&full[i % 2], (uint32_t)i / 2 % 2);
        if (i > 0) fence_registers(c);
        if (FAULT != NO_WGMMA_FENCE) wgmma_fence();
        if (FAULT != NOT_ALL_AT_WGMMA || thread != 228)
#pragma unroll
            for (int k = 0; k < 64; k += 16)
                wgmma_from_shared<0, 0>(c,
                                        wgmma_descriptor(a_tiles + i * 8192 + k * 2,
                                                         FAULT == OTHER_DESCRIPTOR && thread == 137 ? 16 : 0),
                                        wgmma_descriptor(b_tiles + i % 2 * 8192 + k * 2, 0), i > 0 || k > 0);
        if (FAULT == ACCUMULATOR_WRITTEN && thread == 183) c[3] = 0;
        if (FAULT == A_REGISTER_WRITTEN) {
            wgmma_from_registers<0>(c, zeros[0], zeros[1], zeros[2], zeros[3], wgmma_descriptor(b_tiles, 0),
                                    true);
            zeros[2] = thread == 183;
        }
        wgmma_commit();
        if (FAULT == REFILLED_TOO_EARLY && t % 32 == 0) barrier_arrive(&empty[i % 2]);
        if (FAULT == REFILLED_TOO_EARLY) named_barrier_sync(1 + consumer, 128); /* warpgroup 0 may run here */
        if (i + 1 < STEPS || (FAULT != NO_WGMMA_WAIT && FAULT != WGMMA_AT_THE_END)) wgmma_wait<0>();
        fence_registers(c);
        if (FAULT != REFILLED_TOO_EARLY && FAULT != NO_RELEASE && t % 32 == 0) barrier_arrive(&empty[i % 2]);
    }
    uint32_t pairs[16];
#pragma unroll
    for (int i = 0; i < 16; i++) pairs[i] = pack_bf16(c[2 * i], c[2 * i + 1]);
    if (FAULT == NO_WGMMA_WAIT) wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8, column = i / 2 * 8 + t % 4 * 2;
        *(uint32_t *)(void *)(c_tile + swizzle_128((uint32_t)(row * 128 + column * 2))) = pairs[i];
    }
    fence_async_proxy();
    if (FAULT != STORED_TOO_EARLY) named_barrier_sync(1 + consumer, 128);
    if (t == 0) {
        tensor_store(&c_map, 0, consumer * 64, 0, c_tile);
        bulk_commit();
        if (FAULT != STORE_AT_THE_END) bulk_wait_read();
    }
#endif
}

/* The error of C with that mistake. Every block computes all of C; the last block's results remain. */
template <int FAULT> static double pipeline_error(unsigned blocks) {
    const int K = 64 * STEPS, rows = 114;
    Input<bf16> a(normal_floats(128 * K, 1, 1)), b(normal_floats(64 * K, 1, 2)), c(Floats(rows * 64, 0.0f));
    LAUNCH(pipeline_kernel<FAULT>, dim3(blocks), dim3(384), PIPELINE_BYTES, 0, a.data,
           tensor_map(b.data, K, K, 64, 1, 64), tensor_map(c.data, 64, 64, rows, 1, 64));
    Doubles want(rows * 64, 0);
    for (int i = 0; i < rows; i++)
        for (int n = 0; n < 64; n++)
            for (int k = 0; k < K; k++)
                want[(size_t)(i * 64 + n)] += (double)a.x[(size_t)(i * K + k)] * b.x[(size_t)(n * K + k)];
    return error_of(download(c), want);
}

static void test_cuda_hopper_pipeline_makes_a_product(void) {
    if (!hopper_to_test()) return;
    const double error = pipeline_error<NO_FAULT>(2);
    CHECK(error < 1e-5, "error %.3g", error);
}

#define CUDA_HOPPER_TESTS(TEST)                                                                              \
    TEST(cuda_wgmma_makes_a_product)                                                                         \
    TEST(cuda_tensor_copies_stop_at_the_end)                                                                 \
    TEST(cuda_bulk_loads_bytes) TEST(cuda_hopper_pipeline_makes_a_product)

#ifndef __CUDACC__
template <int FAULT> static void launch_pipeline(void *) { pipeline_error<FAULT>(2); }

/* The emulator finds every mistake of pipeline_kernel: some give wrong numbers, the others end the program. Whether a
   mistake shows in the numbers depends on the order in which the warps run, and that order on the number of blocks. */
static void test_cuda_emulator_finds_faults_of_pipelines(void) {
#define NUMBERS(fault)                                                                                       \
    { #fault, pipeline_error < fault> }
    const struct {
        const char *name;
        double (*error)(unsigned blocks);
    } wrong[] = {NUMBERS(NO_WGMMA_WAIT),         NUMBERS(NO_PROXY_FENCE),     NUMBERS(PROXY_FENCE_OF_READER),
                 NUMBERS(PROXY_FENCE_TOO_EARLY), NUMBERS(REFILLED_TOO_EARLY), NUMBERS(STORED_TOO_EARLY)};
#undef NUMBERS
    for (const auto &fault : wrong) {
        int noticed = 0;
        for (unsigned blocks = 1; blocks <= 8; blocks++) noticed += !(fault.error(blocks) < 1e-3);
        CHECK(noticed > 0, "%s gave the right numbers in all of 8 launches", fault.name);
    }
#define DEATH(fault, text)                                                                                   \
    { #fault, launch_pipeline < fault>, text }
    const struct {
        const char *name;
        void (*launch)(void *);
        const char *text;
    } deaths[] = {
        DEATH(NO_BARRIER_WAIT, "a phase whose loads no thread has waited for"),
        DEATH(NO_WGMMA_FENCE, "wgmma without a wgmma_fence"),
        DEATH(NO_RELEASE, "byte 114704 of shared memory; it lacks 8 of 8 arrivals"),
        DEATH(TOO_FEW_BYTES, "8192 bytes are loaded in a phase of a barrier that expects 4096"),
        DEATH(TOO_MANY_BYTES, "it lacks 0 of 1 arrivals, loads bring 8192 of 16384 bytes"),
        DEATH(TOO_MANY_ARRIVALS, "thread 0: barrier_arrive: an arrival more than the 1 of a phase"),
        DEATH(NOT_INITIALISED, "of a barrier that no thread has initialised, at byte 114"),
        DEATH(INIT_NOT_DONE, "tensor_load for a barrier for which barrier_init_done has not been called"),
        DEATH(WRITTEN_OVER, "of a barrier that something has been written over, at byte 114688"),
        DEATH(NOT_ALL_AT_WGMMA, "thread 228: its wgmma and commits differ"),
        DEATH(OTHER_DESCRIPTOR, "thread 137: its wgmma differs"),
        DEATH(ACCUMULATOR_WRITTEN, "thread 183: it wrote an accumulator of a wgmma"),
        DEATH(A_REGISTER_WRITTEN, "thread 183: it wrote an A register of a wgmma"),
        DEATH(WGMMA_AT_THE_END, "ended without waiting for its wgmma"),
        DEATH(STORE_AT_THE_END, "it ended without waiting for its tensor_store"),
        DEATH(LOAD_AT_THE_END, "thread 0: the block ended without waiting for a load"),
        DEATH(NAMED_BARRIER_COUNTS, " threads while others are there for "),
#ifndef EMULATE_ASAN
        DEATH(PAST_THE_END,
              "thread 205: it reads or writes byte 114720 of the 114720 bytes of its shared memory"),
#endif
    };
#undef DEATH
    for (const auto &fault : deaths) {
        char output[1000];
        const int code = test_death(fault.launch, nullptr, output, sizeof output);
        CHECK(code == 1 && strstr(output, fault.text) && strstr(output, "kernel pipeline_kernel") &&
                  strstr(output, "block (0, 0, 0)"),
              "%s: exit code %d, expected '%s': %s", fault.name, code, fault.text, output);
    }
}
#endif

#ifndef __CUDACC__
template <int FAULT> void faulty_kernel(float *x) {
    float *shared = shared_memory<float>();
    const int i = (int)threadIdx.x;
    if (FAULT == 0) { /* one thread does not come to a barrier */
        if (i != 37) __syncthreads();
    } else if (FAULT == 1) { /* half of a warp does not come to a shuffle */
        if (i < 16) x[i] = __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 1);
    } else if (FAULT == 2) { /* half of a warp comes to another operation */
        x[i] = i % 2 ? __shfl_xor_sync(0xFFFFFFFFu, 1.0f, 2) : (float)__any_sync(0xFFFFFFFFu, true);
    } else if (FAULT == 3) { /* no thread waits for a copy */
        cp_async_16(shared, x, true);
        cp_async_commit();
    } else if (FAULT == 4) { /* the destination of a copy is misaligned */
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

/* An access one element past the end of global memory, and one past the end of shared memory. */
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

/* Two copies from the same pinned memory. *waits: whether the host waits for the first one before it writes new
   numbers. */
static void copy_twice(void *waits) {
    Buffer<float> to(8);
    float *from = (float *)pinned_malloc(8 * sizeof(float));
    cudaEvent_t copied = event_create();
    for (int copy = 0; copy < 2; copy++) {
        if (*(bool *)waits) event_wait(copied);
        for (int i = 0; i < 8; i++) from[i] = (float)(copy + i);
        copy_to_device(to.data, from, 8 * sizeof(float), 0);
        event_record(copied, 0);
    }
    device_wait(0);
    event_destroy(copied), pinned_free(from);
}

static void test_cuda_emulator_finds_changed_pinned_memory(void) {
    char output[1000];
    bool waits = true;
    int code = test_death(copy_twice, &waits, output, sizeof output);
    CHECK(code == 0, "with a wait: exit code %d: %s", code, output);
    waits = false;
    code = test_death(copy_twice, &waits, output, sizeof output);
    CHECK(code == 1 && strstr(output, "before their copy was waited for"), "without: exit code %d: %s", code,
          output);
}

/* Mistakes whose results on a GPU depend on the order in which threads run give NaN in the emulator. */
static void test_cuda_emulator_gives_nan_for_data_races(void) {
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
    TEST(cuda_emulator_finds_changed_pinned_memory)                                                          \
    TEST(cuda_emulator_gives_nan_for_data_races)                                                             \
    TEST(cuda_emulator_finds_faults_of_pipelines) CUDA_SANITIZED_TESTS(TEST)
#else
#define CUDA_EMULATED_TESTS(TEST)
#endif

#define CUDA_EMULATE_TESTS(TEST)                                                                             \
    TEST(cuda_fragments_make_a_product) CUDA_HOPPER_TESTS(TEST) CUDA_EMULATED_TESTS(TEST)

#endif
