/* test_report_arms.h: tests of the report for runs with several seeds, of --fit and of --expect. The logs are small and made
   here, so that every number is known; tests/test_statistics.h tests the formulas. */
#ifndef TESTS_TEST_REPORT_ARMS_H
#define TESTS_TEST_REPORT_ARMS_H

#include "test_report.h"

typedef struct {
    const char *name;
    const char *options; /* more of them, as JSON: ", \"attn\": \"laser\"" */
    int seed;
    double loss;   /* after 100 steps; NaN: the run has diverged */
    int last_step; /* 100: the run is finished */
    double parameters;
} ArmRun;

/* Writes a run of 100 steps with a validation each 10, whose loss is 3 above the last one at step 0 and falls on a straight
   line. A step has 1,000 tokens and takes 0.1 s with standard attention, 0.11 s with another. */
static void arm_write_run(const char *folder, const ArmRun *r) {
    char path[512];
    const bool laser = strstr(r->options, "laser") != NULL;
    snprintf(path, sizeof path, "%s/%s", folder, r->name);
    if (mkdir(path, 0777) != 0) die("cannot create '%s': %s", path, strerror(errno));
    FILE *log = report_file(folder, r->name, "log.jsonl");
    for (int step = 0; step <= r->last_step; step += 10) {
        const double loss = r->loss + 3.0 * (100 - step) / 100;
        char text[32];
        snprintf(text, sizeof text, isfinite(loss) ? "%.6f" : "null", loss);
        if (step)
            fprintf(log,
                    "{\"step\": %d, \"tokens\": %d, \"loss\": %s, \"tokens_per_s\": %g, \"seconds\": %g}\n",
                    step, 1000 * step, text, 1000 / (laser ? 0.11 : 0.1), 0.1 * step);
        fprintf(log, "{\"step\": %d, \"val_loss\": %s}\n", step, text);
    }
    fclose(log);
    FILE *config = report_file(folder, r->name, "config.json");
    fprintf(config,
            "{\"options\": {\"steps\": 100, \"seed\": %d, \"threads\": %d, \"out\": \"%s\", \"save-every\": "
            "%d%s}, "
            "\"parameters\": %.0f}",
            r->seed, 1 + r->seed % 3, r->name, r->seed, r->options, r->parameters > 0 ? r->parameters : 1e6);
    fclose(config);
    if (r->last_step < 100 || !isfinite(r->loss)) return;
    FILE *summary = report_file(folder, r->name, "summary.json");
    fprintf(summary, "{\"final_val_loss\": %.6f, \"final_val_bits_per_byte\": %.6f}", r->loss, r->loss / 3);
    fclose(summary);
}

/* Replaces each line break and the spaces around it by one space: sentences are broken at the width of the terminal. */
static void arm_unwrap(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (!strchr(" \n", *from))
            *to++ = *from;
        else if (to > text && to[-1] != ' ')
            *to++ = ' ';
    }
    *to = 0;
}

static int arm_report(char *output, size_t size, const char *folder, const char *arguments) {
    const int code = report_run(output, size, folder, "LC_ALL=C", arguments);
    arm_unwrap(output);
    return code;
}

static const ArmRun arm_pairs[] = {{"s1", ", \"attn\": \"standard\"", 1, 3.926, 100, 0},
                                   {"s2", ", \"attn\": \"standard\"", 2, 3.908, 100, 0},
                                   {"s3", ", \"attn\": \"standard\"", 3, 3.913, 100, 0},
                                   {"l1", ", \"attn\": \"laser\"", 1, 3.924, 100, 0},
                                   {"l2", ", \"attn\": \"laser\"", 2, 3.897, 100, 0},
                                   {"l3", ", \"attn\": \"laser\"", 3, 3.912, 100, 0}};

/* The numbers of the report are copied into papers: they must be those of the runs. The differences are -0.002, -0.011 and
   -0.001, with mean -0.00467, deviation 0.00551, and t(0.975, 2) = 4.3027, t(0.8, 2) = 1.0607. */
