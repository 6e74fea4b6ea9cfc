/* Exercise 5: one row of LASER attention, forward and backward. Complete both functions, then run

       make exercise-5

   The row sees `count` keys; s (count) are its scores, and key j has the value v_j: v (count, D), v[j * D + d]. */
#include <math.h>

void laser_row_forward(double *o, const double *s, const double *v, int count, int D);
void laser_row_backward(double *ds, double *dv, const double *dout, const double *s, const double *v, const double *o,
                        int count, int D);

/* o_d = log sum_j a_j exp(v_jd) with a = softmax(s). Scores and values may both be as large as 10,000, and as small as
   -10,000. So a key whose weight alone is 0 in double may still have the largest term of the sum. */
void laser_row_forward(double *o, const double *s, const double *v, int count, int D) {
    /* your lines go here */
    (void)o, (void)s, (void)v, (void)count, (void)D;
}

/* ds (count) and dv (count, D), from dout (D), the gradient of o. Both are overwritten (=), not added to. */
void laser_row_backward(double *ds, double *dv, const double *dout, const double *s, const double *v, const double *o,
                        int count, int D) {
    /* your lines go here */
    (void)ds, (void)dv, (void)dout, (void)s, (void)v, (void)o, (void)count, (void)D;
}
