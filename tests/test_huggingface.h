/* test_huggingface.h: a checkpoint is a folder that Hugging Face's programs load: its files, the names in them, its
   number formats. tests/test_huggingface.py loads such folders with transformers and other programs. */
#ifndef TESTS_TEST_HUGGINGFACE_H
#define TESTS_TEST_HUGGINGFACE_H

#include "harness.h"
#include "test_train.h"

/* Gives the tensors of a checkpoint's file the names that older versions wrote. */
static void huggingface_rename_old(const TensorTable *parameters, const char *folder, const char *file) {
    char path[512], error[CHECKPOINT_ERROR_SIZE];
    NamedTensor *tensors;
    int count, renamed = 0;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (!safetensors_load(path, &tensors, &count, error)) die("%s", error);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < parameters->count; k++) {
            const Tensor *t = &parameters->tensors[k];
            char *at = strstr(tensors[i].name, t->name);
            if (!at || strlen(at) != strlen(t->name)) continue; /* after mean. or square. */
            memmove(at, t->old_name, strlen(t->old_name) + 1);
            renamed++;
            break;
        }
    CHECK(renamed == count, "%s: %d of %d tensors have an old name", file, renamed, count);
    if (!safetensors_write(path, tensors, count, NULL, error)) die("%s", error);
    safetensors_free(tensors, count);
}

/* Writes a checkpoint's DONE again, after its files have been changed. */
static void huggingface_write_done(const char *folder) {
    char path[512], error[CHECKPOINT_ERROR_SIZE];
    Checkpoint c = {.step = 0};
    snprintf(path, sizeof path, "%s/DONE", folder);
    snprintf(c.folder, sizeof c.folder, "%s", folder);
    if (unlink(path) != 0 || !checkpoint_write_done(&c, error)) die("'%s': %s", path, error);
}

/* Runs of older versions must go on, and their models be read: weights and moments under the old names. The result must
   have the same bits as that of a run that was never stopped. */
static void test_huggingface_old_names_are_read(void) {
    static const char *const all[] = {"", "--activation=swiglu --pos=learned --tie=no",
                                      "--qk-norm=yes --attn-scale=head --norm-place=peri"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char output[8192], data[256], folder[300], options[300];
        snprintf(data, sizeof data, "%s", write_test_data(600));
        int code = train_tiny(data, "whole", all[i], output, sizeof output);
        REQUIRE(code == 0, "%s: %s", all[i], output);
        snprintf(options, sizeof options, "%s --save-every=7 --keep=0", all[i]);
        train_tiny(data, "old", options, output, sizeof output);
        test_command(output, sizeof output, "rm -r %s/old/step-00000012", data);
        snprintf(folder, sizeof folder, "%s/old/step-00000007", data);
        Model model = model_load(folder, 1, DTYPE_FP32);
        const size_t bytes = model.parameters.floats * sizeof(float);
        float *weights = memcpy(check_calloc(bytes), model.weights.memory, bytes);
        huggingface_rename_old(&model.parameters, folder, "model.safetensors");
        huggingface_rename_old(&model.parameters, folder, "optimizer-00000-of-00001.safetensors");
        model_free(&model);
        model = model_load(folder, 1, DTYPE_FP32);
        CHECK(memcmp(weights, model.weights.memory, bytes) == 0, "%s: other weights", all[i]);
        free(weights), model_free(&model);
        huggingface_write_done(folder);
        snprintf(options, sizeof options, "%s --resume=auto", all[i]);
        code = train_tiny(data, "old", options, output, sizeof output);
        CHECK(code == 0 && strstr(output, "step-00000007"), "%s: exit %d: %s", all[i], code, output);
        check_same_run(data, "whole", "old");
    }
}

/* ---- BF16 and F16 ---- */

/* The bits of numbers of 16 bits, and the values that IEEE 754 gives them. */
static const struct {
    uint16_t f16;
    float value;
} huggingface_f16[] = {
    {0x0000, 0.0f},       {0x8000, -0.0f},       {0x0001, 0x1p-24f},     {0x8001, -0x1p-24f},
    {0x03ff, 0x3ffp-24f}, {0x0400, 0x1p-14f},    {0x0401, 0x1.004p-14f}, {0x3555, 0x1.554p-2f},
    {0x3c00, 1.0f},       {0xbc01, -0x1.004p0f}, {0x4248, 3.140625f},    {0x7bff, 65504.0f},
    {0xfbff, -65504.0f},  {0x7c00, INFINITY},    {0xfc00, -INFINITY},    {0x7800, 0x1p15f},
    {0x0200, 0x1p-15f},   {0x83ff, -0x3ffp-24f},
};
enum { HUGGINGFACE_F16 = sizeof huggingface_f16 / sizeof *huggingface_f16 };

