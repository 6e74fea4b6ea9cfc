/* test_init_from.h: tests of --init-from: models of transformers give its loss, our own checkpoints give their weights to
   a run with other options, a run that goes on does not need the folder, and wrong folders are refused by name; and of
   --resume-schedule, which extends a run and lets the rate fall from a checkpoint of a longer one. */
#ifndef TESTS_TEST_INIT_FROM_H
#define TESTS_TEST_INIT_FROM_H

#include "harness.h"
#include "test_train.h"

/* The mean loss of the model in tests/fixtures/init/NAME at the tokens of its expect.json, and what is expected. */
static double init_from_loss(const char *name, double *want) {
    Options options;
    char folder[128], error[FILE_ERROR_SIZE], path[160];
    snprintf(folder, sizeof folder, "tests/fixtures/init/%s", name);
    OptionSet set = options_begin("test", "", train_options, TRAIN_OPTION_COUNT, &options, train_presets);
    options_set(&set, "init-from", folder, OPTION_FROM_COMMAND, "");
    options_set(&set, "dtype", "fp32", OPTION_FROM_COMMAND, "");
    ModelConfig config;
    init_from_options(&options, &set, model_fields, MODEL_FIELDS, &config);
    config = model_config(&options, &set);
    Model model = model_plan(&config, 1);
    model_allocate(&model);
    const Run run = {.options = &options, .option_set = &set};
    init_from_weights(&run, &model.parameters, model.weights.memory);
    model_repack(&model);
    snprintf(path, sizeof path, "%s/expect.json", folder);
    size_t size;
    char *text = file_read(path, FILE_REGULAR, 1 << 16, &size, error);
    if (!text) die("%s", error);
    cJSON *json = json_parse(text, size), *token;
    int32_t tokens[64];
    int T = -1;
    cJSON_ArrayForEach(token, cJSON_GetObjectItem(json, "tokens")) tokens[++T] = token->valueint;
    *want = cJSON_GetObjectItem(json, "loss")->valuedouble;
    model_forward(&model, tokens, 1, T);
    const double loss = model_loss(&model, tokens + 1, T, 0) / T;
    cJSON_Delete(json), free(text), model_free(&model);
    return loss;
}

/* Another loss than that of transformers means that another model is trained than the one that was named. */
static void test_init_from_gives_the_loss_of_transformers(void) {
    static const char *const names[] = {"llama", "llama-shards", "gpt2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double want, loss = init_from_loss(names[i], &want);
        CHECK(fabs(loss / want - 1) < 1e-6, "%s: loss %.8f, expected %.8f", names[i], loss, want);
    }
}

/* A new run begins with the weights of the old one, whatever its steps, rate, data and attention are: with a rate of 0 it
   also ends with them. */
