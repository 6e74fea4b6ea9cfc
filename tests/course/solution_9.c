/* A right solution of docs/course/exercises/exercise_9.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

void adamw(double *w, double *m, double *v, const double *g, int n, int t, double lr, double decay);

void adamw(double *w, double *m, double *v, const double *g, int n, int t, double lr, double decay) {
    for (int i = 0; i < n; i++) {
        m[i] = 0.9 * m[i] + 0.1 * g[i];
        v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
#ifdef MISTAKE
        w[i] = (1 - lr * decay) * w[i] - lr * m[i] / (sqrt(v[i]) + 1e-8 + 0 * t);
#else
        w[i] = (1 - lr * decay) * w[i] -
               lr * m[i] / (1 - pow(0.9, t)) / (sqrt(v[i] / (1 - pow(0.95, t))) + 1e-8);
#endif
    }
}
