/* Tests of gpt/math/attention.h, the table of the kinds of attention: every kind has right gradients, the names agree
   wherever they appear, an unknown kind stops the program, and docs/add-an-attention.md does what it says. */
#ifndef TESTS_TEST_ATTENTION_KINDS_H
#define TESTS_TEST_ATTENTION_KINDS_H

#include "attention_checks.h"
#include "harness.h"
#include "test_train.h"

/* With a wrong gradient a kind of attention would train, but to a worse model, and nothing would say so. */
static void test_attention_kinds_have_right_gradients(void) {
    char text[ATTENTION_CHECK_TEXT];
    for (int kind = 0; kind < ATTENTION_KIND_COUNT; kind++) {
        const bool right = attention_check((AttentionKind)kind, text);
        CHECK(right, "%s", text);
    }
}

/* The number that --attn=NAME and a checkpoint's "attention": NAME give must be that of the kind whose own name is
   NAME. Otherwise a run would train another kind of attention than it was asked for. */
static void test_attention_kinds_have_one_name(void) {
    const Option *option = options_find_in(train_options, TRAIN_OPTION_COUNT, "attn");
    const char *in_config = NULL;
    for (int i = 0; i < MODEL_FIELDS; i++)
        if (strcmp(model_fields[i].key, "attention") == 0) in_config = model_fields[i].choices;
    char names[256] = "";
    REQUIRE(option && in_config, "no option --attn, or no \"attention\" in config.json");
    for (int kind = 0; kind < ATTENTION_KIND_COUNT; kind++) {
        const char *name = attention_name((AttentionKind)kind);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", kind ? "|" : "", name);
        CHECK(options_choice_index(option->choices, name) == kind, "--attn=%s is not kind %d", name, kind);
        CHECK(options_choice_index(in_config, name) == kind, "\"attention\": \"%s\" is not kind %d", name,
              kind);
    }
    CHECK(strcmp(ATTENTION_CHOICES, names) == 0, "the kinds are %s, not %s", names, ATTENTION_CHOICES);
}

static void attention_of_unknown_kind(void *kind) {
    AttentionCheck c;
    attention_check_open(&c, ATTENTION_STANDARD);
    c.kind = *(AttentionKind *)kind;
    attention_check_forward(&c);
}

/* A kind that the table does not have must not be computed as another one. */
static void test_attention_of_an_unknown_kind_dies(void) {
    static const int unknown[] = {ATTENTION_KIND_COUNT, 1000, -1};
    char output[512];
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        AttentionKind kind = (AttentionKind)unknown[i];
        const int code = test_death(attention_of_unknown_kind, &kind, output, sizeof output);
        CHECK(code == 1 && strstr(output, "there is no kind of attention with number"),
              "kind %d: exit %d: %s", unknown[i], code, output);
    }
}

/* Copies what the trainer is built from to `folder`, and adds the kind of the page: its first ```c block is the new
   header, its first ```diff block the row of the table. The GPU's blocks are only checked to fit the file that they
   change. */
static int add_the_kind_of_the_page(const char *folder, char *output, size_t size) {
    return test_command(
        output, size,
        "set -e; mkdir %s/tests; cp tests/*attention*.[ch] %s/tests; "
        "cp -r Makefile scripts laser.h train_gpt.c gpt hf cuda docs/add-an-attention.md %s; cd %s; "
        "block() { awk -v fence=\"\\`\\`\\`$1\" -v number=\"$2\" "
        "'/^```/ { if (inside) exit; if ($0 == fence && ++count == number) { inside = 1; next } } "
        "inside' add-an-attention.md; }; "
        "block c 1 > gpt/math/attention_sigmoid.h; "
        "block diff 1 | patch -p1; block diff 2 | patch -p1 --dry-run",
        folder, folder, folder, folder);
}

/* Builds the trainer, and beside it the check of gradients by the page's own command, and runs the latter. */
static int build_and_check_the_kind(const char *folder, char *output, size_t size) {
    return test_command(
        output, size,
        "cd %s; (env -u MAKEFLAGS -u SAN make MPI=no CFLAGS=-O1 train_gpt; echo $? > made) & "
        "command=$(sed -n 's/^cc \\(.*check_attention\\.c.*\\) &&.*/\\1/p' add-an-attention.md); "
        "${CC:-cc} $command && ./check_attention; code=$?; wait; "
        "[ $code = 0 ] && exit $(cat made)",
        folder);
}

/* Someone who follows docs/add-an-attention.md must get a trainer that compiles and a kind that passes the check of
   its gradients. */
static void test_attention_page_adds_a_kind(void) {
    char output[8192], folder[128], data[256];
    if (test_command(output, sizeof output, "command -v patch") != 0) {
        test_not_run("there is no program 'patch'");
        return;
    }
    snprintf(folder, sizeof folder, "%s", test_folder());
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = add_the_kind_of_the_page(folder, output, sizeof output);
    REQUIRE(code == 0, "the page's changes do not fit the files: exit %d: %s", code, output);
    code = build_and_check_the_kind(folder, output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    CHECK(strstr(output, "sigmoid    gradients right"), "no line about the new kind: %s", output);
    code = test_command(output, sizeof output,
                        "cd %s && ./train_gpt " TINY_RUN "--data=%s --out=run --attn=sigmoid && "
                        "grep '\"attention\":.*\"sigmoid\"' run/step-*/config.json",
                        folder, data);
    CHECK(code == 0 && strstr(output, "sigmoid attention, "), "exit %d: %s", code, output);
}

#define ATTENTION_KINDS_TESTS(TEST)                                                                          \
    TEST(attention_kinds_have_right_gradients)                                                               \
    TEST(attention_kinds_have_one_name)                                                                      \
    TEST(attention_of_an_unknown_kind_dies)                                                                  \
    TEST(attention_page_adds_a_kind)

#endif
