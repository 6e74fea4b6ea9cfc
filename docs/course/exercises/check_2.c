/* check_2.c: checks exercise_2.c, rotary positions. */
#include "check.h"

void rope_forward(double *x, int t, int D);
void rope_backward(double *dx, int t, int D);

enum { D = 8, T = 5 };
static double x[D], dout[D], turned[D];

/* The naive twin. Returns the loss sum_d dout_d turned_d. */
static double twin(void) {
    double loss = 0;
    for (int d = 0; d < D / 2; d++) {
        const double angle = T * pow(10000, -2.0 * d / D);
        turned[d] = x[d] * cos(angle) - x[d + D / 2] * sin(angle);
        turned[d + D / 2] = x[d + D / 2] * cos(angle) + x[d] * sin(angle);
    }
    for (int d = 0; d < D; d++) loss += dout[d] * turned[d];
    return loss;
}

int main(void) {
    double got[D], want[D], forward_again[D];
    check_random(x, D, 1), check_random(dout, D, 1);
    twin();
    for (int d = 0; d < D; d++) got[d] = x[d];
    rope_forward(got, T, D);
    if (check_same(got, x, D))
        check_wrong("rope_forward() writes nothing to x yet");
    else
        check_array("rope_forward", "x", got, turned, D);
    check_differences(want, x, D, twin);
    for (int d = 0; d < D; d++) got[d] = dout[d], x[d] = dout[d];
    rope_backward(got, T, D);
    twin(); /* of dout, which is now in x */
    for (int d = 0; d < D; d++) forward_again[d] = turned[d];
    if (check_same(got, dout, D))
        check_wrong("rope_backward() writes nothing to dx yet");
    else if (!check_array("rope_backward", "dx", got, want, D) && check_same(got, forward_again, D))
        printf("    dx is turned in the direction of forward; it must be turned back\n");
    return check_finish(2);
}
