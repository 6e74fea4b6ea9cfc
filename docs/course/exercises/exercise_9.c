/* Exercise 9: an update by AdamW. Complete the function, then run

       make exercise-9 */
#include <math.h>

void adamw(double *w, double *m, double *v, const double *g, int n, int t, double lr, double decay);

/* Update number t = 1, 2, ... of the parameters w (n) with the gradient g (n) and the moments m, v (n), which it also
   updates. beta1 = 0.9, beta2 = 0.95, eps = 1e-8; each update also shrinks w by the factor 1 - lr decay. */
void adamw(double *w, double *m, double *v, const double *g, int n, int t, double lr, double decay) {
    /* your lines go here */
    (void)w, (void)m, (void)v, (void)g, (void)n, (void)t, (void)lr, (void)decay;
}
