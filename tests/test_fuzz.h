/* test_fuzz.h: a short run of tests/fuzz.c on its committed seeds, under sanitizers where the compiler has
   them. `make fuzz` is the long one. */
#ifndef TESTS_TEST_FUZZ_H
#define TESTS_TEST_FUZZ_H

#include "harness.h"

/* Files from strangers must not crash the programs or make them read outside of their memory. */
static void test_fuzz_short(void) {
    static const struct {
        const char *target;
        int rounds;
    } targets[] = {{"tokenizer", 150},    {"shards", 1000},        {"lines", 1000},
                   {"safetensors", 1000}, {"sentencepiece", 300},  {"config", 500},
                   {"state", 1000},       {"prepare_state", 1000}, {"report", 300}};
    char output[4096], program[256];
    snprintf(program, sizeof program, "%.200s/build/fuzz_short", test_binaries());
    if (access(program, X_OK) != 0) { /* the Makefile has not built it */
        snprintf(program, sizeof program, "%.200s/fuzz", test_folder());
        int code =
            test_command(output, sizeof output,
                         "for flags in '-fsanitize=address,undefined -fno-sanitize-recover=all' ''; do "
                         "${CC:-cc} -std=gnu11 -O1 $flags tests/fuzz.c -o %s -lcjson -lz -lm 2>/dev/null && "
                         "exit 0; done; exit 1",
                         program);
        REQUIRE(code == 0, "tests/fuzz.c does not build: %s", output);
    }
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        int code = test_command(output, sizeof output, "%s %s %d tests/fuzz_seeds/%s/*", program,
                                targets[i].target, targets[i].rounds, targets[i].target);
        CHECK(code == 0 && strstr(output, "came to the end"), "%s: code %d: %s", targets[i].target, code,
              output);
    }
}

#define FUZZ_TESTS(TEST) TEST(fuzz_short)

#endif
