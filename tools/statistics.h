/* statistics.h: the statistics of a few runs that differ in their seed, and a power law through models of several
   sizes. It needs nothing but the C library.

   stat_mean(x, n)              the mean; NaN without values
   stat_deviation(x, n)         the standard deviation, with n - 1 in its denominator; NaN for fewer than two values
   stat_t_cdf(t, df)            the probability that a Student-t variable with df degrees of freedom is at most t
   stat_t_quantile(p, df)       the t at which that probability is p; 0 < p < 1
   stat_sample(x, n)            mean, deviation, and the 95 % interval of the mean
   stat_detectable(deviation, n)   the smallest mean difference that n pairs could have shown
   stat_prediction(deviation, n)   by how much one more value may lie off the mean of n values
   power_fit(N, L, count, &fit)    fits L = a + b N^-c; false when the values determine no such curve
   power_at(&fit, N)            the fitted loss of a model with N parameters
   power_interval(&fit, k)      half the width of the 95 % interval of a (k = 0), b (1) or c (2)

   Formulas, with s the standard deviation of n values and t(p, df) the quantile:
     interval of a mean        mean +- t(0.975, n - 1) s / sqrt(n). Of the differences of pairs this is the paired t
                               interval: if 0 lies outside of it, a paired t test finds a difference at 5 %, two-sided
     detectable difference     (t(0.975, n - 1) + t(0.8, n - 1)) s / sqrt(n): about the mean difference that such a test
                               would find in 80 of 100 repetitions. The exact value, from the noncentral t distribution,
                               is 16 % larger for 2 pairs, 5 % for 3, 2 % for 4 and less than 2 % for more
     prediction                t(0.975, n - 1) s sqrt(1 + 1/n) */
#ifndef TOOLS_STATISTICS_H
#define TOOLS_STATISTICS_H

#include <math.h>
#include <stdbool.h>

#define STAT_LEVEL 0.975 /* of the quantile: 2.5 % on either side leave an interval of 95 % */
#define STAT_POWER 0.8

static inline double stat_mean(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return n > 0 ? sum / n : NAN;
}

static inline double stat_deviation(const double *x, int n) {
    const double mean = stat_mean(x, n);
    double squares = 0;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(squares / (n - 1)) : NAN;
}

/* ---- Student's t ---- */

/* The continued fraction of the incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17.22),
   evaluated from its front by Lentz's method. It converges fast for x < (a + 1) / (a + b + 2). */
static inline double stat_beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    if (fabs(d) < tiny) d = tiny;
    d = 1 / d;
    double value = d;
    for (int m = 1; m < 1000; m++) {
        const double terms[2] = {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                                 -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))};
        double factor = 1;
        for (int k = 0; k < 2; k++) {
            d = 1 + terms[k] * d, c = 1 + terms[k] / c;
            if (fabs(d) < tiny) d = tiny;
            if (fabs(c) < tiny) c = tiny;
            d = 1 / d;
            factor = d * c;
            value *= factor;
        }
        if (fabs(factor - 1) < 1e-15) break;
    }
    return value;
}

/* The regularised incomplete beta function I_x(a, b). */
static inline double stat_beta(double a, double b, double x) {
    if (!(x > 0)) return 0;
    if (x >= 1) return 1;
    const double front =
        exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)); /* x^a (1-x)^b / B(a, b) */
    if (x < (a + 1) / (a + b + 2)) return front * stat_beta_fraction(a, b, x) / a;
    return 1 - front * stat_beta_fraction(b, a, 1 - x) / b;
}

/* P(T <= t) = 1 - I_x(df/2, 1/2) / 2 for t >= 0, with x = df / (df + t^2). */
static inline double stat_t_cdf(double t, double df) {
    const double tail = 0.5 * stat_beta(0.5 * df, 0.5, df / (df + t * t));
    return t >= 0 ? 1 - tail : tail;
}

