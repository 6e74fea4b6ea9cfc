/* test_diff.h: tests of differential attention, --attn=diff and --attn=diff-laser: its formulas in float64, its
   gradients, its initial weights, what it needs, and what refuses it. */
#ifndef TESTS_TEST_DIFF_H
#define TESTS_TEST_DIFF_H

#include "harness.h"
#include "test_train.h"

enum { DIFF_B = 2, DIFF_T = 6, DIFF_H = 4, DIFF_D = 3, DIFF_LAYER = 2 };
enum {
    DIFF_N = DIFF_B * DIFF_T,
    DIFF_A = DIFF_H * DIFF_D,
    DIFF_OUT = DIFF_N * DIFF_A,
    DIFF_IN = 3 * DIFF_OUT,
    DIFF_WEIGHTS = 6 * DIFF_D
};

/* What the twin reads, in double. */
typedef struct {
    bool laser;
    double *qkv, *weights, *dout; /* (N, 3A), (6D), (N, A) */
} DiffTwin;

/* o (2D) of row i of the attention of head `head`, with the values of both heads of its pair. qkv (T, 3A) are those of
   the sequence. */
static void diff_twin_head(double *o, const DiffTwin *x, const double *qkv, int head, int i) {
    double a[DIFF_T], sum = 0;
    for (int j = 0; j <= i; j++) {
        const double *q = qkv + (i * 3) * DIFF_A + head * DIFF_D,
                     *k = qkv + (j * 3 + 1) * DIFF_A + head * DIFF_D;
        a[j] = 0;
        for (int d = 0; d < DIFF_D; d++) a[j] += q[d] * k[d] / sqrt(DIFF_D);
        sum += a[j] = exp(a[j]);
    }
    for (int d = 0; d < 2 * DIFF_D; d++) {
        o[d] = 0;
        for (int j = 0; j <= i; j++) {
            const double v = qkv[(j * 3 + 2) * DIFF_A + head / 2 * 2 * DIFF_D + d];
            o[d] += a[j] / sum * (x->laser ? exp(v) : v);
        }
        if (x->laser) o[d] = log(o[d]);
    }
}

/* The formulas of gpt/math/attention_diff.h: out (N, A). */
static void diff_twin(double *out, const DiffTwin *x) {
    const double *w = x->weights, init = 0.8 - 0.6 * exp(-0.3 * DIFF_LAYER);
    double dots[2] = {0, 0};
    for (int d = 0; d < DIFF_D; d++) {
        dots[0] += w[d] * w[DIFF_D + d];
        dots[1] += w[2 * DIFF_D + d] * w[3 * DIFF_D + d];
    }
    const double lambda = exp(dots[0]) - exp(dots[1]) + init;
    for (int n = 0; n < DIFF_N; n++)
        for (int pair = 0; pair < DIFF_H / 2; pair++) {
            const double *qkv = x->qkv + n / DIFF_T * DIFF_T * 3 * DIFF_A;
            double *o = out + n * DIFF_A + pair * 2 * DIFF_D, second[2 * DIFF_D], squares = 0;
            diff_twin_head(o, x, qkv, 2 * pair, n % DIFF_T);
            diff_twin_head(second, x, qkv, 2 * pair + 1, n % DIFF_T);
            for (int d = 0; d < 2 * DIFF_D; d++) o[d] -= lambda * second[d], squares += o[d] * o[d];
            for (int d = 0; d < 2 * DIFF_D; d++)
                o[d] *= (1 - init) * w[4 * DIFF_D + d] / sqrt(squares / (2 * DIFF_D) + 1e-5);
        }
}

static double diff_twin_loss(void *context) {
    const DiffTwin *x = context;
    double out[DIFF_OUT], sum = 0;
    diff_twin(out, x);
    for (int i = 0; i < DIFF_OUT; i++) sum += out[i] * x->dout[i];
    return sum;
}

