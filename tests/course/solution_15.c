/* A right solution of docs/course/exercises/exercise_15.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

double best_parameters(double A, double alpha, double B, double beta, double K);

double best_parameters(double A, double alpha, double B, double beta, double K) {
#ifdef MISTAKE
    return pow(A / B * pow(K / 6, beta), 1 / (alpha + beta));
#else
    return pow(alpha * A / (beta * B) * pow(K / 6, beta), 1 / (alpha + beta));
#endif
}
