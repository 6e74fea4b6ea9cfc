/* A right solution of docs/course/exercises/exercise_3.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

void rmsnorm_row_backward(double *dx, double *dw, const double *dout, const double *x, const double *w,
                          int C);

void rmsnorm_row_backward(double *dx, double *dw, const double *dout, const double *x, const double *w,
                          int C) {
    double squares = 0, mean = 0;
    for (int c = 0; c < C; c++) squares += x[c] * x[c];
    const double r = 1 / sqrt(squares / C + 1e-6);
    for (int c = 0; c < C; c++) mean += dout[c] * w[c] * x[c] / C;
#ifdef MISTAKE
    mean = 0;
#endif
    for (int c = 0; c < C; c++) {
        dx[c] = r * (dout[c] * w[c] - x[c] * r * r * mean);
        dw[c] = dout[c] * x[c] * r;
    }
}
