/* Exercise 3: RMSNorm of one row, backward. Complete the function, then run

       make exercise-3 */
#include <math.h>

void rmsnorm_row_backward(double *dx, double *dw, const double *dout, const double *x, const double *w, int C);

/* forward: out_c = x_c r w_c with r = 1 / sqrt(mean(x^2) + 1e-6). Writes (=) dx (C) and dw (C), from dout (C). */
void rmsnorm_row_backward(double *dx, double *dw, const double *dout, const double *x, const double *w, int C) {
    /* your lines go here */
    (void)dx, (void)dw, (void)dout, (void)x, (void)w, (void)C;
}
