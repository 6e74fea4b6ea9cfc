/* test_layers.h: tests of the layers in train_gpt.c: each forward against a naive float64 twin, each backward against
   the finite differences of that twin, at sizes that are no multiple of a block or vector. */
#ifndef TESTS_TEST_LAYERS_H
#define TESTS_TEST_LAYERS_H

#include "harness.h"

enum { LAYER_N = 10, LAYER_T = 5, LAYER_C = 19, LAYER_V = 37, LAYER_H = 3, LAYER_D = 6 };

/* What a naive twin reads and writes: up to two inputs, an output (n), and the weights of the loss sum(out * dout),
   (n). */
typedef struct {
    double *a, *b, *out, *dout;
    size_t n;
    const int32_t *tokens;
    int kind;
    void (*forward)(void *);
} Twin;

static double twin_loss(void *context) {
    Twin *t = context;
    double sum = 0;
    t->forward(t);
    for (size_t i = 0; i < t->n; i++) sum += t->out[i] * t->dout[i];
    return sum;
}

static void check_gradient(const char *what, const float *got, double *x, size_t n, Twin *twin) {
    double *want = check_calloc(n * sizeof *want);
    test_finite_differences(want, x, n, twin_loss, twin);
    CHECK_NMSE(got, want, n, 1e-11, what);
    free(want);
}

/* The activation functions and cross-entropy use this exponential: its error is in every loss. */
static void test_exp_fast_is_exact_to_3_ulp(void) {
    double worst = 0, at = 0;
    for (int i = -870000; i <= 600000; i++) {
        float x = (float)i * 1e-4f;
        double want = exp((double)x), ulp = fabs(exp_fast(x) - want) / (want * 0x1p-23);
        if (ulp > worst) worst = ulp, at = x;
    }
    CHECK(worst < 3, "%.2f ulp at %g", worst, at);
    CHECK(exp_fast(0) == 1.0f, "exp(0) = %.9g", exp_fast(0));
    CHECK(isfinite(exp_fast(1e30f)) && exp_fast(-1e30f) < 1e-37f, "clamped: %g %g", exp_fast(1e30f),
          exp_fast(-1e30f));
}

static const int32_t layer_tokens[LAYER_N] = {3, 0, 36, 3, 3, 7, 36, 1, 0, 12};

#define EMBEDDING_SCALE 2.5f

static void embedding_twin(void *context) {
    Twin *t = context;
    for (int n = 0; n < LAYER_N; n++)
        for (int c = 0; c < LAYER_C; c++)
            t->out[n * LAYER_C + c] =
                (double)EMBEDDING_SCALE * t->a[t->tokens[n] * LAYER_C + c] + t->b[n % LAYER_T * LAYER_C + c];
}

/* A wrong embedding, or a wrong gradient of it, would spoil the input of the whole model. */
static void test_embedding_matches_float64(void) {
    enum { SIZE = LAYER_N * LAYER_C };
    float *embed = test_normal(LAYER_V * LAYER_C, 1, 1), *position = test_normal(LAYER_T * LAYER_C, 1, 2);
    float *dout = test_normal(SIZE, 1, 3), out[SIZE], dembed[LAYER_V * LAYER_C] = {0},
          dposition[LAYER_T * LAYER_C] = {0};
    double want[SIZE];
    Twin twin = {test_to_double(embed, LAYER_V * LAYER_C),
                 test_to_double(position, LAYER_T * LAYER_C),
                 want,
                 test_to_double(dout, SIZE),
                 SIZE,
                 layer_tokens,
                 0,
                 embedding_twin};
    embedding_forward(out, layer_tokens, embed, EMBEDDING_SCALE, position, LAYER_N, LAYER_T, LAYER_C);
    embedding_twin(&twin);
    CHECK_NMSE(out, want, SIZE, 1e-13, "out");
    embedding_backward(dembed, dposition, dout, layer_tokens, EMBEDDING_SCALE, LAYER_N, LAYER_T, LAYER_C);
    check_gradient("dembed", dembed, twin.a, LAYER_V * LAYER_C, &twin);
    check_gradient("dposition", dposition, twin.b, LAYER_T * LAYER_C, &twin);
    embedding_backward(dembed, dposition, dout, layer_tokens, EMBEDDING_SCALE, LAYER_N, LAYER_T,
                       LAYER_C); /* += */
    for (int i = 0; i < LAYER_V * LAYER_C; i++) dembed[i] /= 2;
    check_gradient("dembed added twice", dembed, twin.a, LAYER_V * LAYER_C, &twin);
    free(embed), free(position), free(dout), free(twin.a), free(twin.b), free(twin.dout);
}

