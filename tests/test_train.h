/* test_train.h: tests of the program train_gpt as its user meets it: runs, resumed runs, signals, wrong options and
   bad data. */
#ifndef TESTS_TEST_TRAIN_H
#define TESTS_TEST_TRAIN_H

#include <signal.h>
#include "harness.h"
#include "test_model.h"

#define TINY_RUN TINY_MODEL "--batch=4 --steps=12 --warmup=3 --val-every=4 --val-tokens=200 --threads=2 "

/* One small run into DATA/NAME; returns the exit code. */
static int train_tiny(const char *data, const char *name, const char *arguments, char *output, size_t size) {
    return test_command(output, size, "%s/train_gpt " TINY_RUN "--data=%s --out=%s/%s %s", test_binaries(),
                        data, data, name, arguments);
}

/* Whether two runs under DATA logged the same losses, rates and norms, bit for bit. */
static void check_same_curve(const char *data, const char *a, const char *b) {
    char output[2048];
    int code = test_command(output, sizeof output,
                            "cd %s && for r in %s %s; do sed 's/, \"tokens_per_s.*//' $r/log.jsonl > "
                            "$r.curve; done; diff %s.curve %s.curve",
                            data, a, b, a, b);
    CHECK(code == 0, "the logs differ: %s", output);
}

/* Whether two runs under DATA ended with the same weights, optimizer state and logged losses, bit for bit. */
static void check_same_run(const char *data, const char *a, const char *b) {
    char output[2048];
    const char *files[] = {"step-00000012/model.safetensors",
                           "step-00000012/optimizer-00000-of-00001.safetensors"};
    for (int i = 0; i < 2; i++) {
        int code = test_command(output, sizeof output, "cmp %s/%s/%s %s/%s/%s", data, a, files[i], data, b,
                                files[i]);
        CHECK(code == 0, "%s", output);
    }
    check_same_curve(data, a, b);
}

/* A run that is resumed must give the same bits as one that was never interrupted: otherwise no interrupted result
   could be trusted. */
static void test_resume_is_bit_for_bit(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600)); /* 46 windows: step 12 is in the second epoch */
    int code = train_tiny(data, "whole", "--attn=laser", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = train_tiny(data, "parts", "--attn=laser --save-every=7", output, sizeof output);
    test_command(output, sizeof output, "rm -r %s/parts/step-00000012", data);
    code = train_tiny(data, "parts", "--attn=laser --resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000007"), "exit %d, resumed elsewhere: %s", code, output);
    check_same_run(data, "whole", "parts");
}

/* Starts a run in the background that saves after every step, waits until `step` is saved, and sends the signal. */
static void interrupt_tiny(const char *data, const char *name, int step, int number, char *output,
                           size_t size) {
    test_command(
        output, size,
        "%s/train_gpt " TINY_RUN "--data=%s --out=%s/%s --attn=laser --save-every=1 --keep=0 --resume=auto & "
        "pid=$!; for i in $(seq 3000); do [ -e %s/%s/step-%08d/DONE ] && break; "
        "kill -0 $pid 2> /dev/null || break; sleep 0.003; done; kill -%d $pid; wait $pid; echo exit $?",
        test_binaries(), data, data, name, data, name, step, number);
}

/* A run killed at any moment must continue to the same end. */
static void test_killed_run_continues_to_the_same_end(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "whole", "--attn=laser", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    for (int step = 1; step < 9; step += 3)
        interrupt_tiny(data, "killed", step, SIGKILL, output, sizeof output);
    code = train_tiny(data, "killed", "--attn=laser --resume=auto", output, sizeof output);
    CHECK(code == 0, "exit %d: %s", code, output);
    check_same_run(data, "whole", "killed");
}

/* After SIGTERM, SIGINT and their like the run must save a checkpoint and exit with 0, so that no step is lost. */
static void test_signal_saves_and_ends_cleanly(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const int signals[] = {SIGINT, SIGTERM, SIGXCPU};
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "stopped%d", i);
        /* --steps is large: the run cannot end by itself before the signal */
        test_command(
            output, sizeof output,
            "%s/train_gpt " TINY_MODEL
            "--batch=4 --warmup=3 --val-every=0 --val-tokens=200 --steps=1000000 --data=%s "
            "--out=%s/%s & pid=$!; for i in $(seq 3000); do grep -q '\"step\": 9,' %s/%s/log.jsonl 2> "
            "/dev/null && break; sleep 0.01; done; kill -%d $pid; wait $pid; echo exit $?; ls %s/%s",
            test_binaries(), data, data, name, data, name, signals[i], data, name);
        CHECK(strstr(output, "exit 0") && strstr(output, "--resume=auto goes on") &&
                  strstr(output, "\nstep-0"),
              "signal %d: %s", signals[i], output);
    }
}

