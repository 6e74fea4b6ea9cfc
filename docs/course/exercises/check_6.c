/* check_6.c: checks exercise_6.c, the derivative of gelu. */
#include "check.h"

double gelu_backward(double dout, double x);

static double x[1];
static const double factor = 0.7978845608028654; /* sqrt(2/pi) */

static double sigmoid(double z) { return 1 / (1 + exp(-z)); }
static double twin(void) { return x[0] * sigmoid(2 * factor * (x[0] + 0.044715 * x[0] * x[0] * x[0])); }

int main(void) {
    for (int i = -6; i <= 6; i++) {
        double want[1], got[1], without[1];
        x[0] = 0.75 * i;
        check_differences(want, x, 1, twin);
        got[0] = gelu_backward(3, x[0]), want[0] *= 3;
        without[0] = 3 * sigmoid(2 * factor * (x[0] + 0.044715 * x[0] * x[0] * x[0]));
        if (check_same(got, want, 1)) continue;
        if (got[0] == check_mark)
            check_wrong("gelu_backward() writes nothing to its result yet");
        else
            check_wrong("gelu_backward(3, %g) is %.6g, expected %.6g", x[0], got[0], want[0]);
        if (check_same(got, without, 1)) printf("    x is also in s(x): by the product rule x ds/dx is missing\n");
        break;
    }
    return check_finish(6);
}