/* Writes a file with one tensor "a" of n numbers of 16 bits. */
static void huggingface_write_16(const char *path, const char *dtype, const uint16_t *numbers, size_t n) {
    char header[128] = "", error[FILE_ERROR_SIZE];
    const int length =
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
                 dtype, n, 2 * n);
    char *file = check_calloc(8 + (size_t)length + 2 * n);
    memcpy(file, &(uint64_t){(uint64_t)length}, 8);
    memcpy(file + 8, header, (size_t)length);
    memcpy(file + 8 + length, numbers, 2 * n);
    if (!file_write_whole(path, file, 8 + (size_t)length + 2 * n, error)) die("%s", error);
    free(file);
}

/* Every number of 16 bits must be read as the float that has its value: all 65,536 of both formats, more than once, so
   that they take several of the pieces in which a file is read. */
static void test_huggingface_reads_16_bits(void) {
    enum { ALL = 1 << 16, N = 5 * ALL + 3 };
    char error[CHECKPOINT_ERROR_SIZE];
    char path[300];
    snprintf(path, sizeof path, "%s/x.safetensors", test_folder());
    uint16_t *numbers = check_calloc(N * sizeof *numbers);
    float *read = check_calloc(N * sizeof *read);
    for (int i = 0; i < N; i++) numbers[i] = (uint16_t)i;
    NamedTensor tensor = {.name = "a", .dimensions = 1, .shape = {N}, .data = read};
    huggingface_write_16(path, "F16", numbers, N);
    REQUIRE(safetensors_read(path, &tensor, 1, error), "%s", error);
    for (int i = 0; i < HUGGINGFACE_F16; i++) {
        const float *got = &read[4 * ALL + huggingface_f16[i].f16];
        CHECK(memcmp(got, &huggingface_f16[i].value, sizeof *got) == 0, "F16 %04x is %a, expected %a",
              huggingface_f16[i].f16, (double)*got, (double)huggingface_f16[i].value);
    }
    for (int i = 0; i < ALL; i++) {
        const int exponent = i >> 10 & 31, fraction = i & 1023;
        const double size = exponent == 31 && fraction ? (double)NAN
                            : exponent == 31           ? (double)INFINITY
                            : exponent                 ? ldexp(1024 + fraction, exponent - 25)
                                                       : ldexp(fraction, -24);
        const double want = i & 0x8000 ? -size : size;
        CHECK(isnan(want) ? isnan(read[i]) : read[i] == want && !signbit(read[i]) == !(i & 0x8000),
              "F16 %04x is %a, expected %a", i, (double)read[i], want);
    }
    huggingface_write_16(path, "BF16", numbers, N);
    REQUIRE(safetensors_read(path, &tensor, 1, error), "%s", error);
    for (int i = 0; i < N; i++) {
        uint32_t bits;
        memcpy(&bits, &read[i], sizeof bits);
        CHECK(bits == (uint32_t)(uint16_t)i << 16, "BF16 %04x was read with the bits %08x", (uint16_t)i,
              bits);
    }
    free(numbers), free(read);
}

/* A number is written as the nearest BF16, and of two as the even one, like everywhere in the program. */
static void test_huggingface_writes_bf16(void) {
    static const struct {
        float value;
        uint32_t bits;
    } cases[] = {{1.0f, 0x3f800000},        {0x1.01p0f, 0x3f800000},  {0x1.03p0f, 0x3f820000},
                 {0x1.0101p0f, 0x3f810000}, {-0x1p-133f, 0x80010000}, {0x1p-135f, 0x00000000},
                 {0x1.8p-134f, 0x00010000}, {3.4e38f, 0x7f800000},    {-0.0f, 0x80000000},
                 {INFINITY, 0x7f800000},    {-INFINITY, 0xff800000}};
    enum { N = 300007, CASES = sizeof cases / sizeof *cases };
    char path[300], error[CHECKPOINT_ERROR_SIZE];
    snprintf(path, sizeof path, "%s/x.safetensors", test_folder());
    float *x = test_normal(N, 1, 1), *read = check_calloc(N * sizeof *read), one = 1, back;
    for (int i = 0; i < CASES; i++) x[N - 1 - i] = cases[i].value;
    NamedTensor tensors[] = {
        {.name = "a", .dimensions = 1, .shape = {N}, .data = x, .dtype = SAFETENSORS_BF16},
        {.name = "b", .dimensions = 0, .data = &one}};
    REQUIRE(safetensors_write(path, tensors, 2, NULL, error), "%s", error);
    tensors[0].data = read, tensors[1].data = &back;
    REQUIRE(safetensors_read(path, tensors, 2, error), "%s", error);
    for (int i = 0; i < N; i++)
        CHECK(memcmp(&(float){array_rounded(x[i], DTYPE_BF16)}, &read[i], 4) == 0, "%a came back as %a",
              (double)x[i], (double)read[i]);
    for (int i = 0; i < CASES; i++)
        CHECK(memcmp(&cases[i].bits, &read[N - 1 - i], 4) == 0, "%a came back as %a", (double)cases[i].value,
              (double)read[N - 1 - i]);
    CHECK(back == 1, "the tensor after it came back as %g", (double)back);
    free(x), free(read);
}

