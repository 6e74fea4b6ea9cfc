/* test_optimizer.h: tests of gpt/math/optimizer.h (the schedules at their corners, the sum of squares, AdamW and LAMB
   against float64), gpt/math/muon.h and gpt/math/rng.h. */
#ifndef TESTS_TEST_OPTIMIZER_H
#define TESTS_TEST_OPTIMIZER_H

#include "harness.h"
#include "../gpt/math/muon.h"
#include "../gpt/math/optimizer.h"

/* The learning rate must have the right value at the first and last step of warmup, decay and cooldown; one step too
   early or too late changes every curve. */
static void test_schedules_have_their_corners(void) {
    const struct {
        LearningRateKind kind;
        int64_t step;
        double expected; /* of a peak of 2, floor 0.1, 10 steps of warmup, 110 in all, cooldown 20 */
    } cases[] = {
        {LR_COSINE, 0, 0.2},   {LR_COSINE, 9, 2},     {LR_COSINE, 10, 2},    {LR_COSINE, 60, 1.1},
        {LR_COSINE, 110, 0.2}, {LR_COSINE, 500, 0.2}, {LR_LINEAR, 60, 1.1},  {LR_LINEAR, 85, 0.65},
        {LR_LINEAR, 110, 0.2}, {LR_CONSTANT, 4, 1},   {LR_CONSTANT, 109, 2}, {LR_WSD, 50, 2},
        {LR_WSD, 90, 2},       {LR_WSD, 100, 1.1},    {LR_WSD, 110, 0.2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LearningRate schedule = {cases[i].kind, 2, 0.1, 10, 110, 20};
        double lr = learning_rate(&schedule, cases[i].step);
        CHECK(fabs(lr - cases[i].expected) < 1e-12, "kind %d step %ld: %g, expected %g", (int)cases[i].kind,
              (long)cases[i].step, lr, cases[i].expected);
    }
    LearningRate no_warmup = {LR_COSINE, 1, 0, 0, 4, 0};
    CHECK(learning_rate(&no_warmup, 0) == 1, "without warmup the first rate is %g",
          learning_rate(&no_warmup, 0));
}

/* The norm for clipping is computed from this sum: a wrong one clips gradients that are not too large. */
static void test_gradient_squares_is_their_sum(void) {
    const size_t n = 3 * OPTIMIZER_CHUNK + 17;
    float *g = test_normal(n, 3, 1);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)g[i] * g[i];
    CHECK(fabs(gradient_squares(g, n) / sum - 1) < 1e-12, "%g, expected %g", gradient_squares(g, n), sum);
    g[5] = INFINITY;
    CHECK(isinf(gradient_squares(g, n)), "an infinite gradient must show: %g", gradient_squares(g, n));
    free(g);
}

/* The update must be AdamW as PyTorch documents it, or hyperparameters of papers would not carry over. */
static void test_adamw_matches_float64(void) {
    enum { N = 1001, STEPS = 20 };
    const AdamWSettings base = {1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 0, false};
    float *p = test_normal(N, 1, 2), *m = check_calloc(N * sizeof *m), *v = check_calloc(N * sizeof *v);
    double *wp = test_to_double(p, N), wm[N] = {0}, wv[N] = {0};
    for (int step = 1; step <= STEPS; step++) {
        float *g = test_normal(N, 1, (uint64_t)(2 + step));
        AdamWSettings s = base;
        s.step = step;
        adamw_update(p, g, m, v, N, &s);
        for (int i = 0; i < N; i++) { /* the algorithm as PyTorch documents it */
            double gradient = s.gradient_scale * g[i];
            wp[i] -= s.lr * s.weight_decay * wp[i];
            wm[i] = s.beta1 * wm[i] + (1 - s.beta1) * gradient;
            wv[i] = s.beta2 * wv[i] + (1 - s.beta2) * gradient * gradient;
            wp[i] -=
                s.lr * (wm[i] / (1 - pow(s.beta1, step))) / (sqrt(wv[i] / (1 - pow(s.beta2, step))) + s.eps);
        }
        free(g);
    }
    CHECK_NMSE(p, wp, N, 1e-12, "parameters");
    CHECK_NMSE(m, wm, N, 1e-12, "first moment");
    CHECK_NMSE(v, wv, N, 1e-12, "second moment");
    free(p), free(m), free(v), free(wp);
}

/* LAMB must be the paper's algorithm 2, also when a tensor lies in pieces on several ranks: a trust of one piece alone
   would change with the number of ranks. */
