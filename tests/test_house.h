/* test_house.h: tests that keep the source tree in order: every header compiles alone, files include only what lies
   below them, and `make help` names every target and setting of the Makefile. scripts/check.sh makes the first two
   checks; the tests run it here and on a small tree with mistakes in it. */
#ifndef TESTS_TEST_HOUSE_H
#define TESTS_TEST_HOUSE_H

#include "harness.h"

/* A header that needs others to be included before it cannot be used or read alone. */
static void test_house_headers_compile_alone(void) {
#ifdef __SANITIZE_ADDRESS__
    test_not_run("sanitizers change nothing about it; `make test` without SAN=1 runs it");
    return;
#endif
    char output[8192];
    int code = test_command(output, sizeof output, "scripts/check.sh headers");
    CHECK(code == 0, "%s", output);

    /* a header that uses a type of another one, which it does not include */
    const char *folder = test_folder();
    test_command(output, sizeof output, "mkdir -p %s/gpt/base", folder);
    test_write(folder, "gpt/base/whole.h", "#include <stddef.h>\ntypedef struct { size_t bytes; } Whole;\n");
    test_write(folder, "gpt/base/lacking.h", "static inline int lacking(Whole w) { return w.bytes > 0; }\n");
    code = test_command(output, sizeof output, "ROOT=%s scripts/check.sh headers", folder);
    CHECK(code == 1 && strstr(output, "gpt/base/lacking.h does not compile alone as c:\n") &&
              !strstr(output, "gpt/base/whole.h"),
          "code %d: %s", code, output);
}

/* Files that include each other in a circle cannot be read one after the other. The check must find a circle, and
   the source must have none. */
static void test_house_includes_go_one_way(void) {
    char output[8192];
    int code = test_command(output, sizeof output, "scripts/check.sh includes");
    CHECK(code == 0, "%s", output);

    static const struct {
        const char *file, *text, *said;
    } cases[] = {
        {"gpt/base/check.h", "\n#include \"../io/files.h\"\n",
         "gpt/base/check.h:2: gpt/base/check.h includes gpt/io/files.h, which is not below it"},
        {"gpt/math/rng.h", "#include \"../base/check.h\"\n#include \"../dist/parallel.h\"\n",
         "gpt/math/rng.h:2: gpt/math/rng.h includes gpt/dist/parallel.h, which is not below it"},
        {"data/prepare.c", "#include \"../train_gpt.c\"\n",
         "data/prepare.c:1: data/prepare.c includes train_gpt.c, which is not below it"},
        {"laser.h", "#include \"gpt/base/check.h\"\n",
         "laser.h:1: laser.h includes gpt/base/check.h, which is not below it"},
        {"gpt/new/thing.h", "#include \"../base/check.h\"\n", "has no row for gpt/new/thing.h"},
    };
    char folder[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(folder, sizeof folder, "%s", test_folder());
        test_command(output, sizeof output, "cd %s && mkdir -p gpt/base gpt/math gpt/new data", folder);
        test_write(folder, cases[i].file, cases[i].text);
        code = test_command(output, sizeof output, "ROOT=%s scripts/check.sh includes", folder);
        CHECK(code == 1 && strstr(output, cases[i].said), "code %d, '%s' is not in: %s", code, cases[i].said,
              output);
    }

    /* two files of one folder that include each other */
    snprintf(folder, sizeof folder, "%s", test_folder());
    test_command(output, sizeof output, "mkdir -p %s/gpt/io", folder);
    test_write(folder, "gpt/io/one.h", "#include \"two.h\"\n");
    test_write(folder, "gpt/io/two.h", "#include \"../io/one.h\"\n");
    code = test_command(output, sizeof output, "ROOT=%s scripts/check.sh includes", folder);
    CHECK(code == 1 && strstr(output, "in a circle:\n") && strstr(output, "gpt/io/one.h\n"), "code %d: %s",
          code, output);
}

/* A target, program or setting of the Makefile that `make help` does not name would stay unknown to its users. */
static void test_makefile_help_names_everything(void) {
    char output[8192], name[64];
    int code = test_command(output, sizeof output, "env -u MAKEFLAGS -u MAKELEVEL make -s help");
    CHECK(code == 0 && strncmp(output, "make ", 5) == 0, "code %d: %s", code, output);
    FILE *names = popen("{ sed -n 's/^\\.PHONY: //p' Makefile | tr ' ' '\\n' | grep -v -x -e FORCE -e "
                        "programs_of_.* -e test_programs -e all; "
                        "sed -nE 's/^(override )?([A-Z0-9_]+) *\\?=.*/\\2/p' Makefile; } | sort -u",
                        "r");
    REQUIRE(names, "popen");
    int count = 0;
    while (fscanf(names, "%63s", name) == 1) {
        count++;
        CHECK(strstr(output, name), "`make help` does not name %s", name);
    }
    pclose(names);
    CHECK(count > 15, "only %d names were found in the Makefile", count);
}

/* A program must be built again after a header that it includes has changed, or the user would run old code; and
   only then, or every build would take long. The compiler notes the headers that it reads. */
static void test_makefile_knows_what_is_included(void) {
    char output[8192], folder[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code = test_command(output, sizeof output, "cp -R Makefile scripts gpt data laser.h %s", folder);
    REQUIRE(code == 0, "%s", output);
    static const struct {
        const char *touched;
        bool builds;
    } cases[] = {{"data/grammar.c", true},
                 {"data/grammar.c", true},
                 {"gpt/math/rng.h", true},
                 {"gpt/math/matmul.h", false}}; /* data/grammar.c has no product of matrices */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = test_command(output, sizeof output,
                            "cd %s && touch %s && env -i PATH=\"$PATH\" make MPI=no CFLAGS=-O0 grammar",
                            folder, cases[i].touched);
        CHECK(code == 0, "code %d: %s", code, output);
        CHECK(!strstr(output, " -o grammar ") == !cases[i].builds, "after a change of %s: %s",
              cases[i].touched, output);
    }
}

/* The first rule of the Makefile is what `make` without a target does: another rule above it would leave a user without
   programs. */
static void test_make_alone_builds_the_programs(void) {
    static const char *const programs[] = {"train_gpt", "prepare", "report",  "generate",
                                           "analyze",   "explain", "evaluate"};
    static char output[1 << 16];
    REQUIRE(test_command(output, sizeof output, "make -n -B DEPS=skip 2>&1") == 0, "%s", output);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        char says[64];
        snprintf(says, sizeof says, " -o %s ", programs[i]);
        CHECK(strstr(output, says), "make does not build %s: %.300s", programs[i], output);
    }
}

#define HOUSE_TESTS(TEST)                                                                                    \
    TEST(house_headers_compile_alone)                                                                        \
    TEST(house_includes_go_one_way)                                                                          \
    TEST(makefile_help_names_everything)                                                                     \
    TEST(make_alone_builds_the_programs)                                                                     \
    TEST(makefile_knows_what_is_included)

#endif
