/* test_state.h: tests that a resumed run is the same run: its data are compared with those of the checkpoint, its
   tokenizer is the one read at its first start, numbers are restored to the bit, and a missing checkpoint is reported.
   */
#ifndef TESTS_TEST_STATE_H
#define TESTS_TEST_STATE_H

#include "harness.h"
#include "test_checkpoint.h"
#include "test_faults.h"
#include "test_files.h"
#include "test_hostile.h"
#include "test_model.h"
#include "test_train.h"

/* ---- the fingerprint of the data ---- */

static DataFingerprint state_fingerprint(const char *data, const char *tokenizer) {
    Dataset train, val;
    dataset_open(&train, data, "train_", 13, TEST_VOCAB);
    dataset_open(&val, data, "val_", 13, TEST_VOCAB);
    DataFingerprint fingerprint = fingerprint_of(&train, &val, tokenizer, tokenizer ? strlen(tokenizer) : 0);
    dataset_close(&train), dataset_close(&val);
    return fingerprint;
}

/* The sentence about how `data` differs from the data of the fingerprint `was`; "" when it does not. */
static const char *state_difference(const DataFingerprint *was, const char *data, const char *tokenizer) {
    static char text[256];
    DataFingerprint now = state_fingerprint(data, tokenizer);
    text[0] = 0;
    const bool differs = fingerprint_difference(was, &now, text);
    if (differs != (*text != 0) ||
        (differs && fingerprint_sum(was) == fingerprint_sum(&now) && !strstr(text, "other")))
        die("'%s' contradicts itself", text);
    fingerprint_free(&now);
    return text;
}

static void state_put(const char *folder, const char *name, long at, const char *bytes, size_t n) {
    char path[FILE_PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || pwrite(file, bytes, n, at) != (ssize_t)n) die("cannot change '%s'", path);
    close(file);
}

/* Every change of the data that training reads must change the fingerprint, or a resumed run would go on with other
   data unnoticed. */
static void test_state_fingerprint_sees_other_data(void) {
    enum { TOKENS = 60000 };
    char data[256], other[300], mix[600], output[512];
    snprintf(data, sizeof data, "%s", write_test_data(TOKENS));
    snprintf(other, sizeof other, "%s/moved", data);
    int code =
        test_command(output, sizeof output, "cd %s && mkdir moved && cp *.bin shards.json moved", data);
    REQUIRE(code == 0, "%s", output);
    DataFingerprint was = state_fingerprint(data, "{}");
    const char *found = state_difference(&was, other, "{}");
    CHECK(!*found, "the same data in another folder: %s", found);
    found = state_difference(&was, other, "{ }");
    CHECK(strstr(found, "its tokenizer.json is another one"), "another tokenizer.json: '%s'", found);

    const uint16_t token = 1;
    const long places[] = {SHARD_HEADER_BYTES + 20, SHARD_HEADER_BYTES + 2 * (TOKENS / 2) + 100,
                           2 * TOKENS + 500};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        uint16_t before[1];
        char path[400];
        snprintf(path, sizeof path, "%s/train_000000.bin", other);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        REQUIRE(pread(file, before, 2, places[i]) == 2, "%s", strerror(errno));
        close(file);
        const uint16_t changed = *before == token ? 2 : token;
        state_put(other, "train_000000.bin", places[i], (const char *)&changed, 2);
        found = state_difference(&was, other, "{}");
        CHECK(strstr(found, "folder 1 of --data has other training tokens than it had"),
              "byte %ld changed: '%s'", places[i], found);
        state_put(other, "train_000000.bin", places[i], (const char *)before, 2);
    }
    test_command(output, sizeof output, "cd %s && cp val_000000.bin train_000001.bin", other);
    found = state_difference(&was, other, "{}");
    CHECK(strstr(found, "has 62000 training tokens, it had 60000"), "a shard more: '%s'", found);
    test_command(output, sizeof output, "cd %s && mv train_000001.bin val_000001.bin", other);
    found = state_difference(&was, other, "{}");
    CHECK(strstr(found, "has 4000 validation tokens, it had 2000"), "a shard more: '%s'", found);
    test_command(output, sizeof output, "rm %s/val_000001.bin", other);

    snprintf(mix, sizeof mix, "%s:3,%s:1", data, other);
    found = state_difference(&was, mix, "{}");
    CHECK(strstr(found, "--data names 2 folders, it named 1"), "a mixture: '%s'", found);
    DataFingerprint mixed = state_fingerprint(mix, NULL), again;
    snprintf(mix, sizeof mix, "%s:0.75,%s:0.25", data, other);
    found = state_difference(&mixed, mix, NULL);
    CHECK(!*found, "the same weights, written otherwise: %s", found);
    snprintf(mix, sizeof mix, "%s:2,%s:1", data, other);
    found = state_difference(&mixed, mix, NULL);
    CHECK(strstr(found, "folder 1 of --data gives 683 of 1024 samples, it gave 768"), "other weights: '%s'",
          found);

    static const char manifest[] = "{\"train\": {\"shards\": [{\"crc32\": \"00000001\"}]}}";
    checkpoint_test_spill(checkpoint_test_path(other, "shards.json"), manifest, sizeof manifest - 1);
    DataFingerprint with_manifest = state_fingerprint(other, "{}");
    CHECK(!*state_difference(&was, other, "{}"), "a manifest that came later is no difference");
    checkpoint_test_spill(checkpoint_test_path(other, "shards.json"),
                          "{\"train\": {\"shards\": [{\"crc32\": \"x\"}]}}", 39);
    found = state_difference(&with_manifest, other, "{}");
    CHECK(strstr(found, "other training tokens"), "another checksum in the manifest: '%s'", found);

    cJSON *json = fingerprint_to_json(&mixed);
    char *printed = cJSON_Print(json), text[256] = "";
    cJSON_Delete(json);
    json = json_parse(printed, strlen(printed));
    CHECK(fingerprint_from_json(&again, json) && !fingerprint_difference(&mixed, &again, text), "%s: %s",
          text, printed);
    cJSON_Delete(json), cJSON_free(printed);
    fingerprint_free(&was), fingerprint_free(&mixed), fingerprint_free(&again),
        fingerprint_free(&with_manifest);
}