static void test_report_arms_have_the_numbers(void) {
    char folder[128], output[16384];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int i = 0; i < 6; i++) arm_write_run(folder, &arm_pairs[i]);
    int code = arm_report(output, sizeof output, folder, "--out=r.html --csv=a.csv s1 s2 s3 l3 l2 l1");
    REQUIRE(code == 0, "code %d: %s", code, output);
    static const char *const said[] = {
        "arm seeds val loss sd perpl. bits/B sd step cost",
        "* standard 3 3.9157 0.0093 50.18 1.3052 0.0031 100 ms 1.00",
        "o laser 3 3.9110 0.0135 49.95 1.3037 0.0045 110 ms 1.10",
        "Validation loss; mean of 3 seeds, bars: one standard deviation up and down",
        "laser minus standard: -0.0047 nats a token (95 % interval -0.0183 to +0.0090, 3 pairs): the sign is "
        "not certain.",
        "Differences by seed: 1: -0.0020, 2: -0.0110, 3: -0.0010. In bits per byte the difference is -0.0016 "
        "(95 % "
        "interval -0.0061 to +0.0030).",
        "two-sided, 5 %): 0.0171 nats, which is (t(0.975, 2) + t(0.8, 2)) s / sqrt(3) with s = 0.0055",
        "standard ends at 3.9157 after 100 steps; the mean of laser is there at step 100"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        CHECK(strstr(output, said[i]), "no '%s' in %s", said[i], output);
    CHECK(!strstr(output, "laser is lower"), "%s", output);
    char *html = report_read(folder, "r.html", &size), *csv = report_read(folder, "a.csv", &size);
    CHECK(strstr(html, said[4]), "the page says it otherwise");
    CHECK(strstr(html, "band: one standard deviation up and down") && strstr(html, "band: 95 % interval") &&
              strstr(html, "class=\"band\""),
          "no band, or not said what it is");
    CHECK(strstr(html, "All runs") && strstr(html, ">s2<"), "the runs themselves are not in the page");
    double v[15] = {0};
    const char *row = strstr(csv, "\"laser\",3,");
    REQUIRE(row, "%s", csv);
    row += strlen("\"laser\",3,");
    for (int i = 0; i < 15; i++) v[i] = strtod(row, NULL), row += strcspn(row, ",\n") + 1;
    CHECK(fabs(v[0] - 3.911) < 1e-6 && fabs(v[7] + 0.01400 / 3) < 1e-6 && fabs(v[8] + 0.0183483) < 1e-5 &&
              fabs(v[9] - 0.0090149) < 1e-5 && fabs(v[10] - 0.0170545) < 1e-5 && v[6] == 3 &&
              fabs(v[14] - 1.1) < 1e-3,
          "%s", csv);
    free(html), free(csv);
}

/* The report must never call a difference certain that its interval does not, nor the other way round; and it must say
   which runs it leaves out. */
static void test_report_arms_claim_what_the_interval_does(void) {
    static const char *const standard = ", \"attn\": \"standard\"", *const laser = ", \"attn\": \"laser\"";
    const ArmRun runs[] = {{"s1", standard, 1, 4.00, 100, 0}, {"s2", standard, 2, 4.10, 100, 0},
                           {"s3", standard, 3, 4.20, 100, 0}, {"l1", laser, 1, 3.90, 100, 0},
                           {"l2", laser, 2, 4.01, 100, 0},    {"l3", laser, 3, 4.09, 100, 0},
                           {"u4", laser, 4, 3.95, 100, 0},    {"n3", laser, 3, NAN, 100, 0},
                           {"half3", laser, 3, 3.9, 50, 0},   {"again2", laser, 2, 4.01, 100, 0}};
    static const struct {
        const char *names, *said[3];
        bool certain;
    } cases[] = {
        {"s1 s2 s3 l1 l2 l3",
         {"laser minus standard: -0.1000 nats a token (95 % interval -0.1248 to -0.0752, 3 pairs): laser is "
          "lower.",
          "the mean of laser is there at step 97, after 11 s of training steps instead of 10 s.", NULL},
         true},
        {"l1 l2 l3 s1 s2 s3",
         {"standard minus laser: +0.1000 nats a token (95 % interval +0.0752 to +0.1248, 3 pairs): standard "
          "is higher.",
          NULL},
         true},
        {"s1 s2 l1",
         {"laser minus standard: -0.1000 nats a token (1 pair): one pair of runs cannot tell",
          "Without a partner of the same seed, and so not in the difference of laser and standard: s2.",
          NULL},
         false},
        {"s1 s2 l3 u4", {"laser and standard have no seed in common", NULL}, false},
        {"s1 s2 s3 l1 l2 l3 u4", {"3 pairs): laser is lower.", "laser and standard: u4.", NULL}, true},
        {"s1 s2 l1 l2 n3 half3 again2",
         {"n3 is left out: its final validation loss is not a number. The means are those of the runs that "
          "did not diverge.",
          "half3 is left out: it is not finished.",
          "again2 is left out: it has the options and the seed of l2."},
         true},
    };
    char folder[128], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) arm_write_run(folder, &runs[i]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--out= %s", cases[i].names);
        const int code = arm_report(output, sizeof output, folder, arguments);
        CHECK(code == 0, "%s: code %d: %s", cases[i].names, code, output);
        for (int k = 0; k < 3 && cases[i].said[k]; k++)
            CHECK(strstr(output, cases[i].said[k]), "%s: no '%s' in %s", cases[i].names, cases[i].said[k],
                  output);
        const bool claims = strstr(output, " is lower") || strstr(output, " is higher");
        CHECK(claims == cases[i].certain, "%s: %s", cases[i].names, output);
    }
    /* one run of each kind: as before, with a warning */
    const int code = arm_report(output, sizeof output, folder, "--out= s1 l1");
    CHECK(code == 0 && strstr(output, "l1 ends 0.1000 nats below s1") &&
              strstr(output, "One run each cannot tell"),
          "code %d: %s", code, output);
}

