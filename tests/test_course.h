/* test_course.h: docs/course says what is so: tiny_gpt.c trains as train_gpt does, the lines of code in the chapters are
   those of the sources, the numbers and pictures are what the program build/course computes, and the exercises can be
   solved. (scripts/test_docs.sh runs the commands of the chapters.)

   In a chapter, a block ```c whose first line is a comment such as

       / * tiny_gpt.c in docs/course, linear_backward() * /

   quotes lines of that function or array. They must follow one another there; only their indentation may differ, and a
   line `...` stands for lines that are left out. The block after a command `build/course TOPIC` must be what the command
   prints; there, too, a line `...` stands for lines that are left out. */
#ifndef TESTS_TEST_COURSE_H
#define TESTS_TEST_COURSE_H

#include "harness.h"
#include "read_log.h"
#include "test_model.h"

#define COURSE "docs/course/"

/* Compiles C files of the course with the compiler of the tests. */
static int course_compile(const char *files, const char *program) {
    char output[4096];
    const int code = test_command(output, sizeof output, "${CC:-cc} -O1 %s -o %s -lm", files, program);
    CHECK(code == 0, "%s: code %d: %s", files, code, output);
    return code;
}

/* What a student learns from tiny_gpt.c is true of train_gpt.c only if both compute the same. Both read 46 windows, so
   that the later steps are in the second epoch, and both kinds of attention have random initial weights. */
static void test_course_tiny_gpt_trains_as_train_gpt_does(void) {
    static const char *const kinds[] = {"standard", "laser"};
    char output[8192], folder[128], program[160], path[256], error[FILE_ERROR_SIZE];
    snprintf(folder, sizeof folder, "%s", write_test_data(600));
    snprintf(program, sizeof program, "%s/tiny_gpt", folder);
    if (course_compile(COURSE "tiny_gpt.c", program) != 0) return;
    for (int kind = 0; kind < 2; kind++) {
        LogData log;
        int code = test_command(output, sizeof output,
                                "%s/train_gpt " TINY_MODEL
                                "--batch=4 --steps=20 --warmup=5 --lr=1e-2 --attn=%s --dtype=fp32 "
                                "--threads=1 --val-tokens=13 --val-every=0 --data=%s --out=%s/%s",
                                test_binaries(), kinds[kind], folder, folder, kinds[kind]);
        REQUIRE(code == 0, "train_gpt: code %d: %s", code, output);
        snprintf(path, sizeof path, "%s/%s/log.jsonl", folder, kinds[kind]);
        REQUIRE(log_read(path, &log, error), "%s", error);
        code = test_command(output, sizeof output,
                            "%s " TINY_MODEL
                            "--batch=4 --steps=20 --warmup=5 --lr=1e-2 --attn=%s %s/train_000000.bin",
                            program, kinds[kind], folder);
        CHECK(code == 0 && log.n_train == 20, "tiny_gpt: code %d, train_gpt: %zu steps: %s", code,
              log.n_train, output);
        const char *line = output;
        for (size_t step = 0; step < log.n_train && (line = strstr(line, "loss ")); step++) {
            const double loss = strtod(line + 5, NULL), norm = strtod(strstr(line, "norm ") + 5, NULL);
            CHECK(fabs(loss - log.train[step].loss) < 1e-4 && fabs(norm - log.train[step].grad_norm) < 1e-3,
                  "%s, step %zu: tiny_gpt has loss %.6f and norm %.4f, train_gpt %.6f and %.4f", kinds[kind],
                  step + 1, loss, norm, log.train[step].loss, log.train[step].grad_norm);
            line += 5;
        }
        CHECK(line != NULL, "tiny_gpt printed fewer losses: %s", output);
        log_free(&log);
    }
}

/* A wrong option or file must be named, and a text must be trained on and continued. */
static void test_course_tiny_gpt_meets_its_user(void) {
    static const struct {
        const char *arguments, *said;
        int code;
    } cases[] = {
        {"--layer=2 README.md", "not an option, or its value is not a number: --layer=2", 2},
        {"--attn=lasr README.md", "expected ./tiny_gpt [--attn=standard|laser]", 2},
        {"", "expected ./tiny_gpt", 2},
        {"no-such-file.txt", "cannot read no-such-file.txt", 1},
        {"/dev/null", "too few tokens", 1},
        {"--vocab-size=7 README.md", "not below --vocab-size", 1},
        {"--layers=1 --embd=8 --mlp-hidden=8 --batch=1 --seq-len=8 --steps=2 README.md",
         "step     2   loss 5.", 0},
    };
    char output[8192], program[160];
    snprintf(program, sizeof program, "%s/tiny_gpt", test_folder());
    if (course_compile(COURSE "tiny_gpt.c", program) != 0) return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int code = test_command(output, sizeof output, "%s %s", program, cases[i].arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].said), "%s: code %d: %s", cases[i].arguments,
              code, output);
    }
    int code = test_command(output, sizeof output, "wc -l < " COURSE "tiny_gpt.c");
    CHECK(code == 0 && atoi(output) <= 400, "tiny_gpt.c is to have at most 400 lines: %s", output);
}