static void rmsnorm_twin(void *context) {
    Twin *t = context;
    for (size_t n = 0; n < t->n / LAYER_C; n++) {
        double squares = 0;
        for (int c = 0; c < LAYER_C; c++) squares += t->a[n * LAYER_C + c] * t->a[n * LAYER_C + c];
        for (int c = 0; c < LAYER_C; c++)
            t->out[n * LAYER_C + c] =
                t->a[n * LAYER_C + c] / sqrt(squares / LAYER_C + 1e-6) * t->b[c] + t->b[LAYER_C + c];
    }
}

static void layernorm_twin(void *context) {
    Twin *t = context;
    for (size_t n = 0; n < t->n / LAYER_C; n++) {
        const double *row = t->a + n * LAYER_C;
        double mean = 0, variance = 0;
        for (int c = 0; c < LAYER_C; c++) mean += row[c] / LAYER_C;
        for (int c = 0; c < LAYER_C; c++) variance += (row[c] - mean) * (row[c] - mean) / LAYER_C;
        for (int c = 0; c < LAYER_C; c++)
            t->out[n * LAYER_C + c] = (row[c] - mean) / sqrt(variance + 1e-6) * t->b[c] + t->b[LAYER_C + c];
    }
}

static void crmsnorm_twin(void *context) {
    Twin *t = context;
    for (size_t n = 0; n < t->n / LAYER_C; n++) {
        const double *row = t->a + n * LAYER_C;
        double sum = 0, squares = 0;
        for (int c = 0; c < LAYER_C; c++) sum += row[c], squares += row[c] * row[c];
        for (int c = 0; c < LAYER_C; c++)
            t->out[n * LAYER_C + c] =
                row[c] / sqrt((squares + sum * sum) / (LAYER_C + 1) + 1e-6) * t->b[c] + t->b[LAYER_C + c];
    }
}

/* A wrong gradient of a norm would reach every layer below it. */
static void check_norm(int kind, void (*forward)(void *)) {
    enum { N = 2 * NORM_CHUNK + 3, SIZE = N * LAYER_C };
    float *x = test_normal(SIZE, 2, 1), *weight = test_normal(2 * LAYER_C, 1, 2),
          *dout = test_normal(SIZE, 1, 3);
    float *bias = weight + LAYER_C; /* b of the twin is both */
    float out[SIZE], again[SIZE], rstd[N], dx[SIZE], dweight[2 * LAYER_C], partial[3 * LAYER_C];
    double want[SIZE];
    Twin twin = {test_to_double(x, SIZE),
                 test_to_double(weight, 2 * LAYER_C),
                 want,
                 test_to_double(dout, SIZE),
                 SIZE,
                 NULL,
                 0,
                 forward};
    for (int i = 0; i < SIZE; i++) twin.a[i] = x[i] += 3; /* a mean, which layernorm removes */
    norm_forward(array_of_floats(out), rstd, x, weight, bias, kind, 1e-6f, N, LAYER_C);
    forward(&twin);
    CHECK_NMSE(out, want, SIZE, 1e-13, "out");
    norm_recompute(array_of_floats(again), rstd, x, weight, bias, kind, N, LAYER_C);
    CHECK(memcmp(out, again, sizeof out) == 0, "done again it has other bits");
    for (int i = 0; i < SIZE; i++) dx[i] = 1; /* both gradients must be added to what is there */
    for (int c = 0; c < 2 * LAYER_C; c++) dweight[c] = 1;
    norm_backward(dx, dweight, dweight + LAYER_C, partial, dout, x, rstd, weight, kind, N, LAYER_C);
    for (int i = 0; i < SIZE; i++) dx[i] -= 1;
    for (int c = 0; c < 2 * LAYER_C; c++) dweight[c] -= 1;
    check_gradient("dx", dx, twin.a, SIZE, &twin);
    check_gradient("dweight and dbias", dweight, twin.b, 2 * LAYER_C, &twin);
    free(x), free(weight), free(dout), free(twin.a), free(twin.b), free(twin.dout);
}

