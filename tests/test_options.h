/* Tests of gpt/run/options.h and train_options.h: where a value comes from, bounds, spelling, files, choices and their
   enums, and that --help fits the table; and of gpt/base/filter.h. */
#ifndef TESTS_TEST_OPTIONS_H
#define TESTS_TEST_OPTIONS_H

#include "harness.h"
#include "../gpt/base/filter.h"
#include "../gpt/run/train_options.h"

/* Parses a command line that is given as one text, and ends the process where the program would end. */
static int parse_options(Options *options, OptionSet *set, const char *arguments) {
    static char text[1024];
    char *argv[32] = {"train_gpt"};
    int argc = 1;
    snprintf(text, sizeof text, "%s", arguments);
    for (char *state = NULL, *word = strtok_r(text, " ", &state); word && argc < 32;
         word = strtok_r(NULL, " ", &state))
        argv[argc++] = word;
    *set = options_begin("train_gpt", "usage", train_options, TRAIN_OPTION_COUNT, options, train_presets);
    return options_parse(set, argc, argv);
}

/* What the user types must win over a file, and a file over a preset: otherwise a run would train with other options
   than its command says. */
static void test_options_command_wins_over_file_over_preset(void) {
    Options o;
    OptionSet set;
    char path[256], arguments[512];
    snprintf(path, sizeof path, "%s/options.txt", test_folder());
    FILE *file = check_fopen(path, "w", "");
    fprintf(file, "# comment\nlayers = 5\n\n  heads=3   # three\nlr = 2e-4\n");
    check_fclose(file, path);
    snprintf(arguments, sizeof arguments, "--layers 7 --config=%s --preset=c4-16l --dry-run --attn laser",
             path);
    int others = parse_options(&o, &set, arguments);
    CHECK(others == 0, "%d arguments left", others);
    CHECK(o.layers == 7, "layers %ld, the command line says 7", (long)o.layers);
    CHECK(o.heads == 3, "heads %ld, the file says 3", (long)o.heads);
    CHECK(o.lr == 2e-4, "lr %g, the file says 2e-4", o.lr);
    CHECK(o.embd == 1024, "embd %ld, the preset says 1024", (long)o.embd);
    CHECK(o.beta1 == 0.9, "beta1 %g, the default is 0.9", o.beta1);
    CHECK(o.dry_run && o.attn == ATTENTION_LASER, "dry_run %d attn %d", o.dry_run, o.attn);
}

/* The config.json of a run, given as --config, must give the same options, or a run could not be repeated. */
static void test_options_dump_reads_back(void) {
    Options first, second;
    OptionSet set;
    char path[256], arguments[512];
    parse_options(&first, &set,
                  "--preset=gpt2-124m --lr=0.1234567891 --seed=99999999999999 --prompt=a=b --threads=3");
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToObject(json, "options", options_to_json(&set));
    char *text = cJSON_Print(json);
    snprintf(path, sizeof path, "%s/config.json", test_folder());
    FILE *file = check_fopen(path, "w", "");
    fputs(text, file);
    check_fclose(file, path);
    snprintf(arguments, sizeof arguments, "--config=%s", path);
    parse_options(&second, &set, arguments);
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        const Option *o = &train_options[i];
        if (o->type == OPTION_STRING) continue;
        size_t size = o->type == OPTION_CHOICE ? sizeof(int) : o->type == OPTION_SWITCH ? sizeof(bool) : 8;
        CHECK(memcmp((char *)&first + o->offset, (char *)&second + o->offset, size) == 0,
              "--%s did not survive the file", o->name);
    }
    CHECK(strcmp(second.prompt, "a=b") == 0, "prompt '%s'", second.prompt);
    cJSON_Delete(json);
    free(text);
}

static void parse_and_die(void *arguments) {
    Options o;
    OptionSet set;
    parse_options(&o, &set, arguments);
}

