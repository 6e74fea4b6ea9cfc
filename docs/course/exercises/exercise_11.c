/* Exercise 11: a matrix product in blocks of tokens. Complete the function, then run

       make exercise-11 */
#include <math.h>

void linear_blocked(double *out, const double *x, const double *w, int N, int IC, int OC, int block);

/* out (N, OC) = x (N, IC) . w (OC, IC)^T. Takes `block` tokens at a time; for each block it goes through the rows of w, and for
   each row through the tokens of the block. N need not be divisible by the block. */
void linear_blocked(double *out, const double *x, const double *w, int N, int IC, int OC, int block) {
    /* your lines go here */
    (void)out, (void)x, (void)w, (void)N, (void)IC, (void)OC, (void)block;
}
