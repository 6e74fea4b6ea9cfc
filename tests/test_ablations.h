/* test_ablations.h: tests of the options of docs/ablations.md that change attention: their formulas in float64, their
   gradients, their limits, what a checkpoint says about them, and what the GPU refuses. */
#ifndef TESTS_TEST_ABLATIONS_H
#define TESTS_TEST_ABLATIONS_H

#include "harness.h"
#include "test_layers.h"
#include "test_train.h"

enum { ABLATED_B = 2, ABLATED_T = 7, ABLATED_H = 3, ABLATED_D = 4 };
enum {
    ABLATED_N = ABLATED_B * ABLATED_T,
    ABLATED_A = ABLATED_H * ABLATED_D,
    ABLATED_IN = 3 * ABLATED_N * ABLATED_A,
    ABLATED_OUT = ABLATED_N * ABLATED_A
};

/* One attention with its ablations; the arrays in double are those of the twin. */
typedef struct {
    const char *name;
    AttentionKind kind;
    AttentionAblations ablations;
    bool bf16;
    double softcap;
    double spread; /* of the values; 0 means 1 */
    double *qkv, *dout, *scale;
} Ablated;

static const AttentionShape ablated_shape = {.B = ABLATED_B,
                                             .T = ABLATED_T,
                                             .H = ABLATED_H,
                                             .D = ABLATED_D,
                                             .qkv_row = 3 * ABLATED_A,
                                             .out_row = ABLATED_A,
                                             .dtype = DTYPE_FP32};

/* What LASER reads in place of v. */
static double ablated_value(const Ablated *x, double v) {
    return (double)x->ablations.beta * (x->ablations.clamped ? 15 * tanh(v / 15) : v);
}

/* What element d of a head's q is multiplied by. */
static double ablated_factor(const Ablated *x, int h, int d) {
    if (!x->scale) return 1;
    return log(1 + exp(x->scale[x->ablations.scale_of_dimensions ? d : h])) / log(2);
}

/* Row i of head h, whose q begins at `head` in x->qkv: a (T) = its attention weights. */
static void ablated_weights(double *a, const Ablated *x, const double *head, int h, int i) {
    double sum = 0;
    for (int j = 0; j <= i; j++) {
        const double *q = head + i * 3 * ABLATED_A, *k = head + j * 3 * ABLATED_A + ABLATED_A;
        a[j] = 0;
        for (int d = 0; d < ABLATED_D; d++) a[j] += ablated_factor(x, h, d) * q[d] * k[d] / sqrt(ABLATED_D);
        if (x->softcap > 0) a[j] = x->softcap * tanh(a[j] / x->softcap);
        sum += a[j] = exp(a[j]);
    }
    for (int j = 0; j <= i; j++) a[j] /= sum;
}

/* The formulas of docs/ablations.md, in double: out (N, A). */
static void ablated_twin(double *out, const Ablated *x) {
    double a[ABLATED_T];
    for (int row = 0; row < ABLATED_B * ABLATED_H * ABLATED_T; row++) {
        const int i = row % ABLATED_T, h = row / ABLATED_T % ABLATED_H, b = row / ABLATED_T / ABLATED_H;
        const double *head = x->qkv + b * ABLATED_T * 3 * ABLATED_A + h * ABLATED_D;
        double *o = out + (b * ABLATED_T + i) * ABLATED_A + h * ABLATED_D;
        ablated_weights(a, x, head, h, i);
        for (int d = 0; d < ABLATED_D; d++) {
            o[d] = 0;
            for (int j = 0; j <= i; j++) {
                const double v = head[j * 3 * ABLATED_A + 2 * ABLATED_A + d];
                o[d] += x->kind == ATTENTION_LASER ? a[j] * exp(ablated_value(x, v)) : a[j] * v;
            }
            if (x->kind == ATTENTION_LASER) o[d] = log(o[d]) / (double)x->ablations.beta;
        }
    }
}

static double ablated_loss(void *context) {
    const Ablated *x = context;
    double out[ABLATED_OUT], sum = 0;
    ablated_twin(out, x);
    for (int i = 0; i < ABLATED_OUT; i++) sum += out[i] * x->dout[i];
    return sum;
}

