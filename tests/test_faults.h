/* test_faults.h: tests of runs that meet losses that are not finite, spikes, signals, full disks and files that are
   cut short. Each must end as documented, and then continue to the loss curve that it would have had.
   scripts/test_faults.sh is the long version. */
#ifndef TESTS_TEST_FAULTS_H
#define TESTS_TEST_FAULTS_H

#include "harness.h"
#include "read_log.h"
#include "test_checkpoint.h"
#include "test_model.h"
#include "test_train.h"

/* ---- the watch on the loss ---- */

/* A spike that is missed spoils the weights; an ordinary loss that is called a spike throws away good steps. */
static void test_loss_watch_finds_spikes(void) {
    LossWatch watch = {0};
    double z;
    for (int i = 0; i < 300; i++) {
        double loss = 3 + 0.1 * rng_normal(1, RNG_STREAM_TEST, (uint64_t)i);
        StepVerdict verdict = loss_watch_judge(&watch, loss, 1, 0, &z);
        CHECK(verdict == STEP_SOUND, "loss %d, %.3f with z %.2f, is a spike", i, loss, z);
        CHECK(i < LOSS_WINDOW_LEAST ? isnan(z) : fabs(z) < LOSS_SPIKE, "z of loss %d is %g", i, z);
    }
    double mean = 0, squares = 0; /* of the last 128 losses, computed independently */
    for (int i = 300 - LOSS_WINDOW; i < 300; i++)
        mean += (3 + 0.1 * rng_normal(1, RNG_STREAM_TEST, (uint64_t)i)) / LOSS_WINDOW;
    for (int i = 300 - LOSS_WINDOW; i < 300; i++)
        squares += pow(3 + 0.1 * rng_normal(1, RNG_STREAM_TEST, (uint64_t)i) - mean, 2) / LOSS_WINDOW;
    double want = (4 - mean) / sqrt(squares);
    LossWatch before = watch;
    CHECK(loss_watch_judge(&watch, 4, 1, 0, &z) == STEP_SPIKE && fabs(z - want) < 1e-9, "z %g, expected %g",
          z, want);
    CHECK(watch.accepted == 301 && watch.skipped == 0, "a spike that is only reported must be accepted");
    watch = before;
    CHECK(loss_watch_judge(&watch, 4, 1, 5, &z) == STEP_SKIPPED_SPIKE && watch.skipped_in_a_row == 1, "z %g",
          z);
    CHECK(loss_watch_judge(&watch, 3, NAN, 5, &z) == STEP_SKIPPED_NONFINITE, "a NaN norm was accepted");
    CHECK(loss_watch_judge(&watch, INFINITY, 1, 0, &z) == STEP_SKIPPED_NONFINITE &&
              watch.skipped_in_a_row == 3,
          "%d skipped in a row", (int)watch.skipped_in_a_row);
    CHECK(memcmp(watch.losses, before.losses, sizeof watch.losses) == 0, "a skipped loss entered the window");
    CHECK(loss_watch_judge(&watch, 3, 1, 5, &z) == STEP_SOUND && !watch.skipped_in_a_row &&
              watch.skipped == 3,
          "%d in a row, %d skipped", (int)watch.skipped_in_a_row, (int)watch.skipped);
}

/* A resumed run must judge losses as the uninterrupted run would, or it would skip other steps. */
static void test_loss_watch_survives_json(void) {
    for (int count = 0; count < 400; count += 57) {
        LossWatch watch = {0}, again;
        double z, z_again;
        for (int i = 0; i < count; i++)
            loss_watch_judge(&watch, i % 41 ? exp(rng_normal(2, RNG_STREAM_TEST, (uint64_t)i)) : NAN, 1, 0,
                             &z);
        cJSON *json = loss_watch_to_json(&watch);
        char *text = cJSON_Print(json);
        cJSON_Delete(json);
        json = cJSON_Parse(text);
        CHECK(loss_watch_from_json(&again, json), "%d losses: '%s' is refused", count, text);
        CHECK(again.accepted == watch.accepted && again.skipped == watch.skipped &&
                  memcmp(again.losses, watch.losses, sizeof watch.losses) == 0,
              "%d losses: the window came back with other bits", count);
        loss_watch_judge(&watch, 1.5, 1, 0, &z), loss_watch_judge(&again, 1.5, 1, 0, &z_again);
        CHECK(memcmp(&z, &z_again, sizeof z) == 0, "%d losses: z %.17g became %.17g", count, z, z_again);
        cJSON_ReplaceItemInObject(json, "accepted", cJSON_CreateNumber(count + 1000));
        cJSON_ReplaceItemInObject(json, "skipped", cJSON_CreateString("x"));
        CHECK(!loss_watch_from_json(&again, json), "a damaged watch was accepted");
        cJSON_Delete(json);
        cJSON_free(text);
    }
}

