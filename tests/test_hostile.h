/* test_hostile.h: tests with files that are damaged or made to do harm: checkpoints whose sizes overflow, impossible
   states, pipes in place of files. Each must be refused with one line that says what is wrong, and nothing may be
   read or written out of bounds (`make test SAN=1` finds that). */
#ifndef TESTS_TEST_HOSTILE_H
#define TESTS_TEST_HOSTILE_H

#include "harness.h"
#include "test_checkpoint.h"
#include "../data/bpe_learner.h"
#include "test_files.h"
#include "test_model.h"
#include "test_train.h"

/* As train_tiny, with one thread: there are many of these runs, and their losses do not matter. */
static int train_alone(const char *data, const char *name, const char *arguments, char *output, size_t size) {
    char all[512];
    snprintf(all, sizeof all, "--threads=1 %s", arguments);
    return train_tiny(data, name, all, output, size);
}

/* ---- a good checkpoint, made here ---- */

static Tokenizer *hostile_tokenizer(void) {
    BpeLearner *learner = bpe_learner_new(1);
    static const char text[] = "the cat and the dog and the hat; the cat and the dog";
    bpe_learner_add(learner, 0, text, sizeof text - 1);
    return bpe_learner_finish(learner, 262);
}

/* FOLDER with config.json, model.safetensors, tokenizer.json of a tiny model, and no DONE. */
static void hostile_write_good(const char *folder) {
    char path[FILE_PATH_SIZE], error[FILE_ERROR_SIZE];
    Tokenizer *tokenizer = hostile_tokenizer();
    const ModelConfig config = {.layers = 2,
                                .norm_eps = 1e-6,
                                .rope_theta = 10000,
                                .heads = 3,
                                .head_dim = 6,
                                .embd = 20,
                                .mlp_hidden = 27,
                                .seq_len = 13,
                                .vocab_size = tokenizer_vocab_size(tokenizer),
                                .laser_beta = 1,
                                .dtype = DTYPE_FP32};
    Model model = model_plan(&config, 1);
    model_allocate(&model);
    model_init(&model, 1);
    NamedTensor *tensors = named_tensors(&model.parameters, model.weights.memory);
    cJSON *json = config_to_json(model_fields, MODEL_FIELDS, &config);
    char *text = cJSON_Print(json);
    checkpoint_test_spill(checkpoint_test_path(folder, "config.json"), text, strlen(text));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    tokenizer_save(tokenizer, path);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (!safetensors_write(path, tensors, model.parameters.count, NULL, error)) die("%s", error);
    cJSON_free(text), cJSON_Delete(json), free(tensors);
    model_free(&model), tokenizer_free(tokenizer);
}

/* ---- 60 bad ones ---- */

typedef enum {
    SET,     /* config.json: member `what` becomes `to`; NULL: it is removed */
    TENSOR,  /* model.safetensors: the first `what` of its header becomes `to` */
    LENGTH,  /* model.safetensors: the length of its header becomes `what` */
    RESIZE,  /* model.safetensors: `what` bytes more */
    SPELL,   /* tokenizer.json: the first `what` becomes `to` */
    CONTENT, /* the file `what` gets the content `to`; NULL: it is removed */
    DEEP,    /* config.json is nested 100,000 deep */
    LARGE,   /* the file `what` becomes two MiB of spaces */
    PIPE,    /* the file `what` becomes a pipe */
    FOLDER,  /* the file `what` becomes a folder */
} HostileEdit;

typedef struct {
    HostileEdit edit;
    const char *what, *to, *says;
} HostileCase;