/* In float32 exp(beta v), which is near 1, keeps fewer digits of v the smaller beta is. */
static double ablated_bound(const Ablated *x) {
    return x->bf16 ? 1e-4 : x->ablations.beta < 0.1f ? 1e-9 : 1e-10;
}

/* Of dqkv (N, 3A) the part 0 q, 1 k or 2 v against the finite differences `want`. */
static void check_ablated_part(const Ablated *x, const float *dqkv, const double *want, int part) {
    float got[ABLATED_OUT];
    double expected[ABLATED_OUT];
    char what[128];
    for (int i = 0; i < ABLATED_OUT; i++) {
        const int at = (i / ABLATED_A * 3 + part) * ABLATED_A + i % ABLATED_A;
        got[i] = dqkv[at], expected[i] = want[at] * (part < 2 ? (double)x->ablations.grad_scale : 1);
    }
    snprintf(what, sizeof what, "%s, %s: d%c", x->name, attention_name(x->kind), "qkv"[part]);
    CHECK_NMSE(got, expected, ABLATED_OUT, ablated_bound(x), what);
}

static void check_ablated(Ablated *x) {
    AttentionShape shape = ablated_shape;
    const AttentionShape *s = &shape;
    if (x->bf16) shape.dtype = DTYPE_BF16;
    shape.softcap = (float)x->softcap;
    float *qkv = test_normal(ABLATED_IN, 1, 1), *dout = test_normal(ABLATED_OUT, 1, 2);
    float out[ABLATED_OUT], lse[ABLATED_N * ABLATED_H], dqkv[ABLATED_IN];
    double want[ABLATED_OUT], dwant[ABLATED_IN], dscale_want[ABLATED_D];
    float dscale[ABLATED_D] = {0};
    const int scales = x->ablations.scale_of_dimensions ? ABLATED_D : ABLATED_H;
    for (int i = 0; i < ABLATED_IN; i++)
        if (x->spread && i / ABLATED_A % 3 == 2) qkv[i] *= (float)x->spread;
    x->qkv = test_to_double(qkv, ABLATED_IN), x->dout = test_to_double(dout, ABLATED_OUT);
    x->scale = x->ablations.scale ? test_to_double(x->ablations.scale, (size_t)scales) : NULL;
    ablated_twin(want, x);
    test_finite_differences(dwant, x->qkv, ABLATED_IN, ablated_loss, x);

    float *q = qkv, *k = q + ABLATED_A, *v = k + ABLATED_A;
    ablations_before(&x->ablations, qkv, s);
    attention_forward(x->kind, out, lse, q, k, v, s);
    ablations_after(&x->ablations, 0, out, qkv, s);
    CHECK_NMSE(out, want, ABLATED_OUT, ablated_bound(x), x->name);
    ablations_after_backward(&x->ablations, dout, out, s);
    attention_backward(x->kind, dqkv, dqkv + ABLATED_A, dqkv + 2 * ABLATED_A, dout, q, k, v, out, lse, s);
    ablations_before_backward(&x->ablations, dqkv, dscale, qkv, s);
    for (int part = 0; part < 3; part++) check_ablated_part(x, dqkv, dwant, part);
    if (x->scale) {
        test_finite_differences(dscale_want, x->scale, (size_t)scales, ablated_loss, x);
        for (int i = 0; i < scales; i++) dscale_want[i] *= (double)x->ablations.grad_scale;
        CHECK_NMSE(dscale, dscale_want, (size_t)scales, 1e-10, x->name);
        ablations_before_backward(&x->ablations, dqkv, dscale, qkv, s); /* += */
        CHECK(test_nmse(dscale, dscale_want, (size_t)scales) > 0.1, "%s: dscale is not added to", x->name);
    }
    free(qkv), free(dout), free(x->qkv), free(x->dout), free(x->scale);
}

/* A wrong formula would be trained as if it were the one of the paper that the user compares with, and a wrong gradient
   would make any of them look bad. */
