/* Exercise 4: one row of standard attention, forward and backward. Complete both functions, then run

       make exercise-4

   The row sees `count` keys; s (count) are its scores, and key j has the value v_j: v (count, D), v[j * D + d]. */
#include <math.h>

void attention_row_forward(double *o, double *a, const double *s, const double *v, int count, int D);
void attention_row_backward(double *ds, double *dv, const double *dout, const double *a, const double *v,
                            const double *o, int count, int D);

/* a (count) = softmax(s), o (D) = sum_j a_j v_j. A score may be as large as 10,000. */
void attention_row_forward(double *o, double *a, const double *s, const double *v, int count, int D) {
    /* your lines go here */
    (void)o, (void)a, (void)s, (void)v, (void)count, (void)D;
}

/* ds (count) and dv (count, D), from dout (D), the gradient of o. Both are overwritten (=), not added to. */
void attention_row_backward(double *ds, double *dv, const double *dout, const double *a, const double *v,
                            const double *o, int count, int D) {
    /* your lines go here */
    (void)ds, (void)dv, (void)dout, (void)a, (void)v, (void)o, (void)count, (void)D;
}