#define SUM0 "0000000000000000  "
static const HostileCase hostile_cases[] = {
    {SET, "num_hidden_layers", "357913942", "num_hidden_layers (--layers) is 357913942, expected 1 to 1024"},
    {SET, "num_hidden_layers", "0", "(--layers) is 0, expected 1 to 1024"},
    {SET, "num_hidden_layers", "-1", "\"num_hidden_layers\" is missing or wrong"},
    {SET, "num_hidden_layers", "1.5", "\"num_hidden_layers\" is missing or wrong"},
    {SET, "num_hidden_layers", "\"2\"", "\"num_hidden_layers\" is missing or wrong"},
    {SET, "num_hidden_layers", "1e308", "\"num_hidden_layers\" is missing or wrong"},
    {SET, "num_hidden_layers", NULL, "\"num_hidden_layers\" is missing or wrong"},
    {SET, "num_hidden_layers", "3", "has no tensor 'model.layers.2."},
    {SET, "num_attention_heads", "65536", "(--heads) is 65536, expected 1 to 1024"},
    {SET, "head_dim", "5", "rope turns pairs"},
    {SET, "head_dim", "2147483648", "\"head_dim\" is missing or wrong"},
    {SET, "hidden_size", "4294967316", "\"hidden_size\" is missing or wrong"},
    {SET, "hidden_size", "65537", "(--embd) is 65537, expected 1 to 65536"},
    {SET, "hidden_size", "65536", "has shape (262, 20), expected (262, 65536)"},
    {SET, "intermediate_size", "262145", "(--mlp-hidden) is 262145, expected 1 to 262144"},
    {SET, "vocab_size", "65537", "(--vocab-size) is 65537, expected 1 to 65536"},
    {SET, "vocab_size", "0", "(--vocab-size) is 0, expected 1 to 65536"},
    {SET, "vocab_size", "65536", "'model.embed_tokens.weight' has shape (262, 20), expected (65536, 20)"},
    {SET, "max_position_embeddings", "1048577", "(--seq-len) is 1048577, expected 2 to 1048576"},
    {SET, "position_embedding", "\"learned\"", "has no tensor 'model.embed_positions.weight'"},
    {SET, "hidden_act", "\"tanh\"", "\"hidden_act\" is missing or wrong"},
    {SET, "hidden_act", "\"silu\"", "has no tensor 'model.layers.0.mlp.gate_proj.weight'"},
    {SET, "attention", "[]", "\"attention\" is missing or wrong"},
    {SET, "laser_shift", "\"\"", "\"laser_shift\" is missing or wrong"},
    {SET, "final_logit_softcapping", "\"30\"", "\"final_logit_softcapping\" is missing or wrong"},
    {SET, "norm", "\"none\"", "\"norm\" is missing or wrong; expected rmsnorm|layernorm|crmsnorm"},
    {SET, "norm_place", "\"peri\"", "has no tensor 'model.layers.0.post_mlp_layernorm.weight'"},
    {SET, "final_logit_softcapping", "-1", "(--logit-softcap) is -1, expected 0 to 1000000"},
    {SET, "qk_norm", "\"\"", "\"qk_norm\" is missing or wrong; expected no|yes"},
    {SET, "laser_beta", "\"1\"", "\"laser_beta\" is missing or wrong; expected a number"},
    {SET, "laser_beta", "0", "laser_beta (--laser-beta) is 0, expected 0.01 to 100"},
    {SET, "rms_norm_eps", "0", "rms_norm_eps (--norm-eps) is 0, expected 1e-12 to 1"},
    {SET, "rope_theta", "\"far\"", "\"rope_theta\" is missing or wrong; expected a number"},
    {SET, "tie_word_embeddings", "false", "has no tensor 'lm_head.weight'"},
    {SET, "tie_word_embeddings", "\"no\"",
     "\"tie_word_embeddings\" is missing or wrong; expected true|false"},
    {CONTENT, "config.json", "[1, 2, 3]", "config.json' is no JSON object"},
    {CONTENT, "config.json", "{\"vocab_size\": 262", "config.json' is no JSON object"},
    {CONTENT, "config.json", "", "config.json' is no JSON object"},
    {CONTENT, "config.json", NULL, "config.json': No such file"},
    {DEEP, "config.json", NULL, "config.json' is no JSON object"},
    {LARGE, "config.json", NULL, "config.json' has 2097152 bytes, at most 1048576 are expected"},
    {PIPE, "config.json", NULL, "config.json' is a pipe (FIFO), expected a regular file"},
    {TENSOR, "\"data_offsets\":[0,", "\"data_offsets\":[4,", "which does not fit; the file is damaged"},
    {TENSOR, "\"shape\":[262,20]", "\"shape\":[20,262]", "has shape (20, 262), expected (262, 20)"},
    {TENSOR, "\"shape\":[262,20]", "\"shape\":[4294967296,4294967296]",
     "which does not fit; the file is damaged"},
    {TENSOR, "\"shape\":[262,20]", "\"shape\":[-262,-20]", "has a shape that is not 0 to 4 whole numbers"},
    {TENSOR, "\"shape\":[262,20]", "\"shape\":[262,20,1,1,1]",
     "has a shape that is not 0 to 4 whole numbers"},
    {TENSOR, "\"shape\":[262,20]", "\"shape\":{\"0\":262}", "lacks dtype, shape or data_offsets"},
    {TENSOR, "\"F32\"", "\"F64\"", "has dtype F64, expected F32, BF16 or F16"},
    {TENSOR, "\"F32\"", "\"F16\"", "which does not fit; the file is damaged"},
    {TENSOR, "\"model.embed_tokens.weight\"", "\"model.layers.0.input_layernorm.weight\"",
     "holds tensor 'model.layers.0.input_layernorm.weight' twice"},
    {TENSOR, "\"model.embed_tokens.weight\"", "\"model\\u001b[31m\"",
     "model\\x1b[31m', which this model does not have"},
    {TENSOR, "{\"__metadata__\"", "<\"__metadata__\"", "is not JSON"},
    {LENGTH, "9223372036854775807", NULL, "is not a safetensors file"},
    {LENGTH, "100000001", NULL, "is not a safetensors file"},
    {LENGTH, "99999999", NULL, "was cut short: its header takes 100000007 bytes"},
    {LENGTH, "0", NULL, "is not JSON"},
    {RESIZE, "-1", NULL, "lies outside the"},
    {RESIZE, "1", NULL, "has 1 bytes after its last tensor"},
    {CONTENT, "model.safetensors", "1234567", "has 7 bytes, a safetensors file has at least 8"},
    {PIPE, "model.safetensors", NULL, "model.safetensors' is a pipe (FIFO), expected a regular file"},
    {SPELL, ": 260,", ": 65535,", "has tokens up to number 65535, but the model has only 262 tokens"},
    {SPELL, "\"added_tokens\": [", "\"added_tokens\": [{\"id\": 60000, \"content\": \"Zq\"},",
     "has tokens up to number 60000, but the model has only 262 tokens"},
    {SPELL, ": 0,", ": 65536,", "has the id 65536; ids are whole numbers from 0 to 65535"},
    {SPELL, ": 0,", ": -1,", "has the id -1"},
    {SPELL, ": 0,", ": 1,", "two tokens have the id 1"},
    {SPELL, "\"merges\": [", "\"merges\": [\"xx yy\",", "which are not all in the vocabulary"},
    {SPELL, "\"BPE\"", "\"WordPiece\"", "BPE and Unigram are known"},
    {CONTENT, "tokenizer.json", "{}", "is no tokenizer.json: it has no model"},
    {FOLDER, "tokenizer.json", NULL, "tokenizer.json/vocab.json': No such file"},
    {CONTENT, "DONE", "0 files\n", "does not end with the number of its files"},
    {CONTENT, "DONE", "", "does not end with the number of its files"},
    {CONTENT, "DONE", SUM0 "config.json\n1 files\n", "it does not name model.safetensors"},
    {CONTENT, "DONE", SUM0 "config.json\n" SUM0 "model.safetensors\n" SUM0 "tokenizer.json\n3 files\n",
     "config.json' is damaged: its sum is"},
    {CONTENT, "DONE", SUM0 "../config.json\n1 files\n", "a line that is not 'sum  name'"},
    {LARGE, "DONE", NULL, "DONE' has 2097152 bytes, at most 1048576 are expected"},
    {PIPE, "DONE", NULL, "DONE' is a pipe (FIFO), expected a regular file"},
};
#undef SUM0