/* ---- texts and numbers ---- */

/* Whether two texts are the same, where numbers may differ by 2 in the last digit that is printed: a compiler or a math
   library may round the last bits differently. */
static bool course_same(const char *a, const char *b) {
    while (*a && *b) {
        char *end_a, *end_b;
        const bool digits = isdigit((unsigned char)*a) && isdigit((unsigned char)*b);
        if (!digits) {
            if (*a++ != *b++) return false;
            continue;
        }
        const double x = strtod(a, &end_a), y = strtod(b, &end_b);
        const char *point = memchr(a, '.', (size_t)(end_a - a)), *power = memchr(a, 'e', (size_t)(end_a - a));
        const int decimals = point ? (int)((power ? power : end_a) - point) - 1 : 0;
        const double unit = pow(10, -decimals) * (power ? pow(10, atoi(power + 1)) : 1);
        if (fabs(x - y) > (decimals ? 2.01 * unit : 0)) return false;
        a = end_a, b = end_b;
    }
    return *a == *b;
}

/* Takes the next line from *text, without its end; false after the last one. */
static bool course_line(const char **text, char *line, size_t size) {
    if (!**text) return false;
    const size_t length = strcspn(*text, "\n");
    snprintf(line, size, "%.*s", (int)length, *text);
    *text += length + ((*text)[length] == '\n');
    return true;
}

static bool course_blank(const char *line) { return line[strspn(line, " \t")] == 0; }
static const char *course_unindented(const char *line) { return line + strspn(line, " \t"); }

/* Whether the lines of `quote` follow one another at this place of a source; `...` stands for any number of lines. */
static bool course_quote_is_at(const char *quote, const char *source) {
    char want[512], got[512];
    while (course_line(&quote, want, sizeof want)) {
        if (strcmp(course_unindented(want), "...") == 0) {
            for (const char *rest = source; *rest; course_line(&rest, got, sizeof got))
                if (course_quote_is_at(quote, rest)) return true;
            return false;
        }
        if (!course_line(&source, got, sizeof got)) return false;
        if (!course_same(course_unindented(want), course_unindented(got))) return false;
    }
    return true;
}

/* Whether this line, which is not indented, has `name` as a whole word. */
static bool course_names(const char *line, const char *name) {
    const char *word = strchr(" \t#/*}", line[0]) ? NULL : strstr(line, name);
    const char after = word ? word[strlen(name)] : 0;
    return word && !isalnum((unsigned char)after) && after != '_' &&
           (word == line || (!isalnum((unsigned char)word[-1]) && word[-1] != '_'));
}

/* The function or array `name` of a source: from the comment before its definition to the line with its closing brace.
   The caller frees it; NULL: there is none. */
static char *course_definition(const char *source, const char *name) {
    const char *at = source, *begin = NULL, *comment = NULL;
    bool opened = false;
    for (char line[512]; *at;) {
        const char *start = at;
        course_line(&at, line, sizeof line);
        const size_t length = strlen(line);
        if (strncmp(line, "/*", 2) == 0) comment = start;
        if (!begin && course_names(line, name)) begin = comment ? comment : start;
        if (begin && !opened) opened = strchr(line, '{') != NULL && line[0] != '/';
        if (begin && opened && strchr(line, '}') && !strchr(" \t/", line[0]))
            return strndup(begin, (size_t)(at - begin));
        if (begin && !opened && length && line[length - 1] == ';') begin = NULL; /* only a declaration */
        if (!begin && (line[0] == '}' || length == 0)) comment = NULL;
    }
    return NULL;
}