/* --save-dtype=bf16 must change nothing but the file: the run, what is resumed from it, and the tools, which compute with
   the rounded weights. */
static void test_huggingface_bf16_resumes_bit_for_bit(void) {
    char output[8192], data[256], folder[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "exact", "--attn=laser", output, sizeof output);
    REQUIRE(code == 0, "%s", output);
    train_tiny(data, "whole", "--attn=laser --save-dtype=bf16", output, sizeof output);
    train_tiny(data, "parts", "--attn=laser --save-every=7 --save-dtype=bf16", output, sizeof output);
    test_command(output, sizeof output, "rm -r %s/parts/step-00000012", data);
    code = train_tiny(data, "parts", "--attn=laser --resume=auto --save-dtype=bf16", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000007"), "exit %d: %s", code, output);
    check_same_run(data, "whole", "parts");
    check_same_curve(data, "whole", "exact");
    code = test_command(
        output, sizeof output,
        "cd %s && cmp exact/step-00000012/model.safetensors whole/step-00000012/" EXACT_WEIGHTS_NAME
        " && [ $(wc -c < whole/step-00000012/model.safetensors) -lt "
        "$(($(wc -c < exact/step-00000012/model.safetensors) * 3 / 4)) ]",
        data);
    CHECK(code == 0, "%s", output);
    snprintf(folder, sizeof folder, "%s/exact/step-00000012", data);
    Model exact = model_load(folder, 1, DTYPE_FP32);
    snprintf(folder, sizeof folder, "%s/whole/step-00000012", data);
    Model rounded = model_load(folder, 1, DTYPE_FP32);
    for (size_t i = 0; i < exact.weights.count; i++)
        CHECK(array_rounded(exact.weights.memory[i], DTYPE_BF16) == rounded.weights.memory[i],
              "weight %zu is %a, rounded %a", i, (double)exact.weights.memory[i],
              (double)rounded.weights.memory[i]);
    model_free(&exact), model_free(&rounded);
    code = test_command(output, sizeof output, "rm -r %s/parts/step-00000012", data);
    code = train_tiny(data, "parts", "--attn=laser --resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000007"), "exit %d: %s", code, output);
    check_same_run(data, "exact", "parts");
    /* Without its exact weights such a checkpoint must not be resumed. */
    code =
        test_command(output, sizeof output,
                     "cd %s/whole/step-00000012 && rm " EXACT_WEIGHTS_NAME " && sed -i '/" EXACT_WEIGHTS_NAME
                     "/d; s/^\\([0-9]*\\) files/7 files/' DONE && cat DONE",
                     data);
    char arguments[400];
    snprintf(arguments, sizeof arguments, "--attn=laser --resume=%s/whole/step-00000012", data);
    code = train_tiny(data, "other", arguments, output, sizeof output);
    CHECK(code == 1 && strstr(output, "does not name " EXACT_WEIGHTS_NAME), "exit %d: %s", code, output);
}

/* ---- the folder ---- */