/* Runs that differ in an option that changes results are no repetitions of each other; options such as --threads, which
   change none, must not separate them. arm_write_run gives each seed other threads and another --save-every. */
static void test_report_arms_follow_the_options(void) {
    static const ArmRun runs[] = {{"a1", ", \"lr\": 1e-3", 1, 3.9, 100, 0},
                                  {"a2", ", \"lr\": 0.001", 2, 3.8, 100, 0},
                                  {"b1", ", \"lr\": 2e-3", 1, 3.7, 100, 0},
                                  {"b2", ", \"lr\": 0.002", 2, 3.6, 100, 0},
                                  {"c1", "", 1, 3.5, 100, 0},
                                  {"c2", ", \"lr\": 3e-3", 2, 3.6, 100, 0},
                                  {"d1", ", \"novel\": 1", 1, 3.5, 100, 0},
                                  {"d2", ", \"novel\": 2", 2, 3.6, 100, 0},
                                  {"e1", ", \"data\": \"x\"", 1, 3.5, 100, 0},
                                  {"e2", ", \"data\": \"x\"", 2, 3.6, 100, 0}};
    static const struct {
        const char *names, *said[3];
    } cases[] = {
        {"a1 a2 b1 b2", {"* lr=0.001 2 3.8500", "o lr=0.002 2 3.6500", "lr=0.002 minus lr=0.001: -0.2000"}},
        {"a1 a2 c1 c2", {"o lr=3e-3 2 3.5500", NULL}}, /* an option that is missing has its default */
        {"d1 d2", {"d1 ends", NULL}},                  /* an option of another version counts */
        {"c1 c2 e1 e2", {"The arms have different --data", "o data=x 2", NULL}},
        {"a1 a2", {"* standard 2 3.8500", NULL}}};
    char folder[128], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) arm_write_run(folder, &runs[i]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--out= %s", cases[i].names);
        const int code = arm_report(output, sizeof output, folder, arguments);
        CHECK(code == 0, "%s: code %d: %s", cases[i].names, code, output);
        for (int k = 0; k < 3 && cases[i].said[k]; k++)
            CHECK(strstr(output, cases[i].said[k]), "%s: no '%s' in %s", cases[i].names, cases[i].said[k],
                  output);
    }
}

/* Tables and labels of arms must fit a terminal, and a label must be whole. */
static void test_report_arms_fit_the_terminal(void) {
    static const char *const options =
        ", \"layers\": %d, \"embd\": %d, \"heads\": 8, \"mlp-hidden\": %d, \"lr\": %g";
    char folder[128], output[32768], text[2][256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(text[i % 2], sizeof text[0], options, 6 + i % 2, 256 + i % 2, 1000 + i % 2,
                 1e-3 * (1 + i % 2));
        snprintf(name, sizeof name, "a-run-of-%s-seed-%d",
                 i % 2 ? "many-options" : "another-kind-and-a-long-name", i / 2);
        arm_write_run(folder, &(ArmRun){name, text[i % 2], i / 2, 3.5 + 0.01 * i, 100, 0});
    }
    const char *locales[] = {"LC_ALL=C", "LC_ALL=en_US.UTF-8"};
    for (int utf8 = 0; utf8 < 2; utf8++) {
        const int code = report_run(output, sizeof output, folder, locales[utf8], "--out= a-*");
        REQUIRE(code == 0, "code %d: %s", code, output);
        for (const char *line = output, *end; *line; line = end + (*end == '\n')) {
            end = line + strcspn(line, "\n");
            const int columns = report_columns(line, (size_t)(end - line));
            CHECK(columns <= 80, "%d columns: %.*s", columns, (int)(end - line), line);
        }
        CHECK(strstr(output, "a-run-of-many-options") &&
                  strstr(output, "a-run-of-another-kind-and-a-long-name") && !strstr(output, "seed-0"),
              "a label is cut: %s", output);
    }
}