/* A copy of `text` with the first `what` replaced; the caller frees it. */
static char *hostile_replace(const char *text, size_t *n, const char *what, const char *to) {
    const char *at = memmem(text, *n, what, strlen(what));
    if (!at) die("'%s' is not in the file that is to be damaged", what);
    const size_t before = (size_t)(at - text), after = *n - before - strlen(what);
    char *made = check_calloc(before + strlen(to) + after + 1);
    memcpy(made, text, before);
    memcpy(made + before, to, strlen(to));
    memcpy(made + before + strlen(to), at + strlen(what), after);
    *n = before + strlen(to) + after;
    return made;
}

static void hostile_edit_json(const char *path, const HostileCase *c) {
    size_t n;
    char *text = (char *)checkpoint_test_slurp(path, &n);
    cJSON *json = cJSON_ParseWithLength(text, n);
    cJSON_DeleteItemFromObjectCaseSensitive(json, c->what);
    if (c->to) cJSON_AddRawToObject(json, c->what, c->to);
    char *made = cJSON_Print(json);
    checkpoint_test_spill(path, made, strlen(made));
    cJSON_Delete(json), cJSON_free(made), free(text);
}

/* Replaces a text in the header of a safetensors file, and corrects the length of the header. */
static void hostile_edit_header(const char *path, const HostileCase *c) {
    size_t n, length;
    char *file = (char *)checkpoint_test_slurp(path, &n);
    uint64_t header;
    memcpy(&header, file, 8);
    length = (size_t)header;
    char *text = hostile_replace(file + 8, &length, c->what, c->to), *made = check_calloc(n + length);
    memcpy(made, &(uint64_t){length}, 8);
    memcpy(made + 8, text, length);
    memcpy(made + 8 + length, file + 8 + header, n - 8 - (size_t)header);
    checkpoint_test_spill(path, made, n - (size_t)header + length);
    free(file), free(text), free(made);
}

