/* Exercise 12: a product in tiles. Complete the function, then run

       make exercise-12 */
#include <math.h>

long product_in_tiles(double *out, const double *x, const double *w, int M, int N, int K, int R, int S);

/* out (M, N) = x (M, K) . w (N, K)^T, computed in tiles of R rows and S columns of out; tiles at the edges are smaller. For each
   tile and each k, the numbers x[., k] of its rows and w[., k] of its columns are loaded once. Returns how many numbers were
   loaded. */
long product_in_tiles(double *out, const double *x, const double *w, int M, int N, int K, int R, int S) {
    /* your lines go here */
    (void)out, (void)x, (void)w, (void)M, (void)N, (void)K, (void)R, (void)S;
    return -1; /* says that nothing is written yet */
}