static void test_lamb_matches_float64(void) {
    enum { N = OPTIMIZER_CHUNK + 1001, FIRST = 700, STEPS = 5 };
    AdamWSettings s = {1e-2, 0.9, 0.95, 1e-6, 0.1, 0.5, 0, false};
    float *p = test_normal(N, 1, 2), *m = check_calloc(N * sizeof *m), *v = check_calloc(N * sizeof *v);
    double *wp = test_to_double(p, N), *wm = check_calloc(N * sizeof *wm), *wv = check_calloc(N * sizeof *wv);
    double *u = check_calloc(N * sizeof *u);
    for (s.step = 1; s.step <= STEPS; s.step++) {
        float *g = test_normal(N, 1, (uint64_t)(2 + s.step));
        LambSquares squares = {0, 0};
        lamb_moments(&squares, p, g, m, v, FIRST, &s);
        lamb_moments(&squares, p + FIRST, g + FIRST, m + FIRST, v + FIRST, N - FIRST, &s);
        lamb_update(p, m, v, FIRST, lamb_trust(&squares), &s);
        lamb_update(p + FIRST, m + FIRST, v + FIRST, N - FIRST, lamb_trust(&squares), &s);
        double parameter = 0, step = 0;
        for (int i = 0; i < N; i++) {
            const double gradient = s.gradient_scale * g[i];
            wm[i] = s.beta1 * wm[i] + (1 - s.beta1) * gradient;
            wv[i] = s.beta2 * wv[i] + (1 - s.beta2) * gradient * gradient;
            u[i] = wm[i] / (1 - pow(s.beta1, (double)s.step)) /
                       (sqrt(wv[i] / (1 - pow(s.beta2, (double)s.step))) + s.eps) +
                   s.weight_decay * wp[i];
            parameter += wp[i] * wp[i], step += u[i] * u[i];
        }
        for (int i = 0; i < N; i++) wp[i] -= s.lr * sqrt(parameter) / sqrt(step) * u[i];
        free(g);
    }
    CHECK_NMSE(p, wp, N, 1e-12, "parameters");
    CHECK_NMSE(m, wm, N, 1e-12, "first moment");
    CHECK_NMSE(v, wv, N, 1e-12, "second moment");
    const LambSquares none = {0, 4};
    CHECK(lamb_trust(&none) == 1, "the trust of a tensor of zeros is %g", lamb_trust(&none));
    free(p), free(m), free(v), free(wp), free(wm), free(wv), free(u);
}

/* out (n, n) = x x^T or, with other, out (n, columns) = x other: both in float64. */
static void twin_product(double *out, const double *x, const double *other, int rows, int inner, int columns,
                         bool transposed) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            double sum = 0;
            for (int k = 0; k < inner; k++)
                sum += x[i * inner + k] * (transposed ? other[j * inner + k] : other[k * columns + j]);
            out[i * columns + j] = sum;
        }
}

/* x (rows, columns), of any shape, after Newton-Schulz as Jordan's program does it: always with x x^T. */
static void muon_twin(double *x, int rows, int columns) {
    enum { MOST = 64 * 64 };
    static double A[MOST], AA[MOST], next[MOST];
    double squares = 0;
    for (int i = 0; i < rows * columns; i++) squares += x[i] * x[i];
    for (int i = 0; i < rows * columns; i++) x[i] /= sqrt(squares) + 1e-7;
    for (int step = 0; step < 5; step++) {
        twin_product(A, x, x, rows, columns, rows, true);
        twin_product(AA, A, A, rows, rows, rows, false);
        for (int i = 0; i < rows * rows; i++) A[i] = -4.7750 * A[i] + 2.0315 * AA[i];
        twin_product(next, A, x, rows, rows, columns, false);
        for (int i = 0; i < rows * columns; i++) x[i] = 3.4445 * x[i] + next[i];
    }
}

/* Muon must be the published algorithm: one wrong coefficient of Newton-Schulz, or a wrong transpose, would still train,
   but to a worse model. Tall, wide and square matrices, of sizes that no block divides. */