static void hostile_apply(const char *folder, const HostileCase *c) {
    char config[FILE_PATH_SIZE], model[FILE_PATH_SIZE], tokenizer[FILE_PATH_SIZE], path[FILE_PATH_SIZE];
    size_t n;
    char *text, *made;
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(model, sizeof model, "%s/model.safetensors", folder);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", folder);
    snprintf(path, sizeof path, "%s/%s", folder, c->what);
    switch (c->edit) {
    case SET: hostile_edit_json(config, c); return;
    case TENSOR: hostile_edit_header(model, c); return;
    case LENGTH:
    case RESIZE:
        text = (char *)checkpoint_test_slurp(model, &n);
        made = memcpy(check_calloc(n + 1), text, n);
        if (c->edit == LENGTH) memcpy(made, &(uint64_t){strtoull(c->what, NULL, 10)}, 8);
        if (c->edit == RESIZE) n = (size_t)((long)n + atol(c->what));
        checkpoint_test_spill(model, made, n);
        free(text), free(made);
        return;
    case SPELL:
        text = (char *)checkpoint_test_slurp(tokenizer, &n);
        made = hostile_replace(text, &n, c->what, c->to);
        checkpoint_test_spill(tokenizer, made, n);
        free(text), free(made);
        return;
    default: break;
    }
    unlink(path);
    if (c->edit == CONTENT && c->to) checkpoint_test_spill(path, c->to, strlen(c->to));
    if (c->edit == DEEP || c->edit == LARGE) {
        made = memset(check_calloc(2 << 20), c->edit == DEEP ? '[' : ' ', 2 << 20);
        checkpoint_test_spill(path, made, c->edit == DEEP ? 100000 : 2 << 20);
        free(made);
    }
    if (c->edit == PIPE && mkfifo(path, 0666) != 0) die("mkfifo: %s", strerror(errno));
    if (c->edit == FOLDER && mkdir(path, 0777) != 0) die("mkdir: %s", strerror(errno));
}

static void hostile_load(void *folder) {
    Tokenizer *tokenizer;
    alarm(FILES_PATIENCE);
    Model model = checkpoint_load(folder, 1, DTYPE_FP32, &tokenizer);
    tokenizer_free(tokenizer), model_free(&model);
}

