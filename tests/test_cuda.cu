/* test_cuda.cu: every test of the GPU's kernels, in one table. Compiled by nvcc (make test_gpu) it runs on a GPU; by any
   C++17 compiler (c++ -x c++; part of make test) in the emulator of cuda/emulate.h.

   ./test_cuda                  all of them
   ./test_cuda --filter=laser   those whose name contains "laser"; several words with commas between. Exit code 3 when there
                                are none */
#include "../gpt/base/filter.h"
#include "test_cuda.h"
#include "test_cuda_bench.h"
#include "test_cuda_emulate.h"
#include "test_cuda_exchange.h"
#include "test_cuda_laser.h"
#include "test_cuda_layers.h"
#include "test_cuda_matmul.h"
#include "test_cuda_model.h"
#include "test_cuda_train.h"

struct Test {
    const char *name;
    void (*function)(void);
};

#define ROW(name) {#name, test_##name},
static const Test tests[] = {
#ifdef TEST_ROWS /* `make test FILTER=...` names the parts that it needs */
    TEST_ROWS
#else
    CUDA_EMULATE_TESTS(ROW) CUDA_LASER_TESTS(ROW) CUDA_LAYERS_TESTS(ROW) CUDA_MATMUL_TESTS(ROW)
        CUDA_MODEL_TESTS(ROW) CUDA_EXCHANGE_TESTS(ROW) CUDA_BENCH_TESTS(ROW) CUDA_TRAIN_TESTS(ROW)
#endif
};
#undef ROW

int main(int argc, char **argv) {
    const char *filter = "";
    if (argc > 1 && strncmp(argv[1], "--filter=", 9) == 0) filter = argv[1] + 9;
    if (argc > 2 || (argc == 2 && !*filter)) {
        fprintf(stderr, "error: unknown option '%s'; expected --filter=TEXT[,TEXT...]\n", argv[argc - 1]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_begin();
    int passed = 0, failed = 0;
    for (const Test &test : tests)
        if (filter_takes(filter, test.name))
            (test_run(test.name, test.function) == TEST_PASSED ? passed : failed)++;
    test_end();
    if (passed + failed == 0) return 3;
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
