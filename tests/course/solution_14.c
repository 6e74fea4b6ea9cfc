/* A right solution of docs/course/exercises/exercise_14.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

void paired_interval(double *low, double *high, const double *a, const double *b, int n, double t);

void paired_interval(double *low, double *high, const double *a, const double *b, int n, double t) {
    double mean = 0, squares = 0;
    for (int i = 0; i < n; i++) mean += (b[i] - a[i]) / n;
    for (int i = 0; i < n; i++) squares += (b[i] - a[i] - mean) * (b[i] - a[i] - mean);
#ifdef MISTAKE
    const double half = t * sqrt(squares / n / n);
#else
    const double half = t * sqrt(squares / (n - 1) / n);
#endif
    *low = mean - half;
    *high = mean + half;
}