static void test_rmsnorm_matches_float64(void) { check_norm(NORM_RMSNORM, rmsnorm_twin); }
static void test_layernorm_matches_float64(void) { check_norm(NORM_LAYERNORM, layernorm_twin); }
static void test_crmsnorm_matches_float64(void) { check_norm(NORM_CRMSNORM, crmsnorm_twin); }

/* Jiang et al. 2023: for rows without a mean LayerNorm is RMSNorm, and CRMSNorm of a row without its last element gives
   the other elements of both. */
static void test_norms_agree_where_the_mean_is_zero(void) {
    enum { N = 7, C = LAYER_C };
    float *x = test_normal(N * C, 2, 1), shorter[N * (C - 1)], ones[C], rstd[N];
    float rms[N * C], layer[N * C], compressed[N * (C - 1)];
    for (int c = 0; c < C; c++) ones[c] = 1;
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int c = 0; c < C - 1; c++) sum += shorter[n * (C - 1) + c] = x[n * C + c];
        x[n * C + C - 1] = (float)-sum;
    }
    norm_forward(array_of_floats(rms), rstd, x, ones, NULL, NORM_RMSNORM, 1e-6f, N, C);
    norm_forward(array_of_floats(layer), rstd, x, ones, NULL, NORM_LAYERNORM, 1e-6f, N, C);
    norm_forward(array_of_floats(compressed), rstd, shorter, ones, NULL, NORM_CRMSNORM, 1e-6f, N, C - 1);
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++) {
            const float *want = &rms[n * C + c];
            CHECK(fabsf(layer[n * C + c] - *want) < 2e-6f, "row %d, %d: layernorm %.9g, rmsnorm %.9g", n, c,
                  (double)layer[n * C + c], (double)*want);
            if (c == C - 1) continue;
            CHECK(fabsf(compressed[n * (C - 1) + c] - *want) < 2e-6f,
                  "row %d, %d: crmsnorm %.9g, rmsnorm %.9g", n, c, (double)compressed[n * (C - 1) + c],
                  (double)*want);
        }
    free(x);
}

static void rope_twin(void *context) { /* Hugging Face's form: x cos + rotate_half(x) sin */
    Twin *t = context;
    const int A = LAYER_H * LAYER_D;
    memcpy(t->out, t->a, t->n * sizeof *t->out);
    for (int n = 0; n < LAYER_N; n++)
        for (int head = 0; head < 2 * LAYER_H; head++)
            for (int d = 0; d < LAYER_D; d++) {
                const double *x = t->a + n * 3 * A + head * LAYER_D;
                double angle = n % LAYER_T * pow(10000, -2.0 * (d % (LAYER_D / 2)) / LAYER_D);
                double rotated = d < LAYER_D / 2 ? -x[d + LAYER_D / 2] : x[d - LAYER_D / 2];
                t->out[n * 3 * A + head * LAYER_D + d] = x[d] * cos(angle) + rotated * sin(angle);
            }
}