/* A NaN that this function did not see would be saved in a checkpoint. */
static void test_largest_magnitude(void) {
    float *x = test_normal(10007, 1, 3);
    float want = 0;
    for (int i = 0; i < 10007; i++) want = fabsf(x[i]) > want ? fabsf(x[i]) : want;
    CHECK(largest_magnitude(x, 10007) == want && largest_magnitude(x, 0) == 0, "%g, expected %g",
          (double)largest_magnitude(x, 10007), (double)want);
    x[9000] = -INFINITY;
    CHECK(largest_magnitude(x, 10007) == INFINITY && first_nonfinite(x, 10007) == 9000, "an infinity at %zu",
          first_nonfinite(x, 10007));
    x[10006] = NAN;
    CHECK(isnan(largest_magnitude(x, 10007)) && first_nonfinite(x, 9000) == 9000, "a NaN was not found");
    free(x);
}

/* ---- steps that are skipped ---- */

/* After a skipped step, weights, moments and the number of updates must be those before it: a single NaN would
   otherwise spoil the whole model. */
static void test_nonfinite_step_is_skipped(void) {
    const char *data = write_test_data(3000);
    TestRun *run = test_run_open(data, "--batch=4 --steps=20 --warmup=5");
    Trainer *t = &run->trainer;
    const size_t bytes = t->model.weights.count * sizeof(float);
    LogTrain line;
    log_open(&t->run.log, NULL, 0, 20, true);
    for (int step = 0; step < 3; step++) REQUIRE(train_step(t, &line), "step %d did not end", step);
    float *weights = memcpy(check_calloc(bytes), t->model.weights.memory, bytes), was;
    float *mean = memcpy(check_calloc(bytes), t->optimizer.m, bytes),
          *square = memcpy(check_calloc(bytes), t->optimizer.v, bytes);
    for (int kind = 0; kind < 2;
         kind++) { /* a weight of a middle layer becomes NaN, then infinite, then is restored */
        float *weight = &t->model.weights.layers[1].up[5];
        was = *weight, *weight = kind ? INFINITY : NAN;
        REQUIRE(train_step(t, &line), "a step did not end");
        *weight = was;
        CHECK(line.skipped == 1 && !isfinite(line.grad_norm), "skipped %ld, norm %g", line.skipped,
              line.grad_norm);
    }
    CHECK(t->run.step == 5 && t->run.watch.skipped == 2 && t->run.watch.skipped_in_a_row == 2,
          "step %d, skipped %d", (int)t->run.step, (int)t->run.watch.skipped);
    CHECK(memcmp(weights, t->model.weights.memory, bytes) == 0 && memcmp(mean, t->optimizer.m, bytes) == 0 &&
              memcmp(square, t->optimizer.v, bytes) == 0,
          "a skipped step changed the weights or the moments");
    REQUIRE(train_step(t, &line), "a step did not end");
    CHECK(line.skipped == 0 && t->run.watch.skipped_in_a_row == 0 && line.lr == run->options.lr, "lr %g",
          line.lr);
    CHECK(memcmp(weights, t->model.weights.memory, bytes) != 0,
          "the step after a skipped one changed nothing");
    free(weights), free(mean), free(square);
    test_run_close(run);
}