/* By bisection of the distribution function. */
static inline double stat_t_quantile(double p, double df) {
    if (p < 0.5) return -stat_t_quantile(1 - p, df);
    double low = 0, high = 1;
    while (stat_t_cdf(high, df) < p && high < 1e300) low = high, high *= 2;
    for (int i = 0; i < 200; i++) {
        const double middle = 0.5 * (low + high);
        if (stat_t_cdf(middle, df) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

/* ---- a few values ---- */

typedef struct {
    int n;
    double mean;
    double deviation; /* NaN for fewer than two values, and so are both ends of the interval */
    double low, high; /* the 95 % interval of the mean */
} StatSample;

static inline StatSample stat_sample(const double *x, int n) {
    StatSample s = {
        .n = n, .mean = stat_mean(x, n), .deviation = stat_deviation(x, n), .low = NAN, .high = NAN};
    if (n < 2) return s;
    const double half = stat_t_quantile(STAT_LEVEL, n - 1) * s.deviation / sqrt(n);
    s.low = s.mean - half, s.high = s.mean + half;
    return s;
}

static inline double stat_detectable(double deviation, int n) {
    if (n < 2) return NAN;
    return (stat_t_quantile(STAT_LEVEL, n - 1) + stat_t_quantile(STAT_POWER, n - 1)) * deviation / sqrt(n);
}

static inline double stat_prediction(double deviation, int n) {
    return n < 2 ? NAN : stat_t_quantile(STAT_LEVEL, n - 1) * deviation * sqrt(1 + 1.0 / n);
}

/* ---- L = a + b N^-c ---- */

typedef struct {
    double value[3];         /* a, b, c */
    double covariance[3][3]; /* of a, b and c; NaN without degrees of freedom */
    double deviation; /* of the values around the curve: sqrt(sum of squares / df); NaN where df is 0 */
    int df;           /* number of values - 3 */
} PowerFit;

#define POWER_C_MIN 0.001 /* exponents that are tried */
#define POWER_C_MAX 20.0

static inline double power_at(const PowerFit *fit, double N) {
    return fit->value[0] + fit->value[1] * pow(N, -fit->value[2]);
}

static inline double power_interval(const PowerFit *fit, int k) {
    return fit->df < 1 ? NAN : stat_t_quantile(STAT_LEVEL, fit->df) * sqrt(fit->covariance[k][k]);
}

/* For a given c the best a and b are those of a straight line through the points (x^-c, L). Returns the sum of
   squares. */
static inline double power_line(const double *x, const double *L, int count, double c, double *a, double *b) {
    double mean_u = 0, mean_L = 0, uu = 0, uL = 0, squares = 0;
    for (int i = 0; i < count; i++) mean_u += pow(x[i], -c) / count, mean_L += L[i] / count;
    for (int i = 0; i < count; i++) {
        const double u = pow(x[i], -c) - mean_u;
        uu += u * u, uL += u * (L[i] - mean_L);
    }
    *b = uL / uu, *a = mean_L - *b * mean_u;
    for (int i = 0; i < count; i++) {
        const double r = L[i] - *a - *b * pow(x[i], -c);
        squares += r * r;
    }
    return squares;
}

/* The inverse of a symmetric matrix of 3 x 3, by cofactors; false when there is none. */
static inline bool power_inverse(double m[3][3], double inverse[3][3]) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const int r0 = (j + 1) % 3, r1 = (j + 2) % 3, c0 = (i + 1) % 3, c1 = (i + 2) % 3;
            inverse[i][j] = m[r0][c0] * m[r1][c1] - m[r0][c1] * m[r1][c0];
        }
    const double determinant = m[0][0] * inverse[0][0] + m[0][1] * inverse[1][0] + m[0][2] * inverse[2][0];
    for (int i = 0; i < 9; i++) inverse[i / 3][i % 3] /= determinant;
    return determinant > 0 && isfinite(1 / determinant);
}

/* J^T J, with the rows of J the derivatives of a + b x^-c with respect to a, b and c; and J^T r. */
static inline void power_normal(const double *x, const double *L, int count, const double p[3],
                                double jj[3][3], double jr[3]) {
    for (int i = 0; i < 9; i++) jj[i / 3][i % 3] = 0;
    for (int k = 0; k < 3; k++) jr[k] = 0;
    for (int i = 0; i < count; i++) {
        const double u = pow(x[i], -p[2]), row[3] = {1, u, -p[1] * u * log(x[i])};
        const double r = L[i] - p[0] - p[1] * u;
        for (int k = 0; k < 3; k++) {
            jr[k] += row[k] * r;
            for (int l = 0; l < 3; l++) jj[k][l] += row[k] * row[l];
        }
    }
}

/* The exponent with the least sum of squares: the best of a grid, then a golden-section search between its neighbours.
   False when it lies at an end of the grid. */
static inline bool power_exponent(const double *x, const double *L, int count, double *c) {
    enum { GRID = 400 };
    const double step = log(POWER_C_MAX / POWER_C_MIN) / GRID, golden = 0.6180339887498949;
    double least = INFINITY, a, b;
    int best = 0;
    for (int i = 0; i <= GRID; i++) {
        const double squares = power_line(x, L, count, POWER_C_MIN * exp(step * i), &a, &b);
        if (squares < least) least = squares, best = i;
    }
    double low = log(POWER_C_MIN) + step * (best - 1), high = low + 2 * step;
    for (int i = 0; i < 60; i++) {
        const double left = high - golden * (high - low), right = low + golden * (high - low);
        if (power_line(x, L, count, exp(left), &a, &b) < power_line(x, L, count, exp(right), &a, &b))
            high = right;
        else
            low = left;
    }
    *c = exp(0.5 * (low + high));
    return best > 0 && best < GRID;
}

/* Least squares with equal weights. It is computed with x = N / N0, N0 the geometric mean of the sizes, since N^c would
   be a huge number; the last digits come from steps of the Gauss-Newton method. The covariance is s^2 (J^T J)^-1 with s
   the deviation around the curve, as scipy.optimize.curve_fit gives it. False when the best c is at an end of the range
   that is tried, when b is not above 0, or when the sizes are fewer than three. */
static inline bool power_fit(const double *N, const double *L, int count, PowerFit *fit) {
    enum { MOST = 512 };
    double x[MOST], N0 = 0, p[3], jj[3][3], jr[3], inverse[3][3];
    *fit = (PowerFit){.value = {NAN, NAN, NAN}, .deviation = NAN, .df = count - 3};
    if (count < 3 || count > MOST) return false;
    for (int i = 0; i < count; i++) N0 += log(N[i]) / count;
    for (int i = 0; i < count; i++) x[i] = N[i] / exp(N0);
    if (!power_exponent(x, L, count, &p[2])) return false;
    double squares = power_line(x, L, count, p[2], &p[0], &p[1]);
    for (int round = 0; round < 20; round++) {
        double next[3], a, b;
        power_normal(x, L, count, p, jj, jr);
        if (!power_inverse(jj, inverse)) return false;
        for (int k = 0; k < 3; k++)
            next[k] = p[k] + inverse[k][0] * jr[0] + inverse[k][1] * jr[1] + inverse[k][2] * jr[2];
        const double now = power_line(x, L, count, next[2], &a, &b);
        if (!(now <= squares)) break;
        squares = now, p[0] = a, p[1] = b, p[2] = next[2];
    }
    power_normal(x, L, count, p, jj, jr);
    if (!(p[1] > 0) || !power_inverse(jj, inverse)) return false;
    /* b = b' N0^c, so db = N0^c (db' + b' ln N0 dc) */
    const double scale = exp(N0 * p[2]), turn[3][3] = {{1, 0, 0}, {0, scale, scale * p[1] * N0}, {0, 0, 1}};
    fit->value[0] = p[0], fit->value[1] = p[1] * scale, fit->value[2] = p[2];
    fit->deviation = fit->df > 0 ? sqrt(squares / fit->df) : NAN;
    for (int i = 0; i < 9; i++) {
        double sum = 0;
        for (int k = 0; k < 9; k++) sum += turn[i / 3][k / 3] * inverse[k / 3][k % 3] * turn[i % 3][k % 3];
        fit->covariance[i / 3][i % 3] = fit->deviation * fit->deviation * sum;
    }
    return true;
}

#endif