/* Another pairing of the elements of a head than Hugging Face's would make exported models give nonsense there. */
static void test_rope_matches_float64(void) {
    enum { SIZE = LAYER_N * 3 * LAYER_H * LAYER_D };
    ModelConfig config = {.layers = 1,
                          .norm_eps = 1e-6,
                          .rope_theta = 10000,
                          .heads = LAYER_H,
                          .head_dim = LAYER_D,
                          .embd = 4,
                          .mlp_hidden = 4,
                          .seq_len = LAYER_T,
                          .vocab_size = 4,
                          .position = POSITION_ROPE};
    Model model = model_plan(&config, 1);
    model_allocate(&model);
    float *x = test_normal(SIZE, 1, 1), *dout = test_normal(SIZE, 1, 2);
    double want[SIZE];
    uint16_t halves[SIZE];
    Twin twin = {test_to_double(x, SIZE), NULL, want, test_to_double(dout, SIZE), SIZE, NULL, 0, rope_twin};
    rope_twin(&twin);
    rope_rotate(array_of_bf16(halves), x, model.rope_cos_sin, 1, LAYER_N, LAYER_T, LAYER_H, LAYER_D);
    rope_rotate(array_of_floats(x), x, model.rope_cos_sin, 1, LAYER_N, LAYER_T, LAYER_H, LAYER_D);
    CHECK_NMSE(x, want, SIZE, 1e-13, "out");
    for (int i = 0; i < SIZE; i++)
        CHECK(halves[i] == bf16_from_float(x[i]), "out[%d] in bfloat16 is %g, in float32 %g", i,
              float_from_bf16(halves[i]), x[i]);
    rope_rotate(array_of_floats(dout), dout, model.rope_cos_sin, -1, LAYER_N, LAYER_T, LAYER_H, LAYER_D);
    check_gradient("dx", dout, twin.a, SIZE, &twin);
    free(x), free(dout), free(twin.a), free(twin.dout);
    model_free(&model);
}

static double sigmoid_twin(double x) { return 1 / (1 + exp(-x)); }
static void activation_twin(void *context) {
    Twin *t = context;
    for (size_t i = 0; i < t->n; i++) {
        size_t n = i / LAYER_C, f = i % LAYER_C;
        double x = t->a[i], gate = t->a[n * 2 * LAYER_C + f];
        t->out[i] =
            t->kind == ACTIVATION_GELU    ? 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
            : t->kind == ACTIVATION_RELU  ? fmax(x, 0)
            : t->kind == ACTIVATION_RELU2 ? fmax(x, 0) * fmax(x, 0)
                                          : gate * sigmoid_twin(gate) * t->a[n * 2 * LAYER_C + LAYER_C + f];
    }
}

/* A wrong gradient of an activation would make the MLP train to a worse model. */
static void test_activations_match_float64(void) {
    enum { SIZE = LAYER_N * LAYER_C };
    static const char *const names[] = {"gelu", "relu", "swiglu", "relu2"};
    for (int kind = ACTIVATION_GELU; kind <= ACTIVATION_RELU2; kind++) {
        const int inputs = kind == ACTIVATION_SWIGLU ? 2 * SIZE : SIZE;
        float *x = test_normal(2 * SIZE, 3, 1), *dout = test_normal(SIZE, 1, 2), out[SIZE], dx[2 * SIZE],
              again[SIZE];
        double want[SIZE];
        x[0] = 40, x[1] = -40; /* large inputs, where a careless tanh overflows */
        Twin twin = {test_to_double(x, 2 * SIZE),
                     NULL,
                     want,
                     test_to_double(dout, SIZE),
                     SIZE,
                     NULL,
                     kind,
                     activation_twin};
        activation_forward(array_of_floats(out), array_of_floats(x), LAYER_N, LAYER_C, kind);
        activation_twin(&twin);
        CHECK_NMSE(out, want, SIZE, 1e-12, names[kind]);
        ActivationBackward backward = {array_of_floats(dx), array_of_floats(again), array_of_floats(x),
                                       LAYER_C, kind};
        for (int n = 0; n < LAYER_N; n++) /* one tile has the first 5 columns, another one the rest */
            for (int c = 0; c < LAYER_C; c += c ? LAYER_C : 5)
                activation_backward(
                    &backward, &(MatmulTile){dout + n * LAYER_C + c, LAYER_C, n, c, 1, c ? LAYER_C - 5 : 5});
        CHECK(memcmp(out, again, sizeof out) == 0, "%s: done again it has other bits", names[kind]);
        check_gradient(names[kind], dx, twin.a, (size_t)inputs, &twin);
        free(x), free(dout), free(twin.a), free(twin.dout);
    }
}

static void cross_entropy_twin(void *context) {
    Twin *t = context;
    for (size_t n = 0; n < t->n; n++) {
        const double *row = t->a + n * LAYER_V;
        double largest = row[0], sum = 0;
        for (int v = 0; v < LAYER_V; v++) largest = fmax(largest, row[v]);
        for (int v = 0; v < LAYER_V; v++) sum += exp(row[v] - largest);
        t->out[n] = log(sum) + largest - row[t->tokens[n]];
    }
}

