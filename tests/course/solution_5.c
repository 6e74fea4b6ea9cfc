/* A right solution of docs/course/exercises/exercise_5.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>

void laser_row_forward(double *o, const double *s, const double *v, int count, int D);
void laser_row_backward(double *ds, double *dv, const double *dout, const double *s, const double *v,
                        const double *o, int count, int D);

/* log sum_j exp(s_j + v_j) */
static double log_sum_exp(const double *s, const double *v, int stride, int count) {
    double largest = -INFINITY, sum = 0;
    for (int j = 0; j < count; j++) largest = fmax(largest, s[j] + (v ? v[j * stride] : 0));
    for (int j = 0; j < count; j++) sum += exp(s[j] + (v ? v[j * stride] : 0) - largest);
    return largest + log(sum);
}

void laser_row_forward(double *o, const double *s, const double *v, int count, int D) {
    for (int d = 0; d < D; d++) o[d] = log_sum_exp(s, v + d, D, count) - log_sum_exp(s, 0, 0, count);
}

void laser_row_backward(double *ds, double *dv, const double *dout, const double *s, const double *v,
                        const double *o, int count, int D) {
    const double lse = log_sum_exp(s, 0, 0, count);
    for (int j = 0; j < count; j++) {
        ds[j] = 0;
        for (int d = 0; d < D; d++) {
            const double p = exp(s[j] - lse + v[j * D + d] - o[d]);
            dv[j * D + d] = dout[d] * p;
#ifdef MISTAKE
            ds[j] += dout[d] * exp(s[j] - lse) * (v[j * D + d] - o[d]);
#else
            ds[j] += dout[d] * (p - exp(s[j] - lse));
#endif
        }
    }
}