/* Changes one weight of a checkpoint, and writes the new checksum to DONE. */
static bool poison_checkpoint(const char *folder, const char *name, int element, float value) {
    char path[600], error[CHECKPOINT_ERROR_SIZE];
    Checkpoint c = {.step = 0};
    NamedTensor *tensors;
    int count;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (!safetensors_load(path, &tensors, &count, error)) return false;
    NamedTensor *tensor = safetensors_find(tensors, count, name);
    if (tensor) tensor->data[element] = value;
    bool ok = tensor && safetensors_write(path, tensors, count, NULL, error);
    safetensors_free(tensors, count);
    snprintf(path, sizeof path, "%s/DONE", folder);
    unlink(path);
    snprintf(c.folder, sizeof c.folder, "%s", folder);
    return ok && checkpoint_write_done(&c, error);
}

/* The user of a diverged run must be told which tensor is the first that is not finite, and what to do; a wrong
   tensor would send the search to the wrong place. */
static void test_diverged_run_is_diagnosed(void) {
    static const struct {
        const char *tensor;
        float value;
        const char *says;
    } cases[] = {
        {"model.layers.1.mlp.up_proj.weight", NAN,
         "First not finite: weights, model.layers.1.mlp.up_proj.weight, element 7 is nan"},
        {"model.layers.1.mlp.up_proj.weight", 3e38f, "First not finite: activations, layers.1.up, element "},
        {"model.layers.0.self_attn.q_proj.weight", -INFINITY,
         "model.layers.0.self_attn.q_proj.weight, element 7 is -inf"},
    };
    char output[16384], data[256], folder[300], log[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(folder, sizeof folder, "%s/run/step-00000004", data);
    snprintf(log, sizeof log, "%s/run/log.jsonl", data);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_command(output, sizeof output, "rm -rf %s/run", data);
        int code = train_tiny(data, "run", "--save-every=4 --keep=0 --total-batch=104 --batch=4", output,
                              sizeof output);
        REQUIRE(code == 0, "exit %d: %s", code, output);
        test_command(output, sizeof output, "cd %s/run && rm -r step-00000008 step-00000012", data);
        REQUIRE(poison_checkpoint(folder, cases[i].tensor, 7, cases[i].value), "no '%s' to poison",
                cases[i].tensor);
        code = train_tiny(data, "run",
                          "--save-every=1 --max-skipped=3 --total-batch=104 --batch=4 --resume=auto", output,
                          sizeof output);
        CHECK(code == 1 && strstr(output, cases[i].says) && strstr(output, "3 steps in a row were skipped") &&
                  strstr(output, "largest magnitudes by layer") &&
                  strstr(output, "step 7: the run has diverged"),
              "exit %d, '%s' is not said: %s", code, cases[i].says,
              strlen(output) > 1500 ? output + 1500 : output);
        code = test_command(output, sizeof output, "grep -c '\"skipped\": 1' %s; ls %s/run", log, data);
        CHECK(strstr(output, "3\n") == output && !strstr(output, "step-00000005"),
              "lines of skipped steps, folder: %s", output);
    }
}

/* ---- disks and files ---- */

/* A run in DATA/NAME that has done 4 of its 12 steps. */
static bool begin_tiny(const char *data, const char *name) {
    char output[4096];
    int code = train_tiny(data, name, "--attn=laser --save-every=4 --keep=0", output, sizeof output);
    return code == 0 &&
           test_command(output, sizeof output, "cd %s/%s && rm -r step-00000008 step-00000012 summary.json",
                        data, name) == 0;
}

/* Files can have 20 KiB here and the model needs 35, so the log can be written, but no checkpoint. Training must go
   on, and the end must not look like success. */
static void test_full_disk_stops_no_training(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "whole", "--attn=laser", output, sizeof output);
    REQUIRE(code == 0 && begin_tiny(data, "full"), "exit %d: %s", code, output);
    code = test_command(output, sizeof output,
                        "ulimit -f 20; %s/train_gpt " TINY_RUN
                        "--data=%s --out=%s/full --attn=laser --save-every=2 --keep=1 --resume=auto",
                        test_binaries(), data, data);
    int warnings = 0;
    for (const char *at = output; (at = strstr(at, "warning: no checkpoint of step ")); at++) warnings++;
    CHECK(code == 1 && warnings == 4 && strstr(output, "12/12  validation loss") &&
              strstr(output, "File too large") && strstr(output, "the steps from 5 to 12 are lost"),
          "exit %d, %d warnings (of steps 6, 8, 10, 12): %s", code, warnings, output);
    test_command(output, sizeof output, "ls %s/full", data);
    CHECK(strstr(output, "step-00000004\n") && !strstr(output, ".tmp") && !strstr(output, "step-00000006"),
          "the folder holds %s", output);
    /* In a new --out there is no checkpoint for --resume=auto: the message must not tell the user to give that. */
    code = test_command(output, sizeof output,
                        "ulimit -f 20; %s/train_gpt " TINY_RUN
                        "--data=%s --out=%s/new --attn=laser --resume=%s/full/step-00000004",
                        test_binaries(), data, data, data);
    CHECK(code == 1 && strstr(output, "the steps from 5 to 12 are lost") &&
              strstr(output, "then the same command does them again"),
          "exit %d: %s", code, output);
    code = train_tiny(data, "full", "--attn=laser --resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000004"), "exit %d: %s", code, output);
    check_same_run(data, "whole", "full");
}

