/* check_3.c: checks exercise_3.c, RMSNorm of one row, backward. */
#include "check.h"

void rmsnorm_row_backward(double *dx, double *dw, const double *dout, const double *x, const double *w, int C);

enum { C = 6 };
static double x[C], w[C], dout[C];

static double twin(void) {
    double squares = 0, loss = 0;
    for (int c = 0; c < C; c++) squares += x[c] * x[c];
    for (int c = 0; c < C; c++) loss += dout[c] * x[c] * w[c] / sqrt(squares / C + 1e-6);
    return loss;
}

int main(void) {
    double dx[C], dw[C], want_dx[C], want_dw[C], constant_r[C], squares = 0;
    check_random(x, C, 1), check_random(w, C, 1), check_random(dout, C, 1);
    check_unwritten(dx, C), check_unwritten(dw, C);
    rmsnorm_row_backward(dx, dw, dout, x, w, C);
    check_differences(want_dx, x, C, twin), check_differences(want_dw, w, C, twin);
    for (int c = 0; c < C; c++) squares += x[c] * x[c];
    for (int c = 0; c < C; c++) constant_r[c] = dout[c] * w[c] / sqrt(squares / C + 1e-6);
    check_array("rmsnorm_row_backward", "dw", dw, want_dw, C);
    if (!check_array("rmsnorm_row_backward", "dx", dx, want_dx, C) && check_same(dx, constant_r, C))
        printf("    r is treated as a constant: x also changes all outputs through r\n");
    return check_finish(3);
}