static void test_muon_matches_float64(void) {
    static const int shapes[][2] = {{13, 29}, {29, 13}, {19, 19}, {1, 7}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const int R = shapes[k][0], C = shapes[k][1], n = R * C;
        AdamWSettings s = {.lr = 1e-2, .weight_decay = 0.1, .gradient_scale = 0.5};
        float *p = test_normal((size_t)n, 1, 2), *m = check_calloc((size_t)n * sizeof *m);
        float *work = check_calloc(muon_work_floats((size_t)R, (size_t)C) * sizeof *work);
        double *wp = test_to_double(p, (size_t)n), *wm = check_calloc((size_t)n * sizeof *wm);
        double *x = check_calloc((size_t)n * sizeof *x);
        for (int step = 1; step <= 3; step++) {
            float *g = test_normal((size_t)n, 1, (uint64_t)(2 + step));
            muon_update(p, g, m, R, C, &s, work);
            for (int i = 0; i < n; i++) {
                const double gradient = 0.5 * g[i];
                wm[i] = 0.95 * wm[i] + 0.05 * gradient;
                x[i] = 0.95 * wm[i] + 0.05 * gradient;
            }
            muon_twin(x, R, C);
            for (int i = 0; i < n; i++)
                wp[i] -= s.lr * s.weight_decay * wp[i] + s.lr * 0.2 * sqrt(fmax(R, C)) * x[i];
            free(g);
        }
        char what[32];
        snprintf(what, sizeof what, "(%d, %d)", R, C);
        CHECK_NMSE(p, wp, (size_t)n, 1e-11, what);
        CHECK_NMSE(m, wm, (size_t)n, 1e-12, what);
        free(p), free(m), free(work), free(wp), free(wm), free(x);
    }
}

/* Newton-Schulz must leave nearly orthogonal rows: that is the point of Muon. */
static void test_muon_makes_rows_orthogonal(void) {
    enum { R = 24, C = 48 };
    float work[2 * R * C + 2 * R * R], *x = test_normal(R * C, 1, 5);
    for (int i = 0; i < R * C; i++) work[i] = x[i] * (float)(1 + i / C); /* rows of very different lengths */
    muon_orthogonalize(work, R, C, work);
    for (int i = 0; i < R; i++)
        for (int j = 0; j <= i; j++) {
            double dot = 0;
            for (int c = 0; c < C; c++) dot += (double)work[i * C + c] * work[j * C + c];
            CHECK(i == j ? dot > 0.4 && dot < 1.6 : fabs(dot) < 0.4, "row %d times row %d is %g", i, j, dot);
        }
    free(x);
}

/* Every sample must be read once an epoch: a permutation that hits a number twice would leave out another sample. */
static void test_random_permutation_is_one(void) {
    const uint64_t sizes[] = {1, 2, 3, 7, 64, 65, 1000, 4097};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        char *seen = check_calloc(sizes[s]);
        uint64_t fixed_points = 0;
        for (uint64_t i = 0; i < sizes[s]; i++) {
            uint64_t to = rng_permute(9, RNG_STREAM_TEST, i, sizes[s]);
            REQUIRE(to < sizes[s] && !seen[to], "%lu of %lu goes to %lu a second time", (unsigned long)i,
                    (unsigned long)sizes[s], (unsigned long)to);
            seen[to] = 1;
            fixed_points += to == i;
        }
        CHECK(sizes[s] < 64 || fixed_points < 12, "%lu of %lu stay where they are",
              (unsigned long)fixed_points, (unsigned long)sizes[s]);
        free(seen);
    }
}

/* Initial weights of another mean or deviation would start training at another loss. */
static void test_random_normal_has_its_moments(void) {
    enum { N = 200000 };
    double moments[5] = {0};
    for (int i = 0; i < N; i++)
        for (int k = 1; k <= 4; k++) moments[k] += pow(rng_normal(3, RNG_STREAM_TEST, (uint64_t)i), k) / N;
    CHECK(fabs(moments[1]) < 0.01 && fabs(moments[2] - 1) < 0.02 && fabs(moments[3]) < 0.05 &&
              fabs(moments[4] - 3) < 0.15,
          "moments %g %g %g %g, expected 0 1 0 3", moments[1], moments[2], moments[3], moments[4]);
}

#define OPTIMIZER_TESTS(TEST)                                                                                \
    TEST(schedules_have_their_corners)                                                                       \
    TEST(gradient_squares_is_their_sum)                                                                      \
    TEST(lamb_matches_float64)                                                                               \
    TEST(muon_matches_float64)                                                                               \
    TEST(muon_makes_rows_orthogonal)                                                                         \
    TEST(adamw_matches_float64) TEST(random_permutation_is_one) TEST(random_normal_has_its_moments)

#endif