/* A run that has done 4 of its 12 steps is resumed with other data. This must be refused without
   --resume-data=changed: the curve would be that of no data set. */
static void test_resume_refuses_other_data(void) {
    char output[8192], data[256], log[300];
    const uint16_t changed[4] = {1, 2, 3, 4};
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(log, sizeof log, "%s/run/step-00000012/trainer_state.json", data);
    REQUIRE(begin_tiny(data, "run"), "the run did not begin");
    state_put(data, "train_000000.bin", SHARD_HEADER_BYTES, (const char *)changed, sizeof changed);
    int code = train_alone(data, "run", "--attn=laser --resume=auto", output, sizeof output);
    CHECK(code == 1 &&
              strstr(output, "was trained on other data: folder 1 of --data has other training tokens") &&
              strstr(output, "--resume-data=changed"),
          "exit %d: %s", code, output);
    code =
        train_alone(data, "run", "--attn=laser --resume=auto --resume-data=changed", output, sizeof output);
    CHECK(code == 0 && strstr(output, "the run goes on with other data (--resume-data=changed): folder 1"),
          "exit %d: %s", code, output);
    code = test_command(output, sizeof output, "grep resume-data %s/run/config.json", data);
    CHECK(code == 1, "a file of options would ask for it again: %s", output);
    size_t n;
    char *state = (char *)checkpoint_test_slurp(log, &n);
    CHECK(memmem(state, n, "\"data_changes\":\t1", 17), "the change is not noted: %.400s", state);
    free(state);
}

/* ---- the tokenizer that was read at the start ---- */

/* While a run trains, tokenizer.json of its data is replaced or removed. The checkpoint must have the one of the
   start: with another one the model would write nonsense. */
