/* test_laser.h: tests of laser.h: the naive twins against finite differences, the tiled path against the naive twins
   at sizes that are no multiple of a tile, and what laser.h promises, with values that break careless
   implementations. */
#ifndef TESTS_TEST_LASER_H
#define TESTS_TEST_LASER_H

#include "harness.h"

/* One attention problem: q, k and v packed as (B, T, 3, H, D), in float32, and the same numbers in double. */
typedef struct {
    LaserShape shape;
    size_t qkv_size, out_size, lse_size, A; /* A = H*D */
    float *qkv, *dout, *out, *lse, *dqkv;
    double *qkv64, *dout64, *out64, *lse64, *dqkv64;
} Attention;

static Attention attention_problem(int B, int T, int H, int D, LaserKind kind, uint64_t seed, double spread) {
    Attention a = {.A = (size_t)H * (size_t)D};
    const ptrdiff_t A = H * D;
    a.shape = (LaserShape){.batch = B,
                           .seq_len = T,
                           .heads = H,
                           .head_dim = D,
                           .kind = kind,
                           .qkv_strides = {3 * A * T, 3 * A, D},
                           .out_strides = {A * T, A, D}};
    a.out_size = (size_t)(B * T) * a.A, a.qkv_size = 3 * a.out_size, a.lse_size = (size_t)(B * H * T);
    a.qkv = test_normal(a.qkv_size, spread, seed), a.dout = test_normal(a.out_size, 1, seed + 1);
    a.out = check_calloc(a.out_size * sizeof(float)), a.lse = check_calloc(a.lse_size * sizeof(float));
    a.dqkv = check_calloc(a.qkv_size * sizeof(float));
    a.out64 = check_calloc(a.out_size * sizeof(double)), a.lse64 = check_calloc(a.lse_size * sizeof(double));
    a.dqkv64 = check_calloc(a.qkv_size * sizeof(double));
    return a;
}

static void attention_forget(Attention *a) {
    void *pieces[] = {a->qkv,   a->dout,   a->out,   a->lse,   a->dqkv,
                      a->qkv64, a->dout64, a->out64, a->lse64, a->dqkv64};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) free(pieces[i]);
}

static void attention_tiled(Attention *a) {
    const float *q = a->qkv, *k = q + a->A, *v = k + a->A;
    laser_forward(a->out, a->lse, q, k, v, &a->shape);
    laser_backward(a->dqkv, a->dqkv + a->A, a->dqkv + 2 * a->A, a->dout, q, k, v, a->out, a->lse, &a->shape);
}

/* Gives the naive twin the present float32 numbers. */
static void attention_naive(Attention *a) {
    free(a->qkv64), free(a->dout64);
    a->qkv64 = test_to_double(a->qkv, a->qkv_size), a->dout64 = test_to_double(a->dout, a->out_size);
    const double *q = a->qkv64, *k = q + a->A, *v = k + a->A;
    laser_forward_naive(a->out64, a->lse64, q, k, v, &a->shape);
    laser_backward_naive(a->dqkv64, a->dqkv64 + a->A, a->dqkv64 + 2 * a->A, a->dout64, q, k, v, a->out64,
                         a->lse64, &a->shape);
}

/* Compares one part (0 q, 1 k, 2 v) of the packed gradient with the naive one. */
static double attention_gradient_error(const Attention *a, size_t part) {
    size_t rows = a->out_size / a->A;
    float *got = check_calloc(a->out_size * sizeof *got);
    double *want = check_calloc(a->out_size * sizeof *want);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < a->A; c++) {
            got[r * a->A + c] = a->dqkv[(3 * r + part) * a->A + c];
            want[r * a->A + c] = a->dqkv64[(3 * r + part) * a->A + c];
        }
    double error = test_nmse(got, want, a->out_size);
    free(got), free(want);
    return error;
}