/* Whatever file of the newest checkpoint is damaged, and wherever, the run must go on from the one before it, not
   from damaged numbers and not from step 0. */
static void test_damage_anywhere_is_found(void) {
    static const char *const files[] = {"DONE", "config.json", "model.safetensors",
                                        "optimizer-00000-of-00001.safetensors", "trainer_state.json"};
    char output[8192], data[256], folder[300], error[CHECKPOINT_ERROR_SIZE];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "--attn=laser", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    REQUIRE(checkpoint_verify(folder, NULL, error), "%s", error);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        char path[400];
        size_t size;
        snprintf(path, sizeof path, "%s/%s", folder, files[f]);
        unsigned char *bytes = checkpoint_test_slurp(path, &size);
        for (size_t region = 0; region < 8; region++) { /* length, header, data, end */
            size_t at = region == 0 ? 0 : region == 1 ? 9 % size : size * region / 8;
            bytes[at] ^= 4;
            checkpoint_test_spill(path, bytes, size);
            CHECK(!checkpoint_verify(folder, NULL, error) && strstr(error, folder), "byte %zu of %s: '%s'",
                  at, files[f], error);
            bytes[at] ^= 4;
        }
        checkpoint_test_spill(path, bytes, size - 1);
        CHECK(!checkpoint_verify(folder, NULL, error) && strstr(error, folder), "%s cut: '%s'", files[f],
              error);
        unlink(path);
        CHECK(!checkpoint_verify(folder, NULL, error) && strstr(error, files[f]), "%s removed: '%s'",
              files[f], error);
        checkpoint_test_spill(path, bytes, size);
        free(bytes);
    }
    CHECK(checkpoint_verify(folder, NULL, error), "restored, but %s", error);
}

/* Starts a very long run in the background, waits for its 5th step, runs the shell command `then`, in which $pid is the
   process of the run, and waits for its end. */
static void disturb_tiny(const char *data, const char *name, const char *then, char *output, size_t size) {
    test_command(
        output, size,
        "%s/train_gpt " TINY_MODEL "--batch=4 --warmup=3 --val-every=0 --val-tokens=200 --steps=1000000 "
        "--data=%s --out=%s/%s & pid=$!; for i in $(seq 3000); do grep -q '\"step\": 5,' %s/%s/log.jsonl "
        "2> /dev/null && break; sleep 0.01; done; cd %s; %s; wait $pid; echo exit $?; ls %s",
        test_binaries(), data, data, name, data, name, data, then, name);
}

/* When a shard is cut short while it is read, the user must learn its name; "Bus error" would say nothing. */
static void test_shrinking_shard_is_named(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(20000));
    disturb_tiny(data, "deleted", "rm train_000000.bin; sleep 0.1; kill -USR1 $pid", output, sizeof output);
    CHECK(strstr(output, "exit 0") && strstr(output, "RESUME: "), "a deleted shard ended the run: %s",
          output);
    snprintf(data, sizeof data, "%s", write_test_data(20000));
    disturb_tiny(data, "cut", ": > train_000000.bin", output, sizeof output);
    CHECK(strstr(output, "exit 1") &&
              strstr(output, "train_000000.bin': it had 41024 bytes when the run began and has 0"),
          "%s", output);
}

/* ---- signals ---- */

/* A batch system warns a job with a signal before it kills it. The run must save a checkpoint and print the line
   that job scripts wait for, or all work since the last checkpoint is lost. */