/* cross_entropy_twin after a softcap of b[0], plus b[1] times the square of the log-sum-exp. */
static void loss_twin(void *context) {
    Twin *t = context;
    for (size_t n = 0; n < t->n; n++) {
        const double *row = t->a + n * LAYER_V, X = t->b[0];
        double sum = 0;
        for (int v = 0; v < LAYER_V; v++) sum += exp(X * tanh(row[v] / X));
        t->out[n] = log(sum) - X * tanh(row[t->tokens[n]] / X) + t->b[1] * log(sum) * log(sum);
    }
}

/* A wrong loss would be logged as the result, and a wrong gradient of it would be in every parameter. */
static void test_cross_entropy_matches_float64(void) {
    enum { SIZE = LAYER_N * LAYER_V };
    float *logits = test_normal(SIZE, 3, 1), losses[LAYER_N];
    double want[LAYER_N], scale[LAYER_N];
    for (int n = 0; n < LAYER_N; n++) scale[n] = 0.25;
    logits[5] = 900, logits[LAYER_V + 5] = -900; /* logits whose exponential would overflow */
    Twin twin = {
        test_to_double(logits, SIZE), NULL, want, scale, LAYER_N, layer_tokens, 0, cross_entropy_twin};
    cross_entropy_forward_backward(losses, array_of_floats(logits), logits, NULL, layer_tokens, 0.25f, 0,
                                   LAYER_N, LAYER_V);
    cross_entropy_twin(&twin);
    CHECK_NMSE(losses, want, LAYER_N, 1e-12, "losses");
    check_gradient("dlogits", logits, twin.a, SIZE, &twin);
    free(logits), free(twin.a);
}

/* --logit-softcap and --z-loss: a wrong gradient of them would be in every parameter, and the losses must be the
   cross-entropy without the z-loss, or runs with and without it could not be compared. */
static void test_softcap_and_z_loss_match_float64(void) {
    enum { SIZE = LAYER_N * LAYER_V };
    double cases[][2] = {{4, 0}, {1e6, 0.125}, {4, 0.125}}; /* a softcap of 1e6 is none */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *logits = test_normal(SIZE, 3, 1), slopes[SIZE], losses[LAYER_N];
        double want[LAYER_N], scale[LAYER_N], without[] = {cases[i][0], 0};
        for (int n = 0; n < LAYER_N; n++) scale[n] = 0.25;
        logits[5] = 200, logits[LAYER_V + 5] = -200; /* where tanh has reached 1 */
        Twin twin = {test_to_double(logits, SIZE), without, want, scale, LAYER_N, layer_tokens, 0, loss_twin};
        const bool capped = cases[i][0] < 1e6;
        if (capped) softcap_forward(logits, slopes, (float)cases[i][0], LAYER_N, LAYER_V);
        cross_entropy_forward_backward(losses, array_of_floats(logits), logits, capped ? slopes : NULL,
                                       layer_tokens, 0.25f, (float)cases[i][1], LAYER_N, LAYER_V);
        loss_twin(&twin);
        CHECK_NMSE(losses, want, LAYER_N, 1e-12, "losses");
        twin.b = cases[i];
        check_gradient("dlogits", logits, twin.a, SIZE, &twin);
        free(logits), free(twin.a);
    }
}

#define LAYERS_TESTS(TEST)                                                                                   \
    TEST(exp_fast_is_exact_to_3_ulp)                                                                         \
    TEST(embedding_matches_float64)                                                                          \
    TEST(rmsnorm_matches_float64)                                                                            \
    TEST(layernorm_matches_float64)                                                                          \
    TEST(crmsnorm_matches_float64)                                                                           \
    TEST(norms_agree_where_the_mean_is_zero)                                                                 \
    TEST(rope_matches_float64)                                                                               \
    TEST(activations_match_float64) TEST(cross_entropy_matches_float64) TEST(softcap_and_z_loss_match_float64)

#endif