static void check_attention(Attention *a, double bound, const char *what) {
    attention_tiled(a);
    attention_naive(a);
    double errors[5] = {test_nmse(a->out, a->out64, a->out_size), test_nmse(a->lse, a->lse64, a->lse_size),
                        attention_gradient_error(a, 0), attention_gradient_error(a, 1),
                        attention_gradient_error(a, 2)};
    static const char *const names[] = {"out", "lse", "dq", "dk", "dv"};
    for (int i = 0; i < 5; i++) {
        /* With one key, dq and dk are zero except for rounding. */
        if (a->shape.seq_len == 1 && (i == 2 || i == 3)) continue;
        CHECK(errors[i] <= bound,
              "%s (B %d T %d H %d D %d, kind %d, shift %d, precision %d): %s error %.3g, allowed %.3g", what,
              a->shape.batch, a->shape.seq_len, a->shape.heads, a->shape.head_dim, (int)a->shape.kind,
              (int)a->shape.shift, (int)a->shape.precision, names[i], errors[i], bound);
    }
}

/* ---- the naive twins themselves ---- */

static double attention_naive_loss(void *context) {
    Attention *a = context;
    const double *q = a->qkv64;
    double sum = 0;
    laser_forward_naive(a->out64, a->lse64, q, q + a->A, q + 2 * a->A, &a->shape);
    for (size_t i = 0; i < a->out_size; i++) sum += a->out64[i] * a->dout64[i];
    return sum;
}

/* All fast paths are compared with the naive twins. If these were wrong, wrong gradients would pass every other
   test. */
static void test_laser_naive_gradient_is_finite_differences(void) {
    for (int kind = 0; kind < 2; kind++)
        for (int shift = 0; shift < 2; shift++) {
            Attention a = attention_problem(2, 6, 2, 3, (LaserKind)kind, 1, 1);
            a.shape.shift = (LaserShift)shift, a.shape.softcap = shift ? 0.7f : 0;
            attention_naive(&a);
            double *want = check_calloc(a.qkv_size * sizeof *want), error = 0, size = 0;
            test_finite_differences(want, a.qkv64, a.qkv_size, attention_naive_loss, &a);
            for (size_t i = 0; i < a.qkv_size; i++) {
                error += (a.dqkv64[i] - want[i]) * (a.dqkv64[i] - want[i]);
                size += want[i] * want[i];
            }
            CHECK(error <= 1e-15 * size, "kind %d shift %d: error %.3g of %.3g", kind, shift, error, size);
            free(want);
            attention_forget(&a);
        }
}

/* LASER is standard attention on exp(v), followed by a logarithm. This computes it by that definition with the other
   naive twin; a difference would mean that another function is trained than the paper's. */
static void test_laser_is_log_of_attention_on_exp(void) {
    Attention laser = attention_problem(1, 9, 2, 4, LASER_KIND_LASER, 3, 1);
    Attention standard = attention_problem(1, 9, 2, 4, LASER_KIND_STANDARD, 3, 1);
    attention_naive(&laser), attention_naive(&standard);
    for (size_t r = 0; r < 9; r++)
        for (size_t c = 0; c < standard.A; c++) {
            double *v = &standard.qkv64[(3 * r + 2) * standard.A + c];
            *v = exp(*v);
        }
    const double *q = standard.qkv64;
    laser_forward_naive(standard.out64, standard.lse64, q, q + standard.A, q + 2 * standard.A,
                        &standard.shape);
    for (size_t i = 0; i < laser.out_size; i++)
        CHECK(fabs(laser.out64[i] - log(standard.out64[i])) < 1e-12, "element %zu: %.15g, expected %.15g", i,
              laser.out64[i], log(standard.out64[i]));
    attention_forget(&laser), attention_forget(&standard);
}

/* ---- the tiled path ---- */

/* The fast path must give the numbers of the naive twin, also at sizes that are no multiple of its tiles; otherwise
   models with such sizes would train with wrong attention. */
static void test_laser_matches_float64(void) {
    static const int sizes[][4] = {/* B T H D */
                                   {1, 1, 1, 1},    {2, 2, 1, 3},    {3, 7, 2, 5},     {1, 31, 1, 16},
                                   {2, 65, 3, 80},  {1, 130, 2, 64}, {1, 200, 1, 128}, {1, 129, 5, 33},
                                   {1, 64, 1, 256}, {1, 300, 1, 8},  {1, 530, 1, 7}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 2; kind++)
            for (int shift = 0; shift <= kind; shift++)
                for (int precision = 0; precision < 2; precision++) {
                    const int *z = sizes[s];
                    Attention a = attention_problem(z[0], z[1], z[2], z[3], (LaserKind)kind, s, 1);
                    a.shape.shift = (LaserShift)shift, a.shape.precision = (LaserPrecision)precision;
                    check_attention(&a, precision ? 1e-4 : 1e-10, "normal values");
                    attention_forget(&a);
                }
}