static void test_scheduler_warning_saves(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    disturb_tiny(data, "warned", "kill -USR1 $pid; kill -USR1 $pid; kill -TERM $pid", output, sizeof output);
    const char *line = strstr(output, "RESUME: ");
    long step = 0, steps = 0;
    CHECK(line && sscanf(line, "RESUME: %*s step %ld of %ld", &step, &steps) == 2 && step >= 5 &&
              steps == 1000000,
          "no line for the job script: %s", output);
    char folder[64];
    checkpoint_name(folder, step, CHECKPOINT_FINAL);
    CHECK(strstr(output, "exit 0") && strstr(output, folder), "exit code or %s: %s", folder, output);
}

/* Validation of eight million tokens takes many seconds. A signal must end it at once, because the job may be killed
   meanwhile, and the resumed run must validate that step. */
static void test_signal_ends_validation(void) {
    char output[8192], data[256], path[300];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const size_t n = 8000000;
    uint16_t *tokens = check_calloc(n * sizeof *tokens);
    snprintf(path, sizeof path, "%s/val_000000.bin", data);
    shard_write(path, tokens, n);
    free(tokens);
    double start = seconds_now();
    test_command(output, sizeof output,
                 "%s/train_gpt " TINY_MODEL
                 "--batch=4 --warmup=3 --val-every=0 --val-tokens=0 --steps=6 --data=%s "
                 "--out=%s/run & pid=$!; for i in $(seq 3000); do grep -q '\"step\": 6,' %s/run/log.jsonl 2> "
                 "/dev/null "
                 "&& break; sleep 0.01; done; kill -TERM $pid; wait $pid; echo exit $?",
                 test_binaries(), data, data, data);
    CHECK(strstr(output, "exit 0") && strstr(output, "step 6 of 6") && !strstr(output, "validation loss"),
          "%s", output);
    CHECK(seconds_now() - start < 8, "the signal ended the validation after %.1f s", seconds_now() - start);
    int code = test_command(
        output, sizeof output,
        "%s/train_gpt " TINY_MODEL "--batch=4 --warmup=3 --val-every=0 --val-tokens=200 --steps=6 "
        "--data=%s --out=%s/run --resume=auto && grep -c val_loss %s/run/log.jsonl && ls %s/run",
        test_binaries(), data, data, data, data);
    CHECK(code == 0 && strstr(output, "\n1\n") && strstr(output, "summary.json"),
          "exit %d, one validation and a summary expected: %s", code, output);
}

/* ---- scripts/run_resilient.sh ---- */

/* Makes FOLDER/program, a script that adds a line to FOLDER/calls and then runs `body`, in which $n is the number of
   calls. */
static void write_program(const char *folder, const char *body) {
    char path[300];
    snprintf(path, sizeof path, "%s/program", folder);
    FILE *file = check_fopen(path, "w", "");
    fprintf(file, "#!/bin/sh\ncd %s\necho \"ran $*\" >> calls\nn=$(wc -l < calls)\n%s\n", folder, body);
    check_fclose(file, path);
    chmod(path, 0777);
}

/* A crash must not end a run over night: it is started again as long as it makes progress, and not forever when it
   makes none. */
static void test_resilient_tries_again(void) {
    const struct {
        const char *body;
        int code, calls;
    } cases[] = {
        {"exit 0", 0, 1},
        {"exit 2", 2, 1},
        {"exit 7", 7, 3},
        {"[ $n -ge 3 ] && exit 0; kill -9 $$", 0, 3},
        /* Five crashes, each after a new checkpoint, then success: more crashes than tries, but each made progress. */
        {"[ $n -ge 6 ] && exit 0; mkdir -p run/step-$n; touch run/step-$n/DONE; exit 1", 0, 6},
        {"mkdir -p run/step-$n; exit 1", 1, 3}, /* a folder without DONE is no progress */
    };
    char output[8192], folder[256];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(folder, sizeof folder, "%s", test_folder());
        write_program(folder, cases[i].body);
        int code = test_command(
            output, sizeof output,
            "RESILIENT_PAUSE=0 scripts/run_resilient.sh --tries=3 %s/program --out=%s/run", folder, folder);
        CHECK(code == cases[i].code, "'%s': exit %d, expected %d: %s", cases[i].body, code, cases[i].code,
              output);
        test_command(output, sizeof output, "grep -c 'ran --out=.*/run --resume=auto$' %s/calls", folder);
        CHECK(atoi(output) == cases[i].calls, "'%s': %s calls with --resume=auto, expected %d", cases[i].body,
              output, cases[i].calls);
    }
    int code = test_command(output, sizeof output, "scripts/run_resilient.sh true");
    CHECK(code == 2 && strstr(output, "no --out=DIR"), "exit %d: %s", code, output);
    code = test_command(output, sizeof output, "scripts/run_resilient.sh --tries=x true --out=y");
    CHECK(code == 2 && strstr(output, "--tries=x"), "exit %d: %s", code, output);
}