static void test_init_from_takes_the_weights_of_a_checkpoint(void) {
    static const char *const pairs[][2] = {
        {"", "--attn=laser"},
        {"--attn=laser --save-dtype=bf16", "--attn=standard"},
        {"--pos=learned --bias=all --tie=no", "--attn=laser --laser-beta=2"},
        {"--pos=rope --rope-theta=500 --norm-eps=1e-3", "--steps=12 --seq-len=12"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char output[8192], data[256], options[600];
        snprintf(data, sizeof data, "%s", write_test_data(600));
        int code = train_tiny(data, "old", pairs[i][0], output, sizeof output);
        REQUIRE(code == 0, "%s: %s", pairs[i][0], output);
        snprintf(options, sizeof options, "--lr=0 --init-from=%s/old%s %s", data,
                 i % 2 ? "" : "/step-00000012", pairs[i][1]);
        code = train_tiny(data, "new", options, output, sizeof output);
        REQUIRE(code == 0, "%s: %s", options, output);
        code =
            test_command(output, sizeof output,
                         "cd %s && f=old/step-00000012/optimizer-weights.safetensors; [ -e $f ] || "
                         "f=old/step-00000012/model.safetensors; cmp $f new/step-00000012/model.safetensors",
                         data);
        CHECK(code == 0, "%s: other weights: %s", options, output);
    }
}

/* A run must be able to go on when the folder from which it began is gone. */
static void test_init_from_is_not_read_again(void) {
    char output[8192], data[256], options[600];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "old", "--bias=all", output, sizeof output);
    REQUIRE(code == 0, "%s", output);
    snprintf(options, sizeof options, "--init-from=%s/old/step-00000012 --attn=laser", data);
    code = train_tiny(data, "whole", options, output, sizeof output);
    REQUIRE(code == 0 && strstr(output, "weights    of "), "%s", output);
    snprintf(options, sizeof options, "--init-from=%s/old/step-00000012 --attn=laser --save-every=7", data);
    train_tiny(data, "parts", options, output, sizeof output);
    test_command(output, sizeof output, "rm -r %s/parts/step-00000012 %s/old", data, data);
    snprintf(options, sizeof options, "--init-from=%s/old/step-00000012 --attn=laser --resume=auto", data);
    code = train_tiny(data, "parts", options, output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000007"), "exit %d: %s", code, output);
    check_same_run(data, "whole", "parts");
    test_command(output, sizeof output, "cat %s/parts/config.json", data);
    CHECK(strstr(output, "/old/step-00000012\""), "config.json does not name the folder: %s", output);
    code = train_tiny(data, "parts", "--attn=laser --bias=all --resume=auto", output, sizeof output);
    CHECK(code == 1 && strstr(output, "--init-from is "), "exit %d: %s", code, output);
}

/* A folder that cannot be used must be refused with the file, the member or tensor, and what was expected. */
static void test_init_from_refuses_wrong_folders(void) {
    static const struct {
        const char *model, *change, *options, *expected[3];
        int code;
    } cases[] = {
        {"llama",
         "s/\"llama\"/\"mistral\"/",
         "",
         {"config.json: \"model_type\" is mistral", "gpt2 can be read"},
         1},
        {"llama", "s/\"default\"/\"yarn\"/", "", {"\"rope_type\" is yarn", "default"}, 1},
        {"llama",
         "s/\"attention_bias\": false/\"attention_bias\": true/",
         "",
         {"\"attention_bias\" is yes"},
         1},
        {"llama", "s/\"silu\"/\"gelu\"/", "", {"\"hidden_act\" is gelu", "silu"}, 1},
        {"llama",
         "s/\"num_key_value_heads\": 2/\"num_key_value_heads\": 3/",
         "",
         {"is 3, no divisor of the 4"},
         1},
        {"llama",
         "s/\"num_key_value_heads\": 2/\"num_key_value_heads\": 4/",
         "",
         {"k_proj.weight' has shape (16, 32), expected (32, 32)"},
         1},
        {"llama",
         "s/\"num_hidden_layers\": 2/\"num_hidden_layers\": 3/",
         "",
         {"has no tensor 'model.layers.2.input_layernorm.weight'"},
         1},
        {"llama",
         "s/\"num_hidden_layers\": 2/\"num_hidden_layers\": 1/",
         "",
         {"holds tensor 'model.layers.1.", "does not have"},
         1},
        {"llama", "s/\"vocab_size\": 67/\"vocab_size\": 70000/", "", {"--vocab-size=70000", "65536"}, 2},
        {"llama", "s/x/x/", "--layers=3", {"--layers=3, but the model in", "has 2; leave it out"}, 2},
        {"llama", "s/x/x/", "--qk-norm=yes", {"--qk-norm=yes, but", "has no"}, 2},
        {"gpt2", "s/x/x/", "--seq-len=64", {"--seq-len=64", "learned positions for 32 tokens"}, 2},
        {"gpt2", "s/x/x/", "--seq-len=16", {"weights    of ", "step"}, 0},
        {"gpt2", "s/gelu_new/gelu/", "", {"\"activation_function\" is gelu;", "gelu_new"}, 1},
        {"gpt2", "s/\"n_head\": 4/\"n_head\": 5/", "", {"\"n_embd\" is 32, no multiple of the 5 heads"}, 1},
        {"gpt2",
         "s/\"scale_attn_weights\": true/\"scale_attn_weights\": false/",
         "",
         {"scale_attn_weights"},
         1},
    };
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_command(
            output, sizeof output,
            "rm -rf %s/model; cp -r tests/fixtures/init/%s %s/model; sed -i '%s' %s/model/config.json", data,
            cases[i].model, data, cases[i].change, data);
        const int code =
            test_command(output, sizeof output,
                         "%s/train_gpt --data=%s --init-from=%s/model --steps=1 --batch=1 --threads=1 %s",
                         test_binaries(), data, data, cases[i].options);
        CHECK(code == cases[i].code, "%s, %s %s: exit %d: %s", cases[i].model, cases[i].change,
              cases[i].options, code, output);
        for (int k = 0; k < 3 && cases[i].expected[k]; k++)
            CHECK(strstr(output, cases[i].expected[k]), "%s, %s %s: no '%s' in: %s", cases[i].model,
                  cases[i].change, cases[i].options, cases[i].expected[k], output);
    }
    const int code =
        test_command(output, sizeof output, "%s/train_gpt --data=%s --init-from=%s/nothing --steps=1",
                     test_binaries(), data, data);
    CHECK(code == 1 && strstr(output, "nothing/config.json"), "exit %d: %s", code, output);
}

