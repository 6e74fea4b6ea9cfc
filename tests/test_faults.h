/* test_faults.h: runs that meet losses that are no numbers, spikes, signals, full disks, shrinking files; each must end as
   the manual says, and go on to the curve it would have had. The long version is scripts/test_faults.sh. */
#ifndef TESTS_TEST_FAULTS_H
#define TESTS_TEST_FAULTS_H

#include "harness.h"
#include "test_model.h"
#include "test_train.h"

/* ---- the watch on the loss ---- */

static void test_loss_watch_finds_spikes(void) {
    LossWatch watch = {0};
    double z;
    for (int i = 0; i < 300; i++) {
        double loss = 3 + 0.1 * rng_normal(1, RNG_STREAM_TEST, (uint64_t)i);
        StepVerdict verdict = loss_watch_judge(&watch, loss, 1, 0, &z);
        CHECK(verdict == STEP_SOUND, "loss %d, %.3f with z %.2f, is a spike", i, loss, z);
        CHECK(i < LOSS_WINDOW_LEAST ? isnan(z) : fabs(z) < LOSS_SPIKE, "z of loss %d is %g", i, z);
    }
    double mean = 0, squares = 0; /* of the last 128, independently */
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

static void test_largest_magnitude(void) {
    float *x = test_normal(10007, 1, 3);
    double want = 0;
    for (int i = 0; i < 10007; i++) want = fmax(want, fabs((double)x[i]));
    CHECK(largest_magnitude(x, 10007) == (float)want && largest_magnitude(x, 0) == 0, "%g, expected %g",
          (double)largest_magnitude(x, 10007), want);
    x[9000] = -INFINITY;
    CHECK(largest_magnitude(x, 10007) == INFINITY && first_nonfinite(x, 10007) == 9000, "an infinity at %zu",
          first_nonfinite(x, 10007));
    x[10006] = NAN;
    CHECK(isnan(largest_magnitude(x, 10007)) && first_nonfinite(x, 9000) == 9000, "a NaN was not found");
    free(x);
}

/* ---- steps that are skipped ---- */

/* Weights, moments and the count of updates after a skipped step are those before it; the schedule goes on. */
static void test_nonfinite_step_is_skipped(void) {
    const char *data = write_test_data(3000);
    TestRun *run = test_run_open(data, "--batch=4 --steps=20 --warmup=5");
    Trainer *t = &run->trainer;
    const size_t bytes = t->model.weights.count * sizeof(float);
    LogTrain line;
    log_open(&t->log, NULL, 0, 20, true);
    for (int step = 0; step < 3; step++) REQUIRE(train_step(t, &line), "step %d did not end", step);
    float *weights = memcpy(check_malloc(bytes), t->model.weights.memory, bytes), was;
    float *mean = memcpy(check_malloc(bytes), t->mean, bytes),
          *square = memcpy(check_malloc(bytes), t->square, bytes);
    for (int kind = 0; kind < 2;
         kind++) { /* a weight of the middle turns NaN, then infinite, then is itself again */
        float *weight = &t->model.weights.layers[1].up[5];
        was = *weight, *weight = kind ? INFINITY : NAN;
        REQUIRE(train_step(t, &line), "a step did not end");
        *weight = was;
        CHECK(line.skipped == 1 && !isfinite(line.grad_norm), "skipped %ld, norm %g", line.skipped,
              line.grad_norm);
    }
    CHECK(t->step == 5 && t->watch.skipped == 2 && t->watch.skipped_in_a_row == 2, "step %d, skipped %d",
          (int)t->step, (int)t->watch.skipped);
    CHECK(memcmp(weights, t->model.weights.memory, bytes) == 0 && memcmp(mean, t->mean, bytes) == 0 &&
              memcmp(square, t->square, bytes) == 0,
          "a skipped step changed the weights or the moments");
    REQUIRE(train_step(t, &line), "a step did not end");
    CHECK(line.skipped == 0 && t->watch.skipped_in_a_row == 0 && line.lr == run->options.lr, "lr %g",
          line.lr);
    CHECK(memcmp(weights, t->model.weights.memory, bytes) != 0,
          "the step after a skipped one changed nothing");
    free(weights), free(mean), free(square);
    test_run_close(run);
}

/* Gives one weight of a checkpoint another value, and the checkpoint a DONE that agrees. */
static bool poison_checkpoint(const char *folder, const char *name, int element, float value) {
    char path[600], error[CHECKPOINT_ERROR_SIZE];
    Checkpoint c = {.step = 0};
    NamedTensor *tensors;
    int count;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (!safetensors_load(path, &tensors, &count, error)) return false;
    NamedTensor *tensor = safetensors_find(tensors, count, name);
    if (tensor) tensor->data[element] = value;
    bool ok = tensor && safetensors_write(path, tensors, count, error);
    safetensors_free(tensors, count);
    snprintf(path, sizeof path, "%s/DONE", folder);
    unlink(path);
    snprintf(c.folder, sizeof c.folder, "%s", folder);
    return ok && checkpoint_write_done(&c, error);
}

static void test_diverged_run_is_diagnosed(void) {
    static const struct {
        const char *tensor;
        float value;
        const char *says;
    } cases[] = {
        {"layers.1.mlp.up.weight", NAN,
         "First not finite: weights, layers.1.mlp.up.weight, element 7 is nan"},
        {"layers.1.mlp.up.weight", 3e38f, "First not finite: activations, layers.1.up, element "},
        {"layers.0.attn.q.weight", -INFINITY, "layers.0.attn.q.weight, element 7 is -inf"},
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

#define FAULTS_TESTS(TEST)                                                                                   \
    TEST(loss_watch_finds_spikes)                                                                            \
    TEST(loss_watch_survives_json)                                                                           \
    TEST(largest_magnitude)                                                                                  \
    TEST(nonfinite_step_is_skipped)                                                                          \
    TEST(diverged_run_is_diagnosed)

#endif
