/* Exercise 6: the derivative of gelu. Complete the function, then run

       make exercise-6 */
#include <math.h>

double gelu_backward(double dout, double x);

/* The gradient of x, from that of gelu(x) = x s(x) with s(x) = 1 / (1 + exp(-2u)) and u = sqrt(2/pi) (x + 0.044715 x^3). */
double gelu_backward(double dout, double x) {
    /* your lines go here */
    (void)dout, (void)x;
    return 12345.678; /* says that nothing is written yet */
}