static void test_checkpoint_holds_the_tokenizer_of_the_start(void) {
    char output[8192], data[256], path[300];
    static const char *const then[] = {"echo '{}' > tokenizer.json", "rm tokenizer.json"};
    snprintf(data, sizeof data, "%s", write_test_data(600));
    Tokenizer *tokenizer = hostile_tokenizer();
    snprintf(path, sizeof path, "%s/first.json", data);
    tokenizer_save(tokenizer, path);
    tokenizer_free(tokenizer);
    for (int i = 0; i < 2; i++) {
        int code = test_command(
            output, sizeof output,
            "d=%s; cd $d && rm -f shards.json && cp first.json tokenizer.json && cd - > /dev/null; "
            "%s/train_gpt " TINY_MODEL
            "--threads=1 --vocab-size=0 --batch=4 --warmup=3 --val-every=0 --val-tokens=200 "
            "--steps=1000000 --data=$d --out=$d/run%d & "
            "pid=$!; for i in $(seq 3000); do grep -q '\"step\": 5,' $d/run%d/log.jsonl 2> /dev/null && "
            "break; kill -0 $pid || break; sleep 0.01; done; cd $d; %s; kill -INT $pid; wait $pid && cmp "
            "run%d/step-*/tokenizer.json first.json",
            data, test_binaries(), i, i, then[i], i);
        CHECK(code == 0, "'%s': exit %d: %s", then[i], code, output);
    }
}

/* ---- missing checkpoints ---- */

/* A run whose checkpoint has lost its DONE must not begin at step 0 as if nothing had been there. */
static void test_checkpoint_without_done_is_told(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    REQUIRE(begin_tiny(data, "run"), "the run did not begin");
    test_command(output, sizeof output, "cd %s/run && rm step-00000004/DONE && cp log.jsonl ../log", data);
    static const char *const resume[] = {"--resume=auto", "--resume=no"};
    for (int i = 0; i < 2; i++) {
        int code = train_alone(data, "run", i ? "--attn=laser" : "--attn=laser --resume=auto", output,
                               sizeof output);
        CHECK(code == 1 && strstr(output, "step-00000004") &&
                  strstr(output, i ? "holds a run already" : "has no DONE"),
              "%s: exit %d: %s", resume[i], code, output);
    }
    int code = test_command(output, sizeof output,
                            "cd %s && cmp run/log.jsonl log && rm -r run/step-00000004", data);
    CHECK(code == 0, "the log was changed: %s", output);
    code =
        train_alone(data, "run", "--attn=laser --resume=auto --save-every=4 --keep=0", output, sizeof output);
    CHECK(code == 0 && strstr(output, "training begins at step 0, and the log is kept as"), "exit %d: %s",
          code, output);
    code = test_command(output, sizeof output,
                        "cd %s && cmp run/log.jsonl.old log && rm run/step-00000012/DONE run/summary.json",
                        data);
    CHECK(code == 0, "the old log was not kept: %s", output);
    code =
        train_alone(data, "run", "--attn=laser --resume=auto --save-every=4 --keep=0", output, sizeof output);
    CHECK(code == 0 &&
              strstr(output, "step-00000012 has no DONE: it is passed over for an older checkpoint") &&
              strstr(output, "step-00000008"),
          "exit %d: %s", code, output);
}

/* However often a run begins at step 0 for lack of a checkpoint, no log of training steps may be lost; a log without
   any is not kept. */
static void test_logs_are_set_aside(void) {
    const char *folder = test_folder();
    char output[512];
    for (long run = 0; run < 4; run++) {
        Log log;
        log_open(&log, folder, 0, 10, true);
        const LogValidation v = log_validation_of(0, 4.0, NAN);
        log_validation(&log, &v);
        LogTrain row = {.step = 1, .loss = (double)run};
        if (run != 1) log_train(&log, &row);
        log_close(&log);
    }
    test_command(output, sizeof output, "cd %s && ls && grep -h -o 'loss\": [0-9]*,' *", folder);
    CHECK(strcmp(output, "log.jsonl\nlog.jsonl.old\nlog.jsonl.old2\nloss\": 3,\nloss\": 0,\nloss\": 2,\n") ==
              0,
          "%s", output);
}

/* A summary.json that a full disk left empty must not count as that of a finished run, and config.json must be
   replaced completely or not at all. */