static void test_ablations_match_float64(void) {
    static const float scale[ABLATED_D] = {0.3f, -2, 4, -0.5f};
    Ablated cases[] = {
        {.name = "softcap 1", .kind = ATTENTION_STANDARD, .softcap = 1},
        {.name = "softcap 0.5, beta 2, scale of heads",
         .kind = ATTENTION_LASER,
         .ablations = {.beta = 2, .scale = scale},
         .softcap = 0.5},
        {.name = "gradient times 3", .kind = ATTENTION_STANDARD, .ablations = {.grad_scale = 3}},
        {.name = "gradient times 0.25, scale of heads, clamp, beta 2",
         .kind = ATTENTION_LASER,
         .ablations = {.grad_scale = 0.25f, .scale = scale, .clamped = true, .beta = 2}},
        {.name = "beta 3", .kind = ATTENTION_LASER, .ablations = {.beta = 3}},
        {.name = "beta 0.1", .kind = ATTENTION_LASER, .ablations = {.beta = 0.1f}},
        {.name = "beta 0.01", .kind = ATTENTION_LASER, .ablations = {.beta = 0.01f}},
        {.name = "beta 0.01 in bf16", .kind = ATTENTION_LASER, .ablations = {.beta = 0.01f}, .bf16 = true},
        {.name = "beta 3 in bf16", .kind = ATTENTION_LASER, .ablations = {.beta = 3}, .bf16 = true},
        {.name = "beta 2, clamp",
         .kind = ATTENTION_LASER,
         .ablations = {.beta = 2, .clamped = true},
         .spread = 12},
        {.name = "scale of heads", .kind = ATTENTION_LASER, .ablations = {.scale = scale}},
        {.name = "scale of dimensions",
         .kind = ATTENTION_STANDARD,
         .ablations = {.scale = scale, .scale_of_dimensions = true}},
        {.name = "scale of dimensions, clamp",
         .kind = ATTENTION_LASER,
         .ablations = {.scale = scale, .scale_of_dimensions = true, .clamped = true}},
        {.name = "none of them", .kind = ATTENTION_LASER},
        {.name = "clamp", .kind = ATTENTION_LASER, .ablations = {.clamped = true}},
        {.name = "clamp of large values",
         .kind = ATTENTION_LASER,
         .ablations = {.clamped = true},
         .spread = 12},
        {.name = "no shift", .kind = ATTENTION_LASER, .ablations = {.unshifted = true}, .spread = 12},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].ablations.beta == 0) cases[i].ablations.beta = 1;
        if (cases[i].ablations.grad_scale == 0) cases[i].ablations.grad_scale = 1;
        check_ablated(&cases[i]);
    }
}

/* out (N, A) of attention on random q, k and v. */
static void ablated_forward(float *out, AttentionKind kind, const AttentionAblations *x) {
    float *qkv = test_normal(ABLATED_IN, 1, 1);
    ablations_before(x, qkv, &ablated_shape);
    attention_forward(kind, out, NULL, qkv, qkv + ABLATED_A, qkv + 2 * ABLATED_A, &ablated_shape);
    ablations_after(x, 0, out, qkv, &ablated_shape);
    free(qkv);
}

/* Towards beta = 0 LASER is standard attention, from which it differs by about beta / 2 times the variance of v. */
static void test_laser_beta_leads_to_standard_attention(void) {
    const AttentionAblations large = {.beta = 0.1f}, small = {.beta = 0.01f};
    float standard[ABLATED_OUT], far[ABLATED_OUT], near[ABLATED_OUT];
    ablated_forward(standard, ATTENTION_STANDARD, &(AttentionAblations){.beta = 1});
    ablated_forward(far, ATTENTION_LASER, &large);
    ablated_forward(near, ATTENTION_LASER, &small);
    double *want = test_to_double(standard, ABLATED_OUT);
    const double far_error = sqrt(test_nmse(far, want, ABLATED_OUT)),
                 near_error = sqrt(test_nmse(near, want, ABLATED_OUT));
    CHECK(far_error > 1e-2 && near_error < 1e-2, "beta 0.1 differs by %g, 0.01 by %g", far_error, near_error);
    CHECK(fabs(far_error / near_error - 10) < 0.5, "a tenth of beta differs by 1 / %g as much",
          far_error / near_error);
    free(want);
}

/* ---- --qk-norm ---- */

