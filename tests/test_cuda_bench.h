/* Tests of tools/bench_gpu.cu in the emulator, where it uses tiny sizes: its table must be complete and consistent. */
#ifndef TESTS_TEST_CUDA_BENCH_H
#define TESTS_TEST_CUDA_BENCH_H

#include "test_cuda.h"

#ifndef __CUDACC__
/* Returns how many lines of `text` contain all of `words` and `key`. sum: the sum of the numbers after `key`. */
static int bench_lines(const std::string &text, std::vector<const char *> words, const char *key,
                       double *sum) {
    int lines = 0;
    *sum = 0;
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string line = text.substr(begin, end - begin);
        bool all = true;
        for (const char *word : words) all = all && line.find(word) != std::string::npos;
        const size_t found = line.find(key);
        if (!all || found == std::string::npos) continue;
        lines++, *sum += atof(line.c_str() + found + strlen(key));
    }
    return lines;
}

static std::string bench_read(const std::string &path) {
    char text[1 << 16];
    FILE *file = check_fopen(path.c_str(), "r", "");
    const size_t size = fread(text, 1, sizeof text, file);
    check_fclose(file, path.c_str());
    return std::string(text, size);
}

static void test_cuda_bench_table_is_complete(void) {
    char output[1000];
    const std::string json = std::string(test_folder()) + "/bench.json";
    const int code = test_command(output, sizeof output, "%s/build/bench_gpu_emulated --json=%s > /dev/null",
                                  test_binaries(), json.c_str());
    REQUIRE(code == 0, "exit code %d: %s", code, output);
    const std::string text = bench_read(json);
    double sum;
    CHECK(bench_lines(text, {"\"peak\""}, "\"flops\": ", &sum) == 1 && sum > 0, "no peak: %s", text.c_str());
    CHECK(bench_lines(text, {"\"attention\""}, "\"backward_s\": ", &sum) == 4, "attention: %s", text.c_str());
    CHECK(bench_lines(text, {"\"gelu\""}, "\"backward_apart_s\": ", &sum) == 1, "gelu: %s", text.c_str());
    for (const char *preset : {"\"c4-301m\"", "\"gpt2-124m\""}) {
        CHECK(bench_lines(text, {preset, "\"ratio\""}, "\"laser_over_standard\": ", &sum) == 1 && sum > 0,
              "no ratio for %s: %s", preset, text.c_str());
        for (const char *kind : {"\"standard\"", "\"laser\""}) {
            CHECK(bench_lines(text, {preset, kind, "\"step\""}, "\"bytes\": ", &sum) == 1, "%s %s: %s",
                  preset, kind, text.c_str());
            CHECK(bench_lines(text, {preset, kind, "\"step\""}, "\"step_s\": ", &sum) == 1 && sum > 0,
                  "%s %s: no whole step: %s", preset, kind, text.c_str());
            const int kernels = bench_lines(text, {preset, kind, "\"kernel\""}, "\"share\": ", &sum);
            CHECK(kernels > 12 && fabs(sum - 1) < 1e-4, "%s %s: the shares of %d kernels sum to %g", preset,
                  kind, kernels, sum);
        }
    }
    CHECK(bench_lines(text, {"\"matmul_gelu_"}, "\"share\": ", &sum) == 8 &&
              bench_lines(text, {"\"activation_"}, "\"share\": ", &sum) == 0,
          "gelu was also computed outside the products: %s", text.c_str());
}

/* With --steps-only, --preset and --batch the program measures only steps, of one preset, with these two batches. */
static void test_cuda_bench_can_be_short(void) {
    char output[1000];
    const std::string json = std::string(test_folder()) + "/short.json";
    int code = test_command(
        output, sizeof output,
        "%s/build/bench_gpu_emulated --json=%s --steps-only --preset=c4-301m --batch=2,1 > /dev/null",
        test_binaries(), json.c_str());
    REQUIRE(code == 0, "exit code %d: %s", code, output);
    const std::string text = bench_read(json);
    double sum;
    CHECK(bench_lines(text, {"\"attention\""}, "\"T\": ", &sum) == 0, "attention: %s", text.c_str());
    CHECK(bench_lines(text, {"\"gelu\""}, "\"forward_s\": ", &sum) == 0, "gelu: %s", text.c_str());
    CHECK(bench_lines(text, {"\"step\""}, "\"batch\": ", &sum) == 4 && sum == 6, "steps: %s", text.c_str());
    CHECK(bench_lines(text, {"\"ratio\"", "\"in_turn\": true"}, "\"batch\": ", &sum) == 2 && sum == 3,
          "ratios: %s", text.c_str());
    CHECK(bench_lines(text, {"\"kernel\"", "\"batch\": 1,"}, "\"calls\": ", &sum) == 0,
          "the shares of kernels are not of the first batch: %s", text.c_str());
    for (const char *bad : {"--batch=", "--batch=8,", "--batch=0", "--batch=8x"}) {
        code = test_command(output, sizeof output, "%s/build/bench_gpu_emulated --json=%s %s",
                            test_binaries(), json.c_str(), bad);
        CHECK(code == 2 && strstr(output, bad), "%s: exit code %d: %s", bad, code, output);
    }
}
#define CUDA_BENCH_TESTS(TEST) TEST(cuda_bench_table_is_complete) TEST(cuda_bench_can_be_short)
#else
#define CUDA_BENCH_TESTS(TEST)
#endif

#endif