/* Checks a quotation: `heading` is the first line of its block. */
static void course_check_quote(const char *page, const char *heading, const char *quote) {
    char file[128], name[128], folder[128] = "", path[300];
    size_t size;
    if (sscanf(heading, "/* %127[^, ] in %127[^, ], %127[A-Za-z0-9_]", file, folder, name) != 3) {
        *folder = 0;
        REQUIRE(sscanf(heading, "/* %127[^, ], %127[A-Za-z0-9_]", file, name) == 2,
                "%s: a block of C begins with '%s'; expected a comment with a file and a function", page,
                heading);
    }
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", file);
    char *source = check_file_read_if(path, 1 << 22, &size, "");
    REQUIRE(source, "%s quotes %s, which is no file", page, path);
    char *definition = course_definition(source, name);
    bool found = false;
    for (const char *at = definition; at && *at && !found;) {
        char line[512];
        found = course_quote_is_at(quote, at);
        course_line(&at, line, sizeof line);
    }
    CHECK(definition, "%s quotes %s of %s, where it is not defined", page, name, path);
    CHECK(!definition || found, "%s quotes lines that are not in %s of %s:\n%s", page, name, path, quote);
    free(definition), free(source);
}

/* Checks the output of a command `build/course TOPIC`. */
static void course_check_output(const char *page, const char *command, const char *block) {
    char output[16384], name[64];
    REQUIRE(sscanf(command, "build/course %63s", name) == 1, "%s: '%s' names no topic", page, command);
    const int code = test_command(output, sizeof output, "%s/build/course %s", test_binaries(), name);
    CHECK(code == 0 && course_quote_is_at(block, output),
          "%s: the output of '%s' is not that of the page: %s", page, command, output);
}

/* Calls course_check_quote or course_check_output for the blocks of a page, and checks that its links lead to files. */
static void course_check_page(const char *page) {
    char line[1024], command[512] = "", block[16384];
    size_t size;
    char *text = check_file_read_if(page, 1 << 22, &size, "");
    REQUIRE(text, "%s: no such page", page);
    for (const char *at = text; course_line(&at, line, sizeof line);) {
        for (const char *link = line; (link = strstr(link, "](")); link++) {
            char target[256], path[512];
            if (sscanf(link, "](%255[^)#]", target) != 1 || strstr(target, "://")) continue;
            snprintf(path, sizeof path, COURSE "%s", target);
            CHECK(access(path, F_OK) == 0, "%s links to %s, which does not exist", page, target);
        }
        if (strncmp(line, "```", 3) != 0) {
            if (!course_blank(line)) *command = 0;
            continue;
        }
        char kind[1024], heading[1024] = "";
        snprintf(kind, sizeof kind, "%s", line);
        size_t used = *block = 0;
        while (course_line(&at, line, sizeof line) && strcmp(line, "```") != 0) {
            if (strcmp(kind, "```c") == 0 && !*heading)
                snprintf(heading, sizeof heading, "%s", line);
            else
                used += (size_t)snprintf(block + used, sizeof block - used, "%s\n", line);
            REQUIRE(used < sizeof block, "%s has a longer block than expected", page);
        }
        if (strcmp(kind, "```c") == 0) course_check_quote(page, heading, block);
        if (strcmp(kind, "```sh") == 0) {
            const char *last = block; /* the last command of the block is the one whose output follows */
            for (const char *line_end = block; (line_end = strchr(line_end, '\n')) && line_end[1]; line_end++)
                last = line_end + 1;
            snprintf(command, sizeof command, "%.*s", (int)strcspn(last, "\n"), last);
        } else if (strcmp(kind, "```") == 0 && strncmp(command, "build/course ", 13) == 0)
            course_check_output(page, command, block);
    }
    free(text);
}

/* Chapters whose quotations, outputs or links are wrong would teach what is not so. */
static void test_course_chapters_quote_the_sources(void) {
    char page[256];
    int pages = 0;
    FILE *names = popen("ls " COURSE "*.md", "r");
    REQUIRE(names, "popen");
    for (; fscanf(names, "%255s", page) == 1; pages++) course_check_page(page);
    pclose(names);
    CHECK(pages > 3, "%d pages", pages);

    /* a quotation is found in its function, and nowhere else; a changed one is not found */
    static const char source[] = "/* one */\nint one(int x) {\n    return x + 1;\n}\nint two(int x) {\n    x "
                                 "*= 2;\n    return x;\n}\n";
    char *two = course_definition(source, "two");
    CHECK(two && course_quote_is_at("int two(int x) {\n...\nreturn x;\n", two), "%s",
          two ? two : "not found");
    CHECK(two && !strstr(two, "x + 1") && !course_quote_is_at("int two(int x) {\nreturn x;\n", two), "%s",
          two);
    CHECK(!course_definition(source, "on"), "half a name is found");
    free(two);
    CHECK(course_same("x 1.25 y", "x 1.26 y") && !course_same("x 1.25 y", "x 1.35 y") &&
              !course_same("3 4", "3 5"),
          "numbers are compared wrongly");
}

