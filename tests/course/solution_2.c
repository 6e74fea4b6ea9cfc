/* A right solution of docs/course/exercises/exercise_2.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

void rope_forward(double *x, int t, int D);
void rope_backward(double *dx, int t, int D);

static void turn(double *x, int t, int D, double direction) {
    for (int d = 0; d < D / 2; d++) {
        const double angle = direction * t * pow(10000, -2.0 * d / D), a = x[d], b = x[d + D / 2];
        x[d] = a * cos(angle) - b * sin(angle);
        x[d + D / 2] = b * cos(angle) + a * sin(angle);
    }
}

void rope_forward(double *x, int t, int D) { turn(x, t, D, 1); }

void rope_backward(double *dx, int t, int D) {
#ifdef MISTAKE
    turn(dx, t, D, 1);
#else
    turn(dx, t, D, -1);
#endif
}