/* After a crash and a restart the script gets SIGTERM. The run must save, and the script must end with the run's
   exit code and start nothing more. */
static void test_resilient_passes_signals_on(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    test_command(
        output, sizeof output,
        "RESILIENT_PAUSE=0 scripts/run_resilient.sh %s/train_gpt " TINY_MODEL "--batch=4 --warmup=3 "
        "--val-every=0 --val-tokens=200 --save-every=1 --steps=1000000 --data=%s --out=%s/run > "
        "%s/said 2>&1 & pid=$!; "
        "cd %s; await() { for i in $(seq 3000); do grep -q \"\\\"step\\\": $1,\" run/log.jsonl 2> "
        "/dev/null && break; "
        "sleep 0.01; done; }; await 5; kill -9 $(pgrep -P $pid train_gpt); await 40; kill -TERM $pid; wait "
        "$pid; echo exit $?; "
        "grep -a 'starting again\\|RESUME' said",
        test_binaries(), data, data, data, data);
    CHECK(strstr(output, "exit 0") && strstr(output, "exit code 137; starting again from step-0") &&
              strstr(output, "RESUME: "),
          "%s", output);
}

/* ---- many ranks ---- */

/* The words with which a shell starts so many ranks. Without MPI it calls test_not_run and returns "". */
static const char *launch_ranks(int ranks) {
    static char launcher[256];
    char output[64];
    int code =
        test_command(output, sizeof output,
                     "command -v mpirun > /dev/null && ldd %s/train_gpt | grep -q libmpi", test_binaries());
    snprintf(launcher, sizeof launcher,
             "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun "
             "--oversubscribe --bind-to "
             "none -np %d",
             ranks);
    if (code != 0) test_not_run("no MPI, or train_gpt was built without");
    return code == 0 ? launcher : "";
}

#define TINY_RANKS                                                                                           \
    TINY_MODEL                                                                                               \
    "--dtype=fp32 --steps=12 --warmup=3 --val-every=4 --val-tokens=200 --threads=1 --total-batch=156 "

/* One of two ranks is killed as soon as step 3 is saved. The job must end by itself instead of waiting forever for
   that rank, and resume to the same bits. */
static void test_killed_rank_ends_the_job(void) {
    char output[16384], data[256];
    const char *launcher = launch_ranks(2);
    if (!*launcher) return;
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = test_command(output, sizeof output,
                            "%s %s/train_gpt " TINY_RANKS "--batch=6 --data=%s --out=%s/whole", launcher,
                            test_binaries(), data, data);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    double start = seconds_now();
    test_command(output, sizeof output,
                 "export ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; mpirun --oversubscribe "
                 "--bind-to none "
                 "-np 2 %s/train_gpt " TINY_RANKS
                 "--batch=6 --save-every=1 --keep=0 --data=%s --out=%s/killed & pid=$!; "
                 "for i in $(seq 3000); do [ -e %s/killed/step-00000003/DONE ] && break; sleep 0.003; done; "
                 "kill -9 $(pgrep -P $pid train_gpt | tail -n 1); wait $pid; echo exit $?",
                 test_binaries(), data, data, data);
    CHECK(!strstr(output, "exit 0") && strstr(output, "exited on signal 9"), "%s", output);
    CHECK(seconds_now() - start < 30, "the job ended after %.1f s", seconds_now() - start);
    code = test_command(output, sizeof output,
                        "%s %s/train_gpt " TINY_RANKS "--batch=6 --data=%s --out=%s/killed --resume=auto",
                        launcher, test_binaries(), data, data);
    CHECK(code == 0 && strstr(output, "resumed    "), "exit %d: %s", code, output);
    check_same_curve(data, "whole", "killed");
}