/* A picture that is not drawn from today's code would show something else than the text says. */
static void test_course_pictures_are_drawn_from_the_code(void) {
#ifdef __SANITIZE_ADDRESS__
    test_not_run("the numbers of the same topics were computed with the sanitizers; `make test` without "
                 "SAN=1 runs it");
    return;
#endif
    char folder[128], name[64], output[2048];
    int pictures = 0;
    snprintf(folder, sizeof folder, "%s", test_folder());
    FILE *names = popen("ls " COURSE "pictures", "r");
    REQUIRE(names, "popen");
    for (; fscanf(names, "%63[a-z].svg\n", name) == 1; pictures++) {
        char new_path[256], old_path[256];
        size_t size;
        snprintf(new_path, sizeof new_path, "%s/%s.svg", folder, name);
        snprintf(old_path, sizeof old_path, COURSE "pictures/%s.svg", name);
        const int code = test_command(output, sizeof output, "%s/build/course %s %s > %s/said",
                                      test_binaries(), name, new_path, folder);
        REQUIRE(code == 0, "build/course %s: code %d: %s", name, code, output);
        char *drawn = check_file_read_if(new_path, 1 << 22, &size, "");
        char *there = check_file_read_if(old_path, 1 << 22, &size, "");
        CHECK(drawn && there && course_same(drawn, there),
              "%s is not what the code draws; `make course` draws it again", old_path);
        free(drawn), free(there);
    }
    pclose(names);
    CHECK(pictures > 3, "%d pictures", pictures);
    int code = test_command(output, sizeof output, "%s/build/course no-such-topic", test_binaries());
    CHECK(code == 2 && strstr(output, "one of these topics: "), "code %d: %s", code, output);
    code = test_command(output, sizeof output, "%s/build/course row %s/row.svg", test_binaries(), folder);
    CHECK(code == 2 && strstr(output, "numbers and no picture: row"), "code %d: %s", code, output);
}

/* Runs one of three programs for an exercise: as it is delivered, its check fails and says that nothing is written yet; a
   right solution passes; and a mistake that students make is explained. */
static void course_check_exercise(const char *folder, int number) {
    static const char *const said[] = {" writes nothing to ", ": right\n", "    "};
    char output[4096];
    int code = test_command(output, sizeof output,
                            "set -e; to='%s' e=" COURSE "exercises s=tests/course/solution_%d.c\n"
                            "${CC:-cc} -O0 -c $e/check_%d.c -o $to/check.o\n"
                            "${CC:-cc} -O0 $e/exercise_%d.c $to/check.o -o $to/0 -lm\n"
                            "${CC:-cc} -O0 $s $to/check.o -o $to/1 -lm\n"
                            "${CC:-cc} -O0 -DMISTAKE $s $to/check.o -o $to/2 -lm",
                            folder, number, number, number);
    REQUIRE(code == 0, "exercise %d: code %d: %s", number, code, output);
    for (int program = 0; program < 3; program++) {
        code = test_command(output, sizeof output, "%s/%d", folder, program);
        CHECK(code == (program != 1) && strstr(output, said[program]), "exercise %d, program %d: code %d: %s",
              number, program, code, output);
    }
}

static void test_course_exercises_can_be_solved(void) {
    char output[4096], folder[128];
    int number, exercises = 0;
    snprintf(folder, sizeof folder, "%s", test_folder());
    FILE *names = popen("ls " COURSE "exercises", "r");
    REQUIRE(names, "popen");
    for (char name[64]; fscanf(names, "%63s", name) == 1;)
        if (sscanf(name, "exercise_%d.c", &number) == 1) course_check_exercise(folder, number), exercises++;
    pclose(names);
    CHECK(exercises >= 3, "%d exercises", exercises);
    const int code =
        test_command(output, sizeof output, "env -u MAKEFLAGS -u MAKELEVEL make -s P=%s/ exercise-4", folder);
    CHECK(code == 2 && strstr(output, "attention_row_forward() writes nothing to a yet\n"), "code %d: %s",
          code, output);
}

#define COURSE_TESTS(TEST)                                                                                   \
    TEST(course_tiny_gpt_trains_as_train_gpt_does)                                                           \
    TEST(course_tiny_gpt_meets_its_user)                                                                     \
    TEST(course_chapters_quote_the_sources)                                                                  \
    TEST(course_pictures_are_drawn_from_the_code)                                                            \
    TEST(course_exercises_can_be_solved)

#endif