/* A wrong sign or a wrong pair would still train, to a worse model, and be taken for what the paper describes. */
static void check_diff(AttentionKind kind, bool bf16) {
    float *qkv = test_normal(DIFF_IN, 1, 1), *dout = test_normal(DIFF_OUT, 1, 2),
          *weights = test_normal(DIFF_WEIGHTS, 0.3, 3);
    float out[DIFF_OUT], lse[DIFF_N * DIFF_H], saved[2 * DIFF_OUT], dqkv[DIFF_IN], dweights[DIFF_WEIGHTS];
    double want[DIFF_OUT], dqkv_want[DIFF_IN], dweights_want[DIFF_WEIGHTS];
    const double bound = bf16 ? 1e-4 : 1e-10;
    for (int i = 4 * DIFF_D; i < DIFF_WEIGHTS; i++) weights[i] += 1;
    for (int i = 0; i < DIFF_WEIGHTS; i++) dweights[i] = 1; /* must be added to */
    DiffTwin twin = {attention_is_laser(kind), test_to_double(qkv, DIFF_IN),
                     test_to_double(weights, DIFF_WEIGHTS), test_to_double(dout, DIFF_OUT)};
    const AttentionShape shape = {.B = DIFF_B,
                                  .T = DIFF_T,
                                  .H = DIFF_H,
                                  .D = DIFF_D,
                                  .qkv_row = 3 * DIFF_A,
                                  .out_row = DIFF_A,
                                  .dtype = bf16 ? DTYPE_BF16 : DTYPE_FP32,
                                  .own = {DIFF_LAYER, weights, dweights, saved}};
    diff_twin(want, &twin);
    test_finite_differences(dqkv_want, twin.qkv, DIFF_IN, diff_twin_loss, &twin);
    test_finite_differences(dweights_want, twin.weights, DIFF_WEIGHTS, diff_twin_loss, &twin);

    attention_forward(kind, out, lse, qkv, qkv + DIFF_A, qkv + 2 * DIFF_A, &shape);
    CHECK_NMSE(out, want, DIFF_OUT, bound, attention_name(kind));
    attention_backward(kind, dqkv, dqkv + DIFF_A, dqkv + 2 * DIFF_A, dout, qkv, qkv + DIFF_A,
                       qkv + 2 * DIFF_A, out, lse, &shape);
    for (int i = 0; i < DIFF_WEIGHTS; i++) dweights[i] -= 1;
    CHECK_NMSE(dqkv, dqkv_want, DIFF_IN, bound, "dq, dk and dv");
    CHECK_NMSE(dweights, dweights_want, 4 * DIFF_D, bound, "the gradients of lambda's vectors");
    CHECK_NMSE(dweights + 4 * DIFF_D, dweights_want + 4 * DIFF_D, 2 * DIFF_D, bound,
               "the gradient of the norm's weight");
    free(qkv), free(dout), free(weights), free(twin.qkv), free(twin.weights), free(twin.dout);
}

static void test_diff_matches_float64(void) {
    for (int bf16 = 0; bf16 < 2; bf16++)
        check_diff(ATTENTION_DIFF, bf16), check_diff(ATTENTION_DIFF_LASER, bf16);
}

/* The same seed must give the weights that both kinds have the same initial values, and the others those of the paper;
   and what is reported must be what is used. */
static void test_diff_starts_as_the_paper_says(void) {
    const char *data = write_test_data(600);
    TestRun *plain = test_run_open(data, "--heads=4 --head-dim=64"),
            *diff = test_run_open(data, "--attn=diff --heads=4 --head-dim=64 --qk-norm=yes");
    const Model *a = &plain->trainer.model, *b = &diff->trainer.model;
    const int L = b->config.layers, D = 64, A = 4 * D, N = b->batch * b->config.seq_len;
    int own = 0;
    for (int i = 0, j = 0; i < b->parameters.count; i++) {
        const Tensor *x = &a->parameters.tensors[j], *y = &b->parameters.tensors[i];
        const float *values = b->weights.memory + y->offset;
        const double size = sqrt(gradient_squares(values, y->count) / (double)y->count);
        if (strcmp(x->name, y->name) == 0) {
            CHECK(memcmp(a->weights.memory + x->offset, values, x->count * sizeof(float)) == 0,
                  "%s has other initial values", x->name);
            j++;
        } else if (strstr(y->name, "lambda")) {
            CHECK(fabs(size - 0.1) < 0.03 && y->count == (size_t)D && y->dimensions == 1,
                  "%s: size %g, %zu numbers", y->name, size, y->count);
            own++;
        } else if (strstr(y->name, "subln")) {
            CHECK(size == 1 && y->count == 2 * (size_t)D && y->dimensions == 1, "%s: size %g", y->name, size);
            own++;
        }
    }
    CHECK(own == 5 * L, "%d tensors of its own", own);
    const float *q1 = b->weights.layers[0].own[0];
    CHECK(memcmp(q1, b->weights.layers[0].own[1], (size_t)D * sizeof *q1) != 0 &&
              memcmp(q1, b->weights.layers[1].own[0], (size_t)D * sizeof *q1) != 0,
          "two vectors have the same numbers");
    const float zeros[4] = {0};
    for (int l = 0; l < 2; l++) { /* 0.2 and 0.35551 in the first two layers, where lambda's vectors are 0 */
        const AttentionShape shape = {.D = 1, .own = {.layer = l, .weights = zeros}};
        CHECK(fabsf(diff_lambda(&shape).all - (l ? 0.3555091f : 0.2f)) < 1e-6f, "layer %d: lambda is %g", l,
              (double)diff_lambda(&shape).all);
    }
    CHECK(model_flops_per_token(b) - model_flops_per_token(a) == 6.0 * L * A * b->config.seq_len,
          "%g operations a token more", model_flops_per_token(b) - model_flops_per_token(a));
    const ModelMemory with = model_memory(b), without = model_memory(a);
    CHECK(with.activations_kept - without.activations_kept == (size_t)(L * 2 * N * A),
          "%zu floats more are kept", with.activations_kept - without.activations_kept);
    CHECK(with.work - without.work >= (size_t)(4 * N * A), "%zu floats more are work memory",
          with.work - without.work);
    test_run_close(plain), test_run_close(diff);
}

