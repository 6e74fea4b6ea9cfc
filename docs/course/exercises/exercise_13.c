/* Exercise 13: a reduce-scatter. Complete both functions, then run

       make exercise-13 */
#include <math.h>

int slice_begin(int P, int n, int rank);
void reduce_scatter(double *x, int P, int n);

/* Where the slice of this rank begins in an array of P numbers that is divided among n ranks. slice_begin(P, n, n) is P. Any two
   slices differ by at most one number. */
int slice_begin(int P, int n, int rank) {
    /* your lines go here */
    (void)P, (void)n, (void)rank;
    return -1; /* says that nothing is written yet */
}

/* x (n, P): row r is the array of rank r. Afterwards the slice of rank r in row r is the sum of this slice over all rows, added in
   the order of the rows. All other numbers stay as they are. */
void reduce_scatter(double *x, int P, int n) {
    /* your lines go here */
    (void)x, (void)P, (void)n;
}