/* Which class transformers has for a model: a wrong one would load, and compute something else. */
static void test_huggingface_config_names_the_model(void) {
    static const struct {
        const char *options, *type;
    } cases[] = {
        {"--activation=swiglu", "llama"},
        {"--activation=swiglu --tie=no --laser-shift=clamp --laser-beta=2", "llama"},
        {"", "arcee"},
        {"--activation=relu2", "arcee"},
        {"--attn=laser", "laser_gpt"},
        {"--pos=learned", "laser_gpt"},
        {"--pos=sinusoidal --activation=swiglu", "laser_gpt"},
        {"--qk-norm=yes", "laser_gpt"},
        {"--attn-scale=dim", "laser_gpt"},
        {"--attn-softcap=5", "laser_gpt"},
        {"--logit-softcap=5", "laser_gpt"},
        {"--norm=layernorm", "laser_gpt"},
        {"--norm-place=peri", "laser_gpt"},
        {"--bias=mlp --activation=swiglu", "laser_gpt"},
        {"--embed-scale=yes", "laser_gpt"},
        {"--embd=22", "laser_gpt"}, /* 3 heads */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[256];
        Options options;
        OptionSet set;
        snprintf(arguments, sizeof arguments, TINY_MODEL "--embd=21 --vocab-size=61 %s", cases[i].options);
        parse_options(&options, &set, arguments);
        const ModelConfig config = model_config(&options, &set);
        cJSON *json = hugging_face_config(model_fields, MODEL_FIELDS, &config, NULL, false);
        const char *type = json_text(json, "model_type");
        const bool ours = strcmp(cases[i].type, "laser_gpt") == 0;
        CHECK(strcmp(type, cases[i].type) == 0, "%s: the model_type is %s, expected %s", cases[i].options,
              type, cases[i].type);
        CHECK(cJSON_HasObjectItem(json, "auto_map") == ours && cJSON_HasObjectItem(json, "attention") == ours,
              "%s: auto_map %d, attention %d", cases[i].options, cJSON_HasObjectItem(json, "auto_map"),
              cJSON_HasObjectItem(json, "attention"));
        CHECK(cJSON_IsNull(cJSON_GetObjectItem(json, "eos_token_id")), "without a tokenizer there is an end");
        for (int f = 0; f < MODEL_FIELDS; f++) { /* what is left out must be read as what it was */
            double value = -1;
            const cJSON *item = cJSON_GetObjectItem(json, model_fields[f].key);
            char text[32];
            cJSON *number = item && cJSON_IsRaw(item) ? cJSON_Parse(item->valuestring) : NULL;
            CHECK(config_read_field(&model_fields[f], number ? number : item, &value) &&
                      (value == config_get(&model_fields[f], &config) ||
                       strncmp(model_fields[f].option, "laser-", 6) == 0),
                  "%s: --%s is read as %g, was %s", cases[i].options, model_fields[f].option, value,
                  (snprintf(text, sizeof text, "%g", config_get(&model_fields[f], &config)), text));
            cJSON_Delete(number);
        }
        cJSON_Delete(json);
    }
}

/* The Python file that the program holds must be that of the sources. */
static void test_huggingface_code_is_that_of_the_sources(void) {
    size_t held, size;
    char *code = hugging_face_code(&held);
    char *file = check_file_read("hf/modeling_laser_gpt.py", FILE_REGULAR, 1 << 20, &size, "");
    CHECK(held == size && memcmp(code, file, size) == 0,
          "hf/modeling_laser_gpt.h has %zu bytes, the .py file %zu; make hf/modeling_laser_gpt.h", held,
          size);
    free(code), free(file);
}