/* A finished run can be made longer; with a constant rate the result has the bits of a run that was as long from the
   beginning. A cooldown can branch from a checkpoint of a run that goes on at the peak. */
static void test_resume_with_another_schedule(void) {
    char output[8192], data[256], options[400];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "whole", "--schedule=constant", output, sizeof output);
    REQUIRE(code == 0, "%s", output);
    train_tiny(data, "parts", "--schedule=constant --steps=7", output, sizeof output);
    code = train_tiny(data, "parts", "--schedule=constant --resume=auto", output, sizeof output);
    CHECK(code == 1 && strstr(output, "--steps is 12") && strstr(output, "or --resume-schedule=changed"),
          "exit %d: %s", code, output);
    code = train_tiny(data, "parts", "--schedule=constant --resume=auto --resume-schedule=changed", output,
                      sizeof output);
    CHECK(code == 0 && strstr(output, "--steps is now 12, it was 7"), "exit %d: %s", code, output);
    test_command(output, sizeof output, "sed -i '/\"step\": 7, .*val_loss/d' %s/parts/log.jsonl", data);
    check_same_run(data, "whole", "parts");

    code = train_tiny(data, "trunk", "--schedule=wsd --cooldown=4 --steps=20 --save-every=8 --keep=0", output,
                      sizeof output);
    REQUIRE(code == 0, "%s", output);
    train_tiny(data, "direct", "--schedule=wsd --cooldown=4", output, sizeof output);
    snprintf(options, sizeof options,
             "--schedule=wsd --cooldown=4 --resume=%s/trunk/step-00000008 --resume-schedule=changed", data);
    code = train_tiny(data, "branch", options, output, sizeof output);
    CHECK(code == 0 && strstr(output, "--steps is now 12, it was 20"), "exit %d: %s", code, output);
    code = test_command(output, sizeof output,
                        "cmp %s/direct/step-00000012/model.safetensors %s/branch/step-00000012/"
                        "model.safetensors",
                        data, data);
    CHECK(code == 0, "the branch ends elsewhere than a run with the same cooldown: %s", output);
}

#define INIT_FROM_TESTS(TEST)                                                                                \
    TEST(init_from_gives_the_loss_of_transformers)                                                           \
    TEST(init_from_takes_the_weights_of_a_checkpoint)                                                        \
    TEST(init_from_is_not_read_again)                                                                        \
    TEST(init_from_refuses_wrong_folders)                                                                    \
    TEST(resume_with_another_schedule)

#endif