/* The band of a curve must be in the picture. */
static void test_report_arms_png_has_bands(void) {
    char folder[128], output[8192];
    size_t size;
    int width = 0, height = 0, blue = 0;
    snprintf(folder, sizeof folder, "%s", test_folder());
    arm_write_run(folder, &(ArmRun){"s1", "", 1, 3.0, 100, 0});
    arm_write_run(folder, &(ArmRun){"s2", "", 2, 4.0, 100, 0});
    const int code = arm_report(output, sizeof output, folder, "--out= --png=p.png s1 s2");
    if (strstr(output, "built without stb")) return;
    REQUIRE(code == 0, "code %d: %s", code, output);
    char *png = report_read(folder, "p.png", &size);
    unsigned char *pixels = report_decode((unsigned char *)png, size, &width, &height);
    free(png);
    REQUIRE(pixels && width == 1200 && height == 700, "%d x %d", width, height);
    const unsigned char light[] = {211, 224, 251}; /* 0.8 white + 0.2 of 0x2563eb */
    for (int i = 0; i < width * height; i++) blue += memcmp(pixels + 3 * i, light, 3) == 0;
    CHECK(blue > 20000, "%d pixels of the band", blue);
    free(pixels);
}

/* A curve through models of several sizes: three sizes are reproduced, and fewer are refused with those that were found. */
static void test_report_fit(void) {
    char folder[128], output[16384];
    size_t size;
    snprintf(folder, sizeof folder, "%s", test_folder());
    /* L = 2 + 100 N^-0.25 for standard, a tenth lower for laser */
    for (int i = 0; i < 12; i++) {
        static const double sizes[] = {1e6, 1e7, 1e8};
        const int seed = 1 + i / 3 % 2;
        const bool laser = i >= 6;
        char name[32], options[128];
        const double N = sizes[i % 3], noise = seed == 1 ? 0.001 : -0.001;
        snprintf(name, sizeof name, "%c%d-%d", laser ? 'l' : 's', i % 3, seed);
        snprintf(options, sizeof options, ", \"attn\": \"%s\", \"layers\": %d, \"lr\": %g",
                 laser ? "laser" : "standard", 2 + i % 3, 1e-3 * (1 + i % 3));
        arm_write_run(folder, &(ArmRun){name, options, seed,
                                        2 + 100 * pow(N, -0.25) * (laser ? 0.9 : 1) + noise, 100, N});
    }
    int code = arm_report(output, sizeof output, folder, "--fit --out=f.html --csv=f.csv s* l*");
    REQUIRE(code == 0, "code %d: %s", code, output);
    static const char *const said[] = {"* standard 6 2 +- ",
                                       "o laser 6 2 +- ",
                                       " 0.25 +- ",
                                       "100,000,000 2 3.0000 0.0014 3.0000",
                                       "standard has exactly 3 sizes, so its curve goes through their means",
                                       "at 65.6M parameters, 0.656 times as many (95 % interval 0."};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        CHECK(strstr(output, said[i]), "no '%s' in %s", said[i], output);
    char *html = report_read(folder, "f.html", &size), *csv = report_read(folder, "f.csv", &size);
    char *start = strstr(html, "id=\"data\">");
    cJSON *data = start ? cJSON_Parse(start + strlen("id=\"data\">")) : NULL;
    CHECK(cJSON_GetArraySize(report_plot(data, 0, "y", 1)) > 50, "the page's data has no curve");
    double fitted[3] = {0};
    const char *row = strstr(csv, "\"standard\",6,3,");
    CHECK(row && sscanf(row, "\"standard\",6,3,%lf,%*f,%lf,%*f,%lf", &fitted[0], &fitted[1], &fitted[2]) == 3,
          "%s", csv);
    CHECK(fabs(fitted[0] - 2) < 1e-4 && fabs(fitted[1] - 100) < 0.05 && fabs(fitted[2] - 0.25) < 1e-4, "%s",
          csv);
    cJSON_Delete(data);
    free(html), free(csv);
    code = arm_report(output, sizeof output, folder, "--fit --out= s0-1 s1-1 s2-1");
    CHECK(code == 0 && strstr(output, "one run of each size, so a, b and c have no interval"), "code %d: %s",
          code, output);
    code = arm_report(output, sizeof output, folder, "--fit --out= s0-1 s0-2 s1-1");
    CHECK(code == 1 && strstr(output, "the runs of 'standard' have 1.00M and 10.0M parameters"),
          "code %d: %s", code, output);
    arm_write_run(folder, &(ArmRun){"twice", ", \"attn\": \"standard\", \"lr\": 9", 1, 3, 100, 1e6});
    code = arm_report(output, sizeof output, folder, "--fit --out= s0-1 s1-1 s2-1 twice");
    CHECK(code == 1 && strstr(output, "s0-1 and twice have the same size and seed"), "code %d: %s", code,
          output);
}