/* The same command given twice must not overwrite the first run. */
static void test_existing_run_is_not_overwritten(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "run", "", output, sizeof output);
    int code = train_tiny(data, "run", "", output, sizeof output);
    CHECK(code == 1 && strstr(output, "holds a run already"), "exit %d: %s", code, output);
    code = train_tiny(data, "run", "--resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "has done all of its 12 steps"), "exit %d: %s", code, output);
    code = train_tiny(data, "run", "--resume=auto --lr=5e-3", output, sizeof output);
    CHECK(code == 1 && strstr(output, "--lr is 0.005, but") && strstr(output, "was trained with 0.003"),
          "exit %d: %s", code, output);
    code = train_tiny(data, "run", "--resume=/does/not/exist", output, sizeof output);
    CHECK(code == 1 && strstr(output, "/does/not/exist"), "exit %d: %s", code, output);
}

/* A damaged checkpoint must be named, and the run must go on from an older one. */
static void test_damaged_checkpoint_is_passed_over(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "whole", "--attn=laser", output, sizeof output);
    train_tiny(data, "hurt", "--attn=laser --save-every=4 --keep=0", output, sizeof output);
    int code = test_command(
        output, sizeof output,
        "printf X | dd of=%s/hurt/step-00000012/model.safetensors bs=1 seek=5000 conv=notrunc", data);
    REQUIRE(code == 0, "%s", output);
    code = train_tiny(data, "hurt", "--attn=laser --resume=auto --keep=1", output, sizeof output);
    CHECK(code == 0 && strstr(output, "passed over") && strstr(output, "resumed    ") &&
              strstr(output, "step-00000008"),
          "exit %d: %s", code, output);
    check_same_run(data, "whole", "hurt");
}

/* The last checkpoint is there, but the run was killed before it wrote its summary. The next start must write it, or
   the run would be missing in every report. */
static void test_finished_run_gets_its_summary(void) {
    char output[8192], data[256], path[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "run", "", output, sizeof output);
    snprintf(path, sizeof path, "%s/run/summary.json", data);
    REQUIRE(unlink(path) == 0, "no summary was written");
    int code = train_tiny(data, "run", "--resume=auto", output, sizeof output);
    CHECK(code == 0 && access(path, R_OK) == 0, "exit %d, summary.json is still missing: %s", code, output);
}

/* With `./train_gpt | head` the reader of the output ends first. The checkpoint must be written all the same. */
static void test_closed_pipe_loses_nothing(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    test_command(
        output, sizeof output,
        "%s/train_gpt " TINY_RUN "--data=%s --out=%s/piped | head -n 2 > /dev/null; "
        "for i in $(seq 500); do [ -e %s/piped/summary.json ] && break; sleep 0.01; done; ls %s/piped",
        test_binaries(), data, data, data, data);
    CHECK(strstr(output, "step-00000012") && strstr(output, "summary.json"), "the folder holds %s", output);
}

/* A checkpoint must have the files, keys and tensor names that scripts rely on. */
static void test_checkpoint_is_a_model_folder(void) {
    char output[8192], data[256], folder[512], path[600];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "run", "--attn=laser --activation=swiglu --pos=learned", output, sizeof output);
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    Model model = model_load(folder, 1, DTYPE_FP32);
    CHECK(model.config.attn == ATTENTION_LASER && model.config.activation == ACTIVATION_SWIGLU &&
              model.config.position == POSITION_LEARNED && model.config.layers == 2 &&
              model.config.head_dim == 6,
          "config.json was read back as attn %d activation %d position %d layers %d head_dim %d",
          model.config.attn, model.config.activation, model.config.position, model.config.layers,
          model.config.head_dim);
    model_free(&model);
    const char *files[] = {"config.json", "model.safetensors", "trainer_state.json", "DONE",
                           "optimizer-00000-of-00001.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        CHECK(access(path, R_OK) == 0, "%s is missing", files[i]);
    }
}

/* A wrong option or path must be named with what is expected. A run that started anyway would train something else
   than its user wants. */