/* Programs that keep q, k and v in another order in memory, or scale the scores differently, must get the same
   numbers. */
static void test_laser_scale_and_plain_strides(void) {
    for (int kind = 0; kind < 2; kind++) {
        Attention a = attention_problem(2, 40, 2, 12, (LaserKind)kind, 5, 1);
        a.shape.scale = 0.7f;
        check_attention(&a, 1e-10, "scale 0.7");
        /* the same numbers as separate q, k, v of (B, H, T, D) */
        const int B = 2, T = 40, H = 2, D = 12;
        LaserShape plain = a.shape;
        for (int i = 0; i < 3; i++)
            plain.qkv_strides[i] = plain.out_strides[i] = (ptrdiff_t[]){H * T * D, D, T * D}[i];
        float *parts[3], *out = check_calloc(a.out_size * sizeof *out);
        for (size_t p = 0; p < 3; p++) {
            parts[p] = check_calloc(a.out_size * sizeof *parts[p]);
            for (int b = 0; b < B; b++)
                for (int t = 0; t < T; t++)
                    for (int h = 0; h < H; h++)
                        for (int d = 0; d < D; d++)
                            parts[p][((b * H + h) * T + t) * D + d] =
                                a.qkv[((size_t)(b * T + t) * 3 + p) * a.A + (size_t)(h * D + d)];
        }
        laser_forward(out, NULL, parts[0], parts[1], parts[2], &plain);
        for (int b = 0; b < B; b++)
            for (int t = 0; t < T; t++)
                for (int h = 0; h < H; h++)
                    for (int d = 0; d < D; d++)
                        CHECK(out[((b * H + h) * T + t) * D + d] ==
                                  a.out[(size_t)(b * T + t) * a.A + (size_t)(h * D + d)],
                              "b %d t %d h %d d %d differs with other strides", b, t, h, d);
        for (int p = 0; p < 3; p++) free(parts[p]);
        free(out);
        attention_forget(&a);
    }
}

/* The soft cap must be that of the naive twin, for scores far below the cap and far above it, in columns of which some
   values are out of range, and at sizes that are no multiple of a tile. */
static void test_laser_softcap_matches_float64(void) {
    static const float caps[] = {0.3f, 2, 50};
    for (int kind = 0; kind < 2; kind++)
        for (int precision = 0; precision < 2; precision++)
            for (int cap = 0; cap < 3; cap++)
                for (int wide = 0; wide <= kind; wide++) {
                    Attention a = attention_problem(1, 201, 2, 20, (LaserKind)kind, 8, 1);
                    a.shape.precision = (LaserPrecision)precision, a.shape.softcap = caps[cap];
                    if (wide) a.qkv[3 * a.A * 100 + 2 * a.A + 1] = 300;
                    check_attention(&a, precision ? 1e-4 : 1e-10, "softcap");
                    attention_forget(&a);
                }
}

/* The same run with another number of threads must give the same bits, or no result could be reproduced on another
   machine. */
static void test_laser_same_bits_for_any_threads(void) {
#ifdef _OPENMP
    const int threads = omp_get_max_threads();
    for (int kind = 0; kind < 2; kind++)
        for (int precision = 0; precision < 2; precision++) {
            Attention a = attention_problem(1, 333, 2, 24, (LaserKind)kind, 6, 1);
            /* A column whose values are too far apart for the matrix products. */
            a.qkv[3 * a.A * 200 + 2 * a.A + 1] = 500;
            a.shape.precision = (LaserPrecision)precision;
            omp_set_num_threads(1);
            attention_tiled(&a);
            float *out = check_calloc(a.out_size * sizeof *out),
                  *dqkv = check_calloc(a.qkv_size * sizeof *dqkv);
            memcpy(out, a.out, a.out_size * sizeof *out), memcpy(dqkv, a.dqkv, a.qkv_size * sizeof *dqkv);
            for (int n = 2; n <= 7; n += 5) { /* fewer threads than heads, and more threads than heads */
                omp_set_num_threads(n);
                memset(a.dqkv, 1, a.qkv_size * sizeof *dqkv);
                attention_tiled(&a);
                CHECK(memcmp(out, a.out, a.out_size * sizeof *out) == 0, "kind %d: out with %d threads", kind,
                      n);
                CHECK(memcmp(dqkv, a.dqkv, a.qkv_size * sizeof *dqkv) == 0,
                      "kind %d: gradients with %d threads", kind, n);
            }
            free(out), free(dqkv);
            attention_forget(&a);
        }
    omp_set_num_threads(threads);
#endif
}

