/* test_grammar.h: tests that the stories of ./grammar have the probability that the program says. */
#ifndef TESTS_TEST_GRAMMAR_H
#define TESTS_TEST_GRAMMAR_H

#include <cjson/cJSON.h>
#include "harness.h"

typedef struct {
    double documents, bytes, nats, expected, deviation;
} GrammarFigures;

static bool grammar_figures(const char *json, GrammarFigures *figures) {
    const struct {
        const char *key;
        double *value;
    } fields[] = {{"documents", &figures->documents},
                  {"bytes", &figures->bytes},
                  {"nats", &figures->nats},
                  {"expected_nats", &figures->expected},
                  {"deviation", &figures->deviation}};
    cJSON *object = cJSON_Parse(json);
    bool ok = object != NULL;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, fields[i].key);
        ok = ok && cJSON_IsNumber(item);
        *fields[i].value = ok ? item->valuedouble : NAN;
    }
    cJSON_Delete(object);
    return ok;
}

/* The content of a file, ended by a 0; the caller frees it. */
static char *grammar_read(const char *path) {
    FILE *file = check_fopen(path, "rb", "");
    char *text = check_calloc(4 << 20);
    text[fread(text, 1, (4 << 20) - 1, file)] = 0;
    fclose(file);
    return text;
}

static int grammar_count(const char *text, const char *word) {
    int n = 0;
    for (; (text = strstr(text, word)); text += strlen(word)) n++;
    return n;
}

/* Writes stories to folder/stories.txt and reads what the program printed about them. */
static bool grammar_write(const char *folder, int seed, int bytes, GrammarFigures *figures) {
    char output[1024], path[256];
    int code = test_command(output, sizeof output, "%s/grammar --seed=%d --bytes=%d --out=%s/stories.txt",
                            test_binaries(), seed, bytes, folder);
    CHECK(code == 0, "code %d: %s", code, output);
    if (code != 0) return false;
    snprintf(path, sizeof path, "%s/stories.json", folder);
    char *json = grammar_read(path);
    bool ok = grammar_figures(json, figures);
    CHECK(ok, "%s", json);
    free(json);
    return ok;
}

/* The same seed must give the same stories on every machine, or results could not be compared. */
static void test_grammar_same_seed_same_text(void) {
    char folder[128], output[256], path[256];
    GrammarFigures a, b;
    snprintf(folder, sizeof folder, "%s", test_folder());
    REQUIRE(grammar_write(folder, 7, 200000, &a), "seed 7");
    test_command(output, sizeof output, "cd %s && mv stories.txt first.txt", folder);
    REQUIRE(grammar_write(folder, 7, 200000, &b), "seed 7 again");
    int code = test_command(output, sizeof output, "cd %s && cmp first.txt stories.txt", folder);
    CHECK(code == 0, "the same seed: %s", output);
    CHECK(a.nats == b.nats, "%.9g and %.9g nats", a.nats, b.nats);

    snprintf(path, sizeof path, "%s/stories.txt", folder);
    char *text = grammar_read(path);
    int separators = grammar_count(text, "<|endoftext|>\n"), ends = grammar_count(text, "\nThe end.\n");
    CHECK(separators + 1 == (int)a.documents, "%d separators, %g documents", separators, a.documents);
    CHECK(ends == (int)a.documents, "%d ends, %g documents", ends, a.documents);
    CHECK((double)strlen(text) == a.bytes + 14.0 * separators, "%zu bytes, %g and %d separators",
          strlen(text), a.bytes, separators);
    CHECK(a.bytes >= 200000 && a.bytes < 230000, "%g bytes", a.bytes);
    free(text);

    REQUIRE(grammar_write(folder, 8, 200000, &b), "seed 8");
    code = test_command(output, sizeof output, "cd %s && cmp -s first.txt stories.txt", folder);
    CHECK(code != 0, "seeds 7 and 8 tell the same");
}

/* Reading must find in the text alone the probability with which it was written: the lowest loss that a model can
   reach is computed from it. */
static void test_grammar_text_gives_its_probability(void) {
    char folder[128], output[1024];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int seed = 1; seed <= 3; seed++) {
        GrammarFigures written, scored;
        REQUIRE(grammar_write(folder, seed, 300000, &written), "seed %d", seed);
        int code =
            test_command(output, sizeof output, "%s/grammar --score=%s/stories.txt", test_binaries(), folder);
        REQUIRE(code == 0 && grammar_figures(output, &scored), "code %d: %s", code, output);
        CHECK(fabs(scored.nats - written.nats) <= 2e-6, "%.9g written, %.9g scored", written.nats,
              scored.nats);
        CHECK(scored.documents == written.documents && scored.bytes == written.bytes, "%g, %g and %g, %g",
              written.documents, written.bytes, scored.documents, scored.bytes);
    }
}

/* The weight of a word by its place in its list, as the manual of the lists has it, and the sum over n words
   without those at the places given. */
static double grammar_weight(int place) { return 60 / (place + 3) + 1; }
static double grammar_cost(int place, int n, int without) {
    double total = 0;
    for (int i = 0; i < n; i++) total += i == without ? 0 : grammar_weight(i);
    return log(total / grammar_weight(place));
}

/* The probability of every choice of this story was computed by hand. A wrong one would make the reported lowest
   loss wrong. */
