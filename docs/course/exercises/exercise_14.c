/* Exercise 14: the interval of paired differences. Complete the function, then run

       make exercise-14 */
#include <math.h>

void paired_interval(double *low, double *high, const double *a, const double *b, int n, double t);

/* The 95 % interval, low to high, of the mean of b[i] - a[i] over n pairs. t: the quantile of the t distribution. */
void paired_interval(double *low, double *high, const double *a, const double *b, int n, double t) {
    /* your lines go here */
    (void)low, (void)high, (void)a, (void)b, (void)n, (void)t;
}