/* ---- the contract (DESIGN: LASER) ---- */

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

/* Values of every size up to 1e4, alone, mixed, rising and falling, with scores just as large, must give no NaN or
   infinity: one such number ends a run. */
static void test_laser_stays_finite(void) {
    for (int pattern = 0; pattern < 6; pattern++)
        for (int shift = 0; shift < 2; shift++)
            for (int precision = 0; precision < 2; precision++) {
                Attention a = attention_problem(1, 150, 2, 20, LASER_KIND_LASER, 7, 1);
                a.shape.shift = (LaserShift)shift, a.shape.precision = (LaserPrecision)precision;
                for (size_t t = 0; t < 150; t++)
                    for (size_t c = 0; c < a.A; c++) {
                        float *q = &a.qkv[3 * t * a.A + c], *k = q + a.A, *v = k + a.A;
                        const float sign = (t * 7 + c) % 3 ? 1 : -1;
                        *v = pattern == 0   ? 1e4f
                             : pattern == 1 ? sign * 1e4f
                             : pattern == 2 ? (float)t * 66 - 1e4f
                             : pattern == 3 ? 1e4f - (float)t * 66
                             : pattern == 4 ? *v * 40
                                            : sign * 1e4f;
                        if (pattern == 5) *q *= 300, *k *= 300;
                    }
                attention_tiled(&a);
                CHECK(all_finite(a.out, a.out_size) && all_finite(a.lse, a.lse_size) &&
                          all_finite(a.dqkv, a.qkv_size),
                      "pattern %d shift %d precision %d gives a NaN or an infinity", pattern, shift,
                      precision);
                attention_naive(&a);
                /* at 1e4 a bf16 score moves by whole units, so only float32 can be held to the naive values */
                double error = test_nmse(a.out, a.out64, a.out_size);
                CHECK(precision == 1 || error < 1e-10, "pattern %d shift %d: out error %.3g", pattern, shift,
                      error);
                attention_forget(&a);
            }
}

/* Where the values of columns lie far apart, and rows see only the small ones, the gradients must still match
   float64: these rows would otherwise learn nothing. */
static void test_laser_wide_columns_match_float64(void) {
    for (int T = 20; T <= 140; T += 60) {
        Attention a = attention_problem(1, T, 2, 17, LASER_KIND_LASER, 8, 1);
        for (int t = 0; t < T; t++)
            for (size_t c = 0; c < a.A; c += 3)
                a.qkv[((size_t)t * 3 + 2) * a.A + c] += (float)((t * 37 + (int)c) % 11) * 30 - 150;
        check_attention(&a, 1e-10, "columns 300 wide");
        a.shape.shift = LASER_SHIFT_SEQUENCE;
        check_attention(&a, 1e-8, "columns 300 wide, the paper's shift");
        a.shape.shift = LASER_SHIFT_CAUSAL, a.shape.precision = LASER_BF16;
        check_attention(&a, 1e-4, "columns 300 wide");
        attention_forget(&a);
    }
}

/* With very small values exp(v) in bfloat16 is 1 and hardly anything else. The gradients must keep their digits, or
   training with bf16 would stop improving early. */
static void test_laser_small_values_match_float64(void) {
    for (int precision = 0; precision < 2; precision++) {
        Attention a = attention_problem(1, 140, 2, 24, LASER_KIND_LASER, 11, 1);
        a.shape.precision = (LaserPrecision)precision;
        for (size_t r = 0; r < 140; r++)
            for (size_t c = 0; c < a.A; c++) a.qkv[(3 * r + 2) * a.A + c] *= 0.05f;
        check_attention(&a, precision ? 1e-4 : 2e-10, "values of 0.05");
        attention_forget(&a);
    }
}

