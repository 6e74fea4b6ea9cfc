/* Tests of several ranks. Buckets and slices cover all parameters. Any number of ranks trains the same model as one,
   and the same number of ranks gives the same bits each time. When one rank fails, the job ends. All but the first kind
   of test need mpirun. */
#ifndef TESTS_TEST_PARALLEL_H
#define TESTS_TEST_PARALLEL_H

#include "harness.h"
#include "read_log.h"
#include "test_model.h"

/* ---- without MPI ---- */

/* The slices of each bucket follow one another without gaps, up to the end of the bucket. */
static void check_slices_cover(const ParameterBuckets *b, int shards) {
    for (int k = 0; k < b->count; k++) {
        size_t at = b->ranges[k].begin;
        for (int r = 0; r < shards; r++) {
            FloatRange s = bucket_slice(b->ranges[k], r, shards);
            CHECK(s.begin == at && s.end >= at, "slice %d of %d begins at %zu, not %zu", r, shards, s.begin,
                  at);
            at = s.end;
        }
        CHECK(at == b->ranges[k].end, "the slices of %d end at %zu of %zu", shards, at, b->ranges[k].end);
    }
}

/* All shards have nearly the same number of floats. */
static void check_shards_are_equal(const ParameterBuckets *b, int shards) {
    size_t least = SIZE_MAX, most = 0;
    for (int r = 0; r < shards; r++) {
        int count;
        FloatRange *slices = buckets_shard(b, r, shards, &count);
        size_t n = ranges_floats(slices, count);
        least = n < least ? n : least, most = n > most ? n : most;
        free(slices);
    }
    CHECK(most - least <= (size_t)b->count * 2 * SLICE_ALIGN, "%d shards have %zu to %zu floats", shards,
          least, most);
}

static void test_buckets_and_slices_cover_everything(void) {
    const struct {
        size_t starts[8];
        int count;
        size_t floats;
        int buckets;
    } cases[] = {
        {{0}, 1, 1, 1},
        {{0}, 1, BUCKET_MAX * 2 + 1, 3},
        {{0, 100, 200, 300}, 4, 417, 2}, /* small layers form one bucket, the embedding another */
        {{0, 7, BUCKET_MIN + 7, BUCKET_MIN + 107}, 4, 2 * BUCKET_MIN + 107, 3},
        {{0, 5 * (size_t)BUCKET_MAX}, 2, 9 * (size_t)BUCKET_MAX + 33, 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ParameterBuckets b = buckets_plan(cases[i].starts, cases[i].count, cases[i].floats);
        CHECK(b.count == cases[i].buckets, "case %zu: %d buckets, expected %d", i, b.count, cases[i].buckets);
        size_t at = 0;
        for (int k = 0; k < b.count; k++) {
            CHECK(b.ranges[k].begin == at && b.ranges[k].end > at,
                  "case %zu: bucket %d begins at %zu, not %zu", i, k, b.ranges[k].begin, at);
            at = b.ranges[k].end;
        }
        CHECK(at == cases[i].floats, "case %zu: the buckets end at %zu of %zu", i, at, cases[i].floats);
        for (int shards = 1; shards < 70; shards += shards < 5 ? 1 : 16)
            check_slices_cover(&b, shards), check_shards_are_equal(&b, shards);
        buckets_free(&b);
    }
}

/* ---- with MPI ---- */

/* The command of the launcher, with the options that let it start more ranks than cores, also as root. Where there is
   none, it calls test_not_run and returns NULL. */
static const char *mpi_launcher(void) {
    static char launcher[128];
    char output[2048];
    if (*launcher) return launcher;
    if (test_command(output, sizeof output, "command -v mpirun") != 0) {
        test_not_run("no MPI");
        return NULL;
    }
    bool open_mpi =
        test_command(output, sizeof output, "mpirun --version") == 0 && strstr(output, "Open MPI");
    const char *flags = open_mpi ? "--allow-run-as-root --oversubscribe --bind-to none" : "";
    test_command(output, sizeof output, "mpirun %s -np 2 %s/train_gpt --help", flags, test_binaries());
    if (strstr(output, "built without MPI")) {
        test_not_run("train_gpt was built without MPI");
        return NULL;
    }
    /* Leaks of MPI itself are not to fail a test. No test takes two minutes. */
    snprintf(launcher, sizeof launcher, "ASAN_OPTIONS=detect_leaks=0 timeout -k 5 120 mpirun %s", flags);
    return launcher;
}

#define RANKS_RUN                                                                                            \
    TINY_MODEL                                                                                               \
    "--dtype=fp32 --total-batch=156 --steps=20 --warmup=3 --val-every=10 --val-tokens=200 --threads=1 "

/* Trains 20 steps of 12 sequences into DATA/NAME on so many ranks; returns the exit code. */
static int train_ranks(const char *data, const char *name, int ranks, const char *arguments, char *output,
                       size_t size) {
    return test_command(output, size, "%s -np %d %s/train_gpt " RANKS_RUN "--data=%s --out=%s/%s %s",
                        mpi_launcher(), ranks, test_binaries(), data, data, name, arguments);
}

/* The relative difference |a - b| / |b| of the weights in the last checkpoints of two runs (L2 norms over all
   tensors). */
static double weights_apart(const char *data, const char *a, const char *b) {
    char path[300], error[CHECKPOINT_ERROR_SIZE];
    NamedTensor *tensors[2] = {NULL, NULL};
    int count[2];
    double apart = 0, size = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/step-00000020/model.safetensors", data, i ? b : a);
        if (!safetensors_load(path, &tensors[i], &count[i], error)) die("%s", error);
    }
    for (int k = 0; k < count[0]; k++) {
        const int64_t *shape = tensors[0][k].shape;
        for (int64_t i = 0; i < shape[0] * (tensors[0][k].dimensions == 2 ? shape[1] : 1); i++) {
            double x = tensors[0][k].data[i], y = tensors[1][k].data[i];
            apart += (x - y) * (x - y), size += y * y;
        }
    }
    for (int i = 0; i < 2; i++) safetensors_free(tensors[i], count[i]);
    return sqrt(apart / size);
}

