/* Tests of cuda/exchange.cuh and collectives.cuh without a model, in the emulator: how the overlap of communication and
   computation is measured, and what happens when ranks fail. This process is one of two ranks; what it sends stands
   also for what the other one sends. */
#ifndef TESTS_TEST_CUDA_EXCHANGE_H
#define TESTS_TEST_CUDA_EXCHANGE_H

#include "../cuda/exchange.cuh"
#include "test_cuda.h"

#ifndef __CUDACC__
/* DeviceJob's collect for these two ranks. */
static void collect_twice(void *all, const void *own, size_t n) {
    memcpy(all, own, n), memcpy((char *)all + n, own, n);
}

enum { EXCHANGE_TEST_BUCKET = 1024 }; /* floats: on the emulator's clock its reduce-scatter takes 1.024 us */

static Exchange *exchange_test_open(void) {
    static const FloatRange buckets[] = {{0, EXCHANGE_TEST_BUCKET},
                                         {EXCHANGE_TEST_BUCKET, 2 * EXCHANGE_TEST_BUCKET}};
    return exchange_open(DeviceJob{0, 2, buckets, 2, collect_twice});
}

/* The reduce-scatter of the upper bucket begins at 3 us, while backward computes until 3.5 us. The other bucket
   follows, and the model waits from 3.5 us to 3 + 2 * 1.024 us. */
static void test_cuda_exchange_measures_overlap(void) {
    Exchange *e = exchange_test_open();
    Input<float> gradients(normal_floats(2 * EXCHANGE_TEST_BUCKET, 1, 1));
    const cudaStream_t model = 0;
    CHECK(isnan(e->comm_overlap), "overlap before anything was sent: %g", e->comm_overlap);
    exchange_reduce_scatter_begin(e);
    emulate::clock[model] = 3e-6, emulate::clock[e->stream] = 0;
    exchange_reduce_scatter_ready(e, gradients.data, EXCHANGE_TEST_BUCKET, model);
    emulate::clock[model] = 3.5e-6;
    exchange_reduce_scatter_ready(e, gradients.data, 0, model);
    exchange_wait(e, model);
    CHECK(fabs(emulate::clock[model] - 5.048e-6) < 1e-12, "the model goes on at %g s, expected 5.048e-6",
          emulate::clock[model]);
    exchange_measure(e);
    CHECK(fabs(e->comm_overlap - (1 - 1.548 / 2.048)) < 1e-6, "overlap %g, expected %g", e->comm_overlap,
          1 - 1.548 / 2.048);
    exchange_wait(e, model);
    exchange_measure(e);
    CHECK(isnan(e->comm_overlap), "overlap when nothing was sent: %g", e->comm_overlap);
    const Floats sums = download(gradients);
    CHECK(sums[5] == 2 * gradients.x[5], "the sum of two is %g, expected %g", sums[5], 2 * gradients.x[5]);
    exchange_close(e);
}

static void watch_a_fault(void *) {
    Exchange *e = exchange_test_open();
    emulate::unfinished = 1 << 30; /* the kernels of NCCL wait for a rank that has died */
    emulated_error = ncclRemoteError;
    cudaEvent_t event = event_create();
    exchange_watch(e, event);
}

static void watch_for_long(void *) {
    Exchange *e = exchange_test_open();
    e->collectives.patience = 0;
    for (int i = 0; i < 2; i++) {
        emulate::unfinished = 3;
        cudaEvent_t event = event_create();
        exchange_watch(e, event);
        if (emulate::unfinished) die("it did not wait to the end");
        event_destroy(event);
    }
    exchange_close(e);
}

static void test_cuda_exchange_ends_with_a_dead_rank(void) {
    char output[1000];
    const int code = test_death(watch_a_fault, nullptr, output, sizeof output);
    CHECK(code == 1 && strstr(output, "error: NCCL, among 2 ranks") && strstr(output, "--resume=auto"),
          "exit code %d: %s", code, output);
}

/* A rank waits for slow ranks, and warns once about it. */
static void test_cuda_exchange_waits_for_slow_ranks(void) {
    char output[1000];
    const int code = test_death(watch_for_long, nullptr, output, sizeof output);
    const char *warning = strstr(output, "warning: the GPU has been waiting for the other ranks");
    CHECK(code == 0 && warning && !strstr(warning + 1, "warning"), "exit code %d: %s", code, output);
}

#define CUDA_EXCHANGE_TESTS(TEST)                                                                            \
    TEST(cuda_exchange_measures_overlap)                                                                     \
    TEST(cuda_exchange_ends_with_a_dead_rank)                                                                \
    TEST(cuda_exchange_waits_for_slow_ranks)
#else
#define CUDA_EXCHANGE_TESTS(TEST)
#endif

#endif