static void test_train_refuses_what_is_wrong(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const struct {
        const char *arguments;
        int code;
        const char *says;
    } cases[] = {
        {"", 2, "--data=DIR is missing"},
        {"--data=/does/not/exist --vocab-size=61", 1, "/does/not/exist"},
        {"--data=/does/not/exist", 2, "cannot open the folder /does/not/exist"},
        {"--data=DATA", 2, "--vocab-size is missing"},
        {"--data=DATA --vocab-size=61 --resume=auto", 2, "--resume=auto needs --out=DIR"},
        {"--data=DATA --vocab-size=61 --save-every=3", 2, "--save-every needs --out=DIR"},
        {"--data=DATA --vocab-size=61 --head-dim=7", 2, "rope turns pairs"},
        {"--data=DATA --vocab-size=61 --warmup=20 --steps=10", 2, "--warmup=20 exceeds --steps=10"},
        {"--data=DATA --vocab-size=61 --batch=3 --total-batch=1000", 2, "is no multiple of"},
        {"--data=DATA --vocab-size=61 --seq-len=5000", 1, "too few for one window"},
        {"--data=DATA --vocab-size=40 --seq-len=13 --steps=50 --warmup=1", 1, "vocabulary"},
        {"--data=DATA --vocab-size=61 --batch=65536 --seq-len=13 --embd=65536 --layers=1024", 1, "GiB"},
        {"--data=DATA --vocab-size=61 --seq-len=13 --out=/dev/null/run", 1,
         "--out: cannot create the folder '/dev/null'"},
        {"--data=DATA --vocab-size=61 --seq-len=1", 2, "out of bounds; expected 2 to"},
        {"--data=DATA --vocab-size=61 --comm=gpu", 2, "computes on the CPU"},
        {"--data=DATA --vocab-size=61 oops", 2, "'oops' is not an option"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char arguments[1024] = "";
        const char *mark = strstr(cases[i].arguments, "DATA");
        if (mark)
            snprintf(arguments, sizeof arguments, "--data=%s%s", data, mark + 4);
        else
            snprintf(arguments, sizeof arguments, "%s", cases[i].arguments);
        int code = test_command(output, sizeof output, "%s/train_gpt %s", test_binaries(), arguments);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: exit %d, expected %d and '%s': %s",
              cases[i].arguments, code, cases[i].code, cases[i].says, output);
    }
}

/* A checkpoint must say what its model is, or ./generate would compute another one; and a checkpoint that an older
   version has written, without the keys of newer options, must be read as their defaults. */