static int hostile_lines(const char *text) {
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

/* A checkpoint from a stranger, or a damaged one, must end in one line that says what is wrong; it must not crash
   the program or make it read outside of its memory. */
static void test_hostile_checkpoints_are_refused(void) {
    char good[FILE_PATH_SIZE], folder[FILE_PATH_SIZE], output[4096];
    snprintf(good, sizeof good, "%s", test_folder());
    hostile_write_good(good);
    hostile_load(good); /* the unchanged checkpoint must load */
    alarm(0);
    for (size_t i = 0; i < sizeof hostile_cases / sizeof *hostile_cases; i++) {
        const HostileCase *c = &hostile_cases[i];
        snprintf(folder, sizeof folder, "%s", test_folder());
        int code = test_command(output, sizeof output, "cp %s/* %s", good, folder);
        REQUIRE(code == 0, "%s", output);
        hostile_apply(folder, c);
        code = test_death(hostile_load, folder, output, sizeof output);
        CHECK(code == 1 && strstr(output, c->says) && strncmp(output, "error: ", 7) == 0,
              "%s %s: exit %d, '%s'", c->what, c->to ? c->to : "", code, output);
        CHECK(hostile_lines(output) == 1 && !strchr(output, '\033'), "%s %s: %s", c->what, c->to ? c->to : "",
              output);
    }
}

/* The same of the program that users run: ./generate finds the newest checkpoint of a run and compares the checksums
   where there are some. */
static void test_generate_refuses_hostile_files(void) {
    static const HostileCase cases[] = {
        {SET, "num_hidden_layers", "357913942", "is damaged: its sum is"},
        {SPELL, ": 260,", ": 65535,", "is damaged: its sum is"},
        {SET, "max_position_embeddings", "1048577", "(--seq-len) is 1048577"},
        {SPELL, "\"added_tokens\": [", "\"added_tokens\": [{\"id\": 60000, \"content\": \"Zq\"},",
         "but the model has only 262 tokens"},
    };
    char folder[FILE_PATH_SIZE], output[4096], error[FILE_ERROR_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(folder, sizeof folder, "%s", test_folder());
        hostile_write_good(folder);
        Checkpoint c = {.step = 0};
        snprintf(c.folder, sizeof c.folder, "%s", folder);
        REQUIRE(i >= 2 || checkpoint_write_done(&c, error), "%s", error);
        if (i == 0) {
            int code = test_command(output, sizeof output, "%s/generate --tokens=3 --prompt='the cat' %s",
                                    test_binaries(), folder);
            CHECK(code == 0 && strncmp(output, "the cat", 7) == 0, "the good one: exit %d, %s", code, output);
        }
        /* Given a run, it takes the newest complete checkpoint, and names a newer one that is not complete. */
        if (i == 0) {
            int code = test_command(
                output, sizeof output,
                "cd %s && mkdir run run/step-00000002 run/step-00000003 && cp *.* DONE run/step-00000002 "
                "&& cp *.* run/step-00000003 && cd - > /dev/null && %s/generate --tokens=1 %s/run",
                folder, test_binaries(), folder);
            CHECK(code == 0 && strstr(output, "step-00000003 has no DONE: it is passed over for"),
                  "exit %d: %s", code, output);
            code = test_command(
                output, sizeof output,
                "cd %s && mkdir late && cp *.* late && grep -v -e tokenizer.json -e ' files$' DONE > kept && "
                "{ cat kept && echo $(wc -l < kept) files; } > late/DONE && rm kept && cd - > /dev/null && "
                "%s/generate --tokens=1 %s/late",
                folder, test_binaries(), folder);
            CHECK(code == 0 && strstr(output, "late/tokenizer.json' was not written with the checkpoint"),
                  "a tokenizer.json that came later: exit %d: %s", code, output);
        }
        hostile_apply(folder, &cases[i]);
        int code = test_command(output, sizeof output, "timeout 60 %s/generate --tokens=3 --prompt=Zq %s",
                                test_binaries(), folder);
        CHECK(code == 1 && strstr(output, cases[i].says), "case %zu: exit %d, %s", i, code, output);
    }
}

/* ---- trainer_state.json ---- */

typedef struct {
    TestRun *run;
    const char *folder;
} HostileResume;

static void hostile_resume(void *argument) {
    const HostileResume *resume = argument;
    load_checkpoint(&resume->run->trainer.run, &resume->run->trainer.optimizer, resume->folder);
}

static const struct {
    const char *what, *to, *says; /* `to` NULL: the member is removed; "options.x": a member of the options */
} hostile_states[] = {
    {"step", "1e18", "\"step\" is missing or wrong: expected a whole number from 0 to 1000000000"},
    {"step", "-1", "\"step\" is missing or wrong"},
    {"step", "11.5", "\"step\" is missing or wrong"},
    {"step", "\"12\"", "\"step\" is missing or wrong"},
    {"step", NULL, "\"step\" is missing or wrong"},
    {"step", "11", "says step 11, the folder's name says 12"},
    {"tokens", "1e300", "\"tokens\" is missing or wrong"},
    {"tokens", "77", "says step 12 and 77 tokens"},
    {"seconds", "-5", "\"seconds\" is wrong"},
    {"optimizer_parts", "1000000000", "\"optimizer_parts\" is missing or wrong"},
    {"optimizer_parts", "0", "do not belong together"},
    {"optimizer_parts", "2", "does not name optimizer-00000-of-00002.safetensors"},
    {"options", NULL, "\"options\" is missing"},
    {"options", "[]", "\"options\" is missing"},
    {"options", "{}", "--layers is 2, but"},
    {"options.layers", "[2]", "the option \"layers\" is damaged"},
    {"options.layers", "3", "--layers is 2, but"},
    {"options.steps", "1e9", "--steps is 12, but"},
    {"watch", "{}", "\"watch\" is damaged"},
    {"watch", "{\"accepted\": 1e17, \"skipped\": 0, \"skipped_in_a_row\": 0, \"losses\": []}",
     "\"watch\" is damaged"},
    {"watch", "{\"accepted\": 1, \"skipped\": 0, \"skipped_in_a_row\": 0, \"losses\": [null]}",
     "\"watch\" is damaged"},
    {"data", "{}", "\"data\" is damaged"},
    {"data", "{\"tokenizer\": \"0000000000000000\", \"folders\": []}", "\"data\" is damaged"},
    {"data", "{\"tokenizer\": \"000000000000000g\", \"folders\": [{}]}", "\"data\" is damaged"},
    {"data", "{\"tokenizer\": \"0000000000000000\", \"folders\": [{\"samples_of_1024\": 1025}]}",
     "\"data\" is damaged"},
};

/* A trainer_state.json with impossible values must be refused: a run that believed it would go on from a wrong step
   or read the wrong data. */
static void test_hostile_states_are_refused(void) {
    char data[256], folder[512], path[600], output[4096];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_alone(data, "run", "--dtype=fp32", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    TestRun *run = test_run_open(data, "--batch=4 --steps=12 --warmup=3");
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    snprintf(path, sizeof path, "%s/trainer_state.json", folder);
    run->trainer.run.data = fingerprint_of(&run->trainer.run.train, &run->trainer.run.val, NULL, 0);
    HostileResume resume = {run, folder};
    size_t n;
    char *good = (char *)checkpoint_test_slurp(path, &n);
    hostile_resume(&resume); /* the unchanged state must load */
    for (size_t i = 0; i < sizeof hostile_states / sizeof *hostile_states; i++) {
        const char *what = hostile_states[i].what, *to = hostile_states[i].to;
        cJSON *json = cJSON_ParseWithLength(good, n);
        cJSON *object = strncmp(what, "options.", 8) ? json : cJSON_GetObjectItem(json, "options");
        const char *name = object == json ? what : what + 8;
        cJSON_DeleteItemFromObjectCaseSensitive(object, name);
        if (to) cJSON_AddRawToObject(object, name, to);
        char *text = cJSON_Print(json);
        checkpoint_test_spill(path, text, strlen(text));
        code = test_death(hostile_resume, &resume, output, sizeof output);
        CHECK(code == 1 && strstr(output, hostile_states[i].says) && hostile_lines(output) == 1,
              "%s = %s: exit %d, %s", what, to ? to : "nothing", code, output);
        cJSON_Delete(json), cJSON_free(text);
    }
    /* The state of an old trainer, which did not record its data, is accepted with a warning. */
    cJSON *json = cJSON_ParseWithLength(good, n);
    cJSON_DeleteItemFromObject(json, "data"), cJSON_DeleteItemFromObject(json, "data_changes");
    cJSON_DeleteItemFromObject(cJSON_GetObjectItem(json, "options"), "resume-data");
    char *text = cJSON_Print(json);
    checkpoint_test_spill(path, text, strlen(text));
    code = test_death(hostile_resume, &resume, output, sizeof output);
    CHECK(code == 0 && strstr(output, "whether --data is still the same cannot be checked"), "exit %d: %s",
          code, output);
    cJSON_Delete(json), cJSON_free(text), free(good);
    test_run_close(run);
}

/* ---- pipes in place of files ---- */

/* Eighteen programs run at once, each with a pipe that nobody writes into in place of one file. A program that
   opened it would wait forever. */
static void test_no_program_waits_for_a_pipe(void) {
    static const struct {
        const char *file, *command;
        int code;
        const char *says;
    } cases[] = {
        {"data/train_000000.bin", "$train", 1, "is a pipe (FIFO)"},
        {"data/val_000000.bin", "$train", 1, "is a pipe (FIFO)"},
        {"data/shards.json", "$train", 1, "is a pipe (FIFO)"},
        {"data/tokenizer.json", "$train", 1, "is a pipe (FIFO)"},
        {"new/log.jsonl", "$train --out=new", 1, "is a pipe (FIFO)"},
        {"new/config.json", "$train --out=new", 0, "12/12"}, /* replaced */
        {"new/summary.json", "$train --out=new", 0, "12/12"},
        {"options", "$train --config=options", 2, "is a pipe (FIFO) that no program writes into"},
        {"run/log.jsonl", "$train --out=run --resume=auto", 1, "is a pipe (FIFO)"},
        {"run/step-00000012/DONE", "$train --out=run --resume=auto", 1, "is a pipe (FIFO)"},
        {"run/step-00000012/trainer_state.json", "$train --out=run --resume=auto", 1, "is a pipe (FIFO)"},
        {"run/step-00000012/model.safetensors", "$train --out=run --resume=run/step-00000012", 1,
         "is a pipe (FIFO)"},
        {"run/step-00000012/config.json", "$bin/generate run", 1, "is a pipe (FIFO)"},
        {"run/log.jsonl", "$bin/report --out=r.html run", 1, "is a pipe (FIFO)"},
        {"run/config.json", "$bin/report --out=r.html run", 1, "is a pipe (FIFO)"},
        {"run/summary.json", "$bin/report --out=r.html run", 1, "is a pipe (FIFO)"},
        {"r.html", "$bin/report --out=r.html run", 1, "is a pipe (FIFO) that no program reads"},
        {"stories.txt", "$bin/grammar --score=stories.txt", 1,
         "is a pipe (FIFO) that no program writes into"},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    static char output[16384];
    char data[256], script[4096], work[128];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_alone(data, "run", "", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    snprintf(work, sizeof work, "%s", test_folder());
    for (int i = 0; i < CASES; i++) {
        snprintf(script, sizeof script, "%s/%d.sh", work, i);
        FILE *file = check_fopen(script, "w", "");
        fprintf(file,
                "bin=$1\nmkdir %d && cd %d && mkdir data new && cp %s/*.bin %s/shards.json data && cp -r "
                "%s/run . || exit "
                "99\nrm -f %s; mkfifo %s || exit 98\ntrain=\"$bin/train_gpt " TINY_RUN
                "--threads=1 --data=data\"\n%s\n",
                i, i, data, data, data, cases[i].file, cases[i].file, cases[i].command);
        check_fclose(file, script);
    }
    code = test_command(
        output, sizeof output,
        "bin=$(cd %s && pwd); cd %s; for i in $(seq 0 %d); do (OMP_NUM_THREADS=1 timeout 60 sh $i.sh $bin "
        "> $i.out 2>&1 < /dev/null; echo $? > $i.code) & done; wait",
        test_binaries(), work, CASES - 1);
    REQUIRE(code == 0, "%s", output);
    for (int i = 0; i < CASES; i++) {
        test_command(output, sizeof output, "cd %s; cat %d.out %d.code", work, i, i);
        size_t n = strlen(output);
        while (n > 0 && output[n - 1] == '\n') output[--n] = 0;
        const char *last = strrchr(output, '\n');
        CHECK(last && atoi(last + 1) == cases[i].code && strstr(output, cases[i].says), "%s: %s: %s",
              cases[i].file, cases[i].command, n > 900 ? output + n - 900 : output);
    }
}

#define HOSTILE_TESTS(TEST)                                                                                  \
    TEST(hostile_checkpoints_are_refused)                                                                    \
    TEST(generate_refuses_hostile_files) TEST(hostile_states_are_refused) TEST(no_program_waits_for_a_pipe)

#endif
