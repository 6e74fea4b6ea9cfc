/* test_formats.h: docs/formats.md names exactly the keys that the programs write. Readers write programs by this page, so
   a key that is missing there, or that is gone, is an error. */
#ifndef TESTS_TEST_FORMATS_H
#define TESTS_TEST_FORMATS_H

#include "harness.h"
#include "test_train.h"

enum { FORMATS_KEYS = 64 };
typedef struct {
    char names[FORMATS_KEYS][64];
    int count;
} FormatKeys;

static void formats_add(FormatKeys *keys, const char *name, size_t n) {
    if (keys->count == FORMATS_KEYS) die("test_formats.h: more than %d keys", FORMATS_KEYS);
    snprintf(keys->names[keys->count++], sizeof keys->names[0], "%.*s", (int)n, name);
}

static bool formats_has(const FormatKeys *keys, const char *name) {
    for (int i = 0; i < keys->count; i++)
        if (strcmp(keys->names[i], name) == 0) return true;
    return false;
}

/* The keys of an object of JSON. */
static FormatKeys formats_of_json(const cJSON *object) {
    FormatKeys keys = {.count = 0};
    const cJSON *item;
    cJSON_ArrayForEach(item, object) formats_add(&keys, item->string, strlen(item->string));
    return keys;
}

/* The names in `backquotes` in the first column of the first table after the line `before` of the page. */
static FormatKeys formats_of_page(const char *before) {
    FormatKeys keys = {.count = 0};
    size_t size;
    char *page = check_file_read("docs/formats.md", FILE_REGULAR, 1 << 20, &size, ""), *rest = page, *line;
    while ((line = strsep(&rest, "\n")) && strcmp(line, before) != 0) {}
    CHECK(line, "docs/formats.md has no line '%s'", before);
    bool in_table = false;
    while ((line = strsep(&rest, "\n")) && (*line == '|' || !in_table)) {
        in_table = in_table || *line == '|';
        char *cell_end = *line ? strchr(line + 1, '|') : NULL;
        for (char *at = line; cell_end && (at = strchr(at, '`')) && at < cell_end;) {
            const size_t n = strcspn(at + 1, "`");
            formats_add(&keys, at + 1, n);
            at += n + 2;
        }
    }
    free(page);
    return keys;
}

/* The keys of the page and those that are written must be the same, except that `optional` (NULL: none) may be missing
   in what is written. */
static void formats_compare(const char *before, const FormatKeys *written, const char *optional) {
    const FormatKeys page = formats_of_page(before);
    CHECK(written->count > 0, "nothing is written for '%s'", before);
    for (int i = 0; i < written->count; i++)
        CHECK(formats_has(&page, written->names[i]), "docs/formats.md, '%s': the table lacks the key %s",
              before, written->names[i]);
    for (int i = 0; i < page.count; i++)
        CHECK(formats_has(written, page.names[i]) || (optional && strcmp(optional, page.names[i]) == 0),
              "docs/formats.md, '%s': the table has the key %s, which is not written", before, page.names[i]);
}

static void formats_compare_json(const char *before, cJSON *json, const char *optional) {
    const FormatKeys keys = formats_of_json(json);
    formats_compare(before, &keys, optional);
    cJSON_Delete(json);
}

static void test_formats_page_has_the_keys_of_the_log(void) {
    FormatKeys train = {.count = 0}, validation = {.count = 0}, numbers = {.count = 0};
    for (int i = 0; i < LOG_FIELDS; i++)
        if (log_fields[i].key) formats_add(&train, log_fields[i].key, strlen(log_fields[i].key));
    formats_add(&validation, "step", 4);
    for (int i = 0; i < LOG_VALIDATION_FIELDS; i++)
        formats_add(&validation, log_validation_fields[i].key, strlen(log_validation_fields[i].key));
    for (int i = 0; i < ANALYSIS_NUMBERS; i++)
        formats_add(&numbers, analysis_numbers[i].key, strlen(analysis_numbers[i].key));
    formats_compare("### A line of a training step", &train, NULL);
    formats_compare("### A line of a validation", &validation, NULL);
    formats_compare("The numbers, with five digits:", &numbers, NULL);
    Analysis analysis = analysis_create(ATTENTION_STANDARD, 1, 1, 1, 2);
    formats_compare_json("In the object:", analysis_to_json(&analysis, true), NULL);
    analysis_free(&analysis);
}

static void test_formats_page_has_the_keys_of_a_checkpoint(void) {
    const ModelConfig config = {.layers = 1, .heads = 1, .attn = ATTENTION_LASER};
    FolderFingerprint folder = {.share = 1};
    const RunState state = {.data = {.folders = &folder, .folder_count = 1}, .options = cJSON_CreateObject()};
    formats_compare_json("### config.json of a checkpoint",
                         hugging_face_config(model_fields, MODEL_FIELDS, &config, NULL, false), NULL);
    formats_compare_json("### trainer_state.json", run_state_to_json(&state), NULL);
}

static void test_formats_page_has_the_keys_of_files(void) {
    char output[4096], data[256], folder[300], text[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    write_test_tokenizer(data);
    int code = train_tiny(data, "run", "--threads=1", output, sizeof output);
    REQUIRE(code == 0, "%s", output);
    snprintf(folder, sizeof folder, "%s/run", data);
    cJSON *config = checkpoint_read_json(folder, "config.json");
    formats_compare_json("In `machine`:", cJSON_DetachItemFromObject(config, "machine"), "gpu");
    cJSON_AddItemToObject(config, "machine", cJSON_CreateObject());
    formats_compare_json("## Configuration and summary of a run", config, NULL);
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    formats_compare_json("### tokenizer_config.json", checkpoint_read_json(folder, "tokenizer_config.json"),
                         NULL);
    snprintf(folder, sizeof folder, "%s/run", data);
    formats_compare_json(
        "`summary.json` is written at the end of a complete run, so a run without it is not finished.",
        checkpoint_read_json(folder, "summary.json"), NULL);

    snprintf(text, sizeof text, "%s/stories.txt", data);
    code = test_command(
        output, sizeof output,
        "%s/grammar --bytes=30000 --seed=1 --out=%s && %s/prepare --out=%s/shards --vocab=300 %s",
        test_binaries(), text, test_binaries(), data, text);
    REQUIRE(code == 0, "%s", output);
    snprintf(folder, sizeof folder, "%s/shards", data);
    formats_compare_json("## The manifest: shards.json", checkpoint_read_json(folder, "shards.json"), NULL);
}

#define FORMATS_TESTS(TEST)                                                                                  \
    TEST(formats_page_has_the_keys_of_the_log)                                                               \
    TEST(formats_page_has_the_keys_of_a_checkpoint)                                                          \
    TEST(formats_page_has_the_keys_of_files)

#endif