static void test_grammar_prices_a_story_by_hand(void) {
    char path[256], output[1024];
    snprintf(path, sizeof path, "%s/story.txt", test_folder());
    FILE *file = check_fopen(path, "w", "");
    fputs(
        "In the town of Oakham there lived two friends. Alena was a baker and kept a copper lantern in the "
        "cellar. Berwin was a smith and kept a silver bell under the bridge. He wept.\n"
        "Where was the copper lantern? It was in the cellar.\n"
        "This is the end of the tale of Oakham: Alena the baker had the copper lantern; Berwin the smith had "
        "the silver bell.\nThe end.\n",
        file);
    fclose(file);
    GrammarFigures scored;
    int code = test_command(output, sizeof output, "%s/grammar --score=%s", test_binaries(), path);
    REQUIRE(code == 0 && grammar_figures(output, &scored), "code %d: %s", code, output);
    const double sentence = 8 + 6 + 4 + 2 + 6 + 16 + 4 + 6 + 4 + 4 + 7 + 16 + 2 * (16 / 2);
    double want = grammar_cost(0, 18, -1) + grammar_cost(0, 12, -1) + grammar_cost(0, 3, -1) /* Oak ham two */
                  + grammar_cost(0, 24, -1) + grammar_cost(0, 16, -1)                        /* Al ena */
                  + grammar_cost(0, 16, -1) + grammar_cost(0, 16, -1) +
                  grammar_cost(0, 16, -1)                            /* baker, ... */
                  + grammar_cost(0, 12, -1)                          /* the cellar */
                  + grammar_cost(1, 24, 0) + grammar_cost(1, 16, -1) /* Ber win, another onset than Alena's */
                  + 3 * grammar_cost(1, 16, 0) + grammar_cost(1, 12, -1) /* smith, silver, bell; the bridge */
                  + log(sentence / 16) + grammar_cost(4, 12, -1) + log(13.0 / 5) /* He wept . */
                  + log(sentence / 6) + log(2.0)                                 /* Where, which thing */
                  + log(sentence / 7);                                           /* the end */
    CHECK(fabs(scored.nats - want) < 1e-5, "%.9g nats, by hand %.9g", scored.nats, want);
}

/* Numbers must be drawn with the probabilities that are counted, or the reported lowest loss would not be that of
   the stories. */
static void test_grammar_draws_what_it_counts(void) {
    char folder[128], path[256];
    GrammarFigures figures;
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int seed = 1; seed <= 4; seed++) {
        REQUIRE(grammar_write(folder, seed, 500000, &figures), "seed %d", seed);
        double off = (figures.nats - figures.expected) / figures.deviation;
        CHECK(figures.deviation > 0 && fabs(off) < 4, "seed %d: %.2f deviations from what is expected", seed,
              off);
    }
    snprintf(path, sizeof path, "%s/stories.txt", folder);
    char *text = grammar_read(path);
    const char *crowds[] = {" lived two ", " lived three ", " lived four "};
    double square = 0, total = grammar_weight(0) + grammar_weight(1) + grammar_weight(2);
    for (int i = 0; i < 3; i++) {
        double want = figures.documents * grammar_weight(i) / total, got = grammar_count(text, crowds[i]);
        square += (got - want) * (got - want) / want;
    }
    CHECK(square < 14, "sizes of crowds: chi square %.1f on 2 degrees of freedom", square);
    free(text);
}

/* The reader must accept only stories that follow the grammar: otherwise a model that writes wrong stories would be
   called good. */
static void test_grammar_refuses_wrong_stories(void) {
    static const char intro[] =
        "In the town of Oakham there lived two friends. Alena was a baker and kept a copper lantern in the "
        "cellar. Berwin was a smith and kept a silver bell under the bridge.";
    static const char end[] =
        "\nThis is the end of the tale of Oakham: Alena the baker had the copper lantern; "
        "Berwin the smith had the silver bell.\nThe end.\n";
    static const struct {
        const char *sentence;
        bool right;
    } cases[] = {
        {" He wept.", true},
        {" She wept.", false}, /* Berwin came last */
        {" The dogs that the king near the towers trusts sleep.", true},
        {" The dogs that the king near the towers trust sleep.", false},
        {" The dogs that the king near the towers trusts sleeps.", false},
        {" Then Alena found the copper lantern in the cellar and put it at the inn.", true},
        {" Then Alena found the copper lantern at the inn and put it in the cellar.", false},
        {"\nWho owned the silver bell? Berwin did.", true},
        {"\nWho owned the silver bell? Alena did.", false},
        {" Alena said, \"Berwin said, 'I am a smith'.\"", true},
        {" Alena said, \"Berwin said, 'I am a baker'.\"", false},
        {" Alena said, \"Berwin said, 'I am a smith.\"", false},
        {" Up in the tower the bell rang three times: ding, ding, ding.", true},
        {" Up in the tower the bell rang three times: ding, ding.", false},
        {" Celena wept.", false},
    };
    char path[256], output[1024];
    snprintf(path, sizeof path, "%s/story.txt", test_folder());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *file = check_fopen(path, "w", "");
        fprintf(file, "%s%s%s", intro, cases[i].sentence, end);
        fclose(file);
        int code = test_command(output, sizeof output, "%s/grammar --score=%s", test_binaries(), path);
        CHECK(code == (cases[i].right ? 0 : 1), "code %d for '%s': %s", code, cases[i].sentence, output);
        CHECK(cases[i].right || strstr(output, "is not of this grammar"), "'%s': %s", cases[i].sentence,
              output);
    }
}

#define GRAMMAR_TESTS(TEST)                                                                                  \
    TEST(grammar_same_seed_same_text)                                                                        \
    TEST(grammar_text_gives_its_probability)                                                                 \
    TEST(grammar_prices_a_story_by_hand)                                                                     \
    TEST(grammar_draws_what_it_counts)                                                                       \
    TEST(grammar_refuses_wrong_stories)

#endif