/* The largest relative difference of the logged losses and norms. */
static double losses_apart(const char *data, const char *a, const char *b) {
    char path[300], error[LOG_ERROR_SIZE];
    LogData logs[2];
    double apart = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/log.jsonl", data, i ? b : a);
        if (!log_read(path, &logs[i], error)) die("%s", error);
    }
    if (logs[0].n_train != 20 || logs[1].n_train != 20) apart = INFINITY;
    for (size_t i = 0; i < 20 && apart < INFINITY; i++) {
        const LogTrain *x = &logs[0].train[i], *y = &logs[1].train[i];
        apart = fmax(apart, fmax(fabs(x->loss / y->loss - 1), fabs(x->grad_norm / y->grad_norm - 1)));
    }
    log_free(&logs[0]), log_free(&logs[1]);
    return apart;
}

static void check_runs_alike(const char *data, const char *a, const char *b, double bound) {
    double losses = losses_apart(data, a, b), weights = weights_apart(data, a, b);
    CHECK(losses <= bound && weights <= bound, "%s and %s: losses and norms %.3g apart, weights %.3g", a, b,
          losses, weights);
}

/* However a batch is divided into micro-steps and ranks, the samples are the same. Only the order of sums differs. */
static void test_ranks_train_as_one(void) {
    char output[8192], data[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    const struct {
        const char *name;
        int ranks;
        const char *arguments;
    } runs[] = {{"one", 1, "--batch=12"},
                {"accumulated", 1, "--batch=3"},
                {"two", 2, "--batch=6"},
                {"three", 3, "--batch=2"},
                {"four", 4, "--batch=3"},
                {"laser-one", 1, "--batch=12 --attn=laser"},
                {"laser-three", 3, "--batch=4 --attn=laser"},
                {"lamb-one", 1, "--batch=12 --optimizer=lamb"},
                {"lamb-three", 3, "--batch=4 --optimizer=lamb"},
                {"muon-one", 1, "--batch=12 --optimizer=muon"},
                {"muon-two", 2, "--batch=6 --optimizer=muon --zero=0"},
                {"diff-one", 1, "--batch=12 --attn=diff-laser --heads=4"},
                {"diff-three", 3, "--batch=4 --attn=diff-laser --heads=4"},
                {"untied-one", 1, "--batch=12 --tie=no --norm-place=peri"},
                {"untied-two", 2, "--batch=6 --tie=no --norm-place=peri"}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        int code = train_ranks(data, runs[i].name, runs[i].ranks, runs[i].arguments, output, sizeof output);
        REQUIRE(code == 0, "%s: exit %d: %s", runs[i].name, code, output);
        if (i != 0 && !strstr(runs[i].name, "-one"))
            check_runs_alike(data, runs[i].name, runs[i < 5 ? 0 : i - 1].name, 1e-5);
    }
    CHECK(weights_apart(data, "two", "one") > 0,
          "two ranks add in another order than one, so some bits should differ");
    CHECK(weights_apart(data, "laser-one", "one") > 1e-3, "LASER is another model");
    CHECK(weights_apart(data, "lamb-one", "one") > 1e-3 && weights_apart(data, "muon-one", "one") > 1e-3,
          "LAMB and Muon are other optimizers");
    int code = train_ranks(data, "refused", 2, "--batch=6 --optimizer=muon", output, sizeof output);
    CHECK(code == 2 && strstr(output, "--optimizer=muon needs whole matrices") && strstr(output, "--zero=0"),
          "exit %d: %s", code, output);
}

/* The validations of two logs: at least one each, with losses that differ by rounding alone and the same number of bytes
   a token. */
static void check_same_bytes(const char *data, const char *a, const char *b) {
    char path[300], error[LOG_ERROR_SIZE];
    LogData logs[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/log.jsonl", data, i ? b : a);
        if (!log_read(path, &logs[i], error)) die("%s", error);
    }
    CHECK(logs[0].n_validation == logs[1].n_validation && logs[0].n_validation > 1, "%zu and %zu validations",
          logs[0].n_validation, logs[1].n_validation);
    for (size_t i = 0; i < logs[0].n_validation && i < logs[1].n_validation; i++) {
        const LogValidation *x = &logs[0].validation[i], *y = &logs[1].validation[i];
        const double bytes = x->val_loss / x->val_bits_per_byte, other = y->val_loss / y->val_bits_per_byte;
        CHECK(fabs(x->val_loss / y->val_loss - 1) < 1e-5 && fabs(bytes / other - 1) < 1e-12,
              "losses %.9g and %.9g, bits per byte %.9g and %.9g", x->val_loss, y->val_loss,
              x->val_bits_per_byte, y->val_bits_per_byte);
    }
    log_free(&logs[0]), log_free(&logs[1]);
}

/* Each rank counts the bytes of its own share of the validation tokens, and the counts are added. */
static void test_ranks_count_the_same_bytes(void) {
    char output[8192], data[256], line[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    write_test_tokenizer(data);
    int code = train_ranks(data, "one", 1, "--batch=12", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = train_ranks(data, "two", 2, "--batch=6", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    check_same_bytes(data, "one", "two");
    test_command(line, sizeof line, "grep bits_per_byte %s/two/summary.json", data);
    CHECK(strstr(line, "\"final_val_bits_per_byte\":"), "summary.json lacks it: '%s'", line);
}

/* Neither --zero nor --comm-thread, nor the order in which messages arrive, changes a bit. */
static void test_ranks_give_the_same_bits(void) {
    char output[8192], data[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    const char *arguments[] = {"--batch=4", "--batch=4", "--batch=4 --zero=0", "--batch=4 --comm-thread=no",
                               "--batch=4 --zero=0 --comm-thread=no"};
    for (int i = 0; i < 5; i++) {
        char name[16] = {(char)('a' + i)};
        int code = train_ranks(data, name, 3, arguments[i], output, sizeof output);
        REQUIRE(code == 0, "%s: exit %d: %s", arguments[i], code, output);
        CHECK(losses_apart(data, name, "a") == 0 && weights_apart(data, name, "a") == 0,
              "3 ranks '%s': losses %.3g apart, weights %.3g", arguments[i], losses_apart(data, name, "a"),
              weights_apart(data, name, "a"));
    }
    int code = train_ranks(data, "half", 3, "--batch=4 --comm-dtype=bf16", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    double apart = losses_apart(data, "half", "a");
    CHECK(apart > 0 && apart < 1e-3, "gradients sent in bf16: losses %.3g apart", apart);
    snprintf(output, sizeof output, "%s/a/log.jsonl", data);
    FILE *log = check_fopen(output, "r", "");
    output[fread(output, 1, sizeof output - 1, log)] = 0;
    fclose(log);
    CHECK(strstr(output, "\"comm_overlap\": "), "the log lacks comm_overlap: %.300s", output);
}

/* A run of four ranks is continued on three and then on one. */
static void test_ranks_may_change_on_resuming(void) {
    char output[8192], data[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    int code = train_ranks(data, "whole", 1, "--batch=12", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    code = train_ranks(data, "parts", 4, "--batch=3 --save-every=6 --keep=0", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    test_command(output, sizeof output, "cd %s/parts && rm -r step-00000012 step-00000018 step-00000020",
                 data);
    code = train_ranks(data, "parts", 3, "--batch=4 --save-every=6 --keep=0 --resume=auto", output,
                       sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000006"), "exit %d: %s", code, output);
    test_command(output, sizeof output, "cd %s/parts && rm -r step-00000018 step-00000020", data);
    code = train_ranks(data, "parts", 1, "--batch=12 --resume=auto", output, sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000012"), "exit %d: %s", code, output);
    check_runs_alike(data, "parts", "whole", 1e-5);
}

static int count_of(const char *text, const char *what) {
    int count = 0;
    for (; (text = strstr(text, what)); text++) count++;
    return count;
}

/* When one rank or all ranks fail, one message is printed and the job ends at once. */
static void test_failing_ranks_end_the_job(void) {
    char output[8192], data[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    const struct {
        const char *on_rank_1, *on_others, *message;
    } cases[] = {
        {"exec $run --data=/nonexistent", "exec $run --data=/nonexistent", "error: rank "},
        {"exec $run --data=/nonexistent", "exec $run", "error: rank 1 on "},
        {"exec $run --layers=0", "exec $run --layers=0", "error: rank "},
        {"(sleep 0.5; kill -9 $$) & exec $run", "exec $run", "signal 9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double start = seconds_now();
        int code =
            test_command(output, sizeof output,
                         "run='%s/train_gpt " TINY_MODEL "--steps=1000000 --threads=1 --data=%s'; "
                         "export run; %s -np 3 sh -c 'if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = 1 ]; "
                         "then %s; else %s; fi'",
                         test_binaries(), data, mpi_launcher(), cases[i].on_rank_1, cases[i].on_others);
        CHECK(code != 0 && code != 124, "case %zu: exit %d: %s", i, code, output);
        CHECK(seconds_now() - start < 30, "case %zu took %.1f s", i, seconds_now() - start);
        CHECK(strstr(output, cases[i].message), "case %zu: '%s' is missing: %s", i, cases[i].message, output);
        CHECK(count_of(output, "error: ") <= 1, "case %zu: %d errors: %s", i, count_of(output, "error: "),
              output);
    }
}

/* Ranks with different options or different data end with an error that names the difference, before training. */
static void test_ranks_must_agree(void) {
    static const struct {
        const char *on_rank_1, *says;
        bool agree;
    } cases[] = {
        {"--lr=0.5", "the ranks do not agree: --lr is 0.003 on rank 0, 0.5 on rank 1; start all with", false},
        {"--batch=2", "the ranks do not agree: --batch is 16 on rank 0, 2 on rank 1", false},
        {"--data=$other", "holds other data (or another tokenizer.json) on rank 1 than on rank 0", false},
        {"--data=$same --threads=2", "3/3", true},
    };
    char output[8192], data[256];
    if (!mpi_launcher()) return;
    snprintf(data, sizeof data, "%s", write_test_data(900));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = test_command(
            output, sizeof output,
            "d=%s; mkdir -p $d/other $d/same; cp $d/*.* $d/same; cp $d/*.* $d/other; cp $d/val_000000.bin "
            "$d/other/train_000000.bin; run='%s/train_gpt " TINY_MODEL
            "--steps=3 --warmup=1 --val-tokens=100 --dtype=bf16 --threads=1 --data='$d; export d run "
            "other=$d/other "
            "same=$d/same; %s -np 2 sh -c 'if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = 1 ]; then exec $run "
            "%s; else exec "
            "$run; fi'",
            data, test_binaries(), mpi_launcher(), cases[i].on_rank_1);
        CHECK((code == 0) == cases[i].agree && code != 124 && strstr(output, cases[i].says),
              "%s: exit %d: %s", cases[i].on_rank_1, code, output);
        CHECK(count_of(output, "error: ") == !cases[i].agree, "%s: %s", cases[i].on_rank_1, output);
    }
}

/* When the launcher binds all threads of a rank to one core, a warning names the option that changes it. */
static void test_bindings_are_shown(void) {
    char output[16384];
    const char *launcher = mpi_launcher();
    if (!launcher) return;
    if (!strstr(launcher, "--bind-to none")) {
        test_not_run("no Open MPI");
        return;
    }
    const char *options[] = {"--bind-to core:overload-allowed", "--bind-to none"};
    for (int i = 0; i < 2; i++) {
        int code = test_command(output, sizeof output,
                                "ASAN_OPTIONS=detect_leaks=0 timeout 60 mpirun --allow-run-as-root "
                                "--oversubscribe %s -np 2 %s/train_gpt "
                                "--dry-run " TINY_MODEL "--batch=1 --threads=%d",
                                options[i], test_binaries(), i ? 1 : 3);
        CHECK(code == 0 && strstr(output, "ranks      2 on 1 host, "), "exit %d: %s", code, output);
        bool warned = strstr(output, "rank 0 on ") && strstr(output, " has 3 threads on 1 core") &&
                      strstr(output, "--bind-to none");
        CHECK(warned == (i == 0), "%s: %s", options[i], output);
    }
}

/* Each of four ranks keeps a quarter of the moments. */
static void test_moments_are_divided(void) {
    char output[16384];
    double megabytes[2] = {0};
    if (!mpi_launcher()) return;
    for (int i = 0; i < 2; i++) {
        int code =
            test_command(output, sizeof output,
                         "%s -np %d %s/train_gpt --dry-run --layers=4 --heads=2 --head-dim=64 "
                         "--embd=128 --mlp-hidden=256 --seq-len=8 --batch=1 --vocab-size=4096 --threads=1",
                         mpi_launcher(), i ? 4 : 1, test_binaries());
        const char *line = strstr(output, "the optimizer's moments");
        REQUIRE(code == 0 && line, "exit %d: %s", code, output);
        line += strcspn(line, "\n");
        sscanf(line - 15, "%lf MiB", &megabytes[i]);
    }
    CHECK(megabytes[0] > 7 && fabs(megabytes[1] / megabytes[0] - 0.25) < 0.01, "%.1f of %.1f MiB",
          megabytes[1], megabytes[0]);
}

#define PARALLEL_TESTS(TEST)                                                                                 \
    TEST(buckets_and_slices_cover_everything)                                                                \
    TEST(ranks_train_as_one)                                                                                 \
    TEST(ranks_count_the_same_bytes)                                                                         \
    TEST(ranks_give_the_same_bits)                                                                           \
    TEST(ranks_may_change_on_resuming)                                                                       \
    TEST(failing_ranks_end_the_job)                                                                          \
    TEST(ranks_must_agree)                                                                                   \
    TEST(bindings_are_shown)                                                                                 \
    TEST(moments_are_divided)

#endif
