/* test_statistics.h: tests that tools/statistics.h computes what scipy computes. tests/fixtures/statistics.json has
   scipy's numbers; make_statistics_fixture.py made it. */
#ifndef TESTS_TEST_STATISTICS_H
#define TESTS_TEST_STATISTICS_H

#include "harness.h"
#include "../gpt/io/json.h"
#include "../tools/statistics.h"

enum { STATISTICS_MAX = 64 };

static cJSON *statistics_fixture(void) {
    char error[FILE_ERROR_SIZE];
    size_t size;
    char *text = file_read("tests/fixtures/statistics.json", FILE_REGULAR, 1 << 20, &size, error);
    if (!text) die("%s", error);
    cJSON *json = json_parse(text, size);
    free(text);
    return json;
}

static int statistics_numbers(const cJSON *object, const char *key, double out[STATISTICS_MAX]) {
    int n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(object, key)) if (n < STATISTICS_MAX) out[n++] =
        item->valuedouble;
    return n;
}

static void statistics_check(const char *what, double got, double want, double relative) {
    CHECK(fabs(got - want) <= relative * fmax(fabs(want), 1e-12), "%s: %.15g, scipy has %.15g", what, got,
          want);
}

/* A wrong quantile would make every interval too narrow or too wide, and nobody would see it. */
static void test_statistics_of_student(void) {
    cJSON *json = statistics_fixture();
    const cJSON *one;
    int count = 0;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(json, "student")) {
        const double df = json_number(one, "df"), t = json_number(one, "t"), p = json_number(one, "p");
        char what[64];
        snprintf(what, sizeof what, "df %g, t %g, p %g", df, t, p);
        if (isfinite(t)) statistics_check(what, stat_t_cdf(t, df), json_number(one, "cdf"), 1e-10);
        if (isfinite(p)) statistics_check(what, stat_t_quantile(p, df), json_number(one, "quantile"), 1e-10);
        count++;
    }
    CHECK(count == 8 * 14, "%d cases", count);
    cJSON_Delete(json);
}

/* The interval of paired differences decides whether the report calls an arm better. */
static void test_statistics_of_pairs(void) {
    cJSON *json = statistics_fixture();
    const cJSON *one;
    int count = 0;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(json, "pairs")) {
        double first[STATISTICS_MAX] = {0}, d[STATISTICS_MAX] = {0};
        const int n = statistics_numbers(one, "second", d);
        REQUIRE(statistics_numbers(one, "first", first) == n && n > 1, "%d values", n);
        for (int i = 0; i < n; i++) d[i] -= first[i];
        const StatSample s = stat_sample(d, n);
        statistics_check("mean", s.mean, json_number(one, "mean"), 1e-9);
        statistics_check("deviation", s.deviation, json_number(one, "deviation"), 1e-9);
        statistics_check("low", s.low, json_number(one, "low"), 1e-9);
        statistics_check("high", s.high, json_number(one, "high"), 1e-9);
        statistics_check("detectable", stat_detectable(s.deviation, n), json_number(one, "detectable"), 1e-9);
        statistics_check("prediction", stat_prediction(s.deviation, n), json_number(one, "prediction"), 1e-9);
        count++;
    }
    CHECK(count == 3, "%d cases", count);
    const StatSample alone = stat_sample(&(double){3}, 1);
    CHECK(alone.mean == 3 && isnan(alone.deviation) && isnan(alone.low) && isnan(stat_detectable(1, 1)) &&
              isnan(stat_prediction(1, 1)),
          "one value has the interval %g to %g", alone.low, alone.high);
    cJSON_Delete(json);
}

/* a, b and c of a fit, with their intervals, must be those of scipy's least squares. */
static void test_statistics_of_fits(void) {
    cJSON *json = statistics_fixture();
    const cJSON *one;
    int count = 0;
    PowerFit fit;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(json, "fits")) {
        double N[STATISTICS_MAX] = {0}, L[STATISTICS_MAX] = {0}, value[STATISTICS_MAX] = {0};
        double half[STATISTICS_MAX] = {0};
        const int n = statistics_numbers(one, "N", N);
        statistics_numbers(one, "L", L), statistics_numbers(one, "value", value);
        statistics_numbers(one, "half_width", half), count++;
        REQUIRE(power_fit(N, L, n, &fit), "%s: no fit", json_text(one, "name"));
        statistics_check("a", fit.value[0], value[0], 1e-5);
        statistics_check("b", fit.value[1] * pow(1e7, -fit.value[2]), value[1], 1e-5);
        statistics_check("c", fit.value[2], value[2], 1e-5);
        if (fit.df < 1) continue;
        statistics_check("interval of a", power_interval(&fit, 0), half[0], 1e-3);
        statistics_check("interval of c", power_interval(&fit, 2), half[2], 1e-3);
    }
    CHECK(count == 3, "%d cases", count);
    cJSON_Delete(json);

    /* the covariance of b is that of the same fit with N in other units, in which b is b' = b u^c */
    double N[] = {1e6, 3e6, 1e7, 4e7, 3e8}, x[5], L[] = {3.60, 3.21, 2.91, 2.61, 2.32};
    PowerFit other;
    for (int i = 0; i < 5; i++) x[i] = N[i] / 1e8;
    REQUIRE(power_fit(N, L, 5, &fit) && power_fit(x, L, 5, &other), "no fit");
    const double u = pow(1e8, fit.value[2]), ln = log(1e8), b = other.value[1];
    const double variance = u * u *
                            (other.covariance[1][1] + 2 * b * ln * other.covariance[1][2] +
                             b * b * ln * ln * other.covariance[2][2]);
    statistics_check("b", fit.value[1], b * u, 1e-6);
    statistics_check("variance of b", fit.covariance[1][1], variance, 1e-5);

    /* exactly three sizes: the curve goes through the means, and without another value there is no interval */
    const double three[] = {1e6, 1e7, 1e8}, losses[] = {4, 3, 2.5};
    REQUIRE(power_fit(three, losses, 3, &fit), "no fit");
    for (int i = 0; i < 3; i++)
        statistics_check("through the mean", power_at(&fit, three[i]), losses[i], 1e-9);
    CHECK(fit.df == 0 && isnan(power_interval(&fit, 2)), "an interval from nothing: %g",
          power_interval(&fit, 2));
    statistics_check("c", fit.value[2], log10(2), 1e-9);

    /* values on a straight line over log N, or that rise, determine no exponent */
    const double straight[] = {4, 3, 2}, rising[] = {2, 3, 3.5};
    CHECK(!power_fit(three, straight, 3, &fit), "a fit of a straight line: c %g", fit.value[2]);
    CHECK(!power_fit(three, rising, 3, &fit), "a fit of rising losses: b %g", fit.value[1]);
}

#define STATISTICS_TESTS(TEST)                                                                               \
    TEST(statistics_of_student)                                                                              \
    TEST(statistics_of_pairs)                                                                                \
    TEST(statistics_of_fits)

#endif