/* A misspelled option must be an error that names the nearest spelling; ignored, it would let a run train with the
   default. */
static void test_options_refuse_what_is_wrong(void) {
    char folder[128], bad_line[256], bad_json[256];
    snprintf(folder, sizeof folder, "%s", test_folder());
    const struct {
        const char *name, *content;
    } files[] = {{"line", "layers 5\n"}, {"json", "{\"layers\": [1]}"}, {"torn", "{\"layers\": 1"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        FILE *file = check_fopen(path, "w", "");
        fputs(files[i].content, file);
        check_fclose(file, path);
    }
    snprintf(bad_line, sizeof bad_line, "--config=%s/line", folder);
    snprintf(bad_json, sizeof bad_json, "--config=%s/json", folder);
    char torn[256];
    snprintf(torn, sizeof torn, "--config=%s/torn", folder);
    const struct {
        const char *arguments, *says;
    } cases[] = {
        {"--layrs=3", "did you mean --layers?"},
        {"--layers=3x", "--layers=3x: not a whole number; expected a whole number from 1 to 1024"},
        {"--layers=", "not a whole number"},
        {"--layers=0", "out of bounds; expected 1 to 1024"},
        {"--layers=99999999999999999999", "--layers"},
        {"--lr=nan", "not a number"},
        {"--lr=-1", "out of bounds"},
        {"--attn=lazer", "; did you mean laser?"},
        {"--attn=foo", "expected one of standard|laser|"},
        {"--preset=c4-300m", "; did you mean c4-301m?"},
        {"--attn", "a value is missing"},
        {"--dry-run=maybe", "expected yes or no"},
        {"--preset=c4", "expected one of demo|c4-301m|c4-16l|c4-301m-pax|gpt2-124m"},
        {"--config=/does/not/exist", "No such file"},
        {bad_line, "line 1: expected name = value"},
        {bad_json, "expected a number, a text or true/false"},
        {torn, "damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char output[1024];
        int code = test_death(parse_and_die, (void *)(uintptr_t)cases[i].arguments, output, sizeof output);
        CHECK(code == 2 && strstr(output, cases[i].says), "%s gives code %d and '%s', expected '%s'",
              cases[i].arguments, code, output, cases[i].says);
    }
}

/* A default outside of its bounds, or a preset with an unknown option, would be found only by the user who needs it. */
static void test_options_table_is_sound(void) {
    Options o;
    OptionSet set;
    parse_options(&o, &set, "");
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++)
        for (int j = i + 1; j < TRAIN_OPTION_COUNT; j++)
            CHECK(strcmp(train_options[i].name, train_options[j].name) != 0 &&
                      train_options[i].offset != train_options[j].offset,
                  "rows %d and %d share a name or a field: --%s --%s", i, j, train_options[i].name,
                  train_options[j].name);
    for (const OptionPreset *p = train_presets; p->name; p++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "--preset=%s", p->name);
        parse_options(&o, &set,
                      arguments); /* dies when a preset names an option that the table does not have */
    }
}

/* The names of a choice and the enum of its values must be in the same order, or one name would select another's
   behaviour. */