/* The first row must be v_0 as matrix products see it, rounded to bfloat16, on every CPU: otherwise results would
   differ between machines. */
static void test_laser_bf16_rounds_operands(void) {
    for (int precision = 0; precision < 2; precision++) {
        Attention a = attention_problem(1, 1, 1, 40, LASER_KIND_STANDARD, 13, 1);
        memset(a.qkv, 0, 2 * a.A * sizeof *a.qkv); /* a score of 0: a weight of 1 */
        a.shape.precision = (LaserPrecision)precision;
        attention_tiled(&a);
        for (size_t c = 0; c < a.A; c++) {
            const float v = a.qkv[2 * a.A + c], want = precision ? float_from_bf16(bf16_from_float(v)) : v;
            CHECK(a.out[c] == want, "precision %d: out %.9g, expected %.9g", precision, a.out[c], want);
        }
        attention_forget(&a);
    }
}

/* With scores of +-1e4 most rows see one key. Their log-sum-exp in float32 has so few digits that weights computed
   from it would be wrong by 5e-4. The bound is the error that rounding the scores causes. */
static void test_laser_large_scores_match_float64(void) {
    for (int kind = 0; kind < 2; kind++) {
        Attention a = attention_problem(1, 90, 2, 16, (LaserKind)kind, 12, 1);
        for (size_t r = 0; r < 90; r++)
            for (size_t c = 0; c < 2 * a.A; c++) a.qkv[3 * r * a.A + c] *= 100;
        attention_tiled(&a);
        attention_naive(&a);
        double errors[2] = {test_nmse(a.out, a.out64, a.out_size), attention_gradient_error(&a, 2)};
        CHECK(errors[0] <= 2e-8 && errors[1] <= 2e-8, "kind %d: out error %.3g, dv error %.3g", kind,
              errors[0], errors[1]);
        attention_forget(&a);
    }
}

/* The first token sees only itself, so its output is its own value. Another output would mean that it sees later
   tokens. */
static void test_laser_row_zero_returns_v0(void) {
    for (int precision = 0; precision < 2; precision++) {
        Attention a = attention_problem(2, 77, 3, 19, LASER_KIND_LASER, 9, 3);
        a.shape.precision = (LaserPrecision)precision;
        a.qkv[3 * a.A * 50 + 2 * a.A + 4] = 1e4f;
        attention_tiled(&a);
        for (size_t b = 0; b < 2; b++)
            for (size_t c = 0; c < a.A; c++) {
                float v0 = a.qkv[b * 77 * 3 * a.A + 2 * a.A + c], o0 = a.out[b * 77 * a.A + c];
                CHECK(fabsf(o0 - v0) <= 2e-6f * (1 + fabsf(v0)), "precision %d column %zu: %g, v0 %g",
                      precision, c, o0, v0);
            }
        attention_forget(&a);
    }
}

/* Row t must not change when tokens after t change, even by a value of 1e4 at the last position: a model that sees
   the future has a low training loss and is useless. */
static void test_laser_rows_do_not_see_the_future(void) {
    enum { T = 150, H = 2, D = 20 };
    for (int kind = 0; kind < 2; kind++)
        for (int precision = 0; precision < 2; precision++) {
            Attention a = attention_problem(1, T, H, D, (LaserKind)kind, 10, 1);
            a.shape.precision = (LaserPrecision)precision;
            attention_tiled(&a);
            float *before = check_calloc(a.out_size * sizeof *before);
            memcpy(before, a.out, a.out_size * sizeof *before);
            for (int changed = 0; changed < 3; changed++) {
                const size_t t = (size_t[]){T - 1, 64, 31}[changed];
                for (size_t c = 0; c < 3 * a.A; c++) a.qkv[3 * t * a.A + c] = c >= 2 * a.A ? 1e4f : 5;
                laser_forward(a.out, a.lse, a.qkv, a.qkv + a.A, a.qkv + 2 * a.A, &a.shape);
                CHECK(precision || memcmp(a.out, before, t * a.A * sizeof *before) == 0,
                      "kind %d: token %zu moved bits of earlier rows in float32", kind, t);
                for (size_t i = 0; i < t * a.A; i++)
                    CHECK(fabsf(a.out[i] - before[i]) <= 1e-5f * (fabsf(before[i]) + 0.1f),
                          "kind %d precision %d: token %zu moved row %zu from %.8g to %.8g", kind, precision,
                          t, i / a.A, before[i], a.out[i]);
            }
            free(before);
            attention_forget(&a);
        }
}

