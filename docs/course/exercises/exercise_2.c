/* Exercise 2: rotary positions. Complete both functions, then run

       make exercise-2 */
#include <math.h>

void rope_forward(double *x, int t, int D);
void rope_backward(double *dx, int t, int D);

/* Turns the pairs (x[d], x[d + D/2]) of x (D), which stands at position t, by the angle t * 10000^(-2d/D). */
void rope_forward(double *x, int t, int D) {
    /* your lines go here */
    (void)x, (void)t, (void)D;
}

/* Turns dx (D) from the gradient of what rope_forward returns into that of what it was given. */
void rope_backward(double *dx, int t, int D) {
    /* your lines go here */
    (void)dx, (void)t, (void)D;
}