/* A run that differs from what earlier runs lead to expect must end with exit code 1, so that a script notices. */
static void test_report_expect(void) {
    static const ArmRun more[] = {{"good", ", \"attn\": \"standard\"", 4, 3.93, 100, 0},
                                  {"bad", ", \"attn\": \"standard\"", 5, 4.1, 100, 0},
                                  {"half", ", \"attn\": \"standard\"", 6, 3.93, 50, 0}};
    static const struct {
        const char *arguments;
        int code;
        const char *said;
    } cases[] = {
        {"--expect=e.csv good", 0, "100 3.9157 0.0462 3.9300 +0.0143 within 11 of 11 losses are within"},
        {"--expect=e.csv bad", 1, "100 3.9157 0.0462 4.1000 +0.1843 ABOVE the spread 0 of 11"},
        {"--expect=e.csv good half", 1, "100 3.9157 0.0462 - - NOT MEASURED 6 of 11"},
        {"--expect=own.csv good", 0, "1 of 1 losses"},
        {"--expect=wrong.csv good", 1, "wrong.csv:2 is not a row of expected losses: '100,4'"},
        {"--expect=none.csv good", 1, "none.csv"},
        {"--expect=good/log.jsonl good", 1, "good/log.jsonl:1 is not a row"},
        {"--write-expect=x.csv s1", 1, "one seed has no spread"},
        {"--write-expect=x.csv s1 s2 l1 l2", 1, "differ in more than their seed (standard; laser)"},
        {"--write-expect=x.csv half", 1, "none of the runs is finished"},
        {"--expect=e.csv --fit good", 2, "reports of their own"}};
    char folder[128], output[16384];
    snprintf(folder, sizeof folder, "%s", test_folder());
    for (int i = 0; i < 6; i++) arm_write_run(folder, &arm_pairs[i]);
    for (int i = 0; i < 3; i++) arm_write_run(folder, &more[i]);
    test_write(folder, "own.csv", "# mine\n100, 4, 0.1\n");
    test_write(folder, "wrong.csv", "step,mean,spread\n100,4\n");
    /* t(0.975, 2) s sqrt(4/3) = 4.3027 * 0.0092916 * 1.1547 = 0.04616 */
    const int code = arm_report(output, sizeof output, folder, "--write-expect=e.csv s1 s2 s3");
    REQUIRE(code == 0, "code %d: %s", code, output);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int got = arm_report(output, sizeof output, folder, cases[i].arguments);
        CHECK(got == cases[i].code && strstr(output, cases[i].said), "%s: code %d: %s", cases[i].arguments,
              got, output);
    }
}

#define REPORT_ARMS_TESTS(TEST)                                                                              \
    TEST(report_arms_have_the_numbers)                                                                       \
    TEST(report_arms_claim_what_the_interval_does)                                                           \
    TEST(report_arms_follow_the_options)                                                                     \
    TEST(report_arms_fit_the_terminal)                                                                       \
    TEST(report_arms_png_has_bands)                                                                          \
    TEST(report_fit)                                                                                         \
    TEST(report_expect)

#endif