static void test_options_choices_are_their_enums(void) {
    static const struct {
        const char *arguments, *option;
        int value;
    } rows[] = {{"--activation=swiglu", "activation", ACTIVATION_SWIGLU},
                {"--activation=relu2", "activation", ACTIVATION_RELU2},
                {"--pos=learned", "pos", POSITION_LEARNED},
                {"--tie=no", "tie", TIE_NO},
                {"--bias=all", "bias", BIAS_ALL},
                {"--decay=all", "decay", DECAY_ALL},
                {"--init-weights=xavier", "init-weights", INIT_WEIGHTS_XAVIER},
                {"--norm=layernorm", "norm", NORM_LAYERNORM},
                {"--norm-place=peri", "norm-place", NORM_PLACE_PERI},
                {"--laser-shift=sequence", "laser-shift", LASER_SHIFT_SEQUENCE},
                {"--laser-shift=clamp", "laser-shift", LASER_SHIFT_CLAMP},
                {"--schedule=wsd", "schedule", LR_WSD},
                {"--optimizer=muon", "optimizer", OPTIMIZER_MUON},
                {"--dtype=bf16", "dtype", DTYPE_BF16},
                {"--recompute=block", "recompute", RECOMPUTE_BLOCK},
                {"--comm=host", "comm", COMM_HOST},
                {"--comm-dtype=bf16", "comm-dtype", COMM_BF16},
                {"--resume-data=changed", "resume-data", RESUME_DATA_CHANGED}};
    Options o;
    OptionSet set;
    char text[64];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        parse_options(&o, &set, rows[i].arguments);
        const Option *option = options_find(&set, rows[i].option);
        const int value = *(const int *)(const void *)((const char *)&o + option->offset);
        CHECK(value == rows[i].value, "%s gives %d", rows[i].arguments, value);
        CHECK(strcmp(options_value(&set, rows[i].option, text), strchr(rows[i].arguments, '=') + 1) == 0,
              "%s reads back as %s", rows[i].arguments, options_value(&set, rows[i].option, text));
    }
    CHECK(strcmp(OPTION_CHOICES(POSITION_CHOICES), "rope|sinusoidal|learned") == 0, "'%s'",
          OPTION_CHOICES(POSITION_CHOICES));
    parse_options(&o, &set, "--lr=0.25 --layers=3 --prompt=so --profile");
    CHECK(strcmp(options_value(&set, "lr", text), "0.25") == 0, "lr %s", text);
    CHECK(strcmp(options_value(&set, "layers", text), "3") == 0, "layers %s", text);
    CHECK(strcmp(options_value(&set, "profile", text), "yes") == 0, "profile %s", text);
    CHECK(strcmp(options_value(&set, "prompt", text), "so") == 0, "prompt");
}

/* Longer lines of --help would be broken in the middle of words by many terminals. */
static void test_options_help_fits_80_columns(void) {
    static char output[1 << 16];
    int code = test_command(output, sizeof output, "%s/train_gpt --help", test_binaries());
    CHECK(code == 0, "--help exits with %d", code);
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 80, "%zu columns: %s", strlen(line), line);
}

/* An option that --help does not name could not be found. */
static void test_options_help_names_every_option(void) {
    static char output[1 << 16];
    test_command(output, sizeof output, "%s/train_gpt --help", test_binaries());
    for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
        char name[80];
        snprintf(name, sizeof name, "  --%s=", train_options[i].name);
        CHECK(strstr(output, name), "--help lacks --%s", train_options[i].name);
    }
}

/* `./test_gpt --filter=a,b` must run the tests whose names contain either word. A filter that took fewer would skip
   tests unnoticed. */
static void test_filter_takes_words_between_commas(void) {
    static const struct {
        const char *filter, *name;
        bool takes;
    } rows[] = {{"", "laser", true},        {"laser", "a_laser_b", true}, {"rope,laser", "laser", true},
                {"rope", "laser", false},   {"rope,", "laser", false},    {",", "laser", false},
                {"lasers", "laser", false}, {"rope,laser", "rop", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(filter_takes(rows[i].filter, rows[i].name) == rows[i].takes, "'%s' of --filter=%s",
              rows[i].name, rows[i].filter);
}

#define OPTIONS_TESTS(TEST)                                                                                  \
    TEST(options_command_wins_over_file_over_preset)                                                         \
    TEST(options_dump_reads_back)                                                                            \
    TEST(options_refuse_what_is_wrong)                                                                       \
    TEST(options_choices_are_their_enums)                                                                    \
    TEST(options_table_is_sound)                                                                             \
    TEST(options_help_fits_80_columns)                                                                       \
    TEST(options_help_names_every_option) TEST(filter_takes_words_between_commas)

#endif