static void qk_norm_twin(void *context) {
    Twin *t = context;
    for (size_t i = 0; i < t->n; i++) t->out[i] = t->a[i];
    for (int row = 0; row < ABLATED_N * 2 * ABLATED_H; row++) {
        const int head = row % (2 * ABLATED_H), at = row / (2 * ABLATED_H) * 3 * ABLATED_A + head * ABLATED_D;
        double squares = 0;
        for (int d = 0; d < ABLATED_D; d++) squares += t->a[at + d] * t->a[at + d];
        for (int d = 0; d < ABLATED_D; d++)
            t->out[at + d] =
                t->a[at + d] / sqrt(squares / ABLATED_D + 1e-6) * t->b[head < ABLATED_H ? d : ABLATED_D + d];
    }
}

/* A wrong gradient here would reach Wq and Wk of every layer. */
static void test_qk_norm_matches_float64(void) {
    enum { D = ABLATED_D };
    float *x = test_normal(ABLATED_IN, 2, 1), *weights = test_normal(2 * D, 1, 2),
          *dout = test_normal(ABLATED_IN, 1, 3);
    float out[ABLATED_IN], dx[ABLATED_IN], dweights[2 * D];
    uint16_t halves[ABLATED_IN];
    double want[ABLATED_IN];
    Twin twin = {test_to_double(x, ABLATED_IN),
                 test_to_double(weights, 2 * D),
                 want,
                 test_to_double(dout, ABLATED_IN),
                 ABLATED_IN,
                 NULL,
                 0,
                 qk_norm_twin};
    qk_norm_forward(out, x, weights, weights + D, &ablated_shape);
    qk_norm_twin(&twin);
    CHECK_NMSE(out, want, ABLATED_IN, 1e-13, "out");
    memcpy(dx, dout, sizeof dx);
    for (int i = 0; i < 2 * D; i++) dweights[i] = 1; /* this gradient must be added to what is there */
    qk_norm_backward(array_of_bf16(halves), dx, dweights, dweights + D, x, weights, weights + D,
                     &ablated_shape);
    for (int i = 0; i < 2 * D; i++) dweights[i] -= 1;
    check_gradient("dx", dx, twin.a, ABLATED_IN, &twin);
    check_gradient("dweights", dweights, twin.b, 2 * D, &twin);
    for (int i = 0; i < ABLATED_IN; i++)
        CHECK(halves[i] == bf16_from_float(dx[i]), "dx[%d] in bfloat16 is %g, in float32 %g", i,
              (double)float_from_bf16(halves[i]), (double)dx[i]);
    free(x), free(weights), free(dout), free(twin.a), free(twin.b), free(twin.dout);
}

/* ---- --laser-shift=none ---- */

/* LASER without a shift on values that are all `value`, except that two tokens have 0 and 88.7, which exp can take. */
static void laser_without_shift(void *value) {
    const AttentionShape *s = &ablated_shape;
    const AttentionAblations ablations = {.unshifted = true, .beta = 1};
    threads_set(1); /* a child of test_death has no threads but one */
    float qkv[ABLATED_IN] = {0}, out[ABLATED_OUT];
    for (int n = 0; n < ABLATED_N; n++)
        for (int i = 0; i < ABLATED_A; i++) qkv[(3 * n + 2) * ABLATED_A + i] = n == 8 ? 88.7f : 0;
    qkv[(3 * 7 + 2) * ABLATED_A + 1 * ABLATED_D + 2] =
        *(const float *)value; /* the second sequence's token 0 */
    attention_forward(ATTENTION_LASER, out, NULL, qkv, qkv + ABLATED_A, qkv + 2 * ABLATED_A, s);
    ablations_after(&ablations, 3, out, qkv, s);
}