/* Work memory must grow with T, not with T*T, or long sequences would not fit. */
static void test_laser_memory_is_linear(void) {
    for (int backward = 0; backward < 2; backward++)
        for (int kind = 0; kind < 2; kind++) {
            Attention a = attention_problem(1, 1, 4, 64, (LaserKind)kind, 13, 1);
            size_t sizes[2];
            for (int i = 0; i < 2; i++) {
                a.shape.seq_len = 4096 << i;
                sizes[i] = laser_memory(&a.shape, backward);
            }
            CHECK(sizes[1] < 2 * sizes[0] && sizes[1] > sizes[0], "kind %d: %zu bytes at 4096, %zu at 8192",
                  kind, sizes[0], sizes[1]);
            attention_forget(&a);
        }
}

/* ---- exponential and logarithm ---- */

static double float_ulps(float got, double want) {
    return got == want ? 0 : fabs(got - want) / ldexp(1, ilogb(want) - 23);
}

/* An error in the fast exponential or logarithm would be in every output of LASER. */
static void test_laser_exp_and_log_to_2_ulp(void) {
    double worst[4] = {0};
    static const char *const names[] = {"exp", "exp2", "expm1", "log"};
    for (int i = 0; i < 400000; i += LASER_W) {
        float x[LASER_W], y[LASER_W], got[4][LASER_W];
        for (int j = 0; j < LASER_W; j++) {
            x[j] = -87.0f + 174.0f * (float)(i + j) / 400000;
            if (i / LASER_W % 3 == 0) x[j] *= 0.01f;
            y[j] = expf(x[j]);
        }
        LaserVec less_one;
        laser_store(got[0], laser_exp(laser_load(x), laser_set(0), &less_one));
        laser_store(got[1], laser_exp2(laser_load(x)));
        laser_store(got[2], less_one);
        laser_store(got[3], laser_log(laser_load(y), laser_set(0)));
        for (int j = 0; j < LASER_W; j++) {
            const double want[] = {exp((double)x[j]), exp2((double)x[j]), expm1((double)x[j]),
                                   log((double)y[j])};
            for (int f = 0; f < 4; f++) worst[f] = fmax(worst[f], float_ulps(got[f][j], want[f]));
        }
    }
    for (int f = 0; f < 4; f++)
        CHECK(worst[f] <= (f == 2 ? 4 : 2), "%s is off by %.2f ulp", names[f], worst[f]);
}

/* ---- the example in laser.h's manual ---- */

/* The example in the manual of laser.h must compile and give the numbers that the manual says: it is the first thing
   that a user tries. */
static void test_laser_example_compiles_and_runs(void) {
    char output[2048], folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    int code =
        test_command(output, sizeof output,
                     "sed -n '/^ *\\[example\\]$/,/^ *\\[end\\]$/p' laser.h | sed '1d;$d' > %s/example.c && "
                     "${CC:-cc} -std=gnu11 -O1 -I. %s/example.c -o %s/example -lm && %s/example",
                     folder, folder, folder, folder);
    /* row 2, column 0: log((e^0 + e^2 + e^4) / 3); its gradient is shared as e^0 : e^2 : e^4 */
    char want[64];
    snprintf(want, sizeof want, "out %.4f", log((1 + exp(2) + exp(4)) / 3));
    CHECK(code == 0 && strstr(output, want), "exit %d, expected '%s': %s", code, want, output);
    snprintf(want, sizeof want, "dv %.4f", exp(4) / (1 + exp(2) + exp(4)));
    CHECK(strstr(output, want), "expected '%s': %s", want, output);
}

/* The same example must work from C++ with the implementation in a C file; a C++ file that asks for the
   implementation must get an error that says what to do. */
