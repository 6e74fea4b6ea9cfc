/* test_docs.h: the commands of the pages are those that scripts/test_docs.sh knows how to run (it runs them itself);
   the options, files and functions that the pages name exist; and the --help of every program lists the options of
   its table. */
#ifndef TESTS_TEST_DOCS_H
#define TESTS_TEST_DOCS_H

#include "harness.h"

/* A command on a page that no script runs would go wrong unnoticed when the program changes. */
static void test_docs_commands_are_known(void) {
    char output[16384], folder[128], path[256];
    int code = test_command(output, sizeof output, "scripts/test_docs.sh --check");
    CHECK(code == 0 && strstr(output, " commands are known, 0 problems"), "code %d: %s", code, output);

    /* A page with unknown commands of every kind: each must be named with its line. */
    static const char page[] = "Text, `./prepare --help` and `./prepared --twice`, `make\ndemo` and\n"
                               "`make demolition`, `scripts/` and `./train_gpt`.\n"
                               "\n"
                               "    ./generate runs/first\n"
                               "    no command\n"
                               "\n"
                               "```sh\n"
                               "./report --out=report.html runs/first   # a comment\n"
                               "make demo && \\\n"
                               "    ./unheard-of\n"
                               "cat book.txt\n"
                               "```\n"
                               "```\n"
                               "./output of something\n"
                               "```\n";
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(path, sizeof path, "%s/README.md", folder);
    FILE *file = check_fopen(path, "w", "");
    fputs(page, file), fclose(file);
    code = test_command(output, sizeof output, "PAGES=%s scripts/test_docs.sh --check", folder);
    static const char *const said[] = {
        "README.md:1: no row of the table in scripts/test_docs.sh is for: ./prepared --twice\n",
        "README.md:1: no row of the table in scripts/test_docs.sh is for: make demolition\n",
        "README.md:5: a command outside of a ```sh block: ./generate runs/first\n",
        "README.md:10: no row of the table in scripts/test_docs.sh is for: make demo &&     ./unheard-of\n",
        "README.md:12: no row of the table in scripts/test_docs.sh is for: cat book.txt\n",
        "no page has a command for the row: make test\n"};
    CHECK(code == 1, "code %d: %s", code, output);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        CHECK(strstr(output, said[i]), "'%s' is not in: %s", said[i], output);
    CHECK(strstr(output, "\n3 commands are known, ") && !strstr(output, "output of") &&
              !strstr(output, "no command"),
          "%s", output);
}

/* A page that names an option, file or function that is gone sends its reader nowhere: each such name must be
   reported with its line, and no other. */
static void test_docs_names_exist(void) {
    char output[16384], folder[128], path[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(path, sizeof path, "%s/README.md", folder);
    FILE *file = check_fopen(path, "w", "");
    fputs("`--attn=laser` and `--attention-kind=laser` are options,\n"
          "`gpt/base/check.h` and `gpt/base/gone.h` files, `check.h` and `gone.h` names of files,\n"
          "`rng_normal()` and `rng_gone()` functions, `gpt/` and `gone/` folders.\n",
          file);
    fclose(file);
    int code = test_command(output, sizeof output, "PAGES=%s scripts/test_docs.sh --check", folder);
    static const char *const said[] = {
        "README.md:1: no program has the option --attention-kind\n",
        "README.md:2: there is no file gpt/base/gone.h\n", "README.md:2: there is no file called gone.h\n",
        "README.md:3: there is no function rng_gone()\n", "README.md:3: there is no file gone/\n"};
    CHECK(code == 1, "code %d: %s", code, output);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        CHECK(strstr(output, said[i]), "'%s' is not in: %s", said[i], output);
    CHECK(!strstr(output, "option --attn\n") && !strstr(output, "check.h") && !strstr(output, "rng_normal"),
          "%s", output);
}

/* An option that is in a program's table, but not in its --help, could not be found by its users. */
static void test_docs_help_lists_every_row(void) {
    static const char *const programs[][2] = {
        {"prepare", "data/prepare_options.h"}, {"grammar", "data/grammar.c"},  {"report", "tools/report.c"},
        {"generate", "tools/generate.c"},      {"analyze", "tools/analyze.c"}, {"explain", "tools/explain.c"},
        {"evaluate", "tools/evaluate.c"}};
    char output[16384], option[80];
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        const int code = test_command(output, sizeof output, "%s/%s --help", test_binaries(), programs[i][0]);
        CHECK(code == 0, "%s --help: code %d: %s", programs[i][0], code, output);
        char command[512];
        snprintf(command, sizeof command,
                 "grep -oE '\"[a-z0-9-]+\", *OPTION_' %s | sed 's/^\"/--/; s/\".*//'", programs[i][1]);
        FILE *rows = popen(command, "r");
        REQUIRE(rows, "popen");
        int count = 0;
        for (; fscanf(rows, "%79s", option) == 1; count++)
            CHECK(strstr(output, option), "%s --help does not list %s", programs[i][0], option);
        pclose(rows);
        CHECK(count > 2, "%s: %d rows of options were found", programs[i][1], count);
    }
}

#define DOCS_TESTS(TEST) TEST(docs_commands_are_known) TEST(docs_names_exist) TEST(docs_help_lists_every_row)

#endif
