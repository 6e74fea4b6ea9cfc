/* A right solution of docs/course/exercises/exercise_6.c, with which tests/test_course.h tests its check; with
   -DMISTAKE it has a mistake of which the check knows the reason. */
#include <math.h>
#include <stdint.h>
#include <string.h>

double gelu_backward(double dout, double x);

double gelu_backward(double dout, double x) {
    const double factor = sqrt(2 / 3.141592653589793);
    const double s = 1 / (1 + exp(-2 * factor * (x + 0.044715 * x * x * x)));
#ifdef MISTAKE
    return dout * s;
#else
    return dout * (s + x * s * (1 - s) * 2 * factor * (1 + 3 * 0.044715 * x * x));
#endif
}