static void test_laser_links_from_cpp(void) {
    char output[4096], folder[128], want[64];
    snprintf(folder, sizeof folder, "%s", test_folder());
    if (test_command(output, sizeof output, "command -v ${CXX:-c++}") != 0) {
        test_not_run("there is no C++ compiler");
        return;
    }
    int code =
        test_command(output, sizeof output,
                     "sed -n '/^ *\\[example\\]$/,/^ *\\[end\\]$/p' laser.h | sed '1d;$d' > %s/whole.cc && "
                     "grep -v LASER_IMPLEMENTATION %s/whole.cc > %s/example.cc && "
                     "printf '#define LASER_IMPLEMENTATION\n#include \"laser.h\"\n' > %s/laser.c && "
                     "${CC:-cc} -std=gnu11 -O1 -I. -c %s/laser.c -o %s/laser.o && "
                     "${CXX:-c++} -std=c++20 -I. %s/example.cc %s/laser.o -o %s/example -lm && %s/example",
                     folder, folder, folder, folder, folder, folder, folder, folder, folder, folder);
    snprintf(want, sizeof want, "out %.4f", log((1 + exp(2) + exp(4)) / 3));
    CHECK(code == 0 && strstr(output, want), "exit %d, expected '%s': %s", code, want, output);
    code = test_command(output, sizeof output, "${CXX:-c++} -std=c++20 -I. -c %s/whole.cc -o %s/whole.o",
                        folder, folder);
    CHECK(code != 0 && strstr(output, "the implementation of laser.h is C"), "exit %d: %s", code, output);
}

static void laser_of_a_wrong_shape(void *shape) { laser_memory(shape, 0); }

/* A kind, shift or precision that does not exist must end the program; taken for another one it would give wrong
   results without a word. */
static void test_laser_refuses_unknown_kinds(void) {
    const LaserShape right = {.batch = 1, .seq_len = 1, .heads = 1, .head_dim = 1};
    LaserShape wrong[] = {right, right, right};
    char output[512];
    wrong[0].kind = (LaserKind)2, wrong[1].shift = (LaserShift)2, wrong[2].precision = (LaserPrecision)2;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const int code = test_death(laser_of_a_wrong_shape, &wrong[i], output, sizeof output);
        CHECK(code == 1 && strstr(output, "unknown kind, shift or precision"), "%zu: exit %d: %s", i, code,
              output);
    }
}

/* A program that includes laser.h must be able to use any name that does not begin with laser_. */
static void test_laser_has_one_prefix(void) {
    char output[2048], folder[128];
    snprintf(folder, sizeof folder, "%s", test_folder());
    if (test_command(output, sizeof output, "command -v nm") != 0) {
        test_not_run("there is no program 'nm'");
        return;
    }
    const int code =
        test_command(output, sizeof output,
                     "${CC:-cc} -std=gnu11 -O1 -x c -DLASER_IMPLEMENTATION -c laser.h -o %s/laser.o && "
                     "nm -g %s/laser.o | sed -n 's/.* [A-TV-Z] _*//p' | grep -v '^laser_'",
                     folder, folder);
    CHECK(code == 1 && !*output, "laser.h defines other names, exit %d: %s", code, output);
}

#define LASER_TESTS(TEST)                                                                                    \
    TEST(laser_naive_gradient_is_finite_differences)                                                         \
    TEST(laser_is_log_of_attention_on_exp)                                                                   \
    TEST(laser_matches_float64)                                                                              \
    TEST(laser_softcap_matches_float64)                                                                      \
    TEST(laser_scale_and_plain_strides)                                                                      \
    TEST(laser_same_bits_for_any_threads)                                                                    \
    TEST(laser_stays_finite)                                                                                 \
    TEST(laser_wide_columns_match_float64)                                                                   \
    TEST(laser_small_values_match_float64)                                                                   \
    TEST(laser_bf16_rounds_operands)                                                                         \
    TEST(laser_large_scores_match_float64)                                                                   \
    TEST(laser_row_zero_returns_v0)                                                                          \
    TEST(laser_rows_do_not_see_the_future)                                                                   \
    TEST(laser_memory_is_linear)                                                                             \
    TEST(laser_exp_and_log_to_2_ulp)                                                                         \
    TEST(laser_example_compiles_and_runs)                                                                    \
    TEST(laser_links_from_cpp)                                                                               \
    TEST(laser_refuses_unknown_kinds)                                                                        \
    TEST(laser_has_one_prefix)

#endif
