/* test_docs.h: the commands of the pages are those that scripts/test_docs.sh knows how to run; it runs them itself. */
#ifndef TESTS_TEST_DOCS_H
#define TESTS_TEST_DOCS_H

#include "harness.h"

static void test_docs_commands_are_known(void) {
    char output[16384], folder[128], path[256];
    int code = test_command(output, sizeof output, "scripts/test_docs.sh --check");
    CHECK(code == 0 && strstr(output, " commands are known, 0 problems"), "code %d: %s", code, output);

    /* a page with commands of every kind that is not known: each is named with its line */
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

#define DOCS_TESTS(TEST) TEST(docs_commands_are_known)

#endif