static void test_checkpoint_keeps_the_ablations(void) {
    static const char *const added[] = {"final_logit_softcapping", "norm", "norm_place", "attention"};
    char output[8192], data[256], folder[512], path[600], error[FILE_ERROR_SIZE];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    train_tiny(data, "run", "--activation=relu2 --logit-softcap=5.5 --z-loss=1e-4 --norm=layernorm", output,
               sizeof output);
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    Model model = model_load(folder, 1, DTYPE_FP32);
    CHECK(model.config.activation == ACTIVATION_RELU2 && model.config.logit_softcap == 5.5 &&
              model.config.norm == NORM_LAYERNORM && model.config.norm_place == NORM_PLACE_PRE,
          "config.json was read back as activation %d softcap %g norm %d %d", model.config.activation,
          model.config.logit_softcap, model.config.norm, model.config.norm_place);
    model_free(&model);
    snprintf(path, sizeof path, "%s/config.json", folder);
    cJSON *json = checkpoint_read_json(folder, "config.json");
    for (size_t i = 0; i < sizeof added / sizeof *added; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(json, added[i]);
    char *text = cJSON_Print(json);
    REQUIRE(file_write_whole(path, text, strlen(text), error), "%s", error);
    cJSON_Delete(json), free(text);
    model = model_load(folder, 1, DTYPE_FP32);
    CHECK(model.config.logit_softcap == 0 && model.config.norm == NORM_RMSNORM,
          "without their keys: softcap %g, norm %d", model.config.logit_softcap, model.config.norm);
    model_free(&model);
}

static void parse_and_refuse_on_gpu(void *arguments) {
    Options o;
    OptionSet set;
    parse_options(&o, &set, arguments);
    refuse_on_gpu(&set);
}

/* A GPU that took an option whose kernels it lacks would train another model than the user asked for. */
static void test_gpu_refuses_what_it_lacks(void) {
    static const char *const refused[] = {
        "--activation=relu2", "--logit-softcap=30", "--z-loss=0.25", "--optimizer=lamb", "--optimizer=muon",
        "--norm=layernorm",   "--norm-place=peri",  "--tie=no",      "--bias=mlp",       "--embed-scale=yes"};
    static const char *const done[] = {"", "--init-weights=xavier --decay=all",
                                       "--activation=swiglu --pos=learned --attn=laser"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char output[1024], says[128];
        snprintf(says, sizeof says, "%s is not available on a GPU", refused[i]);
        const int code =
            test_death(parse_and_refuse_on_gpu, (void *)(uintptr_t)refused[i], output, sizeof output);
        CHECK(code == 2 && strstr(output, says), "%s: exit %d, expected 2 and '%s': %s", refused[i], code,
              says, output);
    }
    for (size_t i = 0; i < sizeof done / sizeof *done; i++)
        parse_and_refuse_on_gpu((void *)(uintptr_t)done[i]); /* ends the test if it is refused */
}

/* A preset that has another number of parameters than the paper's model would reproduce another model. */
static void test_presets_have_their_size(void) {
    const struct {
        const char *arguments;
        int64_t matrix;
    } cases[] = {{"--preset=c4-301m --dry-run", 301203456},
                 {"--preset=c4-16l --dry-run", 234094592},
                 {"--preset=gpt2-124m --dry-run", 12 * (4 * 768 * 768 + 8 * 768 * 768) + 50257 * 768}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Options o;
        OptionSet set;
        parse_options(&o, &set, cases[i].arguments);
        Trainer t = trainer_plan(&o, &set);
        CHECK(model_matrix_parameters(&t.model) == cases[i].matrix, "%s: %ld matrix parameters, expected %ld",
              cases[i].arguments, (long)model_matrix_parameters(&t.model), (long)cases[i].matrix);
        trainer_free(&t);
    }
}

/* The dry run must print parameters, memory and time, and keep its lines to 80 columns. */
static void test_dry_run_tells_its_plan(void) {
    char output[16384];
    int code = test_command(output, sizeof output,
                            "%s/train_gpt --dry-run " TINY_MODEL "--attn=laser --threads=1", test_binaries());
    const char *says[] = {"laser attention",   "model.layers.*.self_attn.q_proj.weight",
                          "matrix parameters", "the optimizer's moments",
                          "tokens/s",          "ln V = 4.111"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        CHECK(code == 0 && strstr(output, says[i]), "exit %d, '%s' is not said in: %s", code, says[i],
              output);
    for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n"))
        CHECK(strlen(line) <= 80, "%zu columns: %s", strlen(line), line);
}

/* A short run of a preset must work: the warmup, which the user did not choose, is shortened, and the user is told. */
static void test_short_run_shortens_the_warmup(void) {
    char output[16384];
    int code = test_command(output, sizeof output, "%s/train_gpt --data=%s " TINY_MODEL "--steps=11",
                            test_binaries(), write_test_data(600));
    CHECK(code == 0 && strstr(output, "--steps=11; 2, a tenth of the steps, is used") &&
              strstr(output, "after 2 steps of warmup"),
          "exit %d: %s", code, output);
}

/* However OpenMP is told to bind its threads, the program must use all of its cores; on one core it would be many
   times slower. It starts itself once more for that. */
static void test_bound_threads_use_all_cores(void) {
    static const char *const settings[] = {"OMP_PROC_BIND=close", "OMP_PLACES=cores"};
    char output[16384], want[64];
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const int code =
            test_command(output, sizeof output,
                         "env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY %s %s/train_gpt --dry-run " TINY_MODEL,
                         settings[i], test_binaries());
        snprintf(want, sizeof want, ", %d of %d cores in use", cores_available(), cores_available());
        CHECK(code == 0 && strstr(output, want), "%s: exit %d, '%s' is not said in: %s", settings[i], code,
              want, output);
    }
}

/* A machine with several memory nodes needs its memory spread over them; a wrong count would leave most of them
   unused. */
static void test_memory_nodes_are_counted(void) {
    static const struct {
        const char *text;
        int count;
    } cases[] = {{"0\n", 1}, {"0-1\n", 2}, {"0,2\n", 2}, {"0-3,8-9,12\n", 7}, {"\n", 0}, {"none\n", 0}};
    char path[256];
    snprintf(path, sizeof path, "%s/online", test_folder());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *file = check_fopen(path, "w", "");
        fputs(cases[i].text, file);
        fclose(file);
        const int count = system_file_list_length(path);
        CHECK(count == cases[i].count, "%d in %s", count, cases[i].text);
    }
    CHECK(system_file_list_length("/nowhere/online") == 0, "a file that is not there has some");
}

/* The whole of `make demo`, offline and short: generated stories, both kinds of attention, table, report, picture
   and samples. It is the first command that a new user runs. */