/* All files must be there, named in DONE, and agree with each other. */
static void test_huggingface_folder_is_complete(void) {
    static const char *const kinds[] = {"--attn=laser", "--embd=21 --activation=swiglu --save-dtype=bf16"};
    for (int k = 0; k < 2; k++) {
        char output[8192], data[256], folder[300], path[400], error[CHECKPOINT_ERROR_SIZE];
        snprintf(data, sizeof data, "%s", write_test_data(600));
        write_test_tokenizer(data);
        int code = train_tiny(data, "run", kinds[k], output, sizeof output);
        REQUIRE(code == 0, "%s", output);
        snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
        const char *needed[] = {"config.json",
                                "model.safetensors",
                                "tokenizer.json",
                                "generation_config.json",
                                "tokenizer_config.json",
                                "model.safetensors.index.json",
                                k == 0 ? "modeling_laser_gpt.py" : EXACT_WEIGHTS_NAME,
                                NULL};
        CHECK(checkpoint_verify(folder, needed, error), "%s", error);
        snprintf(path, sizeof path, "%s/%s", folder, k == 0 ? EXACT_WEIGHTS_NAME : "modeling_laser_gpt.py");
        CHECK(access(path, F_OK) != 0, "'%s' should not be there", path);

        cJSON *config = checkpoint_read_json(folder, "config.json");
        cJSON *index = checkpoint_read_json(folder, "model.safetensors.index.json");
        cJSON *tokenizer = checkpoint_read_json(folder, "tokenizer_config.json");
        cJSON *generation = checkpoint_read_json(folder, "generation_config.json");
        snprintf(path, sizeof path, "%s/tokenizer.json", folder);
        Tokenizer *t = tokenizer_load(path);
        const double end = tokenizer_end_of_text(t);
        CHECK(end >= 0 && json_number(config, "bos_token_id") == end &&
                  json_number(config, "eos_token_id") == end &&
                  json_number(generation, "eos_token_id") == end &&
                  json_number(generation, "pad_token_id") == end,
              "the end of text is %g, in config.json %g", end, json_number(config, "eos_token_id"));
        CHECK(strcmp(json_text(tokenizer, "eos_token"), "<|endoftext|>") == 0 &&
                  json_number(tokenizer, "model_max_length") ==
                      json_number(config, "max_position_embeddings"),
              "eos_token %s, model_max_length %g", json_text(tokenizer, "eos_token"),
              json_number(tokenizer, "model_max_length"));
        CHECK(strcmp(json_text(config, "torch_dtype"), k == 0 ? "float32" : "bfloat16") == 0,
              "torch_dtype %s", json_text(config, "torch_dtype"));

        NamedTensor *tensors;
        int count;
        double bytes = 0;
        snprintf(path, sizeof path, "%s/model.safetensors", folder);
        REQUIRE(safetensors_load(path, &tensors, &count, error), "%s", error);
        const cJSON *map = cJSON_GetObjectItem(index, "weight_map");
        CHECK(cJSON_GetArraySize(map) == count, "%d tensors in the index, %d in the file",
              cJSON_GetArraySize(map), count);
        for (int i = 0; i < count; i++) {
            uint64_t n;
            safetensors_bytes(&n, tensors[i].dtype, tensors[i].dimensions, tensors[i].shape);
            bytes += (double)n;
            CHECK(json_text(map, tensors[i].name) &&
                      !strcmp(json_text(map, tensors[i].name), "model.safetensors"),
                  "%s is not in the index", tensors[i].name);
        }
        CHECK(json_number(cJSON_GetObjectItem(index, "metadata"), "total_size") == bytes,
              "total_size is not %g", bytes);
        safetensors_free(tensors, count), tokenizer_free(t);
        cJSON_Delete(config), cJSON_Delete(index), cJSON_Delete(tokenizer), cJSON_Delete(generation);
    }
}

/* ---- the programs themselves ---- */

/* Runs those tests of tests/test_huggingface.py whose names begin with one of the words; `make test_huggingface` runs all, with
   two versions of transformers. What the machine lacks for them is said. */
static void huggingface_check(const char *words) {
#ifdef __SANITIZE_ADDRESS__
    (void)words;
    test_not_run("other tests run the programs with sanitizers; `make test` without SAN=1 runs it");
    return;
#else
    static char output[8192];
    enum { NO_PYTHON = 77 };
    const int code =
        test_command(output, sizeof output,
                     "python=$(scripts/test_huggingface.sh --python) || { printf %%s \"$python\"; "
                     "exit %d; }; \"$python\" tests/test_huggingface.py %s %s",
                     NO_PYTHON, test_binaries(), words);
    char *lacks = strstr(output, " not run: ");
    if (code == NO_PYTHON) {
        test_not_run(output);
        return;
    }
    CHECK(code == 0, "exit %d: %s", code, output);
    if (code == 0 && lacks) {
        lacks += strlen(" not run: ");
        lacks[strcspn(lacks, "\n")] = 0;
        test_not_run(lacks);
    }
#endif
}

static void test_huggingface_transformers_load_checkpoints(void) {
    huggingface_check("transformers-swiglu,transformers-relu2,transformers-laser-learned,"
                      "transformers-large-values,transformers-unknown");
}

static void test_huggingface_lm_eval_answers_as_evaluate(void) { huggingface_check("lm-eval"); }

static void test_huggingface_llama_cpp_has_the_perplexity_of_evaluate(void) {
    huggingface_check("llama.cpp");
}

static void test_huggingface_tensorboard_reads_the_report(void) { huggingface_check("tensorboard"); }

#define HUGGINGFACE_TESTS(TEST)                                                                              \
    TEST(huggingface_old_names_are_read)                                                                     \
    TEST(huggingface_reads_16_bits)                                                                          \
    TEST(huggingface_writes_bf16)                                                                            \
    TEST(huggingface_bf16_resumes_bit_for_bit)                                                               \
    TEST(huggingface_config_names_the_model)                                                                 \
    TEST(huggingface_code_is_that_of_the_sources)                                                            \
    TEST(huggingface_folder_is_complete)                                                                     \
    TEST(huggingface_transformers_load_checkpoints)                                                          \
    TEST(huggingface_lm_eval_answers_as_evaluate)                                                            \
    TEST(huggingface_llama_cpp_has_the_perplexity_of_evaluate)                                               \
    TEST(huggingface_tensorboard_reads_the_report)

#endif