static void test_files_of_a_run_are_whole(void) {
    char output[8192], data[256], path[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_alone(data, "a/deep/run", "", output,
                           sizeof output); /* the folders that contain --out are made */
    REQUIRE(code == 0, "exit %d: %s", code, output);
    snprintf(path, sizeof path, "%s/a/deep/run/summary.json", data);
    REQUIRE(truncate(path, 0) == 0, "no summary was written");
    code = train_alone(data, "a/deep/run", "--resume=auto", output, sizeof output);
    struct stat about = {0};
    CHECK(code == 0 && stat(path, &about) == 0 && about.st_size > 100,
          "exit %d, summary.json has %lld bytes: %s", code, (long long)about.st_size, output);
    code = test_command(
        output, sizeof output, /* a folder is in the place where the temporary file is to be written */
        "r=%s/a/deep/run; cp $r/config.json $r/was; mkdir -p $r/config.json.part/x; %s/train_gpt " TINY_RUN
        "--threads=1 --data=%s --out=$r --resume=auto; echo exit $?; cmp $r/config.json $r/was",
        data, test_binaries(), data);
    CHECK(code == 0 && strstr(output, "exit 1") && strstr(output, "config.json.part' is a folder"),
          "exit %d: %s", code, output);
}

/* ---- numbers ---- */

/* A number that changes by being written as text and read again would make a resumed run another run. */
static void test_numbers_keep_their_bits(void) {
    for (uint64_t i = 0; i < 2000; i++) {
        uint64_t bits = rng_bits(3, RNG_STREAM_TEST, i);
        double x, back;
        memcpy(&x, &bits, sizeof x);
        if (i == 0) x = 0.30000000000000004;
        if (i % 2) x = rng_normal(3, RNG_STREAM_TEST, i);
        cJSON *json = cJSON_CreateObject();
        json_add_number(json, "x", x);
        char *text = cJSON_Print(json);
        cJSON *again = json_parse(text, strlen(text)), *item = cJSON_GetObjectItem(again, "x");
        back = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        CHECK(isfinite(x) ? memcmp(&back, &x, sizeof x) == 0 : cJSON_IsNull(item),
              "%.17g came back as %.17g from %s", x, back, text);
        cJSON_Delete(json), cJSON_Delete(again), cJSON_free(text);
    }
}

/* The options in a checkpoint are compared with those on the command line. Some numbers need 17 digits: with fewer,
   the same command would be refused as another run. */
static void test_long_numbers_can_be_resumed(void) {
    static const char arguments[] =
        "--weight-decay=0.30000000000000004 --beta2=0.94999999999999996 --lr=0.0030000000000000005";
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_alone(data, "run", arguments, output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = train_alone(
        data, "run",
        "--resume=auto --weight-decay=0.30000000000000004 --beta2=0.95 --lr=0.0030000000000000005", output,
        sizeof output);
    CHECK(code == 0 && strstr(output, "has done all"), "exit %d: %s", code, output);
    code =
        train_alone(data, "run", "--resume=auto --weight-decay=0.3 --beta2=0.95 --lr=0.0030000000000000005",
                    output, sizeof output);
    CHECK(code == 1 && strstr(output, "--weight-decay is 0.3, but") &&
              strstr(output, "was trained with 0.30000000000000004"),
          "exit %d: %s", code, output);
}

/* ---- the vocabulary of a preset ---- */

/* With a preset and data of another vocabulary, the model must get the size of the data's: with the preset's it
   would be too large, or too small for the tokens. */
static void test_vocabulary_comes_from_the_data(void) {
    char data[256], path[300], arguments[600], options[300];
    snprintf(data, sizeof data, "%s", test_folder());
    snprintf(path, sizeof path, "%s/tokenizer.json", data);
    snprintf(options, sizeof options, "%s/options", data);
    Tokenizer *tokenizer = hostile_tokenizer();
    tokenizer_save(tokenizer, path);
    tokenizer_free(tokenizer);
    const struct {
        const char *file, *arguments;
        int vocab_size;
    } cases[] = {{"", "--preset=c4-301m", 262},
                 {"", "--preset=gpt2-124m", 262},
                 {"", "--layers=1", 262},
                 {"preset = c4-16l\n", "--config=FILE", 262},
                 {"vocab-size = 300\n", "--config=FILE --preset=c4-301m", 300},
                 {"{\"preset\": \"c4-301m\", \"vocab-size\": 300}", "--config=FILE", 300},
                 {"", "--preset=c4-301m --vocab-size=32000", 32000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Options o;
        OptionSet set;
        checkpoint_test_spill(options, cases[i].file, strlen(cases[i].file));
        const char *mark = strstr(cases[i].arguments, "FILE");
        snprintf(arguments, sizeof arguments, "--dry-run --data=%s %.*s%s%s", data,
                 (int)(mark ? mark - cases[i].arguments : 99), cases[i].arguments, mark ? options : "",
                 mark ? mark + 4 : "");
        parse_options(&o, &set, arguments);
        fflush(stdout);
        Trainer t = trainer_plan(&o, &set);
        CHECK(t.model.config.vocab_size == cases[i].vocab_size, "%s with '%s': %d tokens, expected %d",
              cases[i].arguments, cases[i].file, t.model.config.vocab_size, cases[i].vocab_size);
        trainer_free(&t);
    }
    char output[4096];
    int code = test_command(output, sizeof output, "%s/train_gpt --dry-run --data=%s --vocab-size=200",
                            test_binaries(), data);
    CHECK(code == 2 &&
              strstr(output, "--vocab-size=200: the tokenizer.json of --data has tokens up to number 261"),
          "exit %d: %s", code, output);
}

/* ---- text that a terminal would obey ---- */

/* Text from files must not send commands to the terminal of the user. */
static void test_text_of_others_is_printable(void) {
    static const struct {
        const char *text, *shown;
        bool lines;
    } cases[] = {
        {"plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", false},
        {"\033]0;title\a\r\b\177", "\\x1b]0;title\\x07\\x0d\\x08\\x7f", false},
        {"a\nb\tc", "a\\x0ab\\x09c", false},
        {"a\nb\tc\r", "a\nb\tc\\x0d", true},
        {"\xC2\x9B"
         "31m",
         "\\xc2\\x9b31m", false},
        {"\xE2\x80\xAEtxt", "\\xe2\\x80\\xaetxt", true},
        {"\xFF\xC0\x80\xED\xA0\x80\xE2\x82", "\\xff\\xc0\\x80\\xed\\xa0\\x80\\xe2\\x82", false}};
    char shown[256], output[4096];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = cases[i].text;
        const size_t n = strlen(text);
        size_t length = check_printable(shown, sizeof shown, text, n, cases[i].lines);
        CHECK(strcmp(shown, cases[i].shown) == 0 && length == strlen(shown), "case %zu: '%s'", i, shown);
        for (size_t room = 1; room < length; room++) /* cut at any place, it ends before `room` does */
            CHECK(check_printable(shown, room, text, n, cases[i].lines) < room && strlen(shown) < room,
                  "case %zu: room %zu", i, room);
        for (size_t piece = 1; cases[i].lines && piece <= n;
             piece++) { /* printed piece by piece, as tokens are, it must look the same */
            char *printed = NULL, waiting[8] = "";
            size_t size = 0;
            FILE *memory = open_memstream(&printed, &size);
            for (size_t at = 0; at < n; at += piece)
                check_print_piece(memory, waiting, text + at, n - at < piece ? n - at : piece);
            check_print_piece(memory, waiting, "", 0);
            fclose(memory);
            CHECK(strcmp(printed, cases[i].shown) == 0, "case %zu in pieces of %zu: '%s'", i, piece, printed);
            free(printed);
        }
    }
    static const char *const commands[] = {
        "%s/train_gpt --vocab-size=5 --data=$(printf 'a\\033[31mb')",
        "%s/train_gpt --lr=$(printf 'a\\033[31mb')", "%s/generate $(printf 'a\\033[31mb')",
        "%s/report --out=x $(printf 'a\\033[31mb')", "%s/prepare --out=/dev/null/x $(printf 'a\\033[31mb')"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char command[256];
        snprintf(command, sizeof command, commands[i], test_binaries());
        int code = test_command(output, sizeof output, "%s", command);
        CHECK(code != 0 && !strchr(output, '\033') && (i == 4 || strstr(output, "a\\x1b[31mb")),
              "%s: exit %d, %s", command, code, output);
    }
}

#define STATE_TESTS(TEST)                                                                                    \
    TEST(state_fingerprint_sees_other_data)                                                                  \
    TEST(resume_refuses_other_data)                                                                          \
    TEST(checkpoint_holds_the_tokenizer_of_the_start)                                                        \
    TEST(checkpoint_without_done_is_told)                                                                    \
    TEST(logs_are_set_aside)                                                                                 \
    TEST(files_of_a_run_are_whole)                                                                           \
    TEST(numbers_keep_their_bits)                                                                            \
    TEST(long_numbers_can_be_resumed) TEST(vocabulary_comes_from_the_data) TEST(text_of_others_is_printable)

#endif