static void test_demo_runs_from_text_to_samples(void) {
    static char output[1 << 16];
    char home[256], path[300];
    snprintf(home, sizeof home, "%s", test_folder());
    int code = test_command(
        output, sizeof output,
        "DEMO_STEPS=5 DEMO_TOKENS=40 DEMO_OPTIONS='--layers=2 --batch=2 --val-tokens=2048' DEMO_HOME=%s "
        "DEMO_PROGRAMS=%s GRAMMAR=%s/grammar TEXT_SOURCES=4 TEXT= "
        "scripts/demo.sh",
        home, test_binaries(), test_binaries());
    CHECK(code == 0, "exit %d: %s", code, strlen(output) > 900 ? output + strlen(output) - 900 : output);
    const char *says[] = {"a step takes ",
                          "two models in 5 steps each",
                          "model      standard attention",
                          "model      laser attention",
                          "Ten lines by the model with laser attention",
                          "Done in"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        CHECK(strstr(output, says[i]), "'%s' is not said", says[i]);
    const char *files[] = {"report.html", "loss.png", "standard/summary.json", "laser/step-00000005/DONE"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/runs/demo/%s", home, files[i]);
        CHECK(access(path, R_OK) == 0, "%s is missing", path);
    }
}

/* `make demo` must say before it begins what it compiles, how long it will take, and which DEMO_STEPS takes five
   minutes: nobody waits for an unknown time. */
static void test_demo_tells_what_it_will_take(void) {
    static char output[1 << 14];
    char home[256], path[300];
    snprintf(home, sizeof home, "%s", test_folder());
    /* More steps than anybody would wait for. It ends early, because the source of the text does not exist. */
    int code = test_command(
        output, sizeof output,
        "DEMO_STEPS=100000000 DEMO_OPTIONS='--layers=1 --batch=2 --val-tokens=2048' DEMO_HOME=%s "
        "DEMO_PROGRAMS=%s GRAMMAR=%s/grammar TEXT_SOURCES=9 TEXT= scripts/demo.sh",
        home, test_binaries(), test_binaries());
    const char *advice = strstr(output, "\nDEMO_STEPS=");
    const double five = advice ? atof(advice + 12) : 0;
    CHECK(code == 1 && strstr(output, "two models in 100000000 steps each") && five > 0 && five < 1e7 &&
              strstr(advice, " make demo would take about five minutes\n"),
          "code %d: %s", code, output);
    snprintf(path, sizeof path, "%s/runs/demo/timing", home);
    CHECK(access(path, F_OK) != 0, "%s is left", path);
    code = test_command(
        output, sizeof output,
        "DEMO_OPTIONS=--layer=1 DEMO_HOME=%s DEMO_PROGRAMS=%s GRAMMAR=%s/grammar scripts/demo.sh", home,
        test_binaries(), test_binaries());
    CHECK(code == 1 && strstr(output, "did you mean --layers"), "code %d: %s", code, output);

    /* a `make` that shows what it would compile, and fails */
    test_command(output, sizeof output,
                 "mkdir %s/bin && printf '%%s\\n' '#!/bin/sh' 'echo cc -O3 train_gpt.c -o train_gpt -lm' "
                 "'echo train_gpt.c:1: error: no such thing' 'exit 2' > %s/bin/make && chmod +x %s/bin/make",
                 home, home, home);
    code =
        test_command(output, sizeof output,
                     "PATH=%s/bin:$PATH DEPS=skip DEMO_PROGRAMS= DEMO_HOME=%s scripts/demo.sh", home, home);
    CHECK(code == 1 && strstr(output, "   compiling train_gpt.c\ntrain_gpt.c:1: error: no such thing\n") &&
              strstr(output, "stopped: the programs could not be built"),
          "code %d: %s", code, output);
}

#define TRAIN_TESTS(TEST)                                                                                    \
    TEST(resume_is_bit_for_bit)                                                                              \
    TEST(killed_run_continues_to_the_same_end)                                                               \
    TEST(signal_saves_and_ends_cleanly)                                                                      \
    TEST(existing_run_is_not_overwritten)                                                                    \
    TEST(damaged_checkpoint_is_passed_over)                                                                  \
    TEST(finished_run_gets_its_summary)                                                                      \
    TEST(closed_pipe_loses_nothing)                                                                          \
    TEST(checkpoint_is_a_model_folder)                                                                       \
    TEST(checkpoint_keeps_the_ablations)                                                                     \
    TEST(gpu_refuses_what_it_lacks)                                                                          \
    TEST(train_refuses_what_is_wrong)                                                                        \
    TEST(presets_have_their_size)                                                                            \
    TEST(dry_run_tells_its_plan)                                                                             \
    TEST(short_run_shortens_the_warmup)                                                                      \
    TEST(bound_threads_use_all_cores)                                                                        \
    TEST(memory_nodes_are_counted) TEST(demo_runs_from_text_to_samples) TEST(demo_tells_what_it_will_take)

#endif