/* Three ranks write a checkpoint in three parts; two ranks, and one, go on from it to the same curve within
   rounding. A checkpoint that lacks a part must be named and passed over for an older one. */
static void test_another_number_of_ranks_goes_on(void) {
    char output[16384], data[256], command[1024];
    if (!*launch_ranks(3)) return;
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(command, sizeof command, "%s/train_gpt " TINY_RANKS "--data=%s", test_binaries(), data);
    int code = test_command(output, sizeof output, "%s --batch=12 --out=%s/whole", command, data);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = test_command(output, sizeof output, "%s %s --batch=4 --save-every=4 --keep=0 --out=%s/ranks3",
                        launch_ranks(3), command, data);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = test_command(output, sizeof output,
                        "cd %s && rm -r ranks3/step-00000008 ranks3/step-00000012 ranks3/summary.json && ls "
                        "ranks3/step-00000004 && cp -r ranks3 ranks1 && cp -r ranks3 ranks2",
                        data);
    CHECK(code == 0 && strstr(output, "optimizer-00002-of-00003.safetensors"), "exit %d: %s", code, output);
    test_command(output, sizeof output, "%s %s --batch=6 --out=%s/ranks2 --resume=auto", launch_ranks(2),
                 command, data);
    CHECK(strstr(output, "resumed    "), "%s", output);
    test_command(output, sizeof output, "%s --batch=12 --out=%s/ranks1 --resume=auto", command, data);
    CHECK(strstr(output, "resumed    "), "%s", output);
    LogData whole, moved;
    char path[400], error[LOG_ERROR_SIZE] = "";
    snprintf(path, sizeof path, "%s/whole/log.jsonl", data);
    REQUIRE(log_read(path, &whole, error), "%s", error);
    for (int ranks = 1; ranks <= 2; ranks++) {
        snprintf(path, sizeof path, "%s/ranks%d/log.jsonl", data, ranks);
        REQUIRE(log_read(path, &moved, error) && moved.n_train == 12, "%zu steps %s", moved.n_train, error);
        for (int i = 0; i < 12; i++)
            CHECK(fabs(moved.train[i].loss / whole.train[i].loss - 1) < 1e-5 &&
                      fabs(moved.train[i].grad_norm / whole.train[i].grad_norm - 1) < 1e-4,
                  "%d ranks, step %d: loss %.9g, expected %.9g, norm %.9g, expected %.9g", ranks, i + 1,
                  moved.train[i].loss, whole.train[i].loss, moved.train[i].grad_norm,
                  whole.train[i].grad_norm);
        log_free(&moved);
    }
    log_free(&whole);
    snprintf(path, sizeof path, "%s/ranks3/step-00000004/optimizer-00001-of-00003.safetensors", data);
    unlink(path);
    code = test_command(output, sizeof output, "%s --batch=12 --out=%s/ranks3 --resume=auto", command, data);
    CHECK(code == 1 && strstr(output, "passed over") &&
              strstr(output, "optimizer-00001-of-00003.safetensors"),
          "exit %d: %s", code, output);
}

#define FAULTS_TESTS(TEST)                                                                                   \
    TEST(loss_watch_finds_spikes)                                                                            \
    TEST(loss_watch_survives_json)                                                                           \
    TEST(largest_magnitude)                                                                                  \
    TEST(nonfinite_step_is_skipped)                                                                          \
    TEST(diverged_run_is_diagnosed)                                                                          \
    TEST(full_disk_stops_no_training)                                                                        \
    TEST(damage_anywhere_is_found)                                                                           \
    TEST(shrinking_shard_is_named)                                                                           \
    TEST(scheduler_warning_saves)                                                                            \
    TEST(signal_ends_validation)                                                                             \
    TEST(resilient_tries_again)                                                                              \
    TEST(resilient_passes_signals_on)                                                                        \
    TEST(killed_rank_ends_the_job)                                                                           \
    TEST(another_number_of_ranks_goes_on)

#endif
