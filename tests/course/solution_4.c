/* A right solution of docs/course/exercises/exercise_4.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>

void attention_row_forward(double *o, double *a, const double *s, const double *v, int count, int D);
void attention_row_backward(double *ds, double *dv, const double *dout, const double *a, const double *v,
                            const double *o, int count, int D);

void attention_row_forward(double *o, double *a, const double *s, const double *v, int count, int D) {
    double largest = s[0], sum = 0;
    for (int j = 0; j < count; j++) largest = fmax(largest, s[j]);
    for (int j = 0; j < count; j++) sum += a[j] = exp(s[j] - largest);
    for (int d = 0; d < D; d++) o[d] = 0;
    for (int j = 0; j < count; j++) {
        a[j] /= sum;
        for (int d = 0; d < D; d++) o[d] += a[j] * v[j * D + d];
    }
}

void attention_row_backward(double *ds, double *dv, const double *dout, const double *a, const double *v,
                            const double *o, int count, int D) {
    for (int j = 0; j < count; j++) {
        ds[j] = 0;
        for (int d = 0; d < D; d++) {
            dv[j * D + d] = a[j] * dout[d];
#ifdef MISTAKE
            ds[j] += a[j] * dout[d] * v[j * D + d];
#else
            ds[j] += a[j] * dout[d] * (v[j * D + d] - o[d]);
#endif
        }
    }
}