/* Where exp overflows the run must end and say where; "loss nan" would not tell the user what the ablation shows. */
static void test_laser_without_shift_ends_in_words(void) {
    static const struct {
        float value;
        const char *says;
    } cases[] = {
        {88.72f, NULL},
        {88.73f,
         "layer 3, head 1: a value is 88.73 (token 0 of a sequence, dimension 2): without a shift exp of a "
         "value above 88.72 is infinite in float32; --laser-shift=causal"},
        {INFINITY, "a value is inf"},
        {-103.9f, NULL},
        {-104, "layer 3, head 1: the logarithm of a row is -104 (token 0 of a sequence, dimension 2): "
               "without a shift "
               "a sum of exponentials below exp(-103.97) is 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char output[1024];
        float value = cases[i].value;
        const int code = test_death(laser_without_shift, &value, output, sizeof output);
        CHECK(code == (cases[i].says ? 1 : 0), "%g: exit %d: %s", (double)value, code, output);
        CHECK(!cases[i].says || strstr(output, cases[i].says), "%g: %s", (double)value, output);
    }
}

/* While no exponential overflows a shift changes nothing, so the runs must agree in every bit; and a run in which one
   does overflow must end with the layer's number and not as a diverged run. */
static void test_laser_without_shift_trains_until_exp_overflows(void) {
    char output[8192], data[256];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const char *runs[][2] = {{"causal", "--attn=laser"}, {"none", "--attn=laser --laser-shift=none"}};
    for (int i = 0; i < 2; i++) {
        const int code = train_tiny(data, runs[i][0], runs[i][1], output, sizeof output);
        REQUIRE(code == 0, "%s: exit %d: %s", runs[i][1], code, output);
    }
    check_same_curve(data, "causal", "none");
    const int code = train_tiny(data, "far", "--attn=laser --laser-shift=none --lr=10 --warmup=0 --clip=0",
                                output, sizeof output);
    CHECK(code == 1 && strstr(output, "error: layer ") && strstr(output, "without a shift"), "exit %d: %s",
          code, output);
}

/* ---- the whole model ---- */

#define ABLATED_MODEL                                                                                        \
    "--attn=laser --laser-shift=clamp --qk-norm=yes --attn-scale=dim --laser-beta=1.5 --attn-softcap=2 "     \
    "--attn-grad-scale=2 "

/* The same seed must give the weights that two models share the same initial values, or a comparison of the two would
   also compare two initial values. */
static void test_ablations_keep_the_initial_weights(void) {
    const char *data = write_test_data(600);
    TestRun *plain = test_run_open(data, "--attn=laser"), *ablated = test_run_open(data, ABLATED_MODEL);
    const Model *a = &plain->trainer.model, *b = &ablated->trainer.model;
    int shared = 0;
    for (int i = 0; i < a->parameters.count; i++)
        for (int j = 0; j < b->parameters.count; j++) {
            const Tensor *x = &a->parameters.tensors[i], *y = &b->parameters.tensors[j];
            if (strcmp(x->name, y->name) != 0) continue;
            shared++;
            CHECK(memcmp(a->weights.memory + x->offset, b->weights.memory + y->offset,
                         x->count * sizeof(float)) == 0,
                  "%s has other initial values", x->name);
        }
    CHECK(shared == a->parameters.count && b->parameters.count == shared + 3 * 2, "%d of %d and %d tensors",
          shared, a->parameters.count, b->parameters.count);
    test_run_close(plain), test_run_close(ablated);
}

/* --attn-grad-scale must multiply the gradients of Wq and Wk, and in the last layer no other; with 0 the two must get
   none. */
static void test_attn_grad_scale_multiplies_two_gradients(void) {
    static const char *const arguments[] = {"--attn=laser --layers=1",
                                            "--attn=laser --layers=1 --attn-grad-scale=8",
                                            "--attn=laser --layers=1 --attn-grad-scale=0"};
    static const float factors[] = {1, 8, 0};
    const char *data = write_test_data(600);
    float *first = NULL;
    for (int run = 0; run < 3; run++) {
        TestRun *opened = test_run_open(data, arguments[run]);
        Trainer *t = &opened->trainer;
        micro_step(t, 0);
        const Weights *g = &t->model.gradients;
        const size_t size = (size_t)t->model.config.embd * 18; /* A C */
        if (run == 0)
            first = memcpy(check_calloc(g->count * sizeof *first), g->memory, g->count * sizeof *first);
        const float *was = first + (g->layers[0].q - g->memory);
        for (size_t i = 0; i < 4 * size; i++) { /* q, k, v and o follow one another */
            const float want = was[i] * (i < 2 * size ? factors[run] : 1);
            CHECK(fabsf(g->layers[0].q[i] - want) <= 1e-5f * fabsf(want),
                  "%s: gradient %zu of q, k, v and o is %g, "
                  "expected %g",
                  arguments[run], i, (double)g->layers[0].q[i], (double)want);
        }
        test_run_close(opened);
    }
    free(first);
}

/* The number of threads, and --recompute, must not change one bit. */
static void test_ablations_give_the_same_bits(void) {
    const char *data = write_test_data(600);
    check_same_bits(data, ABLATED_MODEL "--warmup=2 --dtype=fp32");
    check_same_bits(data, ABLATED_MODEL "--warmup=2 --dtype=bf16");
}

/* A tool must compute the model that was trained: its loss from the checkpoint must be the one that the run logged. */
static void test_checkpoints_say_what_is_ablated(void) {
    char output[8192], data[256], folder[512], log[512];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    const int code = train_tiny(data, "run", ABLATED_MODEL "--dtype=fp32 --lr=0.02", output, sizeof output);
    REQUIRE(code == 0, "exit %d: %s", code, output);
    CHECK(strstr(output, "ablations  --laser-shift=clamp --qk-norm=yes --attn-scale=dim --laser-beta=1.5 "
                         "--attn-softcap=2 --attn-grad-scale=2\n"),
          "%s", output);
    snprintf(folder, sizeof folder, "%s/run/step-00000012", data);
    snprintf(log, sizeof log, "%s/run/log.jsonl", data);
    Model model = model_load(folder, 1, DTYPE_FP32);
    const int T = model.config.seq_len, windows = (200 + T - 1) / T;
    int32_t inputs[64], targets[64];
    double sum = 0;
    Dataset val;
    dataset_open(&val, data, "val_", T, TEST_VOCAB);
    for (int w = 0; w < windows; w++) {
        dataset_window(&val, (uint64_t)w, inputs, targets);
        model_forward(&model, inputs, 1, T);
        sum += model_loss(&model, targets, T, 0);
    }
    char want[32], line[64];
    snprintf(want, sizeof want, "%.4f", sum / (windows * T));
    test_command(output, sizeof output, "grep val_loss %s | tail -n 1", log);
    snprintf(line, sizeof line, "\"val_loss\": %.5s", want);
    CHECK(strstr(output, line), "the checkpoint's loss is %s, the run logged %s", want, output);
    dataset_close(&val);
    model_free(&model);
}

/* ---- options ---- */

/* Every option that the GPU's program does not compute must be refused by name before the run starts. */
static void test_ablations_are_refused_on_a_gpu(void) {
    static const char *const options[] = {
        "laser-shift=none", "laser-shift=clamp", "qk-norm=yes",     "attn-scale=head", "attn-scale=dim",
        "laser-beta=0.5",   "attn-grad-scale=0", "attn-softcap=50", "attn=diff",       "attn=diff-laser"};
    char output[8192], data[256], path[300], says[128];
    snprintf(data, sizeof data, "%s", write_test_data(600));
    snprintf(path, sizeof path, "%s/build/train_gpt_emulated", test_binaries());
    if (access(path, X_OK) != 0) {
        test_not_run("there is no build/train_gpt_emulated");
        return;
    }
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        const int code =
            test_command(output, sizeof output, "%s " TINY_RUN "--data=%s --%s", path, data, options[i]);
        snprintf(says, sizeof says, "--%s is not available on a GPU", options[i]);
        CHECK(code == 2 && strstr(output, says), "--%s: exit %d: %s", options[i], code, output);
    }
}

#define ABLATIONS_TESTS(TEST)                                                                                \
    TEST(ablations_match_float64)                                                                            \
    TEST(qk_norm_matches_float64)                                                                            \
    TEST(laser_beta_leads_to_standard_attention)                                                             \
    TEST(ablations_keep_the_initial_weights)                                                                 \
    TEST(attn_grad_scale_multiplies_two_gradients)                                                           \
    TEST(ablations_give_the_same_bits)                                                                       \
    TEST(checkpoints_say_what_is_ablated)                                                                    \
    TEST(laser_without_shift_ends_in_words)                                                                  \
    TEST(laser_without_shift_trains_until_exp_overflows)                                                     \
    TEST(ablations_are_refused_on_a_gpu)

#endif