/* Neither the number of threads nor --recompute may change a bit. */
static void test_diff_gives_the_same_bits(void) {
    const char *data = write_test_data(600);
    check_same_bits(data, "--heads=4 --warmup=2 --attn=diff-laser --dtype=fp32");
    check_same_bits(data, "--heads=4 --warmup=2 --attn=diff --dtype=bf16");
}

/* A run as a user would start it: its loss falls, its checkpoint says what it is, it can be continued with the same
   bits, and ./generate continues a text. */
static void test_diff_trains(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    for (int laser = 0; laser < 2; laser++) {
        char arguments[128];
        const char *name = laser ? "diff-laser" : "diff";
        snprintf(arguments, sizeof arguments, "--attn=%s --heads=4 --lr=0.02", name);
        int code = train_tiny(data, name, arguments, output, sizeof output);
        REQUIRE(code == 0, "exit %d: %s", code, output);
        double first = 0, last = 0;
        code = test_command(output, sizeof output,
                            "cd %s/%s && sed -n 's/.*\"val_loss\": \\([0-9.]*\\).*/\\1/p' log.jsonl", data,
                            name);
        sscanf(output, "%lf", &first);
        const char *end = strrchr(output, '.');
        REQUIRE(code == 0 && end, "no losses: %s", output);
        sscanf(end - 1, "%lf", &last);
        CHECK(first > 4 && last < first - 0.1, "%s: the loss goes from %g to %g", name, first, last);
        code =
            test_command(output, sizeof output,
                         "grep '\"attention\":.*\"%s\"' %s/%s/step-00000012/config.json", name, data, name);
        CHECK(code == 0, "config.json has another kind");
    }
    train_tiny(data, "parts", "--attn=diff-laser --heads=4 --lr=0.02 --save-every=7", output, sizeof output);
    test_command(output, sizeof output, "rm -r %s/parts/step-00000012", data);
    const int code = train_tiny(data, "parts", "--attn=diff-laser --heads=4 --lr=0.02 --resume=auto", output,
                                sizeof output);
    CHECK(code == 0 && strstr(output, "step-00000007"), "exit %d: %s", code, output);
    check_same_run(data, "diff-laser", "parts");
}

/* What cannot be computed must be refused before anything is trained, in words that say what to do. */
static void test_diff_says_what_it_cannot(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    int code = train_tiny(data, "run", "--attn=diff --heads=4", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    train_tiny(data, "standard", "--heads=4", output, sizeof output);
    const struct {
        const char *name, *arguments, *says;
        int code;
    } cases[] = {
        {"a", "--attn=diff --heads=3", "(--heads) is 3: --attn=diff subtracts the second head of each pair",
         2},
        {"a", "--attn=diff-laser --heads=1", "expected an even number", 2},
        {"a", "--attn=diff-laser --heads=4 --laser-beta=2",
         "(--laser-beta) is 2; with --attn=diff-laser only 1", 2},
        {"a", "--attn=diff-laser --heads=4 --laser-shift=none",
         "(--laser-shift) is none; with --attn=diff-laser", 2},
        {"a", "--attn=diff --heads=4 --analyze-every=3",
         "--analyze-every=3 is not available with --attn=diff", 2},
        {"run", "--attn=diff-laser --heads=4 --resume=auto", "--attn is diff-laser, but", 1},
        {"run", "--attn=standard --heads=4 --resume=auto", "--attn is standard, but", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        code = train_tiny(data, cases[i].name, cases[i].arguments, output, sizeof output);
        CHECK(code == cases[i].code && strstr(output, cases[i].says), "%s: exit %d: %s", cases[i].arguments,
              code, output);
    }
    const char *const from[][2] = {{"standard", "diff"}, {"run", "laser"}};
    for (int i = 0; i < 2; i++) { /* the weights of one do not fit the other */
        char arguments[400];
        snprintf(arguments, sizeof arguments, "--heads=4 --attn=%s --init-from=%s/%s", from[i][1], data,
                 from[i][0]);
        code = train_tiny(data, "b", arguments, output, sizeof output);
        CHECK(code == 2 && strstr(output, "--attn=") && strstr(output, "leave it out"), "%s: exit %d: %s",
              arguments, code, output);
    }
    code = test_command(output, sizeof output, "%s/analyze %s/run", test_binaries(), data);
    CHECK(code == 1 &&
              strstr(output, "has diff attention, and only standard and laser attention can be analyzed"),
          "exit %d: %s", code, output);
    code = test_command(output, sizeof output,
                        "%s/build/train_gpt_emulated " TINY_RUN "--data=%s --attn=diff --heads=4",
                        test_binaries(), data);
    CHECK(code == 127 || (code == 2 && strstr(output, "--attn=diff is not available on a GPU")),
          "exit %d: %s", code, output);
}

#define DIFF_TESTS(TEST)                                                                                     \
    TEST(diff_matches_float64)                                                                               \
    TEST(diff_starts_as_the_paper_says)                                                                      \
    TEST(diff_gives_the_same_bits)                                                                           \
    TEST(diff_trains)                                                                                        \
    TEST(diff_says_what_it_cannot)

#endif
